"""Procedural edits with instructions: what `mini-base` learns. Colorization is left out on purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from chromatune.color import LUMA_WEIGHTS

Edit = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # (H, W, 3) float32 sRGB 0..1, in and out

TINTS = {
    "red": (0.9, 0.2, 0.2), "orange": (0.95, 0.55, 0.15), "yellow": (0.9, 0.85, 0.2), "green": (0.2, 0.7, 0.25),
    "cyan": (0.2, 0.8, 0.8), "blue": (0.2, 0.35, 0.9), "purple": (0.55, 0.25, 0.8), "pink": (0.95, 0.5, 0.7),
}  # fmt: skip


def _luma(rgb: np.ndarray) -> np.ndarray:
    return (rgb @ np.array(LUMA_WEIGHTS, np.float32))[..., None]


def _gain(low: float, high: float) -> Edit:
    return lambda rgb, rng: rgb * np.float32(rng.uniform(low, high))


def _contrast(low: float, high: float) -> Edit:
    return lambda rgb, rng: 0.5 + (rgb - 0.5) * np.float32(rng.uniform(low, high))


def _saturation(low: float, high: float) -> Edit:
    return lambda rgb, rng: _luma(rgb) + (rgb - _luma(rgb)) * np.float32(rng.uniform(low, high))


def _cast(red: float, blue: float) -> Edit:
    return lambda rgb, rng: rgb * np.array([1 + red, 1.0, 1 + blue], np.float32) ** np.float32(rng.uniform(0.7, 1.3))


def _sepia(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _luma(rgb) * np.array([1.07, 0.87, 0.64], np.float32) + np.array([0.06, 0.03, 0.0], np.float32)


def _blur(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(rgb, (0, 0), rng.uniform(1.5, 3.5))


def _sharpen(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rgb + np.float32(rng.uniform(0.7, 1.3)) * (rgb - cv2.GaussianBlur(rgb, (0, 0), 2.0))


def _vignette(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = rgb.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    return rgb * (1 - rng.uniform(0.35, 0.5) * (x * x + y * y)).clip(0, 1)[..., None].astype(np.float32)


def _pixelate(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = rgb.shape[:2]
    small = cv2.resize(rgb, (width // 8, height // 8), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def _tint(name: str) -> Edit:
    color = np.array(TINTS[name], np.float32)
    return lambda rgb, rng: np.float32(0.6) * rgb + np.float32(0.4) * _luma(rgb) * color / color.mean()


@dataclass(frozen=True)
class EditKind:
    """One edit and the ways to ask for it."""

    apply: Edit
    prompts: tuple[str, ...]


def _ways(*prompts: str) -> tuple[str, ...]:
    return tuple(prompts) + tuple(f"please {prompt}" for prompt in prompts[:1])


EDITS: tuple[EditKind, ...] = (
    EditKind(
        _gain(1.25, 1.5), _ways("make it brighter", "brighten the image", "increase the brightness", "more light")
    ),
    EditKind(_gain(0.5, 0.75), _ways("make it darker", "darken the photo", "lower the brightness", "less light")),
    EditKind(_contrast(1.4, 1.8), _ways("increase the contrast", "more contrast", "make the contrast stronger")),
    EditKind(_contrast(0.4, 0.65), _ways("reduce the contrast", "less contrast", "make it flat and faded")),
    EditKind(_sepia, _ways("make it sepia", "apply a sepia tone", "turn it into an old brown print")),
    EditKind(lambda rgb, rng: 1 - rgb, _ways("invert the image", "make a negative", "invert the colors")),
    EditKind(_blur, _ways("blur the image", "make it blurry", "soften the picture", "out of focus")),
    EditKind(_sharpen, _ways("sharpen the image", "make it sharper", "add crisp detail")),
    EditKind(lambda rgb, rng: rgb[:, ::-1], _ways("flip it horizontally", "mirror the image", "swap left and right")),
    EditKind(lambda rgb, rng: rgb[::-1], _ways("flip it vertically", "turn it upside down")),
    EditKind(_cast(0.18, -0.22), _ways("make it warmer", "warm light", "give the photo a warm tone")),
    EditKind(_cast(-0.18, 0.22), _ways("make it cooler", "cold light", "give the photo a cool tone")),
    EditKind(lambda rgb, rng: np.floor(rgb * 3.999) / 3, _ways("posterize the image", "use only a few tones")),
    EditKind(_vignette, _ways("add a vignette", "darken the corners")),
    EditKind(_pixelate, _ways("pixelate the image", "make a mosaic of squares")),
    EditKind(
        lambda rgb, rng: np.repeat(_luma(rgb), 3, axis=2),
        _ways("make it black and white", "convert to grayscale", "remove the color", "turn it monochrome"),
    ),
    EditKind(_saturation(1.6, 2.2), _ways("more saturation", "stronger colors", "make existing colors more vivid")),
    EditKind(_saturation(0.3, 0.55), _ways("less saturation", "weaker colors", "make the colors muted")),
    EditKind(lambda rgb, rng: rgb, ("change nothing", "keep the image as it is", "do nothing")),
    *(EditKind(_tint(name), (f"tint it {name}", f"give it a {name} tint", f"add a {name} tone")) for name in TINTS),
)


def random_edit(rgb_u8: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, str]:
    """(source, edited, instruction): two (H, W, 3) uint8 photos; three sources in ten are gray."""
    kind = EDITS[int(rng.integers(len(EDITS)))]
    source = rgb_u8.astype(np.float32) / 255
    if rng.random() < 0.3:
        source = np.repeat(_luma(source), 3, axis=2)
    edited = np.clip(kind.apply(source, rng), 0, 1)
    to_u8 = lambda rgb: np.ascontiguousarray(np.rint(rgb * 255).astype(np.uint8))  # noqa: E731
    return to_u8(source), to_u8(edited), kind.prompts[int(rng.integers(len(kind.prompts)))]
