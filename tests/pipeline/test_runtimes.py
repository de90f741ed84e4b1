"""Which runtime runs a model, one line for each refusal, and the whole command line where torch is not installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from chromatune import Colorizer
from chromatune.cli import main
from chromatune.errors import MissingExtraError, ModelError, OptionsError
from chromatune.pipeline import runtimes
from chromatune.pipeline.model_files import find_pipeline
from chromatune.pipeline.runtimes import choose_runtime, onnx_problem

Situation = Callable[..., None]


@pytest.fixture
def situation(monkeypatch: pytest.MonkeyPatch) -> Situation:
    """Sets what is installed, and what the machine has."""

    def arrange(*, with_torch: bool = True, gpu: bool = False) -> None:
        monkeypatch.setattr(runtimes, "has_torch", lambda: with_torch)
        monkeypatch.setattr(runtimes, "_may_have_gpu", lambda: gpu)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)

    return arrange


@pytest.mark.parametrize("device", [None, "cpu", "cuda", "cuda:1", "mps", "coreml", "directml", "openvino"])
@pytest.mark.parametrize("gpu", [True, False])
@pytest.mark.parametrize("with_torch", [True, False])
@pytest.mark.parametrize("graphs", [True, False])
def test_what_is_chosen_where_nobody_insists(
    situation, graph_pipeline, encoder_pipeline, device, gpu, with_torch, graphs
):
    situation(with_torch=with_torch, gpu=gpu)
    files = find_pipeline(str(graph_pipeline if graphs else encoder_pipeline))
    others = device in ("coreml", "directml", "openvino")  # which torch does not know
    on_gpu = device in ("cuda", "cuda:1", "mps") or (device is None and gpu)
    if not graphs and (others or not with_torch):
        with pytest.raises(ModelError if others else MissingExtraError):
            choose_runtime(files, device)
        return
    expected = "onnx" if graphs and (others or not with_torch or not on_gpu) else "torch"
    assert choose_runtime(files, device) == expected


@pytest.mark.parametrize("device", [None, "cpu", "cuda"])
@pytest.mark.parametrize("gpu", [True, False])
def test_one_may_insist(situation, graph_pipeline, encoder_pipeline, device, gpu):
    situation(gpu=gpu)
    files, bare = find_pipeline(str(graph_pipeline)), find_pipeline(str(encoder_pipeline))
    assert [choose_runtime(files, device, each) for each in ("onnx", "torch")] == ["onnx", "torch"]
    assert choose_runtime(bare, device, "torch") == "torch"
    with pytest.raises(ModelError, match="has no ONNX parts, and does not run on ONNX Runtime; `chromatune export"):
        choose_runtime(bare, device, "onnx")
    situation(with_torch=False, gpu=gpu)
    for model in (files, bare):
        with pytest.raises(MissingExtraError, match=r"needs the extra 'torch': pip install 'chromatune\[torch\]'"):
            choose_runtime(model, device, "torch")


@pytest.mark.parametrize("runtime", ["tensorflow", "", "ONNX", "onnx\n"])
def test_other_runtimes_are_refused(graph_pipeline, runtime):
    with pytest.raises(OptionsError, match="accepted are onnx and torch") as caught:
        choose_runtime(find_pipeline(str(graph_pipeline)), None, runtime)
    assert "\n" not in str(caught.value)


def test_torch_is_not_loaded_where_there_is_no_gpu(situation, graph_pipeline, monkeypatch):
    situation(gpu=False)
    monkeypatch.setitem(sys.modules, "torch", None)  # an import of it fails
    assert choose_runtime(find_pipeline(str(graph_pipeline))) == "onnx"


@pytest.fixture
def copy(graph_pipeline: Path, tmp_path: Path) -> Path:
    shutil.copytree(graph_pipeline, tmp_path / "model")
    return tmp_path / "model"


def reset_scheduler(folder: Path, kind: str, **changes: object) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": kind} | changes))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", kind]}))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("PNDMScheduler", {}), ("LCMScheduler", {}), ("DDIMScheduler", {"thresholding": True}),
     ("EulerDiscreteScheduler", {"use_karras_sigmas": True})],
)  # fmt: skip
def test_a_schedule_that_is_not_followed_without_torch_takes_torch(situation, copy, kind, changes):
    situation()
    reset_scheduler(copy, kind, **changes)
    files = find_pipeline(str(copy))
    assert onnx_problem(files) == f"has a {kind} with settings that take torch"
    assert choose_runtime(files) == "torch"
    with pytest.raises(ModelError, match="take torch, and does not run on ONNX Runtime"):
        choose_runtime(files, None, "onnx")
    situation(with_torch=False)
    with pytest.raises(MissingExtraError, match=f"has a {kind} with settings that take torch, and running it needs"):
        choose_runtime(files)


def test_a_lora_takes_torch_to_be_merged(situation, tmp_path, graph_pipeline):
    situation(with_torch=False)
    (tmp_path / "chromatune.json").write_text(json.dumps({"base": str(graph_pipeline)}))
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"")
    files = find_pipeline(str(tmp_path))
    with pytest.raises(MissingExtraError, match="is a LoRA, and running it needs the extra 'torch'"):
        choose_runtime(files)
    with pytest.raises(ModelError, match="is a LoRA, and does not run on ONNX Runtime; `chromatune export"):
        choose_runtime(files, None, "onnx")


@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"])
def test_the_schedules_that_are_followed_run_by_onnx(copy, kind):
    reset_scheduler(copy, kind)
    gray = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    result = Colorizer.load(str(copy), device="cpu").colorize(gray)
    assert result.runtime == "onnx" and np.ptp(result.rgb.astype(int), axis=2).max() > 3


def test_the_result_says_which(graph_pipeline):
    gray = np.zeros((20, 20), np.uint8)
    for runtime in ("onnx", "torch"):
        assert Colorizer.load(str(graph_pipeline), device="cpu", runtime=runtime).colorize(gray).runtime == runtime
    assert Colorizer.load(str(graph_pipeline), device="cpu").colorize(gray).runtime == "onnx"


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["--runtime", "tf"], "runtime 'tf': accepted are onnx and torch", 2),
        (
            ["--runtime", "onnx", "--device", "cuda:1"],
            "device 'cuda:1' is not known to ONNX Runtime; accepted: cpu,",
            1,
        ),
        (["--runtime", "onnx", "--device", "tpu"], "device 'tpu' is not known to ONNX Runtime; accepted: cpu,", 1),
        (["--device", "openvino"], "this ONNX Runtime does not support openvino, only cpu", 1),
        (["--device", "coreml"], "this ONNX Runtime does not support coreml, only cpu", 1),
        (["--device", "directml", "--runtime", "torch"], "device 'directml' is not available here", 1),
        (["--device", "nonsense"], "device 'nonsense' is not available here", 1),
        (["--device", "a\nb"], "device 'a\\nb' is not available here", 1),
    ],
)
def test_refusals_on_the_command_line(folder, put, capsys, words, said, code):
    assert main(["colorize", str(put("a.png")), "--model", "mini", *words]) == code
    output = capsys.readouterr()
    assert output.out == "" and len(output.err.splitlines()) == 1
    assert output.err.startswith(f"error: {said}")
    assert not Path("a.color.png").exists()


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_the_command_line_takes_a_runtime(folder, put, capsys, graph_pipeline, runtime):
    photo, out = str(put("a.png")), f"{runtime}.png"
    words = ["--model", str(graph_pipeline), "--device", "cpu", "--runtime", runtime, "--seed", "3"]
    assert main(["colorize", photo, "-o", out, *words]) == 0
    expected = Colorizer.load(str(graph_pipeline), device="cpu", runtime=runtime)
    from chromatune import make_options

    np.testing.assert_array_equal(np.asarray(Image.open(out)), expected.colorize(photo, make_options(seed=3)).rgb)


class Hub:
    """Stands for the hub: a repository's files, and what of them was fetched."""

    def __init__(self, source: Path, cache: Path) -> None:
        self.source, self.cache, self.fetched = source, cache, set[str]()

    def snapshot_download(
        self, name: str, *, allow_patterns: list[str], ignore_patterns: list[str] | None = None
    ) -> str:
        from fnmatch import fnmatch

        for path in [path for path in self.source.rglob("*") if path.is_file()]:
            file = path.relative_to(self.source).as_posix()
            if any(fnmatch(file, pattern) for pattern in allow_patterns):
                self.fetched.add(file)
                (self.cache / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, self.cache / file)
        return str(self.cache)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Hub]:
    import huggingface_hub

    def serve(source: Path) -> Hub:
        made = Hub(source, tmp_path / "hub")
        monkeypatch.setattr(huggingface_hub, "snapshot_download", made.snapshot_download)
        return made

    return serve


