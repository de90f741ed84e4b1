"""Tables from made-up scores, hand-computed."""

from __future__ import annotations

import numpy as np
import pytest

from chromatune.colorizer import Colorizer
from chromatune.evaluation import cost, summary
from chromatune.evaluation.rows import Method
from chromatune.evaluation.table import markdown_lines
from chromatune.files import LineFile
from chromatune.options import make_options

MODEL = Method("m", model="m")


def record(row: str, key: str, part: str = "held-out", **scores: float | None) -> dict:
    defaults = dict.fromkeys([*summary.MEANS, summary.DRIFT_MAX], 0.0)
    return {"row": row, "part": part, "key": key, summary.SKIN: None} | defaults | scores


def test_delta_cf_is_of_means_and_not_of_photos():
    """Too vivid on one photo and too dull on another is no gap, as papers define it."""
    records = [
        record("m", "a", cf_field=10.0, truth_cf_field=30.0),
        record("m", "b", cf_field=50.0, truth_cf_field=30.0),
    ]
    row = summary.summarise_rows(records, [MODEL], 0)[0]
    assert (row["cf_field"], row["delta_cf_field"]) == (30.0, 0.0)


def test_differences_are_over_the_photos_both_have():
    records = [record("grey", key, psnr=value) for key, value in (("a", 20.0), ("b", 30.0), ("c", 40.0))]
    records += [record("m", "a", psnr=21.0), record("m", "b", psnr=31.0), {**record("m", "c"), "failed": "missing"}]
    row = summary.summarise_rows(records, [Method("grey"), MODEL], 0)[1]
    assert (row["photos"], row["failed"], row["psnr"]) == (2, 1, 26.0)
    assert row["minus_grey"]["photos"] == 2
    assert row["minus_grey"]["psnr"] == {"mean": 1.0, "interval": pytest.approx((1.0, 1.0))}


def test_skin_counts_only_photos_with_a_face():
    records = [record("m", key, skin_ciede2000=value) for key, value in (("a", 4.0), ("b", None), ("c", 6.0))]
    row = summary.summarise_rows(records, [MODEL], 0)[0]
    assert (row["skin_ciede2000"], row["faces"]) == (5.0, 2)


def test_prompt_spread_by_hand():
    methods = [Method("m, a", model="m", prompt="a"), Method("m, b", model="m", prompt="b")]
    records = [record(row, key, psnr=value) for row, value in (("m, a", 20.0), ("m, b", 24.0)) for key in "xy"]
    (spread,) = summary.prompt_spread(records, methods)
    assert (spread["psnr"], spread["prompts"], spread["raw"]) == (2.0, 2, False)


def test_gap_between_seen_and_held_out_photos():
    records = [
        record("m", f"{part}{i}", part, psnr=value)
        for part, value in (("seen", 25.0), ("held-out", 22.0))
        for i in "ab"
    ]
    (gap,) = summary.generalisation_gaps(records, [MODEL], 0)
    assert gap["psnr"]["mean"] == 3.0


def test_numbers_have_no_minus_zero_and_cells_keep_their_bars():
    assert summary.number(-0.0001, "psnr") == "0.00"
    assert markdown_lines([["", "x"], ["a|b\nc", "1"]]).splitlines()[-1] == "| a\\|b c | 1 |"


def test_lines_are_kept_once_and_a_torn_one_is_dropped(tmp_path):
    path = tmp_path / "lines.jsonl"
    with LineFile(path, ("key",)) as file:
        file.append([{"key": "a", "value": 0.1}, {"key": "b\ud800"}])
        file.append([{"key": "a", "value": 0.2}])
    with path.open("ab") as torn:
        torn.write(b'{"key": "c", "val')
    with LineFile(path, ("key",)) as file:
        assert [("a",) in file, ("b\ud800",) in file, ("c",) in file] == [True, True, False]
        assert file.read() == [{"key": "a", "value": 0.1}, {"key": "b\ud800"}]
        with pytest.raises(ValueError, match="not JSON compliant"):
            file.append([{"key": "d", "value": np.nan}])


def test_work_counts_guidance_branches(tiny_bundle_dir):
    colorizer = Colorizer.load(str(tiny_bundle_dir), device="cpu")
    plain, guided = (
        cost.count_work(colorizer, make_options(steps=3, guidance_scale=text, image_guidance_scale=image), 32)
        for text, image in ((1.0, 1.0), (7.0, 1.5))
    )
    assert (plain["unet_evaluations"], guided["unet_evaluations"]) == (3, 9)
    assert plain["parameters"] == guided["parameters"]
    assert 1.5 * plain["gflops"] < guided["gflops"] < 3 * plain["gflops"]
