"""Intervals and verdicts on values whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from chromatune.errors import DataError
from studies.paper.declaration import Claim, Row
from studies.paper.verdicts import Scores, as_arrays

A, B = Row("a", "t"), Row("b", "t")


def rows(difference: float, seed_spread: float = 0.0, seeds: int = 3, photos: int = 200) -> dict:
    rng = np.random.default_rng(0)
    photo = rng.normal(24, 3, photos)
    noise = rng.normal(0, 0.2, (seeds, photos))
    runs = np.linspace(-seed_spread, seed_spread, seeds)[:, None]
    return {
        A: {"psnr": photo + difference + noise + runs, "cf_field": np.full((seeds, photos), 30.0)},
        B: {"psnr": np.broadcast_to(photo, (seeds, photos)), "cf_field": np.full((seeds, photos), 45.0)},
        Row("truth", "t"): {"cf_field": np.full((seeds, photos), 42.0)},
    }


PHOTOS = {"t": tuple(f"{number}.jpg" for number in range(200))}


KEYS = PHOTOS["t"][:60]


def scores(values: dict) -> Scores:
    return Scores(values, PHOTOS)


def claim(**fields) -> Claim:
    return Claim(**({"text": "c", "metric": "psnr", "terms": {"a/t": 1, "b/t": -1}} | fields))


@pytest.mark.parametrize(
    ("difference", "expect", "verdict"),
    [(0.5, "above", "holds"), (-0.5, "above", "does not hold"), (0.0, "above", "undecided"), (-0.5, "below", "holds")],
)
def test_a_difference_far_beyond_its_noise_decides(difference, expect, verdict):
    judged = scores(rows(difference)).judge(claim(expect=expect))
    assert judged.verdict == verdict
    assert judged.low < judged.value < judged.high
    assert judged.value == pytest.approx(difference, abs=0.03)


def test_seeds_that_disagree_leave_it_undecided():
    assert scores(rows(0.5, seed_spread=0.1)).judge(claim()).verdict == "holds"
    assert scores(rows(0.5, seed_spread=2.0)).judge(claim()).verdict == "undecided"


def test_the_margin_counts():
    assert scores(rows(0.5)).judge(claim(margin=1.0)).verdict == "does not hold"


def test_the_colorfulness_gap_is_taken_to_the_truth():
    judged = scores(rows(0.0)).judge(claim(metric="delta_cf_field"))
    assert judged.value == pytest.approx(12 - 3)


def test_missing_values_are_left_out_of_means_and_missing_photos_out_of_all_rows():
    found, keys = as_arrays(
        {
            A: [{"1": {"x": 1.0}, "2": {"x": None}, "3": {"x": 5.0}}],
            B: [{"1": {"x": 1.0}, "2": {"x": 2.0}}],
        }
    )
    assert found[A]["x"].shape == found[B]["x"].shape == (1, 2)
    assert keys == ("1", "2")
    assert Scores(found, {"t": keys}).estimate(A, "x")[0] == 1.0
    with pytest.raises(DataError, match="no photo was measured in all of a/t, b/t"):
        as_arrays({A: [{"1": {"x": 1.0}}], B: [{"2": {"x": 2.0}}]})


def test_tests_on_the_same_photos_are_paired_and_others_are_not():
    """Photos differ by 3 dB, what two tests ask of them by 0.02: told only where the same photos are drawn for both."""
    values = rows(0.0)
    values[Row("a", "u")] = {"psnr": values[A]["psnr"] - 0.02}
    asked = claim(terms={"a/t": 1, "a/u": -1})
    apart = {"u": tuple(f"other-{key}" for key in PHOTOS["t"])}
    assert Scores(values, PHOTOS | {"u": PHOTOS["t"]}).judge(asked).verdict == "holds"
    assert Scores(values, PHOTOS | apart).judge(asked).verdict == "undecided"


def test_a_metric_that_no_photo_has_is_one_line():
    with pytest.raises(DataError, match="no photo of a/t has skin_ciede2000, which a claim is about"):
        scores(rows(0.0)).judge(claim(metric="skin_ciede2000"))


@pytest.mark.parametrize("seeds", [5, 3])
@pytest.mark.parametrize("seed_sd", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("noise_sd", [0.0, 0.5])
def test_intervals_cover_the_truth_as_often_as_they_say(seeds, seed_sd, noise_sd):
    """Of 2,000 experiments on 60 photos at least 93 %, whatever runs differ by in units of what photos do."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(2000):
        values = rng.normal(0, 1, 60) + rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, noise_sd, (seeds, 60))
        _, low, high = Scores({A: {"x": values}}, {"t": KEYS}).estimate(A, "x")
        covered += low <= 0 <= high
    assert 0.93 <= covered / 2000 <= 0.99


def test_intervals_of_a_difference_between_tests_on_other_photos_cover_it_too():
    """Two tests share the seeds: a run that is good in one is good in the other."""
    rng = np.random.default_rng(2)
    claimed, covered = claim(metric="x", terms={"a/t": 1, "a/u": -1}), 0
    for _ in range(2000):
        run = rng.normal(0, 1, (5, 1))
        first, second = (rng.normal(0, 1, 60) + run + rng.normal(0, 0.5, (5, 1)) for _ in range(2))
        both = Scores({A: {"x": first}, Row("a", "u"): {"x": second}}, {"t": KEYS, "u": KEYS[::-1]})
        judged = both.judge(claimed)
        covered += judged.low <= 0 <= judged.high
    assert covered / 2000 >= 0.93


def test_one_seed_has_the_interval_of_its_photos():
    values = np.random.default_rng(0).normal(20, 1, (1, 60))
    value, low, high = Scores({A: {"x": values}}, {"t": KEYS}).estimate(A, "x")
    assert high - value == pytest.approx(value - low) == pytest.approx(2.0 * values.std(ddof=1) / 60**0.5, rel=0.01)
