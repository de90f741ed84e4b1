"""Pairs for training, made from color photos: a square or another rectangle of one, and a gray one.

The gray half is what a camera, a film and the years could have made of the color scene.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast, get_args

import cv2
import numpy as np

from chromatune.color import own_chroma
from chromatune.data.buckets import MOST_LOST, Shape, largest_window
from chromatune.errors import OptionsError

GrayMethod = Literal["rec601", "rec709", "average", "orthochromatic", "red-filter", "random"]

# Weights of R, G, B. Orthochromatic film is blind to red; a red filter darkens skies.
GRAY_WEIGHTS: dict[str, tuple[float, float, float]] = {
    "rec601": (0.299, 0.587, 0.114),
    "rec709": (0.2126, 0.7152, 0.0722),
    "average": (1 / 3, 1 / 3, 1 / 3),
    "orthochromatic": (0.05, 0.60, 0.35),
    "red-filter": (0.75, 0.20, 0.05),
}
GRAY_METHODS: tuple[str, ...] = get_args(GrayMethod)

VARIED = "varied"  # another gray for every pair: `random_gray`

MIN_OWN_COLOR = 2.0  # CIELAB units that lightness does not explain: below them all color is a print's tone


@dataclass(frozen=True)
class Crop:
    """A rectangle of a photo, and whether it is mirrored.

    Attributes:
        top: first row, pixels.
        left: first column, pixels.
        height: pixels of the photo.
        width: pixels of the photo.
        flip: left and right change places.
    """

    top: int
    left: int
    height: int
    width: int
    flip: bool = False


def draw_crop(
    height: int, width: int, size_px: int, rng: np.random.Generator, zoom: float = 1.0, flip: bool = True
) -> Crop:
    """Draw a random square; the photo's aspect ratio stays, since what does not fit is cut and never squashed.

    The side is at least `zoom` of the short side, and at least `size_px` where the photo has as much: a smaller square
    would be enlarged. Four numbers are drawn whatever the settings, so that they do not shift what follows.

    Args:
        height: of the photo, pixels.
        width: of the photo, pixels.
        size_px: side that the square will be resized to.
        rng: a generator for this pair.
        zoom: smallest share of the short side, in 0..1; 1 takes the largest square.
        flip: mirror half of the squares.

    Raises:
        OptionsError: the photo has no pixels, or `zoom` is not in 0..1.
    """
    short_px = min(height, width)
    if short_px < 1 or not 0 < zoom <= 1:
        raise OptionsError(f"no crop of {height} x {width} pixels with zoom={zoom}; accepted: 0 < zoom <= 1")
    smallest = min(short_px, max(round(zoom * short_px), size_px, 1))
    side = int(rng.integers(smallest, short_px + 1))
    top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    mirrored = bool(rng.random() < 0.5)
    return Crop(top, left, side, side, flip and mirrored)


def draw_bucket_crop(
    height: int, width: int, shape: Shape, rng: np.random.Generator, zoom: float = 1.0, flip: bool = True
) -> Crop:
    """Draw a random rectangle with the aspect ratio of a bucket, which keeps nine tenths of the photo at least.

    Args:
        height: of the photo, pixels.
        width: of the photo, pixels.
        shape: height and width of the bucket that `bucket_of` chose for the photo.
        rng: a generator for this pair.
        zoom: smallest share of the largest rectangle's sides, in 0..1, as far as a tenth of the photo allows.
        flip: mirror half of the rectangles.

    Raises:
        OptionsError: `zoom` is not in 0..1.
    """
    if not 0 < zoom <= 1:
        raise OptionsError(f"no crop with zoom={zoom}; accepted: 0 < zoom <= 1")
    rows, columns = largest_window(height, width, shape)
    kept = ((1 - MOST_LOST) * height * width / (rows * columns)) ** 0.5
    smallest = min(1.0, max(zoom, kept, shape[0] / rows))  # the last: a smaller rectangle would be enlarged
    scale = smallest + (1 - smallest) * rng.random()
    rows, columns = min(rows, math.ceil(rows * scale)), min(columns, math.ceil(columns * scale))
    top, left = int(rng.integers(0, height - rows + 1)), int(rng.integers(0, width - columns + 1))
    mirrored = bool(rng.random() < 0.5)
    return Crop(top, left, rows, columns, flip and mirrored)


def center_crop(height: int, width: int) -> Crop:
    """Return the largest square in the middle of a photo of that many pixels, not mirrored: for validation."""
    side = min(height, width)
    return Crop((height - side) // 2, (width - side) // 2, side, side)


def apply_crop(rgb_u8: np.ndarray, crop: Crop, size: int | Shape) -> np.ndarray:
    """Cut a rectangle out of a photo and resize it, (H, W, 3) uint8 sRGB.

    Args:
        rgb_u8: (H, W, 3) uint8 sRGB.
        crop: drawn for this photo's size.
        size: height and width of the result, or the side of a square.

    Raises:
        OptionsError: the crop reaches beyond the photo; a slice would be cut short and then squashed.
    """
    height, width = rgb_u8.shape[:2]
    shape = (size, size) if isinstance(size, int) else size
    bottom, right = crop.top + crop.height, crop.left + crop.width
    if min(crop.height, crop.width) < 1 or min(crop.top, crop.left) < 0 or bottom > height or right > width:
        raise OptionsError(f"{crop} reaches beyond the photo of {height} x {width} pixels; draw it for that size")
    part = rgb_u8[crop.top : bottom, crop.left : right]
    if part.shape[:2] != shape:
        interpolation = cv2.INTER_AREA if crop.height > shape[0] else cv2.INTER_CUBIC
        part = cv2.resize(part, shape[::-1], interpolation=interpolation)
    return np.ascontiguousarray(part[:, ::-1] if crop.flip else part)


def make_pair(
    rgb_u8: np.ndarray, crop: Crop, size: int | Shape, rng: np.random.Generator, gray: str = VARIED
) -> tuple[np.ndarray, np.ndarray]:
    """Return gray and color half, each (H, W, 3) uint8 sRGB, the gray one with three equal channels.

    The gray half is made from the cropped color half: no flip or crop can come between them.

    Args:
        rgb_u8: (H, W, 3) uint8 sRGB.
        crop: drawn for this photo's size.
        size: height and width of both halves, or the side of a square.
        rng: for the gray: weights, grain, fading.
        gray: "varied" for another kind each time, or a method of `GRAY_METHODS`.

    Raises:
        OptionsError: the method is unknown, or the crop reaches beyond the photo.
    """
    if gray != VARIED and gray not in GRAY_METHODS:
        raise OptionsError(f"gray method {gray!r}; accepted: {', '.join((VARIED, *GRAY_METHODS))}")
    color = apply_crop(rgb_u8, crop, size)
    rgb = color.astype(np.float32) / 255
    levels = random_gray(rgb, rng) if gray == VARIED else make_gray(rgb, cast(GrayMethod, gray), rng)
    gray_u8 = np.rint(levels * 255).astype(np.uint8)  # (H, W)
    return np.repeat(gray_u8[..., None], 3, axis=2), color


def is_monochrome(rgb_u8: np.ndarray, min_chroma: float = 4.0, tint_degree: int = 2) -> bool:
    """Return whether a photo is gray or toned (sepia): chroma low, or nearly all of it explained by lightness.

    Args:
        rgb_u8: (H, W, 3) uint8 sRGB.
        min_chroma: mean CIELAB chroma below which a photo counts as gray.
        tint_degree: see `own_chroma`; with 0 only a photo with one tint from black to white counts as toned.
    """
    chroma, own = own_chroma(rgb_u8, tint_degree)
    return chroma < min_chroma or float(np.sqrt((own**2).mean())) < MIN_OWN_COLOR


def make_gray(rgb: np.ndarray, method: GrayMethod = "rec601", rng: np.random.Generator | None = None) -> np.ndarray:
    """Return the gray of a color photo: (H, W, 3) float32 sRGB 0..1 -> (H, W) float32 0..1.

    `random` draws the three weights from a Dirichlet distribution around Rec.601 and needs `rng`.

    Raises:
        OptionsError: the method is unknown, or `random` came without `rng`.
    """
    if method == "random":
        if rng is None:
            raise OptionsError("gray method 'random' needs a random generator")
        weights = rng.dirichlet(8 * np.asarray(GRAY_WEIGHTS["rec601"]) + 0.5)
    elif method in GRAY_WEIGHTS:
        weights = np.asarray(GRAY_WEIGHTS[method])
    else:
        raise OptionsError(f"gray method {method!r}; accepted: {', '.join(GRAY_METHODS)}")
    return np.clip(rgb @ weights.astype(np.float32), 0, 1)


def age(gray: np.ndarray, rng: np.random.Generator, amount: float = 1.0) -> np.ndarray:
    """Age a gray photo: (H, W) float32 0..1 in and out.

    In the order light meets them: lens blur, film contrast, grain, then fading of the print (raised blacks,
    lowered whites). `amount` scales all four; 0 changes nothing.
    """
    height, width = gray.shape
    short_side_px = min(height, width)
    blur_px = float(rng.uniform(0, 0.008)) * short_side_px * amount
    if blur_px > 0.3:
        gray = cv2.GaussianBlur(gray, (0, 0), blur_px)
    gamma = float(np.exp(rng.normal(0, 0.25 * amount)))
    gray = np.power(gray, gamma)
    grain = float(rng.uniform(0, 0.06)) * amount
    if grain > 0.003:
        noise = rng.standard_normal((height, width), dtype=np.float32)
        if rng.random() < 0.5:
            noise = cv2.GaussianBlur(noise, (0, 0), 0.8) * 2.0
        gray = gray + grain * noise
    black, white = float(rng.uniform(0, 0.2)) * amount, 1 - float(rng.uniform(0, 0.2)) * amount
    faded = black + (white - black) * np.clip(gray, 0, 1)
    return np.clip(faded, 0, 1).astype(np.float32)


def random_gray(rgb: np.ndarray, rng: np.random.Generator, plain_share: float = 0.4) -> np.ndarray:
    """Return a training input, (H, W) float32 0..1: plain Rec.601 for `plain_share`, else other weights and an age."""
    if rng.random() < plain_share:
        return make_gray(rgb, "rec601")
    gray = make_gray(rgb, "random", rng)
    return age(gray, rng, amount=float(rng.uniform(0, 1))) if rng.random() < 0.75 else gray
