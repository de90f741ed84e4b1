"""Metrics against published values, plain formulas and identities."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data

from chromatune.color import luma
from chromatune.evaluation import metrics


def noisy_pair(name: str) -> tuple[np.ndarray, np.ndarray]:
    photo = getattr(skimage.data, name)()[60:124, 60:140]
    noise = np.random.default_rng(0).normal(0, 12, photo.shape)
    return np.clip(photo + noise, 0, 255).astype(np.uint8), photo


def windowed(plane: np.ndarray) -> np.ndarray:
    """Every 11 × 11 window of a plane: (H - 10, W - 10, 11, 11)."""
    return np.lib.stride_tricks.sliding_window_view(plane.astype(np.float64), (11, 11))


def test_ssim_is_the_formula_of_wang_et_al():
    """Equation 13, window by window."""
    result, truth = noisy_pair("coffee")
    line = np.exp(-np.square(np.arange(-5, 6)) / (2 * 1.5**2))
    weights = np.outer(line, line) / line.sum() ** 2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for channel in range(3):
        x, y = windowed(result[..., channel]), windowed(truth[..., channel])
        mean_x, mean_y = (np.einsum("hwij,ij->hw", each, weights) for each in (x, y))
        x, y = x - mean_x[..., None, None], y - mean_y[..., None, None]
        var_x, var_y, covariance = (np.einsum("hwij,ij->hw", each, weights) for each in (x * x, y * y, x * y))
        top = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
        values.append((top / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())
    assert metrics.ssim(result, truth) == pytest.approx(np.mean(values), rel=1e-9)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 0, 0), (53.2408, 80.0925, 67.2032)),
        ((0, 255, 0), (87.7347, -86.1827, 83.1793)),
        ((0, 0, 255), (32.2970, 79.1875, -107.8602)),
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
    ],
)
def test_lab_of_the_primaries(rgb, lab):
    """With the white point D65, as Lindbloom's calculator gives them."""
    (color,) = metrics.lab_of(np.array([[rgb]], np.uint8))[0]
    assert color == pytest.approx(lab, abs=0.02)


def test_lab_mse_is_over_all_channels_and_over_a_and_b():
    whole, ab = metrics.lab_mse(np.array([[[1.0, 2, 4]]]), np.zeros((1, 1, 3)))
    assert (whole, ab) == (7, 10)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.49, -0.001), (50, -2.49, 0.001), 7.1792),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((50, -0.001, 2.49), (50, 0.001, -2.49), 4.8045),
        ((50, -0.001, 2.49), (50, 0.0011, -2.49), 4.7461),
        ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
    ],
)
def test_ciede2000_of_published_pairs(first, second, expected):
    """Sharma, Wu and Dalal 2005, table 1: hues that are opposite, and colors without chroma."""
    for pair in ((first, second), (second, first)):
        (distance,) = metrics.delta_e_2000(*(np.array([color], float) for color in pair))
        assert distance == pytest.approx(expected, abs=1e-4)


def test_equal_scores_wherever_the_arrays_lie():
    """Some fast routines round by memory address; a resumed evaluation must give the same bytes."""
    result, truth = noisy_pair("coffee")
    first = metrics.score_result(result, truth, luma(truth))
    kept = []
    for size in (1, 333, 5000, 77777):
        kept.append(np.empty(size, np.uint8))
        assert metrics.score_result(result.copy(), truth.copy(), luma(truth)) == first


def test_equal_photos():
    photo = skimage.data.astronaut()[:64, :64]
    row = metrics.score_result(photo, photo, luma(photo))
    assert (row["psnr"], row["mae"], row["lab_mse"], row["ciede2000"]) == (metrics.PSNR_CAP_DB, 0, 0, 0)
    assert row["ssim"] == pytest.approx(1)
    assert row["luma_drift_max"] == 0


def test_differences_do_not_wrap():
    """uint8 arithmetic would see 255 - 0 as 1 the other way round."""
    black, white = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    assert metrics.mae(black, white) == metrics.mae(white, black) == 255
    assert metrics.psnr(black, white) == pytest.approx(0)
    row = metrics.score_result(black, white, luma(black))
    assert row["lab_mse"] == pytest.approx(100**2 / 3, rel=1e-3)


def test_constant_shift_by_hand():
    photo = np.full((16, 16, 3), 100, np.uint8)
    assert metrics.psnr(photo + 10, photo) == pytest.approx(10 * np.log10(255**2 / 100))
    assert metrics.mae(photo + 10, photo) == 10


def test_swapped_channels_are_seen_by_color_metrics():
    photo = skimage.data.coffee()[:100, :100]
    swapped = np.ascontiguousarray(photo[..., ::-1])
    assert metrics.ciede2000(swapped, photo) > 5
    assert metrics.colorfulness(swapped, "signed") != pytest.approx(metrics.colorfulness(photo, "signed"))


def test_colorfulness_by_hand():
    gray = np.full((8, 8, 3), 90, np.uint8)
    red_and_cyan = np.zeros((2, 2, 3), np.uint8)
    red_and_cyan[0], red_and_cyan[1] = (255, 0, 0), (0, 255, 255)
    assert metrics.colorfulness(gray, "field") == metrics.colorfulness(gray, "signed") == 0
    # R-G is ±255 and (R+G)/2-B is ±127.5: signed has only spread, the absolute variant only means.
    assert metrics.colorfulness(red_and_cyan, "signed") == pytest.approx(np.hypot(255, 127.5))
    assert metrics.colorfulness(red_and_cyan, "field") == pytest.approx(0.3 * np.hypot(255, 127.5))
    with pytest.raises(ValueError, match="accepted: signed, field"):
        metrics.colorfulness(gray, "loud")


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ssim, metrics.mae, metrics.ciede2000])
def test_sizes_and_types_are_never_guessed(metric):
    photo = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ValueError, match="bring them to one size"):
        metric(photo, photo[:-1])
    with pytest.raises(ValueError, match="uint8"):
        metric(photo.astype(np.float32), photo)
