"""docs/cli.md is what the commands say."""

from __future__ import annotations

from pathlib import Path

from chromatune.cli.document import document

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_page_is_what_the_commands_say() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == document(), "make it again: python -m chromatune.cli.document > docs/cli.md"


def test_every_row_has_a_meaning() -> None:
    rows = [line for line in document().splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert all(row.replace("\\|", "").split(" | ")[1].strip() for row in rows)
