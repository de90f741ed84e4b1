"""The embeddings of prompts by a frozen text encoder, computed once and kept on disk, in parts as latents are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from chromatune.errors import DataError
from chromatune.files import atomic_write
from chromatune.pipeline import Tokens, embed_tokens
from chromatune.training.initial_model import weights_digest
from chromatune.training.latent_cache import part_path, share_parts

FORMAT = 2
PROMPTS_PER_PART, PROMPTS_PER_CALL = 1024, 32


@dataclass(frozen=True)
class TextCache:
    """The embeddings of prompts by a frozen text encoder, on disk."""

    folder: Path
    _files: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)  # those opened already

    def rows(self, prompts: Iterable[int]) -> torch.Tensor:
        """Return the embeddings of prompts by their numbers, (U, 77, C) float32."""
        return torch.from_numpy(np.stack([self._row(int(prompt)) for prompt in prompts]))

    def _row(self, prompt: int) -> np.ndarray:
        part, row = divmod(prompt, PROMPTS_PER_PART)
        if part not in self._files:
            self._files[part] = safe_open(part_path(self.folder, part), "numpy")
        return self._files[part].get_slice("embeds")[row]


def open_text_cache(root: Path, tokens: Tokens, text_encoder: Any, rank: int = 0, ranks: int = 1) -> TextCache:
    """Return the embeddings of prompts, read from a cache below `root`; make what is missing of it first.

    Args:
        root: folder of all caches.
        tokens: of all prompts.
        text_encoder: frozen, on the device it is to run on.
        rank: number of this process among those that share `root`.
        ranks: how many these are.

    Raises:
        DataError: the disk is full.
    """
    digest = hashlib.sha256(f"{FORMAT}/{weights_digest(text_encoder)}".encode())
    digest.update(tokens.ids.numpy().tobytes() + tokens.mask.numpy().tobytes())
    folder, count = root / f"text-{digest.hexdigest()[:20]}", len(tokens.ids)

    def prompts_of(part: int) -> range:
        return range(part * PROMPTS_PER_PART, min((part + 1) * PROMPTS_PER_PART, count))

    def is_sound(part: int) -> bool:
        try:
            with safe_open(part_path(folder, part), "numpy") as file:
                embeds = file.get_slice("embeds")
                shape = embeds.get_shape()  # of two text encoders as one, rows are fewer than tokens
                return len(shape) == 3 and shape[0] == len(prompts_of(part)) and embeds.get_dtype() == "F32"
        except (SafetensorError, OSError):
            return False

    def make(parts: Sequence[int]) -> None:
        for part in parts:
            prompts = torch.tensor(prompts_of(part)).split(PROMPTS_PER_CALL)
            read = [embed_tokens(text_encoder, tokens.rows(some)).cpu() for some in prompts]
            # In half precision, updates would not be those of the encoder's own embeddings
            embeds = torch.cat(read).float().numpy()
            atomic_write(part_path(folder, part), save({"embeds": embeds}))

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            share_parts(-(-count // PROMPTS_PER_PART), is_sound, make, rank, ranks)
    except OSError as error:
        raise DataError(
            f"{folder}: the text cache cannot be written ({error.strerror or error}); make room and run again"
        ) from None
    return TextCache(folder)
