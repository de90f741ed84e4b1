"""Colours that a point of a photo may have had: what passes of the model with other words give there."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from chromatune.color.gamut import fit_gamut
from chromatune.color.luminance import CB_SCALE, CR_SCALE, LUMA_WEIGHTS
from chromatune.images import Photo

# Said after a photo's own words; the model was taught them
PALETTE_WORDS = (
    ", warm colors", ", cool colors", ", mostly red", ", mostly orange", ", mostly green", ", mostly blue",
)  # fmt: skip
MOST_COLOURS = 8
LEAST_DISTANCE = 0.035  # of chroma: colours that are nearer look alike
NEIGHBOURHOOD = 1 / 40  # of the chroma's short side: a point is not asked for a single pixel's colour


def distinct_colours(chromas: Sequence[np.ndarray], photo: Photo, x: float, y: float) -> list[str]:
    """Colours for a point as #rrggbb, in the chromas' order, without those that look like an earlier one.

    Args:
        chromas: (h, w, 2) float32, (Cb, Cr) each, of any size, stretched over the photo.
        photo: whose luma at the point the colours have.
        x: pixels from the photo's left edge.
        y: pixels from its top.
    """
    column, row = min(int(x), photo.width_px - 1), min(int(y), photo.height_px - 1)
    luma = float(photo.grey[row, column]) / photo.max_value
    found: list[np.ndarray] = []
    for chroma in chromas:
        height, width = chroma.shape[:2]
        radius = max(1, round(NEIGHBOURHOOD * min(height, width)))
        across, down = int(x / photo.width_px * width), int(y / photo.height_px * height)
        near = chroma[max(0, down - radius) : down + radius + 1, max(0, across - radius) : across + radius + 1]
        own = fit_gamut(np.array(cv2.mean(near)[:2], np.float32), np.array(luma, np.float32))
        if all(np.hypot(*(own - other)) >= LEAST_DISTANCE for other in found):
            found.append(own)
    return [_hex(luma, *map(float, chroma)) for chroma in found[:MOST_COLOURS]]


def _hex(luma: float, blue: float, red: float) -> str:
    r, b = luma + CR_SCALE * red, luma + CB_SCALE * blue
    g = (luma - LUMA_WEIGHTS[0] * r - LUMA_WEIGHTS[2] * b) / LUMA_WEIGHTS[1]
    return "#" + "".join(f"{round(min(1.0, max(0.0, level)) * 255):02x}" for level in (r, g, b))
