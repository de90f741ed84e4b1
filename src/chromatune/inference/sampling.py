"""Sampling: from condition latents and an instruction to colour latents, over any diffusers scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from chromatune.bundle import Bundle
from chromatune.photo_encoder import unet_arguments

if TYPE_CHECKING:
    from chromatune.photo_encoder import Residuals


def branch_weights(guidance_scale: float, image_guidance_scale: float) -> dict[str, float]:
    """Weights of the U-Net's three answers, without those that cancel.

    InstructPix2Pix (arXiv 2211.09800, eq. 3) adds e(0,0) + s_I [e(I,0) - e(0,0)] + s_T [e(I,T) - e(I,0)];
    gathered by answer, that is (1 - s_I) e(0,0) + (s_I - s_T) e(I,0) + s_T e(I,T).
    """
    weights = {
        "text+image": guidance_scale,
        "image": image_guidance_scale - guidance_scale,
        "none": 1.0 - image_guidance_scale,
    }
    return {branch: weight for branch, weight in weights.items() if weight != 0.0}


def sample(
    bundle: Bundle,
    condition: torch.Tensor,
    prompt_embeds: torch.Tensor,
    negative_embeds: torch.Tensor,
    *,
    steps: int,
    generators: Sequence[torch.Generator],
    guidance_scale: float = 1.0,
    image_guidance_scale: float = 1.0,
    residuals: Residuals | None = None,
) -> torch.Tensor:
    """Colour latents (B, 4, h, w), scaled, for condition latents (B, 4, h, w).

    Args:
        bundle: the model; its scheduler's class and settings decide the solver and the timesteps.
        condition: `encode_condition` of the grey photos.
        prompt_embeds: (1 or B, 77, C) embedding of the instruction.
        negative_embeds: the same shape, of the negative (or empty) instruction.
        steps: number of U-Net evaluations per branch.
        generators: one CPU generator per photo, so that its noise does not depend on its batch.
        guidance_scale: s_T of `branch_weights`.
        image_guidance_scale: s_I of `branch_weights`.
        residuals: `encode_photos` of the grey photos.

    Raises:
        ValueError: there are not as many generators as photos.
    """
    count = len(condition)
    if len(generators) != count:
        raise ValueError(f"{count} photos need {count} generators, got {len(generators)}")
    scheduler = type(bundle.scheduler).from_config(bundle.scheduler.config)
    scheduler.set_timesteps(steps, device=bundle.device)
    weights = branch_weights(guidance_scale, image_guidance_scale) or {"text+image": 0.0}
    images = {"text+image": condition, "image": condition, "none": torch.zeros_like(condition)}
    texts = {"text+image": prompt_embeds, "image": negative_embeds, "none": negative_embeds}
    stacked_images = torch.cat([images[branch] for branch in weights])  # (K B, 4, h, w)
    stacked_texts = torch.cat([texts[branch].expand(count, -1, -1) for branch in weights])  # (K B, 77, C)
    seen = unet_arguments(None if residuals is None else [_for_branches(part, weights) for part in residuals])
    noise = torch.stack([torch.randn(condition.shape[1:], generator=generator) for generator in generators])
    latents = noise.to(bundle.device, bundle.dtype) * scheduler.init_noise_sigma
    extra = _step_arguments(scheduler, list(generators))
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, timestep)
        noisy = torch.cat([scaled.repeat(len(weights), 1, 1, 1), stacked_images], dim=1)  # (K B, 8, h, w)
        answers = bundle.unet(noisy, timestep, stacked_texts, **seen, return_dict=False)[0].chunk(len(weights))
        noise_pred = sum(weight * answer for weight, answer in zip(weights.values(), answers, strict=True))
        latents = scheduler.step(noise_pred, timestep, latents, return_dict=False, **extra)[0]
    return latents


def _for_branches(residual: torch.Tensor, branches: Iterable[str]) -> torch.Tensor:
    """(B, C, h, w) -> (K B, C, h, w): nothing is seen in the branch that has no photo."""
    return torch.cat([torch.zeros_like(residual) if branch == "none" else residual for branch in branches])


def _step_arguments(scheduler: object, generators: list[torch.Generator]) -> dict[str, list[torch.Generator]]:
    """The generators, for schedulers whose step draws noise (ancestral ones); others do not take them."""
    takes = inspect.signature(scheduler.step).parameters  # type: ignore[attr-defined]
    return {"generator": generators} if "generator" in takes else {}
