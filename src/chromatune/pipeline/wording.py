"""What is told of an instruction that is not read to its end."""

from __future__ import annotations

from chromatune.errors import printable
from chromatune.options import ResolvedOptions
from chromatune.pipeline.tokens import PromptTokenizer

LONGEST_SHOWN = 30  # characters of an instruction in a warning


def unread_warnings(options: ResolvedOptions, tokenizer: PromptTokenizer) -> tuple[str, ...]:
    """A line for each instruction that is longer than the text encoder reads."""
    lines = []
    for name, prompt in (("prompt", options.prompt), ("negative prompt", options.negative_prompt)):
        if rest := tokenizer.unread_part(prompt):
            shown = printable(rest[:LONGEST_SHOWN] + ("…" if len(rest) > LONGEST_SHOWN else ""))
            most = tokenizer.length
            lines.append(f"the {name} is longer than {most} tokens, and is not read from {shown!r} on; shorten it")
    return tuple(lines)
