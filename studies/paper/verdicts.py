"""Scores of all seeds and photos ⇒ intervals, and what they say of each claim.

Seeds and photos are both drawn at random, and crossed: every seed is measured on every photo. A mean has an interval of
Student's t by its S means over photos, and one by its P means over seeds; the root of the sum of their squares is the
interval's half width. It is exact where either part is nothing, and otherwise a little wide, as is right: the noise of
single measurements counts in both. A bootstrap over so few seeds would be too narrow. Differences are paired: rows
measured on the same photos share them, whatever their test, and all rows share the seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from chromatune.errors import DataError
from studies.paper.declaration import CF, GAP, TRUTH, Claim, Row

LEVEL = 0.95
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


class Scores:
    """All rows' scores, and intervals on their means and on sums of those."""

    def __init__(self, rows: Mapping[Row, Values], photos: Mapping[str, Keys]) -> None:
        """Takes row ⇒ its values, and test ⇒ its photos; all rows have the same seeds.

        Raises:
            ValueError: they have not.
        """
        self.rows, self._photos = rows, photos
        counts = {values.shape[0] for row in rows.values() for values in row.values()}
        if len(counts) != 1:
            raise ValueError(f"rows must have one number of seeds, got {sorted(counts)}")

    def estimate(self, row: Row, metric: str) -> tuple[float, float, float]:
        """The mean and the ends of its 95 % interval."""
        return self._estimate({row: 1.0}, metric)

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
        value, low, high = self._estimate(claim.terms, claim.metric)
        above, below = low > claim.margin, high < claim.margin
        holds, fails = (above, below) if claim.expect == "above" else (below, above)
        verdict: Verdict = "holds" if holds else "does not hold" if fails else "undecided"
        return Judged(claim, value, low, high, verdict)

    def _estimate(self, terms: Mapping[Row, float], metric: str) -> tuple[float, float, float]:
        """The sum of terms and the ends of its 95 % interval."""
        value = 0.0
        influences: dict[Keys, np.ndarray] = {}
        for row, factor in terms.items():
            mean, influence = self._mean(row, metric)
            value += factor * mean
            photos = self._photos[row.test]
            influences[photos] = influences.get(photos, 0.0) + factor * influence
        half = half_width(list(influences.values()))
        return value, value - half, value + half

    def _mean(self, row: Row, metric: str) -> tuple[float, np.ndarray]:
        """A row's mean, and what each seed and photo adds to it: (S, P), of mean 0."""
        if metric == GAP:  # |mean - mean of truths|; what adds to the one takes from the other
            mean, influence = self._mean(row, CF)
            truth, truth_influence = self._mean(row._replace(arm=TRUTH), CF)
            sign = 1.0 if mean >= truth else -1.0
            return abs(mean - truth), sign * (influence - truth_influence)
        values = self.rows[row][metric]
        known = ~np.isnan(values)
        mean = float(values[known].mean()) if known.any() else 0.0
        # Where there is no score, nothing is added; the others count for more
        return mean, np.where(known, values - mean, 0.0) * values.size / max(1, known.sum())


def half_width(influences: Sequence[np.ndarray]) -> float:
    """Half of the 95 % interval of a sum of means, each over all seeds and over photos of its own.

    Args:
        influences: (S, P) float64 of one S each: what a seed and a photo add to a mean.

    Returns:
        With one seed that of the photos alone.
    """
    by_seed = np.sum([each.mean(axis=1) for each in influences], axis=0)  # (S,)
    halves = [_half_width_of_mean(means) for means in (by_seed, *(each.mean(axis=0) for each in influences))]
    return float(np.linalg.norm(halves))


def _half_width_of_mean(draws: np.ndarray) -> float:
    """Half of the 95 % interval of the mean of independent draws; 0 of a single one, which says nothing of others."""
    count = len(draws)
    if count < 2:
        return 0.0
    return float(stats.t.ppf((1 + LEVEL) / 2, count - 1) * draws.std(ddof=1) / count**0.5)


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
