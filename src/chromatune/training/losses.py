"""Losses of fine-tuning: weighted noise (or v) error, CIELAB error of the decoded estimate, weights of the two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chromatune.errors import MissingExtraError

if TYPE_CHECKING:
    import torch

LAB_SCALE = 25.0  # CIELAB errors are divided by this before they are squared: a wrong color then costs about one


def snr_weight(alpha: torch.Tensor, sigma: torch.Tensor, gamma: float | None, prediction_type: str) -> torch.Tensor:
    """Min-SNR-γ weight of each sample's loss, the shape of `alpha`; ones where `gamma` is None.

    Hang et al., arXiv 2303.09556, section 3.4: min(SNR, γ)/SNR for epsilon, min(SNR, γ)/(SNR + 1) for v. At zero
    terminal SNR the latter is 0, and color would never be decided, so the v weight has γ/(γ + 1) as its floor there.
    """
    import torch

    if gamma is None:
        return torch.ones_like(alpha)
    snr = (alpha / sigma).square()
    if prediction_type == "v_prediction":
        return torch.where(snr > 0, snr.clamp(max=gamma) / (snr + 1), torch.full_like(snr, gamma / (gamma + 1)))
    return snr.clamp(max=gamma) / snr.clamp(min=1e-12)


def noise_loss(prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of each sample's weighted mean squared error; (B, 4, h, w) and (B, 1, 1, 1) -> scalar."""
    return ((prediction.float() - target.float()).square() * weight).mean()


def lab_loss(rgb: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted squared CIELAB error in units of `LAB_SCALE`, float32: (B, 3, H, W) sRGB 0..1 twice -> scalar.

    The paper's LAB error subtracts bytes, which wrap modulo 256; this one never leaves floats. Values beyond the
    gamut are clamped a little inside it, where CIELAB has a gradient, and pulled back by a term of their own.

    Raises:
        MissingExtraError: kornia is not installed.
    """
    try:
        from kornia.color import rgb_to_lab
    except ImportError:
        raise MissingExtraError("the LAB loss", "train") from None
    rgb, truth = rgb.float(), truth.float()
    inside = rgb.clamp(1e-3, 1.0)
    error = (rgb_to_lab(inside) - rgb_to_lab(truth.clamp(1e-3, 1.0))) / LAB_SCALE
    outside = (rgb - rgb.clamp(0.0, 1.0)).square().mean(dim=1, keepdim=True)
    return ((error.square().sum(dim=1, keepdim=True) + outside) * weight).mean()


def joined_loss(
    noise: torch.Tensor, lab: torch.Tensor | None, lab_weight: float, log_variances: torch.Tensor | None
) -> torch.Tensor:
    """One scalar of the two losses: `noise + lab_weight · lab`, or weighed by learnt uncertainties.

    Kendall et al., arXiv 1705.07115, equation 10: the sum of exp(-s_i) L_i + s_i with s_i = log σ_i², (2,) learnt.
    """
    if lab is None:
        return noise
    if log_variances is None:
        return noise + lab_weight * lab
    precision = (-log_variances).exp()
    return precision[0] * noise + precision[1] * lab_weight * lab + log_variances.sum()
