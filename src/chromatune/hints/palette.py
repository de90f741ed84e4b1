"""A short list of distinct colors out of many candidates for a point."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from chromatune.color import CB_SCALE, CR_SCALE, LUMA_WEIGHTS, fit_gamut
from chromatune.hints.hints import Color

LEAST_DIFFERENCE = 8.0  # CIELAB distance under which two colors count as one
NEAR_SHARE = 1 / 40  # of the short side: how far around a point is looked
LUMA_SIGMA = 0.05  # difference of luma to the point's, 0..1, at which a pixel near it counts exp(-1/2)


def chroma_at(chroma: np.ndarray, luma: np.ndarray, x: float, y: float) -> tuple[np.ndarray, float]:
    """Return the mean chroma of what lies near a point and is about as light, and the point's luma.

    Args:
        chroma: (h, w, 2) float32.
        luma: (h, w) float32, 0..1.
        x: 0..1, from the left.
        y: 0..1, from the top.
    """
    height, width = luma.shape
    row, column = min(height - 1, int(y * height)), min(width - 1, int(x * width))
    radius = max(1, round(NEAR_SHARE * min(height, width)))
    near = np.s_[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1]
    weight = np.exp(-((luma[near] - luma[row, column]) ** 2) / (2 * LUMA_SIGMA**2))[..., None]
    return (chroma[near] * weight).sum(axis=(0, 1)) / weight.sum(), float(luma[row, column])


def distinct_colors(candidates: Iterable[np.ndarray], luma: float, count: int) -> tuple[Color, ...]:
    """Return the first candidates that look different, in their order, as sRGB of that luma.

    Args:
        candidates: (2,) chroma each, the most plausible first; each is brought into the gamut.
        luma: 0..1.
        count: at most so many.
    """
    found: list[Color] = []
    labs: list[np.ndarray] = []
    for candidate in candidates:
        blue, red = fit_gamut(np.asarray(candidate, np.float64), np.array(luma)) * (CB_SCALE, CR_SCALE) + luma
        green = (luma - LUMA_WEIGHTS[0] * red - LUMA_WEIGHTS[2] * blue) / LUMA_WEIGHTS[1]
        rgb = np.clip([red, green, blue], 0, 1).astype(np.float32)
        lab = cv2.cvtColor(rgb.reshape(1, 1, 3), cv2.COLOR_RGB2LAB)[0, 0]
        if all(float(np.linalg.norm(lab - other)) >= LEAST_DIFFERENCE for other in labs):
            levels = np.rint(rgb * 255).astype(int).tolist()
            found.append((levels[0], levels[1], levels[2]))
            labs.append(lab)
        if len(found) == count:
            break
    return tuple(found)
