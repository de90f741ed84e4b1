"""Progress on stderr, so that a pipe gets results alone: a bar on a terminal; elsewhere nothing, or lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

    from chromatune.files.progress import Advance, StartStage

STEPS_A_LINE = 100


def make_bar(*, note: bool = False, transient: bool = True) -> Progress:
    """Description, bar, count and time left; with `note`, the task's field of that name after them."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    if note:
        columns.append(TextColumn("{task.fields[note]}"))
    # rich sends what it redirects to its own console, stderr: right on a terminal, wrong in a pipe
    redirect = sys.stdout.isatty()
    return Progress(*columns, console=Console(stderr=True), redirect_stdout=redirect, transient=transient)


@contextmanager
def stages(shown: bool = True) -> Iterator[StartStage]:
    """What starts a bar for each stage; nothing is drawn where stderr is no terminal."""
    if not shown or not sys.stderr.isatty():
        from chromatune.files.progress import silent

        yield silent
        return

    from rich.markup import escape

    bar = make_bar()

    def start_stage(name: str, length: int) -> Advance:
        task = bar.add_task(escape(name), total=length)
        return lambda: bar.advance(task)

    with bar:
        yield start_stage


def line_stages(name: str, length: int) -> Advance:
    """A `StartStage` that prints a line each hundred steps and after the last: for a log."""
    steps = count(1)

    def advance() -> None:
        step = next(steps)
        if step % STEPS_A_LINE == 0 or step == length:
            print(f"{name} {step}/{length}", file=sys.stderr, flush=True)

    return advance
