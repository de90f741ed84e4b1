"""Stages 2 and 3: tokenizer, text encoder and the U-Net of `mini-base`, an editor that cannot colorize yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from edits import EDITS, random_edit
from loop import rank, share_of, train, wait_for_all
from photos import Pack, center_square, crop_batches
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from chromatune import prompts
from chromatune.files import atomic_folder
from chromatune.pipeline import (
    PhotoEncoder,
    TextEmbedder,
    alpha_sigma,
    decode,
    encode_moments,
    mode_of,
    prediction_target,
    to_pixels,
    unet_arguments,
    zero_terminal_snr_config,
)

TOKENS = 77  # what the stock pipeline pads prompts to
PREVIEW_PROMPTS = (
    "make it sepia", "invert the image", "make it brighter", "tint it blue", "flip it horizontally",
    "blur the image", "make it black and white", "colorize the photo",
)  # fmt: skip

# Words users say to a colorizer, so that they are whole tokens rather than letters.
SCENE_WORDS = """
sky sea water grass tree trees leaves leaf forest garden flower flowers rose beach sand snow mountain street road city
house wall brick wood wooden stone metal glass car dress shirt suit tie jacket coat hat skirt uniform shoes hair eyes
lips skin face blond blonde brown black white gray grey dark light golden silver red orange yellow green cyan turquoise
blue navy purple violet pink magenta beige background foreground portrait family wedding child children baby man woman
boy girl people dog cat horse bird food fruit apple autumn winter summer spring sunset sunrise night day morning indoor
outdoor vintage old film kodachrome realistic natural vivid muted warm cool pastel bright colorful dull saturated soft
""".split()


def corpus() -> list[str]:
    """Every instruction the two models are trained with, and words users may add."""
    words = [prompt for kind in EDITS for prompt in kind.prompts]
    words += [*prompts.COLORIZE_PROMPTS, *prompts.NAMED_HUES, "warm", "cool", "vivid", "muted"]
    words += [form.format(hue) for form in prompts.HUE_FORMS + prompts.ATTRIBUTE_FORMS for hue in prompts.NAMED_HUES]
    return words * 20 + SCENE_WORDS * 4


def make_tokenizer(settings: dict[str, Any]) -> CLIPTokenizer:
    """A byte-level BPE in CLIP's format, trained on the corpus; any text can be encoded."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE(unk_token=end, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=settings["vocab"],
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    state = tokenizer.to_str()
    return _clip_tokenizer(state, alphabet, start, end)


def _clip_tokenizer(state: str, alphabet: list[str], start: str, end: str) -> CLIPTokenizer:
    """The trained BPE as CLIP's tokenizer: every byte, alone and at a word's end, then merges, then the marks."""
    import json

    bpe = json.loads(state)["model"]
    known = list(alphabet) + [f"{letter}</w>" for letter in alphabet]
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in bpe["merges"]]
    seen = set(known)
    for left, right in merges:
        if left + right not in seen:
            seen.add(left + right)
            known.append(left + right)
    vocab = {token: index for index, token in enumerate([*known, start, end])}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TOKENS)


def kept_tokenizer(settings: dict[str, Any], work: Path) -> CLIPTokenizer:
    """The tokenizer in the work folder, made at the first call.

    Kept, because the trainer breaks ties between equally common merges anew in every process: words outside the
    corpus would be cut differently after a restart.
    """
    folder = work / "tokenizer"
    if rank() == 0 and not folder.exists():
        with atomic_folder(folder) as new:
            make_tokenizer(settings).save_pretrained(new)
    wait_for_all()
    return CLIPTokenizer.from_pretrained(folder)


def make_text_encoder(tokenizer: CLIPTokenizer, settings: dict[str, Any]) -> CLIPTextModel:
    """An untrained CLIP text model over the tokenizer's vocabulary."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings["width"],
            intermediate_size=4 * settings["width"],
            num_hidden_layers=settings["layers"],
            num_attention_heads=settings["heads"],
            max_position_embeddings=TOKENS,
            projection_dim=settings["width"],
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_unet(settings: dict[str, Any], text_width: int, size_px: int) -> UNet2DConditionModel:
    """An untrained U-Net with 8 input channels: 4 noisy latents and the 4 of the photo to edit."""
    widths, attention = tuple(settings["widths"]), settings["attention"]
    return UNet2DConditionModel(
        sample_size=size_px // 8,
        in_channels=8,
        out_channels=4,
        block_out_channels=widths,
        layers_per_block=settings["layers"],
        down_block_types=tuple("CrossAttnDownBlock2D" if text else "DownBlock2D" for text in attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if text else "UpBlock2D" for text in reversed(attention)),
        cross_attention_dim=text_width,
        # diffusers reads this as the number of heads (its issue 2011 keeps the name).
        attention_head_dim=tuple(max(1, width // settings["head_dim"]) for width in widths),
        norm_num_groups=16,
    )


def make_scheduler() -> DDIMScheduler:
    """The schedule of both models: v-prediction, zero terminal SNR, trailing timesteps."""
    return DDIMScheduler(**zero_terminal_snr_config())


def drop_conditions(count: int, probability: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of `count` samples lose their text and their image: InstructPix2Pix's one-draw scheme, (B,) bool each."""
    draw = torch.rand(count, generator=generator)
    return draw < 2 * probability, (draw >= probability) & (draw < 3 * probability)


