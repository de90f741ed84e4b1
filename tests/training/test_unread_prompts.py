"""Which prompts a text encoder cuts off: a token a letter here."""

from __future__ import annotations

import pytest

from chromatune.pipeline.text import unread_part
from chromatune.training.unread_prompts import unread_warning


@pytest.fixture
def tokenizer(tiny_pipeline):
    from chromatune.pipeline import load_pipeline

    return load_pipeline(str(tiny_pipeline()), device="cpu").tokenizer


def test_of_many_prompts_those_that_are_cut_are_counted_once(tokenizer):
    """A token a letter: 75 fit, and as `unread_part` says, neither 74 nor 75 are too many."""
    fits, long = ["", "red", "a" * 74, "a" * 75, "é " * 30], ["b" * 70 + "\n\x1bcutoff", "a " * 400, "z" * 77]
    assert unread_warning(tokenizer, []) == unread_warning(tokenizer, fits) == ""
    assert [bool(unread_part(tokenizer, prompt)) for prompt in fits + long] == [False] * 5 + [True] * 3
    line = unread_warning(tokenizer, fits + long + long)
    assert line.startswith(f"3 of 8 prompts are longer than 77 tokens: one, {'b' * 30!r}…, is not read from ")
    assert line.isprintable() and len(line) < 200
    assert unread_warning(tokenizer, ["z" * 77]).startswith("the prompt is longer than 77")


def test_prompts_that_are_cut_are_counted_beyond_the_first_of_many(tokenizer, monkeypatch):
    monkeypatch.setattr("chromatune.training.unread_prompts.PROMPTS_AT_ONCE", 3)
    prompts = [f"{number} " + "a" * number for number in range(70, 80)]
    assert unread_warning(tokenizer, prompts).startswith("6 of 10 prompts")
