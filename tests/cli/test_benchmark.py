"""`chromatune benchmark` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from chromatune.cli import main

Capture = pytest.CaptureFixture[str]
NAME = "ILSVRC2012_val_{:08d}"


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two photos of val5k, and what another tool made of one of them."""
    monkeypatch.chdir(tmp_path)
    for folder in ("val", "theirs", "other"):
        (tmp_path / folder).mkdir()
    for number, name in enumerate(("coffee", "rocket"), 1):
        Image.fromarray(getattr(skimage.data, name)()).resize((96, 80)).save(f"val/{NAME.format(number)}.png")
    Image.fromarray(np.full((256, 256, 3), 90, np.uint8)).save(f"theirs/{NAME.format(1)}.png")
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save("other/cat.png")
    return tmp_path / "val"


def test_published_rows_and_each_difference_are_printed(photos: Path, tiny_pipeline_dir: Path, capsys: Capture) -> None:
    typed = f"benchmark val5k val --model {tiny_pipeline_dir} --best-of 2 --device cpu --seed 3 --out out"
    assert main(typed.split()) == 0
    output = capsys.readouterr()
    assert output.err == ""
    lines = output.out.splitlines()
    names = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    model = tiny_pipeline_dir.name
    assert names[2:5] == ["gray", model, f"{model}, best of 2"] and "DDColor-L" in names
    assert any(line.startswith("Warning: in rows “best of 2”") and "upper bound" in line for line in lines)
    assert any(line.startswith("List: 5,000 names, SHA-256 149b433846abded7…, as published") for line in lines)
    assert f"Differs: 4,998 photos of the list are not there, the first: {NAME.format(3)}." in lines
    assert "Seeds: one for all photos (3); in rows “best of 2”, each photo's best of 3 to 4." in lines
    assert lines[-2:] == ["out/report.html", "out/summary.json"]
    command = json.loads(Path("out/summary.json").read_text())["protocol"]["command"]
    assert (
        command
        == f"chromatune benchmark val5k val --model {tiny_pipeline_dir} --best-of 2 --seed 3 --device cpu --out out"
    )
    capsys.readouterr()
    assert main(command.split()[1:]) == 0


def test_a_missing_result_is_told_and_the_rest_goes_on(photos: Path, capsys: Capture) -> None:
    assert main(["benchmark", "val5k", "val", "--results", "x=theirs", "--out", "out"]) == 1
    output = capsys.readouterr()
    assert output.err.splitlines() == [f"error: 2 results have no score, the first: x, {NAME.format(2)}.png: missing"]
    assert "| x | 1 |" in output.out


def test_videos_are_measured_one_by_one(engine, tmp_path: Path, monkeypatch, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(20, 220, (8, 12, 3)).astype(np.uint8), np.ones((8, 8, 1), np.uint8))
    for name in ("blackswan", "camel", "dog"):
        (tmp_path / "480p" / name).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(picture[:48, number : number + 64]).save(f"480p/{name}/{number:05d}.png")
    assert main(["benchmark", "davis", "480p", "--model", "mini", "--limit", "2", "-o", "out"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "ΔCF, by video" in lines[0] and any(line.startswith("| mini, through time |") for line in lines)
    assert "Differs: 2 videos are measured, and 30 were published." in lines
    assert lines[-1] == "out/video.json"
    assert json.loads(Path("out/video.json").read_text())["videos"] == 2
    assert sorted(path.name for path in Path("out/videos").iterdir()) == ["blackswan", "camel"]


@pytest.mark.parametrize(
    ("typed", "code", "message"),
    [
        ("benchmark val5k val", 2, "nothing to measure"),
        ("benchmark val9k val --model mini", 2, "SET 'val9k'"),
        ("benchmark val5k val --model mini --best-of 0", 2, "--best-of 0"),
        ("benchmark val5k val --model mini --fid x.pt", 2, "tf-inception, torchvision-inception, ddcolor-inception"),
        ("benchmark val5k val --model mini --fid ddcolor-inception:no.pt", 2, "--fid: no.pt is no file"),
        ("benchmark val5k nowhere --model mini", 1, "nowhere: no such folder; expected are the 5,000 photos"),
        ("benchmark coco val --model mini", 1, "5,000 photos of COCO-Stuff val2017, called like 000000000139"),
        ("benchmark val5k other --model mini", 1, "called like ILSVRC2012_val_00000001"),
        ("benchmark val5k val --model mini --list gone.txt", 1, "gone.txt: the list of names cannot be read"),
        (
            "benchmark davis val --model mini",
            1,
            "30 videos of DAVIS 2017 validation (DAVIS30), called like bike-packing",
        ),
        ("benchmark videvo val --model mini --best-of 2", 2, "--best-of is for photos"),
    ],
)
def test_one_line_says_what_is_wrong(photos: Path, capsys: Capture, typed: str, code: int, message: str) -> None:
    assert main(typed.split()) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("benchmark").exists()
