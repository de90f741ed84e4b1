"""Negatives: found by the mask of color film, or a face that only the positive shows; never in an aged print."""

from __future__ import annotations

import io

import numpy as np
import pytest
import skimage.data
from PIL import Image

from chromatune.color import looks_negative, luma
from chromatune.colorizer import Colorizer
from chromatune.images import Photo
from chromatune.options import make_options

PICTURES = (
    "astronaut", "brick", "camera", "cell", "chelsea", "clock", "coffee", "coins", "grass", "gravel",
    "hubble_deep_field", "immunohistochemistry", "moon", "page", "retina", "rocket", "text",
)  # fmt: skip


def picture(name: str) -> np.ndarray:
    """(H, W, 3) uint8."""
    found = getattr(skimage.data, name)()
    return np.ascontiguousarray(found[..., :3] if found.ndim == 3 else np.repeat(found[..., None], 3, axis=2))


def aged(rgb: np.ndarray, age: str) -> np.ndarray:
    """(H, W, 3) uint8: a print of the picture."""
    gray = luma(rgb).astype(np.float64)[..., None]
    height, width = gray.shape[:2]
    if age == "faded sepia":
        gray = (70 + 0.55 * gray) * [1.07, 0.95, 0.75]
    elif age == "dark":
        gray = 0.4 * gray * np.ones(3)
    elif age == "brown, strongly":
        gray = (70 + 0.6 * gray) * [1, 0.75, 0.5]
    elif age == "vignette, white border":
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        gray = np.pad(gray * (1 - 0.5 * (x**2 + y**2))[..., None], ((30, 30), (30, 30), (0, 0)), constant_values=245)
        gray = gray * np.ones(3)
    else:
        data = io.BytesIO()
        grainy = gray * np.ones(3) + np.random.default_rng(0).normal(0, 12, (height, width, 1))
        Image.fromarray(np.clip(grainy, 0, 255).astype(np.uint8)).save(data, "JPEG", quality=30)
        return np.asarray(Image.open(data))
    return np.clip(np.rint(gray), 0, 255).astype(np.uint8)


def film(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: a color negative: density over an orange base rises with the exposure."""
    exposure = np.log10(np.maximum((rgb / 255) ** 2.2, 0.004) / 0.004) / 2.4
    base = (np.array([235, 155, 95]) / 255) ** 2.2
    return np.rint(255 * (base * 10 ** (-exposure * [0.71, 0.8, 0.88])) ** (1 / 2.2)).astype(np.uint8)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_no_negatives(name: str) -> None:
    rgb = picture(name)
    assert not looks_negative(luma(rgb), rgb)
    assert not looks_negative(luma(rgb).astype(np.uint16) * 257)


@pytest.mark.parametrize("age", ["faded sepia", "dark", "brown, strongly", "vignette, white border", "grainy JPEG"])
def test_aged_prints_are_no_negatives(age: str) -> None:
    for name in ("astronaut", "camera", "chelsea", "coffee", "rocket", "coins", "moon"):
        rgb = aged(picture(name), age)
        assert not looks_negative(luma(rgb), rgb), name


def test_a_negative_with_a_face_is_found() -> None:
    for crop in (np.s_[:400, 100:], np.s_[:260, 100:360]):
        negative = 255 - luma(picture("astronaut"))[crop]
        assert looks_negative(negative)
        assert looks_negative(negative.astype(np.uint16) * 257)


def test_a_color_negative_is_found_without_a_face(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chromatune.color.negatives._face_finder", lambda: None)  # as without scikit-image
    for name in ("astronaut", "rocket"):
        negative = film(picture(name))
        assert looks_negative(luma(negative), negative)
        assert not looks_negative(luma(negative))


def test_it_is_said_and_not_done() -> None:
    mini = Colorizer.load("mini", runtime="onnx")
    gray = luma(picture("astronaut"))[:260, 100:360].copy()
    negative = Photo(255 - gray, name="strip.png")
    result = mini.colorize(negative)
    assert result.notes == ("it looks like a negative; --invert makes a positive of it first",)
    assert np.array_equal(luma(result.rgb), negative.gray)
    assert mini.colorize(negative, make_options(invert=True)).notes == ()
    assert mini.colorize(Photo(gray)).notes == ()
