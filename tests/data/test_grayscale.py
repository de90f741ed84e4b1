"""Gray inputs for training: ranges, methods, and that age only ever loses."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from chromatune.color import luma
from chromatune.data.pairs import GRAY_METHODS, GRAY_WEIGHTS, GrayMethod, age, make_gray, random_gray
from chromatune.errors import OptionsError


def photo() -> np.ndarray:
    return np.random.default_rng(0).random((40, 60, 3), dtype=np.float32)


def test_rec601_is_the_luma_results_are_compared_with():
    np.testing.assert_allclose(make_gray(photo(), "rec601"), luma(photo()), atol=1e-6)


@pytest.mark.parametrize("method", GRAY_METHODS)
def test_gray_photos_stay_as_they_are(method):
    gray = np.repeat(photo()[..., :1], 3, axis=2)
    result = make_gray(gray, method, np.random.default_rng(1))
    np.testing.assert_allclose(result, gray[..., 0], atol=1e-6)
    assert result.dtype == np.float32


def test_weights_sum_to_one():
    for weights in GRAY_WEIGHTS.values():
        assert sum(weights) == pytest.approx(1)


def test_orthochromatic_video_is_blind_to_red():
    red = np.zeros((4, 4, 3), np.float32)
    red[..., 0] = 1
    assert make_gray(red, "orthochromatic").max() < 0.1 < make_gray(red, "red-filter").min()


def test_unknown_method_and_missing_generator():
    with pytest.raises(OptionsError, match="accepted: rec601"):
        make_gray(photo(), cast(GrayMethod, "sepia"))
    with pytest.raises(OptionsError, match="random generator"):
        make_gray(photo(), "random")


def test_age_keeps_the_range_and_follows_the_generator():
    gray = make_gray(photo())
    for seed in range(30):
        old = age(gray, np.random.default_rng(seed))
        assert old.dtype == np.float32 and old.shape == gray.shape
        assert old.min() >= 0 and old.max() <= 1
    np.testing.assert_array_equal(age(gray, np.random.default_rng(3)), age(gray, np.random.default_rng(3)))
    assert np.abs(age(gray, np.random.default_rng(3)) - gray).max() > 0.02


def test_no_age_changes_nothing():
    gray = make_gray(photo())
    np.testing.assert_allclose(age(gray, np.random.default_rng(0), amount=0), gray, atol=1e-6)


def test_plain_share_of_training_inputs():
    plain = make_gray(photo())
    rng = np.random.default_rng(0)
    share = np.mean([np.array_equal(random_gray(photo(), rng, plain_share=0.4), plain) for _ in range(300)])
    assert 0.3 < share < 0.5