def test_graphs_on_the_hub_are_fetched_with_a_model_of_ours(hub, graph_pipeline):
    served = hub(graph_pipeline)
    assert Colorizer.load("some/body", device="cpu").backend.runtime == "onnx"
    assert {"unet/model.onnx", "unet/diffusion_pytorch_model.safetensors", "tokenizer/tokenizer.json"} <= served.fetched


def test_without_torch_nothing_large_is_fetched_that_would_not_run(hub, tiny_pipeline, monkeypatch):
    served = hub(tiny_pipeline("kl"))
    monkeypatch.setattr("chromatune.pipeline.model_files.has_torch", lambda: False)
    with pytest.raises(MissingExtraError, match="some/body has no ONNX files, and running it needs"):
        find_pipeline("some/body")
    assert served.fetched and all(file.endswith((".json", ".txt")) for file in served.fetched)


def test_load_pipeline_without_torch_says_what_to_install(tiny_pipeline_dir, monkeypatch):
    from chromatune import load_pipeline

    monkeypatch.setattr("chromatune.pipeline.loading.has_torch", lambda: False)
    with pytest.raises(MissingExtraError, match="by torch needs the extra 'torch'"):
        load_pipeline(str(tiny_pipeline_dir))


# An interpreter in which the extras are not installed, as far as anything in it can see
LIGHT = """
import sys, importlib.machinery
hidden = set({hidden!r}.split())
class Core(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in hidden else super().find_spec(name, path, target)
sys.meta_path = [Core if each is importlib.machinery.PathFinder else each for each in sys.meta_path]
from chromatune.cli import main
for words in {commands!r}:
    code = main(words)
    print("code", code, flush=True)
    print("code", code, flush=True, file=sys.stderr)
assert not hidden & {{name.split(".")[0] for name in sys.modules}}, "loaded what is not there"
"""
HEAVY = "torch torchvision diffusers transformers safetensors accelerate peft onnx onnxscript onnx_ir datasets kornia"
PAGES = "matplotlib jinja2 tensorboard skimage pillow_heif"


