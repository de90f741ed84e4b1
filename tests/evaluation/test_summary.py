"""Tables from made-up scores, hand-computed; intervals: seeded, paired, of the right width, and never of nothing."""

from __future__ import annotations

import numpy as np
import pytest

from chromatune.evaluation import summary
from chromatune.evaluation.protocol import Method, Row
from chromatune.evaluation.summary import draw_counts, interval, resampled_means

MODEL = Method("m", model="m")


def record(row: str, key: str, subset: str = "held-out", **scores: float | None) -> dict:
    defaults = dict.fromkeys([*summary.MEANS, summary.DRIFT_MAX], 0.0)
    return {**Row(row).fields, "subset": subset, "key": key, summary.SKIN: None} | defaults | scores


def test_delta_cf_is_of_means_and_not_of_photos():
    """Too vivid on one photo and too dull on another is no gap, as papers define it."""
    records = [
        record("m", "a", cf_field=10.0, truth_cf_field=30.0),
        record("m", "b", cf_field=50.0, truth_cf_field=30.0),
    ]
    row = summary.summarize_rows(records, [MODEL], 0)[0]
    assert (row["cf_field"], row["delta_cf_field"]) == (30.0, 0.0)


def test_the_other_delta_cf_is_the_mean_over_photos_of_what_each_is_off():
    """Papers mean the one or the other; 20 too vivid and 30 too dull are 5 by means and 25 by photo."""
    results, truths = (10.0, 50.0), (40.0, 30.0)
    records = [
        record("m", key, cf_field=cf, truth_cf_field=truth, cf_signed=2 * cf, truth_cf_signed=2 * truth)
        for key, cf, truth in zip("ab", results, truths, strict=True)
    ]
    row = summary.summarize_rows(records, [MODEL], 0)[0]
    assert (row["delta_cf_field"], row["photo_delta_cf_field"]) == (5.0, 25.0)
    assert (row["delta_cf_signed"], row["photo_delta_cf_signed"]) == (10.0, 50.0)
    assert row["intervals"]["photo_delta_cf_field"] == (20.0, 30.0)
    assert summary.cells_of(row)["photo_delta_cf_field"] == "25.0"


def test_a_method_whose_seed_the_truth_chose_is_no_contender():
    methods = [Method("gray"), MODEL, Method("m, best of 5", model="m", best_of=5)]
    records = [
        record(row, key, psnr=value)
        for row, value in (("gray", 20.0), ("m", 21.0), ("m, best of 5", 29.0))
        for key in "xy"
    ]
    compared = summary.compare_best(records, methods, 0)
    assert compared is not None and (compared["best"], compared["contenders"]) == ("m", 1)
    assert summary.prompt_spread(records, methods) == []


@pytest.mark.parametrize(("results", "truths"), [((10.0, 20.0), (30.0, 40.0)), ((60.0, 50.0), (40.0, 30.0))])
def test_delta_cf_is_as_large_for_too_dull_as_for_too_vivid(results, truths):
    """Guards the absolute value: without it, the dullest results would have the lowest, and so the best, ΔCF."""
    records = [
        record("m", key, cf_field=cf, truth_cf_field=truth, cf_signed=cf, truth_cf_signed=truth)
        for key, cf, truth in zip("ab", results, truths, strict=True)
    ]
    row = summary.summarize_rows(records, [MODEL], 0)[0]
    assert row["delta_cf_field"] == row["delta_cf_signed"] == 20.0
    assert row["intervals"]["delta_cf_field"] == pytest.approx((20.0, 20.0))


def test_differences_are_over_the_photos_both_have():
    records = [record("gray", key, psnr=value) for key, value in (("a", 20.0), ("b", 30.0), ("c", 40.0))]
    records += [record("m", "a", psnr=21.0), record("m", "b", psnr=31.0), {**record("m", "c"), "failed": "missing"}]
    row = summary.summarize_rows(records, [Method("gray"), MODEL], 0)[1]
    assert (row["photos"], row["failed"], row["psnr"]) == (2, 1, 26.0)
    assert row["minus_gray"]["photos"] == 2
    assert row["minus_gray"]["psnr"] == {"mean": 1.0, "interval": pytest.approx((1.0, 1.0))}


