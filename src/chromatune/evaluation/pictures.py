"""Pictures for the page: plots of scores, and the worst, median and best photos as strips of input, result and truth.

Results are not kept while they are scored; those few are made again, and are the same pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chromatune.errors import PhotoError
from chromatune.evaluation.hint_points import count_in
from chromatune.evaluation.methods import GRAY_ROW, HINTS_ALONE, RAW, Method, Record
from chromatune.evaluation.protocol import HELD_OUT, ChosenPhoto
from chromatune.evaluation.scores import Scorer
from chromatune.options import StartStage
from chromatune.reports import beside, data_uri, jpeg_of, new_figure, plain_label, png_of_figure

RANKED_BY = "ciede2000"
EXAMPLES = 3  # of each kind
KINDS = ("worst", "median", "best")

WIDTH_INCHES, ROW_INCHES = 7.0, 0.34
LEGEND_ROWS, LEGEND_INCHES = 16, 0.15  # names that fit inside the axes; what each takes below them


@dataclass(frozen=True)
class Example:
    """A photo of a row to be shown.

    Attributes:
        row: name of the row.
        kind: one of `KINDS`.
        key: the photo.
        value: its `RANKED_BY`.
        picture: data URI of the strip; empty until drawn.
    """

    row: str
    kind: str
    key: str
    value: float
    picture: str = ""


def choose_examples(records: Sequence[Record], methods: Sequence[Method]) -> list[Example]:
    """Worst, median and best held-out photos of each row but gray, by CIEDE2000; few photos are shown once each."""
    examples = []
    for row in (row for method in methods for row in method.rows if row != GRAY_ROW):
        scored = [r for r in records if r["row"] == row and r["subset"] == HELD_OUT and "failed" not in r]
        ranked = sorted(scored, key=lambda record: (-record[RANKED_BY], record["key"]))
        for kind, third in zip(KINDS, _thirds(len(ranked)), strict=True):
            examples += [Example(row, kind, ranked[i]["key"], ranked[i][RANKED_BY]) for i in third]
    return examples


def _thirds(count: int) -> list[list[int]]:
    """Indices of the first, the middle and the last `EXAMPLES` of a ranking; each once where there are few."""
    if count <= len(KINDS) * EXAMPLES:
        return [third.tolist() for third in np.array_split(np.arange(count), len(KINDS))]
    starts = (0, (count - EXAMPLES) // 2, count - EXAMPLES)
    return [list(range(start, start + EXAMPLES)) for start in starts]


def draw_examples(
    examples: Sequence[Example],
    methods: Sequence[Method],
    photos: Sequence[ChosenPhoto],
    scorer: Scorer,
    start_stage: StartStage,
) -> list[Example]:
    """The same examples with their pictures."""
    advance = start_stage("drawing pictures", len({(e.row, e.key) for e in examples}))
    strips: dict[tuple[str, str], str] = {}
    for method in methods:
        wanted = {(example.row, example.key) for example in examples if example.row in method.rows}
        keys = {key for _, key in wanted}
        shown = [photo for photo in photos if photo.subset == HELD_OUT and photo.key in keys]
        for results in scorer.run(method, shown):
            if isinstance(results.pictures, PhotoError):  # it could be scored, and its file has gone since
                continue
            target = results.target
            for row, picture in zip(method.rows, results.pictures, strict=True):
                if (row, target.photo.key) in wanted:
                    strip = beside([target.gray_rgb, picture, target.truth])
                    strips[row, target.photo.key] = data_uri(jpeg_of(strip), "jpeg")
                    advance()
    return [dataclasses.replace(each, picture=strips.get((each.row, each.key), "")) for each in examples]


def plot_trade_off(rows: Sequence[Mapping[str, Any]]) -> bytes | None:
    """PSNR against ΔCF, a point a row with its intervals: dull results have a good PSNR, and color decides.

    Args:
        rows: of the summary.

    Returns:
        A PNG; None where no row has a score.
    """
    shown = [row for row in rows if row["photos"]]
    if not shown:
        return None
    below = len(shown) > LEGEND_ROWS  # such as with many prompts: inside, the names would leave no room for the points
    figure = new_figure(WIDTH_INCHES, 4.6 + (LEGEND_INCHES * len(shown) if below else 0.0))
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    for row in shown:
        x, y = row["delta_cf_field"], row["psnr"]
        x_bars, y_bars = (_bars(row[key], row["intervals"][key]) for key in ("delta_cf_field", "psnr"))
        axes.errorbar([x], [y], xerr=x_bars, yerr=y_bars, fmt="o", capsize=2, label=plain_label(row["name"]))
    axes.set_xlabel("ΔCF (field): lower is nearer to the truth's colorfulness")
    axes.set_ylabel("PSNR, dB: higher is better")
    if below:
        figure.legend(fontsize=7, loc="outside lower center")
    else:
        axes.legend(fontsize=7, loc="best")
    return png_of_figure(figure)


def plot_distributions(records: Sequence[Record], methods: Sequence[Method], metric: str, title: str) -> bytes | None:
    """A box a row over the held-out photos, median, quartiles, 5 % and 95 %: a PNG; None where no row has a score."""
    values: dict[str, list[float]] = {row: [] for method in methods for row in method.rows}
    for record in records:
        if record["subset"] == HELD_OUT and record.get(metric) is not None:
            values[record["row"]].append(record[metric])
    shown = {row: found for row, found in values.items() if found}
    if not shown:
        return None
    figure = new_figure(WIDTH_INCHES, 1.2 + ROW_INCHES * len(shown))
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    positions = list(range(len(shown)))
    axes.boxplot(list(shown.values()), orientation="horizontal", positions=positions, whis=(5, 95), showfliers=False)
    axes.set_yticks(positions, [plain_label(row) for row in shown], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel(title)
    return png_of_figure(figure)


def plot_over_steps(
    rows: Sequence[Mapping[str, Any]], methods: Sequence[Method], metric: str, title: str
) -> bytes | None:
    """A curve a model and kind of row over its numbers of steps: a PNG; None where no model was run with several."""
    by_name = {row["name"]: row for row in rows}
    curves: dict[str, list[tuple[int, float]]] = {}
    for method in methods:
        for row in method.rows:
            if method.steps is not None and method.hints is None and by_name[row]["photos"]:
                label = " ".join(filter(None, (method.model, method.prompt, "raw" if row.endswith(RAW) else "")))
                curves.setdefault(label, []).append((method.steps, by_name[row][metric]))
    if not any(len(curve) > 1 for curve in curves.values()):
        return None
    figure = new_figure(WIDTH_INCHES, 3.6)
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    for label, curve in curves.items():
        axes.plot(*zip(*sorted(curve), strict=True), marker="o", label=plain_label(label))
    axes.set_xscale("log", base=2)
    axes.set_xlabel("steps")
    axes.set_ylabel(title)
    axes.legend(fontsize=7)
    return png_of_figure(figure)


def plot_over_hints(
    rows: Sequence[Mapping[str, Any]], methods: Sequence[Method], metric: str, title: str
) -> bytes | None:
    """A curve a model or tool over its numbers of hints, with intervals: a PNG; None where nothing was given hints."""
    by_name = {row["name"]: row for row in rows if row["photos"]}
    curves: dict[str, list[tuple[int, str]]] = {}
    for method in methods:
        if method.name in by_name:
            label = GRAY_ROW if method.name.startswith(HINTS_ALONE) else count_in(method.name)[0]
            curves.setdefault(label, []).append((method.hints or 0, method.name))
    curves = {label: sorted(curve) for label, curve in curves.items() if len(curve) > 1}
    if not curves:
        return None
    figure = new_figure(WIDTH_INCHES, 3.6)
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    for label, curve in curves.items():
        values = [by_name[name][metric] for _, name in curve]
        bars = [_bars(by_name[name][metric], by_name[name]["intervals"][metric]) for _, name in curve]
        below, above = ([bar[side][0] for bar in bars] for side in (0, 1))
        shown = f"{label}, and hints without a model" if label == GRAY_ROW else label
        counts = [count for count, _ in curve]
        axes.errorbar(counts, values, yerr=[below, above], marker="o", capsize=2, label=plain_label(shown))
    axes.set_xscale("symlog", linthresh=1)
    ticks = sorted({count for curve in curves.values() for count, _ in curve})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("hints: colors of the truth, an upper bound of what a person knows")
    axes.set_ylabel(title)
    axes.legend(fontsize=7)
    return png_of_figure(figure)


def _bars(value: float, ends: Sequence[float]) -> list[list[float]]:
    """Lengths below and above; a gap of means, which is never negative, may lie outside its own interval."""
    return [[max(0.0, value - ends[0])], [max(0.0, ends[1] - value)]]
