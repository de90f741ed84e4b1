"""Stage 1: an AutoencoderTiny whose latents keep luminance (channels 0, 1) and chroma (2, 3) apart.

The U-Net's loss can then weigh chroma by channel, and a grey photo's latents differ from its colour version's
in two channels only. Channels 0, 2, 3 stay near the block means of CIELAB L, a, b, so they are close to linear
in colour and an average of plausible colours decodes to their average; channel 1 is free for detail, and is taught in a
second run (`hint_loss`) to hold what colour depends on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import kornia
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from loop import device, train
from photos import Pack, batches, centre_square

from chromatune.color import LUMA_WEIGHTS


def make_vae(settings: dict[str, Any]) -> AutoencoderTiny:
    """An untrained autoencoder: 8 times smaller, 4 latent channels."""
    width = settings["width"]
    return AutoencoderTiny(
        encoder_block_out_channels=(width,) * 4,
        decoder_block_out_channels=(width,) * 4,
        num_encoder_blocks=tuple(settings["encoder_blocks"]),
        num_decoder_blocks=tuple(settings["decoder_blocks"]),
        latent_channels=4,
        scaling_factor=1.0,
    )


def grey_of(rgb: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) sRGB -> the same shape, Rec.601 luma in all three channels."""
    weights = torch.tensor(LUMA_WEIGHTS, device=rgb.device, dtype=rgb.dtype).view(1, 3, 1, 1)
    return (rgb * weights).sum(dim=1, keepdim=True).expand_as(rgb)


def loss_of(vae: AutoencoderTiny, rgb: torch.Tensor, settings: dict[str, Any]) -> tuple[torch.Tensor, dict[str, float]]:
    """Reconstruction in CIELAB with chroma weighted, plus the structure of the latents.

    `rgb` is (B, 3, H, W) float32, sRGB 0..1; the first `grey_share` of the batch is shown grey.
    """
    greys = max(1, round(len(rgb) * settings["grey_share"]))
    paired = rgb[greys : 2 * greys]  # colour photos whose grey twins stand first
    photo = torch.cat([grey_of(paired), rgb[greys:]])
    latents = vae.encode(photo * 2 - 1).latents  # (B, 4, h, w)
    decoded = (vae.decode(latents).sample + 1) / 2
    lab, target = (kornia.color.rgb_to_lab(image.clamp(1e-3, 1.0)) for image in (decoded, photo))
    out_of_range = (decoded - decoded.clamp(0, 1)).abs().mean()
    luma_error = (lab[:, :1] - target[:, :1]).abs().mean()
    # The Charbonnier root keeps small errors quadratic: chroma noise on flat areas is what the eye finds.
    chroma_error = ((lab[:, 1:] - target[:, 1:]).square().sum(dim=1) + 1.0).sqrt().mean() - 1.0
    block_lab = F.avg_pool2d(target, 8)
    block_luma = (block_lab[:, :1] - 50) * settings["luma_scale"]
    chroma_structure = (latents[:, 2:] - block_lab[:, 1:] * settings["chroma_scale"]).square().mean()
    luma_structure = (latents[:, :1] - block_luma).square().mean()
    grey_twins = (latents[:greys, :2] - latents[greys : 2 * greys, :2]).square().mean()
    detail = latents[:, 1]
    unit = detail.mean().square() + (detail.var() - 1).square()
    structure = chroma_structure + luma_structure + grey_twins + 0.1 * unit
    loss = luma_error + settings["chroma_weight"] * chroma_error
    loss = loss / 10 + settings["structure_weight"] * structure + 10 * out_of_range
    parts = {"luma": luma_error, "chroma": chroma_error, "chroma_structure": chroma_structure}
    parts |= {"luma_structure": luma_structure, "grey_twins": grey_twins, "unit": unit}
    return loss, {key: value.item() for key, value in parts.items()}


