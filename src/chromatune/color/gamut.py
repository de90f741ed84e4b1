"""What chroma fits into sRGB at a luma, and the chroma that a color's hue and saturation mean at a luma."""

from __future__ import annotations

import numpy as np

from chromatune.color.luminance import CB_SCALE, CR_SCALE, LUMA_WEIGHTS

_RED_IN_GREEN = -LUMA_WEIGHTS[0] / LUMA_WEIGHTS[1]
_BLUE_IN_GREEN = -LUMA_WEIGHTS[2] / LUMA_WEIGHTS[1]
_TINY = 1e-9  # keeps 0 / 0 away


def fit_gamut(chroma: np.ndarray, luma: np.ndarray) -> np.ndarray:
    """The chroma, scaled toward zero by the largest factor in 0..1 at which sRGB holds it: hues stay.

    Args:
        chroma: (..., 2) float, (Cb, Cr), of any size.
        luma: (...) float, Rec.601 luma 0..1 of gamma-encoded sRGB.

    Returns:
        (..., 2) of the chroma's type.
    """
    blue, red = CB_SCALE * chroma[..., 0], CR_SCALE * chroma[..., 1]  # B - Y', R - Y'
    green = _RED_IN_GREEN * red + _BLUE_IN_GREEN * blue
    highest = np.maximum(np.maximum(red, green), blue)
    lowest = np.minimum(np.minimum(red, green), blue)
    factor = np.minimum((1 - luma) / np.maximum(highest, _TINY), luma / np.maximum(-lowest, _TINY))
    return (chroma * np.clip(factor, 0, 1)[..., None]).astype(chroma.dtype)


def relative_chroma(rgb: np.ndarray) -> np.ndarray:
    """What hue and saturation of a color (in HSV's sense) say of chroma at any luma: chroma over luma.

    A color multiplied by a number keeps its hue, its saturation, and this quotient. So the quotient times a photo's
    luma is the chroma of the color of that hue and saturation that has the photo's luma. Black has no hue, and counts
    as gray.

    Args:
        rgb: (..., 3) float sRGB, 0..1.

    Returns:
        (..., 2) float32, (Cb, Cr) over luma: 0 for gray, at most 4.4 (blue).
    """
    gray = rgb @ np.array(LUMA_WEIGHTS)
    blue, red = (rgb[..., 2] - gray) / CB_SCALE, (rgb[..., 0] - gray) / CR_SCALE
    found = np.stack([blue, red], axis=-1) / np.maximum(gray, _TINY)[..., None]
    return np.where(gray[..., None] > 0, found, 0).astype(np.float32)
