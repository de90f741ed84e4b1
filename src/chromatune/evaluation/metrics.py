"""Metrics on pairs of 8-bit photos, each with every choice named, as pure functions.

All take (H, W, 3) uint8 sRGB arrays of equal size; nothing is cropped or resized here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from chromatune import color

PSNR_CAP_DB = 100.0  # equal photos: a finite figure, so that a mean over photos stays one
SSIM_WINDOW_PX, SSIM_SIGMA = 11, 1.5  # Wang et al. 2004
SSIM_K1, SSIM_K2, DATA_RANGE = 0.01, 0.03, 255.0
BLOCK_PX = 8192  # pixels whose intermediate planes stay in a core's cache
STRIP_PX = 16384  # the same for SSIM, which has fewer planes and shares rows between strips
TINY = np.finfo(np.float64).tiny  # keeps 0 / 0 away

_D65_WHITE = np.array([[0.95047], [1.0], [1.08883]])
_SRGB_TO_XYZ = np.array([[0.412453, 0.35758, 0.180423], [0.212671, 0.71516, 0.072169], [0.019334, 0.119193, 0.950227]])
_SRGB_TO_XYZ /= _D65_WHITE  # relative to white; both with scikit-image's digits
_LAB_EPSILON = (6 / 29) ** 3  # CIE 15:2004, section 8.2.1
_LAB_KAPPA = (29 / 3) ** 3
_CURVE_TO_LAB = np.array([[0.0, 116.0, 0.0, -16.0], [500.0, -500.0, 0.0, 0.0], [0.0, 200.0, -200.0, 0.0]])

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]

_LINEAR_OF_LEVEL = color.srgb_to_linear(np.arange(256) / DATA_RANGE)


@dataclass(frozen=True, eq=False)
class Reference:
    """A truth, with what comparisons need of it alone: worked out once, shared by all results.

    Attributes:
        rgb_u8: (H, W, 3) uint8 sRGB.
        lab: (H, W, 3) float64 CIELAB.
        planes: red, green and blue, (H, W) float64, 0..255.
        local_means: of each plane, over SSIM's window, valid region.
    """

    rgb_u8: np.ndarray
    lab: np.ndarray
    planes: tuple[np.ndarray, ...]
    local_means: tuple[np.ndarray, ...]


def reference_of(truth: np.ndarray) -> Reference:
    """The truth, (H, W, 3) uint8 sRGB, ready for comparisons.

    Raises:
        ValueError: another type, or a side is under 11 pixels.
    """
    _check_pair(truth, truth)
    planes = _planes(truth)
    return Reference(truth, lab_of(truth), planes, tuple(_local_mean(plane) for plane in planes))


def _check_pair(result: np.ndarray, truth: np.ndarray) -> None:
    """Checks what is compared.

    Raises:
        ValueError: type or size differ from it.
    """
    for name, photo in (("result", result), ("truth", truth)):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
            raise ValueError(f"{name} is {photo.dtype} {photo.shape}; metrics take (H, W, 3) uint8")
    if result.shape != truth.shape:
        raise ValueError(f"result is {result.shape}, truth is {truth.shape}; bring them to one size first")


def _planes(rgb_u8: np.ndarray) -> tuple[np.ndarray, ...]:
    """Channels as (H, W) float64: a third of the memory at a time stays in the cache."""
    return tuple(rgb_u8[..., channel].astype(np.float64) for channel in range(3))


def psnr(result: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB: one MSE over all channels and pixels; `PSNR_CAP_DB` for equal photos."""
    _check_pair(result, truth)
    mse = cv2.norm(result, truth, cv2.NORM_L2SQR) / result.size  # sums integers: nothing wraps, nothing is rounded
    return PSNR_CAP_DB if mse == 0 else min(PSNR_CAP_DB, 10 * math.log10(DATA_RANGE**2 / mse))


def mae(result: np.ndarray, truth: np.ndarray) -> float:
    """Mean absolute RGB difference, 0..255."""
    _check_pair(result, truth)
    return cv2.norm(result, truth, cv2.NORM_L1) / result.size


