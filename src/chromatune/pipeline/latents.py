"""The border between pixels and latents: every crossing of it, in inference, training and recipes.

Condition latents are the mode of the posterior and stay unscaled, as in the stock pipeline; what is denoised is sampled
from the posterior and scaled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from chromatune.pipeline.loading import Pipeline
    from chromatune.pipeline.photo_encoder import Residuals

CHANNELS = 4  # of latents


def to_pixels(rgb_u8: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32, sRGB 0..1."""
    return torch.from_numpy(np.ascontiguousarray(rgb_u8)).permute(0, 3, 1, 2).float() / 255


def gray_pixels(grays: torch.Tensor) -> torch.Tensor:
    """(B, S, S) uint8 -> (B, 3, S, S) float32 sRGB 0..1."""
    return grays[:, None].expand(-1, 3, -1, -1) / 255


def encode_moments(vae: Any, rgb: torch.Tensor) -> torch.Tensor:
    """Pixels ⇒ posterior: (B, 3, H, W) sRGB 0..1 -> (B, 8, h, w) mean and log-variance.

    An autoencoder without a posterior gives its latents, (B, 4, h, w).
    """
    encoded = vae.encode(rgb * 2 - 1)
    return encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.parameters


def mode_of(moments: torch.Tensor) -> torch.Tensor:
    """Return the posterior's mode, which is its mean: (B, 8 or 4, h, w) -> (B, 4, h, w), unscaled."""
    return moments[:, :CHANNELS]


def draw_latents(moments: torch.Tensor, noise: torch.Tensor, scaling_factor: float) -> torch.Tensor:
    """Return a sample of the posterior, scaled, (B, 4, h, w); without a log-variance, the mean itself."""
    mean, *log_variance = moments.split(CHANNELS, dim=1)
    if log_variance:
        mean = mean + (0.5 * log_variance[0].clamp(-30, 20)).exp() * noise
    return mean * scaling_factor


def decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Latents ⇒ pixels: (B, 4, h, w) scaled -> (B, 3, H, W) sRGB, nominally 0..1, not clamped."""
    return vae.decode(latents / vae.config.scaling_factor).sample / 2 + 0.5


def encode_condition(pipeline: Pipeline, rgb: torch.Tensor) -> torch.Tensor:
    """Pixels ⇒ condition latents: (B, 3, H, W) float32 sRGB 0..1 -> (B, 4, h, w), mode of the posterior, unscaled."""
    # sRGB is centered in float32: halves of 1/255 are lost in float16
    encoded = pipeline.vae.encode((rgb * 2 - 1).to(pipeline.device, pipeline.dtype))
    return encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()


def photo_features(pipeline: Pipeline, rgb: torch.Tensor) -> dict[int, torch.Tensor] | None:
    """Return the photo encoder's features by stride, from (B, 3, h, w) float32 sRGB 0..1; None without one."""
    encoder = pipeline.photo_encoder
    return None if encoder is None else encoder.features(rgb.to(pipeline.device, pipeline.dtype))


def encode_photos(pipeline: Pipeline, rgb: torch.Tensor) -> Residuals | None:
    """Return the photo encoder's residuals for the U-Net, from (B, 3, h, w) float32 sRGB 0..1; None without one."""
    return None if pipeline.photo_encoder is None else pipeline.photo_encoder(rgb.to(pipeline.device, pipeline.dtype))


def decode_latents(pipeline: Pipeline, latents: torch.Tensor) -> torch.Tensor:
    """Latents ⇒ pixels: (B, 4, h, w) scaled latents -> (B, 3, H, W) float32 sRGB 0..1 on the CPU."""
    decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    return (decoded.float() / 2 + 0.5).clamp(0, 1).cpu()
