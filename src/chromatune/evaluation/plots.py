"""The report's plots, each as the bytes of a PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chromatune.evaluation.protocol import HELD_OUT
from chromatune.evaluation.rows import RAW, Method, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
ROW_INCHES = 0.34
LONGEST_NAME = 56  # characters: half the figure's width
LEGEND_ROWS, LEGEND_INCHES = 16, 0.15  # names that fit inside the axes; what each takes below them


def trade_off(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """PSNR against ΔCF, a point a row with its intervals: dull results have a good PSNR, and colour decides."""
    shown = [row for row in rows if row["photos"]]
    below = len(shown) > LEGEND_ROWS  # such as with many prompts: inside, the names would leave no room for the points
    figure, axes = _figure(7.0, 4.6 + (LEGEND_INCHES * len(shown) if below else 0.0))
    for row in shown:
        x, y = row["delta_cf_field"], row["psnr"]
        x_bars, y_bars = (_bars(row[key], row["intervals"][key]) for key in ("delta_cf_field", "psnr"))
        axes.errorbar([x], [y], xerr=x_bars, yerr=y_bars, fmt="o", capsize=2, label=_plain(row["name"]))
    axes.set_xlabel("ΔCF (field): lower is nearer to the truth's colourfulness")
    axes.set_ylabel("PSNR, dB: higher is better")
    if below:
        figure.legend(fontsize=7, loc="outside lower center")
    else:
        axes.legend(fontsize=7, loc="best")
    return _png(figure)


def distributions(records: Sequence[Record], methods: Sequence[Method], metric: str, title: str) -> bytes:
    """A box a row over the held-out photos: median, quartiles, 5 % and 95 %."""
    values: dict[str, list[float]] = {row: [] for method in methods for row in method.rows}
    for record in records:
        if record["part"] == HELD_OUT and record.get(metric) is not None:
            values[record["row"]].append(record[metric])
    shown = {row: found for row, found in values.items() if found}
    figure, axes = _figure(7.0, 1.2 + ROW_INCHES * len(shown))
    positions = list(range(len(shown)))
    axes.boxplot(list(shown.values()), orientation="horizontal", positions=positions, whis=(5, 95), showfliers=False)
    axes.set_yticks(positions, [_plain(row) for row in shown], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel(title)
    return _png(figure)


def over_steps(rows: Sequence[Mapping[str, Any]], methods: Sequence[Method], metric: str, title: str) -> bytes | None:
    """A curve a model and kind of row over its numbers of steps; None where no model was run with several."""
    by_name = {row["name"]: row for row in rows}
    curves: dict[str, list[tuple[int, float]]] = {}
    for method in methods:
        for row in method.rows:
            if method.steps is not None and by_name[row]["photos"]:
                label = " ".join(filter(None, (method.model, method.prompt, "raw" if row.endswith(RAW) else "")))
                curves.setdefault(label, []).append((method.steps, by_name[row][metric]))
    if not any(len(curve) > 1 for curve in curves.values()):
        return None
    figure, axes = _figure(7.0, 3.6)
    for label, curve in curves.items():
        axes.plot(*zip(*sorted(curve), strict=True), marker="o", label=_plain(label))
    axes.set_xscale("log", base=2)
    axes.set_xlabel("steps")
    axes.set_ylabel(title)
    axes.legend(fontsize=7)
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")  # not pyplot: no state, no display
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    return figure, axes


def _bars(value: float, ends: Sequence[float]) -> list[list[float]]:
    """Lengths below and above; a gap of means, which is never negative, may lie outside its own interval."""
    return [[max(0.0, value - ends[0])], [max(0.0, ends[1] - value)]]


def _plain(name: str) -> str:
    """The name as text: matplotlib would read dollar signs as formulas; a long one loses its middle."""
    if len(name) > LONGEST_NAME:
        half = LONGEST_NAME // 2
        name = f"{name[: half - 1]} … {name[-half + 2 :]}"
    return name.replace("$", r"\$")


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})  # so that equal plots are equal bytes
    return file.getvalue()
