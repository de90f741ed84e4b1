"""The model pass by ONNX Runtime: no torch, and a first color within a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chromatune.errors import ModelError, first_line, printable
from chromatune.options import ResolvedOptions
from chromatune.pipeline.backend import BackendOutput, Features
from chromatune.pipeline.guidance import branch_weights
from chromatune.pipeline.names import ModelInfo
from chromatune.pipeline.noise import draw_noise, noise_generator
from chromatune.pipeline.onnx_files import FEATURES, LONGEST_REASON, OnnxPipeline
from chromatune.pipeline.onnx_signatures import RESIDUAL, residuals_of
from chromatune.pipeline.schedules import denoise, make_schedule
from chromatune.pipeline.wording import unread_warnings


class OnnxBackend:
    """Opened ONNX parts as a `Backend`."""

    runtime = "onnx"

    def __init__(self, pipeline: OnnxPipeline) -> None:
        self.pipeline = pipeline
        self._embeddings: dict[str, np.ndarray] = {}
        if problem := _sampling_problem(*pipeline.scheduler):
            raise ModelError(f"{self.info.name}: {problem}; download the model again, or give another")

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
        """Whether several photos go through in one call: not on a CPU; see `Backend.batches`."""
        return self.pipeline.device != "cpu"

    @property
    def concurrent(self) -> bool:
        """Whether calls run at the same time: on a CPU, each with its share of the threads."""
        return self.pipeline.device == "cpu"

    def warnings_of(self, options: ResolvedOptions) -> tuple[str, ...]:
        """A line for each instruction that is longer than the text encoder reads."""
        return unread_warnings(options, self.pipeline.tokenizer)

    def features(self, grays: np.ndarray) -> Features | None:
        """Return what the photo encoder sees; see `Backend.features`."""
        return _features_of(self._encode(_pixels(grays), FEATURES))

    def __call__(
        self, grays: np.ndarray, options: Sequence[ResolvedOptions], with_features: bool = False
    ) -> BackendOutput:
        """Return the model's own RGB, and the features; see `Backend`.

        Raises:
            ModelError: the model gives values that are not numbers, or a part does not fit the others.
        """
        try:
            pixels = _pixels(grays)
            encoded = self._encode(pixels, RESIDUAL, *([FEATURES] if with_features else []))
            rgb = self._pass(pixels, encoded, options)
        except Exception as error:  # what the library raises on parts that do not fit is of any kind
            if "memory" in str(error).lower() or "alloc" in str(error).lower():  # nothing is wrong with the model
                raise MemoryError("not enough memory for the model's pass") from error
            reason = printable(first_line(error)[:LONGEST_REASON])
            raise ModelError(f"{self.info.name} cannot be used ({reason}); give another model") from error
        if not np.isfinite(rgb).all():
            raise ModelError(f"{self.info.name} gave values that are not numbers; try another seed")
        if rgb.shape != (len(grays), 3, *grays.shape[1:]):
            raise ModelError(f"{self.info.name} gave pictures of {rgb.shape}; give another model")
        features = _features_of(encoded) if with_features else None
        return BackendOutput(np.ascontiguousarray(rgb.transpose(0, 2, 3, 1)), features)

    def _pass(
        self, pixels: np.ndarray, encoded: dict[str, np.ndarray], options: Sequence[ResolvedOptions]
    ) -> np.ndarray:
        """(B, 3, h, w) float32 luma 0..1, and what the photo encoder gave -> (B, 3, h, w) float32 sRGB 0..1."""
        parts = self.pipeline
        moments = _only(parts.vae_encoder.run(dict.fromkeys(parts.vae_encoder.inputs, pixels * 2 - 1)))
        condition = moments[:, :4]  # the posterior's mode is its mean, which comes first
        latents = self._sample(condition, residuals_of(encoded), options[0], options)
        name = parts.vae_decoder.inputs[0]
        decoded = _only(parts.vae_decoder.run({name: latents / np.float32(parts.scaling_factor)}))
        return np.clip(decoded.astype(np.float32) / 2 + np.float32(0.5), 0, 1)

    def _sample(
        self,
        condition: np.ndarray,
        residuals: dict[str, np.ndarray],
        asked: ResolvedOptions,
        options: Sequence[ResolvedOptions],
    ) -> np.ndarray:
        """Color latents (B, 4, h, w), scaled, for condition latents of the same shape; see `sampling.sample`."""
        class_name, config = self.pipeline.scheduler
        schedule = make_schedule(class_name, config, asked.steps)
        assert schedule is not None  # it was known when the model was opened
        generators = [noise_generator(each.seed) for each in options]
        weights = branch_weights(asked.guidance_scale, asked.image_guidance_scale)
        prompt, negative = self._embed(asked.prompt), self._embed(asked.negative_prompt)
        texts = {"text+image": prompt, "image": negative, "none": negative}
        count, no_photo = len(condition), [branch == "none" for branch in weights]
        stacked_texts = np.concatenate([np.repeat(texts[branch], count, axis=0) for branch in weights])
        stacked_images, seen = _for_branches(condition, no_photo), {}
        for name, residual in residuals.items():
            seen[name] = _for_branches(residual, no_photo)

        def predict(latents: np.ndarray, timestep: float) -> np.ndarray:
            noisy = np.concatenate([np.tile(latents, (len(weights), 1, 1, 1)), stacked_images], axis=1)
            feeds = {"sample": noisy, "timestep": np.array([timestep]), "encoder_hidden_states": stacked_texts}
            answers = np.split(_only(self.pipeline.unet.run(feeds | seen)), len(weights))  # (B, 4, h, w) each
            weighed = [np.float32(weight) * each for weight, each in zip(weights.values(), answers, strict=True)]
            return np.asarray(sum(weighed))

        return np.asarray(denoise(schedule, lambda: draw_noise(generators, condition.shape[1:]), predict))

    def _encode(self, pixels: np.ndarray, *kinds: str) -> dict[str, np.ndarray]:
        """Run the photo encoder: (B, C, h, w) by output, of the kinds named; nothing without a photo encoder."""
        encoder = self.pipeline.photo_encoder
        prefixes = tuple(kind.format("") for kind in kinds)
        names = [name for name in encoder.outputs if name.startswith(prefixes)] if encoder is not None else []
        if encoder is None or not names:  # ONNX Runtime takes no names for all of them
            return {}
        return dict(zip(names, encoder.run({encoder.inputs[0]: pixels}, names), strict=True))

    def _embed(self, prompt: str) -> np.ndarray:
        """(1, 77, C) embedding; each prompt is read once."""
        if prompt not in self._embeddings:
            encoder = self.pipeline.text_encoder
            feeds = {encoder.inputs[0]: self.pipeline.tokenizer.ids([prompt])}
            self._embeddings[prompt] = encoder.run(feeds, encoder.outputs[:1])[0]
        return self._embeddings[prompt]


def _sampling_problem(class_name: str, config: Mapping[str, Any]) -> str:
    """Why no step can be taken over a schedule; empty if one can: senseless settings show only then."""
    try:
        schedule = make_schedule(class_name, config, min(2, config.get("num_train_timesteps", 2)))
        if schedule is None:
            return f"its scheduler {class_name} needs torch"
        latents = denoise(schedule, lambda: np.ones((1, 4, 2, 2), np.float32), lambda noisy, _: noisy)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return f"its scheduler cannot be sampled ({printable(first_line(error)[:LONGEST_REASON])})"
    return "" if np.isfinite(latents).all() else "its scheduler gives values that are not numbers"


def _pixels(grays: np.ndarray) -> np.ndarray:
    """(B, h, w) float32 luma 0..1 -> (B, 3, h, w), the same."""
    return np.repeat(grays[:, None], 3, axis=1)


def _features_of(encoded: Mapping[str, np.ndarray]) -> Features | None:
    """Return the features among the photo encoder's outputs, by stride."""
    prefix = FEATURES.format("")
    return {int(key.removeprefix(prefix)): each for key, each in encoded.items() if key.startswith(prefix)} or None


def _only(outputs: list[np.ndarray]) -> np.ndarray:
    return outputs[0]


def _for_branches(array: np.ndarray, none: Sequence[bool]) -> np.ndarray:
    """(B, C, h, w) -> (K B, C, h, w): nothing is seen in a branch that has no photo."""
    return np.concatenate([np.zeros_like(array) if left_out else array for left_out in none])
