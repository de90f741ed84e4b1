"""The report of a run: curves, sample grids and settings, as one page that needs nothing beside it."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chromatune.errors import DataError, MissingExtraError
from chromatune.files import write_whole
from chromatune.training.card import flatten, format_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRICS_FILE = "metrics.jsonl"
REPORT_FILE = "report.html"
CURVES_FILE = "curves.png"

Row = Mapping[str, Any]
Points = tuple[list[int], list[float]]  # steps, values


@dataclass(frozen=True)
class Curve:
    """One line of a panel: `key` of the rows of `kind`; with `minus`, its distance above that key."""

    label: str
    kind: str
    key: str
    minus: str | None = None
    style: str = "-"


@dataclass(frozen=True)
class Panel:
    """Curves that share axes; left out where no row has any of them."""

    title: str
    unit: str
    curves: tuple[Curve, ...]
    log: bool = False
    zero_line: bool = False


def _against_training(name: str, unit: str, key: str) -> tuple[Panel, Panel]:
    """Validation and training of one measure, and the gap between them, which the paper leaves open."""
    train = f"train_{key}"
    both = (Curve("validation", "validation", key), Curve("training photos", "validation", train, style="--"))
    gap = (Curve("validation - training", "validation", key, minus=train),)
    return Panel(name, unit, both), Panel(f"{name}: generalisation gap", unit, gap, zero_line=True)


TRAIN_LOSSES = ("loss", "noise_loss", "lab_loss")
PANELS = (
    Panel("Training loss", "loss", tuple(Curve(key.replace("_", " "), "train", key) for key in TRAIN_LOSSES), log=True),
    Panel("Learning rate", "lr", (Curve("lr", "train", "lr"),)),
    *_against_training("Noise loss", "MSE", "noise_loss"),
    *_against_training("LAB error", "MSE, CIELAB", "lab_mse"),
    *_against_training("Chroma error", "MSE, CIELAB a and b", "ab_mse"),
    Panel(
        "PSNR",
        "dB",
        (
            Curve("model, recomposed", "validation", "psnr"),
            Curve("model, raw", "validation", "raw_psnr"),
            Curve("grey passthrough", "validation", "psnr_grey", style="--"),
        ),
    ),
    Panel("Colourfulness error", "ΔCF", (Curve("ΔCF", "validation", "delta_cf"),)),
    Panel(
        "Learnt loss weights",
        "weight",
        (Curve("noise", "train", "weight_noise"), Curve("LAB", "train", "weight_lab")),
    ),
)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
img {{ max-width: 100% }} figure {{ margin: 1rem 0 }}
table {{ border-collapse: collapse }} td, th {{ border: 1px solid #ccc; padding: .15rem .6rem; text-align: left }}
</style></head><body>
<h1>{title}</h1>
<p>{summary}</p>
<h2>Validation</h2>{validation}
<h2>Curves</h2>{curves}
<h2>Samples</h2>{samples}
<h2>Settings</h2>{settings}
</body></html>
"""


