"""Strokes, points and layers: what is accepted, what one line refuses, JSON, and what is drawn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from chromatune.color import relative_chroma
from chromatune.errors import ChromaTuneError, OptionsError, PhotoError
from chromatune.hints import Hints, parse_point
from chromatune.hints.hints import draw
from chromatune.images import Photo

PHOTO = Photo(np.full((80, 120), 120, np.uint8), name="gray.png")
RED = relative_chroma(np.array([160, 48, 32]) / 255)


def layer(height: int = 80, width: int = 120, alpha: int = 255) -> np.ndarray:
    """Red in the left upper quarter, nothing elsewhere."""
    rgba = np.zeros((height, width, 4), np.uint8)
    rgba[: height // 2, : width // 2] = 160, 48, 32, alpha
    return rgba


def test_a_point_is_a_disc_of_its_color():
    drawn = draw(Hints().point(30, 40, "#a03020", 10), PHOTO, (80, 120))
    np.testing.assert_allclose(drawn.relative[40, 30], RED, rtol=1e-5)
    assert drawn.weight.sum() == pytest.approx(np.pi * 100, rel=0.05)
    assert drawn.weight[40, 21] == 1 and drawn.weight[40, 43] == 0 and drawn.weight[40, 60] == 0


def test_a_stroke_covers_its_line_and_later_ones_cover_earlier_ones():
    hints = Hints().stroke([(10, 20), (110, 20)], 4, "#a03020").stroke([(60, 5), (60, 75)], 4, (0, 0, 255))
    drawn = draw(hints, PHOTO, (40, 60))
    assert drawn.weight[10, 5:55].min() == 1 and drawn.weight[20, 10] == 0
    np.testing.assert_allclose(drawn.relative[10, 15], RED, rtol=1e-5)
    np.testing.assert_allclose(drawn.relative[10, 30], relative_chroma(np.array([0, 0, 1.0])), rtol=1e-4)


@pytest.mark.parametrize("scale", [0.5, 1, 3])
def test_a_layer_of_any_size_says_the_same(scale):
    drawn = draw(Hints.from_layer(layer(int(80 * scale), int(120 * scale))), PHOTO, (40, 60))
    np.testing.assert_allclose(drawn.relative[10, 10], RED, rtol=1e-2)
    assert drawn.weight[5:15, 5:25].min() == 1 and drawn.weight[25:, 35:].max() == 0


def test_alpha_is_the_weight_and_does_not_thin_the_color():
    drawn = draw(Hints.from_layer(layer(alpha=102)), PHOTO, (40, 60))
    np.testing.assert_allclose(drawn.relative[10, 10], RED, rtol=1e-2)
    assert drawn.weight[10, 10] == pytest.approx(0.4, abs=0.01)


def test_what_lies_under_transparent_pixels_does_not_count():
    """Paint programs leave black, white or anything there."""
    rgba = layer()
    rgba[40:, :, :3] = 0, 255, 0
    np.testing.assert_array_equal(
        draw(Hints.from_layer(rgba), PHOTO, (40, 60)).relative,
        draw(Hints.from_layer(layer()), PHOTO, (40, 60)).relative,
    )


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_layers_are_read_from_files(tmp_path, suffix):
    path = tmp_path / f"layer{suffix}"
    Image.fromarray(layer()).save(path, lossless=True)  # of WebP alone; the others are
    for source in (path, str(path), path.read_bytes(), Image.open(path)):
        drawn = draw(Hints.from_layer(source), PHOTO, (40, 60))
        np.testing.assert_allclose(drawn.relative[10, 10], RED, rtol=1e-2)


def test_json_gives_the_same_hints_back():
    hints = Hints.from_layer(layer(), name="mine").point(30, 40, "navy").stroke([(1, 2), (3.5, 4)], 5, "#a03020")
    again = Hints.from_json(hints.to_json())
    assert again == hints
    assert Hints.from_json(json.loads(hints.to_json())) == hints
    one, other = (draw(each, PHOTO, (40, 60)) for each in (hints, again))
    np.testing.assert_array_equal(one.relative, other.relative)
    np.testing.assert_array_equal(one.weight, other.weight)
    assert again == hints and hash(again) == hash(hints)  # now that layers have been drawn
    assert Hints.from_layer(layer(), name="other") != Hints.from_layer(layer(), name="mine")


def test_hints_are_frozen_add_up_and_say_whether_they_say_anything():
    nothing = Hints()
    one = nothing.point(1, 2, "red")
    assert not nothing and one and len((one + one).marks) == 2 and not nothing.marks
    with pytest.raises(ValueError, match="frozen"):
        setattr(one, "marks", ())  # noqa: B010 - mypy knows that it is frozen


def test_points_as_the_command_line_writes_them():
    assert parse_point("420,310=#a03020") == Hints().point(420, 310, "#a03020")
    assert parse_point("420.5,310,12=navy") == Hints().point(420.5, 310, "navy", 12)


def test_hints_without_an_own_radius_have_a_fiftieth_of_the_short_side():
    small, large = (
        draw(Hints().point(side / 2, side / 2, "red"), Photo(np.zeros((side, side), np.uint8)), (100, 100)).weight
        for side in (100, 1000)
    )
    np.testing.assert_array_equal(small, large)
    assert small.sum() == pytest.approx(np.pi * 4, rel=0.15)  # its edge is soft


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Hints.from_layer(np.zeros((9, 9, 4), np.uint8)), "nothing is painted"),
        (lambda: Hints.from_layer(np.zeros((9, 9, 3), np.uint8)), "no transparency"),
        (lambda: Hints.from_layer(b"GIF89a no picture", name="x.png"), "x.png"),
        (lambda: Hints.from_layer("missing.png"), "missing.png"),
        (
            lambda: Hints.from_layer(layer(80, 100), name="l.png").check(PHOTO),
            "l.png is 100 × 80 px, of another aspect",
        ),
        (lambda: Hints().point(121, 5, "red").check(PHOTO), "gray.png: the hint at 121,5 lies outside"),
        (lambda: Hints().point(-1, 5, "red").check(PHOTO), "outside"),
        (lambda: Hints().point(1, 5, "#ggg"), "#ggg"),
        (lambda: Hints().point(1, 5, (1, 2, 300)), "color"),
        (lambda: Hints().point(float("nan"), 5, "red"), "points"),
        (lambda: Hints().point(1, 5, "red", 0), "radius_px"),
        (lambda: Hints().stroke([], 5, "red"), "points"),
        (lambda: parse_point("420,310"), "X,Y=COLOR"),
        (lambda: parse_point("420=red"), "X,Y=COLOR"),
        (lambda: parse_point("420,310,1,1=red"), "X,Y=COLOR"),
        (lambda: parse_point("a,b=red"), "X,Y=COLOR"),
        (lambda: parse_point("420,310=#ggg"), "#a03020"),
        (lambda: Hints.from_json("no json"), "JSON"),
        (lambda: Hints.from_json('{"strokes": []}'), "strokes"),
        (lambda: Hints.from_json({"marks": [{"points": [[1, 2]], "color": "#ggg"}]}), "#a03020"),
        (lambda: Hints.from_json({"marks": [{"png": "AAAA", "width_px": 1, "height_px": 1}]}), "layer"),
    ],
)
def test_what_is_no_hint_gets_one_line(make, words):
    with pytest.raises(ChromaTuneError) as raised:
        make()
    assert isinstance(raised.value, OptionsError | PhotoError)
    assert words in str(raised.value) and "\n" not in str(raised.value)


def test_a_layer_whose_size_was_rounded_fits():
    photo = Photo(np.zeros((3000, 4001), np.uint8))
    Hints.from_layer(layer(75, 100)).check(photo)
    Hints.from_layer(layer(3, 4)).check(photo)


def test_a_large_layer_is_averaged_by_its_alpha():
    """Stripes of one pixel, red and a transparent green: what remains is red, at half of the weight."""
    rgba = np.zeros((1600, 2400, 4), np.uint8)
    rgba[::2] = 160, 48, 32, 255
    rgba[1::2] = 0, 255, 0, 0
    drawn = draw(Hints.from_layer(rgba), PHOTO, (40, 60))
    np.testing.assert_allclose(drawn.relative[20, 30], RED, rtol=2e-2)
    assert drawn.weight[20, 30] == pytest.approx(0.5, abs=0.05)
