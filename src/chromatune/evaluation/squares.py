"""What is compared of a photo: a small square of it, made as ours are or as those of published protocols."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from chromatune.data import apply_crop, center_crop

CENTER, CENTER_BILINEAR, STRETCHED = "center", "center-bilinear", "stretched"


@dataclass(frozen=True, eq=False)
class Square:
    """What is compared of a photo.

    Attributes:
        rgb_u8: (S, S, 3) uint8 sRGB, made by `make_square`.
        full_size: height and width of the whole photo, in pixels.
    """

    rgb_u8: np.ndarray
    full_size: tuple[int, int]


def center_square(rgb_u8: np.ndarray, size_px: int) -> np.ndarray:
    """Return the largest centered square, resized: (H, W, 3) uint8 -> (size_px, size_px, 3) uint8."""
    return apply_crop(rgb_u8, center_crop(*rgb_u8.shape[:2]), size_px)


def make_square(rgb_u8: np.ndarray, size_px: int, how: str = CENTER) -> np.ndarray:
    """Return a photo as a square: (H, W, 3) uint8 sRGB -> (size_px, size_px, 3) uint8 sRGB.

    Args:
        rgb_u8: the whole photo.
        size_px: side of the square.
        how: `center` is `center_square`, by area means. `center-bilinear` is the same square by Pillow's bilinear
            filter, as torchvision's CenterCrop and Resize make it (CT2, which the field follows for ImageNet val5k).
            `stretched` is the whole photo whatever its shape, by OpenCV's bilinear interpolation of floats, without
            smoothing (DDColor, which says the same of COCO-Stuff).

    Raises:
        ValueError: another way.
    """
    if how == CENTER:
        return center_square(rgb_u8, size_px)
    if how == CENTER_BILINEAR:
        height, width = rgb_u8.shape[:2]
        side = min(height, width)
        top, left = round((height - side) / 2), round((width - side) / 2)  # to even, as torchvision rounds
        square = Image.fromarray(rgb_u8[top : top + side, left : left + side])
        return np.asarray(square.resize((size_px, size_px), Image.Resampling.BILINEAR))
    if how == STRETCHED:
        stretched = cv2.resize(rgb_u8.astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_LINEAR)
        return np.rint(stretched).astype(np.uint8)
    raise ValueError(f"square {how!r}; accepted: {CENTER}, {CENTER_BILINEAR}, {STRETCHED}")


def square_of(rgb_u8: np.ndarray, size_px: int, how: str = CENTER) -> Square:
    """Return the `Square` of a photo, (H, W, 3) uint8 sRGB; it holds no memory of the whole photo."""
    height, width = rgb_u8.shape[:2]
    return Square(make_square(rgb_u8, size_px, how).copy(), (height, width))
