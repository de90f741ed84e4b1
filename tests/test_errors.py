"""Words of messages, and that no message counts "1 photos"."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chromatune.errors import count_of

SOURCES = sorted((Path(__file__).parents[1] / "src" / "chromatune").rglob("*.py"))
COUNTED = (
    "arm|claim|file|key|metric|page|people|person|photo|prompt|result|row|run|seed|setting|step|test|update|variant"
)
# Any number, before the plural of what it counts
FIXED = re.compile(rf"\{{[^{{}}]*\}} (?:more |such |training )?(?:{COUNTED})s?\b(?!/s| of| for)")
NEVER_ONE = (
    "of {len(distinct)} prompts are",
    "{spread['prompts']} prompts",
    "{photos} photos are called",
    "{len(found)} files called",
    "{count} photos need",
    "(the best of its {settings} settings)",
    "{head.num_rows} rows; accepted: at most",
    "of {len(rows)} rows",
    "at most {budget.train_photos} photos",
)


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (0, ("photo",), "0 photos"),
        (1, ("photo",), "1 photo"),
        (2, ("photo",), "2 photos"),
        (1, ("person", "people"), "1 person"),
        (3, ("person", "people"), "3 people"),
        (1, ("result has", "results have"), "1 result has"),
    ],
)
def test_a_count_agrees_with_what_it_counts(number: int, words: tuple[str, ...], said: str) -> None:
    assert count_of(number, *words) == said


def test_no_message_has_a_plural_after_any_number() -> None:
    """`count_of` says it; where the number is never one, `NEVER_ONE` says so."""
    lines = [f"{path.name}: {line.strip()}" for path in SOURCES for line in path.read_text("utf-8").splitlines()]
    found = [line for line in lines if 'f"' in line and FIXED.search(line)]
    assert [line for line in found if not any(words in line for words in NEVER_ONE)] == []
