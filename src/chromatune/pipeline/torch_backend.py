"""The model pass by torch, over any diffusers InstructPix2Pix folder, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import numpy as np
import torch

from chromatune.errors import ModelError, first_line, printable
from chromatune.options import ResolvedOptions
from chromatune.pipeline import ModelInfo, Pipeline
from chromatune.pipeline.backend import BackendOutput, Features
from chromatune.pipeline.latents import decode_latents, encode_condition, photo_features
from chromatune.pipeline.noise import noise_generator
from chromatune.pipeline.sampling import sample
from chromatune.pipeline.text import TextEmbedder, prompt_tokenizer
from chromatune.pipeline.wording import unread_warnings

LONGEST_REASON = 200  # characters of what a library says


class TorchBackend:
    """An opened bundle as a `Backend`."""

    runtime = "torch"

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._turn = Lock()  # one pass has all threads of torch, or the GPU
        self._tokenizer = prompt_tokenizer(pipeline.tokenizer)
        self._embed = TextEmbedder(pipeline.tokenizer, pipeline.text_encoder)

    @property
    def info(self) -> ModelInfo:
        """The model's name and defaults."""
        return self.pipeline.info

    @property
    def multiple_px(self) -> int:
        """Sides of the grays must be multiples of this."""
        return self.pipeline.multiple_px

    @property
    def batches(self) -> bool:
        """Whether several photos go through in one call: on a GPU; see `Backend.batches`."""
        return self.pipeline.device.type != "cpu"

    @property
    def concurrent(self) -> bool:
        """Never: a pass has all threads of torch, or the GPU."""
        return False

    def warnings_of(self, options: ResolvedOptions) -> tuple[str, ...]:
        """A line for each instruction that is longer than the text encoder reads."""
        return unread_warnings(options, self._tokenizer)

    def features(self, grays: np.ndarray) -> Features | None:
        """Return what the photo encoder sees; see `Backend.features`."""
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
                rgb = self._pass(pixels, features, options)
            except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                if "memory" in str(error).lower():  # nothing is wrong with the model
                    raise
                # A setting of a strange model that shows only now; known ones were checked when it was opened
                reason = printable(first_line(error)[:LONGEST_REASON])
                raise ModelError(f"{self.info.name} cannot be used ({reason}); give another model") from error
        if not bool(torch.isfinite(rgb).all()):
            raise ModelError(f"{self.info.name} gave values that are not numbers; try another seed, or --device cpu")
        if rgb.shape != (len(grays), 3, *grays.shape[1:]):
            raise ModelError(f"{self.info.name} gave pictures of {tuple(rgb.shape)}; give another model")
        return BackendOutput(
            rgb.permute(0, 2, 3, 1).contiguous().numpy(), _as_arrays(features) if with_features else None
        )

    def _pass(
        self, pixels: torch.Tensor, features: dict[int, torch.Tensor] | None, options: Sequence[ResolvedOptions]
    ) -> torch.Tensor:
        """(B, 3, h, w) float32 luma 0..1, and what the photo encoder saw -> (B, 3, h, w) float32 sRGB 0..1."""
        asked, encoder = options[0], self.pipeline.photo_encoder
        latents = sample(
            self.pipeline,
            encode_condition(self.pipeline, pixels),
            self._embed(asked.prompt),
            self._embed(asked.negative_prompt),
            steps=asked.steps,
            generators=[noise_generator(each.seed) for each in options],
            guidance_scale=asked.guidance_scale,
            image_guidance_scale=asked.image_guidance_scale,
            residuals=None if encoder is None or features is None else encoder.residuals(features),
        )
        return decode_latents(self.pipeline, latents)


def _pixels(grays: np.ndarray) -> torch.Tensor:
    """(B, h, w) float32 luma 0..1 -> (B, 3, h, w), the same."""
    return torch.from_numpy(grays)[:, None].expand(-1, 3, -1, -1)


def _as_arrays(features: dict[int, torch.Tensor] | None) -> Features | None:
    return None if features is None else {stride: each.float().cpu().numpy() for stride, each in features.items()}
