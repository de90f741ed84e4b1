"""The engine in a browser's tab gives the pictures that Python gives: the oracle is `Colorizer`."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.serving.tab.conftest import NAMES, picture, png

from chromatune import Colorizer, Hints, make_options
from chromatune.color import luma

pytestmark = pytest.mark.slow
MOST_APART = 2  # levels of 255
WORDS = "make it a color photograph, warm colors"


@pytest.fixture(scope="module")
def colorizer():
    return Colorizer.load("mini")


def strokes(samples: np.ndarray) -> list[dict]:
    """Three strokes on a photo, as the page sends them."""
    height, width = samples.shape[:2]
    places = (
        ([(0.3, 0.4), (0.4, 0.5)], 8, "#a03020"), ([(0.7, 0.7)], 10, "#2040a0"),
        ([(0.5, 0.2), (0.55, 0.22), (0.6, 0.2)], 6, "#308040"),
    )  # fmt: skip
    return [
        {"points": [[x * width, y * height] for x, y in points], "radius_px": radius, "color": color}
        for points, radius, color in places
    ]


def compare(result, want) -> None:
    got = np.asarray(Image.open(io.BytesIO(result.content)).convert("RGB"))
    apart = np.abs(got.astype(int) - want.rgb).max(axis=2)
    assert np.array_equal(luma(got), want.photo.gray)
    assert result.facts["restored"] == list(want.restored)
    assert apart.max() <= MOST_APART


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("browser", ["tab", "firefox_tab"])
def test_a_photo_has_the_same_colors(request, colorizer, browser, name):
    tab = request.getfixturevalue(browser)
    samples = picture(name)
    photo = png(samples)
    compare(tab.colorize(photo), colorizer.colorize(photo))
    compare(tab.colorize(photo, options={"prompt": WORDS}), colorizer.colorize(photo, make_options(prompt=WORDS)))
    marks = strokes(samples)
    hints = Hints.from_json({"marks": marks})
    compare(tab.colorize(photo, edit={"hints": {"marks": marks}}), colorizer.colorize(photo, hints=hints))
    other = png(cv2.resize(picture("astronaut")[:, ::-1], (300, 300), interpolation=cv2.INTER_AREA))
    compare(tab.colorize(photo, references=(other,)), colorizer.colorize(photo, like=[other]))


def test_hints_act_as_strongly_as_is_asked(tab, colorizer):
    samples = picture("coins")
    photo, marks = png(samples), strokes(samples)
    edit = {"hints": {"marks": marks}, "hint_strength": 0.4}
    wanted = colorizer.colorize(photo, make_options(hint_strength=0.4), hints=Hints.from_json({"marks": marks}))
    compare(tab.colorize(photo, edit=edit), wanted)
