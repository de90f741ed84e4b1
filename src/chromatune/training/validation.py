"""Validation: losses at fixed timesteps and noise on held-out and on training photos, and what sampling gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from chromatune.color import chroma_of, recompose
from chromatune.pipeline import (
    Pipeline,
    TextEmbedder,
    Tokens,
    decode_latents,
    encode_photos,
    gray_pixels,
    noise_generator,
    sample,
    to_pixels,
)
from chromatune.prompts import DEFAULT_PROMPT
from chromatune.training.checkpoints import writing
from chromatune.training.grids import grid_path, write_grid
from chromatune.training.learner import Batch, Learner
from chromatune.training.run import Run
from chromatune.training.validation_set import ValidationSet

# (result, truth (H, W, 3) uint8, gray (H, W) uint8) -> scores by name, `psnr`, `ab_mse` and `cf_field` among them.
Score = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, float]]
TIMESTEP_SHARES = (0.15, 0.4, 0.65, 0.9, 1.0)  # of the schedule: the last one decides color


@contextmanager
def averaged_weights(run: Run) -> Iterator[None]:
    """The averaged weights in place of the trained ones while the block runs, and no dropout."""
    _swap_averages(run)
    run.learner.eval()
    try:
        yield
    finally:
        _swap_averages(run)
        run.learner.train()


def _swap_averages(run: Run) -> None:
    """Exchanges the trained weights and their averages in place: a third copy of a large model is gigabytes."""
    if run.averages is not None:
        for parameter, average in zip(run.trained, run.averages.shadow_params, strict=True):
            parameter.data, average.data = average.data, parameter.data


def validate(run: Run, step: int, score: Score | None, anchors: Mapping[str, float]) -> dict[str, Any]:
    """One validation of the weights as they are: its row of `metrics.jsonl`; the grid is written.

    Args:
        run: what is validated.
        step: updates so far.
        score: metrics of one photo; without it only losses are measured.
        anchors: `measure_anchors` of the held-out photos.

    Raises:
        DataError: the disk is full.
    """
    tokens = run.stream.tokens.rows(torch.arange(1))
    row: dict[str, Any] = {"step": step, "kind": "validation"}
    row |= measure_losses(run.learner, run.held_out, tokens)
    row |= {f"train_{name}": loss for name, loss in measure_losses(run.learner, run.seen, tokens).items()}
    parts = run.pipeline
    models = (parts.tokenizer, parts.text_encoder, parts.vae, parts.unet, parts.scheduler, parts.photo_encoder)
    raw = colorize(Pipeline(run.info, *models), run.held_out, run.settings.validation_steps or run.info.steps)
    recomposed = None
    if score is not None:
        measured, recomposed = measure_results(raw, run.held_out, score, anchors)
        row |= measured
    path = grid_path(run.out, step)
    with writing(path):
        write_grid(path, run.held_out, raw, recomposed)
    return row


def merit(row: Mapping[str, Any], best_by: str) -> float:
    """What the best weights have most of: the negative of an error, or PSNR; noise loss where nothing was scored."""
    name = best_by if best_by in row else "noise_loss"
    return float(row[name]) if name == "psnr" else -float(row[name])


@torch.no_grad()
def measure_losses(learner: Learner, photos: ValidationSet, tokens: Tokens, size: int = 8) -> dict[str, float]:
    """Noise loss, and LAB loss of the decoded estimate, averaged over `TIMESTEP_SHARES`, for one prompt's tokens."""
    last = len(learner.alphas_cumprod) - 1
    device = learner.alphas_cumprod.device
    sums: dict[str, float] = {}
    total = 0
    for share in TIMESTEP_SHARES:
        for first in range(0, len(photos.latents), size):
            rows = slice(first, first + size)
            count = len(photos.latents[rows])
            batch = Batch(
                latents=photos.latents[rows],
                condition=photos.condition[rows],
                noise=photos.noise[rows],
                timesteps=torch.full((count,), round(share * last), device=device),
                tokens=tokens,
                prompt_of=torch.zeros(count, dtype=torch.int64, device=device),
                shown=torch.ones(count, dtype=torch.bool, device=device),
                truth=to_pixels(photos.truth_u8[rows]).to(device) if learner.settings.lab_weight > 0 else None,
                grays=torch.from_numpy(photos.gray_u8[rows]).to(device),
            )
            for name, value in learner(batch).items():
                sums[name] = sums.get(name, 0.0) + value.item() * count
            total += count
    return {name: value / total for name, value in sums.items() if name != "loss"}


@torch.no_grad()
def colorize(pipeline: Pipeline, photos: ValidationSet, steps: int, prompt: str = DEFAULT_PROMPT) -> np.ndarray:
    """What sampling gives for each photo, raw: (N, S, S, 3) float32 sRGB 0..1."""
    embed = TextEmbedder(pipeline.tokenizer, pipeline.text_encoder)
    results = []
    for index in range(len(photos.condition)):
        latents = sample(
            pipeline,
            photos.condition[index : index + 1],
            embed(prompt),
            embed(""),
            steps=steps,
            generators=[noise_generator(index)],
            guidance_scale=pipeline.info.guidance_scale,
            image_guidance_scale=pipeline.info.image_guidance_scale,
            residuals=encode_photos(pipeline, gray_pixels(torch.from_numpy(photos.gray_u8[index : index + 1]))),
        )
        results.append(decode_latents(pipeline, latents)[0].permute(1, 2, 0).numpy())
    return np.stack(results)


def mean_scores(results: np.ndarray, photos: ValidationSet, score: Score) -> dict[str, float]:
    """Means over the photos of each score of `results`, (N, S, S, 3) uint8."""
    rows = [score(*triple) for triple in zip(results, photos.truth_u8, photos.gray_u8, strict=True)]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def measure_anchors(photos: ValidationSet, score: Score) -> dict[str, float]:
    """What results are held against, the same all run long: the gray input's PSNR and the truth's colorfulness."""
    gray = mean_scores(np.repeat(photos.gray_u8[..., None], 3, axis=3), photos, score)
    return {"psnr_gray": gray["psnr"], "truth_cf_field": mean_scores(photos.truth_u8, photos, score)["cf_field"]}


def measure_results(
    raw: np.ndarray, photos: ValidationSet, score: Score, anchors: Mapping[str, float]
) -> tuple[dict[str, float], np.ndarray]:
    """Means of the scores and the recomposed pictures; `raw_psnr` is the raw results', `psnr_gray` the input's.

    Args:
        raw: `colorize`'s answer.
        photos: what it was made from.
        score: metrics of one photo.
        anchors: `measure_anchors` of the photos.

    Returns:
        The means, `delta_cf` among them, and the recomposed results, (N, S, S, 3) uint8.
    """
    recomposed = np.stack([recompose(g, chroma_of(rgb)) for g, rgb in zip(photos.gray_u8, raw, strict=True)])
    means = mean_scores(recomposed, photos, score)
    means["raw_psnr"] = mean_scores(np.rint(raw.clip(0, 1) * 255).astype(np.uint8), photos, score)["psnr"]
    kept: dict[str, float] = {
        name: means[name] for name in ("psnr", "raw_psnr", "ab_mse", "lab_mse", "ssim", "mae") if name in means
    }
    kept["psnr_gray"] = anchors["psnr_gray"]
    kept["delta_cf"] = abs(means["cf_field"] - anchors["truth_cf_field"])
    return kept, recomposed
