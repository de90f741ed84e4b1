"""The modules of a run under one roof, as accelerate wraps them: a batch in, its losses out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from chromatune.pipeline import (
    Residuals,
    TextEmbedder,
    Tokens,
    alpha_sigma,
    decode,
    gray_pixels,
    predicted_latents,
    prediction_target,
    unet_arguments,
)
from chromatune.training.losses import joined_loss, lab_loss, noise_loss, snr_weight
from chromatune.training.settings import TrainSettings

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    from chromatune.pipeline import PhotoEncoder


@dataclass(frozen=True)
class Batch:
    """One pass of one process, all that chance decides included."""

    latents: torch.Tensor  # (B, 4, h, w) float32, sampled and scaled: what is denoised
    condition: torch.Tensor  # (B, 4, h, w) float32, the gray photos' mode, unscaled; zeros where dropped
    noise: torch.Tensor  # (B, 4, h, w) float32
    timesteps: torch.Tensor  # (B,) int64
    tokens: Tokens  # of the batch's U different prompts
    prompt_of: torch.Tensor  # (B,) int64 into the prompts; the empty one where text is dropped
    shown: torch.Tensor  # (B,) bool, whether the photo is there: False where `condition` is zeros
    truth: torch.Tensor | None  # (L, 3, H, W) float32 sRGB 0..1 of the first L pairs, for the LAB loss
    grays: torch.Tensor | None = None  # (B, S, S) uint8, for a photo encoder

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; the tokens stay, for the host looks prompts up by them."""
        moved: dict[str, Any] = {n: x.to(device) for n, x in vars(self).items() if isinstance(x, torch.Tensor)}
        return dataclasses.replace(self, **moved)


class Learner(nn.Module):
    """U-Net, text encoder, VAE, photo encoder or none, and learnt loss weights; `forward` gives a batch's losses."""

    alphas_cumprod: torch.Tensor  # (T,) float32

    def __init__(
        self,
        unet: UNet2DConditionModel,
        tokenizer: CLIPTokenizer,
        text_encoder: CLIPTextModel,
        vae: AutoencoderKL | AutoencoderTiny,
        alphas_cumprod: torch.Tensor,
        prediction_type: str,
        settings: TrainSettings,
        photo_encoder: PhotoEncoder | None = None,
    ) -> None:
        super().__init__()
        self.unet, self.text_encoder, self.vae, self.photo_encoder = unet, text_encoder, vae, photo_encoder
        self.prediction_type, self.settings = prediction_type, settings
        self.register_buffer("alphas_cumprod", alphas_cumprod.float(), persistent=False)
        learned = settings.lab_weighting == "learned" and settings.lab_weight > 0
        self.log_variances = nn.Parameter(torch.zeros(2)) if learned else None
        self._embedder = TextEmbedder(tokenizer, text_encoder)

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """`loss` to minimize, and its parts `noise_loss` and (where trained) `lab_loss`, all scalars."""
        alpha, sigma = alpha_sigma(self.alphas_cumprod, batch.timesteps)
        target = prediction_target(self.prediction_type, batch.latents, batch.noise, alpha, sigma)
        noisy = alpha * batch.latents + sigma * batch.noise
        prediction = self.predict(noisy, batch)
        weight = snr_weight(alpha, sigma, self.settings.min_snr_gamma, self.prediction_type)
        losses = {"noise_loss": noise_loss(prediction, target, weight)}
        lab = None
        if batch.truth is not None:
            lab = losses["lab_loss"] = self.lab_error(prediction, noisy, batch.truth, alpha, sigma)
        losses["loss"] = joined_loss(losses["noise_loss"], lab, self.settings.lab_weight, self.log_variances)
        return losses

    def predict(self, noisy: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The U-Net's answer, (B, 4, h, w), with the condition as channels 4 to 7."""
        embeds = self._embedder.embed(batch.tokens)[batch.prompt_of]
        seen = unet_arguments(self.look_at(batch))
        return self.unet(torch.cat([noisy, batch.condition], dim=1), batch.timesteps, embeds, **seen).sample

    def look_at(self, batch: Batch) -> Residuals | None:
        """What the photo encoder, which stays as it is, sees in the batch's photos; zeros where one is dropped."""
        if self.photo_encoder is None:
            return None
        if batch.grays is None:
            raise ValueError("the photo encoder has nothing to look at: the batch is without grays")
        residuals = self.photo_encoder(gray_pixels(batch.grays))
        return tuple(residual * batch.shown.view(-1, 1, 1, 1) for residual in residuals)

    def lab_error(
        self,
        prediction: torch.Tensor,
        noisy: torch.Tensor,
        truth: torch.Tensor,
        alpha: torch.Tensor,
        sigma: torch.Tensor,
    ) -> torch.Tensor:
        """LAB loss of the decoded estimate of the first L pairs.

        From epsilon, the estimate divides by alpha, so near pure noise its error is all amplification: alpha² weighs
        that down. A v-prediction's estimate is bounded, and counts in full.
        """
        count = len(truth)
        alpha, sigma = alpha[:count], sigma[:count]
        safe = alpha.clamp(min=1e-3) if self.prediction_type == "epsilon" else alpha
        estimate = predicted_latents(self.prediction_type, prediction[:count].float(), noisy[:count], safe, sigma)
        weight = alpha.square() if self.prediction_type == "epsilon" else torch.ones_like(alpha)
        return lab_loss(decode(self.vae, estimate), truth, weight)


def draw_noise(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal noise of its own seed, float32 on the CPU: the same on every device and in every batch."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
