"""Schedule maths shared by sampling and training: what a U-Net's output means at a timestep.

Notation: z_t = alpha_t z_0 + sigma_t eps with alpha_t² + sigma_t² = 1 (variance preserving).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def alpha_sigma(
    alphas_cumprod: torch.Tensor, timesteps: torch.Tensor, ndim: int = 4
) -> tuple[torch.Tensor, torch.Tensor]:
    """alpha_t and sigma_t, each (B, 1, 1, 1) float32, for (B,) integer timesteps."""
    alpha_bar = alphas_cumprod.to(timesteps.device)[timesteps].float()
    shape = (-1,) + (1,) * (ndim - 1)
    return alpha_bar.sqrt().view(shape), (1 - alpha_bar).sqrt().view(shape)


def prediction_target(
    kind: str, latents: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """What the U-Net should answer, (B, C, h, w): eps, z_0, or v = alpha eps - sigma z_0.

    v is from Salimans and Ho, arXiv 2202.00512, appendix D.

    Raises:
        ValueError: `kind` is none of `PREDICTION_TYPES`.
    """
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return alpha * noise - sigma * latents
    if kind == "sample":
        return latents
    raise ValueError(f"prediction type {kind!r}; accepted: {', '.join(PREDICTION_TYPES)}")


def predicted_latents(
    kind: str, prediction: torch.Tensor, noisy: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """The estimate of z_0 that a U-Net output stands for, (B, C, h, w).

    Raises:
        ValueError: `kind` is none of `PREDICTION_TYPES`, or epsilon where alpha is zero (no signal is left).
    """
    if kind == "epsilon":
        if bool((alpha == 0).any()):
            raise ValueError("an epsilon model cannot start from zero terminal SNR: use v_prediction")
        return (noisy - sigma * prediction) / alpha
    if kind == "v_prediction":
        return alpha * noisy - sigma * prediction
    if kind == "sample":
        return prediction
    raise ValueError(f"prediction type {kind!r}; accepted: {', '.join(PREDICTION_TYPES)}")


def zero_terminal_snr_config(num_train_timesteps: int = 1000) -> dict[str, Any]:
    """Settings for diffusers' schedulers: SD's betas rescaled to zero terminal SNR, v, trailing timesteps.

    Lin et al., arXiv 2305.08891, algorithm 1 (rescaling) and section 3.3 (trailing).
    """
    return {
        "num_train_timesteps": num_train_timesteps,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "prediction_type": "v_prediction",
        "clip_sample": False,
        "set_alpha_to_one": True,
    }
