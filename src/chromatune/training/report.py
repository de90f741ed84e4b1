"""Curves of a run, and its page, `report.html`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from chromatune.errors import DataError, count_of
from chromatune.files import atomic_write
from chromatune.reports import (
    MISSING,
    Block,
    Folded,
    Page,
    Picture,
    Pictures,
    Section,
    Table,
    Text,
    beside,
    data_uri,
    jpeg_of,
    new_figure,
    png_of,
    png_of_figure,
    render_page,
    require_pages,
)
from chromatune.training.comparison import Comparison, compare
from chromatune.training.measurements import METRICS_FILE, Row, read_metrics
from chromatune.training.validation import grid_path, read_grid

PAGE_FILE = "report.html"
CURVES_FILE = "curves.png"
PANEL_INCHES = (4.4, 3.0)  # two fit side by side on a page, in a fold too
SQUARE_PX = (120, 240)  # of a photo among the samples: two lines of four fit side by side, or one of larger ones


# ---------------------------------------------------------------------------------------------------------------------
# Curves


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
    """Curves that share axes; not drawn where no row has the first of them, which is what the panel is about."""

    title: str
    unit: str
    curves: tuple[Curve, ...]
    log: bool = False
    zero_line: bool = False
    main: bool = False  # shown first; the others are folded


def _both(name: str, unit: str, key: str, *, main: bool = True) -> Panel:
    """Return the panel of a measure on held-out and on training photos."""
    train = Curve("training photos", "validation", f"train_{key}", style="--")
    return Panel(name, unit, (Curve("validation", "validation", key), train), main=main)


def _gap(name: str, unit: str, key: str) -> Panel:
    """Return the panel of validation less training, which the paper leaves open."""
    gap = Curve("validation - training", "validation", key, minus=f"train_{key}")
    return Panel(f"{name}: generalization gap", unit, (gap,), zero_line=True)


TRAIN_LOSSES = ("loss", "noise_loss", "lab_loss")
PANELS = (
    Panel(
        "PSNR",
        "dB",
        (
            Curve("model, recomposed", "validation", "psnr"),
            Curve("model, raw", "validation", "raw_psnr"),
            Curve("model, recomposed, no guidance", "validation", "unguided_psnr"),
            Curve("gray passthrough", "validation", "psnr_gray", style="--"),
        ),
        main=True,
    ),
    _both("Chroma error", "MSE, CIELAB a and b", "ab_mse"),
    _both("Noise loss", "MSE", "noise_loss"),
    Panel(
        "Training loss",
        "loss",
        tuple(Curve(key.replace("_", " "), "train", key) for key in TRAIN_LOSSES),
        log=True,
        main=True,
    ),
    Panel("Colorfulness error", "ΔCF", (Curve("ΔCF", "validation", "delta_cf"),)),
    _both("LAB error", "MSE, CIELAB", "lab_mse", main=False),
    Panel("LAB error of raw results", "MSE, CIELAB", (Curve("validation", "validation", "raw_lab_mse"),)),
    _gap("Noise loss", "MSE", "noise_loss"),
    _gap("LAB error", "MSE, CIELAB", "lab_mse"),
    _gap("Chroma error", "MSE, CIELAB a and b", "ab_mse"),
    Panel("Learning rate", "lr", (Curve("lr", "train", "lr"),)),
    Panel(
        "Learned loss weights",
        "weight",
        (Curve("noise", "train", "weight_noise"), Curve("LAB", "train", "weight_lab")),
        log=True,  # the inverses of two losses, that may be far apart
    ),
)


def curve_points(rows: Iterable[Row], curve: Curve) -> tuple[list[int], list[float]]:
    """Return steps and values of a curve, where its keys are there and finite numbers."""
    steps, values = [], []
    for row in rows:
        numbers = [row.get(curve.key), row.get(curve.minus) if curve.minus else 0.0]
        if row["kind"] == curve.kind and all(isinstance(x, int | float) and math.isfinite(x) for x in numbers):
            steps.append(int(row["step"]))
            values.append(float(numbers[0]) - float(numbers[1]))  # type: ignore[arg-type]
    return steps, values


def draw_panels(rows: Sequence[Row], best_step: int | None) -> list[tuple[Panel, bytes]]:
    """Draw the panels that there are values for, each with its PNG; all pictures have one size.

    Args:
        rows: of `metrics.jsonl`.
        best_step: step of the best checkpoint, marked in each; None if there is none.
    """
    from matplotlib.ticker import MaxNLocator

    drawn = []
    for panel in PANELS:
        lines = [(curve, *curve_points(rows, curve)) for curve in panel.curves]
        if not lines[0][1]:
            continue
        lines = [line for line in lines if line[1]]
        figure = new_figure(*PANEL_INCHES)
        ax = figure.subplots()
        for curve, steps, values in lines:
            marker = "o" if curve.kind == "validation" else None  # few points, and a single one draws no line
            ax.plot(steps, values, curve.style, label=curve.label, marker=marker, markersize=3, linewidth=1.2)
        if panel.log and all(value > 0 for *_, values in lines for value in values):
            ax.set_yscale("log")
        if panel.zero_line:
            ax.axhline(0, color="gray", linewidth=0.8)
        if best_step is not None:
            ax.axvline(best_step, color="gray", linewidth=0.8, linestyle=":", label="best")
        ax.set(title=panel.title, xlabel="step", ylabel=panel.unit)
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
        ax.grid(alpha=0.3)
        ax.legend(fontsize="small")
        drawn.append((panel, png_of_figure(figure)))
    return drawn


def sheet_of(panels: Sequence[bytes]) -> bytes:
    """Join PNGs of one size to one, two in a row, on white."""
    decoded = [cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR) for png in panels]
    pictures = [bgr[..., ::-1] for bgr in decoded if bgr is not None]
    if len(pictures) % 2:
        pictures.append(np.full_like(pictures[0], 255))
    return png_of(np.vstack([np.hstack(pictures[first : first + 2]) for first in range(0, len(pictures), 2)]))


# ---------------------------------------------------------------------------------------------------------------------
# The page


MEASURES = (  # of the page's table: key, name, which values are better ("higher", "lower", or nothing)
    ("psnr", "PSNR, dB", "higher"),
    ("psnr_gray", "PSNR of the gray input, dB", ""),
    ("ab_mse", "chroma error, CIELAB a and b", "lower"),
    ("delta_cf", "colorfulness error, ΔCF", "lower"),
    ("raw_psnr", "PSNR of the raw result, dB", "higher"),
    ("raw_lab_mse", "LAB error of the raw result", "lower"),
    ("unguided_psnr", "PSNR with guidance 1 and 1, dB", "higher"),
    ("unguided_ab_mse", "chroma error with guidance 1 and 1", "lower"),
    ("unguided_delta_cf", "colorfulness error with guidance 1 and 1", "lower"),
    ("noise_loss", "noise loss, held-out photos", "lower"),
    ("train_noise_loss", "noise loss, training photos", ""),
)


class Milestones(NamedTuple):
    """The validations that the page compares; one may be two of them."""

    before: Row | None  # of the untouched model
    best: Row
    last: Row


def write_run_page(
    run_folder: Path, *, title: str, settings: Mapping[str, object], best_step: int | None, name: str = "the result",
) -> Path:  # fmt: skip
    """Write `report.html` and `curves.png` into the run's folder; return the path of the first.

    Args:
        run_folder: holds `metrics.jsonl`, a JSON object a line with "step" and "kind" ("train" or "validation") and
            any of the keys in `PANELS`; and, if there are any, sample grids (see `validation.write_grid`).
        title: heading of the page.
        settings: the run's settings, may be nested.
        best_step: step of the best checkpoint, marked in the curves; None if there is none.
        name: of the run, for the first sentence.

    Raises:
        DataError: `metrics.jsonl` cannot be read, or the page cannot be written.
        MissingExtraError: what draws pages and plots is not installed.
    """
    require_pages("train")
    rows = read_metrics(run_folder / METRICS_FILE)
    panels = draw_panels(rows, best_step)
    found = _milestones(rows, best_step)
    main = [png for panel, png in panels if panel.main]
    more = [png for panel, png in panels if not panel.main]
    curves: list[Block] = [_pictures(main, "curves")] if main else [Text("No measurements yet.")]
    curves += [Folded("More curves", [_pictures(more, "curves")])] if more else []
    figures: list[Block] = _figures(found, best_step) if found else [Text("Not validated.")]
    given = [(name, format_value(value)) for name, value in flatten(settings)]
    figures.append(Folded("All settings", [Table(("setting", "value"), given, prose=True)]))
    sections = [
        Section("Samples", _samples(run_folder, found)),
        Section("Curves", curves),
        Section("Figures", figures),
    ]
    compared = compare(run_folder, best_step) if best_step is not None else None
    lead = lead_of(rows, best_step)
    if compared is not None:
        sections.insert(0, Section(f"Compared with {compared.untouched}", _compared(compared, lead)))
        lead = compared.sentence(name)
    page = render_page(Page(title, lead, sections))
    try:
        if panels:
            atomic_write(run_folder / CURVES_FILE, sheet_of([png for _, png in panels]))
        atomic_write(run_folder / PAGE_FILE, page.encode())
    except OSError as error:
        raise DataError(f"{run_folder}: the report cannot be written ({error.strerror}); check disk and path") from None
    return run_folder / PAGE_FILE


def _compared(compared: Comparison, more: str) -> list[Block]:
    """Return what the first sentence means, what to do where it is bad news, and what the run gained by itself."""
    meaning = (
        "PSNR of the results with the photos' own luminance, both models as they are, without “vivid”. The run chose "
        "its best step by the same photos, which flatters it a little."
    )
    blocks: list[Block] = [Text(meaning)]
    if compared.verdict == "worse":
        blocks.append(Text(compared.advice, strong=True))
    return [*blocks, Text(more)]


def lead_of(rows: Sequence[Row], best_step: int | None) -> str:
    """Return the page's first sentence: what the best checkpoint reached, against the gray input and the start."""
    found = _milestones(rows, best_step)
    steps = max((int(row["step"]) for row in rows), default=0)
    if found is None:
        return f"{count_of(steps, 'update')}, and no validation yet."
    before, best, _ = found
    if {"psnr", "psnr_gray"} <= best.keys():
        text = f"PSNR {best['psnr']:.1f} dB at step {best['step']}, {_distance(best)} the gray input"
        return f"{text}; before fine-tuning {_distance(before)} it." if before and "psnr" in before else f"{text}."
    if "noise_loss" in best:
        text = f"Noise loss {best['noise_loss']:.4f} on held-out photos at step {best['step']}"
        return f"{text}; before fine-tuning {before['noise_loss']:.4f}." if before else f"{text}."
    return f"{count_of(steps, 'update')}; neither losses nor PSNR were measured."


