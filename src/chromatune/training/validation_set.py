"""The photos that a run validates on, and all that chance would decide about them, fixed from first to last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from chromatune.color import luma
from chromatune.data import PhotoItem, SkippedPhoto, apply_crop, center_crop, read_usable
from chromatune.errors import DataError
from chromatune.pipeline import draw_latents, encode_moments, mode_of, to_pixels
from chromatune.training.learner import Learner, draw_noise


@dataclass(frozen=True)
class ValidationSet:
    """Photos at the model's size with all that chance would decide, fixed for the whole run."""

    truth_u8: np.ndarray  # (N, S, S, 3) uint8
    gray_u8: np.ndarray  # (N, S, S) uint8, Rec.601
    condition: torch.Tensor  # (N, 4, h, w), unscaled
    latents: torch.Tensor  # (N, 4, h, w), scaled
    noise: torch.Tensor  # (N, 4, h, w)


def read_validation(items: Sequence[PhotoItem], count: int, size_px: int, learner: Learner) -> ValidationSet:
    """The first `count` usable photos as center squares, encoded.

    Raises:
        DataError: none can be used.
    """
    truths: list[np.ndarray] = []
    for item in items:
        rgb = read_usable(item)
        if not isinstance(rgb, SkippedPhoto):
            truths.append(apply_crop(rgb, center_crop(rgb.shape[0], rgb.shape[1]), size_px))
        if len(truths) == count:
            break
    if not truths:
        raise DataError(f"no photo to validate on among {len(items)} can be read in color; give other photos")
    truth_u8 = np.stack(truths)
    grays = np.stack([luma(truth) for truth in truth_u8])
    condition = _encode(learner, np.repeat(grays[..., None], 3, axis=3))
    moments = _encode(learner, truth_u8)
    # 4 channels of noise, 4 to sample the posterior with
    noise = torch.stack([draw_noise(i, (8, *condition.shape[2:])) for i in range(len(truths))]).to(condition.device)
    latents = draw_latents(moments, noise[:, 4:], learner.vae.config.scaling_factor)
    return ValidationSet(truth_u8, grays, mode_of(condition), latents, noise[:, :4])


@torch.no_grad()
def _encode(learner: Learner, photos: np.ndarray, size: int = 8) -> torch.Tensor:
    device = learner.alphas_cumprod.device
    chunks = [photos[first : first + size] for first in range(0, len(photos), size)]
    return torch.cat([encode_moments(learner.vae, to_pixels(chunk).to(device)) for chunk in chunks])
