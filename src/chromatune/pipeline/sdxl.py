"""Stable Diffusion XL's two text encoders as one, so that all else is as with a single one.

Tokens of both stand side by side, (U, 154). Embeddings are (U, 78, C): 77 tokens of both encoders, C their widths
together, and as the last row the pooled embedding of the second, filled up with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

TIME_IDS = 6  # height, width, top, left, height, width


class TokenizerPair:
    """Two tokenizers of the same words, which fill prompts up with different tokens."""

    def __init__(self, first: Any, second: Any) -> None:
        self.first, self.second = first, second

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["first"], name)

    def __call__(self, prompts: Sequence[str], **options: Any) -> Any:
        """Return tokens and masks of both, (U, 154) each, as transformers gives those of one; as lists, the first's."""
        if options.get("return_tensors") is None:
            return self.first(list(prompts), **options)
        both = [each(list(prompts), **options) for each in (self.first, self.second)]
        join = lambda name: torch.cat([getattr(tokens, name) for tokens in both], dim=1)  # noqa: E731
        return SimpleNamespace(input_ids=join("input_ids"), attention_mask=join("attention_mask"))


class TextEncoderPair(nn.Module):
    """Two text encoders that read the same prompts."""

    def __init__(self, first: Any, second: Any, *, end_token: int, zeros_for_empty: bool) -> None:
        """Hold the encoders; with `zeros_for_empty`, the empty prompt is zeros, as it is in the stock pipeline."""
        super().__init__()
        self.first, self.second = first, second
        self.end_token, self.zeros_for_empty = end_token, zeros_for_empty

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.first.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.first.dtype

    @property
    def config(self) -> Any:
        """Settings of the first encoder."""
        return self.first.config

    def forward(self, ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> tuple[torch.Tensor]:
        """(U, 154) tokens -> (U, 78, C): see the top of this file."""
        halves = ids.chunk(2, dim=1)
        read = [
            each(half, output_hidden_states=True) for each, half in zip((self.first, self.second), halves, strict=True)
        ]
        tokens = torch.cat([each.hidden_states[-2] for each in read], dim=-1)  # (U, 77, C)
        pooled = read[1][0]  # (U, P)
        last = functional.pad(pooled, (0, tokens.shape[-1] - pooled.shape[-1]))
        embeds = torch.cat([tokens, last[:, None]], dim=1)
        if self.zeros_for_empty:
            embeds = embeds * (halves[0][:, 1] != self.end_token).view(-1, 1, 1)
        return (embeds,)


def text_arguments(unet: Any, embeds: torch.Tensor, height_px: int, width_px: int) -> dict[str, Any]:
    """Return the arguments of a U-Net's `forward` that say the text, and for SDXL the size of the picture.

    Args:
        unet: of any kind.
        embeds: (B, 77, C), or (B, 78, C) for SDXL.
        height_px: of the picture that is drawn.
        width_px: of it.
    """
    if getattr(unet.config, "addition_embed_type", None) != "text_time":
        return {"encoder_hidden_states": embeds}
    pooled = unet.config.projection_class_embeddings_input_dim - TIME_IDS * unet.config.addition_time_embed_dim
    sizes = torch.tensor([[height_px, width_px, 0, 0, height_px, width_px]], device=embeds.device, dtype=embeds.dtype)
    added = {"text_embeds": embeds[:, -1, :pooled], "time_ids": sizes.expand(len(embeds), -1)}
    return {"encoder_hidden_states": embeds[:, :-1], "added_cond_kwargs": added}
