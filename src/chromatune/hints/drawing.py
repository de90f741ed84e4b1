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
LEAST_PIECE_PX = 16.0  # a line is cut into pieces, none longer than this or its radius
PIXELS_AT_ONCE = 1 << 20  # of pieces
MOST_DRAWN_PIXELS = 4_000_000  # of one stroke, piece by piece; beyond, by the distance to its pixels
NEAR_COST = 5  # times as long as a pixel of a piece takes one of that distance
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
    radius = min(max(0.5, radius_px * math.sqrt(scale.prod())), math.hypot(height, width))  # that covers the canvas
    points = np.array(stroke.points) * scale - 0.5  # from edges of pixels to their centers
    left, top = np.maximum(np.floor(points.min(axis=0) - radius - 2), 0).astype(int)
    right, bottom = np.minimum(np.ceil(points.max(axis=0) + radius + 3), (width, height)).astype(int)
    shape = bottom - top, right - left
    moved = points - (left, top)
    length = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
    pieces = len(points) + length / max(LEAST_PIECE_PX, radius)
    drawn = pieces * (max(LEAST_PIECE_PX, radius) + 2 * radius) ** 2
    if drawn > MOST_DRAWN_PIXELS:
        alpha, drawn = _near(moved, shape, radius), length + NEAR_COST * shape[0] * shape[1]
    else:
        alpha = _covered(moved, shape, radius)
    alpha = alpha[..., None]
    color = relative_chroma(np.array(stroke.color, np.float32) / 255)
    part = canvas[top:bottom, left:right]
    part *= 1 - alpha
    part += alpha * np.append(color, np.float32(1))
    return int(drawn) + alpha.size


def _covered(points: np.ndarray, shape: tuple[int, int], radius: float) -> np.ndarray:
    """Return how far a line with round ends covers each pixel: by its distance from the line, (h, w) float32 0..1."""
    starts, ends = _pieces(points, max(LEAST_PIECE_PX, radius))
    ways = ends - starts
    squared = np.maximum((ways**2).sum(axis=1), 1e-12)
    side = math.ceil(float(np.abs(ways).max()) + 2 * radius) + 4
    corners = np.floor(np.minimum(starts, ends) - radius - 1).astype(int)
    mask = np.zeros((shape[0] + 2 * side, shape[1] + 2 * side), np.float32)  # the pieces' boxes reach beyond the shape
    steps = np.arange(side)
    at_once = max(1, PIXELS_AT_ONCE // side**2)
    for first in range(0, len(starts), at_once):
        some = slice(first, first + at_once)
        columns, rows = (corners[some, axis, None] + steps for axis in (0, 1))  # (N, side)
        x, y = columns - starts[some, :1], rows - starts[some, 1:]
        dx, dy = ways[some, 0, None, None], ways[some, 1, None, None]
        along = (x[:, None, :] * dx + y[:, :, None] * dy) / squared[some, None, None]
        np.clip(along, 0, 1, out=along)
        distance = np.hypot(x[:, None, :] - along * dx, y[:, :, None] - along * dy)
        share = np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32)
        places = (rows + side)[:, :, None] * mask.shape[1] + (columns + side)[:, None, :]
        np.maximum.at(mask.reshape(-1), places.ravel(), share.ravel())
    return mask[side : side + shape[0], side : side + shape[1]]


def _pieces(points: np.ndarray, longest: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a line's segments, the long ones cut: starts and ends, (N, 2) each."""
    if len(points) == 1:
        return points, points
    starts, ways = points[:-1], np.diff(points, axis=0)
    counts = np.maximum(1, np.ceil(np.abs(ways).max(axis=1) / longest)).astype(int)
    which = np.repeat(np.arange(len(starts)), counts)
    number = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    shares = (number / counts[which])[:, None], ((number + 1) / counts[which])[:, None]
    return starts[which] + shares[0] * ways[which], starts[which] + shares[1] * ways[which]


def _near(points: np.ndarray, shape: tuple[int, ...], radius: float) -> np.ndarray:
    """Return about the same as `_covered`: its time does not grow with points times radius."""
    line = np.full(shape, 255, np.uint8)
    whole = np.rint(points * 2**SUBPIXEL_BITS).astype(np.int32)
    cv2.polylines(line, [whole[:, None]], False, 0, 1, cv2.LINE_8, SUBPIXEL_BITS)
    distance = cv2.distanceTransform(line, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.clip(radius + 0.5 - distance, 0, 1)
