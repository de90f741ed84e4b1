"""Markdown tables."""

from __future__ import annotations

from chromatune.reports import markdown_table


def test_cells_keep_their_bars_and_their_line():
    lines = markdown_table([["", "x"], ["a|b\nc", "1"]]).splitlines()
    assert lines == ["|  | x |", "| --- | ---: |", "| a\\|b c | 1 |"]
