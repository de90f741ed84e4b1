"""Colorizers that are no diffusion model, so that a table never lacks something to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from chromatune import color
from chromatune.data import PhotoItem, SkippedPhoto, apply_crop, draw_crop, read_usable
from chromatune.errors import DataError
from chromatune.options import Advance
from chromatune.training import TrainSettings

if TYPE_CHECKING:
    import torch

Baseline = Callable[[np.ndarray], np.ndarray]  # (S, S) uint8 luma -> (S, S, 3) uint8 sRGB
BLOCK_PX = 8  # pixels a side that share one chroma, as in the latents of a diffusion model
CHROMA_SCALE = 0.1  # about the standard deviation of Cb and Cr, which the network predicts in units of it


def fit(kind: str, items: Sequence[PhotoItem], settings: TrainSettings, size_px: int, advance: Advance) -> Baseline:
    """A baseline fitted to photos.

    Args:
        kind: "mean-chroma" or "regression".
        items: to learn from; gray and broken photos are passed over.
        settings: for "regression": batch, max_steps, lr, seed, zoom, flip.
        size_px: side of the squares, a multiple of 32.
        advance: called once a step.

    Raises:
        DataError: no photo can be used.
    """
    photos = list(_color_photos(items))
    if not photos:
        raise DataError("no photo to fit a baseline to; give readable color photos")
    return _mean_chroma(photos) if kind == "mean-chroma" else _regression(photos, settings, size_px, advance)


def _color_photos(items: Sequence[PhotoItem]) -> list[np.ndarray]:
    return [photo for photo in map(read_usable, items) if not isinstance(photo, SkippedPhoto)]


def _mean_chroma(photos: Sequence[np.ndarray]) -> Baseline:
    """Every pixel gets the mean Cb, Cr of all training pixels."""
    mean = np.mean([_chroma(photo).mean(axis=(0, 1)) for photo in photos], axis=0)
    return lambda gray: color.recompose(gray, np.broadcast_to(mean, (*gray.shape, 2)).astype(np.float32))


def _regression(photos: Sequence[np.ndarray], settings: TrainSettings, size_px: int, advance: Advance) -> Baseline:
    """A U-Net from 8 × 8 blocks of luma to their mean Cb, Cr, squared error: the shape and cost of `mini-base`'s."""
    import torch
    from diffusers import UNet2DModel

    torch.manual_seed(settings.seed)
    unet = UNet2DModel(
        in_channels=BLOCK_PX**2,
        out_channels=2,
        block_out_channels=(64, 128, 192),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=32,
    )
    optimizer = torch.optim.AdamW(unet.parameters(), lr=settings.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.max_steps)
    rng = np.random.default_rng(settings.seed)
    for _ in range(settings.max_steps):
        squares = [
            _square(photos[int(rng.integers(len(photos)))], settings, size_px, rng) for _ in range(settings.batch)
        ]
        loss = (_predict(unet, squares) - _truth(squares)).square().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        advance()
    unet.requires_grad_(False)

    def colorize(gray: np.ndarray) -> np.ndarray:
        small = cv2.resize(gray, (size_px, size_px), interpolation=cv2.INTER_AREA)
        chroma = _predict(unet, [np.repeat(small[..., None], 3, axis=2)])[0].permute(1, 2, 0).numpy()
        return color.recompose(gray, np.ascontiguousarray(chroma) * CHROMA_SCALE)

    return colorize


def _square(photo: np.ndarray, settings: TrainSettings, size_px: int, rng: np.random.Generator) -> np.ndarray:
    height, width = photo.shape[:2]
    return apply_crop(photo, draw_crop(height, width, size_px, rng, settings.zoom, settings.flip), size_px)


def _predict(unet: torch.nn.Module, squares: Sequence[np.ndarray]) -> torch.Tensor:
    """(B, 2, S / 8, S / 8) in units of `CHROMA_SCALE`."""
    import torch

    gray = torch.from_numpy(np.stack([color.luma(square) for square in squares])).float() / 127.5 - 1
    blocks = torch.nn.functional.pixel_unshuffle(gray[:, None], BLOCK_PX)
    return unet(blocks, torch.zeros(len(squares))).sample


def _truth(squares: Sequence[np.ndarray]) -> torch.Tensor:
    import torch

    side = squares[0].shape[0] // BLOCK_PX
    small = [cv2.resize(_chroma(square), (side, side), interpolation=cv2.INTER_AREA) for square in squares]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2) / CHROMA_SCALE


def _chroma(rgb_u8: np.ndarray) -> np.ndarray:
    return color.chroma_of(rgb_u8.astype(np.float32) / 255)
