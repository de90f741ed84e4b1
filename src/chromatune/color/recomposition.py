"""Full-size half of colorization: small chroma is upsampled along the gray's edges, luminance stays exact.

Upsampling is a fast guided filter (He & Sun 2015, arXiv 1505.00996) with three changes. Their parameters were chosen by
chroma error on photographs; `studies/upsampling.py` prints the table, with the plain filter beside it.

1. The chroma stays, and only the detail that luma has beyond it is added: slope * (Y' - blurred Y'). The plain filter
   averages chroma away, and does worse than bilinear when the chroma is sharp.
2. The chroma itself says how far to blur the luma: decoders return chroma softer than their pixel count says, and the
   softer it is, the more detail is added and the wider the windows are.
3. The slope is bounded, so that film grain cannot become color noise.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from chromatune.color.luminance import (
    BLUE_IN_GREEN,
    CB_SCALE,
    CR_SCALE,
    RED_IN_GREEN,
    WHITE_LEVEL,
    check_chroma,
    check_gray,
)

MID_FACTOR = 4  # filter pixels per chroma pixel, along one side
MID_LONG_SIDE_PX = 768  # bound on the filter's own size, unless the chroma is larger
WINDOW_PER_BLUR = 2.0  # window radius over the chroma's blur, both in chroma pixels
MIN_WINDOW_PX = 1.0  # in chroma pixels
SLOPE_EPS = 2e-3  # luma variance, 0..1 scale, under which a window counts as flat (sigma 11 of 255)
SLOPE_LIMIT = 0.25  # chroma per luma: grain of sigma 8 can become color noise of sigma 2 at most
BLURS_PX = (0.3, 0.42, 0.6, 0.85, 1.2, 1.7, 2.4, 3.4, 4.8)  # luma blurs tried, sigma in chroma pixels

STRIP_PX = 1 << 17  # pixels per strip: its planes stay in a core's cache
MAX_THREADS = 8  # beyond this, memory traffic is the limit

_GAMUT_MARGIN = 0.01  # gray levels: far below rounding, above float32's step at 65535
_MAX_STRENGTH = 10.0


def upsample_chroma(chroma: np.ndarray, gray: np.ndarray) -> np.ndarray:
    """Upsample chroma to the size of `gray`, with edges where the gray has them.

    Args:
        chroma: (h, w, 2) float, (Cb, Cr), -0.5..0.5; any size, also larger than `gray`.
        gray: (H, W) uint8 0..255 or uint16 0..65535, gamma-encoded Rec.601 luma.

    Returns:
        (H, W, 2) float32, (Cb, Cr); may slightly leave -0.5..0.5, and the gamut at that luma.

    Raises:
        ValueError: wrong shape or dtype, or chroma far out of range or not finite.
    """
    check_gray(gray)
    check_chroma(chroma)
    height_px, width_px = gray.shape
    model = _local_linear_model(chroma, gray)
    model[[0, 2]] /= WHITE_LEVEL[gray.dtype]  # slope per gray level, offset in 0..1
    if model.shape[1:] == gray.shape:  # nothing lies between two of its pixels
        return cv2.merge([model[0] * gray + model[1], model[2] * gray + model[3]])
    full = np.empty((height_px, width_px, 2), np.float32)

    def fill(start: int, stop: int) -> None:
        planes = _model_rows(model, start, stop, height_px, width_px)
        for channel in (0, 1):
            np.multiply(planes[:, 2 * channel], gray[start:stop], out=full[start:stop, :, channel])
            full[start:stop, :, channel] += planes[:, 2 * channel + 1]

    _over_strips(fill, height_px, max(1, STRIP_PX // width_px))
    return full


def recompose(
    gray: np.ndarray, chroma: np.ndarray, *, strength: float = 1.0, strip_rows: int | None = None
) -> np.ndarray:
    """Return the photograph in color: its own luminance, exactly, and the given chroma.

    Rounded Rec.601 luma of the result equals `gray` at every pixel. Where a color does not fit the gamut at its luma,
    (Cb, Cr) is scaled toward zero by the largest factor that fits: the hue's direction stays.

    Args:
        gray: (H, W) uint8 0..255 or uint16 0..65535, gamma-encoded Rec.601 luma.
        chroma: (h, w, 2) float, (Cb, Cr), -0.5..0.5; any size, stretched over the whole of `gray`.
        strength: factor on the chroma, before the gamut, 0..10; 0 gives gray.
        strip_rows: rows worked on at a time; no effect on the result. Default: what fits a core's cache.

    Returns:
        (H, W, 3) sRGB of the dtype of `gray`.

    Raises:
        ValueError: wrong shape or dtype, chroma far out of range or not finite, strength out of range, or
            strip_rows under 1.
    """
    check_gray(gray)
    check_chroma(chroma)
    if not 0 <= strength <= _MAX_STRENGTH:
        raise ValueError(f"strength must be 0..{_MAX_STRENGTH:g}, got {strength}")
    height_px, width_px = gray.shape
    strip_rows = max(1, STRIP_PX // width_px) if strip_rows is None else strip_rows
    if strip_rows < 1:
        raise ValueError(f"strip_rows must be at least 1, got {strip_rows}")
    white = WHITE_LEVEL[gray.dtype]
    model = _local_linear_model(chroma, gray)
    # From 0..1 chroma to gray levels of B - Y' and R - Y', so that the full-size pass needs no further factors.
    model[:2] *= CB_SCALE * strength
    model[2:] *= CR_SCALE * strength
    model[[1, 3]] *= white
    rgb = np.empty((height_px, width_px, 3), gray.dtype)

    def fill(start: int, stop: int) -> None:
        _fill_rgb(rgb[start:stop], gray[start:stop], _model_rows(model, start, stop, height_px, width_px))

    _over_strips(fill, height_px, strip_rows)
    return rgb


def _fill_rgb(rgb: np.ndarray, gray: np.ndarray, planes: np.ndarray) -> None:
    """Write one strip of the result: gray plus chroma, in gamut, rounded so that rounded luma equals `gray`.

    Args:
        rgb: (n, W, 3) uint8 or uint16, written to.
        gray: (n, W) of the same dtype.
        planes: (n, 4, W) float32, slope and offset of B - Y', then of R - Y', in gray levels; overwritten.
    """
    y = gray.astype(np.float32)
    blue, red, green, spare = planes[:, 0], planes[:, 2], planes[:, 1], planes[:, 3]
    blue *= y
    blue += planes[:, 1]
    red *= y
    red += planes[:, 3]
    cv2.addWeighted(red, RED_IN_GREEN, blue, BLUE_IN_GREEN, 0, dst=green)
    # The largest factor in 0..1 at which all three channels stay within 0..white, formed without branches: divisors
    # are at least the room there is, so a quotient is at most 1, and the margin avoids 0 / 0.
    room = np.subtract(WHITE_LEVEL[gray.dtype] + _GAMUT_MARGIN, y)
    factor = np.maximum(np.maximum(red, blue), green)
    np.divide(room, np.maximum(factor, room, out=factor), out=factor)
    np.subtract(-_GAMUT_MARGIN, y, out=room)
    np.minimum(np.minimum(red, blue, out=spare), green, out=spare)
    np.divide(room, np.minimum(spare, room, out=spare), out=spare)
    np.minimum(factor, spare, out=factor)
    for plane in (red, blue):
        plane *= factor
        np.rint(plane, out=plane)
    # Green is formed from red and blue as rounded. It has the largest weight, so its own rounding moves luma by
    # at most 0.587 / 2 < 0.5 levels, and rounded luma is exact. Nor can it leave the gamut: the others' rounding
    # moves it by at most 0.36 levels.
    cv2.addWeighted(red, RED_IN_GREEN, blue, BLUE_IN_GREEN, 0, dst=green)
    np.rint(green, out=green)
    channels = [np.add(y, plane, out=plane).astype(gray.dtype) for plane in (red, green, blue)]
    cv2.merge(channels, dst=rgb)


def _local_linear_model(chroma: np.ndarray, gray: np.ndarray) -> np.ndarray:
    """Chroma as a local linear function of luma (He & Sun 2015, algorithm 2), at a moderate size.

    Args:
        chroma: (h, w, 2) float, (Cb, Cr).
        gray: (H, W) uint8 or uint16.

    Returns:
        (4, m, n) float32: slope and offset of Cb, slope and offset of Cr, for luma and chroma in 0..1.
    """
    height_px, width_px = gray.shape
    long_px = max(chroma.shape[:2])
    factor = max(1.0, min(MID_FACTOR, MID_LONG_SIDE_PX / long_px))
    mid_height, mid_width = (
        min(full, round(small * factor)) for full, small in zip(gray.shape, chroma.shape[:2], strict=True)
    )
    small_height, small_width = min(height_px, chroma.shape[0]), min(width_px, chroma.shape[1])
    chroma = resize(np.ascontiguousarray(chroma, np.float32), small_height, small_width)
    guide = shrunk_luma(gray, (mid_height, mid_width))  # (m, n)
    small_guide = resize(guide, small_height, small_width)  # (h, w)
    blur_px = _blur_of(chroma, small_guide)
    soft = cv2.GaussianBlur(small_guide, (0, 0), blur_px)
    soft = resize(soft, mid_height, mid_width)  # (m, n): luma with no more detail than the chroma has
    target = resize(chroma, mid_height, mid_width)  # (m, n, 2)

    radius_px = max(MIN_WINDOW_PX, WINDOW_PER_BLUR * blur_px)
    window = tuple(
        2 * max(1, round(radius_px * mid / small)) + 1
        for mid, small in ((mid_width, small_width), (mid_height, small_height))
    )
    guide_mean = _box(guide, window)
    divisor = _box(guide * guide, window)
    divisor -= guide_mean * guide_mean  # the variance
    divisor += SLOPE_EPS
    model = np.empty((4, mid_height, mid_width), np.float32)

    def fit(channel: int) -> None:
        slope, offset = model[2 * channel : 2 * channel + 2]
        plane = np.ascontiguousarray(target[..., channel])
        covariance = _box(np.multiply(guide, plane, out=slope), window)
        covariance -= np.multiply(guide_mean, _box(plane, window), out=slope)
        covariance /= divisor
        np.clip(_box(covariance, window), -SLOPE_LIMIT, SLOPE_LIMIT, out=slope)  # eq. 5, averaged as in eq. 8
        np.subtract(plane, np.multiply(slope, soft, out=offset), out=offset)

    if mid_height * mid_width <= STRIP_PX:
        fit(0)
        fit(1)
    else:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(fit, (0, 1)))
    return model


def _blur_of(chroma: np.ndarray, guide: np.ndarray) -> float:
    """Sigma, in pixels, of the Gaussian blur that makes luma, (h, w), as soft as the chroma, (h, w, 2), is.

    In photographs both have spectra of like shape, so the blur at which luma's share of fine detail falls to the
    chroma's is the chroma's resolution.
    """
    wanted = _fine_share(chroma)
    shares = list[float]()
    for sigma in BLURS_PX:
        shares.append(_fine_share(cv2.GaussianBlur(guide, (0, 0), sigma)))
        if shares[-1] < wanted:  # it lies between the last two
            break
    falling = np.minimum.accumulate(shares)
    return float(np.exp(np.interp(-np.log(wanted), -np.log(falling), np.log(BLURS_PX[: len(shares)]))))


def _fine_share(image: np.ndarray) -> float:
    """Energy of detail finer than a blur of sigma 1 px, over that between sigmas 1 and 4 px; positive."""
    fine = cv2.GaussianBlur(image, (0, 0), 1.0)
    coarse = cv2.GaussianBlur(image, (0, 0), 4.0)
    # The constant makes an image without any detail count as soft, and keeps the ratio finite.
    return float((np.square(image - fine).mean() + 1e-12) / (np.square(fine - coarse).mean() + 1e-9))


def shrunk_luma(gray: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return luma at a smaller size: (H, W) uint8 or uint16 -> (h, w) float32 0..1, averaged over areas."""
    # The cast comes last: a 12 MP photo in float is 48 MB.
    return resize(gray, *size).astype(np.float32) / WHITE_LEVEL[gray.dtype]