def ssim(result: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity, -1..1: Gaussian 11 × 11 window, sigma 1.5, valid region, mean over channels.

    Wang et al. 2004, equation 13, with population (not sample) covariances.

    Raises:
        ValueError: a side is under 11 pixels.
    """
    _check_pair(result, truth)
    return _ssim_against(result, reference_of(truth))


def _ssim_against(result: np.ndarray, reference: Reference) -> float:
    channels = zip(_planes(result), reference.planes, reference.local_means, strict=True)
    return float(np.mean([_ssim_of_planes(*channel) for channel in channels]))


def _ssim_of_planes(first: np.ndarray, second: np.ndarray, mean_2: np.ndarray) -> float:
    """SSIM of two (H, W) float64 planes, mean over the valid region.

    Args:
        first: of the result.
        second: of the truth.
        mean_2: its local means.
    """
    total, rows = 0.0, max(SSIM_WINDOW_PX, STRIP_PX // first.shape[1])
    for start in range(0, len(mean_2), rows):
        strip = slice(start, start + rows)
        wide = slice(start, start + rows + SSIM_WINDOW_PX - 1)  # with what the windows of the strip reach
        total += float(_similarity(first[wide], second[wide], mean_2[strip]).sum())
    return total / mean_2.size


def _similarity(first: np.ndarray, second: np.ndarray, mean_2: np.ndarray) -> np.ndarray:
    """Equation 13 of Wang et al. 2004 at each pixel of the valid region."""
    mean_1 = _local_mean(first)
    squares, product = mean_1**2 + mean_2**2, mean_1 * mean_2
    variances = _local_mean(first * first + second * second) - squares
    covariance = _local_mean(first * second) - product
    c1, c2 = (SSIM_K1 * DATA_RANGE) ** 2, (SSIM_K2 * DATA_RANGE) ** 2
    return (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))


def _local_mean(plane: np.ndarray) -> np.ndarray:
    """Means over SSIM's window, of the valid region: (H, W) -> (H - 10, W - 10) float64."""
    if min(plane.shape) < SSIM_WINDOW_PX:
        raise ValueError(f"SSIM needs sides of at least {SSIM_WINDOW_PX} px, got {plane.shape}")
    edge = SSIM_WINDOW_PX // 2
    return cv2.GaussianBlur(plane, (SSIM_WINDOW_PX, SSIM_WINDOW_PX), SSIM_SIGMA)[edge:-edge, edge:-edge]


def lab_of(rgb_u8: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of a photo: (H, W, 3) uint8 sRGB -> (H, W, 3) float64, L 0..100."""
    pixels = rgb_u8.reshape(-1, 1, 3)
    lab = np.empty(pixels.shape)
    for start in range(0, len(pixels), BLOCK_PX):
        block = slice(start, start + BLOCK_PX)
        lab[block] = linear_to_lab(cv2.LUT(pixels[block], _LINEAR_OF_LEVEL))
    return lab.reshape(rgb_u8.shape)


def linear_to_lab(linear: np.ndarray) -> np.ndarray:
    """CIELAB (D65, 2 degree observer) of linear light: (..., 3) float64 RGB 0..1 -> the same shape, L 0..100."""
    xyz = cv2.transform(linear.reshape(-1, 1, 3), _SRGB_TO_XYZ)  # (N, 1, 3)
    curve = cv2.pow(xyz, 1 / 3)  # several times faster than NumPy's, and as exact in float64
    np.copyto(curve, xyz * (_LAB_KAPPA / 116) + 16 / 116, where=xyz <= _LAB_EPSILON)
    return cv2.transform(curve, _CURVE_TO_LAB).reshape(linear.shape)


def lab_mse(result: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Mean squared difference in float CIELAB (D65): over (L, a, b), and over (a, b) alone."""
    _check_pair(result, truth)
    return _mse_of_labs(lab_of(result), lab_of(truth))


def ciede2000(result: np.ndarray, truth: np.ndarray) -> float:
    """Mean CIEDE2000 color difference over pixels (Sharma, Wu and Dalal 2005), k_L = k_C = k_H = 1."""
    _check_pair(result, truth)
    return float(delta_e_2000(lab_of(result), lab_of(truth)).mean())


def _mse_of_labs(lab_1: np.ndarray, lab_2: np.ndarray) -> tuple[float, float]:
    squared = (lab_1 - lab_2) ** 2
    return float(squared.mean()), float(squared[..., 1:].mean())


def _power_7(values: np.ndarray) -> np.ndarray:
    """values**7, several times faster than the operator, whose exponent could be any number."""
    cubed = values * values * values
    return cubed * cubed * values


def _length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """sqrt(x² + y²), several times faster than np.hypot; cv2.magnitude's last digit depends on memory addresses."""
    return np.sqrt(x * x + y * y)


def delta_e_2000(lab_1: np.ndarray, lab_2: np.ndarray) -> np.ndarray:
    """CIEDE2000 of each pair of (..., 3) CIELAB colors, (...)."""
    planes = [np.reshape(lab, (1, -1, 3)).transpose(2, 0, 1) for lab in (lab_1, lab_2)]  # (3, 1, N)
    distances = np.empty(planes[0].shape[2])
    for start in range(0, len(distances), BLOCK_PX):
        block = slice(start, start + BLOCK_PX)
        distances[block] = _delta_e_of_planes(*(np.ascontiguousarray(plane[..., block]) for plane in planes))[0]
    return distances.reshape(lab_1.shape[:-1])


def _delta_e_of_planes(lab_1: np.ndarray, lab_2: np.ndarray) -> np.ndarray:
    """CIEDE2000 of two (3, 1, N) planes, (1, N); equation numbers are those of Sharma et al. 2005."""
    l1, a1, b1 = lab_1
    l2, a2, b2 = lab_2
    c7 = _power_7((_length(a1, b1) + _length(a2, b2)) / 2)
    g = 0.5 * (1 - np.sqrt(c7 / (c7 + 25.0**7)))  # 4
    a1, a2 = (1 + g) * a1, (1 + g) * a2  # 5
    chroma_1, chroma_2 = _length(a1, b1), _length(a2, b2)  # 6
    delta_h, cos, sin = _hues_between((a1, b1, chroma_1), (a2, b2, chroma_2))  # 7, 10, 11, 14
    mean_l, mean_c = (l1 + l2) / 2, (chroma_1 + chroma_2) / 2  # 12, 13
    mean_h = np.degrees(np.arctan2(sin, cos)) + 360 * (sin < 0)
    rotation = 30 * cv2.exp(-np.square((mean_h - 275) / 25))  # 16
    c7 = _power_7(mean_c)
    r_t = -2 * np.sqrt(c7 / (c7 + 25.0**7)) * np.sin(np.radians(2 * rotation))  # 17, 21
    l_squared = np.square(mean_l - 50)
    s_l = 1 + 0.015 * l_squared / np.sqrt(20 + l_squared)  # 18
    s_c, s_h = 1 + 0.045 * mean_c, 1 + 0.015 * mean_c * _hue_weight(cos, sin)  # 19, 20
    l_term, c_term, h_term = (l2 - l1) / s_l, (chroma_2 - chroma_1) / s_c, delta_h / s_h
    return np.sqrt(np.maximum(0, l_term**2 + c_term**2 + h_term**2 + r_t * c_term * h_term))  # 22


def _hues_between(first: Planes, second: Planes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue difference times chroma (equation 11), and cosine and sine of the mean hue (equation 14).

    Formed from the colors as vectors (a', b'): angles, and cosines of them again, would take most of the time. The
    mean hue lies along the sum of the two unit vectors; a color without chroma adds nothing to it, as it should.

    Args:
        first: a', b' and C' of the one color, (1, N) each.
        second: of the other.
    """
    (a1, b1, chroma_1), (a2, b2, chroma_2) = first, second
    product, dot, cross = chroma_1 * chroma_2, a1 * a2 + b1 * b2, a1 * b2 - a2 * b1
    delta_h = cross / np.sqrt(np.maximum((product + dot) / 2, TINY))
    weight_1, weight_2 = 1 / np.maximum(chroma_1, TINY), 1 / np.maximum(chroma_2, TINY)
    x, y = a1 * weight_1 + a2 * weight_2, b1 * weight_1 + b2 * weight_2
    obtuse = dot < 0
    if obtuse.any():
        # Nearly opposite unit vectors cancel in a sum, and not in a difference: a quarter turn from the mean hue.
        # Exactly opposite, equation 14 halves the sum of angles in 0..360.
        turn = np.where(np.where(cross == 0, b1, cross) < 0, -1.0, 1.0)[obtuse]
        delta_h[obtuse] = turn * np.sqrt(2 * (product - dot)[obtuse])
        x[obtuse] = turn * (b2 * weight_2 - b1 * weight_1)[obtuse]
        y[obtuse] = turn * (a1 * weight_1 - a2 * weight_2)[obtuse]
    length = np.maximum(_length(x, y), TINY)
    return delta_h, x / length, y / length


def _hue_weight(cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """T of equation 15, from cosine and sine of the mean hue, by the addition theorems."""
    cos_2, sin_2 = cos * cos - sin * sin, 2 * sin * cos
    cos_3, sin_3 = cos * cos_2 - sin * sin_2, sin * cos_2 + cos * sin_2
    cos_4, sin_4 = cos_2 * cos_2 - sin_2 * sin_2, 2 * sin_2 * cos_2
    angle_30, angle_6, angle_63 = math.radians(30), math.radians(6), math.radians(63)
    t = 1 - 0.17 * (math.cos(angle_30) * cos + math.sin(angle_30) * sin) + 0.24 * cos_2
    t += 0.32 * (math.cos(angle_6) * cos_3 - math.sin(angle_6) * sin_3)
    return t - 0.20 * (math.cos(angle_63) * cos_4 + math.sin(angle_63) * sin_4)


def colorfulness(rgb_u8: np.ndarray, variant: str = "field") -> float:
    """Hasler–Süsstrunk colorfulness (2003), 0 for gray: `signed` as published, `field` on absolute opponents.

    `field` (|R - G| and |(R + G) / 2 - B|) is what DDColor, CT2 and ColorFormer report; the two differ.

    Raises:
        ValueError: another variant.
    """
    return colorfulness_variants(rgb_u8, (variant,))[0]


def colorfulness_variants(rgb_u8: np.ndarray, variants: Sequence[str] = ("field", "signed")) -> list[float]:
    """Colorfulness in several variants, for little more than the price of one.

    Raises:
        ValueError: a variant other than `signed` and `field`.
    """
    _check_pair(rgb_u8, rgb_u8)
    for variant in variants:
        if variant not in ("signed", "field"):
            raise ValueError(f"colorfulness variant {variant!r}; accepted: signed, field")
    red, green, blue = (rgb_u8[..., channel].astype(np.int16) for channel in range(3))
    opponents = [(red - green, 1), (red + green - 2 * blue, 2)]  # whole levels, and what they are multiples of
    moments = [_center_and_spread(levels, scale) for levels, scale in opponents]
    return [
        math.hypot(*(moment[variant][1] for moment in moments))
        + 0.3 * math.hypot(*(moment[variant][0] for moment in moments))
        for variant in variants
    ]


def _center_and_spread(levels: np.ndarray, scale: int) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of `levels / scale`, (H, W) int16, with signs and without."""
    # OpenCV sums whole numbers exactly, and on this thread alone: numpy's dot product would wake those of BLAS.
    count, squares = levels.size, int(cv2.norm(levels, cv2.NORM_L2SQR))
    totals = {"signed": int(cv2.sumElems(levels)[0]), "field": int(cv2.norm(levels, cv2.NORM_L1))}
    return {
        variant: (total / (count * scale), math.sqrt(count * squares - total**2) / (count * scale))
        for variant, total in totals.items()
    }


def score_result(result: np.ndarray, truth: np.ndarray, gray: np.ndarray) -> dict[str, float]:
    """All metrics of one photo, by name.

    Args:
        result: (H, W, 3) uint8 sRGB.
        truth: the same.
        gray: (H, W) uint8, the input, for the luma drift.
    """
    _check_pair(result, truth)
    return scores_against(result, reference_of(truth), gray)[0]


def scores_against(result: np.ndarray, reference: Reference, gray: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """`scores`, where the caller has the truth's `reference_of`; with them the CIEDE2000 of each pixel, (H, W)."""
    truth = reference.rgb_u8
    _check_pair(result, truth)
    result_lab = lab_of(result)
    lab, ab = _mse_of_labs(result_lab, reference.lab)
    distances = delta_e_2000(result_lab, reference.lab)
    field, signed = colorfulness_variants(result)
    drift_max, drift_mean = color.luma_drift(result, gray)
    found = {
        "psnr": psnr(result, truth),
        "ssim": _ssim_against(result, reference),
        "mae": mae(result, truth),
        "lab_mse": lab,
        "ab_mse": ab,
        "ciede2000": float(distances.mean()),
        "cf_field": field,
        "cf_signed": signed,
        "luma_drift_max": drift_max,
        "luma_drift_mean": drift_mean,
    }
    return found, distances
