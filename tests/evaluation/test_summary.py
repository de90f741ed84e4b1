"""Tables from made-up scores, hand-computed."""

from __future__ import annotations

import pytest

from chromatune.evaluation import summary
from chromatune.evaluation.methods import Method

MODEL = Method("m", model="m")


def record(row: str, key: str, subset: str = "held-out", **scores: float | None) -> dict:
    defaults = dict.fromkeys([*summary.MEANS, summary.DRIFT_MAX], 0.0)
    return {"row": row, "subset": subset, "key": key, summary.SKIN: None} | defaults | scores


def test_delta_cf_is_of_means_and_not_of_photos():
    """Too vivid on one photo and too dull on another is no gap, as papers define it."""
    records = [
        record("m", "a", cf_field=10.0, truth_cf_field=30.0),
        record("m", "b", cf_field=50.0, truth_cf_field=30.0),
    ]
    row = summary.summarize_rows(records, [MODEL], 0)[0]
    assert (row["cf_field"], row["delta_cf_field"]) == (30.0, 0.0)


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
    scores = [{"cf_field": cf, "luma_drift_max": 0.0} for cf in results]
    assert summary.mean_scores(scores, truths)["delta_cf_field"] == 20.0


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


def test_means_of_scores_at_hand():
    rows = [{"psnr": 20.0, "cf_field": 10.0, "luma_drift_max": 1.0}]
    rows.append({"psnr": 30.0, "cf_field": 0.0, "luma_drift_max": 0.0})
    means = summary.mean_scores(rows, [20.0, 10.0])
    assert means == {"psnr": 25.0, "cf_field": 5.0, "luma_drift_max": 1.0, "delta_cf_field": 10.0}
    with pytest.raises(ValueError, match="no photos"):
        summary.mean_scores([], [])
    table = summary.scores_table({"ours": means}, {"psnr": "PSNR dB", "ssim": "SSIM"})
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
    found = summary.compare_best(records, methods, 0)
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
