"""The backend by torch, over any diffusers InstructPix2Pix folder and scheduler, on a CPU or a GPU."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch

from chromatune.errors import ModelError
from chromatune.options import ResolvedOptions
from chromatune.pipeline.backend import BackendOutput, Features
from chromatune.pipeline.checks import reason_of
from chromatune.pipeline.latents import decode_latents, encode_condition, photo_features
from chromatune.pipeline.loading import Pipeline
from chromatune.pipeline.photo_encoder import Residuals, unet_arguments
from chromatune.pipeline.schedules import (
    Draw,
    branch_weights,
    combine_guidance,
    denoise,
    draw_noise,
    make_schedule,
    noise_generator,
)
from chromatune.pipeline.sdxl import text_arguments
from chromatune.pipeline.text import TextEmbedder
from chromatune.pipeline.truncation import PromptTokenizer, prompt_warnings


class TorchBackend:
    """An opened pipeline as a `Backend`."""

    runtime = "torch"
    concurrent = False  # one pass has all threads of torch, or the GPU

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.info, self.multiple_px = pipeline, pipeline.info, pipeline.multiple_px
        self.batches = pipeline.device.type != "cpu"
        self._turn = Lock()
        self._tokenizer = PromptTokenizer.of(pipeline.tokenizer)
        self._embed = TextEmbedder(pipeline.tokenizer, pipeline.text_encoder)

    def warnings_of(self, options: ResolvedOptions) -> tuple[str, ...]:
        """Return a line on what is left out of the instructions, and one for each that is too long to be read."""
        return prompt_warnings(options, self.info, self._tokenizer)

    def features(self, grays: np.ndarray) -> Features | None:
        """Return the photo encoder's features; see `Backend.features`."""
        with self._turn, torch.inference_mode():
            return _as_arrays(photo_features(self.pipeline, _pixels(grays)))

    def __call__(
        self, grays: np.ndarray, options: Sequence[ResolvedOptions], with_features: bool = False
    ) -> BackendOutput:
        """Return the model's own RGB, and the features; see `Backend`.

        Raises:
            ModelError: the model gives values that are not numbers, or one of its settings makes no sense.
        """
        with self._turn, torch.inference_mode():
            try:
                pixels = _pixels(grays)
                features = photo_features(self.pipeline, pixels)
                first, encoder = self.info.read(options[0])[0], self.pipeline.photo_encoder
                latents = sample(
                    self.pipeline,
                    encode_condition(self.pipeline, pixels),
                    self._embed(first.prompt),
                    self._embed(first.negative_prompt),
                    steps=first.steps,
                    generators=[noise_generator(each.seed) for each in options],
                    guidance_scale=first.guidance_scale,
                    image_guidance_scale=first.image_guidance_scale,
                    residuals=None if encoder is None or features is None else encoder.residuals(features),
                )
                rgb = decode_latents(self.pipeline, latents)  # (B, 3, h, w)
            except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                if "memory" in str(error).lower():  # nothing is wrong with the model
                    raise
                # A setting of a strange model that shows only now; known ones were checked when it was opened
                raise ModelError(f"{self.info.name} cannot be used ({reason_of(error)}); give another model") from error
        if not bool(torch.isfinite(rgb).all()):
            raise ModelError(f"{self.info.name} returned NaN or infinite values; try another seed, or --device cpu")
        if rgb.shape != (len(grays), 3, *grays.shape[1:]):
            raise ModelError(f"{self.info.name} returned an output of shape {tuple(rgb.shape)}; choose another model")
        return BackendOutput(
            rgb.permute(0, 2, 3, 1).contiguous().numpy(), _as_arrays(features) if with_features else None
        )


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
    """Sample color latents (B, 4, h, w), scaled, for condition latents (B, 4, h, w).

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
    scheduler = pipeline.scheduler
    own_schedule = make_schedule(type(scheduler).__name__, scheduler.config, steps)
    schedule = own_schedule or _DiffusersSchedule(scheduler, steps, generators)
    weights = branch_weights(guidance_scale, image_guidance_scale)
    texts = {"text+image": prompt_embeds, "image": negative_embeds, "none": negative_embeds}
    stacked_images = _for_branches(condition, weights)  # (K B, 4, h, w)
    stacked_texts = torch.cat([texts[branch].expand(count, -1, -1) for branch in weights])  # (K B, 77, C)
    factor = pipeline.vae_factor
    extra = text_arguments(pipeline.unet, stacked_texts, *(factor * side for side in condition.shape[2:]))
    extra |= unet_arguments(None if residuals is None else [_for_branches(part, weights) for part in residuals])

    def draw() -> torch.Tensor:
        return torch.from_numpy(draw_noise(generators, tuple(condition.shape[1:]))).to(pipeline.device)

    def predict(latents: torch.Tensor, timestep: float) -> torch.Tensor:
        noisy = torch.cat([latents.to(pipeline.dtype).repeat(len(weights), 1, 1, 1), stacked_images], dim=1)
        predictions = pipeline.unet(noisy, timestep, **extra, return_dict=False)[0]  # (K B, 4, h, w)
        return combine_guidance(weights, predictions.float().chunk(len(weights)))

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


def _for_branches(each: torch.Tensor, branches: Iterable[str]) -> torch.Tensor:
    """(B, C, h, w) -> (K B, C, h, w): zeros in the branch that has no photo."""
    return torch.cat([torch.zeros_like(each) if branch == "none" else each for branch in branches])


def _pixels(grays: np.ndarray) -> torch.Tensor:
    """(B, h, w) float32 luma 0..1 -> (B, 3, h, w), the same."""
    return torch.from_numpy(grays)[:, None].expand(-1, 3, -1, -1)


def _as_arrays(features: dict[int, torch.Tensor] | None) -> Features | None:
    return None if features is None else {stride: each.float().cpu().numpy() for stride, each in features.items()}
