"""Metrics against scikit-image, hand-computed values and identities."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.color
import skimage.data
import skimage.metrics

from chromatune.color import luma
from chromatune.evaluation import metrics

TOLERANCE = 1e-6  # relative


REAL = ("astronaut", "coffee", "chelsea", "rocket", "immunohistochemistry")


def random_pair(seed: int):
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(11, 48, 2))
    first = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    # from alike to unrelated; scikit-image rounds CIE 15 constants (0.008856, 7.787), which tells at steps of 1 or 2
    spread = (8, 40, 255)[seed % 3]
    second = first.astype(int) + rng.integers(-spread, spread + 1, first.shape)
    return np.clip(second, 0, 255).astype(np.uint8), first


def real_pair(name: str):
    photo = getattr(skimage.data, name)()[60:220, 60:260]
    noise = np.random.default_rng(0).normal(0, 12, photo.shape)
    return np.clip(photo + noise, 0, 255).astype(np.uint8), photo


def assert_agreement(result, truth):
    expected_ssim = skimage.metrics.structural_similarity(
        truth, result, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    lab_result, lab_truth = (skimage.color.rgb2lab(photo) for photo in (result, truth))
    squared = (lab_result - lab_truth) ** 2
    whole, ab = metrics.lab_mse(result, truth)
    values = {
        "psnr": (metrics.psnr(result, truth), skimage.metrics.peak_signal_noise_ratio(truth, result, data_range=255)),
        "ssim": (metrics.ssim(result, truth), expected_ssim),
        "ciede2000": (
            metrics.ciede2000(result, truth),
            skimage.color.deltaE_ciede2000(lab_result, lab_truth).mean(),
        ),
        "lab": (whole, squared.mean()),
        "ab": (ab, squared[..., 1:].mean()),
    }
    for name, (ours, theirs) in values.items():
        assert ours == pytest.approx(theirs, rel=TOLERANCE), name


@pytest.mark.parametrize("seed", range(100))
def test_agreement_with_scikit_image_on_random_images(seed):
    assert_agreement(*random_pair(seed))


@pytest.mark.parametrize("name", REAL)
def test_agreement_with_scikit_image_on_photos(name):
    assert_agreement(*real_pair(name))


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
    result, truth = real_pair("coffee")
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
    assert metrics.lab_mse(black, white)[0] == pytest.approx(100**2 / 3, rel=1e-3)


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


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ssim, metrics.mae, metrics.lab_mse, metrics.ciede2000])
def test_sizes_and_types_are_never_guessed(metric):
    photo = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ValueError, match="bring them to one size"):
        metric(photo, photo[:-1])
    with pytest.raises(ValueError, match="uint8"):
        metric(photo.astype(np.float32), photo)
