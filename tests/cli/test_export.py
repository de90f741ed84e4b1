"""`chromatune export`, and `finetune --export-onnx`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromatune import Colorizer, pipeline
from chromatune.cli import main


def test_the_difference_is_printed(folder, capsys, monkeypatch):
    asked = []

    def fake(model, out, *, start_stage):
        asked.append((model, out))
        start_stage("exporting", 1)()
        return 0.5 / 255

    monkeypatch.setattr(pipeline, "export_onnx", fake)
    assert main(["export", "mini", "out"]) == 0
    assert capsys.readouterr().out == "out\tlargest difference from torch: 0.500 levels of 255\n"
    assert main(["export", "mini", "out", "--to", "onnx"]) == 0
    assert asked == [("mini", Path("out"))] * 2


@pytest.mark.parametrize("to", ["coreml", "", "ONNX", "a\nb"])
def test_other_forms_are_refused(folder, capsys, to):
    assert main(["export", "mini", "out", "--to", to]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and error.startswith("error: --to ") and "accepted is onnx" in error
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["unknown", "out"], "unknown model 'unknown'"),
        (["mini", "full"], "full holds 'thesis.txt'"),
        (["mini", "full/thesis.txt"], "full/thesis.txt is not a folder"),
    ],
)
def test_refusals_are_one_line_and_write_nothing(folder, capsys, words, said):
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("years")
    assert main(["export", *words]) == 1
    output = capsys.readouterr()
    assert (
        output.out == ""
        and len(output.err.splitlines()) == 1
        and output.err.startswith("error: ")
        and said in output.err
    )
    assert [path.name for path in Path().iterdir()] == ["full"] and Path("full/thesis.txt").read_text() == "years"


def test_a_lora_is_not_exported_by_its_training(folder, capsys):
    assert main(["finetune", "photos", "--preset", "lora", "--export-onnx"]) == 2
    error = capsys.readouterr().err
    assert error == (
        "error: --export-onnx needs a whole model; after the run: chromatune export finetuned-lora/model OUT\n"
    )
    assert not list(Path().iterdir())


def test_a_scheduler_that_takes_torch_is_told_before_the_training(folder, capsys, tiny_pipeline):
    model = str(tiny_pipeline("tiny", "PNDMScheduler"))
    capsys.readouterr()  # of the libraries that made it
    words = ["finetune", "photos", "--model", model, "--export-onnx", "--set", "zero_terminal_snr=false"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "has a PNDMScheduler with settings that take torch" in error
    assert not list(Path().iterdir())


@pytest.mark.slow
def test_finetune_adds_graphs(folder, capsys, tiny_pipeline_dir, fresh_accelerate):
    rng = np.random.default_rng(3)
    Path("photos").mkdir()
    for index in range(6):
        squares = np.kron(rng.integers(0, 256, (6, 6, 3)), np.ones((8, 8, 1)))
        Image.fromarray(squares.astype(np.uint8)).save(f"photos/{index}.png")
    words = ["size_px=32", "batch=2", "validate_every=2", "validation_photos=1", "cache_variants=1"]
    settings = [word for each in words for word in ("--set", each)]
    words = ["finetune", "photos", "--model", str(tiny_pipeline_dir), "-o", "run", "--max-steps", "2", "--export-onnx"]
    assert main([*words, *settings]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "run/model"
    gray = rng.integers(0, 256, (40, 40), dtype=np.uint8)
    results = [Colorizer.load("run/model", runtime=each, device="cpu").colorize(gray) for each in ("onnx", "torch")]
    assert Colorizer.load("run/model", device="cpu").backend.runtime == "onnx"
    assert np.abs(results[0].rgb.astype(int) - results[1].rgb.astype(int)).max() <= 1


@pytest.mark.slow
def test_a_shipped_model_is_exported(folder, capsys):
    """The first form of the command: what comes out is what ships."""
    assert main(["export", "mini-base", "out"]) == 0
    output = capsys.readouterr()
    path, difference = output.out.removesuffix("\n").split("\t")
    assert path == "out" and float(difference.split()[-4]) < 0.1
    assert Colorizer.load("out").backend.runtime == "onnx"