def resize(image: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """Return the image at another size: area means where it shrinks, bicubic where it grows."""
    shrinks = height_px <= image.shape[0] and width_px <= image.shape[1]
    return cv2.resize(image, (width_px, height_px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _box(image: np.ndarray, window: tuple[int, ...]) -> np.ndarray:
    return cv2.blur(image, window, borderType=cv2.BORDER_REFLECT)


def _model_rows(model: np.ndarray, start: int, stop: int, height_px: int, width_px: int) -> np.ndarray:
    """Rows start..stop of the model's planes at full size, bilinear: (stop - start, 4, W) float32.

    Each row depends on its own index only, never on the strip it is computed in: no seams.
    """
    mid_height = model.shape[1]
    center = np.clip((np.arange(start, stop) + 0.5) * mid_height / height_px - 0.5, 0, mid_height - 1)
    above = np.minimum(center.astype(int), mid_height - 1)
    weight = center - above
    first, last = int(above[0]), min(int(above[-1]) + 2, mid_height)
    wide = np.empty((last - first, 4, width_px), np.float32)
    for plane in range(4):
        wide[:, plane] = cv2.resize(model[plane, first:last], (width_px, last - first), interpolation=cv2.INTER_LINEAR)
    wide = wide.reshape(last - first, 4 * width_px)
    rows = np.empty((stop - start, 4 * width_px), np.float32)
    for row in range(stop - start):
        top = int(above[row]) - first
        bottom = min(top + 1, last - first - 1)
        pair = wide[top : top + 1], 1 - weight[row], wide[bottom : bottom + 1], weight[row]
        cv2.addWeighted(*pair, 0, dst=rows[row : row + 1])
    return rows.reshape(stop - start, 4, width_px)


def _over_strips(fill: Callable[[int, int], None], height_px: int, strip_rows: int) -> None:
    """Call `fill(start, stop)` for all rows, strip by strip, on as many threads as pay off."""
    starts = range(0, height_px, strip_rows)
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1, len(starts))) as pool:
        # list() so that an error in a strip is raised here.
        list(pool.map(lambda start: fill(start, min(start + strip_rows, height_px)), starts))
