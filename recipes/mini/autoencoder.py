"""Stage 1: an AutoencoderTiny whose latents keep luminance and chroma apart.

Chroma is the 2 × 2 means of channels 2 and 3, tied to the block means of CIELAB a and b; all else is the same for a
photo and its gray twin. So the U-Net's loss can weigh chroma without decoding, and an average of plausible colors
decodes to their average. Channel 0 stays near block-mean L; channel 1 and the fine part of 2 and 3 are free for
detail, and are taught (`Hinted`) to hold what color depends on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from loop import share_of, train
from photos import Pack, center_square, crop_batches

from chromatune.color import LUMA_WEIGHTS
from chromatune.pipeline import decode, encode_moments, mode_of, to_pixels


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


def gray_of(rgb: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) sRGB -> the same shape, Rec.601 luma in all three channels."""
    weights = torch.tensor(LUMA_WEIGHTS, device=rgb.device, dtype=rgb.dtype).view(1, 3, 1, 1)
    return (rgb * weights).sum(dim=1, keepdim=True).expand_as(rgb)


def chroma_latents(latents: torch.Tensor) -> torch.Tensor:
    """(B, 4, h, w) -> (B, 2, h/2, w/2): the 2 × 2 means of channels 2 and 3, which stand for a and b."""
    return F.avg_pool2d(latents[:, 2:], 2)


def luma_latents(latents: torch.Tensor) -> torch.Tensor:
    """(B, 4, h, w) -> the same shape: the latents without their chroma, equal for a photo and its gray twin."""
    chroma = F.interpolate(chroma_latents(latents), scale_factor=2, mode="nearest")
    return torch.cat([latents[:, :2], latents[:, 2:] - chroma], dim=1)


class Hinted(torch.nn.Module):
    """The autoencoder with a head that guesses chroma from a gray photo's latents; the head is thrown away."""

    def __init__(self, vae: AutoencoderTiny, width: int = 64) -> None:
        super().__init__()
        self.vae = vae
        self.head = torch.nn.Sequential(
            torch.nn.Conv2d(4, width, 3, padding=1),
            *(layer for dilation in (1, 2, 4, 4) for layer in (torch.nn.ReLU(), _dilated(width, dilation))),
            torch.nn.ReLU(),
            torch.nn.Conv2d(width, 2, 1),
        )

    def hint_loss(self, gray_latents: torch.Tensor, block_ab: torch.Tensor) -> torch.Tensor:
        """Squared error of the guess against (B, 2, h, w) block means of a, b in latent units."""
        return (self.head(gray_latents) - block_ab).square().mean()


def _dilated(width: int, dilation: int) -> torch.nn.Conv2d:
    return torch.nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)


def loss_of(hinted: Hinted, rgb: torch.Tensor, settings: dict[str, Any]) -> tuple[torch.Tensor, dict[str, float]]:
    """Reconstruction in CIELAB with chroma weighted, the structure of the latents, and hints of color.

    `rgb` is (B, 3, H, W) float32, sRGB 0..1; each photo is shown in color and gray.
    """
    import kornia  # only this stage needs it

    vae, count = hinted.vae, len(rgb)
    photo = torch.cat([gray_of(rgb), rgb])
    latents = mode_of(encode_moments(vae, photo))  # (2 B, 4, h, w)
    decoded = decode(vae, latents)
    lab, target = (kornia.color.rgb_to_lab(image.clamp(1e-3, 1.0)) for image in (decoded, photo))
    out_of_range = (decoded - decoded.clamp(0, 1)).abs().mean()
    luma_error = (lab[:, :1] - target[:, :1]).abs().mean()
    # The Charbonnier root keeps small errors quadratic: chroma noise on flat areas is what the eye finds.
    chroma_error = ((lab[:, 1:] - target[:, 1:]).square().sum(dim=1) + 1.0).sqrt().mean() - 1.0
    block_lab = F.avg_pool2d(target, 8)
    block_ab = block_lab[:, 1:] * settings["chroma_scale"]
    chroma_structure = (chroma_latents(latents) - F.avg_pool2d(block_ab, 2)).square().mean()
    luma_structure = (latents[:, :1] - (block_lab[:, :1] - 50) * settings["luma_scale"]).square().mean()
    detail = luma_latents(latents)[:, 1:]
    # The color photo follows its gray twin, whose latents the hints shape.
    twins = (luma_latents(latents[count:]) - luma_latents(latents[:count])).square().mean()
    unit = (detail.mean(dim=(0, 2, 3)).square() + (detail.var(dim=(0, 2, 3)) - 1).square()).mean()
    hint = hinted.hint_loss(latents[:count], block_ab[count:])
    structure = 2 * chroma_structure + luma_structure + 4 * twins + 0.1 * unit
    loss = (luma_error + settings["chroma_weight"] * chroma_error) / 10 + 10 * out_of_range
    loss = loss + settings["structure_weight"] * structure + settings["hint_weight"] * hint
    terms = {"luma": luma_error, "chroma": chroma_error, "chroma_structure": chroma_structure, "hint": hint}
    terms |= {"luma_structure": luma_structure, "twins": twins, "unit": unit}
    return loss, {key: value.item() for key, value in terms.items()}


