"""Lines for people on a terminal and for programs in a pipe: failures on stderr, tables on stdout.

Whatever a file or a user said passes `plain` on its way to a terminal: no control character gets there raw.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from chromatune.errors import count_of
from chromatune.images import CONTACT_SHEET

LONGEST_MESSAGE = 1000  # characters; what a user gave may be a megabyte


def plain(text: str) -> str:
    """The text on one line, with what is no printable character escaped as Python escapes it."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def complain(message: str, kind: str = "error") -> None:
    """One line on stderr, at once; `kind` is "error", "warning" or "note"."""
    line = plain(" ".join(message.split("\n")))
    print(
        f"{kind}:", line if len(line) <= LONGEST_MESSAGE else f"{line[:LONGEST_MESSAGE]}…", file=sys.stderr, flush=True
    )


def note_own_results(count: int) -> None:
    """One line on results that lie among the photos of a source, where there are any."""
    if count:
        said = count_of(count, "result")
        complain(f"left out {said} of earlier runs among the photos, called NAME.color.EXT or {CONTACT_SHEET}", "note")


def print_line(text: object) -> None:
    """One line on stdout, at once: another program may be waiting for it."""
    print(plain(str(text)), flush=True)


def print_table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> None:
    """A table on a terminal; in a pipe one row a line, its cells separated by tabs and without the header."""
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
