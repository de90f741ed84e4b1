"""Bars on stderr, so that a pipe gets results alone; nothing is drawn where stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

Advance = Callable[[], None]  # called once a step


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
def stages(shown: bool = True) -> Iterator[Callable[[str, int], Advance]]:
    """What starts a bar for each stage, from its name and number of steps."""
    if not shown or not sys.stderr.isatty():
        yield lambda name, length: lambda: None
        return

    from rich.markup import escape

    bar = make_bar()

    def start_stage(name: str, length: int) -> Advance:
        task = bar.add_task(escape(name), total=length)
        return lambda: bar.advance(task)

    with bar:
        yield start_stage
