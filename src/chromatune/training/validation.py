"""Validation: losses at fixed timesteps and noise on held-out and on training photos, and what sampling gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from chromatune.bundle import Bundle
from chromatune.bundle.latents import (
    decode_latents,
    draw_latents,
    encode_moments,
    encode_photos,
    grey_pixels,
    mode_of,
    to_pixels,
)
from chromatune.bundle.text import TextEmbedder, Tokens
from chromatune.color import chroma_of, luma, recompose
from chromatune.data.pairs import apply_crop, centre_crop, is_monochrome
from chromatune.data.sources import PhotoItem
from chromatune.errors import DataError, PhotoError
from chromatune.files import write_whole
from chromatune.inference.sampling import sample
from chromatune.prompts import DEFAULT_PROMPT
from chromatune.training.learner import Batch, Learner, draw_noise

# (result, truth (H, W, 3) uint8, grey (H, W) uint8) -> scores by name, `psnr`, `ab_mse` and `cf_field` among them.
Score = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, float]]
TIMESTEP_PLACES = (0.15, 0.4, 0.65, 0.9, 1.0)  # of the schedule: the last one decides colour
GRID_PHOTOS = 8


@dataclass(frozen=True)
class ValidationSet:
    """Photos at the model's size with all that chance would decide, fixed for the whole run."""

    truth_u8: np.ndarray  # (N, S, S, 3) uint8
    grey_u8: np.ndarray  # (N, S, S) uint8, Rec.601
    condition: torch.Tensor  # (N, 4, h, w), unscaled
    latents: torch.Tensor  # (N, 4, h, w), scaled
    noise: torch.Tensor  # (N, 4, h, w)


def read_validation(items: Sequence[PhotoItem], count: int, size_px: int, learner: Learner) -> ValidationSet:
    """The first `count` usable photos as centre squares, encoded.

    Raises:
        DataError: none can be used.
    """
    truths: list[np.ndarray] = []
    for item in items:
        try:
            rgb = item.read()
        except PhotoError:
            continue
        if not is_monochrome(rgb):
            truths.append(apply_crop(rgb, centre_crop(rgb.shape[0], rgb.shape[1]), size_px))
        if len(truths) == count:
            break
    if not truths:
        raise DataError(f"none of {len(items)} photos to validate on can be read in colour; give other photos")
    truth_u8 = np.stack(truths)
    greys = np.stack([luma(truth) for truth in truth_u8])
    condition = _encode(learner, np.repeat(greys[..., None], 3, axis=3))
    moments = _encode(learner, truth_u8)
    # 4 channels of noise, 4 to sample the posterior with
    noise = torch.stack([draw_noise(i, (8, *condition.shape[2:])) for i in range(len(truths))]).to(condition.device)
    latents = draw_latents(moments, noise[:, 4:], learner.vae.config.scaling_factor)
    return ValidationSet(truth_u8, greys, mode_of(condition), latents, noise[:, :4])


@torch.no_grad()
def _encode(learner: Learner, photos: np.ndarray, size: int = 8) -> torch.Tensor:
    where = learner.alphas_cumprod.device
    parts = [photos[first : first + size] for first in range(0, len(photos), size)]
    return torch.cat([encode_moments(learner.vae, to_pixels(part).to(where)) for part in parts])


@torch.no_grad()
def measure_losses(learner: Learner, photos: ValidationSet, tokens: Tokens, size: int = 8) -> dict[str, float]:
    """Noise loss, and LAB loss of the decoded estimate, averaged over `TIMESTEP_PLACES`, for one prompt's tokens."""
    last = len(learner.alphas_cumprod) - 1
    where = learner.alphas_cumprod.device
    sums: dict[str, float] = {}
    total = 0
    for place in TIMESTEP_PLACES:
        for first in range(0, len(photos.latents), size):
            part = slice(first, first + size)
            count = len(photos.latents[part])
            batch = Batch(
                latents=photos.latents[part],
                condition=photos.condition[part],
                noise=photos.noise[part],
                timesteps=torch.full((count,), round(place * last), device=where),
                tokens=tokens,
                prompt_of=torch.zeros(count, dtype=torch.int64, device=where),
                shown=torch.ones(count, dtype=torch.bool, device=where),
                truth=to_pixels(photos.truth_u8[part]).to(where) if learner.settings.lab_weight > 0 else None,
                greys=torch.from_numpy(photos.grey_u8[part]).to(where),
            )
            for name, value in learner(batch).items():
                sums[name] = sums.get(name, 0.0) + value.item() * count
            total += count
    return {name: value / total for name, value in sums.items() if name != "loss"}