class Editor(torch.nn.Module):
    """U-Net and text encoder under one set of parameters, as stage 3 trains them together."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder


def train_base(
    vae: AutoencoderTiny,
    photos: Pack,
    validation: Pack,
    settings: dict[str, Any],
    all_settings: dict[str, Any],
    work: Path,
) -> tuple[CLIPTokenizer, Editor]:
    """Trains stages 2 and 3, or loads them where they are finished."""
    torch.manual_seed(settings["seed"])
    size_px = all_settings["size_px"]
    tokenizer = kept_tokenizer(all_settings["text"], work)
    text_encoder = make_text_encoder(tokenizer, all_settings["text"])
    unet = make_unet(all_settings["unet"], all_settings["text"]["width"], size_px).to(memory_format=torch.channels_last)
    editor = Editor(unet, text_encoder)
    embed = TextEmbedder(tokenizer, text_encoder)
    alphas_cumprod = make_scheduler().alphas_cumprod

    def stream(first_step: int) -> Iterator[tuple[np.ndarray, np.ndarray, list[str]]]:
        count = share_of(settings["batch"])
        for crops, rng in crop_batches(photos, size_px, count, settings["seed"], first_step):
            triples = [random_edit(crop, rng) for crop in crops]
            yield np.stack([t[0] for t in triples]), np.stack([t[1] for t in triples]), [t[2] for t in triples]

    def step_loss(
        batch: tuple[np.ndarray, np.ndarray, list[str]], generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, float]]:
        source_u8, edited_u8, texts = batch
        with torch.no_grad():
            both = mode_of(encode_moments(vae, to_pixels(np.concatenate([source_u8, edited_u8])).to(vae.device)))
        condition, latents = both.chunk(2)
        device = latents.device
        no_text, no_image = drop_conditions(len(texts), settings["dropout"], generator)
        texts = ["" if dropped else text for text, dropped in zip(texts, no_text.tolist(), strict=True)]
        condition = condition * (~no_image).to(device).view(-1, 1, 1, 1)
        # Equal instructions are encoded once.
        unique, inverse = np.unique(texts, return_inverse=True)
        embedded = embed(*(str(text) for text in unique))[torch.from_numpy(inverse).to(device)]
        timesteps = torch.randint(0, len(alphas_cumprod), (len(latents),), generator=generator)
        timesteps[torch.rand(len(latents), generator=generator) < 0.2] = len(alphas_cumprod) - 1
        alpha, sigma = (x.to(device) for x in alpha_sigma(alphas_cumprod, timesteps))
        noise = torch.randn(latents.shape, generator=generator).to(device)
        target = prediction_target("v_prediction", latents, noise, alpha, sigma)
        noisy = torch.cat([alpha * latents + sigma * noise, condition], dim=1)  # (B, 8, h, w)
        prediction = unet(noisy, timesteps.to(device), embedded).sample
        loss = (prediction - target).square().mean()
        return loss, {"loss": loss.item()}

    def preview(step: int) -> None:
        write_preview(vae, unet, embed, validation, size_px, work / "base.png")

    train("base", editor, stream, step_loss, settings, work, preview)
    return tokenizer, editor.requires_grad_(False)


@torch.no_grad()
def write_preview(
    vae: AutoencoderTiny, unet: UNet2DConditionModel, embed: TextEmbedder, validation: Pack, size_px: int, path: Path
) -> None:
    """A sheet: validation photos above, each after another instruction below."""
    shown = range(min(len(PREVIEW_PROMPTS), len(validation.files)))
    photos_u8 = np.stack([center_square(validation.photo(i), size_px) for i in shown])
    edited = sample_raw(vae, unet, photos_u8, embed(*PREVIEW_PROMPTS[: len(shown)]), steps=4)
    rows = [photos_u8, (edited * 255).round().astype(np.uint8)]
    cv2.imwrite(str(path), np.concatenate([np.concatenate(list(row), axis=1) for row in rows])[..., ::-1])


@torch.no_grad()
def sample_raw(
    vae: AutoencoderTiny, unet: UNet2DConditionModel, photos_u8: np.ndarray, embedded: torch.Tensor, steps: int,
    photo_encoder: PhotoEncoder | None = None,
) -> np.ndarray:  # fmt: skip
    """Raw previews without guidance: (B, H, W, 3) uint8 photos and (B, 77, C) instructions -> float32 sRGB 0..1."""
    device = unet.device
    scheduler = make_scheduler()
    scheduler.set_timesteps(steps)
    pixels, embedded = to_pixels(photos_u8).to(device), embedded.to(unet.dtype)
    condition = mode_of(encode_moments(vae, pixels.to(vae.dtype))).to(unet.dtype)
    residuals = unet_arguments(None if photo_encoder is None else photo_encoder(pixels))
    latents = torch.randn(condition.shape, generator=torch.Generator().manual_seed(0)).to(device)
    for timestep in scheduler.timesteps:
        prediction = unet(torch.cat([latents, condition], dim=1), timestep.to(device), embedded, **residuals).sample
        latents = scheduler.step(prediction, timestep, latents).prev_sample
    return decode(vae, latents.to(vae.dtype)).float().clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
