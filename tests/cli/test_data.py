"""`chromatune data`: what is printed, what is written, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromatune.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def people(folder: Path) -> Path:
    """LFW in small: three photos of two persons, a gray one and a broken one."""
    for seed, name in enumerate(("Ann/Ann_0001", "Ann/Ann_0002", "Bo/Bo_0001")):
        path = folder / "people" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((150, 140)).save(path)
    Image.new("L", (140, 140), 90).save(folder / "people" / "Bo" / "Bo_0002.png")
    (folder / "people" / "Bo" / "Bo_0003.png").write_bytes(b"junk")
    return Path("people")


def table(capsys: Capture) -> dict[str, list[str]]:
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    return {name: rest for name, *rest in rows}


def test_what_is_printed(people: Path, capsys: Capture) -> None:
    assert main(["data", "inspect", str(people)]) == 0
    rows = table(capsys)
    assert rows["source"] == ["people", "lfw"]
    assert rows["photos"] == ["5", "of 2 persons"]
    assert rows["usable"] == ["3", ""]
    assert rows["short side (px)"][0] == "140 140 140 140 140"
    assert len(rows["split hash"][0]) == 16
    assert rows["skipped: gray or sepia"] == ["1", "Bo/Bo_0002.png"]
    assert rows["skipped: broken"][1].startswith("Bo/Bo_0003.png: not a picture")
    assert "contact sheet" not in rows
    assert [path.name for path in Path().iterdir()] == ["people"]


def test_the_contact_sheet_is_written_where_asked(people: Path, capsys: Capture) -> None:
    assert main(["data", "inspect", f"folder:{people}", "--out", "a/b"]) == 0
    rows = table(capsys)
    assert rows["photos"] == ["5", ""]
    assert rows["contact sheet"][0] == str(Path("a/b/contact-sheet.png"))
    with Image.open("a/b/contact-sheet.png") as sheet:
        assert sheet.width > sheet.height
    assert main(["data", "inspect", str(people), "--out", "a/b/contact-sheet.png"]) == 1
    assert "contact-sheet.png" in capsys.readouterr().err


def test_limit(people: Path, capsys: Capture) -> None:
    assert main(["data", "inspect", str(people), "--limit", "2"]) == 0
    assert table(capsys)["usable"] == ["2", "of 2 opened"]


@pytest.mark.parametrize("arguments", [["--min-size", "141"], ["--min-size", "999", "--out", "x"]])
def test_no_usable_photo_is_one_line_and_exit_code_1(people: Path, capsys: Capture, arguments: list[str]) -> None:
    assert main(["data", "inspect", str(people), *arguments]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "error: people: no usable photo among 5 (1 broken, 4 too small); give other photos\n"
    assert not Path("x").exists()


def test_wrong_sources_and_usage(folder: Path, capsys: Capture) -> None:
    assert main(["data", "inspect", "gone"]) == 1
    assert main(["data", "inspect", "."]) == 1
    assert main(["data", "inspect", ".", "--limit", "0"]) == 2
    assert main(["data"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith("error: gone: no such folder; accepted: ")
    assert "inspect" in " ".join(errors)


def test_a_name_like_markup_is_printed_as_it_is(people: Path, capsys: Capture, monkeypatch) -> None:
    Path("people").rename("[bold]people")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["data", "inspect", "[bold]people"]) == 0
    assert "[bold]people" in capsys.readouterr().out


def test_inspecting_loads_no_model_library(people: Path) -> None:
    code = (
        "import sys; from chromatune.cli import main; main(['data', 'inspect', '--help']); "
        "print('cv2' in sys.modules); "
        "assert main(['data', 'inspect', 'people']) == 0; "
        "print([name for name in ('torch', 'diffusers', 'transformers', 'datasets', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    lines = done.stdout.splitlines()
    assert "False" in lines and lines[-1] == "[]"


def test_columns_by_name(people: Path, capsys: Capture) -> None:
    Path("people/metadata.csv").write_text("photo,caption\nAnn/Ann_0001.png,warm\nBo/Bo_0001.png,cool\n")
    columns = ["--column", "image=photo", "--column", "prompt=caption"]
    assert main(["data", "inspect", "people", *columns]) == 0
    rows = table(capsys)
    assert (rows["source"], rows["usable"][0]) == (["people", "table"], "2")
    assert rows["skipped: not named in the table"][0] == "3"
    for words, code, said in (
        (["people", "--column", "image=gone"], 1, "no table here has 'gone'"),
        (["people/metadata.csv", "--column", "image=gone"], 1, "no column 'gone'; it has 'photo', 'caption'"),
        (["lfw:people", "--column", "image=photo"], 1, "kind lfw has no columns"),
        (["people", "--column", "size=photo"], 2, "--column 'size=photo': accepted: image=COLUMN"),
    ):
        assert main(["data", "inspect", *words]) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and said in line
