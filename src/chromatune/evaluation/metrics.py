"""Metrics on pairs of 8-bit photos, each with every choice named, as pure functions.

All take (H, W, 3) uint8 sRGB arrays of equal size; nothing is cropped or resized. SSIM, CIELAB and CIEDE2000 are
scikit-image's, which is imported where they are computed: PSNR and colorfulness need no extra.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from chromatune import color

PSNR_CAP_DB = 100.0  # equal photos: a finite figure, so that a mean over photos stays one
SSIM_SIGMA = 1.5  # Wang et al. 2004
DATA_RANGE = 255.0


def psnr(result: np.ndarray, truth: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB: one MSE over all channels and pixels, at most `PSNR_CAP_DB`."""
    _check_pair(result, truth)
    mse = cv2.norm(result, truth, cv2.NORM_L2SQR) / result.size  # sums integers: nothing wraps, nothing is rounded
    return PSNR_CAP_DB if mse == 0 else min(PSNR_CAP_DB, 10 * math.log10(DATA_RANGE**2 / mse))


def mae(result: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean absolute RGB difference, 0..255."""
    _check_pair(result, truth)
    return cv2.norm(result, truth, cv2.NORM_L1) / result.size


def ssim(result: np.ndarray, truth: np.ndarray) -> float:
    """Return the structural similarity, -1..1: Gaussian 11 × 11 window, sigma 1.5, valid region, mean over channels.

    Wang et al. 2004, equation 13, with K = (0.01, 0.03) and population (not sample) covariances.

    Raises:
        ValueError: a side is under 11 pixels.
    """
    from skimage.metrics import structural_similarity

    _check_pair(result, truth)
    found = structural_similarity(
        truth, result, data_range=DATA_RANGE, channel_axis=2,
        gaussian_weights=True, sigma=SSIM_SIGMA, use_sample_covariance=False,
    )  # fmt: skip
    return float(found)


def lab_of(rgb_u8: np.ndarray) -> np.ndarray:
    """Return a photo in CIELAB (D65, 2 degree observer): (H, W, 3) uint8 sRGB -> (H, W, 3) float64, L 0..100."""
    from skimage.color import rgb2lab

    return np.asarray(rgb2lab(rgb_u8), np.float64)


def lab_mse(result_lab: np.ndarray, truth_lab: np.ndarray) -> tuple[float, float]:
    """Return the mean squared difference of two CIELAB photos: over (L, a, b), and over (a, b) alone."""
    squared = (result_lab - truth_lab) ** 2
    return float(squared.mean()), float(squared[..., 1:].mean())


def delta_e_2000(lab_1: np.ndarray, lab_2: np.ndarray) -> np.ndarray:
    """Return the CIEDE2000 (Sharma, Wu and Dalal 2005, all weights 1) of each pair of (..., 3) CIELAB colors, (...)."""
    from skimage.color import deltaE_ciede2000

    return np.asarray(deltaE_ciede2000(lab_1, lab_2), np.float64)


def ciede2000(result: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean CIEDE2000 color difference over pixels."""
    _check_pair(result, truth)
    return float(delta_e_2000(lab_of(result), lab_of(truth)).mean())


def colorfulness(rgb_u8: np.ndarray, variant: str = "field") -> float:
    """Return the Hasler–Süsstrunk colorfulness (2003), 0 for gray: `signed` as published, `field` of absolute values.

    `field` (|R - G| and |(R + G) / 2 - B|) is what DDColor, CT2 and ColorFormer report; the two differ.

    Raises:
        ValueError: another variant.
    """
    variants = colorfulness_variants(rgb_u8)
    if variant not in variants:
        raise ValueError(f"colorfulness variant {variant!r}; accepted: signed, field")
    return variants[variant]


def colorfulness_variants(rgb_u8: np.ndarray) -> dict[str, float]:
    """Return both variants of `colorfulness` by name, for little more than the price of one."""
    _check_pair(rgb_u8, rgb_u8)
    red, green, blue = (rgb_u8[..., channel].astype(np.int16) for channel in range(3))
    opponents = [(red - green, 1), (red + green - 2 * blue, 2)]  # whole levels, and what they are multiples of
    moments = [_mean_and_deviation(levels, scale) for levels, scale in opponents]
    return {
        variant: math.hypot(*(moment[variant][1] for moment in moments))
        + 0.3 * math.hypot(*(moment[variant][0] for moment in moments))
        for variant in ("field", "signed")
    }


def _mean_and_deviation(levels: np.ndarray, scale: int) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of `levels / scale`, (H, W) int16, with signs and without."""
    # OpenCV sums whole numbers exactly, and on this thread alone: numpy's dot product would wake those of BLAS.
    count, squares = levels.size, int(cv2.norm(levels, cv2.NORM_L2SQR))
    totals = {"signed": int(cv2.sumElems(levels)[0]), "field": int(cv2.norm(levels, cv2.NORM_L1))}
    return {
        variant: (total / (count * scale), math.sqrt(count * squares - total**2) / (count * scale))
        for variant, total in totals.items()
    }


def score_result(result: np.ndarray, truth: np.ndarray, gray: np.ndarray) -> dict[str, float]:
    """Return all metrics of one photo, by name.

    Args:
        result: (H, W, 3) uint8 sRGB.
        truth: the same.
        gray: (H, W) uint8, the input, for the luma drift.
    """
    _check_pair(result, truth)
    return score_against(result, truth, lab_of(truth), gray)[0]


def score_against(
    result: np.ndarray, truth: np.ndarray, truth_lab: np.ndarray, gray: np.ndarray
) -> tuple[dict[str, float], np.ndarray]:
    """Return `score_result`, given the truth in CIELAB too, and the CIEDE2000 of each pixel, (H, W)."""
    _check_pair(result, truth)
    result_lab = lab_of(result)
    lab, ab = lab_mse(result_lab, truth_lab)
    distances = delta_e_2000(result_lab, truth_lab)
    variants = colorfulness_variants(result)
    drift_max, drift_mean = color.luma_drift(result, gray)
    scores = {
        "psnr": psnr(result, truth),
        "ssim": ssim(result, truth),
        "mae": mae(result, truth),
        "lab_mse": lab,
        "ab_mse": ab,
        "ciede2000": float(distances.mean()),
        "cf_field": variants["field"],
        "cf_signed": variants["signed"],
        "luma_drift_max": drift_max,
        "luma_drift_mean": drift_mean,
    }
    return scores, distances


def _check_pair(result: np.ndarray, truth: np.ndarray) -> None:
    """Raise a `ValueError` unless both are (H, W, 3) uint8 of one size."""
    for name, photo in (("result", result), ("truth", truth)):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
            raise ValueError(f"{name} is {photo.dtype} {photo.shape}; metrics take (H, W, 3) uint8")
    if result.shape != truth.shape:
        raise ValueError(f"result is {result.shape}, truth is {truth.shape}; bring them to one size first")
