"""Cells ⇒ a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence

MISSING = "–"  # stands where a row has no value


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells, the header first; the first column is aligned left, the others right."""
    header, *body = (["\\|".join(" ".join(cell.split()).split("|")) for cell in line] for line in lines)
    written = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    written += ["| " + " | ".join(line) + " |" for line in body]
    return "\n".join(written) + "\n"
