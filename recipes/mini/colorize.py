"""Stage 4: `mini`, the U-Net of `mini-base` fine-tuned to colorize; autoencoder and text encoder stay frozen."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from attributes import WORDS, attribute_prompt, retouched, said
from autoencoder import chroma_latents
from diffusers import AutoencoderTiny, UNet2DConditionModel
from editor import Editor, drop_conditions, make_scheduler, sample_raw
from loop import share_of, train
from photos import Pack, center_square, crop_batches, set_of
from transformers import CLIPTokenizer

from chromatune import prompts
from chromatune.color import luma
from chromatune.data import make_gray, random_gray
from chromatune.pipeline import (
    PhotoEncoder,
    TextEmbedder,
    alpha_sigma,
    encode_moments,
    mode_of,
    prediction_target,
    to_pixels,
    unet_arguments,
)

LEAST_ERROR = 0.02  # about 2 units of a, b, squared, in latent units: photos nearer than this are near enough
LEAST_TEXT_SPREAD = 0.1  # of a direction of text states, on a scale where the largest is about 7: below it is noise
Batch = tuple[np.ndarray, np.ndarray, list[str]]  # grays and colors, (B, H, W, 3) uint8, and instructions


def gray_u8(gray: np.ndarray) -> np.ndarray:
    """(H, W) float32 0..1 -> (H, W, 3) uint8, the same value three times."""
    return np.repeat(np.rint(gray * 255).astype(np.uint8)[..., None], 3, axis=2)


def training_batches(photos: Pack, settings: dict[str, Any], size_px: int, first_step: int) -> Iterator[Batch]:
    """Endless pairs with instructions; batch k depends on the seed, k and the process alone."""
    crops = crop_batches(
        photos, size_px, share_of(settings["batch"]), settings["seed"], first_step, settings["zoom"], settings["tilted"]
    )
    for colors, rng in crops:
        grays, texts = [], []
        for index, color in enumerate(colors):
            text = prompts.COLORIZE_PROMPTS[int(rng.integers(len(prompts.COLORIZE_PROMPTS)))]
            draw = rng.random()
            if draw < settings["retouched_share"]:
                word = WORDS[int(rng.integers(len(WORDS)))]
                text, colors[index] = said(text, word, rng), retouched(color, word, rng)
                color = colors[index]
            elif draw < settings["retouched_share"] + settings["attribute_share"]:
                text = attribute_prompt(text, color, rng)
            grays.append(gray_u8(random_gray(color.astype(np.float32) / 255, rng, settings["plain_share"])))
            texts.append(text)
        yield np.stack(grays), np.stack(colors), texts


class Painter(torch.nn.Module):
    """What is trained: a U-Net, and a photo encoder where there is one."""

    def __init__(self, unet: UNet2DConditionModel, photo_encoder: PhotoEncoder | None) -> None:
        super().__init__()
        self.unet, self.photo_encoder = unet, photo_encoder

    def residuals(self, grays: torch.Tensor, used: torch.Tensor, unseen: torch.Tensor) -> dict[str, Any]:
        """Arguments for the U-Net: (B, 3, H, W) grays 0..1, each seen once, and used for N passes.

        Args:
            grays: photos.
            used: (N,) int64, which photo each pass is of.
            unseen: (N,) bool, passes that are to do without.
        """
        if self.photo_encoder is None:
            return {}
        keep = (~unseen).to(grays.device).view(-1, 1, 1, 1)
        return unet_arguments([each[used.to(each.device)] * keep for each in self.photo_encoder(grays)])


@torch.no_grad()
def show_all_of_the_text(unet: UNet2DConditionModel, embed: TextEmbedder, share: float, seed: int) -> None:
    """Adds random projections of the whitened text states to the keys and values of the cross-attention, in place.

    The states of a text encoder trained briefly lie near one line: "pink" is nearer to "orange" than two seeds of
    noise are, and gradients on the U-Net hardly find the rest. Whitened, all directions count alike.

    Args:
        unet: to be trained.
        embed: text encoder.
        share: of the standard deviation that keys and values have, for what is added.
        seed: of the projections.
    """
    texts = [said(prompt, word, np.random.default_rng(0)) for prompt in prompts.COLORIZE_PROMPTS for word in WORDS]
    states = embed(*texts)
    states = states.reshape(-1, states.shape[-1]).double()  # (N, C)
    mean = states.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((states - mean).T))
    whiten = vectors @ torch.diag((values.clamp_min(0) + LEAST_TEXT_SPREAD**2).rsqrt()) @ vectors.T
    shared = whiten @ mean  # says nothing; taken out after whitening, for before it the long directions would leak
    whiten -= torch.outer(shared, shared @ whiten) / shared.dot(shared)
    generator = torch.Generator().manual_seed(seed)
    for name, module in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            weight = module.weight
            spread = (states @ weight.double().T).std(0).mean()
            added = torch.randn(weight.shape, generator=generator).to(whiten) @ whiten
            added *= share * spread / (states @ added.T).std(0).mean()
            weight += added.to(weight)


def draw_timesteps(count: int, spread: int, last: int, generator: torch.Generator) -> torch.Tensor:
    """(count + spread,) int64: each pair at the last timestep, where color is decided, then `spread` of all others.

    The others are spread evenly over 0..last and shuffled. Two encoder passes are a good part of what a pair costs, so
    some pairs are used twice or more.
    """
    spots = (torch.randperm(spread, generator=generator) + torch.rand(spread, generator=generator)) / max(1, spread)
    return torch.cat([torch.full((count,), last), (spots * last).long()])


def log_error(errors: torch.Tensor) -> torch.Tensor:
    """(B,) squared errors of photos -> (B,), their logarithms, with gradients as large as the errors' own on average.

    What one step gives is judged by the mean PSNR, in which each photo counts by its error's logarithm. The squared
    error counts the most colorful photos most, and what is learnt is too sure of itself on all others.
    """
    return errors.mean().detach() * torch.log(errors + LEAST_ERROR)


def train_colorizer(
    vae: AutoencoderTiny, tokenizer: CLIPTokenizer, base: Editor, photos: Pack, validation: Pack,
    settings: dict[str, Any], kinds: dict[str, list[str]], size_px: int, work: Path,
    photo_encoder: PhotoEncoder | None = None,
) -> Painter:  # fmt: skip
    """Trains stage 4 from `base`'s U-Net, or loads it where it is finished; previews tell `kinds` of photos apart.

    A photo encoder is trained along, its pretrained part at `encoder_lr` of the learning rate.
    """
    torch.manual_seed(settings["seed"])
    painter = Painter(copy.deepcopy(base.unet), copy.deepcopy(photo_encoder)).requires_grad_(True)
    painter.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out
    unet = painter.unet
    embed = TextEmbedder(tokenizer, base.text_encoder)
    show_all_of_the_text(unet, embed, settings["text_share"], settings["seed"])
    alphas_cumprod = make_scheduler().alphas_cumprod

    def step_loss(batch: Batch, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        gray, color, texts = batch
        with torch.no_grad():
            both = mode_of(encode_moments(vae, to_pixels(np.concatenate([gray, color])).to(vae.device)))
        spread = round((settings["repeats"] - 1) * len(gray))
        used = torch.arange(len(gray) + spread) % len(gray)  # (N,): which pair, N = repeats · B
        condition, latents = (half[used.to(half.device)] for half in both.chunk(2))  # (N, 4, h, w)
        texts = [texts[index] for index in used.tolist()]
        device = latents.device
        no_text, no_image = drop_conditions(len(texts), settings["dropout"], generator)
        texts = ["" if dropped else text for text, dropped in zip(texts, no_text.tolist(), strict=True)]
        condition = condition * (~no_image).to(device).view(-1, 1, 1, 1)
        unseen = no_image | (torch.rand(len(no_image), generator=generator) < settings["unseen_share"])
        residuals = painter.residuals(to_pixels(gray).to(device), used, unseen)
        timesteps = draw_timesteps(len(gray), spread, len(alphas_cumprod) - 1, generator)
        alpha, sigma = (x.to(device) for x in alpha_sigma(alphas_cumprod, timesteps))
        noise = torch.randn(latents.shape, generator=generator).to(device)
        target = prediction_target("v_prediction", latents, noise, alpha, sigma)
        noisy = torch.cat([alpha * latents + sigma * noise, condition], dim=1)  # (N, 8, h, w)
        prediction = unet(noisy, timesteps.to(device), embed(*texts), **residuals).sample
        error = prediction - target
        chroma = chroma_latents(error).square().mean(dim=(1, 2, 3))  # (N,)
        plain = error.square().mean()
        at_last, elsewhere = chroma[: len(gray)], chroma[len(gray) :]
        weighed = (log_error(at_last).sum() + elsewhere.sum()) / len(chroma)
        loss = plain + settings["chroma_weight"] * weighed
        logged = {"loss": loss, "v": plain, "chroma": chroma.mean(), "chroma_last": at_last.mean()}
        return loss, {key: value.item() for key, value in logged.items()}

    def preview(step: int) -> None:
        write_preview(vae, painter, embed, validation, kinds, size_px, work, step)

    stream = lambda first_step: training_batches(photos, settings, size_px, first_step)  # noqa: E731
    shares = {"photo_encoder.projections.": 1.0, "photo_encoder.": settings["encoder_lr"]}
    train("colorizer", painter, stream, step_loss, settings, work, preview, shares)
    return painter.requires_grad_(False)


def write_preview(
    vae: AutoencoderTiny, painter: Painter, embed: TextEmbedder, validation: Pack,
    kinds: dict[str, list[str]], size_px: int, work: Path, step: int, each: int = 24,
) -> None:  # fmt: skip
    """Up to `each` validation photos of every kind: PSNR above gray and mean chroma, logged, and a sheet of four each.

    `kinds` maps a kind to its sets; photos of no kind are "other".
    """
    kind_of = {name: kind for kind, sets in kinds.items() for name in sets}
    members: dict[str, list[int]] = {}
    for index, file in enumerate(validation.files):
        members.setdefault(kind_of.get(set_of(file), "other"), []).append(index)
    report: dict[str, dict[str, float]] = {}
    shown = []
    for kind, indices in sorted(members.items()):
        chosen = [indices[i] for i in np.linspace(0, len(indices) - 1, min(each, len(indices))).astype(int)]
        truth_u8 = np.stack([center_square(validation.photo(i), size_px) for i in chosen])
        truth = truth_u8.astype(np.float32) / 255
        gray = np.stack([make_gray(photo) for photo in truth])
        grays_u8 = np.stack([gray_u8(photo) for photo in gray])
        passed = _psnr(np.repeat(gray[..., None], 3, axis=3), truth)
        report[kind] = {"chroma_truth": _mean_chroma(truth)}
        rows = [truth_u8]
        for steps in (1, 2, 4):
            asked = embed(*[prompts.DEFAULT_PROMPT] * len(gray))
            raw = sample_raw(vae, painter.unet, grays_u8, asked, steps, painter.photo_encoder)
            result = np.clip(raw - np.stack([luma(photo) for photo in raw])[..., None] + gray[..., None], 0, 1)
            report[kind] |= {f"gain_{steps}": _psnr(result, truth) - passed, f"chroma_{steps}": _mean_chroma(result)}
            rows.append((result * 255).round().astype(np.uint8))
        shown.append(np.concatenate([np.concatenate(list(row[:4]), axis=1) for row in rows]))
    rounded = {kind: {key: round(value, 2) for key, value in row.items()} for kind, row in report.items()}
    with (work / "colorizer-validation.jsonl").open("a") as log:
        log.write(json.dumps({"step": step, **rounded}) + "\n")
    sheet = np.concatenate([np.pad(each, ((0, 0), (0, 4 * size_px - each.shape[1]), (0, 0))) for each in shown], axis=1)
    cv2.imwrite(str(work / "colorizer.png"), sheet[..., ::-1])


def _psnr(result: np.ndarray, truth: np.ndarray) -> float:
    return float((-10 * np.log10(((result - truth) ** 2).mean(axis=(1, 2, 3)))).mean())


def _mean_chroma(photos: np.ndarray) -> float:
    lab = [cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2LAB) for rgb in photos]
    return float(np.mean([np.hypot(photo[..., 1], photo[..., 2]).mean() for photo in lab]))