def _distance(row: Row) -> str:
    gain = round(row["psnr"] - row["psnr_gray"], 1)
    return "level with" if gain == 0 else f"{abs(gain):.1f} dB {'above' if gain > 0 else 'below'}"


def _milestones(rows: Sequence[Row], best_step: int | None) -> Milestones | None:
    validated = {int(row["step"]): row for row in rows if row["kind"] == "validation"}
    if not validated:
        return None
    last = validated[max(validated)]
    before = validated[0] if 0 in validated and len(validated) > 1 else None
    return Milestones(before, last if best_step is None else validated.get(best_step, last), last)


def _figures(found: Milestones, best_step: int | None) -> list[Block]:
    """Return tables of `MEASURES` before, at the best step and at the last; all that was measured is folded."""
    columns: list[tuple[str, Row]] = [("before", found.before)] if found.before else []
    is_last = found.best is found.last
    if best_step is not None and not is_last:
        columns.append((f"best ({found.best['step']})", found.best))
    columns.append((f"{'best' if best_step is not None and is_last else 'last'} ({found.last['step']})", found.last))
    header = ("measure", *(name for name, _ in columns))
    shown: list[tuple[str, ...]] = []
    best = set()
    for key, name, better in MEASURES:
        values = [row.get(key) for _, row in columns]
        if any(value is not None for value in values):
            known = [value for value in values if value is not None]
            if better and len(known) > 1:
                winner = max(known) if better == "higher" else min(known)
                best.add((len(shown), 1 + values.index(winner)))
            shown.append((name, *_cells(values)))
    keys = dict.fromkeys(key for _, row in columns for key in row if key not in ("step", "kind"))
    everything = [(key, *_cells([row.get(key) for _, row in columns])) for key in keys]
    return [
        Text("Means over photos held out from training; steps in brackets. The model that was saved is the best one."),
        Table(header, shown, best=frozenset(best)),
        Folded("Everything measured", [Table(header, everything)]),
    ]


