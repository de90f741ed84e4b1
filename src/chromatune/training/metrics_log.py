"""`metrics.jsonl`: what a run measured, one JSON object a line, written as it comes and read by step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chromatune.errors import DataError
from chromatune.files import atomic_write
from chromatune.training.checkpoints import writing

METRICS_FILE = "metrics.jsonl"
LARGEST = 2**53  # of a whole number: beyond it, curves could not be drawn

OnRow = Callable[[dict[str, Any]], None]


class MetricsLog:
    """Rows are appended as they come; those beyond the step that a run resumes at are dropped first."""

    def __init__(self, out: Path, step: int, on_row: OnRow) -> None:
        """Opens or makes the file.

        Args:
            out: folder of the run.
            step: rows of later steps are dropped; -1 drops all.
            on_row: called with each row once it is written.

        Raises:
            DataError: the file cannot be read, or the disk is full.
        """
        self.path, self.on_row = out / METRICS_FILE, on_row
        rows = read_metrics(self.path) if self.path.exists() else []
        kept = [json.dumps(row) + "\n" for row in rows if row["step"] <= step]
        with writing(self.path):
            atomic_write(self.path, "".join(kept).encode())

    def add(self, row: dict[str, Any]) -> None:
        """Appends one row, and reports it.

        Raises:
            DataError: the disk is full.
        """
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.on_row(row)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of `metrics.jsonl` by step, the last one of each step and kind.

    A killed run may leave half a line, which is left out, as all is that no run writes; a resumed one repeats the steps
    since its checkpoint.

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
        except (ValueError, RecursionError):
            continue
        if _is_row(row):
            known[row["step"], row["kind"]] = row
    return [known[key] for key in sorted(known)]


def _is_row(row: object) -> bool:
    """Whether a line is a run's: a step, a kind, and numbers alone (a measure that failed may be a NaN)."""
    if not isinstance(row, Mapping) or not isinstance(row.get("kind"), str):
        return False
    if not isinstance(row.get("step"), int) or row["step"] < 0:
        return False
    return all(name == "kind" or _is_number(value) for name, value in row.items())


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) <= LARGEST
