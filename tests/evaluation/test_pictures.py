"""Plots, and which photos are shown."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from chromatune.evaluation import pictures
from chromatune.evaluation.protocol import HELD_OUT
from chromatune.reports.pictures import DPI


@pytest.mark.parametrize("count", [3, 16, 17, 80])
def test_many_rows_leave_the_points_their_room(count):
    """Eleven prompts and two models make 45 rows; warnings are errors here, and a crowded layout warns."""
    ends = {"delta_cf_field": [0.0, 2.0], "psnr": [19.0, 21.0]}
    scores = {"photos": 3, "delta_cf_field": 1.0, "psnr": 20.0, "intervals": ends}
    rows = [{"name": f"model {i}, “{'colorize this photograph ' * (i + 1)}”, raw"} | scores for i in range(count)]
    picture = cv2.imdecode(np.frombuffer(pictures.plot_trade_off(rows), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] == round(7.0 * DPI)
    lines = (np.ptp(picture, axis=2) > 60).any(axis=1)  # the points' colors: bars from 19 to 21 dB fill the axes
    assert lines.sum() > 0.8 * 4.0 * DPI * 0.8


def test_long_names_keep_their_plot():
    rows = [Row(f"a model, {'a very long prompt ' * 9}, raw")]
    records = [{"subset": HELD_OUT, "row": rows[0].rows[0], "psnr": 20.0}]
    assert pictures.plot_distributions(records, rows, "psnr", "PSNR dB").startswith(b"\x89PNG")


def test_without_scores_there_is_no_plot():
    assert pictures.plot_trade_off([{"name": "none", "photos": 0}]) is None
    assert (
        pictures.plot_distributions([{"subset": HELD_OUT, "row": "m", "failed": "x"}], [Row("m")], "psnr", "") is None
    )


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 9, 10, 40])
def test_examples_are_the_worst_the_middle_and_the_best_each_once(count):
    scores = [float(value) for value in range(count)]
    records = [{"subset": HELD_OUT, "row": "m", "key": f"{v:03.0f}", pictures.RANKED_BY: v} for v in scores]
    found = pictures.choose_examples(records, [Row("m")])
    values = [example.value for example in found]
    assert len(values) == min(count, 9)
    assert values == sorted(set(values), reverse=True)
    kinds = {kind: [example.value for example in found if example.kind == kind] for kind in pictures.KINDS}
    if count >= 3:
        assert (kinds["worst"][0], kinds["best"][-1]) == (count - 1, 0)
        assert min(abs(value - (count - 1) / 2) for value in kinds["median"]) <= 1


class Row:
    """What is read of a method."""

    def __init__(self, name: str) -> None:
        self.rows = (name,)
