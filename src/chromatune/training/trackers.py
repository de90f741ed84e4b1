"""What TensorBoard reads: a copy of the run's measurements, written by a thread of TensorBoard's own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from chromatune.training.checkpoints import writing

TENSORBOARD_FOLDER = "tensorboard"

Track = Callable[[Mapping[str, Any], int], None]  # values by name, step


@contextmanager
def tracking(accelerator: Accelerator, out: Path) -> Iterator[Track]:
    """Takes measurements while the block runs; where TensorBoard is not installed, nothing is written.

    Args:
        accelerator: of the run.
        out: folder of the run.

    Raises:
        DataError: the disk is full: TensorBoard's thread keeps its failure for the next call, and would print it too.
    """
    folder, usual, began = out / TENSORBOARD_FOLDER, threading.excepthook, False

    def report(failed: threading.ExceptHookArgs) -> None:
        if not type(failed.thread).__module__.startswith("tensorboard"):
            usual(failed)

    def track(values: Mapping[str, Any], step: int) -> None:
        nonlocal began
        with writing(folder):
            if not began:  # not before: a run that is refused writes nothing
                accelerator.init_trackers(TENSORBOARD_FOLDER)
                began = True
            accelerator.log(dict(values), step=step)

    threading.excepthook = report
    try:
        yield track
        with writing(folder):
            accelerator.end_training()
    finally:
        threading.excepthook = usual
