"""Whether a scan shows a negative: by the orange mask of color film, or by a face that only its positive shows.

Tones alone do not tell: of 4,900 photographs, a classifier of their histogram, gradients and band-pass skewness takes
one in two hundred for a negative by the time it finds one negative in twenty. So they only say where it is worth
looking, and what is found is a note, never a decision. Of 2,000 photographs 3 are taken for negatives; of their
negatives three in four of the portraits are found, and few without a face of a fifth of the short side.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec

import cv2
import numpy as np

from chromatune.color.luminance import WHITE_LEVEL, lab_of

SHORT_SIDE_PX = 128  # at which faces are looked for
LARGEST_ASPECT = 4.0
SMALLEST_FACE_PX = 28
LIGHT = 0.03  # middle between the 5th and 95th percentile, over the middle gray: most photos are darker
DARK_TOP = -0.12  # lightness of the upper third less the lower third's: most photos are lighter above
BASE_SHARE = 5.0  # percent: the lightest part, where a film shows its base
BASE_A, BASE_B, BASE_L = (18, 40), (30, 60), (45, 80)  # CIELAB of an orange mask, scanned
MASK_HUES = 25.0, 85.0  # degrees
LEAST_MASKED = 0.85  # of the picture has such a hue


def looks_negative(gray: np.ndarray, rgb: np.ndarray | None = None) -> bool:
    """Return whether a photo is probably a scan of a negative.

    Args:
        gray: (H, W) uint8 or uint16 luma.
        rgb: (H, W, 3) of the same type, its colors if it has any.
    """
    luma_u8 = _small_luma(gray)
    if not _tones_are_odd(luma_u8):
        return False
    if rgb is not None and _has_orange_mask(rgb):
        return True
    find_face = _face_finder()
    return find_face is not None and find_face(255 - luma_u8) and not find_face(luma_u8)


def _small_luma(gray: np.ndarray) -> np.ndarray:
    """Return small luma from black to white, (h, w) uint8."""
    height, width = gray.shape
    scale = SHORT_SIDE_PX / min(height, width)
    longest = round(LARGEST_ASPECT * SHORT_SIDE_PX)
    size = min(longest, max(1, round(width * scale))), min(longest, max(1, round(height * scale)))
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    small = small.astype(np.float32) / WHITE_LEVEL[gray.dtype]
    black, white = np.percentile(small, (0.5, 99.5))
    return np.rint(np.clip((small - black) / max(float(white - black), 1e-3), 0, 1) * 255).astype(np.uint8)


def _tones_are_odd(luma_u8: np.ndarray) -> bool:
    """Return whether tones are as in most negatives, and in one photo of four."""
    dark, light = np.percentile(luma_u8, (5, 95)) / 255
    third = max(1, len(luma_u8) // 3)
    above = float(luma_u8[:third].mean() - luma_u8[-third:].mean()) / 255
    return bool((dark + light) / 2 - 0.5 > LIGHT or above < DARK_TOP)


def _has_orange_mask(rgb: np.ndarray) -> bool:
    """Return whether nearly all of a picture is orange, and its lightest part as a color film's base is."""
    small = cv2.resize(rgb, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32) / WHITE_LEVEL[rgb.dtype]
    lightness, a, b = lab_of(small).reshape(-1, 3).T
    base = lightness >= np.percentile(lightness, 100 - BASE_SHARE)
    found = zip((a, b, lightness), (BASE_A, BASE_B, BASE_L), strict=True)
    if not all(low <= float(np.median(values[base])) <= high for values, (low, high) in found):
        return False
    hue = np.degrees(np.arctan2(b, a))
    return float(((hue > MASK_HUES[0]) & (hue < MASK_HUES[1])).mean()) >= LEAST_MASKED


@lru_cache(maxsize=1)
def _face_finder() -> Callable[[np.ndarray], bool] | None:
    """Return a function from (h, w) uint8 luma to whether it shows a face; None without scikit-image.

    It is OpenCV's cascade of local binary patterns, which scikit-image brings; OpenCV 5 left cascades out.
    """
    if find_spec("skimage") is None:
        return None
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    detector = Cascade(lbp_frontal_face_cascade_filename())

    def find(luma_u8: np.ndarray) -> bool:
        smallest, largest = (SMALLEST_FACE_PX,) * 2, (min(luma_u8.shape),) * 2
        found = detector.detect_multi_scale(
            luma_u8, scale_factor=1.2, step_ratio=1.3, min_size=smallest, max_size=largest
        )
        return bool(found)

    return find
