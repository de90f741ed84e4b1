"""Prompts ⇒ tokens, without torch: a CLIP tokenizer as the `tokenizers` library runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chromatune.pipeline.checks import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class PromptTokenizer:
    """A tokenizer with the length that its text encoder reads."""

    backend: Tokenizer
    length: int  # tokens, the marks at both ends included
    padding: int  # token that fills the rest

    @classmethod
    def read(cls, folder: Path) -> PromptTokenizer:
        """The tokenizer in a folder of transformers' layout.

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
            backend = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        except Exception as error:  # noqa: BLE001 - the library raises no other
            raise ValueError(f"{TOKENIZER_FILE} cannot be read ({error})") from None
        backend.no_truncation()
        backend.no_padding()
        token = backend.token_to_id(padding) if isinstance(padding, str) else None
        if token is None:
            raise ValueError("tokenizer_config.json names no pad_token that the vocabulary has")
        return cls(backend, length, token)

    def ids(self, prompts: Sequence[str]) -> np.ndarray:
        """(U, length) int64: tokens of prompts, padded and cut as in the stock pipeline."""
        rows = np.full((len(prompts), self.length), self.padding, np.int64)
        for row, prompt in zip(rows, prompts, strict=True):
            found = self.backend.encode(prompt).ids
            if len(found) > self.length:  # the mark at the end stays
                found = [*found[: self.length - 1], found[-1]]
            row[: len(found)] = found
        return rows

    def unread_part(self, prompt: str) -> str:
        """What of a prompt lies beyond the length, and is cut off; empty if all of it is read."""
        whole = self.backend.encode(prompt)
        ends = [end for _, end in whole.offsets[: self.length - 1]]  # the last place is the end mark's
        return prompt[max(ends) :].strip() if len(whole.ids) > self.length else ""
