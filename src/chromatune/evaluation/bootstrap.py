"""Seeded paired bootstrap: 95 % intervals on statistics of means over photos, and on their differences.

A resample is how often each photo was drawn, with replacement. All that is taken over the same photos is taken over the
same resamples, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

RESAMPLES = 2000
TAILS_PERCENT = (2.5, 97.5)  # percentile interval, Efron & Tibshirani 1993, section 13.3
_CHUNK = 4_000_000  # drawn indices in memory at a time


def draw_counts(count: int, seed: int | Sequence[int], resamples: int = RESAMPLES) -> Iterator[np.ndarray]:
    """How often each of `count` is drawn in each resample, a few resamples at a time: memory stays bounded.

    Args:
        count: how many there are to draw from, and how many a resample draws, with replacement.
        seed: of the draws; equal count and seed give the same ones.
        resamples: how many there are in all.

    Yields:
        (r, count) float64, whole numbers; each row's sum is `count`.
    """
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // count)
    for start in range(0, resamples, rows):
        drawn = rng.integers(0, count, (min(rows, resamples - start), count))  # (r, count) indices
        offsets = np.arange(len(drawn))[:, None] * count
        yield np.bincount((drawn + offsets).ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)


def resampled_means(columns: Mapping[str, np.ndarray], seed: int, resamples: int = RESAMPLES) -> dict[str, np.ndarray]:
    """Mean of each column, and its means over resampled photos: (1 + resamples,) float64, the plain mean first.

    Args:
        columns: name ⇒ (N,) float64, photos in one order; equal N and seed draw the same photos.
        seed: of the draws.
        resamples: how many times N photos are drawn, with replacement.

    Raises:
        ValueError: there are no photos, or the columns differ in length.
    """
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"columns must have one length, at least 1; got {sorted(lengths)}")
    (photos,) = lengths
    values = np.stack([np.asarray(column, np.float64) for column in columns.values()], axis=1)  # (N, K)
    means = [values.mean(axis=0, keepdims=True)]
    means += [counts @ values / photos for counts in draw_counts(photos, seed, resamples)]  # (r, K) each
    stacked = np.concatenate(means)  # (1 + resamples, K)
    return {name: stacked[:, index] for index, name in enumerate(columns)}


def interval(samples: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of resampled statistics, the plain one (first) left aside."""
    low, high = np.percentile(samples[1:], TAILS_PERCENT)
    return float(low), float(high)
