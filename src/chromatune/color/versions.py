"""Versions of a photo: in each, whole regions have other colors than the model's own.

One sampling step gives about the mean of the plausible colors. Several steps decide, but each patch for itself: a sea
comes out half blue and half brown. What the two differ by is therefore smoothed along the photo's edges
(`CorrectionField.smooth`), which leaves the decision of most patches of a region, and strengthened, because the mean of
several decisions is weaker than each. Skin is spared, as in `vivid`: of skin, the mean is right.

`studies/versions.py` prints how far versions differ and how patchy they are, beside the several steps themselves.
"""

from __future__ import annotations

import numpy as np

from chromatune.color.correction_field import CorrectionField, grid_size, upsample_field
from chromatune.color.luminance import unlike_skin
from chromatune.color.recomposition import resize

PULL = 1.25e-4  # see `CorrectionField.smooth`: a decision spreads some 55 pixels of 128
GAIN = 4.0


def regional_shift(expected: np.ndarray, sampled: np.ndarray, luma: np.ndarray) -> np.ndarray:
    """Return what a version adds to the model's own chroma.

    Args:
        expected: (h, w, 2) float32, (Cb, Cr) of one step.
        sampled: the same of several steps.
        luma: (h, w) float32, 0..1, of the same size.

    Returns:
        (h, w, 2) float32.
    """
    height, width = luma.shape
    size = grid_size(height, width)
    field = CorrectionField(resize(luma, *size))
    wanted = (sampled - expected) * unlike_skin(expected)
    smooth = field.smooth(resize(wanted.astype(np.float32), *size), PULL)
    return np.float32(GAIN) * upsample_field(smooth, field.luma, luma)


def departure(shift: np.ndarray) -> float:
    """Return how far a version is from the model's own colors: the root of the mean square of its shift, in chroma.

    The model's own are about the mean of the plausible ones, so that of several versions the nearest is the likeliest.
    """
    return float(np.sqrt(np.mean(np.sum(shift.astype(np.float64) ** 2, axis=-1))))
