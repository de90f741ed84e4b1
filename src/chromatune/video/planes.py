"""Luma as the film stores it and small chroma ⇒ the three planes of a colored frame.

The plane of luma is the film's own. Rec.601 is the matrix of the result, whatever that of the film was: with it, luma
is the gray that the rest of the package keeps, so that no sample of it need change. A film without color looks the
same by every matrix.
"""

from __future__ import annotations

import numpy as np

from chromatune import color
from chromatune.color import fit_gamut, resize
from chromatune.video.frames import gray_of

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]  # Y, Cb, Cr
LIMITED_CHROMA = 224  # levels of full chroma in limited range, at 8 bits


def planes_of(
    luma: np.ndarray,
    chroma: np.ndarray,
    *,
    bits: int,
    out_bits: int,
    full_range: bool,
    halved: tuple[bool, bool],
    strength: float = 1.0,
    by_field: bool = False,
) -> Planes:
    """Planes Y, Cb, Cr, uint8 or, of more than 8 bits, uint16.

    Args:
        luma: (H, W) code values of `bits` bits.
        chroma: (h, w, 2) float32 (Cb, Cr), -0.5..0.5.
        bits: of luma.
        out_bits: of the planes.
        full_range: of luma and the planes.
        halved: whether Cb and Cr have half the height, and half the width, rounded up.
        strength: factor on the chroma.
        by_field: the rows are those of two fields in turn: each gets chroma of its own rows.
    """
    gray = gray_of(luma, bits, full_range)
    height, width = luma.shape
    rows, columns = (-(-side // 2) if half else side for side, half in zip((height, width), halved, strict=True))
    if by_field and halved[0] and height % 4 == 0:
        found = np.empty((rows, columns, 2), np.float32)
        for field in (0, 1):
            found[field::2] = _full_chroma(gray[field::2], chroma, (rows // 2, columns), strength)
    else:
        found = _full_chroma(gray, chroma, (rows, columns), strength)
    cb, cr = (_coded(found[..., index], out_bits, full_range) for index in (0, 1))
    return to_bits(luma, bits, out_bits, full_range), cb, cr


def to_bits(luma: np.ndarray, bits: int, out_bits: int, full_range: bool) -> np.ndarray:
    """Code values at another depth; at the same depth, they are the same."""
    if bits == out_bits:
        return luma
    kind = np.uint8 if out_bits == 8 else np.uint16
    scale = (2**out_bits - 1) / (2**bits - 1) if full_range else 2.0 ** (out_bits - bits)
    return np.minimum(np.rint(luma * np.float32(scale)), 2**out_bits - 1).astype(kind)


def _full_chroma(gray: np.ndarray, chroma: np.ndarray, size: tuple[int, int], strength: float) -> np.ndarray:
    """Chroma at a plane's size, in gamut."""
    small = resize(np.ascontiguousarray(gray), *size)
    found = color.upsample_chroma(chroma, small)
    if strength != 1:
        found *= np.float32(strength)
    return fit_gamut(found, small.astype(np.float32) / np.iinfo(small.dtype).max)


def _coded(chroma: np.ndarray, bits: int, full_range: bool) -> np.ndarray:
    """-0.5..0.5 ⇒ code values around the middle of the scale."""
    span = 2**bits - 1 if full_range else LIMITED_CHROMA << (bits - 8)
    coded = np.rint(chroma * np.float32(span)) + 2 ** (bits - 1)
    return np.clip(coded, 0, 2**bits - 1).astype(np.uint8 if bits == 8 else np.uint16)
