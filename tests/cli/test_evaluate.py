"""`chromatune evaluate` as it is typed, with the tiny pipeline."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from chromatune.cli import main
from chromatune.data import content_of, read_rgb
from chromatune.pipeline import TrainingSet, write_training_data

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("coffee", "rocket"):
        Image.fromarray(getattr(skimage.data, name)()).resize((64, 64)).save(folder / f"{name}.png")
    return folder


def test_tables_report_and_paths(photos: Path, tiny_pipeline_dir: Path, capsys: Capture) -> None:
    typed = f"evaluate {photos} --model {tiny_pipeline_dir} --size 64 --steps 1 --steps 2 --device cpu --out out"
    assert main(typed.split()) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "ΔCF field" in output.out
    assert output.out.splitlines()[-2:] == ["out/report.html", "out/summary.json"]
    summary = json.loads(Path("out/summary.json").read_text())
    assert [row["name"].split(", ", 1)[-1] for row in summary["rows"]] == [
        "gray",
        "1 step",
        "1 step, raw",
        "2 steps",
        "2 steps, raw",
    ]
    command = summary["protocol"]["command"]
    assert command.startswith(f"chromatune evaluate {photos} --model")
    assert "--steps 1 --steps 2" in command
    before = Path("out/summary.json").read_bytes()
    for name in ("coffee.color.png", "contact-sheet.png"):
        (photos / name).write_bytes((photos / "coffee.png").read_bytes())
    capsys.readouterr()
    assert main(command.split()[1:]) == 0
    said = "note: skipped 2 results of earlier runs among the photos, called NAME.color.EXT or contact-sheet.png"
    assert capsys.readouterr().err.splitlines() == [said]
    assert Path("out/summary.json").read_bytes() == before


def test_photos_that_the_model_was_trained_on_are_told(photos: Path, tiny_pipeline_dir: Path, capsys: Capture) -> None:
    shutil.copytree(tiny_pipeline_dir, "model")
    content = content_of(read_rgb(photos / "coffee.png", "coffee.png"))
    write_training_data(Path("model"), [TrainingSet.of("cups", [content])])
    assert main(f"evaluate {photos} --model model --size 64 --steps 1 --device cpu --out out".split()) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Warning")]
    assert "model, or a model that it comes from, was trained on 1 of the 2 photos measured (cups: 1)" in line


def test_what_cannot_be_read_is_told_and_the_rest_goes_on(photos: Path, capsys: Capture) -> None:
    (photos / "broken.jpg").write_bytes(b"x")
    (photos.parent / "theirs").mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save("theirs/rocket.png")
    assert main(["evaluate", "photos", "--results", "x=theirs", "--size", "64", "--out", "out"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith("error: 1 photo cannot be read, the first: broken.jpg")
    assert errors[1] == "error: 2 results have no score, the first: x, coffee.png: missing"
    assert Path("out/report.html").is_file()


@pytest.mark.parametrize(
    ("typed", "code", "message"),
    [
        ("evaluate photos", 2, "nothing to measure"),
        ("evaluate photos --model a --size 8", 2, "--size 8"),
        ("evaluate photos --results theirs", 2, "accepted is NAME=DIR"),
        ("evaluate photos --model a --split test", 2, "--split 'test'"),
        ("evaluate photos --model a --validation some", 2, "--validation 'some'"),
        ("evaluate photos --model a --lpips squeeze:x", 2, "--lpips 'squeeze:x': accepted is NAME:PATH"),
        ("evaluate photos --model mini --fid tf-inception:nowhere.pt", 2, "--fid: nowhere.pt is no file"),
        ("evaluate photos --model nowhere --size 64", 1, "unknown model 'nowhere'"),
        ("evaluate nowhere --model mini", 1, "no such folder"),
        ("evaluate photos --model mini --keys nowhere", 1, "list of keys cannot be read"),
    ],
)
def test_one_line_says_what_is_wrong(photos: Path, capsys: Capture, typed: str, code: int, message: str) -> None:
    assert main(typed.split()) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("evaluation").exists()


def test_an_empty_set_is_an_error(photos: Path, capsys: Capture) -> None:
    for path in photos.iterdir():
        path.write_bytes(b"x")
    assert main(["evaluate", "photos", "--model", "mini"]) == 1
    assert "no photo to measure (2 unreadable)" in capsys.readouterr().err


def test_help_loads_no_model_library() -> None:
    code = (
        "import sys; from chromatune.cli import main; main(['evaluate', '--help']); main(['benchmark', '--help']); "
        "main(['--help']); "
        "sys.exit(bool({'torch', 'diffusers', 'matplotlib', 'cv2', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--one-per-person" in done.stdout and "--best-of" in done.stdout
