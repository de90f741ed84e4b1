"""Seeded paired bootstrap: 95 % intervals on statistics of means over photos, and on their differences.

Every method's means are taken over the same resampled photos, so that differences between methods are paired.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

RESAMPLES = 2000
TAILS_PERCENT = (2.5, 97.5)  # percentile interval, Efron & Tibshirani 1993, section 13.3
_CHUNK = 4_000_000  # drawn indices in memory at a time


def resampled_means(columns: Mapping[str, np.ndarray], seed: int, resamples: int = RESAMPLES) -> dict[str, np.ndarray]:
    """Mean of each column, and its means over resampled photos: (1 + resamples,) float64, the plain mean first.

    Args:
        columns: name ⇒ (N,) float64, photos in one order; equal N and seed draw the same photos.
        seed: of the draws.
        resamples: how many times N photos are drawn, with replacement.

    Raises:
        ValueError: there are no photos, or the columns differ in length.
    """
    counts = {len(column) for column in columns.values()}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"columns must have one length, at least 1; got {sorted(counts)}")
    (photos,) = counts
    values = np.stack([np.asarray(column, np.float64) for column in columns.values()], axis=1)  # (N, K)
    rng = np.random.default_rng(seed)
    means = [values.mean(axis=0, keepdims=True)]
    rows = max(1, _CHUNK // photos)
    for start in range(0, resamples, rows):
        drawn = rng.integers(0, photos, (min(rows, resamples - start), photos))
        means.append(_means_of_drawn(drawn, values))
    stacked = np.concatenate(means)  # (1 + resamples, K)
    return {name: stacked[:, index] for index, name in enumerate(columns)}


def interval(samples: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of resampled statistics, the plain one (first) left aside."""
    low, high = np.percentile(samples[1:], TAILS_PERCENT)
    return float(low), float(high)


def _means_of_drawn(drawn: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means over drawn photos, as a product with how often each was drawn: (R, N) indices, (N, K) -> (R, K)."""
    resamples, photos = drawn.shape
    offsets = np.arange(resamples)[:, None] * photos
    times = np.bincount((drawn + offsets).ravel(), minlength=drawn.size).reshape(resamples, photos)
    return times.astype(np.float64) @ values / photos