def write_report(run_folder: Path, *, title: str, settings: Mapping[str, object], best_step: int | None) -> Path:
    """Path of the `report.html` it writes into the run's folder, beside `curves.png`.

    Args:
        run_folder: holds `metrics.jsonl`, a JSON object a line with "step" and "kind" ("train" or "validation") and
            any of the keys in `PANELS`; and, if there are any, sample grids `grids/step-000100.png`.
        title: heading of the page.
        settings: the run's settings, may be nested.
        best_step: step of the best checkpoint, marked in the curves; None if there is none.

    Raises:
        DataError: `metrics.jsonl` cannot be read, or the report cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    rows = read_metrics(run_folder / METRICS_FILE)
    curves = draw_curves(rows, best_step)
    validation = [row for row in rows if row["kind"] == "validation"]
    page = PAGE.format(
        title=escape(title),
        summary=escape(_summary(rows, best_step)),
        validation=_validation_table(validation, best_step),
        curves=_image(curves, "Curves of the run") if curves else "<p>No measurements yet.</p>",
        samples=_samples(run_folder / "grids", best_step),
        settings=_table(("setting", "value"), flatten(settings)),
    )
    try:
        if curves:
            write_whole(run_folder / CURVES_FILE, curves)
        write_whole(run_folder / REPORT_FILE, page.encode())
    except OSError as error:
        raise DataError(f"{run_folder}: the report cannot be written ({error.strerror}); check disk and path") from None
    return run_folder / REPORT_FILE


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of `metrics.jsonl` by step, the last one of each step and kind.

    A killed run may leave half a line, which is left out; a resumed one repeats the steps since its checkpoint.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{path}: the run's measurements cannot be read ({error.strerror})") from None
    known: dict[tuple[int, str], dict[str, Any]] = {}
    for line in lines:
        try:
            row = json.loads(line)
            known[int(row["step"]), str(row["kind"])] = row
        except (ValueError, TypeError, KeyError):
            continue
    return [known[key] for key in sorted(known)]


def curve_points(rows: Iterable[Row], curve: Curve) -> Points:
    """Steps and values of a curve, where its keys are there and finite numbers."""
    steps, values = [], []
    for row in rows:
        parts = [row.get(curve.key), row.get(curve.minus) if curve.minus else 0.0]
        if row["kind"] == curve.kind and all(isinstance(p, int | float) and math.isfinite(p) for p in parts):
            steps.append(int(row["step"]))
            values.append(float(parts[0]) - float(parts[1]))  # type: ignore[arg-type]
    return steps, values


def draw_curves(rows: Sequence[Row], best_step: int | None) -> bytes:
    """A PNG with the panels that there are values for; empty if there are none.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("the report", "train") from None
    filled: list[tuple[Panel, list[tuple[Curve, Points]]]] = []
    for panel in PANELS:
        lines = [(curve, points) for curve in panel.curves if (points := curve_points(rows, curve))[0]]
        # A grey passthrough alone says nothing: the first curve is what the panel is about.
        if any(curve is panel.curves[0] for curve, _ in lines):
            filled.append((panel, lines))
    if not filled:
        return b""
    columns = 2
    high = math.ceil(len(filled) / columns)
    figure = Figure(figsize=(12, 3.2 * high), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(high, columns, squeeze=False).flat)
    for ax, (panel, lines) in zip(axes, filled, strict=False):
        _draw_panel(ax, panel, lines, best_step)
    for ax in axes[len(filled) :]:
        ax.set_axis_off()
    png = BytesIO()
    figure.savefig(png, format="png", dpi=100)
    return png.getvalue()


def _draw_panel(ax: Axes, panel: Panel, lines: Sequence[tuple[Curve, Points]], best_step: int | None) -> None:
    for curve, (steps, values) in lines:
        marker = "o" if curve.kind == "validation" else None  # few points, and a single one draws no line
        ax.plot(steps, values, curve.style, label=curve.label, marker=marker, markersize=3, linewidth=1.2)
    if panel.log and all(value > 0 for _, (_, values) in lines for value in values):
        ax.set_yscale("log")
    if panel.zero_line:
        ax.axhline(0, color="grey", linewidth=0.8)
    if best_step is not None:
        ax.axvline(best_step, color="grey", linewidth=0.8, linestyle=":", label="best")
    ax.set(title=panel.title, xlabel="step", ylabel=panel.unit)
    ax.grid(alpha=0.3)
    ax.legend(fontsize="small")


def _summary(rows: Sequence[Row], best_step: int | None) -> str:
    last = max((int(row["step"]) for row in rows), default=0)
    best = "no best checkpoint" if best_step is None else f"best checkpoint at step {best_step}"
    return f"{last} steps; {best}."


def _validation_table(rows: Sequence[Row], best_step: int | None) -> str:
    """First, best and last validation side by side."""
    chosen = _chosen({int(row["step"]): row for row in rows}, best_step)
    if not chosen:
        return "<p>Not validated.</p>"
    keys = dict.fromkeys(key for _, row in chosen for key in row if key not in ("step", "kind"))
    body = [(key, *(row.get(key, "") for _, row in chosen)) for key in keys]
    return _table(("metric", *(label for label, _ in chosen)), body)


def _samples(folder: Path, best_step: int | None) -> str:
    files: dict[int, Path] = {}
    for file in sorted(folder.glob("step-*.png")):
        digits = file.stem.removeprefix("step-")
        if digits.isdigit():
            files[int(digits)] = file
    shown = [f"<h3>{label}</h3>{_image(file.read_bytes(), label)}" for label, file in _chosen(files, best_step)]
    return "".join(shown) or "<p>No sample grids.</p>"


def _chosen(by_step: Mapping[int, Any], best_step: int | None) -> list[tuple[str, Any]]:
    """First, best and last with their labels; one that is two of them comes once."""
    if not by_step:
        return []
    roles: dict[int, list[str]] = {min(by_step): ["first"]}
    if best_step in by_step:
        roles.setdefault(best_step, []).append("best")  # type: ignore[arg-type]
    roles.setdefault(max(by_step), []).append("last")
    return [(f"{' and '.join(names)}: step {step}", by_step[step]) for step, names in roles.items()]


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{escape(format_value(cell))}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _image(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}"></figure>'
