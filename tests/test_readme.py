"""What the README tells people to type works, against a tiny model under the names of those that ship."""

from __future__ import annotations

import glob
import io
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from chromatune.cli import main
from chromatune.images import read_photo

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
]
PYTHON_BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands(program: str) -> list[str]:
    return [command for command in COMMANDS if command.split()[0] == program]


@pytest.fixture
def album(tmp_path: Path, tiny_pipeline_dir: Path, colorizer: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with the photos that the README speaks of, a colorizer, and a tiny model as mini and mini-base."""
    models = tmp_path / "models"
    models.mkdir()
    for name in ("mini", "mini-base"):
        (models / name).symlink_to(tiny_pipeline_dir)
    monkeypatch.setattr("chromatune.pipeline.model_files.MODELS_DIR", models)
    folder = tmp_path / "album"
    (folder / "scans").mkdir(parents=True)
    gray = np.linspace(0, 255, 48 * 40).reshape(40, 48)
    Image.fromarray(gray.astype(np.uint8)).save(folder / "portrait.jpg")
    for name in ("one", "two"):
        Image.fromarray((gray * 257).astype(np.uint16)).save(folder / "scans" / f"{name}.tif")
    layer = np.zeros((40, 48, 4), np.uint8)
    layer[10:14, 5:20] = (160, 48, 32, 255)
    Image.fromarray(layer).save(folder / "strokes.png")
    _write_video(folder / "film.mp4", gray)
    (folder / "ddcolor.onnx").write_bytes(Path(colorizer).read_bytes())
    (folder / "holidays").mkdir()
    rng = np.random.default_rng(0)
    for index in range(6):
        color = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((36, 36, 1)))  # 64 colored squares
        Image.fromarray(color.astype(np.uint8)).save(folder / "holidays" / f"{index}.jpg")
    (folder / "my-model").mkdir()
    (folder / "my-model" / "model").symlink_to(tiny_pipeline_dir)  # each command runs alone, also the one that uses it
    monkeypatch.chdir(folder)
    return folder


def _write_video(path: Path, gray: np.ndarray) -> None:
    with av.open(path, "w") as video:
        stream = video.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *gray.shape, "yuv420p"
        for number in range(8):
            frame = av.VideoFrame.from_ndarray(gray.astype(np.uint8), format="gray").reformat(format="yuv420p")
            frame.pts = number
            video.mux(stream.encode(frame))
        video.mux(stream.encode())


def test_every_command_is_of_a_known_program() -> None:
    assert {command.split()[0] for command in COMMANDS} == {"make", "pip", "chromatune"}
    assert len(PYTHON_BLOCKS) == 2


@pytest.mark.parametrize("command", commands("make"))
def test_make_targets_exist(command: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in command.split()[1:]:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("command", commands("pip"))
def test_pip_installs_what_the_project_declares(command: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    words = shlex.split(command)
    assert words[1] == "install"
    for extra in re.findall(r"\[(.+)\]", words[-1]):
        assert extra in extras
    if "-c" in words:
        assert (ROOT / words[words.index("-c") + 1]).is_file()


def slow_in_full(command: str) -> list[Any]:
    """The command, and once more where the fast suite spares it its work: an export takes a quarter of a minute."""
    is_export = command.split()[1] == "export"
    return [command, *([pytest.param(f"{command} --to onnx", marks=pytest.mark.slow)] if is_export else [])]


@pytest.mark.parametrize("command", [each for command in commands("chromatune") for each in slow_in_full(command)])
def test_commands_run(command: str, album: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary) -> None:
    words = shlex.split(command.replace("timbrooks/instruct-pix2pix", "mini"))[1:]  # tests stay offline
    if words[0] == "finetune":
        (album / "my-model" / "model").unlink()
        words += ["--max-steps", "2", "--set", "validation_photos=1"]
    if words[0] == "evaluate":
        words += ["--size", "64"]
    if words[0] == "export" and "--to" not in words:
        monkeypatch.setattr("chromatune.pipeline.export_onnx", lambda model, out, **more: len(model + out.name) / 255)
    if words[0] == "serve":  # it would go on until it is told to end
        monkeypatch.setattr("uvicorn.Server.run", lambda server, sockets: [each.close() for each in sockets])
        monkeypatch.setattr("webbrowser.open", lambda address: address.startswith("http://127.0.0.1:"))
    redirected = None
    if "<" in words:
        words, (_, source, _, redirected) = words[: words.index("<")], words[words.index("<") :]
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(source).read_bytes())))
    arguments = [name for word in words for name in (sorted(glob.glob(word)) if "*" in word else [word])]
    assert main(arguments) == 0
    output = capfdbinary.readouterr().out
    if redirected:
        assert read_photo(output).gray.shape == (40, 48)
    elif words[0] == "colorize" and "--help" not in words:
        results = output.decode().splitlines()
        assert results
        assert all(read_photo(album / result).gray.shape == (40, 48) for result in results)
    else:
        assert output


def test_python_blocks_run(album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for block in PYTHON_BLOCKS:
        exec(compile(block, "README.md", "exec"), {})
    assert (album / "portrait.seed7.jpg").is_file()
    assert sorted(path.name for path in album.glob("color of *")) == ["color of one.png", "color of two.png"]
    assert "left out" not in capsys.readouterr().out


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