def test_skin_counts_only_photos_with_a_face():
    records = [record("m", key, skin_ciede2000=value) for key, value in (("a", 4.0), ("b", None), ("c", 6.0))]
    row = summary.summarize_rows(records, [MODEL], 0)[0]
    assert (row["skin_ciede2000"], row["faces"]) == (5.0, 2)


def test_prompt_spread_by_hand():
    methods = [Method("m, a", model="m", prompt="a"), Method("m, b", model="m", prompt="b")]
    records = [record(row, key, psnr=value) for row, value in (("m, a", 20.0), ("m, b", 24.0)) for key in "xy"]
    (spread,) = summary.prompt_spread(records, methods)
    assert (spread["psnr"], spread["prompts"], spread["raw"]) == (2.0, 2, False)


def test_gap_between_seen_and_held_out_photos():
    records = [
        record("m", f"{subset}{i}", subset, psnr=value)
        for subset, value in (("seen", 25.0), ("held-out", 22.0))
        for i in "ab"
    ]
    (gap,) = summary.generalization_gaps(records, [MODEL], 0)
    assert gap["psnr"]["mean"] == 3.0


def test_numbers_have_no_minus_zero():
    assert summary.number(-0.0001, "psnr") == "0.00"


def test_a_score_that_a_row_lacks_is_a_dash():
    table = summary.scores_table({"ours": {"psnr": 25.0, "mae": 3.0}}, {"psnr": "PSNR dB", "ssim": "SSIM"})
    assert table.splitlines()[-1] == "| ours | 25.00 | – |"


def rows_of(gains: dict[str, dict[str, float]]) -> list[dict]:
    """Scores of methods by their PSNR above gray's, by photo."""
    keys = sorted({key for photos in gains.values() for key in photos})
    scores = [record("gray", key, psnr=20.0 + index) for index, key in enumerate(keys)]
    for row, photos in gains.items():
        scores += [record(row, key, psnr=20.0 + keys.index(key) + gain) for key, gain in photos.items()]
    return scores


def test_the_best_is_compared_over_the_photos_both_have():
    """A tool that was given the easy photos alone gains more on them, and still is the worse one there."""
    methods = [Method("gray"), Method("m, 1", model="m", steps=1), Method("m, 2", model="m", steps=2)]
    methods += [Method("tool", folder="x"), Method("none", folder="y")]
    gains = {"m, 1": dict.fromkeys("abcd", 1.0), "m, 2": {"a": 5.0, "b": 5.0, "c": -1.0, "d": -2.0}}
    records = rows_of(gains | {"tool": {"a": 3.0, "b": 3.0}})
    found = summary.compare_best(records, methods, 0) or {}
    assert (found["best"], found["other"], found["contenders"], found["settings"]) == ("m, 2", "tool", 2, 2)
    assert (found["photos"], found["psnr"]["mean"]) == (2, 2.0)


def test_what_shares_no_photo_is_not_compared():
    methods = [Method("gray"), Method("a", folder="x"), Method("b", folder="y")]
    assert summary.compare_best(rows_of({"a": {"1": 1.0}, "b": {"2": 1.5}}), methods, 0) == {
        "best": "b",
        "other": None,
        "contenders": 2,
        "settings": 1,
    }
    assert summary.compare_best(rows_of({}), methods, 0) is None


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
    monkeypatch.setattr("chromatune.evaluation.summary._CHUNK", 90)
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
    monkeypatch.setattr("chromatune.evaluation.summary._CHUNK", 90)
    assert [len(counts) for counts in draw_counts(30, 0, 7)] == [3, 3, 1]


def test_published_intervals_stay():
    """Draws of a seed are never changed: intervals that stand in reports are of these."""
    samples = resampled_means({"x": np.arange(10.0) ** 2}, 0)["x"]
    assert samples[:4].tolist() == [28.5, 20.3, 47.5, 30.0]
    assert interval(samples) == (12.9, 45.9)
