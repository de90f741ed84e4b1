"""Progress on stderr, so that a pipe gets results alone: a bar on a terminal; elsewhere nothing, or lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

    from chromatune.options import Advance, StartStage

STEPS_A_LINE = 100
SECONDS_A_LINE = 30.0


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
        from chromatune.options import silent

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


@contextmanager
def photo_rate(name: str, total: int, shown: bool = True) -> Iterator[Advance]:
    """What to call after each photo: on a terminal a bar with photos/s, elsewhere a line twice a minute."""
    start, done = time.monotonic(), 0
    if not shown or not total:
        yield lambda: None
        return
    if not sys.stderr.isatty():
        told_at = start

        def advance_lines() -> None:
            nonlocal done, told_at
            done += 1
            now = time.monotonic()
            if now - told_at >= SECONDS_A_LINE:
                told_at, rate = now, done / (now - start)
                left = spoken_time((total - done) / rate)
                print(f"{name} {done}/{total}, {rate:.2f} photos/s, {left} left", file=sys.stderr, flush=True)

        yield advance_lines
        return
    bar = make_bar(note=True)
    task = bar.add_task(name, total=total, note="")

    def advance_bar() -> None:
        nonlocal done
        done += 1
        bar.update(task, advance=1, note=f"{done / (time.monotonic() - start):.2f} photos/s")

    with bar:
        yield advance_bar


def spoken_time(seconds: float) -> str:
    """A duration for people: "40 s", "12 min", "3 h 20 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
