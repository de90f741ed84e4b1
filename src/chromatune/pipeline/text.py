"""Prompts ⇒ embeddings by torch: tokens as transformers gives them, read by the text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

MOST_PROMPTS_KEPT = 256  # embeddings, the last used; 236 kB each of a full-size model


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
    """Embeddings of prompts by a text encoder; one that is frozen keeps those of the last prompts."""

    def __init__(
        self, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, *, most_kept: int = MOST_PROMPTS_KEPT
    ) -> None:
        self.tokenizer, self.text_encoder = tokenizer, text_encoder
        self._known = lru_cache(most_kept)(partial(_embedding, text_encoder))

    def __call__(self, *prompts: str) -> torch.Tensor:
        """Return (U, 77, C) embeddings, a row a prompt."""
        return self.embed(tokenize(self.tokenizer, prompts))

    def embed(self, tokens: Tokens) -> torch.Tensor:
        """Return (U, 77, C) embeddings, with gradients where the text encoder is trained."""
        if any(parameter.requires_grad for parameter in self.text_encoder.parameters()):
            return embed_tokens(self.text_encoder, tokens)
        rows = zip(tokens.ids.tolist(), tokens.mask.tolist(), strict=True)
        return torch.cat([self._known(tuple(ids), tuple(mask)) for ids, mask in rows])


@torch.no_grad()
def _embedding(text_encoder: CLIPTextModel, ids: tuple[int, ...], mask: tuple[int, ...]) -> torch.Tensor:
    """Return the (1, 77, C) embedding of one prompt's tokens."""
    return embed_tokens(text_encoder, Tokens(torch.tensor([ids]), torch.tensor([mask])))


def embed_tokens(text_encoder: CLIPTextModel, tokens: Tokens) -> torch.Tensor:
    """Return (U, 77, C) embeddings of prompts, on the text encoder's device."""
    device = text_encoder.device
    # Only a text encoder that says so was trained with a mask over the padding.
    masked = getattr(text_encoder.config, "use_attention_mask", False)
    mask = tokens.mask.to(device) if masked else None
    return text_encoder(tokens.ids.to(device), attention_mask=mask)[0]
