"""What is trained: the losses, the owner of a run's weights, and its optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from chromatune.errors import MissingExtraError
from chromatune.pipeline import (
    Pipeline,
    Residuals,
    TextEmbedder,
    alpha_sigma,
    decode,
    gray_pixels,
    predicted_latents,
    prediction_target,
    text_arguments,
    unet_arguments,
)
from chromatune.training.dataset import Batch
from chromatune.training.initial_model import select_trainable
from chromatune.training.settings import TrainSettings

MOST_PROMPTS_KEPT = 4096  # embeddings of a frozen text encoder, so that it reads most prompts of a set once
HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}  # types by the names that settings have for them
SHARDED = ("BasicTransformerBlock", "ResnetBlock2D")  # blocks of a U-Net that are split each by itself
LAB_SCALE = 25.0  # CIELAB errors are divided by this before they are squared: a wrong color then costs about one


def snr_weight(alpha: torch.Tensor, sigma: torch.Tensor, gamma: float | None, prediction_type: str) -> torch.Tensor:
    """Return the Min-SNR-γ weight of each sample's loss, the shape of `alpha`; ones where `gamma` is None.

    Hang et al., arXiv 2303.09556, section 3.4: min(SNR, γ)/SNR for epsilon, min(SNR, γ)/(SNR + 1) for v. At zero
    terminal SNR the latter is 0, and color would never be decided, so the v weight has γ/(γ + 1) as its floor there.
    """
    if gamma is None:
        return torch.ones_like(alpha)
    snr = (alpha / sigma).square()
    if prediction_type == "v_prediction":
        return torch.where(snr > 0, snr.clamp(max=gamma) / (snr + 1), torch.full_like(snr, gamma / (gamma + 1)))
    return snr.clamp(max=gamma) / snr.clamp(min=1e-12)


def noise_loss(prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the mean of each sample's weighted mean squared error; (B, 4, h, w) and (B, 1, 1, 1) -> scalar."""
    return ((prediction.float() - target.float()).square() * weight).mean()


