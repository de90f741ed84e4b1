"""The report's plots."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from chromatune.evaluation import plots
from chromatune.evaluation.protocol import HELD_OUT


@pytest.mark.parametrize("count", [3, 16, 17, 80])
def test_many_rows_leave_the_points_their_room(count):
    """Eleven prompts and two models make 45 rows; warnings are errors here, and a crowded layout warns."""
    ends = {"delta_cf_field": [0.0, 2.0], "psnr": [19.0, 21.0]}
    scores = {"photos": 3, "delta_cf_field": 1.0, "psnr": 20.0, "intervals": ends}
    rows = [{"name": f"model {i}, “{'colorize this photograph ' * (i + 1)}”, raw"} | scores for i in range(count)]
    picture = cv2.imdecode(np.frombuffer(plots.trade_off(rows), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] == round(7.0 * plots.DPI)
    lines = (np.ptp(picture, axis=2) > 60).any(axis=1)  # the points' colours: bars from 19 to 21 dB fill the axes
    assert lines.sum() > 0.8 * 4.0 * plots.DPI * 0.8


def test_long_names_keep_their_ends():
    rows = [Row(f"a model, {'a very long prompt ' * 9}, raw")]
    picture = plots.distributions([{"part": HELD_OUT, "row": rows[0].rows[0], "psnr": 20.0}], rows, "psnr", "PSNR dB")
    assert picture.startswith(b"\x89PNG")
    shown = plots._plain(rows[0].rows[0])
    assert len(shown) <= plots.LONGEST_NAME and shown.startswith("a model, a") and shown.endswith("prompt , raw")


class Row:
    """What `distributions` reads of a method."""

    def __init__(self, name: str) -> None:
        self.rows = (name,)