def recomposed_psnr(rgb: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean PSNR in dB after the result's luma is replaced by the truth's."""
    result = (rgb - gray_of(rgb) + gray_of(truth)).clamp(0, 1)
    return float((-10 * (result - truth).square().mean(dim=(1, 2, 3)).log10()).mean())


@torch.no_grad()
def reconstructed(vae: AutoencoderTiny, rgb: torch.Tensor) -> torch.Tensor:
    """What the autoencoder makes of photos: (B, 3, H, W) float32, sRGB 0..1, in and out."""
    return decode(vae, mode_of(encode_moments(vae, rgb))).clamp(0, 1)


@torch.no_grad()
def measure(vae: AutoencoderTiny, validation: Pack, size_px: int, count: int = 64) -> dict[str, float]:
    """Reconstruction of held-out photos: PSNR raw, recomposed, and of their gray versions."""
    photos = np.stack([center_square(validation.photo(i), size_px) for i in range(min(count, len(validation.files)))])
    truth = to_pixels(photos).to(vae.device)
    decoded = reconstructed(vae, truth)
    raw = float((-10 * (decoded - truth).square().mean(dim=(1, 2, 3)).log10()).mean())
    return {"psnr_raw": raw, "psnr_recomposed": recomposed_psnr(decoded, truth)}


def write_preview(vae: AutoencoderTiny, truth: torch.Tensor, path: Path) -> None:
    """A sheet: photos above, what the autoencoder makes of them below."""
    sides = (truth, reconstructed(vae, truth))
    rows = [np.concatenate(list(photos.permute(0, 2, 3, 1).cpu().numpy()), axis=1) for photos in sides]
    cv2.imwrite(str(path), (np.concatenate(rows)[..., ::-1] * 255).round().astype(np.uint8))


def train_vae(photos: Pack, validation: Pack, settings: dict[str, Any], size_px: int, work: Path) -> AutoencoderTiny:
    """Trains stage 1, or loads it where it is finished."""
    torch.manual_seed(settings["seed"])
    hinted = Hinted(make_vae(settings))
    hinted.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out

    def stream(first_step: int) -> Iterator[np.ndarray]:
        count = share_of(settings["batch"] // 2)
        for crops, _ in crop_batches(photos, size_px, count, settings["seed"], first_step, settings["zoom"]):
            yield np.stack(crops)

    def preview(step: int) -> None:
        print("vae", step, measure(hinted.vae, validation, size_px), flush=True)
        shown = [center_square(validation.photo(i), size_px) for i in range(min(8, len(validation.files)))]
        write_preview(hinted.vae, to_pixels(np.stack(shown)).to(hinted.vae.device), work / "vae.png")

    def step_loss(batch: np.ndarray, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rgb = to_pixels(batch).to(hinted.vae.device).contiguous(memory_format=torch.channels_last)
        return loss_of(hinted, rgb, settings)

    train("vae", hinted, stream, step_loss, settings, work, preview)
    return hinted.vae.requires_grad_(False)
