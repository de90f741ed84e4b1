"""Validation: losses at fixed timesteps and noise, what sampling gives for held-out photos, and a grid of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from chromatune.color import chroma_of, luma, recompose
from chromatune.data import PhotoItem, SkippedPhoto, apply_crop, center_crop, read_usable, smallest_side_px
from chromatune.errors import DataError
from chromatune.files import atomic_write
from chromatune.pipeline import (
    Pipeline,
    TextEmbedder,
    Tokens,
    decode_latents,
    draw_latents,
    encode_moments,
    encode_photos,
    gray_pixels,
    mode_of,
    noise_generator,
    sample,
    to_pixels,
)
from chromatune.prompts import DEFAULT_PROMPT
from chromatune.reports import png_of
from chromatune.training.checkpoints import disk_errors
from chromatune.training.dataset import Batch, draw_training_noise
from chromatune.training.initial_model import load_initial_model

# (result, truth (H, W, 3) uint8, gray (H, W) uint8) -> scores by name, `psnr`, `ab_mse` and `cf_field` among them.
Score = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, float]]
TIMESTEP_SHARES = (0.15, 0.4, 0.65, 0.9, 1.0)  # of the schedule: the last one decides color
RAW_SCORES = ("psnr", "lab_mse")  # of results with their own luminance too: `raw_psnr`, `raw_lab_mse`
RESULT_SCORES = ("psnr", "raw_psnr", "ab_mse", "lab_mse", "raw_lab_mse", "ssim", "mae")  # whose means a run writes down
GAP_SCORES = ("lab_mse", "ab_mse")  # of results for training photos, for the gap to held-out ones
GRID_PHOTOS = 8
BATCH = 8  # photos that are encoded or measured at once


@dataclass(frozen=True)
class ValidationSet:
    """Photos at the model's size with all that chance would decide, fixed for the whole run."""

    truth_u8: np.ndarray  # (N, S, S, 3) uint8
    gray_u8: np.ndarray  # (N, S, S) uint8, Rec.601
    condition: torch.Tensor  # (N, 4, h, w), unscaled
    latents: torch.Tensor  # (N, 4, h, w), scaled
    noise: torch.Tensor  # (N, 4, h, w)
    first: int = 0  # number of the first photo, where it is a share of a larger set
    passes: int | None = None  # in which its photos are measured; None: as few as can be
    counts: bool = True  # False: its photos stand in for a share without any

    def share(self, rank: int, ranks: int) -> ValidationSet:
        """Return the photos of one process of several.

        All have as many passes, as the processes wait for each other in each where weights are split over them.
        """
        count = len(self.latents)
        rows = np.array_split(np.arange(count), ranks)[rank]
        passes = math.ceil(math.ceil(count / ranks) / BATCH)
        shown = rows if len(rows) else np.arange(1)
        at = torch.from_numpy(shown).to(self.latents.device)
        tensors = (self.condition[at], self.latents[at], self.noise[at])
        counts = len(rows) > 0
        return ValidationSet(
            self.truth_u8[shown], self.gray_u8[shown], *tensors, first=int(shown[0]), passes=passes, counts=counts
        )

    def batches(self) -> list[slice]:
        """Return the rows of each pass, of about the same number."""
        count = len(self.latents)
        passes = self.passes or math.ceil(count / BATCH)
        ends = [round(count * number / passes) for number in range(passes + 1)]
        return [slice(first, last) for first, last in zip(ends[:-1], ends[1:], strict=True)]


def read_validation_set(items: Sequence[PhotoItem], count: int, size_px: int, vae: Any) -> ValidationSet:
    """Read the first `count` usable photos as center squares, and encode them on the device of `vae`.

    Raises:
        DataError: none can be used.
    """
    truths: list[np.ndarray] = []
    for item in items:
        rgb = read_usable(item, smallest_side_px(size_px))
        if not isinstance(rgb, SkippedPhoto):
            truths.append(apply_crop(rgb, center_crop(rgb.shape[0], rgb.shape[1]), size_px))
        if len(truths) == count:
            break
    if not truths:
        raise DataError(f"no photo to validate on among {len(items)} can be read in color; give other photos")
    return encode_validation_set(np.stack(truths), vae)


def encode_validation_set(truth_u8: np.ndarray, vae: Any) -> ValidationSet:
    """Return squares, (N, S, S, 3) uint8, with what is measured on them, encoded on the device of `vae`."""
    gray_u8 = np.stack([luma(truth) for truth in truth_u8])
    condition = _encode(vae, np.repeat(gray_u8[..., None], 3, axis=3))
    moments = _encode(vae, truth_u8)
    # 4 channels of noise, 4 to sample the posterior with
    noise = torch.stack([draw_training_noise(i, (8, *condition.shape[2:])) for i in range(len(truth_u8))])
    noise = noise.to(condition.device)
    latents = draw_latents(moments, noise[:, 4:], vae.config.scaling_factor)
    return ValidationSet(truth_u8, gray_u8, mode_of(condition), latents, noise[:, :4])


