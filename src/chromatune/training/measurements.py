"""What a run measures, while it lasts: rows of `metrics.jsonl`, and trackers such as TensorBoard."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import TensorBoardTracker

from chromatune.errors import DataError, OptionsError
from chromatune.files import atomic_write, read_regular
from chromatune.training.checkpoints import disk_errors

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
TRACKERS = (TENSORBOARD_FOLDER, "wandb", "mlflow")  # names of packages too
PROJECT = "chromatune"  # of runs, in trackers that many runs share
LARGEST_METRICS_BYTES = 1 << 30  # a line a step
LARGEST = 2**53  # of a whole number: beyond it, curves could not be drawn
FORMER_NAMES = {"psnr_grey": "psnr_gray"}  # of measures, in the files of version 0.1

Row = Mapping[str, Any]  # of `metrics.jsonl`: "step", "kind" ("train" or "validation"), and measures
OnRow = Callable[[dict[str, Any]], None]
Track = Callable[[Mapping[str, Any], int], None]  # values by name, step


class MetricsLog:
    """The file of a run's rows, appended as they come; those after the step that a run resumes at are dropped first."""

    def __init__(self, out: Path, step: int, on_row: OnRow) -> None:
        """Open or make the file.

        Args:
            out: folder of the run.
            step: rows of later steps are dropped; -1 drops all.
            on_row: called with each row once it is written.

        Raises:
            DataError: the file cannot be read, or the disk is full.
        """
        self.path, self.on_row = out / METRICS_FILE, on_row
        rows = read_metrics(self.path) if self.path.exists() else []
        lines = [json.dumps(row) + "\n" for row in rows if row["step"] <= step]
        with disk_errors(self.path):
            atomic_write(self.path, "".join(lines).encode())

    def add(self, row: dict[str, Any]) -> None:
        """Append one row, and hand it to `on_row`.

        Raises:
            DataError: the disk is full.
        """
        with disk_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.on_row(row)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the rows of `metrics.jsonl` by step, the last one of each step and kind.

    Lines that no run writes are skipped, such as the half line that a killed run may leave; a resumed run repeats the
    steps since its checkpoint. Measures of version 0.1 get their present names.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        lines = read_regular(path, LARGEST_METRICS_BYTES).decode(errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{path}: the run's measurements cannot be read ({error.strerror})") from None
    known: dict[tuple[int, str], dict[str, Any]] = {}
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if _is_row(row):
            known[row["step"], row["kind"]] = {FORMER_NAMES.get(name, name): value for name, value in row.items()}
    return [known[key] for key in sorted(known)]


def _is_row(row: object) -> bool:
    """Return whether a line is a run's: a step, a kind, and numbers alone (a measure that failed may be a NaN)."""
    if not isinstance(row, dict) or not isinstance(row.get("kind"), str):
        return False
    numbers = [value for name, value in row.items() if name != "kind"]
    if not all(type(x) is float or (type(x) is int and abs(x) <= LARGEST) for x in numbers):
        return False
    return isinstance(row.get("step"), int) and row["step"] >= 0


def check_trackers(names: Sequence[str]) -> None:
    """Check that the packages of trackers are installed, before hours are spent.

    Raises:
        OptionsError: one is not known, or its package is missing.
    """
    for name in names:
        if name not in TRACKERS:
            raise OptionsError(f"--track {name}: accepted are {', '.join(TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise OptionsError(f"--track {name}: it is not installed; pip install {name}")


@contextmanager
def tracking(
    accelerator: Accelerator, out: Path, names: Sequence[str] | None = None, facts: Mapping[str, Any] | None = None
) -> Iterator[Track]:
    """Yield what hands measurements to trackers while the block runs.

    Args:
        accelerator: of the run.
        out: its folder, whose name the run has in trackers.
        names: of `TRACKERS`; by default TensorBoard where it is installed.
        facts: settings, for trackers that keep them.

    Raises:
        DataError: the disk is full: TensorBoard's thread keeps its failure for the next call, and would print it too.
    """
    folder, former_hook, began = out / TENSORBOARD_FOLDER, threading.excepthook, False
    if names is None:
        names = [TENSORBOARD_FOLDER] if importlib.util.find_spec("tensorboard") else []

    def report(failed: threading.ExceptHookArgs) -> None:
        if not type(failed.thread).__module__.startswith("tensorboard"):
            former_hook(failed)

    def track(values: Mapping[str, Any], step: int) -> None:
        nonlocal began
        with disk_errors(folder):
            if not began:  # not before: a run that is refused writes nothing
                _start_trackers(accelerator, out, names, facts or {})
                began = True
            accelerator.log(dict(values), step=step)

    threading.excepthook = report
    try:
        yield track
        with disk_errors(folder):
            accelerator.end_training()
    finally:
        threading.excepthook = former_hook


def _start_trackers(accelerator: Accelerator, out: Path, names: Sequence[str], facts: Mapping[str, Any]) -> None:
    """Start trackers by accelerate: TensorBoard in the run's folder, others as their own settings say."""
    files = TensorBoardTracker(TENSORBOARD_FOLDER, out) if TENSORBOARD_FOLDER in names else None
    others = [name for name in names if name != TENSORBOARD_FOLDER]
    accelerator.log_with = [*([files] if files is not None else []), *others]
    run_name = out.resolve().name
    arguments: dict[str, dict[str, Any]] = {
        "wandb": {"name": run_name, "dir": str(out)},
        "mlflow": {"run_name": run_name},
    }
    accelerator.init_trackers(PROJECT, init_kwargs={name: arguments[name] for name in others})
    for tracker in accelerator.trackers:
        if tracker is not files:
            tracker.store_init_configuration(dict(facts))
