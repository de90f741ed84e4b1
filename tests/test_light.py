"""What `pip install chromatune` gives: the core dependencies alone, from the wheel, in an environment of its own.

Slow: it installs from the package index, and is skipped where that cannot be reached.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
LARGEST_WHEEL = 90 * 2**20  # bytes
HEAVY = ("torch", "diffusers", "transformers", "safetensors", "accelerate", "onnx", "onnxscript", "matplotlib")
GRAPHS = ("text_encoder", "vae_encoder", "unet", "vae_decoder")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built from a copy of the repository's sources."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copyfile(ROOT / name, folder / "source" / name)
    shutil.copytree(ROOT / "src", folder / "source" / "src", ignore=shutil.ignore_patterns("__pycache__"))
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(folder), str(folder / "source"))
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the core dependencies alone."""
    folder = tmp_path_factory.mktemp("light") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=300)
    interpreter = folder / "bin" / "python"
    pip(str(interpreter), "install", "-c", str(ROOT / "constraints.txt"), str(wheel))
    return interpreter


def pip(interpreter: str, *words: str) -> None:
    command = [interpreter, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    if any(words in done.stderr.lower() for words in ("connection", "name resolution")):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def run(python: Path, tmp_path: Path):
    """Runs the installed command; exit code, lines and lines of errors."""
    rng = np.random.default_rng(3)
    for index in range(2):
        squares = np.kron(rng.integers(0, 256, (6, 8)), np.ones((40, 40)))
        Image.fromarray(squares.astype(np.uint8)).save(tmp_path / f"{index}.png")

    def command(*words: str) -> tuple[int, list[str], list[str]]:
        program = [str(python.parent / "chromatune"), *words]
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(program, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment)
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    return command


def test_both_models_with_their_graphs_are_in_the_wheel(wheel):
    assert wheel.stat().st_size <= LARGEST_WHEEL
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    for model in ("mini", "mini-base"):
        parts = (*GRAPHS, "photo_encoder") if model == "mini" else GRAPHS
        wanted = [f"{part}/model.onnx" for part in parts]
        wanted += ["unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"]
        wanted += ["text_encoder/model.safetensors", "tokenizer/tokenizer.json", "model_index.json", "chromatune.json"]
        assert not {f"chromatune/models/{model}/{name}" for name in wanted} - names


def test_nothing_heavy_is_installed(python):
    code = f"from importlib.util import find_spec; print([name for name in {HEAVY} if find_spec(name)])"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_it_colorizes(run, tmp_path):
    code, lines, errors = run("--help")
    assert code == 0 and not errors and any("colorize" in line for line in lines)
    code, lines, errors = run("models")
    assert code == 0 and not errors and [line.split("\t")[0] for line in lines] == ["mini", "mini-base"]
    assert run("colorize", "0.png") == (0, ["0.color.png"], [])
    assert run("colorize", "0.png", "1.png", "-o", "many") == (0, ["many/0.png", "many/1.png"], [])
    variants = ["v/0-1.png", "v/0-2.png"]
    assert run("colorize", "0.png", "-o", "v", "--variants", "2", "--seed", "4") == (0, variants, [])
    words = ("--prompt", "a red coat", "--guidance-scale", "2", "--model", "mini-base")
    assert run("colorize", "0.png", "-o", "words.jpg", *words) == (0, ["words.jpg"], [])
    first, second = (np.asarray(Image.open(tmp_path / name)) for name in variants)
    assert first.shape == (240, 320, 3) and (first != second).any()
    code, lines, errors = run("data", "inspect", ".")
    assert code == 0 and lines


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("finetune", "."), "train"),
        (("export", "mini", "out"), "export"),
        (("evaluate", ".", "--model", "mini"), "evaluate"),
        (("colorize", "0.png", "--runtime", "torch"), "torch"),
    ],
)
def test_the_rest_says_what_to_install(run, words, extra):
    code, lines, errors = run(*words)
    assert code == 1 and not lines and len(errors) == 1
    assert errors[0].endswith(f"pip install 'chromatune[{extra}]'")
