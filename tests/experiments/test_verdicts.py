"""Intervals and verdicts on values whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from chromatune.errors import DataError
from chromatune.experiments.declaration import Claim
from chromatune.experiments.verdicts import Resampler, as_arrays


def rows(difference: float, seed_spread: float = 0.0, seeds: int = 3, photos: int = 200) -> dict:
    rng = np.random.default_rng(0)
    photo = rng.normal(24, 3, photos)
    noise = rng.normal(0, 0.2, (seeds, photos))
    runs = np.linspace(-seed_spread, seed_spread, seeds)[:, None]
    return {
        "a/t": {"psnr": photo + difference + noise + runs, "cf_field": np.full((seeds, photos), 30.0)},
        "b/t": {"psnr": np.broadcast_to(photo, (seeds, photos)), "cf_field": np.full((seeds, photos), 45.0)},
        "truth/t": {"cf_field": np.full((seeds, photos), 42.0)},
    }


def claim(**fields) -> Claim:
    return Claim(**({"text": "c", "metric": "psnr", "terms": {"a/t": 1, "b/t": -1}} | fields))


@pytest.mark.parametrize(
    ("difference", "expect", "verdict"),
    [(0.5, "above", "holds"), (-0.5, "above", "does not hold"), (0.0, "above", "undecided"), (-0.5, "below", "holds")],
)
def test_a_difference_far_beyond_its_noise_decides(difference, expect, verdict):
    judged = Resampler(rows(difference)).judge(claim(expect=expect))
    assert judged.verdict == verdict
    assert judged.low < judged.value < judged.high
    assert judged.value == pytest.approx(difference, abs=0.03)


def test_seeds_that_disagree_leave_it_undecided():
    assert Resampler(rows(0.5, seed_spread=0.1)).judge(claim()).verdict == "holds"
    assert Resampler(rows(0.5, seed_spread=2.0)).judge(claim()).verdict == "undecided"


def test_the_margin_counts():
    assert Resampler(rows(0.5)).judge(claim(margin=1.0)).verdict == "does not hold"


def test_the_colourfulness_gap_is_taken_to_the_truth():
    judged = Resampler(rows(0.0)).judge(claim(metric="delta_cf_field"))
    assert judged.value == pytest.approx(12 - 3)


def test_missing_values_are_left_out_of_means_and_missing_photos_out_of_all_rows():
    found = as_arrays(
        {
            "a/t": [{"1": {"x": 1.0}, "2": {"x": None}, "3": {"x": 5.0}}],
            "b/t": [{"1": {"x": 1.0}, "2": {"x": 2.0}}],
        }
    )
    assert found["a/t"]["x"].shape == found["b/t"]["x"].shape == (1, 2)
    assert Resampler(found).mean("a/t", "x")[0] == 1.0
    with pytest.raises(DataError, match="no photo was measured in all of a/t, b/t"):
        as_arrays({"a/t": [{"1": {"x": 1.0}}], "b/t": [{"2": {"x": 2.0}}]})
