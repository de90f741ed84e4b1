"""Colour arithmetic on arrays: exact luminance, chroma, and the two put together at full size.

luminance.py     Rec.601 luma and chroma, the sRGB curve, how far luma drifted
own_colour.py    whether a photo has colour that is not a print's tone
recomposition.py small chroma and a full-size grey ⇒ the photograph in colour, grey for grey the same
"""

from chromatune.color.luminance import (
    LUMA_WEIGHTS,
    chroma_of,
    linear_to_srgb,
    luma,
    luma_drift,
    srgb_to_linear,
    vivid,
)
from chromatune.color.own_colour import is_in_colour, own_chroma
from chromatune.color.recomposition import recompose, upsample_chroma

__all__ = [
    "LUMA_WEIGHTS",
    "chroma_of",
    "is_in_colour",
    "linear_to_srgb",
    "luma",
    "luma_drift",
    "own_chroma",
    "recompose",
    "srgb_to_linear",
    "upsample_chroma",
    "vivid",
]
