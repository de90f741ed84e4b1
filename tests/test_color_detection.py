"""What counts as a photo in color, and that no print of one tone does."""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from chromatune.color import find_own_color, luma, own_chroma

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
SEPIA = np.array([1.07, 0.95, 0.75])


def is_in_color(rgb: np.ndarray) -> bool:
    own = find_own_color(rgb)
    return own is not None and own.in_color


def gray_of(name: str) -> np.ndarray:
    """(H, W, 3) float64 0..255, three equal channels."""
    return np.repeat(luma(getattr(skimage.data, name)())[..., None], 3, axis=2).astype(np.float64)


def as_u8(rgb: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    data = io.BytesIO()
    Image.fromarray(as_u8(rgb)).save(data, "JPEG", quality=quality)
    return np.asarray(Image.open(data)).astype(np.float64)


def edges(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 1): 0 in the middle, 1 at the border."""
    y, x = np.mgrid[-1 : 1 : rgb.shape[0] * 1j, -1 : 1 : rgb.shape[1] * 1j]
    return np.clip(np.maximum(abs(y), abs(x)) * 2 - 1, 0, 1)[..., None]


def stained(rgb: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: rgb.shape[0], : rgb.shape[1]]
    for row, column in np.random.default_rng(0).integers(0, min(rgb.shape[:2]), (3, 2)):
        stain = np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * (rgb.shape[0] / 8) ** 2))[..., None]
        rgb = rgb * (1 - stain * np.array([0.1, 0.3, 0.6]))
    return rgb


def stamped(rgb: np.ndarray) -> np.ndarray:
    rgb = rgb.copy()
    rgb[20:60, 20:90] = 200, 20, 30
    return rgb


def bordered(gray: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return cv2.copyMakeBorder(gray, 40, 40, 40, 40, cv2.BORDER_CONSTANT, value=color)


PRINTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gray": lambda gray: gray,
    "sepia": lambda gray: gray * SEPIA,
    "sepia, JPEG": lambda gray: jpeg(gray * SEPIA, 30),
    "grainy sepia": lambda gray: gray * SEPIA + np.random.default_rng(0).normal(0, 12, gray.shape),
    "noise of a scanner": lambda gray: jpeg(gray + np.random.default_rng(0).normal(0, 8, gray.shape), 60),
    "yellow edges": lambda gray: gray * (1 - edges(gray) * np.array([0.05, 0.15, 0.4])),
    "brown stains": stained,
    "one side bluer": lambda gray: gray * np.linspace([1, 1, 0.9], [0.9, 1, 1], gray.shape[1]),
    "cream border": lambda gray: bordered(gray, (235, 220, 180)),
    "white border": lambda gray: bordered(gray * SEPIA, (250, 250, 250)),
    "red stamp": stamped,
    "all black": lambda gray: gray * 0,
}


@pytest.mark.parametrize("name", PHOTOS)
def test_photos_in_color_are(name: str) -> None:
    photo = getattr(skimage.data, name)()
    assert is_in_color(photo)
    assert is_in_color(photo.astype(np.uint16) * 257)


@pytest.mark.parametrize("name", ["astronaut", *(pytest.param(name, marks=pytest.mark.slow) for name in PHOTOS[1:])])
@pytest.mark.parametrize("kind", PRINTS)
def test_prints_of_one_tone_are_not(name: str, kind: str) -> None:
    print_u8 = as_u8(PRINTS[kind](gray_of(name)))
    assert not is_in_color(print_u8)
    assert not is_in_color(print_u8.astype(np.uint16) * 257)


def test_own_chroma_does_not_depend_on_the_depth() -> None:
    photo = skimage.data.coffee()
    (mean, own), (deep_mean, deep_own) = own_chroma(photo), own_chroma(photo.astype(np.uint16) * 257)
    assert abs(mean - deep_mean) < 0.2 and np.abs(own - deep_own).mean() < 0.5
    assert own.shape == (64 * 64,)