class Hinted(torch.nn.Module):
    """The autoencoder with a small head that guesses chroma from a grey photo's two luminance channels."""

    def __init__(self, vae: AutoencoderTiny, width: int = 64) -> None:
        super().__init__()
        self.vae = vae
        self.head = torch.nn.Sequential(
            torch.nn.Conv2d(2, width, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(width, width, 3, padding=2, dilation=2),
            torch.nn.ReLU(),
            torch.nn.Conv2d(width, width, 3, padding=4, dilation=4),
            torch.nn.ReLU(),
            torch.nn.Conv2d(width, 2, 1),
        )


def hint_loss(hinted: Hinted, rgb: torch.Tensor, scale: float) -> torch.Tensor:
    """Squared error of the chroma guessed from the grey photos' channels 0 and 1, in latent units.

    Two numbers an 8 × 8 block cannot hold its texture. Its pixels alone would spend channel 1 on gradients; this
    makes the encoder, which still sees every pixel, put there what colour depends on (leaf or cloth, skin or wall).
    """
    latents = hinted.vae.encode(grey_of(rgb) * 2 - 1).latents
    block_ab = F.avg_pool2d(kornia.color.rgb_to_lab(rgb.clamp(1e-3, 1.0))[:, 1:], 8) * scale
    return (hinted.head(latents[:, :2]) - block_ab).square().mean()


def to_tensor(rgb_u8: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32, sRGB 0..1."""
    return torch.from_numpy(np.ascontiguousarray(rgb_u8)).to(device()).permute(0, 3, 1, 2).float() / 255


def recomposed_psnr(rgb: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean PSNR in dB after the result's luma is replaced by the truth's."""
    result = (rgb - grey_of(rgb) + grey_of(truth)).clamp(0, 1)
    return float((-10 * (result - truth).square().mean(dim=(1, 2, 3)).log10()).mean())


@torch.no_grad()
def measure(vae: AutoencoderTiny, validation: Pack, size_px: int, count: int = 96) -> dict[str, float]:
    """Reconstruction of held-out photos: PSNR raw, recomposed, and of their grey versions."""
    photos = np.stack([centre_square(validation.photo(i), size_px) for i in range(min(count, len(validation.files)))])
    truth = to_tensor(photos)
    decoded = ((vae.decode(vae.encode(truth * 2 - 1).latents).sample + 1) / 2).clamp(0, 1)
    raw = float((-10 * (decoded - truth).square().mean(dim=(1, 2, 3)).log10()).mean())
    return {"psnr_raw": raw, "psnr_recomposed": recomposed_psnr(decoded, truth)}


def train_vae(
    photos: Pack, validation: Pack, settings: dict[str, Any], hints: dict[str, Any], size_px: int, work: Path
) -> AutoencoderTiny:
    """Trains stage 1, first for reconstruction, then with hints of colour; or loads it where it is finished."""
    torch.manual_seed(settings["seed"])
    vae = make_vae(settings).to(memory_format=torch.channels_last)

    def stream(first_step: int) -> Iterator[np.ndarray]:
        return batches(photos, size_px, settings["batch"], settings["seed"], first_step)

    def preview(step: int) -> None:
        print("vae", step, measure(vae, validation, size_px), flush=True)
        truth = to_tensor(
            np.stack([centre_square(validation.photo(i), size_px) for i in range(min(8, len(validation.files)))])
        )
        with torch.no_grad():
            decoded = ((vae.decode(vae.encode(truth * 2 - 1).latents).sample + 1) / 2).clamp(0, 1)
        sheet = torch.cat([truth, decoded]).permute(0, 2, 3, 1).cpu().numpy()
        rows = [np.concatenate(list(sheet[i : i + len(truth)]), axis=1) for i in (0, len(truth))]
        picture = (np.concatenate(rows)[..., ::-1] * 255).round().astype(np.uint8)
        cv2.imwrite(str(work / "vae.png"), picture)

    def step_loss(batch: np.ndarray, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rgb = to_tensor(batch).contiguous(memory_format=torch.channels_last)
        return loss_of(vae, rgb, settings)

    train("vae", vae, stream, step_loss, settings, work, preview)
    hinted = Hinted(vae).to(memory_format=torch.channels_last)

    def hinted_loss(batch: np.ndarray, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rgb = to_tensor(batch).contiguous(memory_format=torch.channels_last)
        loss, parts = loss_of(vae, rgb, settings)
        hint = hint_loss(hinted, rgb, settings["chroma_scale"])
        return loss + hints["weight"] * hint, parts | {"hint": hint.item()}

    train("hints", hinted, stream, hinted_loss, hints, work, preview)
    return vae.requires_grad_(False)
