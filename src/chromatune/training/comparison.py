"""The result of a run against a model that nobody fine-tuned, on the same held-out photos: which is better, if any."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chromatune.errors import count_of
from chromatune.files import write_json
from chromatune.pipeline import read_json
from chromatune.training.checkpoints import disk_errors

UNTOUCHED = "mini"  # what a run is compared with: the model that colorizes where none is named
SCORES_FILE = "scores.json"  # PSNR of each held-out photo, by the step of a validation or the name of a model
RESAMPLES = 2000  # of the photos, with replacement
TAILS_PERCENT = (2.5, 97.5)  # percentile interval, Efron & Tibshirani 1993, section 13.3
FEWEST_PHOTOS = 6  # of which an interval is taken


def read_scores(out: Path) -> dict[str, list[float]]:
    """Return what `write_scores` wrote into a run's folder; what is damaged is left out."""
    try:
        found = read_json(out / SCORES_FILE)
    except (ValueError, OSError):
        return {}
    return {name: values for name, values in found.items() if _is_scores(values)}


def _is_scores(values: object) -> bool:
    if not isinstance(values, list) or not values:
        return False
    return all(type(value) in (int, float) and math.isfinite(value) for value in values)


def write_scores(out: Path, name: str, psnrs: Sequence[float]) -> None:
    """Add the PSNR of each held-out photo to the file of a run, for the step or model `name`.

    Raises:
        DataError: the disk is full.
    """
    with disk_errors(out / SCORES_FILE):
        write_json(out / SCORES_FILE, read_scores(out) | {name: list(psnrs)})


@dataclass(frozen=True)
class Comparison:
    """A run's best weights and a model as it is, by mean PSNR in dB over the same held-out photos."""

    untouched: str  # name of the model
    photos: int
    psnr: float
    untouched_psnr: float
    interval: tuple[float, float] | None  # 95 %, of the difference; None of too few photos

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or nothing where the interval holds 0."""
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return ""
        return "better" if self.interval[0] > 0 else "worse"

    @property
    def advice(self) -> str:
        """What to do about a result that is worse."""
        return (
            f"For photos like these, use {self.untouched}. More photos, more updates or a lower learning rate "
            "(such as --set lr=3e-5) may make a better model."
        )

    def sentence(self, name: str) -> str:
        """Return the outcome in one sentence, for the model called `name`."""
        start = (
            f"On {count_of(self.photos, 'photo')} not trained on, {name} scores {self.psnr:.2f} dB, {self.untouched} "
            f"untouched {self.untouched_psnr:.2f} dB"
        )
        if self.interval is None:
            return f"{start}: too few photos to tell which is better."
        low, high = self.interval
        if not self.verdict:
            return f"{start}: no difference that so many photos can show (95 % interval {low:+.2f} to {high:+.2f} dB)."
        low, high = sorted(map(abs, self.interval))
        gain = abs(self.psnr - self.untouched_psnr)
        return f"{start}: {self.verdict} by {gain:.2f} dB (95 % interval {low:.2f} to {high:.2f} dB)."


def compare(out: Path, step: int, untouched: str = UNTOUCHED) -> Comparison | None:
    """Compare the weights of a run at `step` with the model `untouched`; None where either was not measured.

    The interval is of a paired bootstrap over the photos, always of the same draws.
    """
    scores = read_scores(out)
    ours, theirs = scores.get(str(step)), scores.get(untouched)
    if ours is None or theirs is None or len(ours) != len(theirs):
        return None
    gains = np.array(ours) - np.array(theirs)  # (N,)
    interval = None
    if len(gains) >= FEWEST_PHOTOS:
        drawn = np.random.default_rng(0).integers(0, len(gains), (RESAMPLES, len(gains)))
        low, high = np.percentile(gains[drawn].mean(axis=1), TAILS_PERCENT)
        interval = float(low), float(high)
    return Comparison(untouched, len(gains), float(np.mean(ours)), float(np.mean(theirs)), interval)
