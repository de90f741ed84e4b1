"""Color that a photo has of its own: what is left without the tone of a print, which follows lightness."""

from __future__ import annotations

import cv2
import numpy as np

SMALL_SIDE_PX = 64  # grain and a JPEG's chroma noise are averaged away before chroma is measured
LEAST_IN_COLOR = 6.0  # CIELAB units, see `is_in_color`


def own_chroma(rgb: np.ndarray, tint_degree: int = 2) -> tuple[float, np.ndarray]:
    """Return the mean CIELAB chroma of a photo, and the part of it that lightness does not explain, at 64 x 64 points.

    In a toned print a and b follow from L alone: the tint fades towards black and white. So a polynomial in L is fitted
    to them, and what remains is the photo's own color.

    Args:
        rgb: (H, W, 3) uint8 or uint16 sRGB.
        tint_degree: of the polynomial; with 0 the tint is the same from black to white.

    Returns:
        Mean distance from gray, and (4096,) float64 distances from the tint, all in CIELAB units.
    """
    size = (SMALL_SIDE_PX, SMALL_SIDE_PX)
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.float32) / np.iinfo(rgb.dtype).max
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    ab = lab[:, 1:]
    powers = np.vander(lab[:, 0] / 100, tint_degree + 1)  # (N, degree + 1)
    tint = powers @ np.linalg.lstsq(powers, ab)[0]  # (N, 2)
    return float(np.hypot(ab[:, 0], ab[:, 1]).mean()), np.sqrt(((ab - tint) ** 2).sum(axis=1))


def is_in_color(rgb: np.ndarray) -> bool:
    """Return whether a photo is plainly in color, and no scan of a black-and-white print.

    It is where the mean of `own_chroma` is above 6 CIELAB units. Gray and sepia prints have less than 2, also as JPEGs
    of quality 30 and with grain; prints with yellow edges, brown stains, a cream border or a red stamp less than 6.
    Of color photos 66 % have more (84 % of press photos of faces, 600 each): what has less is dull, faded or of one
    hue, and may well be a print.

    Args:
        rgb: (H, W, 3) uint8 or uint16 sRGB.
    """
    return float(own_chroma(rgb)[1].mean()) > LEAST_IN_COLOR
