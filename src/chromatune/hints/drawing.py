"""Hints on a grid: strokes, points and layers painted over each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from chromatune.color import relative_chroma
from chromatune.errors import PhotoError
from chromatune.hints.hints import Hints, Layer, Stroke
from chromatune.images import Photo

FINER = 4  # pixels of the canvas for one of the grid, along a side
DEFAULT_RADIUS = 1 / 50  # of the photo's short side: what evaluation's squares have
SUBPIXEL_BITS = 4  # OpenCV takes coordinates in sixteenths
MOST_DRAWN_PIXELS = 100_000_000  # of one stroke, segment by segment; beyond, by the distance to its line
NEAR_COST = 20  # times as long as a pixel of a segment takes one of that distance
MOST_PAINTED_PIXELS = 512_000_000  # of all strokes: the canvas has half a million, and is painted some hundred times


@dataclass(frozen=True, eq=False)
class HintMap:
    """Hints drawn on a grid: a color and a weight at each pixel.

    Attributes:
        relative: (h, w, 2) float32, chroma over luma (`color.relative_chroma`); 0 where there is no hint.
        weight: (h, w) float32, 0..1.
    """

    relative: np.ndarray
    weight: np.ndarray


def draw(hints: Hints, photo: Photo, size: tuple[int, int]) -> HintMap:
    """Return the hints on a grid of height and width `size` that is stretched over the photo.

    Raises:
        PhotoError: they do not fit the photo, or paint over it too often.
    """
    hints.check(photo)
    canvas = np.zeros((size[0] * FINER, size[1] * FINER, 3), np.float32)  # relative chroma times alpha, and alpha
    painted = 0
    for mark in hints.marks:
        if isinstance(mark, Layer):
            _lay(canvas, mark)
            continue
        painted += _paint(canvas, mark, photo)
        if painted > MOST_PAINTED_PIXELS:
            raise PhotoError(
                f"{photo.name}: the hints cover the photo too many times over; give fewer, or a smaller radius"
            )
    small = cv2.resize(canvas, size[::-1], interpolation=cv2.INTER_AREA)
    weight = np.clip(small[..., 2], 0, 1)
    return HintMap(small[..., :2] / np.maximum(small[..., 2:], 1e-6), weight)


def _lay(canvas: np.ndarray, layer: Layer) -> None:
    rgba = layer.rgba
    alpha = rgba[..., 3:]
    over = np.dstack([relative_chroma(rgba[..., :3]) * alpha, alpha])
    height, width = canvas.shape[:2]
    shrinks = height <= over.shape[0] and width <= over.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    over = cv2.resize(over, (width, height), interpolation=method)
    canvas *= 1 - over[..., 2:]
    canvas += over


def _paint(canvas: np.ndarray, stroke: Stroke, photo: Photo) -> int:
    """Draw a stroke into the part of the canvas that it touches; return how many pixels that took."""
    height, width = canvas.shape[:2]
    scale = np.array([width / photo.width_px, height / photo.height_px])
    radius_px = stroke.radius_px or DEFAULT_RADIUS * min(photo.height_px, photo.width_px)
    # OpenCV draws no lines thicker than 32767; one as wide as the canvas is long covers it
    radius = min(max(0.5, radius_px * math.sqrt(scale.prod())), math.hypot(height, width))
    points = np.array(stroke.points) * scale - 0.5  # from edges of pixels to their centers
    left, top = np.maximum(np.floor(points.min(axis=0) - radius - 2), 0).astype(int)
    right, bottom = np.minimum(np.ceil(points.max(axis=0) + radius + 3), (width, height)).astype(int)
    mask = np.zeros((bottom - top, right - left), np.uint8)
    moved = np.rint((points - (left, top)) * 2**SUBPIXEL_BITS).astype(np.int32)
    length = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
    drawn = (length + 2 * radius * len(points)) * 2 * radius
    if drawn > MOST_DRAWN_PIXELS:
        mask, drawn = _near(moved, mask.shape, radius), length + NEAR_COST * mask.size
    else:
        _draw_line(mask, moved, radius)
    alpha = mask.astype(np.float32)[..., None] / 255
    color = relative_chroma(np.array(stroke.color, np.float32) / 255)
    part = canvas[top:bottom, left:right]
    part *= 1 - alpha
    part += alpha * np.append(color, np.float32(1))
    return int(drawn) + mask.size


def _draw_line(mask: np.ndarray, points: np.ndarray, radius: float) -> None:
    ends = points if len(points) < 3 else points[[0, -1]]
    for x, y in ends.tolist():
        cv2.circle(mask, (x, y), round(radius * 2**SUBPIXEL_BITS), 255, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)
    if len(points) > 1:
        thickness = max(1, round(2 * radius))
        cv2.polylines(mask, [points[:, None]], False, 255, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def _near(points: np.ndarray, shape: tuple[int, ...], radius: float) -> np.ndarray:
    """(h, w) uint8 of what lies within the radius of a line: its time does not grow with points times radius."""
    line = np.full(shape, 255, np.uint8)
    cv2.polylines(line, [points[:, None]], False, 0, 1, cv2.LINE_8, SUBPIXEL_BITS)
    distance = cv2.distanceTransform(line, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.rint(255 * np.clip(radius + 0.5 - distance, 0, 1)).astype(np.uint8)