def lightly(*commands: list[str], hidden: str = f"{HEAVY} {PAGES}") -> list[tuple[int, list[str], list[str]]]:
    """Exit code, lines and lines of errors of each command, in one interpreter without the extras."""
    script = LIGHT.format(hidden=hidden, commands=list(commands))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=300,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    codes = [int(code) for code in re.findall(r"^code (\d+)$", done.stdout, re.MULTILINE)]
    assert len(codes) == len(commands)
    outputs, errors = (re.split(r"^code \d+\n", text, flags=re.MULTILINE) for text in (done.stdout, done.stderr))
    lines = [(output.splitlines(), error.splitlines()) for output, error in zip(outputs, errors, strict=True)]
    return [(code, *each) for code, each in zip(codes, lines[:-1], strict=True)]  # after the last one comes nothing


@pytest.fixture
def photos(folder: Path) -> Path:
    """Three photos in color."""
    rng = np.random.default_rng(3)
    Path("photos").mkdir()
    for index in range(3):
        squares = np.kron(rng.integers(0, 256, (6, 8, 3)), np.ones((48, 48, 1)))
        Image.fromarray(squares.astype(np.uint8)).save(f"photos/{index}.png")
    return Path("photos")


def test_without_the_extras_photos_are_colorized(photos):
    names = [f"photos/{index}.png" for index in range(3)]
    size = ["--size", "64"]
    helped, models, one, many, variants, words, base, onnx, inspected, hub, evaluated = lightly(
        ["--help"],
        ["models"],
        ["colorize", names[0], *size],
        ["colorize", *names, "-o", "many", *size],
        ["colorize", names[0], "-o", "variants", "--variants", "2", *size],
        ["colorize", names[1], "-o", "words.png", "--prompt", "a red coat", "--negative-prompt", "gray",
         "--guidance-scale", "2", *size],
        ["colorize", names[2], "-o", "base.jpg", "--model", "mini-base", *size],
        ["colorize", names[2], "-o", "again.jpg", "--runtime", "onnx", "--device", "cpu", *size],
        ["data", "inspect", "photos"],
        ["colorize", names[1], "--model", "timbrooks/instruct-pix2pix"],
        ["evaluate", "photos", "--model", "mini"],
    )  # fmt: skip
    assert helped[0] == 0 and any("colorize" in line for line in helped[1])
    assert models[0] == 0 and [line.split("\t")[0] for line in models[1]] == ["mini", "mini-base"]
    assert (one[0], one[1]) == (0, ["photos/0.color.png"])
    assert (many[0], many[1]) == (0, [f"many/{index}.png" for index in range(3)])
    assert (variants[0], variants[1]) == (0, ["variants/0-1.png", "variants/0-2.png"])
    assert [each[0] for each in (words, base, onnx, inspected)] == [0] * 4
    assert all(Path(name).stat().st_size for name in ("words.png", "base.jpg", "again.jpg"))
    assert hub[:2] == (1, []) and len(hub[2]) == 1 and hub[2][0].startswith("error: timbrooks/instruct-pix2pix: ")
    needs = "error: the report (matplotlib) needs the extra 'evaluate': pip install 'chromatune[evaluate]'"
    assert evaluated == (1, [], [needs])  # before anything is measured


