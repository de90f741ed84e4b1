"""Metrics on pairs of 8-bit photos, each with every choice named, as pure functions.

All take (H, W, 3) uint8 sRGB arrays of equal size; nothing is cropped or resized here.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from chromatune import color

PSNR_CAP_DB = 100.0  # equal photos: a finite figure, so that a mean over photos stays one
SSIM_WINDOW_PX, SSIM_SIGMA = 11, 1.5  # Wang et al. 2004
SSIM_K1, SSIM_K2, DATA_RANGE = 0.01, 0.03, 255.0
BLOCK_PX = 8192  # pixels whose intermediate planes stay in a core's cache

_LINEAR_OF_LEVEL = color.srgb_to_linear(np.arange(256) / DATA_RANGE)


def _pair(result: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64: uint8 differences wrap modulo 256.

    Raises:
        ValueError: type or size differ from what is compared.
    """
    for name, photo in (("result", result), ("truth", truth)):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
            raise ValueError(f"{name} is {photo.dtype} {photo.shape}; metrics take (H, W, 3) uint8")
    if result.shape != truth.shape:
        raise ValueError(f"result is {result.shape}, truth is {truth.shape}; bring them to one size first")
    return result.astype(np.float64), truth.astype(np.float64)


def psnr(result: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB: one MSE over all channels and pixels; `PSNR_CAP_DB` for equal photos."""
    first, second = _pair(result, truth)
    mse = float(((first - second) ** 2).mean())
    return PSNR_CAP_DB if mse == 0 else min(PSNR_CAP_DB, 10 * math.log10(DATA_RANGE**2 / mse))


def mae(result: np.ndarray, truth: np.ndarray) -> float:
    """Mean absolute RGB difference, 0..255."""
    first, second = _pair(result, truth)
    return float(np.abs(first - second).mean())


def ssim(result: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity, -1..1: Gaussian 11 × 11 window, sigma 1.5, valid region, mean over channels.

    Wang et al. 2004, equation 13, with population (not sample) covariances.

    Raises:
        ValueError: a side is under 11 pixels.
    """
    first, second = _pair(result, truth)
    if min(first.shape[:2]) < SSIM_WINDOW_PX:
        raise ValueError(f"SSIM needs sides of at least {SSIM_WINDOW_PX} px, got {first.shape[:2]}")
    # plane by plane: a third of the memory stays in the cache
    planes = (np.ascontiguousarray(np.moveaxis(image, -1, 0)) for image in (first, second))
    return float(np.mean([_ssim_of_planes(*pair) for pair in zip(*planes, strict=True)]))


def _ssim_of_planes(first: np.ndarray, second: np.ndarray) -> float:
    """Equation 13 of Wang et al. 2004 for two (H, W) float64 planes, mean over the valid region."""
    edge = SSIM_WINDOW_PX // 2

    def local_mean(plane: np.ndarray) -> np.ndarray:
        blurred = cv2.GaussianBlur(plane, (SSIM_WINDOW_PX, SSIM_WINDOW_PX), SSIM_SIGMA)
        return blurred[edge:-edge, edge:-edge]

    mean_1, mean_2 = local_mean(first), local_mean(second)
    squares, product = mean_1**2 + mean_2**2, mean_1 * mean_2
    variances = local_mean(first * first + second * second) - squares
    covariance = local_mean(first * second) - product
    c1, c2 = (SSIM_K1 * DATA_RANGE) ** 2, (SSIM_K2 * DATA_RANGE) ** 2
    similarity = (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return float(similarity.mean())


def lab_of(rgb_u8: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of a photo: (H, W, 3) uint8 sRGB -> (H, W, 3) float64, L 0..100."""
    return color.linear_to_lab(_LINEAR_OF_LEVEL[rgb_u8])


def lab_mse(result: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Mean squared difference in float CIELAB (D65): over (L, a, b), and over (a, b) alone."""
    _pair(result, truth)
    return _mse_of_labs(lab_of(result), lab_of(truth))


def ciede2000(result: np.ndarray, truth: np.ndarray) -> float:
    """Mean CIEDE2000 colour difference over pixels (Sharma, Wu and Dalal 2005), k_L = k_C = k_H = 1."""
    _pair(result, truth)
    return float(delta_e_2000(lab_of(result), lab_of(truth)).mean())


def _mse_of_labs(lab_1: np.ndarray, lab_2: np.ndarray) -> tuple[float, float]:
    squared = (lab_1 - lab_2) ** 2
    return float(squared.mean()), float(squared[..., 1:].mean())


def _power_7(values: np.ndarray) -> np.ndarray:
    """values**7, several times faster than the operator, whose exponent could be any number."""
    cubed = values * values * values
    return cubed * cubed * values


def delta_e_2000(lab_1: np.ndarray, lab_2: np.ndarray) -> np.ndarray:
    """CIEDE2000 of each pair of (..., 3) CIELAB colours, (...)."""
    planes = [np.reshape(lab, (-1, 3)).T for lab in (lab_1, lab_2)]  # (3, N)
    distances = np.empty(planes[0].shape[1])
    for start in range(0, len(distances), BLOCK_PX):
        block = slice(start, start + BLOCK_PX)
        distances[block] = _delta_e_of_planes(*(np.ascontiguousarray(plane[:, block]) for plane in planes))
    return distances.reshape(lab_1.shape[:-1])


def _delta_e_of_planes(lab_1: np.ndarray, lab_2: np.ndarray) -> np.ndarray:
    """CIEDE2000 of two (3, N) planes, (N,); equation numbers are those of Sharma et al. 2005."""
    l1, a1, b1 = lab_1
    l2, a2, b2 = lab_2
    c7 = _power_7((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2)
    g = 0.5 * (1 - np.sqrt(c7 / (c7 + 25.0**7)))  # 4
    a1, a2 = (1 + g) * a1, (1 + g) * a2  # 5
    chroma_1, chroma_2 = np.hypot(a1, b1), np.hypot(a2, b2)  # 6
    hue_1, hue_2 = (np.degrees(np.arctan2(b, a)) + 360 * (b < 0) for a, b in ((a1, b1), (a2, b2)))  # 7
    grey = chroma_1 * chroma_2 == 0
    hue_step = hue_2 - hue_1
    hue_step = np.where(grey, 0.0, hue_step - 360 * np.rint(hue_step / 360))  # 10
    delta_h = 2 * np.sqrt(chroma_1 * chroma_2) * np.sin(np.radians(hue_step) / 2)  # 11
    mean_l, mean_c = (l1 + l2) / 2, (chroma_1 + chroma_2) / 2  # 12, 13
    apart = np.abs(hue_1 - hue_2) > 180
    total = hue_1 + hue_2
    mean_h = np.where(apart, np.where(total < 360, total + 360, total - 360), total) / 2  # 14
    mean_h = np.where(grey, total, mean_h)
    cos = lambda degrees: np.cos(np.radians(degrees))  # noqa: E731
    t = 1 - 0.17 * cos(mean_h - 30) + 0.24 * cos(2 * mean_h)
    t += 0.32 * cos(3 * mean_h + 6) - 0.20 * cos(4 * mean_h - 63)  # 15
    rotation = 30 * np.exp(-(((mean_h - 275) / 25) ** 2))  # 16
    c7 = _power_7(mean_c)
    r_t = -2 * np.sqrt(c7 / (c7 + 25.0**7)) * np.sin(np.radians(2 * rotation))  # 17, 21
    s_l = 1 + 0.015 * (mean_l - 50) ** 2 / np.sqrt(20 + (mean_l - 50) ** 2)  # 18
    s_c, s_h = 1 + 0.045 * mean_c, 1 + 0.015 * mean_c * t  # 19, 20
    l_term, c_term, h_term = (l2 - l1) / s_l, (chroma_2 - chroma_1) / s_c, delta_h / s_h
    return np.sqrt(np.maximum(0, l_term**2 + c_term**2 + h_term**2 + r_t * c_term * h_term))  # 22


def colorfulness(rgb_u8: np.ndarray, variant: str = "field") -> float:
    """Hasler–Süsstrunk colourfulness (2003), 0 for grey: `signed` as published, `field` on absolute opponents.

    `field` (|R - G| and |(R + G) / 2 - B|) is what DDColor, CT2 and ColorFormer report; the two differ.

    Raises:
        ValueError: another variant.
    """
    red, green, blue = np.moveaxis(_pair(rgb_u8, rgb_u8)[0], -1, 0)
    opponents = [red - green, (red + green) / 2 - blue]
    if variant == "field":
        opponents = [np.abs(opponent) for opponent in opponents]
    elif variant != "signed":
        raise ValueError(f"colourfulness variant {variant!r}; accepted: signed, field")
    spread = math.hypot(*(float(opponent.std()) for opponent in opponents))
    centre = math.hypot(*(float(opponent.mean()) for opponent in opponents))
    return spread + 0.3 * centre


def scores(
    result: np.ndarray, truth: np.ndarray, grey: np.ndarray, labs: tuple[np.ndarray, np.ndarray] | None = None
) -> dict[str, float]:
    """All metrics of one photo, by name.

    Args:
        result: (H, W, 3) uint8 sRGB.
        truth: the same.
        grey: (H, W) uint8, the input, for the luma drift.
        labs: `lab_of` of result and truth, where the caller has them.
    """
    _pair(result, truth)
    labs = labs or (lab_of(result), lab_of(truth))
    lab, ab = _mse_of_labs(*labs)
    drift_max, drift_mean = color.luma_drift(result, grey)
    return {
        "psnr": psnr(result, truth),
        "ssim": ssim(result, truth),
        "mae": mae(result, truth),
        "lab_mse": lab,
        "ab_mse": ab,
        "ciede2000": float(delta_e_2000(*labs).mean()),
        "cf_field": colorfulness(result, "field"),
        "cf_signed": colorfulness(result, "signed"),
        "luma_drift_max": drift_max,
        "luma_drift_mean": drift_mean,
    }
