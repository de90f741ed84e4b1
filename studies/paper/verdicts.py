"""Scores of all seeds and photos ⇒ intervals, and what they say of each claim.

A resample draws seeds and photos, both with replacement; rows measured on the same photos share the photos drawn,
whatever their test, and all rows share the seeds, so differences are paired. With few seeds the interval is wide where
runs differ, as it should be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from chromatune.errors import DataError
from chromatune.evaluation import RESAMPLES, draw_counts, interval
from studies.paper.declaration import CF, GAP, TRUTH, Claim, Row

Verdict = Literal["holds", "does not hold", "undecided"]
PhotoScores = Mapping[str, Mapping[str, float | None]]  # key ⇒ metric ⇒ value
Values = Mapping[str, np.ndarray]  # metric ⇒ (seeds, photos) float64, nan where there is none
Keys = tuple[str, ...]  # of a test's photos, in the order of its values


@dataclass(frozen=True)
class Judged:
    """A claim and what was found of it.

    Attributes:
        claim: as declared.
        value: sum of its terms.
        low: lower end of the 95 % interval.
        high: upper end.
        verdict: where the interval lies.
    """

    claim: Claim
    value: float
    low: float
    high: float
    verdict: Verdict


class Resampler:
    """The same draws for every statistic of an experiment."""

    def __init__(
        self, rows: Mapping[Row, Values], photos: Mapping[str, Keys], seed: int = 0, resamples: int = RESAMPLES
    ) -> None:
        """Takes row ⇒ its values, and test ⇒ its photos; all rows have the same seeds.

        Raises:
            ValueError: they have not.
        """
        self.rows, self._photos = rows, photos
        self._rng_seed, self._resamples = seed, resamples
        counts = {values.shape[0] for row in rows.values() for values in row.values()}
        if len(counts) != 1:
            raise ValueError(f"rows must have one number of seeds, got {sorted(counts)}")
        (self._seeds,) = counts
        self._seed_counts = self._counts(self._seeds, "seeds")
        self._photo_counts: dict[Keys, np.ndarray] = {}

    def mean(self, row: Row, metric: str) -> np.ndarray:
        """(1 + resamples,): the plain mean, then the resampled ones."""
        if metric == GAP:
            return np.abs(self.mean(row, CF) - self.mean(row._replace(arm=TRUTH), CF))
        values = self.rows[row][metric]
        photos = self._photos[row.test]
        if photos not in self._photo_counts:
            self._photo_counts[photos] = self._counts(len(photos), "\n".join(photos))
        known = ~np.isnan(values)
        sums, weights = (
            np.einsum("rs,sn,rn->r", self._seed_counts, matrix, self._photo_counts[photos], optimize=True)
            for matrix in (np.where(known, values, 0.0), known.astype(np.float64))
        )
        return sums / np.maximum(weights, 1)

    def estimate(self, row: Row, metric: str) -> tuple[float, float, float]:
        """The mean and the ends of its 95 % interval."""
        samples = self.mean(row, metric)
        return float(samples[0]), *interval(samples)

    def has(self, row: Row, metric: str) -> bool:
        """Whether the row has this metric."""
        return (CF if metric == GAP else metric) in self.rows[row]

    def judge(self, claim: Claim) -> Judged:
        """A claim's verdict.

        Raises:
            DataError: no photo of a row has the claim's metric, such as one of faces.
        """
        for row in claim.terms:
            if not self.has(row, claim.metric):
                raise DataError(f"no photo of {row} has {claim.metric}, which a claim is about; give other photos")
        samples = np.sum([factor * self.mean(row, claim.metric) for row, factor in claim.terms.items()], axis=0)
        low, high = interval(samples)
        above, below = low > claim.margin, high < claim.margin
        holds, fails = (above, below) if claim.expect == "above" else (below, above)
        verdict: Verdict = "holds" if holds else "does not hold" if fails else "undecided"
        return Judged(claim, float(samples[0]), low, high, verdict)

    def _counts(self, count: int, what: str) -> np.ndarray:
        """How often each of `count` is drawn: (1 + resamples, count) float64, once each first."""
        drawn = draw_counts(count, [self._rng_seed, *what.encode()], self._resamples)
        return np.concatenate([np.ones((1, count)), *drawn])


def as_arrays(rows: Mapping[Row, Sequence[PhotoScores]]) -> tuple[dict[Row, dict[str, np.ndarray]], Keys]:
    """One test's rows, each with photo ⇒ metric ⇒ value for every seed, as metric ⇒ (seeds, photos); and the photos.

    Only photos that every row has for every seed are kept: differences are between the same photos.

    Raises:
        DataError: there is none.
    """
    keys = sorted(set.intersection(*(set(of_seed) for of_seeds in rows.values() for of_seed in of_seeds)))
    if not keys:
        raise DataError(f"no photo was measured in all of {', '.join(map(str, rows))}; complete the results")
    return {row: _arrays(of_seeds, keys) for row, of_seeds in rows.items()}, tuple(keys)


def _arrays(of_seeds: Sequence[PhotoScores], keys: Sequence[str]) -> dict[str, np.ndarray]:
    metrics = sorted({metric for of_seed in of_seeds for key in keys for metric in of_seed[key]})
    return {metric: np.array([[_number(s[key].get(metric)) for key in keys] for s in of_seeds]) for metric in metrics}


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