@torch.no_grad()
def _encode(vae: Any, photos_u8: np.ndarray) -> torch.Tensor:
    device = next(vae.parameters()).device
    chunks = [photos_u8[first : first + BATCH] for first in range(0, len(photos_u8), BATCH)]
    return torch.cat([encode_moments(vae, to_pixels(chunk).to(device)) for chunk in chunks])


@torch.no_grad()
def measure_losses(
    learner: Callable[[Batch], Mapping[str, torch.Tensor]],
    photos: ValidationSet,
    tokens: Tokens,
    num_train_timesteps: int,
    *,
    with_truth: bool,
) -> dict[str, torch.Tensor]:
    """Return each photo's losses of a prompt's tokens, the mean over `TIMESTEP_SHARES`: noise, and LAB of the estimate.

    Args:
        learner: gives a batch's losses.
        photos: what is measured on.
        tokens: of one prompt.
        num_train_timesteps: of the schedule.
        with_truth: whether there is a LAB loss, which takes the photos in color.

    Returns:
        For each loss (N,) float64 on the device of the photos; those of one pass have its mean.
    """
    device = photos.latents.device
    found: dict[str, torch.Tensor] = {}
    for share in TIMESTEP_SHARES:
        for rows in photos.batches():
            count = len(photos.latents[rows])
            batch = Batch(
                latents=photos.latents[rows],
                condition=photos.condition[rows],
                noise=photos.noise[rows],
                timesteps=torch.full((count,), round(share * (num_train_timesteps - 1)), device=device),
                tokens=tokens,
                prompt_of=torch.zeros(count, dtype=torch.int64, device=device),
                has_photo=torch.ones(count, dtype=torch.bool, device=device),
                truth=to_pixels(photos.truth_u8[rows]).to(device) if with_truth else None,
                grays=torch.from_numpy(photos.gray_u8[rows]).to(device),
            )
            for name, value in learner(batch).items():
                known = found.setdefault(name, torch.zeros(len(photos.latents), dtype=torch.float64, device=device))
                known[rows] += value.double() / len(TIMESTEP_SHARES)
    return {name: values for name, values in found.items() if name != "loss"}


@torch.no_grad()
def colorize_photos(pipeline: Pipeline, photos: ValidationSet, steps: int) -> np.ndarray:
    """Sample a result for each photo, raw: (N, S, S, 3) float32 sRGB 0..1. Each has noise of its own number's seed."""
    embed = TextEmbedder(pipeline.tokenizer, pipeline.text_encoder)
    results = []
    for rows in photos.batches():
        latents = sample(
            pipeline,
            photos.condition[rows],
            embed(DEFAULT_PROMPT),
            embed(""),
            steps=steps,
            generators=[noise_generator(photos.first + index) for index in range(rows.start, rows.stop)],
            guidance_scale=pipeline.info.guidance_scale,
            image_guidance_scale=pipeline.info.image_guidance_scale,
            residuals=encode_photos(pipeline, gray_pixels(torch.from_numpy(photos.gray_u8[rows]))),
        )
        results += [each.permute(1, 2, 0).numpy() for each in decode_latents(pipeline, latents)]
    return np.stack(results)


def score_photos(results: np.ndarray, photos: ValidationSet, score: Score) -> list[dict[str, float]]:
    """Return the scores of each of `results`, (N, S, S, 3) uint8."""
    return [score(*triple) for triple in zip(results, photos.truth_u8, photos.gray_u8, strict=True)]


def mean_scores(results: np.ndarray, photos: ValidationSet, score: Score) -> dict[str, float]:
    """Return the means over the photos of each score of `results`, (N, S, S, 3) uint8."""
    return _means(score_photos(results, photos, score))


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def score_untouched(model: str, photos: ValidationSet, score: Score) -> list[float]:
    """Return the PSNR of what a model that was not fine-tuned here gives for each photo, recomposed.

    The model colorizes at its own size, by its own number of steps and guidance; `vivid` is left out, as in validation.

    Raises:
        ModelError: the model cannot be opened.
    """
    pipeline = load_initial_model(model).pipeline
    size_px, side = pipeline.info.size_px, photos.truth_u8.shape[1]
    own = photos.truth_u8 if size_px == side else np.stack([_scaled(truth, size_px) for truth in photos.truth_u8])
    raw = colorize_photos(pipeline, encode_validation_set(own, pipeline.vae), pipeline.info.steps)
    raw = raw if size_px == side else np.stack([_scaled(rgb, side) for rgb in raw])
    return [row["psnr"] for row in score_photos(_recompose(raw, photos), photos, score)]


