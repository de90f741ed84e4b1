"""docs/cli.md is what the commands say."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
document = runpy.run_path(str(DOCS / "site" / "command_line.py"))["document"]


def test_the_page_is_what_the_commands_say() -> None:
    written = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert written == document(), "make it again: python docs/site/command_line.py > docs/cli.md"


def test_every_row_has_a_meaning() -> None:
    rows = [line for line in document().splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert all(row.replace("\\|", "").split(" | ")[1].strip() for row in rows)
