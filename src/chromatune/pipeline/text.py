"""Prompts ⇒ embeddings by torch: tokens as transformers gives them, read by the text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer


class Tokens(NamedTuple):
    """Prompts as tokens, padded and cut to the tokenizer's length (77) as in the stock pipeline."""

    ids: torch.Tensor  # (U, 77) int64
    mask: torch.Tensor  # (U, 77) int64, 1 where a token is the prompt's own, 0 on padding

    def rows(self, index: torch.Tensor) -> Tokens:
        """Return the tokens of some of the prompts, by their indices, (K,) int64."""
        return Tokens(self.ids[index], self.mask[index])


def tokenize(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tokens:
    """Return the tokens of prompts."""
    tokens = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    return Tokens(tokens.input_ids, tokens.attention_mask)


class TextEmbedder:
    """Embeddings of prompts by a text encoder; one that is frozen reads each prompt once."""

    def __init__(self, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel) -> None:
        self.tokenizer, self.text_encoder = tokenizer, text_encoder
        self._known: dict[tuple[int, ...], torch.Tensor] = {}

    def __call__(self, *prompts: str) -> torch.Tensor:
        """Return (U, 77, C) embeddings, a row a prompt."""
        return self.embed(tokenize(self.tokenizer, prompts))

    def embed(self, tokens: Tokens) -> torch.Tensor:
        """Return (U, 77, C) embeddings, with gradients where the text encoder is trained."""
        if any(parameter.requires_grad for parameter in self.text_encoder.parameters()):
            return self._read(tokens)
        rows = []
        for index, ids in enumerate(tokens.ids.tolist()):
            key = tuple(ids)
            if key not in self._known:
                with torch.no_grad():
                    self._known[key] = self._read(Tokens(tokens.ids[index : index + 1], tokens.mask[index : index + 1]))
            rows.append(self._known[key])
        return torch.cat(rows)

    def _read(self, tokens: Tokens) -> torch.Tensor:
        device = self.text_encoder.device
        # Only a text encoder that says so was trained with a mask over the padding.
        masked = getattr(self.text_encoder.config, "use_attention_mask", False)
        mask = tokens.mask.to(device) if masked else None
        return self.text_encoder(tokens.ids.to(device), attention_mask=mask)[0]