def _scaled(square: np.ndarray, side: int) -> np.ndarray:
    smaller = side < square.shape[0]
    return cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def measure_baselines(photos: ValidationSet, score: Score) -> dict[str, float]:
    """Score what results are compared with during the run: the gray input's PSNR and the truth's colorfulness."""
    gray = mean_scores(np.repeat(photos.gray_u8[..., None], 3, axis=3), photos, score)
    return {"psnr_gray": gray["psnr"], "truth_cf_field": mean_scores(photos.truth_u8, photos, score)["cf_field"]}


def measure_results(
    raw: np.ndarray, photos: ValidationSet, score: Score, baselines: Mapping[str, float]
) -> tuple[dict[str, float], np.ndarray, list[float]]:
    """Score results recomposed with the photos' own luminance; `raw_…` are the raw ones', `psnr_gray` is the input's.

    Args:
        raw: what `colorize_photos` returned.
        photos: what it was made from.
        score: metrics of one photo.
        baselines: `measure_baselines` of the photos.

    Returns:
        The means, `delta_cf` among them; the recomposed results, (N, S, S, 3) uint8; the PSNR of each.
    """
    recomposed = _recompose(raw, photos)
    scores = score_photos(recomposed, photos, score)
    means = _means(scores)
    of_raw = mean_scores(_as_u8(raw), photos, score)
    means |= {f"raw_{name}": of_raw[name] for name in RAW_SCORES if name in of_raw}
    row = {name: means[name] for name in RESULT_SCORES if name in means}
    row["psnr_gray"] = baselines["psnr_gray"]
    row["delta_cf"] = abs(means["cf_field"] - baselines["truth_cf_field"])
    return row, recomposed, [photo["psnr"] for photo in scores]


def without_guidance(pipeline: Pipeline) -> Pipeline | None:
    """Return the pipeline with guidance 1 and 1, on the same networks; None where it has no other as it is."""
    info = dataclasses.replace(pipeline.info, guidance_scale=1.0, image_guidance_scale=1.0)
    return None if info == pipeline.info else dataclasses.replace(pipeline, info=info)


def measure_training_photos(raw: np.ndarray, photos: ValidationSet, score: Score) -> dict[str, float]:
    """Score recomposed results for training photos by the measures whose gap to held-out photos is reported."""
    means = mean_scores(_recompose(raw, photos), photos, score)
    return {name: means[name] for name in GAP_SCORES if name in means}


def selection_score(row: Mapping[str, Any], best_by: str) -> float:
    """Return what is highest for the best weights: PSNR, or an error's negative; noise loss if nothing was scored."""
    name = best_by if best_by in row else "noise_loss"
    return float(row[name]) if name == "psnr" else -float(row[name])


def grid_path(out: Path, step: int) -> Path:
    """Return the path of the grid of the validation at `step`."""
    return out / "grids" / f"step-{step:06d}.png"


def write_grid(path: Path, photos: ValidationSet, raw: np.ndarray, recomposed: np.ndarray | None) -> None:
    """Write a PNG of the first photos: input, raw result, recomposed result, truth, one row each.

    Args:
        path: of the file; its folder is made if missing.
        photos: what is validated on.
        raw: results, (N, S, S, 3) float32 sRGB 0..1.
        recomposed: with the photos' own luminance, (N, S, S, 3) uint8; no such row without it.

    Raises:
        DataError: the disk is full.
    """
    rows = [np.repeat(photos.gray_u8[:GRID_PHOTOS, ..., None], 3, axis=3), _as_u8(raw[:GRID_PHOTOS])]
    if recomposed is not None:
        rows.append(recomposed[:GRID_PHOTOS])
    rows.append(photos.truth_u8[:GRID_PHOTOS])
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, png_of(sheet))


def read_grid(path: Path, *, recomposed: bool) -> np.ndarray | None:
    """Read what `write_grid` wrote, (rows, N, S, S, 3) uint8 sRGB; None where there is no such picture.

    The first row is the input, the last the truth, and the one before it the result: recomposed where it was.
    """
    sheet = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    rows = 4 if recomposed else 3
    if sheet is None or sheet.shape[0] % rows or sheet.shape[1] % (sheet.shape[0] // rows):
        return None
    side = sheet.shape[0] // rows
    return sheet[..., ::-1].reshape(rows, side, -1, side, 3).swapaxes(1, 2)


def _recompose(raw: np.ndarray, photos: ValidationSet) -> np.ndarray:
    """Give results, (N, S, S, 3) float32, the photos' own luminance: (N, S, S, 3) uint8."""
    return np.stack([recompose(g, chroma_of(rgb)) for g, rgb in zip(photos.gray_u8, raw, strict=True)])


def _as_u8(rgb: np.ndarray) -> np.ndarray:
    return np.rint(rgb.clip(0, 1) * 255).astype(np.uint8)
