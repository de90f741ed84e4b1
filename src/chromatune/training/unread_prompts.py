"""Prompts to train with that are longer than the text encoder reads: said in one line, before the work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from chromatune.pipeline import unread_part

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

LONGEST_SHOWN = 30  # characters of a prompt
PROMPTS_AT_ONCE = 10_000  # of many, so that their tokens are not all in memory


def unread_warning(tokenizer: CLIPTokenizer, prompts: Iterable[str]) -> str:
    """One line that says how many of many prompts are cut off, and of one of them where; "" if all of them are read.

    Each prompt is cut into tokens once, and no further than tells whether it is too long: a million take a minute.

    Args:
        tokenizer: of the text encoder that is to read them.
        prompts: those of a file or a data set; one that comes again counts once.
    """
    distinct = list(dict.fromkeys(prompts))
    most = tokenizer.model_max_length
    cut: list[str] = []
    for start in range(0, len(distinct), PROMPTS_AT_ONCE):
        some = distinct[start : start + PROMPTS_AT_ONCE]
        ids = tokenizer(some, truncation=True, max_length=most + 1, return_attention_mask=False).input_ids
        cut += [prompt for prompt, of_prompt in zip(some, ids, strict=True) if len(of_prompt) > most]
    if not cut:
        return ""
    them = f"{len(cut)} of {len(distinct)} prompts are" if len(distinct) > 1 else "the prompt is"
    example, rest = (repr(text[:LONGEST_SHOWN]) for text in (cut[0], unread_part(tokenizer, cut[0])))
    return f"{them} longer than {most} tokens: one, {example}…, is not read from {rest} on; shorten such prompts"