@torch.no_grad()
def colorize(bundle: Bundle, photos: ValidationSet, steps: int, prompt: str = DEFAULT_PROMPT) -> np.ndarray:
    """What sampling gives for each photo, raw: (N, S, S, 3) float32 sRGB 0..1."""
    embed = TextEmbedder(bundle.tokenizer, bundle.text_encoder)
    results = []
    for index in range(len(photos.condition)):
        latents = sample(
            bundle,
            photos.condition[index : index + 1],
            embed(prompt),
            embed(""),
            steps=steps,
            generators=[torch.Generator().manual_seed(index)],
            guidance_scale=bundle.info.guidance_scale,
            image_guidance_scale=bundle.info.image_guidance_scale,
            residuals=encode_photos(bundle, grey_pixels(torch.from_numpy(photos.grey_u8[index : index + 1]))),
        )
        results.append(decode_latents(bundle, latents)[0].permute(1, 2, 0).numpy())
    return np.stack(results)


def mean_scores(results: np.ndarray, photos: ValidationSet, score: Score) -> dict[str, float]:
    """Means over the photos of each score of `results`, (N, S, S, 3) uint8."""
    rows = [score(*triple) for triple in zip(results, photos.truth_u8, photos.grey_u8, strict=True)]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def measure_anchors(photos: ValidationSet, score: Score) -> dict[str, float]:
    """What results are held against, the same all run long: the grey input's PSNR and the truth's colourfulness."""
    grey = mean_scores(np.repeat(photos.grey_u8[..., None], 3, axis=3), photos, score)
    return {"psnr_grey": grey["psnr"], "truth_cf_field": mean_scores(photos.truth_u8, photos, score)["cf_field"]}


def measure_results(
    raw: np.ndarray, photos: ValidationSet, score: Score, anchors: Mapping[str, float]
) -> tuple[dict[str, float], np.ndarray]:
    """Means of the scores and the recomposed pictures; `raw_psnr` is the raw results', `psnr_grey` the input's.

    Args:
        raw: `colorize`'s answer.
        photos: what it was made from.
        score: metrics of one photo.
        anchors: `measure_anchors` of the photos.

    Returns:
        The means, `delta_cf` among them, and the recomposed results, (N, S, S, 3) uint8.
    """
    recomposed = np.stack([recompose(g, chroma_of(rgb)) for g, rgb in zip(photos.grey_u8, raw, strict=True)])
    means = mean_scores(recomposed, photos, score)
    means["raw_psnr"] = mean_scores(np.rint(raw.clip(0, 1) * 255).astype(np.uint8), photos, score)["psnr"]
    kept: dict[str, float] = {
        name: means[name] for name in ("psnr", "raw_psnr", "ab_mse", "lab_mse", "ssim", "mae") if name in means
    }
    kept["psnr_grey"] = anchors["psnr_grey"]
    kept["delta_cf"] = abs(means["cf_field"] - anchors["truth_cf_field"])
    return kept, recomposed


def write_grid(path: Path, photos: ValidationSet, raw: np.ndarray, recomposed: np.ndarray | None) -> None:
    """A PNG of the first photos: input, raw result, recomposed result, truth, one row each."""
    raw_u8 = np.rint(raw[:GRID_PHOTOS].clip(0, 1) * 255).astype(np.uint8)
    rows = [np.repeat(photos.grey_u8[:GRID_PHOTOS, ..., None], 3, axis=3), raw_u8]
    if recomposed is not None:
        rows.append(recomposed[:GRID_PHOTOS])
    rows.append(photos.truth_u8[:GRID_PHOTOS])
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    done, png = cv2.imencode(".png", sheet[..., ::-1])
    if done:
        write_whole(path, png.tobytes())