def _cells(values: Sequence[Any]) -> list[str]:
    return [MISSING if value is None else format_value(value) for value in values]


def _samples(run_folder: Path, found: Milestones | None) -> list[Block]:
    """Return a line of squares for each of the first held-out photos: gray, before, best, truth."""
    rows = [row for row in (found.before, found.best) if row is not None] if found else []
    read = [(row["step"], read_grid(grid_path(run_folder, row["step"]), recomposed="psnr" in row)) for row in rows]
    grids = [(step, grid) for step, grid in read if grid is not None]
    if not grids:
        return [Text("No sample grids.")]
    steps = ["before fine-tuning" if step == 0 else f"step {step}" for step, _ in grids]
    names = ["gray input", *steps, "the photo's own colors"]
    columns = [grids[0][1][0], *(grid[-2] for _, grid in grids), grids[0][1][-1]]
    lines = zip(*columns, strict=False)
    pictures = [
        Picture(data_uri(jpeg_of(beside([_shown(square) for square in line])), "jpeg"), "", f"held-out photo {number}")
        for number, line in enumerate(lines, 1)
    ]
    order = Text(f"Photos held out from training; from the left: {', '.join(names)}. The folder grids has every step.")
    return [order, Pictures(pictures)]


def _shown(square: np.ndarray) -> np.ndarray:
    """Return the square, no larger than the page has room for."""
    side = square.shape[0]
    room = next((px for px in SQUARE_PX if side < 2 * px), SQUARE_PX[-1])
    return square if side <= room else cv2.resize(square, (room, room), interpolation=cv2.INTER_AREA)


def _pictures(pngs: Sequence[bytes], alt: str) -> Pictures:
    return Pictures([Picture(data_uri(png, "png"), "", alt) for png in pngs])


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return rows of a possibly nested mapping, with dotted names: `{"data": {"seed": 1}}` gives `("data.seed", 1)`."""
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        rows += flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return rows


def format_value(value: object) -> str:
    """Format a setting or figure: at most 5 significant digits, lists with commas, `none` for None."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(format_value(item) for item in value)
    return str(value)
