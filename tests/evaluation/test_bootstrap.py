"""Intervals: seeded, paired, of the right width, and never of nothing."""

from __future__ import annotations

import numpy as np
import pytest

from chromatune.evaluation.bootstrap import draw_counts, interval, resampled_means


def test_the_first_value_is_the_mean_and_the_seed_decides():
    values = np.random.default_rng(0).normal(5, 2, 400)
    first, again, other = (resampled_means({"x": values}, seed, 500)["x"] for seed in (1, 1, 2))
    assert first.shape == (501,)
    assert first[0] == pytest.approx(values.mean())
    np.testing.assert_array_equal(first, again)
    assert (first[1:] != other[1:]).any()


def test_width_is_that_of_the_standard_error():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = interval(resampled_means({"x": values}, 0)["x"])
    error = values.std() / np.sqrt(len(values))
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert low < values.mean() < high


def test_the_same_photos_are_drawn_for_every_method():
    """A constant difference has no spread, however much the photos themselves differ."""
    values = np.random.default_rng(0).normal(0, 100, 50)
    ours, theirs = (resampled_means({"x": values + shift}, 3)["x"] for shift in (1.5, 0.0))
    assert interval(ours - theirs) == pytest.approx((1.5, 1.5))


def test_chunks_do_not_change_the_draws(monkeypatch):
    values = {"x": np.arange(30.0), "y": np.arange(30.0)[::-1]}
    whole = resampled_means(values, 0, 100)
    monkeypatch.setattr("chromatune.evaluation.bootstrap._CHUNK", 90)
    for name, means in resampled_means(values, 0, 100).items():
        np.testing.assert_allclose(means, whole[name])


def test_a_mean_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least 1"):
        resampled_means({"x": np.array([])}, 0)
    with pytest.raises(ValueError, match="one length"):
        resampled_means({"x": np.zeros(2), "y": np.zeros(3)}, 0)


def test_counts_are_of_draws_with_replacement():
    """Each resample draws as many as there are; one photo's count is binomial, with variance 1 - 1 / N."""
    counts = np.concatenate(list(draw_counts(40, [0, 7], 3000)))
    assert counts.shape == (3000, 40)
    assert set(counts.sum(axis=1)) == {40.0}
    assert counts.var() == pytest.approx(1 - 1 / 40, rel=0.03)
    assert (counts != np.concatenate(list(draw_counts(40, [0, 8], 3000)))).any()


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr("chromatune.evaluation.bootstrap._CHUNK", 90)
    assert [len(counts) for counts in draw_counts(30, 0, 7)] == [3, 3, 1]


def test_published_intervals_stay():
    """Draws of a seed are never changed: intervals that stand in reports are of these."""
    samples = resampled_means({"x": np.arange(10.0) ** 2}, 0)["x"]
    assert samples[:4].tolist() == [28.5, 20.3, 47.5, 30.0]
    assert interval(samples) == (12.9, 45.9)
