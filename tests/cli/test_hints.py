"""`chromatune colorize` with hints: points, layers, a folder of layers, and a line for each that is no use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromatune.cli import main

Put = Callable[..., Path]
Capture = pytest.CaptureFixture[str]
WIDTH, HEIGHT = 60, 40


@pytest.fixture
def photo(folder: Path) -> Callable[[str], str]:
    def write(name: str) -> str:
        Image.fromarray(np.full((HEIGHT, WIDTH), 100, np.uint8)).save(name)
        return name

    return write


def paint(path: str, color: tuple[int, int, int] = (160, 48, 32), width: int = WIDTH, height: int = HEIGHT) -> str:
    rgba = np.zeros((height, width, 4), np.uint8)
    rgba[:, : width // 2] = *color, 255
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgba).save(path)
    return path


def redness(path: str, x: int = 10) -> int:
    red, _, blue = np.asarray(Image.open(path).convert("RGB")).astype(int)[20, x]
    return int(red - blue)


def test_points_color_the_photo(engine, photo, capsys: Capture) -> None:
    assert main(["colorize", photo("a.png"), "--hint", "10,20,6=#a03020", "--hint", "50,20,6=blue"]) == 0
    assert redness("a.color.png") > 100
    assert redness("a.color.png", 50) < -50
    assert capsys.readouterr().err == ""


def test_a_layer_colors_the_photo_and_points_lie_on_top(engine, photo) -> None:
    layer = paint("layer.png")
    assert main(["colorize", photo("a.png"), "--hints", layer, "--hint", "15,20,8=blue"]) == 0
    assert redness("a.color.png", 3) > 100 > 0 > redness("a.color.png", 15)


def test_a_folder_has_the_layers_of_a_batch(engine, photo, capsys: Capture) -> None:
    paint("layers/a.png")
    paint("layers/b.tif", (32, 48, 160))
    photos = [photo("a.png"), photo("b.png"), photo("c.png")]
    assert main(["colorize", *photos, "--hints-dir", "layers"]) == 0
    assert redness("a.color.png") > 100 and redness("b.color.png") < -50 and redness("c.color.png") == 0


def test_variants_and_hints_go_together(engine, photo) -> None:
    assert main(["colorize", photo("a.png"), "--hint", "10,20,6=#a03020", "--variants", "2", "--seed", "3"]) == 0
    assert redness("a.color-1.png") > 100 and redness("a.color-2.png") > 100


def test_reach_and_strength(engine, photo) -> None:
    hint = ["--hint", "5,20,3=#a03020"]
    for name, more in (("near", ["--reach", "0.1"]), ("far", ["--reach", "5"]), ("none", ["--hint-strength", "0"])):
        assert main(["colorize", photo(f"{name}.png"), *hint, *more]) == 0
    assert redness("none.color.png", 5) == 0
    assert redness("near.color.png", 55) < redness("far.color.png", 55)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--hint", "70,20=red"], "a.png: the hint at 70,20 lies outside of its 60 × 40 px"),
        (["--hint", "10,20=#ggg"], "#ggg"),
        (["--hint", "10,20"], "X,Y=COLOR"),
        (["--hints", "missing.png"], "missing.png"),
        (["--hints", "flat.png"], "flat.png has no transparency"),
        (["--hints", "empty.png"], "nothing is painted"),
        (["--hints", "wide.png"], "wide.png is 80 × 40 px, of another aspect"),
        (["--hints", "text.png"], "text.png"),
        (["--hints-dir", "missing"], "missing: cannot be read"),
        (["--hints-dir", "none"], "none: no painted layers in it"),
        (["--hints-dir", "two"], "both look like its painted layer"),
        (["--hints-dir", "two", "--hint", "1,1=red"], "--hints-dir cannot be combined"),
        (["--hint", "1,1=red", "--no-recompose"], "leave out --no-recompose"),
        (["--hint", "1,1=red", "b.png"], "--hints-dir"),
        (["--reach", "0"], "--reach"),
    ],
)
def test_hints_of_no_use_are_one_line_and_no_pass(engine, photo, capsys: Capture, typed, words) -> None:
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save("flat.png")
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 4), np.uint8)).save("empty.png")
    Path("text.png").write_text("no picture")
    Path("none").mkdir()
    paint("wide.png", width=80)
    paint("two/a.png")
    paint("two/a.tif")
    photo("b.png")
    assert main(["colorize", photo("a.png"), *typed]) != 0
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert words in line
    assert not engine.loads and not engine.calls and not list(Path().glob("*.color.png"))


def test_a_layer_that_does_not_fit_leaves_the_other_photos(engine, photo, capsys: Capture) -> None:
    paint("layers/a.png", width=90)
    paint("layers/b.png")
    assert main(["colorize", photo("a.png"), photo("b.png"), "--hints-dir", "layers"]) == 1
    output = capsys.readouterr()
    assert "of another aspect" in output.err and output.out.splitlines() == ["b.color.png"]
