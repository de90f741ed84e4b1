"""Output of all commands: failures and progress on stderr, results and tables on stdout.

Text from files and users passes `plain`: no control character reaches a terminal raw. Progress is a bar on a terminal;
elsewhere nothing, or lines.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING

from chromatune.errors import count_of
from chromatune.images import CONTACT_SHEET

if TYPE_CHECKING:
    from rich.progress import Progress

    from chromatune.options import Advance, StartStage

LONGEST_MESSAGE = 1000  # characters; a user's text may be a megabyte
STEPS_A_LINE = 100
SECONDS_A_LINE = 30.0


def open_closed_streams() -> None:
    """Open the standard streams that the process was started without; what is printed there is lost.

    Else the next file that is opened takes a closed one's number, and what a library prints goes into that file.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for the process


def print_status(line: str) -> None:
    """Print a line on stderr, at once; where nobody takes it, the work goes on."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def plain(text: str) -> str:
    """Return the text on one line, with all but printable characters escaped as Python escapes them."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def complain(message: str, kind: str = "error") -> None:
    """Print one line on stderr, at once; `kind` is "error", "warning" or "note"."""
    line = plain(" ".join(message.split("\n")))
    print_status(f"{kind}: " + (line if len(line) <= LONGEST_MESSAGE else f"{line[:LONGEST_MESSAGE]}…"))


def note_own_results(count: int) -> None:
    """Print one line on results that lie among the photos of a source, if there are any."""
    if count:
        results = count_of(count, "result")
        complain(
            f"skipped {results} of earlier runs among the photos, called NAME.color.EXT or {CONTACT_SHEET}", "note"
        )


def print_line(text: object) -> None:
    """Print one line on stdout, at once: another program may be waiting for it."""
    print(plain(str(text)), flush=True)


def print_table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> None:
    """Print a table on a terminal; in a pipe one row a line, its cells separated by tabs and without the header."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(map(plain, row)))
        return

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=None, show_header=bool(header))
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))  # Text: a file's name may look like rich's markup
    Console().print(table)


def make_bar(*, note: bool = False, transient: bool = True) -> Progress:
    """Return a bar with description, count and time left; with `note`, the task's field of that name after them."""
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
    """Yield a `StartStage` that draws a bar for each stage, or nothing where stderr is no terminal."""
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
    """Start a stage that prints a line each hundred steps and after the last: a `StartStage` for a log."""
    steps = count(1)

    def advance() -> None:
        step = next(steps)
        if step % STEPS_A_LINE == 0 or step == length:
            print_status(f"{name} {step}/{length}")

    return advance


@contextmanager
def photo_rate(name: str, total: int, shown: bool = True) -> Iterator[Advance]:
    """Yield a callback for each finished photo: on a terminal a bar shows photos/s, elsewhere a line twice a minute."""
    start, done = time.monotonic(), 0
    if not shown or not total:
        yield lambda: None
        return
    if not sys.stderr.isatty():
        printed_at = start

        def advance_lines() -> None:
            nonlocal done, printed_at
            done += 1
            now = time.monotonic()
            if now - printed_at >= SECONDS_A_LINE:
                printed_at, rate = now, done / (now - start)
                left = format_duration((total - done) / rate)
                print_status(f"{name} {done}/{total}, {rate:.2f} photos/s, {left} left")

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


def format_duration(seconds: float) -> str:
    """Return a duration as text: "40 s", "12 min", "3 h 20 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
