"""Prompts ⇒ tokens, without torch: cut to the length that the text encoder reads, and a warning of what is cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chromatune.errors import ModelError, first_line, printable
from chromatune.files import read_regular
from chromatune.options import ResolvedOptions
from chromatune.pipeline.checks import AGAIN, LARGEST_TOKENIZER_BYTES, read_json, reason_of
from chromatune.pipeline.model_files import ModelInfo

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import CLIPTokenizer

TOKENIZER_FILE = "tokenizer.json"
LONGEST_SHOWN = 30  # characters of a prompt in a warning
MOST_NAMED = 5  # words or clauses in a warning
PROMPTS_AT_ONCE = 10_000  # of many, so that their tokens are not all in memory


@dataclass(frozen=True)
class PromptTokenizer:
    """A tokenizer with the length that its text encoder reads."""

    backend: Tokenizer
    length: int  # tokens, the marks at both ends included
    padding: int  # token that fills the rest

    @classmethod
    def read(cls, folder: Path) -> PromptTokenizer:
        """Read the tokenizer in a folder of transformers' layout.

        Raises:
            ValueError: the folder lacks a file, or says too little; the text says which.
        """
        from tokenizers import Tokenizer

        config = read_json(folder / "tokenizer_config.json")
        length, padding = config.get("model_max_length"), config.get("pad_token")
        if isinstance(padding, dict):  # older folders store a token with its settings
            padding = padding.get("content")
        if not isinstance(length, int) or not 4 <= length <= 4096:
            raise ValueError(f"tokenizer_config.json gives model_max_length as {length!r}")
        try:
            with _no_panic():
                backend = Tokenizer.from_buffer(read_regular(folder / TOKENIZER_FILE, LARGEST_TOKENIZER_BYTES))
        except Exception as error:  # noqa: BLE001 - the library raises no other
            raise ValueError(f"{TOKENIZER_FILE} cannot be read ({reason_of(error)})") from None
        backend.no_truncation()
        backend.no_padding()
        token = backend.token_to_id(padding) if isinstance(padding, str) else None
        if token is None:
            raise ValueError("tokenizer_config.json names no pad_token that the vocabulary has")
        return cls(backend, length, token)

    @classmethod
    def of(cls, tokenizer: CLIPTokenizer) -> PromptTokenizer:
        """Return the same without torch, of a tokenizer that transformers opened."""
        from tokenizers import Tokenizer

        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())  # a copy: transformers sets truncation in it
        backend.no_truncation()
        backend.no_padding()
        return cls(backend, tokenizer.model_max_length, int(tokenizer.pad_token_id))

    @property
    def words(self) -> int:
        """Size of the vocabulary: one more than the highest number of a token."""
        return 1 + max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1)

    def ids(self, prompts: Sequence[str]) -> np.ndarray:
        """Return the tokens of prompts, (U, length) int64, padded and cut as in the stock pipeline."""
        rows = np.full((len(prompts), self.length), self.padding, np.int64)
        for row, prompt in zip(rows, prompts, strict=True):
            found = self._encode(prompt).ids
            if len(found) > self.length:  # the mark at the end stays
                found = [*found[: self.length - 1], found[-1]]
            row[: len(found)] = found
        return rows

    def truncated_part(self, prompt: str) -> str:
        """Return the part of a prompt beyond the length, which is cut off; empty if all of it is read."""
        whole = self._encode(prompt)
        ends = [end for _, end in whole.offsets[: self.length - 1]]  # the last place is the end mark's
        return prompt[max(ends) :].strip() if len(whole.ids) > self.length else ""

    def _encode(self, prompt: str) -> Encoding:
        try:
            with _no_panic():
                return self.backend.encode(prompt)
        except RuntimeError as error:
            raise ModelError(f"the model's tokenizer cannot read the prompt ({reason_of(error)}); {AGAIN}") from None


@contextmanager
def _no_panic() -> Iterator[None]:
    """Turn a panic of the tokenizers' library, which is no `Exception`, into a `RuntimeError`."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(first_line(error)) from None


def prompt_warnings(options: ResolvedOptions, info: ModelInfo, tokenizer: PromptTokenizer) -> tuple[str, ...]:
    """Return a line on what is left out of the instructions, and one for each that is longer than can be read."""
    read, left_out = info.read(options)
    cut = truncation_warnings(read, tokenizer)
    if not left_out:
        return cut
    short = (part if len(part) <= LONGEST_SHOWN else f"{part[:LONGEST_SHOWN]}…" for part in left_out[:MOST_NAMED])
    named = ", ".join(f"“{printable(part)}”" for part in short)
    more = f" and {len(left_out) - MOST_NAMED} more" if len(left_out) > MOST_NAMED else ""
    return (
        f"left out of the instruction, as the model was not taught it: {named}{more}; to color one thing, paint it "
        "(the brush of chromatune serve, or --hints)",
        *cut,
    )


def truncation_warnings(options: ResolvedOptions, tokenizer: PromptTokenizer) -> tuple[str, ...]:
    """Return a line for each instruction that is longer than the text encoder reads."""
    lines = []
    for name, prompt in (("prompt", options.prompt), ("negative prompt", options.negative_prompt)):
        if rest := tokenizer.truncated_part(prompt):
            shown = printable(rest[:LONGEST_SHOWN] + ("…" if len(rest) > LONGEST_SHOWN else ""))
            most = tokenizer.length
            lines.append(f"the {name} is longer than {most} tokens, and is not read from {shown!r} on; shorten it")
    return tuple(lines)


def truncated_prompts_warning(tokenizer: CLIPTokenizer, prompts: Iterable[str]) -> str:
    """Return one line on how many of many prompts are cut off, with an example; "" if all of them are read.

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
    rest = PromptTokenizer.of(tokenizer).truncated_part(cut[0])
    example, skipped = repr(cut[0][:LONGEST_SHOWN]), repr(rest[:LONGEST_SHOWN])
    return f"{them} longer than {most} tokens: one, {example}…, is not read from {skipped} on; shorten such prompts"
