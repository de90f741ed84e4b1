"""What the page says first, which cells it marks, what it shows at once; plots, and which photos are shown."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from chromatune.evaluation import report, summary
from chromatune.evaluation.protocol import HELD_OUT, Method, Row
from chromatune.evaluation.report import Example, lead_sentence, make_page
from chromatune.reports import Folded, Pictures, Table, Text
from chromatune.reports.pictures import DPI

PHOTOS = [f"{index}.png" for index in range(10)]
GRAY, BASE, MINI = Method("gray"), Method("mini-base", model="mini-base"), Method("mini", model="mini")
TOOL = Method("tool", folder="theirs")


def record(row: Row, key: str, **scores: float | None) -> dict:
    defaults = dict.fromkeys([*summary.MEANS, summary.DRIFT_MAX], 0.0)
    return {**row.fields, "subset": HELD_OUT, "key": key, summary.SKIN: None} | defaults | scores


def scored(method: Method, psnr: float, ciede2000: float, *, spread: float = 0.1, keys=PHOTOS) -> list[dict]:
    """Scores of a method and its raw row; they differ from photo to photo by up to `spread`, up and down in turn."""
    rows = []
    for row in method.rows:
        for index, key in enumerate(keys):
            step = spread * (index + 1) / len(keys) * (-1) ** index * (method is not GRAY)
            rows.append(record(row, key, psnr=psnr + step, ciede2000=ciede2000 - step, cf_field=30.0 - ciede2000))
    return rows


def summarized(records: list[dict], methods: list[Method]) -> dict:
    return {
        "rows": summary.summarize_rows(records, methods, 0),
        "protocol": {"source": "photos"},
        "comparison": summary.compare_best(records, methods, 0),
        "prompt_spread": [],
        "generalization": [],
    }


def lead(*records: list[dict], methods: list[Method]) -> str:
    return lead_sentence(summarized([line for lines in records for line in lines], methods))


def test_one_model_is_compared_with_the_gray_input():
    said = lead(scored(GRAY, 20, 15), scored(MINI, 22, 10), methods=[GRAY, MINI])
    assert said == (
        "mini is better than the gray input by 2.00 dB PSNR (1.96 … 2.04) and 5.00 CIEDE2000 (4.96 … 5.04), "
        "ΔCF 20.0 against 15.0, on 10 photos."
    )


def test_the_better_of_two_models_is_named_first_whatever_their_order():
    parts = scored(GRAY, 20, 15), scored(MINI, 22, 10), scored(BASE, 19, 12.4)
    for methods in ([GRAY, BASE, MINI], [GRAY, MINI, BASE]):
        said = lead(*parts, methods=methods)
        assert said.startswith("mini is better than mini-base by 3.00 dB PSNR (3.00 … 3.00) and 2.40 CIEDE2000 (2.40")
        assert "ΔCF 20.0 against 17.6, on 10 photos; against the gray input, mini gains " in said


def test_several_models_and_the_best_of_several_settings():
    steps = [Method(f"m, {count} steps", model="m", steps=count) for count in (2, 3)]
    parts = [scored(GRAY, 20, 15), scored(steps[0], 21, 10), scored(steps[1], 23, 10)]
    parts += [scored(BASE, 19, 12), scored(TOOL, 22, 11)]
    said = lead(*parts, methods=[GRAY, *steps, BASE, TOOL])
    assert said.startswith(
        "m, 3 steps (the best of its 2 settings) is better than tool, the next best of 3, by 1.00 dB"
    )


def test_only_other_tools():
    said = lead(scored(GRAY, 20, 15), scored(TOOL, 18, 20), methods=[GRAY, TOOL])
    assert said.startswith("tool is worse than the gray input by 2.0")
    assert "dB PSNR" in said and "CIEDE2000" in said and "better" not in said


def test_an_interval_that_holds_0_shows_no_difference():
    said = lead(scored(GRAY, 20, 15), scored(MINI, 20.05, 14.95, spread=3.0), methods=[GRAY, MINI])
    assert said.startswith("No difference between mini and the gray input could be shown: PSNR ")
    assert "better" not in said and "against the gray input," not in said


def test_metrics_that_disagree_are_both_told():
    said = lead(scored(GRAY, 20, 15), scored(MINI, 22, 17), methods=[GRAY, MINI])
    assert "mini is better than the gray input by 2.0" in said
    assert " dB PSNR (" in said
    assert " and worse than the gray input by " in said
    said = lead(scored(GRAY, 20, 15), scored(MINI, 22, 15, spread=3.0), methods=[GRAY, MINI])
    assert "mini is better than the gray input by " in said
    assert "; no difference shown: CIEDE2000 " in said


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_handful_of_photos_shows_nothing_however_alike(count):
    """Of one photo, the interval has no width: read as it is, it would call any difference certain."""
    keys = PHOTOS[:count]
    parts = [scored(method, 20 + 5 * i, 15, keys=keys) for i, method in enumerate((GRAY, BASE, MINI))]
    said = lead(*parts, methods=[GRAY, BASE, MINI])
    assert said.startswith("Too few photos to show a difference between mini and mini-base: PSNR +5.00 dB, ")
    assert f"on {count} photo{'s' if count > 1 else ''}; against the gray input, mini shows no gain" in said


def test_nothing_scored():
    failed = [{**row.fields, "subset": HELD_OUT, "key": "a", "failed": "missing"} for row in TOOL.rows]
    said = lead(scored(GRAY, 20, 15), failed, methods=[GRAY, TOOL])
    assert said == "Nothing but the gray input was scored: every result is missing or cannot be read (see Details)."


@pytest.fixture(scope="module")
def page():
    methods = [GRAY, BASE, MINI, TOOL, Method("x", folder="x")]
    records = [line for i, method in enumerate(methods) for line in scored(method, 20 + i, 15 - i)]
    examples = [
        Example(row, kind, "a.png", 1.0, "data:image/png;base64,")
        for method in methods[1:]
        for row in method.rows
        for kind in ("worst", "median", "best")
    ]
    return make_page(summarized(records, methods), records, methods, {}, examples, (), (("x", "a.png", "missing"),))


def test_the_page_leads_with_pictures_then_few_columns_then_plots_and_folds_the_rest(page):
    assert [section.title for section in page.sections] == [
        "Worst, median and best photos",
        "Scores",
        "Plots",
        "Details",
    ]
    assert all(isinstance(block, Folded) for block in page.sections[-1].blocks)
    titles = [block.title for block in page.sections[-1].blocks]
    for start in ("Means", "95 % intervals", "Minus gray", "Cost", "Results without a score: 1", "Protocol"):
        assert any(title.startswith(start) for title in titles), start


def test_pictures_of_the_best_come_first_and_raw_ones_are_folded(page):
    blocks = page.sections[0].blocks[1:]
    assert [block.title for block in blocks if isinstance(block, Pictures)] == ["x", "tool", "mini-base"]
    folded = [block.title for block in blocks if isinstance(block, Folded)]
    assert folded == ["mini", "mini-base, raw", "mini, raw", "tool, raw", "x, raw"]
    captions = [picture.caption for picture in blocks[0].pictures]
    assert captions == ["worst: a.png, 1.00", "median: a.png, 1.00", "best: a.png, 1.00"]


def test_the_few_columns_and_the_best_of_each(page):
    table, *texts = page.sections[1].blocks
    assert isinstance(table, Table)
    assert [title.rstrip(" ↑↓") for title in table.header[1:-1]] == [
        "PSNR dB",
        "ΔCF field",
        "CIEDE2000",
        "SSIM",
        "luma drift max",
    ]
    names = [row[0] for row in table.rows]
    marked = {column: {names[row] for row, col in table.best if col == column} for column in range(1, 6)}
    assert marked[1] == marked[3] == {"x", "x, raw"}  # highest PSNR, lowest CIEDE2000
    assert marked[2] == {"gray"}  # lowest ΔCF
    assert "gray" in marked[4]
    assert "gray" not in marked[5]  # it is the input: no drift is no merit
    assert Text("1 result has no score; see Details.", strong=True) in texts


@pytest.mark.parametrize("count", [3, 17, *(pytest.param(count, marks=pytest.mark.slow) for count in (16, 80))])
def test_many_rows_leave_the_points_their_room(count):
    """Eleven prompts and two models make 45 rows; warnings are errors here, and a crowded layout warns."""
    ends = {"delta_cf_field": [0.0, 2.0], "psnr": [19.0, 21.0]}
    scores = {"photos": 3, "delta_cf_field": 1.0, "psnr": 20.0, "intervals": ends}
    rows = [{"name": f"model {i}, “{'colorize this photograph ' * (i + 1)}”, raw"} | scores for i in range(count)]
    png = report.plot_trade_off(rows)
    assert png is not None
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape[1] == round(7.0 * DPI)
    lines = (np.ptp(picture, axis=2) > 60).any(axis=1)  # the points' colors: bars from 19 to 21 dB fill the axes
    assert lines.sum() > 0.8 * 4.0 * DPI * 0.8


def test_long_names_keep_their_plot():
    method = Method(f"a model, {'a very long prompt ' * 9}", folder="x")
    records = [record(method.rows[1], "a", psnr=20.0)]
    assert (report.plot_distributions(records, [method], "psnr", "PSNR dB") or b"").startswith(b"\x89PNG")


def test_without_scores_there_is_no_plot():
    assert report.plot_trade_off([{"name": "none", "photos": 0}]) is None
    failed = [{**TOOL.row.fields, "subset": HELD_OUT, "key": "a", "failed": "x"}]
    assert report.plot_distributions(failed, [TOOL], "psnr", "") is None


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 9, 10, 40])
def test_examples_are_the_worst_the_middle_and_the_best_each_once(count):
    scores = [float(value) for value in range(count)]
    records = [record(TOOL.row, f"{v:03.0f}", **{report.RANKED_BY: v}) for v in scores]
    found = report.choose_examples(records, [TOOL])
    values = [example.value for example in found]
    assert len(values) == min(count, 9)
    assert values == sorted(set(values), reverse=True)
    kinds = {kind: [example.value for example in found if example.kind == kind] for kind in report.KINDS}
    if count >= 3:
        assert (kinds["worst"][0], kinds["best"][-1]) == (count - 1, 0)
        assert min(abs(value - (count - 1) / 2) for value in kinds["median"]) <= 1


def test_no_plot_without_hints():
    row = {"name": "m", "photos": 3, "psnr": 20.0, "intervals": {"psnr": (19.0, 21.0)}}
    assert report.plot_over_hints([row], [Method("m", model="m")], "psnr", "PSNR") is None
    more = row | {"name": "m, 3 hints"}
    both = [Method("m", model="m"), Method("m", model="m", hints=3)]
    assert (report.plot_over_hints([row, more], both, "psnr", "PSNR") or b"").startswith(b"\x89PNG")
    assert summary.prompt_spread([], both) == []
