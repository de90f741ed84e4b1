"""A run's measurements ⇒ its curves, a picture for each measure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from chromatune.reports import new_figure, png_of, png_of_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_INCHES = (4.4, 3.0)  # two fit side by side on a page, in a fold too

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
    """Curves that share axes; left out where no row has the first of them, which is what the panel is about."""

    title: str
    unit: str
    curves: tuple[Curve, ...]
    log: bool = False
    zero_line: bool = False
    main: bool = False  # among those that people decide by


def _both(name: str, unit: str, key: str, *, main: bool = True) -> Panel:
    """One measure on held-out and on training photos."""
    train = Curve("training photos", "validation", f"train_{key}", style="--")
    return Panel(name, unit, (Curve("validation", "validation", key), train), main=main)


def _gap(name: str, unit: str, key: str) -> Panel:
    """Validation less training, which the paper leaves open."""
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
    _gap("Noise loss", "MSE", "noise_loss"),
    _gap("LAB error", "MSE, CIELAB", "lab_mse"),
    _gap("Chroma error", "MSE, CIELAB a and b", "ab_mse"),
    Panel("Learning rate", "lr", (Curve("lr", "train", "lr"),)),
    Panel(
        "Learnt loss weights",
        "weight",
        (Curve("noise", "train", "weight_noise"), Curve("LAB", "train", "weight_lab")),
    ),
)


def curve_points(rows: Iterable[Row], curve: Curve) -> Points:
    """Steps and values of a curve, where its keys are there and finite numbers."""
    steps, values = [], []
    for row in rows:
        numbers = [row.get(curve.key), row.get(curve.minus) if curve.minus else 0.0]
        if row["kind"] == curve.kind and all(isinstance(x, int | float) and math.isfinite(x) for x in numbers):
            steps.append(int(row["step"]))
            values.append(float(numbers[0]) - float(numbers[1]))  # type: ignore[arg-type]
    return steps, values


def draw_panels(rows: Sequence[Row], best_step: int | None) -> list[tuple[Panel, bytes]]:
    """The panels that there are values for, each with its PNG; all pictures have one size.

    Args:
        rows: of `metrics.jsonl`.
        best_step: step of the best checkpoint, marked in each; None if there is none.
    """
    drawn = []
    for panel in PANELS:
        lines = [(curve, curve_points(rows, curve)) for curve in panel.curves]
        if lines[0][1][0]:
            figure = new_figure(*PANEL_INCHES)
            _draw_panel(figure.subplots(), panel, [line for line in lines if line[1][0]], best_step)
            drawn.append((panel, png_of_figure(figure)))
    return drawn


def sheet_of(panels: Sequence[bytes]) -> bytes:
    """One PNG of several of one size, two in a row, on white."""
    decoded = [cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR) for png in panels]
    pictures = [bgr[..., ::-1] for bgr in decoded if bgr is not None]
    if len(pictures) % 2:
        pictures.append(np.full_like(pictures[0], 255))
    return png_of(np.vstack([np.hstack(pictures[first : first + 2]) for first in range(0, len(pictures), 2)]))


def _draw_panel(ax: Axes, panel: Panel, lines: Sequence[tuple[Curve, Points]], best_step: int | None) -> None:
    from matplotlib.ticker import MaxNLocator

    for curve, (steps, values) in lines:
        marker = "o" if curve.kind == "validation" else None  # few points, and a single one draws no line
        ax.plot(steps, values, curve.style, label=curve.label, marker=marker, markersize=3, linewidth=1.2)
    if panel.log and all(value > 0 for _, (_, values) in lines for value in values):
        ax.set_yscale("log")
    if panel.zero_line:
        ax.axhline(0, color="gray", linewidth=0.8)
    if best_step is not None:
        ax.axvline(best_step, color="gray", linewidth=0.8, linestyle=":", label="best")
    ax.set(title=panel.title, xlabel="step", ylabel=panel.unit)
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    ax.grid(alpha=0.3)
    ax.legend(fontsize="small")