def test_without_torch_models_are_evaluated_and_the_rest_says_what_to_install_in_one_line(
    photos, tiny_pipeline_dir, tmp_path_factory
):
    lora = Path("lora")
    lora.mkdir()
    (lora / "chromatune.json").write_text('{"base": "mini"}')
    (lora / "pytorch_lora_weights.safetensors").write_bytes(b"\0" * 64)
    Path("network.pt").write_bytes(b"x")
    photo = "photos/0.png"
    cases = {
        "train": [
            ["finetune", "photos"], ["finetune", "photos", "--preset", "lora"], ["finetune", "photos", "--export-onnx"],
        ],
        "export": [["export", "mini", "out"], ["export", str(tiny_pipeline_dir), "out", "--to", "onnx"]],
        "torch": [
            ["colorize", photo, "--runtime", "torch"], ["colorize", photo, "--model", str(tiny_pipeline_dir)],
            ["colorize", photo, "--model", "lora"],
            ["evaluate", "photos", "--model", str(tiny_pipeline_dir), "-o", "e1"],
            ["evaluate", "photos", "--model", "mini", "--lpips", "alex:network.pt", "-o", "e2"],
            ["evaluate", "photos", "--model", "mini", "--fid", "tf-inception:network.pt", "-o", "e3"],
        ],
    }  # fmt: skip
    commands = [(extra, words) for extra, each in cases.items() for words in each]
    evaluate = ["evaluate", "photos", "--model", "mini", "--size", "64", "-o", "evaluation"]
    evaluated, *others = lightly(evaluate, *(words for _, words in commands), hidden=HEAVY)
    assert evaluated[0] == 0 and "evaluation/report.html" in evaluated[1]
    assert any(line.startswith("| mini |") for line in evaluated[1])
    for (extra, words), (code, lines, errors) in zip(commands, others, strict=True):
        assert code == 1 and not lines and len(errors) == 1, (words, lines, errors)
        assert errors[0].startswith("error: "), words
        assert errors[0].endswith(f"needs the extra '{extra}': pip install 'chromatune[{extra}]'"), (words, errors)
    assert not Path("out").exists() and not Path("photos/0.color.png").exists()