def lab_loss(rgb: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the weighted squared CIELAB error in units of `LAB_SCALE`: (B, 3, H, W) sRGB 0..1 twice -> scalar.

    The paper's LAB error subtracts bytes, which wrap modulo 256; this one never leaves floats. Values beyond the
    gamut are clamped a little inside it, where CIELAB has a gradient, and pulled back by a term of their own.

    Raises:
        MissingExtraError: kornia is not installed.
    """
    try:
        from kornia.color import rgb_to_lab
    except ImportError:
        raise MissingExtraError("the LAB loss", "train") from None
    with torch.autocast(rgb.device.type, enabled=False):  # in bfloat16, a* would be off by more than two units
        rgb, truth = rgb.float(), truth.float()
        inside = rgb.clamp(1e-3, 1.0)
        error = (rgb_to_lab(inside) - rgb_to_lab(truth.clamp(1e-3, 1.0))) / LAB_SCALE
        outside = (rgb - rgb.clamp(0.0, 1.0)).square().mean(dim=1, keepdim=True)
        return ((error.square().sum(dim=1, keepdim=True) + outside) * weight).mean()


def combined_loss(
    noise: torch.Tensor, lab: torch.Tensor | None, lab_weight: float, log_variances: torch.Tensor | None
) -> torch.Tensor:
    """Return one scalar of the two losses: `noise + lab_weight · lab`, or weighed by learned uncertainties.

    Kendall et al., arXiv 1705.07115, equation 10: the sum of exp(-s_i) L_i + s_i with s_i = log σ_i², (2,) learned.
    """
    if lab is None:
        return noise
    if log_variances is None:
        return noise + lab_weight * lab
    precision = (-log_variances).exp()
    return precision[0] * noise + precision[1] * lab_weight * lab + log_variances.sum()


class Learner(nn.Module):
    """The owner of a run's weights: a pipeline's networks under one module. A batch in, its losses out."""

    alphas_cumprod: torch.Tensor  # (T,) float32

    def __init__(self, pipeline: Pipeline, settings: TrainSettings) -> None:
        """Freeze the pipeline's networks in place, all but what `settings.parts` names."""
        super().__init__()
        self.pipeline, self.settings = pipeline, settings
        self._trainable = select_trainable(pipeline, settings.parts, settings.lora_rank, settings.adapter)
        self.unet, self.text_encoder = pipeline.unet, pipeline.text_encoder
        self.vae, self.photo_encoder = pipeline.vae, pipeline.photo_encoder
        self.prediction_type: str = pipeline.scheduler.config.prediction_type
        self.register_buffer("alphas_cumprod", pipeline.scheduler.alphas_cumprod.float(), persistent=False)
        learned = settings.lab_weighting == "learned" and settings.lab_weight > 0
        self.log_variances = nn.Parameter(torch.zeros(2)) if learned else None
        if self.log_variances is not None:
            self._trainable.append(self.log_variances)
        self.embedder = TextEmbedder(pipeline.tokenizer, pipeline.text_encoder, most_kept=MOST_PROMPTS_KEPT)

    def checkpoint_gradients(self) -> None:
        """Have activations computed again for the backward pass: of the U-Net, and the VAE's decoder where it has one.

        At 512 px the decoder's are several times the U-Net's.
        """
        self.unet.enable_gradient_checkpointing()
        if self.settings.lab_weight > 0:
            self.vae.enable_gradient_checkpointing()

    @torch.no_grad()
    def halve_frozen(self, dtype: torch.dtype) -> None:
        """Give what is not trained another type, but for the encoders of photos, whose latents are the targets."""
        parts = (self.unet, self.vae.decoder, getattr(self.vae, "post_quant_conv", None), self.text_encoder)
        for part in filter(None, parts):
            for weight in part.parameters():
                if not weight.requires_grad:
                    weight.data = weight.data.to(dtype)

    def shard(self, device: torch.device) -> None:
        """Split the U-Net over the processes, block by block; each is gathered for its own pass alone.

        Its weights are other objects from here on.
        """
        names = list(self.trainable())
        self.unet.to(memory_format=torch.contiguous_format)  # no others are split
        mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
        for module in [each for each in self.unet.modules() if type(each).__name__ in SHARDED]:
            fully_shard(module, mesh=mesh)
        # Else what is left beside its blocks would stay gathered after a pass without gradients, whatever is put in it
        fully_shard(self.unet, mesh=mesh, reshard_after_forward=True)
        known = dict(self.named_parameters())
        self._trainable = [known[name] for name in names]

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return what is trained by its name, in the order of `select_trainable`, learned loss weights last."""
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        return {names[id(parameter)]: parameter for parameter in self._trainable}

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return `loss` to minimize, and its parts `noise_loss` and (where trained) `lab_loss`, all scalars."""
        kind, truth = self.prediction_type, batch.truth
        alpha, sigma = alpha_sigma(self.alphas_cumprod, batch.timesteps)
        target = prediction_target(kind, batch.latents, batch.noise, alpha, sigma)
        noisy = alpha * batch.latents + sigma * batch.noise
        prediction = self.predict(noisy, batch)
        weight = snr_weight(alpha, sigma, self.settings.min_snr_gamma, kind)
        losses = {"noise_loss": noise_loss(prediction, target, weight)}
        if truth is not None:  # of the first pairs: their estimates are decoded
            count = len(truth)
            alpha, sigma = alpha[:count], sigma[:count]
            # From epsilon, the estimate divides by alpha, so near pure noise its error is all amplification: alpha²
            # weighs that down. A v-prediction's estimate is bounded, and counts in full.
            safe = alpha.clamp(min=1e-3) if kind == "epsilon" else alpha
            weight = alpha.square() if kind == "epsilon" else torch.ones_like(alpha)
            drawn = prediction[:count].float()
            estimate = predicted_latents(kind, drawn, noisy[:count], safe, sigma, has_signal=True)
            losses["lab_loss"] = lab_loss(decode(self.vae, estimate), truth, weight)
        lab, lab_weight = losses.get("lab_loss"), self.settings.lab_weight
        losses["loss"] = combined_loss(losses["noise_loss"], lab, lab_weight, self.log_variances)
        return losses

    def predict(self, noisy: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the U-Net's prediction, (B, 4, h, w), with the condition as channels 4 to 7."""
        embeds = self.embedder.embed(batch.tokens) if batch.embeds is None else batch.embeds
        embeds = embeds[batch.prompt_of]
        residuals: Residuals | None = None
        if self.photo_encoder is not None:  # frozen
            if batch.grays is None:
                raise ValueError("the photo encoder needs the photos: the batch is without grays")
            shown = batch.has_photo.view(-1, 1, 1, 1)  # zeros where a photo is dropped
            residuals = tuple(residual * shown for residual in self.photo_encoder(gray_pixels(batch.grays)))
        channels = torch.cat([noisy, batch.condition], dim=1)
        sides = (self.pipeline.vae_factor * side for side in noisy.shape[2:])
        arguments = text_arguments(self.unet, embeds, *sides) | unet_arguments(residuals)
        return self.unet(channels, batch.timesteps, **arguments).sample


def make_optimizer(learner: Learner, settings: TrainSettings) -> torch.optim.Optimizer:
    """Return an optimizer over what is trained: the networks first, then learned loss weights at a rate of their own.

    The networks' rate is far too low for two scalars that must move by the ratio of the losses, and weight decay would
    pull them to one. Their rate stays constant.

    Raises:
        MissingExtraError: `adamw8bit` without bitsandbytes.
    """
    trainable = learner.trainable().values()
    loss_weights = [weight for weight in trainable if weight is learner.log_variances]
    networks = [weight for weight in trainable if weight is not learner.log_variances]
    groups: list[dict[str, Any]] = [{"params": networks, "lr": settings.lr, "weight_decay": settings.weight_decay}]
    if loss_weights:
        groups.append({"params": loss_weights, "lr": settings.loss_weights_lr, "weight_decay": 0.0})
    betas = (settings.beta1, settings.beta2)
    if settings.optimizer == "adafactor":  # torch's own takes its rate as a share of each weight's size
        from transformers.optimization import Adafactor

        return Adafactor(groups, lr=settings.lr, scale_parameter=False, relative_step=False)
    if settings.optimizer == "adamw8bit":
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError:
            raise MissingExtraError("AdamW of 8 bits", "lowmem") from None
        return AdamW8bit(groups, betas=betas)
    return torch.optim.AdamW(groups, betas=betas, fused=learner.alphas_cumprod.device.type in ("cpu", "cuda"))
