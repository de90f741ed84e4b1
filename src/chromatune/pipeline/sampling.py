"""Sampling by torch: from condition latents and an instruction to color latents, over any diffusers scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from chromatune.pipeline import Pipeline
from chromatune.pipeline.guidance import branch_weights
from chromatune.pipeline.noise import draw_noise
from chromatune.pipeline.photo_encoder import unet_arguments
from chromatune.pipeline.schedules import Draw, Schedule, denoise, make_schedule

if TYPE_CHECKING:
    from chromatune.pipeline.photo_encoder import Residuals


def sample(
    pipeline: Pipeline,
    condition: torch.Tensor,
    prompt_embeds: torch.Tensor,
    negative_embeds: torch.Tensor,
    *,
    steps: int,
    generators: Sequence[np.random.Generator],
    guidance_scale: float = 1.0,
    image_guidance_scale: float = 1.0,
    residuals: Residuals | None = None,
) -> torch.Tensor:
    """Color latents (B, 4, h, w), scaled, for condition latents (B, 4, h, w).

    Args:
        pipeline: the model; its scheduler's class and settings decide the solver and the timesteps.
        condition: `encode_condition` of the gray photos.
        prompt_embeds: (1 or B, 77, C) embedding of the instruction.
        negative_embeds: the same shape, of the negative (or empty) instruction.
        steps: number of U-Net evaluations per branch.
        generators: `noise_generator` of each photo's seed.
        guidance_scale: s_T of `branch_weights`.
        image_guidance_scale: s_I of `branch_weights`.
        residuals: `encode_photos` of the gray photos.

    Raises:
        ValueError: there are not as many generators as photos.
    """
    count = len(condition)
    if len(generators) != count:
        raise ValueError(f"{count} photos need {count} generators, got {len(generators)}")
    schedule = _schedule(pipeline, steps, generators)
    weights = branch_weights(guidance_scale, image_guidance_scale)
    images = {"text+image": condition, "image": condition, "none": torch.zeros_like(condition)}
    texts = {"text+image": prompt_embeds, "image": negative_embeds, "none": negative_embeds}
    stacked_images = torch.cat([images[branch] for branch in weights])  # (K B, 4, h, w)
    stacked_texts = torch.cat([texts[branch].expand(count, -1, -1) for branch in weights])  # (K B, 77, C)
    seen = unet_arguments(None if residuals is None else [_for_branches(part, weights) for part in residuals])

    def draw() -> torch.Tensor:
        return torch.from_numpy(draw_noise(generators, tuple(condition.shape[1:]))).to(pipeline.device)

    def predict(latents: torch.Tensor, timestep: float) -> torch.Tensor:
        noisy = torch.cat([latents.to(pipeline.dtype).repeat(len(weights), 1, 1, 1), stacked_images], dim=1)
        answers = pipeline.unet(noisy, timestep, stacked_texts, **seen, return_dict=False)[0]  # (K B, 4, h, w)
        weighed = zip(weights.values(), answers.float().chunk(len(weights)), strict=True)
        return sum((weight * answer for weight, answer in weighed), torch.zeros_like(latents))

    return denoise(schedule, draw, predict).to(pipeline.dtype)  # steps are taken in float32 whatever the model's type


class _DiffusersSchedule:
    """A diffusers scheduler as a `Schedule`, where there is none of our own for it."""

    def __init__(self, scheduler: Any, steps: int, generators: Sequence[np.random.Generator]) -> None:
        self._scheduler = type(scheduler).from_config(scheduler.config)
        self._scheduler.set_timesteps(steps)
        self.timesteps = self._scheduler.timesteps.tolist()
        self.init_noise_sigma = float(self._scheduler.init_noise_sigma)
        self._generators, self._extra = generators, dict[str, Any]()

    def scale_model_input(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        return self._scheduler.scale_model_input(latents, self._scheduler.timesteps[index])

    def step(self, prediction: torch.Tensor, index: int, latents: torch.Tensor, draw: Draw) -> torch.Tensor:
        timestep = self._scheduler.timesteps[index]
        if index == 0 and "generator" in inspect.signature(self._scheduler.step).parameters:  # it draws noise, by torch
            seeds = [int(generator.integers(2**63)) for generator in self._generators]
            self._extra["generator"] = [torch.Generator().manual_seed(seed) for seed in seeds]
        return self._scheduler.step(prediction, timestep, latents, return_dict=False, **self._extra)[0]


def _schedule(pipeline: Pipeline, steps: int, generators: Sequence[np.random.Generator]) -> Schedule:
    scheduler = pipeline.scheduler
    own = make_schedule(type(scheduler).__name__, scheduler.config, steps)
    return own or _DiffusersSchedule(scheduler, steps, generators)


def _for_branches(residual: torch.Tensor, branches: Iterable[str]) -> torch.Tensor:
    """(B, C, h, w) -> (K B, C, h, w): nothing is seen in the branch that has no photo."""
    return torch.cat([torch.zeros_like(residual) if branch == "none" else residual for branch in branches])
