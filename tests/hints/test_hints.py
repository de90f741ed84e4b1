"""Strokes, points and layers: what is accepted, what one line refuses, JSON, and what is drawn."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from chromatune.color import relative_chroma
from chromatune.errors import ChromaTuneError, OptionsError, PhotoError
from chromatune.hints import Hints, Stroke, draw, parse_json, parse_point
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


def png(side: int) -> str:
    """One-bit layer: some hundred bytes, whatever its size."""
    image = Image.new("P", (side, side), 1)
    image.putpalette([200, 30, 30, 0, 0, 0])
    file = io.BytesIO()
    image.save(file, "PNG", bits=1, transparency=0)
    return b64encode(file.getvalue()).decode()


def as_layers(side: int, count: int) -> dict[str, list[dict[str, object]]]:
    return {"marks": [{"png": png(side), "width_px": side, "height_px": side}] * count}


DOT = {"points": [[1, 1]], "color": "red"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"marks": [[]] * 200_000}, "marks, and the limit is 10,000"),
        ({"marks": [{**DOT, "points": [[1, 1]] * 60_000}] * 2}, "120,000 points, and the limit is 100,000"),
        ({"marks": [{"points": [[1, 1]] * 160_000}] * 2}, "values, and the limit is 500,000"),
        (as_layers(8, 65), "65 layers, and the limit is 64"),
        (as_layers(1024, 9), "pixels of layers, and the limit is 8,388,608"),
        ({"marks": [[[[[[[[[[]]]]]]]]]]}, "nested more than 8 levels"),
        ({"marks": [{**DOT, "points": [["x", "y"]] * 50_000}]}, "points"),
    ],
)
def test_hints_of_too_much_are_one_line(given: dict[str, object], words: str) -> None:
    with pytest.raises(OptionsError, match=words) as caught:
        Hints.from_json(json.dumps(given))
    assert len(str(caught.value)) < 300 and str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text", ["[" * 100_000, b"{" * 9, b"\xff\xfe", "[1e999, " + "9" * 5000 + "]", " " * (17 << 20)]
)
def test_json_that_is_none_or_too_long_is_one_line(text: str | bytes) -> None:
    with pytest.raises(OptionsError, match="JSON"):
        Hints.from_json(text)


@pytest.mark.parametrize("number", ["1e999", "9" * 4000, "NaN", "-Infinity"])
def test_coordinates_are_finite(number: str) -> None:
    with pytest.raises(OptionsError):
        Hints.from_json('{"marks":[{"points":[[NUMBER,1]],"color":"red"}]}'.replace("NUMBER", number))


def test_validation_stops_at_the_first_wrong_mark() -> None:
    with pytest.raises(ValidationError) as caught:
        Hints.model_validate({"marks": [[]] * 9000})
    assert caught.value.error_count() < 5


def test_too_many_marks_added_up_are_one_line() -> None:
    many = Hints(marks=(Stroke(points=((1, 1),), color=(1, 2, 3)),) * 10_000)
    with pytest.raises(OptionsError, match="10,001 marks"):
        many.point(1, 1, "red")


def test_a_stroke_of_very_many_wide_segments_is_the_area_near_its_line() -> None:
    rng = np.random.default_rng(0)
    points = np.column_stack([30 + 20 * rng.random(30_000), 40 + 2 * rng.random(30_000)])
    stroke = draw(Hints().stroke(points.tolist(), 30, "#a03020"), PHOTO, (80, 120))
    line = draw(Hints().stroke([(30, 41), (50, 41)], 31, "#a03020"), PHOTO, (80, 120))
    assert np.abs(stroke.weight - line.weight).mean() < 0.02
    np.testing.assert_allclose(stroke.relative[40, 40], RED, rtol=1e-5)


def test_hints_that_paint_over_the_photo_again_and_again_are_refused() -> None:
    hints = Hints(marks=(Stroke(points=((1, 1),), radius_px=1000, color=(1, 2, 3)),) * 9000)
    with pytest.raises(PhotoError, match="too many times over"):
        draw(hints, PHOTO, (80, 120))


@pytest.mark.parametrize("kind", ["P", "RGBA"])
def test_a_large_layer_takes_some_bytes_a_pixel(kind: str, tmp_path: Path) -> None:
    """Asserted by a limit of the process: 16 million pixels in 400 MB beyond what it has."""
    path = tmp_path / "layer.png"
    image = Image.new(kind, (4000, 4000), 0)
    if kind == "P":
        image.putpalette([200, 30, 30])
    image.paste(1 if kind == "P" else (9, 9, 9, 255), (0, 0, 2000, 2000))
    transparency = 0 if kind == "P" else None
    image.save(path, transparency=transparency)
    small = tmp_path / "small.png"
    image.resize((1500, 1500)).save(small, transparency=transparency)
    script = f"""
import resource
from chromatune.hints import Hints
Hints.from_layer({str(small)!r})  # loads what is loaded late
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20),) * 2)
Hints.from_layer({str(path)!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_layer_of_a_side_that_no_picture_has_is_one_line() -> None:
    given = as_layers(8, 1)
    given["marks"][0]["width_px"] = 10**400
    with pytest.raises(OptionsError, match="marks.0"):
        Hints.from_json(given)


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        ({f"k{number}": 1 for number in range(60)}, False),
        ([{"a": {f"k{number}": 1 for number in range(60)}}], False),
        ({str(number): 1 for number in range(500)}, True),
        ({str(number): 1 for number in range(2000)}, False),
    ],
)
def test_objects_of_json_have_few_fields(value, accepted):
    text = json.dumps(value)
    if accepted:
        assert parse_json(text) == value
    else:
        with pytest.raises(OptionsError, match="more than 50 fields"):
            parse_json(text)
