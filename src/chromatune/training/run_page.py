"""The page of a run, `report.html`: what came out of it in one sentence, pictures, curves, and the figures behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    render_page,
    require_pages,
)
from chromatune.training.card import flatten, format_value
from chromatune.training.curves import Panel, Row, draw_panels, sheet_of
from chromatune.training.grids import grid_path, read_grid
from chromatune.training.metrics_log import METRICS_FILE, read_metrics

PAGE_FILE = "report.html"
CURVES_FILE = "curves.png"
SQUARE_PX = (120, 240)  # of a photo among the samples: two lines of four fit side by side, or one of larger ones


class Measure(NamedTuple):
    """A measure that people decide by."""

    key: str
    name: str
    better: str  # "higher", "lower", or nothing


MEASURES = (
    Measure("psnr", "PSNR, dB", "higher"),
    Measure("psnr_gray", "PSNR of the gray input, dB", ""),
    Measure("ab_mse", "chroma error, CIELAB a and b", "lower"),
    Measure("delta_cf", "colorfulness error, ΔCF", "lower"),
    Measure("noise_loss", "noise loss, held-out photos", "lower"),
    Measure("train_noise_loss", "noise loss, training photos", ""),
)


class Milestones(NamedTuple):
    """The validations that the page compares; one may be two of them."""

    before: Row | None  # of the untouched model
    best: Row
    last: Row


def write_run_page(run_folder: Path, *, title: str, settings: Mapping[str, object], best_step: int | None) -> Path:
    """Path of the `report.html` it writes into the run's folder, beside `curves.png`.

    Args:
        run_folder: holds `metrics.jsonl`, a JSON object a line with "step" and "kind" ("train" or "validation") and
            any of the keys in `curves.PANELS`; and, if there are any, sample grids (see `grids`).
        title: heading of the page.
        settings: the run's settings, may be nested.
        best_step: step of the best checkpoint, marked in the curves; None if there is none.

    Raises:
        DataError: `metrics.jsonl` cannot be read, or the page cannot be written.
        MissingExtraError: what draws pages and plots is not installed.
    """
    require_pages("train")
    rows = read_metrics(run_folder / METRICS_FILE)
    panels = draw_panels(rows, best_step)
    page = render_page(_page_of(run_folder, rows, panels, title, settings, best_step))
    try:
        if panels:
            atomic_write(run_folder / CURVES_FILE, sheet_of([png for _, png in panels]))
        atomic_write(run_folder / PAGE_FILE, page.encode())
    except OSError as error:
        raise DataError(f"{run_folder}: the report cannot be written ({error.strerror}); check disk and path") from None
    return run_folder / PAGE_FILE


def lead_of(rows: Sequence[Row], best_step: int | None) -> str:
    """The one sentence to take away: what the best checkpoint reached, against the gray input and the start."""
    found = _milestones(rows, best_step)
    steps = max((int(row["step"]) for row in rows), default=0)
    if found is None:
        return f"{count_of(steps, 'update')}, and no validation yet."
    before, best, _ = found
    if {"psnr", "psnr_gray"} <= best.keys():
        said = f"PSNR {best['psnr']:.1f} dB at step {best['step']}, {_distance(best)} the gray input"
        return f"{said}; before fine-tuning {_distance(before)} it." if before and "psnr" in before else f"{said}."
    if "noise_loss" in best:
        said = f"Noise loss {best['noise_loss']:.4f} on held-out photos at step {best['step']}"
        return f"{said}; before fine-tuning {before['noise_loss']:.4f}." if before else f"{said}."
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


def _page_of(
    run_folder: Path,
    rows: Sequence[Row],
    panels: Sequence[tuple[Panel, bytes]],
    title: str,
    settings: Mapping[str, object],
    best_step: int | None,
) -> Page:
    found = _milestones(rows, best_step)
    main = [png for panel, png in panels if panel.main]
    more = [png for panel, png in panels if not panel.main]
    curves: list[Block] = [_pictures(main, "curves")] if main else [Text("No measurements yet.")]
    curves += [Folded("More curves", [_pictures(more, "curves")])] if more else []
    given = [(name, format_value(value)) for name, value in flatten(settings)]
    figures = _figures(found, best_step) if found else [Text("Not validated.")]
    return Page(
        title,
        lead_of(rows, best_step),
        [
            Section("Samples", _samples(run_folder, found)),
            Section("Curves", curves),
            Section("Figures", [*figures, Folded("All settings", [Table(("setting", "value"), given, prose=True)])]),
        ],
    )


def _figures(found: Milestones, best_step: int | None) -> list[Block]:
    """What people decide by, before, at the best step and at the last; all that was measured is folded."""
    columns: list[tuple[str, Row]] = [("before", found.before)] if found.before else []
    is_last = found.best is found.last
    if best_step is not None and not is_last:
        columns.append((f"best ({found.best['step']})", found.best))
    columns.append((f"{'best' if best_step is not None and is_last else 'last'} ({found.last['step']})", found.last))
    header = ("measure", *(name for name, _ in columns))
    shown: list[tuple[str, ...]] = []
    best = set()
    for measure in MEASURES:
        values = [row.get(measure.key) for _, row in columns]
        if any(value is not None for value in values):
            known = [value for value in values if value is not None]
            if measure.better and len(known) > 1:
                winner = max(known) if measure.better == "higher" else min(known)
                best.add((len(shown), 1 + values.index(winner)))
            shown.append((measure.name, *_cells(values)))
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
    """A line of squares for each of the first held-out photos: gray, before, best, truth."""
    rows = [row for row in (found.before, found.best) if row is not None] if found else []
    grids = [(row, read_grid(grid_path(run_folder, row["step"]), recomposed="psnr" in row)) for row in rows]
    results = [
        (row, grid, grid.raw if grid.recomposed is None else grid.recomposed) for row, grid in grids if grid is not None
    ]
    if not results:
        return [Text("No sample grids.")]
    _, first, _ = results[0]
    names = [
        "gray input",
        *("before fine-tuning" if row["step"] == 0 else f"step {row['step']}" for row, *_ in results),
    ]
    names.append("the photo's own colors")
    lines = [[first.gray[i], *(squares[i] for *_, squares in results), first.truth[i]] for i in range(len(first.gray))]
    pictures = [
        Picture(data_uri(jpeg_of(beside([_shown(square) for square in line])), "jpeg"), "", f"held-out photo {number}")
        for number, line in enumerate(lines, 1)
    ]
    order = Text(f"Photos held out from training; from the left: {', '.join(names)}. The folder grids has every step.")
    return [order, Pictures(pictures)]


def _shown(square: np.ndarray) -> np.ndarray:
    """The square, no larger than the page has room for."""
    side = square.shape[0]
    room = next((px for px in SQUARE_PX if side < 2 * px), SQUARE_PX[-1])
    return square if side <= room else cv2.resize(square, (room, room), interpolation=cv2.INTER_AREA)


def _pictures(pngs: Sequence[bytes], alt: str) -> Pictures:
    return Pictures([Picture(data_uri(png, "png"), "", alt) for png in pngs])
