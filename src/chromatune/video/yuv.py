"""YUV as videos store it: luma ⇒ gray, and luma with small chroma ⇒ the three planes of a colored frame.

The plane of luma is the video's own. The result has the matrix of Rec.601, whatever that of the video was: with it,
luma is the gray of the rest of the package, and no sample of it changes. A video without color looks the same by every
matrix.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

from chromatune import color
from chromatune.color import fit_gamut, resize
from chromatune.images import to_depth
from chromatune.video.video import Frame, VideoInfo

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]  # Y, Cb, Cr
LIMITED_BLACK, LIMITED_WHITE = 16, 235  # luma of limited range, at 8 bits (BT.601)
LIMITED_CHROMA = 224  # levels of full chroma in limited range, at 8 bits


def gray_of(luma: np.ndarray, bits: int, full_range: bool) -> np.ndarray:
    """Return luma in full range: (H, W) uint8 0..255, or uint16 0..65535 where there are more than 8 bits.

    Args:
        luma: (H, W) code values.
        bits: of a code value.
        full_range: see `VideoInfo`.
    """
    if full_range and bits in (8, 16):
        return luma
    if bits == 8:
        return cv2.LUT(luma, _full_range_table(bits, full_range))
    return _full_range_table(bits, full_range)[np.minimum(luma, 2**bits - 1)]


def small_gray(frame: Frame, info: VideoInfo, size: tuple[int, int]) -> np.ndarray:
    """Return a frame's gray at a height and width: uint8, full range."""
    return to_depth(gray_of(resize(frame.luma, *size), info.bits, info.full_range), np.uint8)


def to_planes(
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
    """Return the planes Y, Cb, Cr, uint8 or, of more than 8 bits, uint16.

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
        full = np.empty((rows, columns, 2), np.float32)
        for field in (0, 1):
            full[field::2] = _upsampled(gray[field::2], chroma, (rows // 2, columns), strength)
    else:
        full = _upsampled(gray, chroma, (rows, columns), strength)
    cb, cr = (_chroma_codes(full[..., index], out_bits, full_range) for index in (0, 1))
    return _luma_codes(luma, bits, out_bits, full_range), cb, cr


@functools.cache
def _full_range_table(bits: int, full_range: bool) -> np.ndarray:
    """Code value ⇒ full range, uint8 of 8 bits, uint16 of more."""
    black, white = (0, 2**bits - 1) if full_range else (LIMITED_BLACK << (bits - 8), LIMITED_WHITE << (bits - 8))
    dtype = np.uint8 if bits == 8 else np.uint16
    share = np.clip((np.arange(2**bits) - black) / (white - black), 0, 1)
    return np.rint(share * np.iinfo(dtype).max).astype(dtype)


def _upsampled(gray: np.ndarray, chroma: np.ndarray, size: tuple[int, int], strength: float) -> np.ndarray:
    """Chroma at a plane's size, in gamut."""
    small = resize(np.ascontiguousarray(gray), *size)
    full = color.upsample_chroma(chroma, small)
    if strength != 1:
        full *= np.float32(strength)
    return fit_gamut(full, small.astype(np.float32) / np.iinfo(small.dtype).max)


def _luma_codes(luma: np.ndarray, bits: int, out_bits: int, full_range: bool) -> np.ndarray:
    """Code values at another depth; at the same depth, they are the same."""
    if bits == out_bits:
        return luma
    dtype = np.uint8 if out_bits == 8 else np.uint16
    scale = (2**out_bits - 1) / (2**bits - 1) if full_range else 2.0 ** (out_bits - bits)
    return np.minimum(np.rint(luma * np.float32(scale)), 2**out_bits - 1).astype(dtype)


def _chroma_codes(chroma: np.ndarray, bits: int, full_range: bool) -> np.ndarray:
    """-0.5..0.5 ⇒ code values around the middle of the scale."""
    span = 2**bits - 1 if full_range else LIMITED_CHROMA << (bits - 8)
    codes = np.rint(chroma * np.float32(span)) + 2 ** (bits - 1)
    return np.clip(codes, 0, 2**bits - 1).astype(np.uint8 if bits == 8 else np.uint16)
