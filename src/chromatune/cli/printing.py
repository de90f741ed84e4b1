"""Lines for people on a terminal and for programs in a pipe: failures on stderr, tables on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence


def complain(message: str) -> None:
    """One line on stderr, at once."""
    print("error:", " ".join(message.split("\n")), file=sys.stderr, flush=True)


def print_table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> None:
    """A table on a terminal; in a pipe one row a line, its cells separated by tabs and without the header."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=None, show_header=bool(header))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: a file's name may look like rich's markup
    Console().print(table)
