"""Artifacts of colorizations, measured on one photo: color that bleeds over edges, skin of a wrong color."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import cv2
import numpy as np

from chromatune import color
from chromatune.errors import MissingExtraError

CHROMA_EDGE = 1.0  # 8-bit levels per pixel: models give soft chroma, and its steps are no steeper
LUMA_EDGE = 4.0  # 8-bit levels per pixel: what chroma may follow
REACH_PX = 2  # a chroma edge this near to a luma edge follows it

FACE_DETECTOR = "LBP cascade lbpcascade_frontalface_opencv"
MIN_FACE_SHARE = 0.15  # of the photo's side
SAME_FACE = 0.5  # intersection over union of two windows on one face
MIN_WINDOWS = 4  # windows that must agree
FACE_SHARE = (0.32, 0.4)  # half axes of the ellipse of skin, in face widths and heights: no hair, no background

Box = tuple[int, int, int, int]  # top, left, height, width in pixels


def near_luma_edges(gray: np.ndarray) -> np.ndarray:
    """Return where a chroma edge would follow a luma edge of the photo: (H, W) uint8 luma -> (H, W) bool."""
    side = 2 * REACH_PX + 1
    luma_edges = (_gradient(gray.astype(np.float32)) >= LUMA_EDGE).astype(np.uint8)
    return cv2.dilate(luma_edges, np.ones((side, side), np.uint8)) > 0


def color_bleeding(rgb_u8: np.ndarray, near: np.ndarray) -> float:
    """Return the share of the strength of chroma edges that lies away from luma edges, 0..1; 0 without chroma edges.

    Args:
        rgb_u8: (H, W, 3) uint8 sRGB.
        near: `near_luma_edges` of the photo.
    """
    chroma = color.chroma_of(rgb_u8.astype(np.float32) / 255) * 255  # (H, W, 2)
    steps = _length(*(_gradient(chroma[..., channel]) for channel in (0, 1)))
    edges = np.where(steps >= CHROMA_EDGE, steps, 0)
    if not edges.any():
        return 0.0
    return float(edges[~near].sum(dtype=np.float64) / edges.sum(dtype=np.float64))


def skin_distance(distances: np.ndarray, face: Box) -> float:
    """Return the mean color difference over the skin of a face: an ellipse within its box.

    Args:
        distances: (H, W) CIEDE2000 between result and truth.
        face: where the face is.
    """
    top, left, height, width = face
    mask = np.zeros(distances.shape, np.uint8)
    axes = (max(1, round(FACE_SHARE[0] * width)), max(1, round(FACE_SHARE[1] * height)))
    cv2.ellipse(mask, (left + width // 2, top + height // 2), axes, 0, 0, 360, 1, -1)
    return float(distances[mask > 0].mean())


def face_finder() -> Callable[[np.ndarray], Box | None]:
    """Return a function from (H, W) uint8 luma to the clearest face, or None.

    The detector is OpenCV's LBP frontal face cascade, run by scikit-image, which brings the file: OpenCV 5 left
    cascades out.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    if find_spec("skimage") is None:
        raise MissingExtraError("measuring colorizers (scikit-image)", "evaluate")
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    detector = Cascade(lbp_frontal_face_cascade_filename())

    def find(gray: np.ndarray) -> Box | None:
        side = min(gray.shape)
        # A score over 1 that no pair reaches keeps all windows apart: the detector's own grouping depends on the order
        # in which its threads end.
        windows = detector.detect_multi_scale(
            gray,
            scale_factor=1.2,
            step_ratio=1,
            min_size=(round(MIN_FACE_SHARE * side),) * 2,
            max_size=(side, side),
            min_neighbor_number=0,
            intersection_score_threshold=2.0,
        )
        return _clearest([(w["r"], w["c"], w["height"], w["width"]) for w in windows])

    return find


def _clearest(windows: list[Box]) -> Box | None:
    """Return the median of the windows on the face that most windows agree on; None if fewer than `MIN_WINDOWS` do."""
    if not windows:
        return None
    boxes = np.array(sorted(windows))  # (N, 4)
    top, left, height, width = boxes.T
    rows = np.minimum.outer(top + height, top + height) - np.maximum.outer(top, top)
    columns = np.minimum.outer(left + width, left + width) - np.maximum.outer(left, left)
    common = np.maximum(rows, 0) * np.maximum(columns, 0)
    area = height * width
    agree = common / (np.add.outer(area, area) - common) >= SAME_FACE  # (N, N)
    best = agree[int(agree.sum(axis=1).argmax())]
    if best.sum() < MIN_WINDOWS:
        return None
    top_px, left_px, height_px, width_px = np.median(boxes[best], axis=0).astype(int).tolist()
    return top_px, left_px, height_px, width_px


def _gradient(plane: np.ndarray) -> np.ndarray:
    """Length of the gradient of a (H, W) float32 plane, per pixel."""
    return _length(cv2.Sobel(plane, -1, 1, 0, scale=1 / 8), cv2.Sobel(plane, -1, 0, 1, scale=1 / 8))


def _length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`np.hypot` of float32 planes, several times faster; rounded once, from float64, as a threshold may follow."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    return np.sqrt(x * x + y * y).astype(np.float32)
