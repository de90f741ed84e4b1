"""Stage 4: `mini`, the U-Net of `mini-base` fine-tuned to colorize; autoencoder and text encoder stay frozen."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from attributes import WORDS, attribute_prompt, retouched, said
from autoencoder import chroma_latents
from critic import Adversary
from diffusers import AutoencoderTiny, UNet2DConditionModel
from editor import Editor, drop_conditions, make_scheduler, make_unet
from loop import Machine, draw_noise, rank, share_of, train
from photos import Pack, draw_crops, numbered
from transformers import CLIPTokenizer

from chromatune import prompts
from chromatune.data import random_gray
from chromatune.files import atomic_write
from chromatune.pipeline import (
    PhotoEncoder,
    TextEmbedder,
    alpha_sigma,
    encode_moments,
    gray_pixels,
    mode_of,
    places_of,
    prediction_target,
    unet_arguments,
)

LEAST_ERROR = 0.02  # about 2 units of a, b, squared, in latent units: photos nearer than this are near enough
LEAST_TEXT_SPREAD = 0.1  # of a direction of text states, on a scale where the largest is about 7: below it is noise
CRITIC_STRIDE = 16  # of the encoder's features that the critic sees: one a place of its chroma
PART_PAIRS = 32  # of a batch: what one loader makes at a time
Batch = tuple[torch.Tensor, torch.Tensor, list[str]]  # grays (B, H, W) and colors (B, H, W, 3), uint8; instructions


def gray_u8(gray: np.ndarray) -> np.ndarray:
    """(H, W) float32 0..1 -> (H, W) uint8."""
    return np.rint(gray * 255).astype(np.uint8)


def make_pairs(photos: Pack, settings: dict[str, Any], size_px: int, count: int, rng: np.random.Generator) -> Batch:
    """`count` pairs with instructions, all drawn from `rng`."""
    colors = draw_crops(photos, size_px, count, rng, settings["zoom"], settings["tilted"])
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
    return torch.from_numpy(np.stack(grays)), torch.from_numpy(np.stack(colors)), texts


def training_batches(
    photos: Pack, settings: dict[str, Any], size_px: int, first_step: int, machine: Machine
) -> Generator[Batch]:
    """Endless batches of pairs; batch k depends on the seed, k and the process alone.

    A batch is made in parts of `PART_PAIRS`, which several processes make at once.
    """
    count = share_of(settings["batch"])
    sizes = [min(PART_PAIRS, count - start) for start in range(0, count, PART_PAIRS)]

    def make(number: int) -> Batch:
        step, part = divmod(number, len(sizes))
        rng = np.random.default_rng((settings["seed"], step, rank(), part))
        return make_pairs(photos, settings, size_px, sizes[part], rng)

    with contextlib.closing(numbered(make, first_step * len(sizes), machine.loaders)) as made:
        while True:
            parts = list(itertools.islice(made, len(sizes)))
            grays, colors = (torch.cat([part[half] for part in parts]) for half in (0, 1))
            if machine.device.type == "cuda":
                grays, colors = grays.pin_memory(), colors.pin_memory()
            yield grays, colors, [text for part in parts for text in part[2]]


def pixels_of(u8: torch.Tensor, device: torch.device) -> torch.Tensor:
    """(B, H, W) gray or (B, H, W, 3) uint8 -> (B, 3, H, W) float32 on `device`, sRGB 0..1."""
    u8 = u8.to(device, non_blocking=True)
    return gray_pixels(u8) if u8.ndim == 3 else u8.permute(0, 3, 1, 2) / 255


class KnownTexts:
    """Embeddings of instructions by a frozen text encoder, each computed once and kept in one table on its device.

    The embedder keeps them too, but cuts every text into tokens again, which a GPU's step would wait for.
    """

    def __init__(self, embed: TextEmbedder) -> None:
        self.embed = embed
        self.rows: dict[str, int] = {}
        self.table: torch.Tensor | None = None

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """(B, 77, C) embeddings."""
        new = [text for text in dict.fromkeys(texts) if text not in self.rows]
        if new:
            self.rows |= {text: len(self.rows) + number for number, text in enumerate(new)}
            added = [self.embed(text) for text in new]
            self.table = torch.cat(added if self.table is None else [self.table, *added])
        assert self.table is not None
        return self.table[torch.tensor([self.rows[text] for text in texts], device=self.table.device)]


class Painter(torch.nn.Module):
    """What is trained: a U-Net, and a photo encoder where there is one."""

    def __init__(self, unet: UNet2DConditionModel, photo_encoder: PhotoEncoder | None) -> None:
        super().__init__()
        self.unet, self.photo_encoder = unet, photo_encoder

    def look(
        self, grays: torch.Tensor, used: torch.Tensor, unseen: torch.Tensor
    ) -> tuple[torch.Tensor | None, dict[str, Any]]:
        """Features for the critic, and arguments for the U-Net: (B, 3, H, W) grays 0..1, each seen once, used N times.

        Args:
            grays: photos.
            used: (N,) int64, which photo each pass is of.
            unseen: (N,) bool, passes that are to do without.
        """
        if self.photo_encoder is None:
            return None, {}
        keep = (~unseen).to(grays.device).view(-1, 1, 1, 1)
        used = used.to(grays.device)
        features = self.photo_encoder.features(grays)
        residuals = self.photo_encoder.residuals(features)
        return features.get(CRITIC_STRIDE), unet_arguments([each[used] * keep for each in residuals])

    def save(self, path: Path) -> None:
        """Writes the weights in half precision, as they ship, to be read by `read_weights`."""
        state = {name: weight.detach().half().cpu().contiguous() for name, weight in self.state_dict().items()}
        atomic_write(path, safetensors.torch.save(state))


def read_weights(painter: Painter, path: Path) -> None:
    """Takes up what `Painter.save` wrote, in place.

    Raises:
        SystemExit: the file is another model's.
    """
    try:
        painter.load_state_dict(safetensors.torch.load_file(path))
    except (RuntimeError, OSError, safetensors.SafetensorError) as error:
        reason = next(iter(str(error).splitlines()))
        raise SystemExit(f"{path}: not this model's weights ({reason}); give the plan it was trained with") from None


def with_fresh_unet(
    settings: dict[str, Any], base: Editor, photo_encoder: PhotoEncoder | None
) -> tuple[UNet2DConditionModel, PhotoEncoder | None]:
    """A U-Net by the settings, untrained, and the photo encoder with projections for it, which are zero."""
    torch.manual_seed(settings["seed"])
    unet = make_unet(settings["unet"], base.text_encoder.config.hidden_size, settings["size_px"])
    if photo_encoder is None:
        return unet, None
    encoder = PhotoEncoder(dict(photo_encoder.config.encoder), places_of(unet))
    kept = {name: weight for name, weight in photo_encoder.state_dict().items() if not name.startswith("projections.")}
    encoder.load_state_dict(encoder.state_dict() | kept)
    return unet, encoder


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
    vae: AutoencoderTiny, tokenizer: CLIPTokenizer, base: Editor, photos: Pack, settings: dict[str, Any],
    size_px: int, work: Path, machine: Machine, preview: Callable[[int, Painter], None] | None = None,
    photo_encoder: PhotoEncoder | None = None,
) -> Painter:  # fmt: skip
    """Trains stage 4 from `base`'s U-Net, or loads it where it is finished; `preview` is called at checkpoints.

    A photo encoder is trained along, its pretrained part at `encoder_lr` of the learning rate. The autoencoder and the
    text encoder are as `machine.freeze` leaves them.
    """
    torch.manual_seed(settings["seed"])
    painter = Painter(copy.deepcopy(base.unet), copy.deepcopy(photo_encoder)).requires_grad_(True)
    painter.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out
    embed = TextEmbedder(tokenizer, base.text_encoder)
    show_all_of_the_text(painter.unet, embed, settings["text_share"], settings["seed"])
    adversary = None
    if settings.get("adversarial_share"):
        adversary = Adversary(feature_channels(photo_encoder), settings, machine)
    if machine.compiled:
        painter.unet.compile()
    loss = ColorizerLoss(vae, painter, KnownTexts(embed), settings, machine, adversary)

    def stream(first_step: int) -> Generator[Batch]:
        return training_batches(photos, settings, size_px, first_step, machine)

    shares = {"photo_encoder.projections.": 1.0, "photo_encoder.": settings["encoder_lr"]}
    show = None if preview is None else lambda step: preview(step, painter)
    train("colorizer", painter, stream, loss, settings, work, show, shares, machine, adversary)
    return painter.requires_grad_(False)


def feature_channels(photo_encoder: PhotoEncoder | None) -> int:
    """Channels of the photo encoder's features at the critic's stride; 0 without an encoder."""
    if photo_encoder is None:
        return 0
    places = zip(photo_encoder.config.places, photo_encoder.projections, strict=True)
    seen = (cast(torch.nn.Conv2d, project) for (_, stride), project in places if stride == CRITIC_STRIDE)
    return next((project.in_channels for project in seen), 0)


class ColorizerLoss:
    """The loss of a batch, by `train`'s contract: v-prediction, chroma weighted, and a critic's where there is one."""

    def __init__(
        self, vae: AutoencoderTiny, painter: Painter, texts: KnownTexts, settings: dict[str, Any], machine: Machine,
        adversary: Adversary | None,
    ) -> None:  # fmt: skip
        self.vae, self.painter, self.texts, self.settings = vae, painter, texts, settings
        self.machine, self.adversary = machine, adversary
        self.alphas_cumprod = make_scheduler().alphas_cumprod

    def __call__(self, batch: Batch, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        gray_u8, color_u8, texts = batch
        device, settings, count = self.machine.device, self.settings, len(gray_u8)
        gray, color = pixels_of(gray_u8, device), pixels_of(color_u8, device)
        with torch.no_grad():
            both = mode_of(encode_moments(self.vae, torch.cat([gray, color]).to(self.vae.dtype))).float()
        spread = round((settings["repeats"] - 1) * count)
        used = torch.arange(count + spread) % count  # (N,): which pair, N = repeats · B
        condition, latents = (half[used.to(device)] for half in both.chunk(2))  # (N, 4, h, w)
        no_text, no_image = drop_conditions(count + spread, settings["dropout"], generator)
        dropped = zip(used.tolist(), no_text.tolist(), strict=True)
        embedded = self.texts(["" if drop else texts[index] for index, drop in dropped])
        condition = condition * (~no_image).to(device).view(-1, 1, 1, 1)
        unseen = no_image | (torch.rand(len(no_image), generator=generator) < settings["unseen_share"])
        timesteps = draw_timesteps(count, spread, len(self.alphas_cumprod) - 1, generator)
        alpha, sigma = (x.to(device) for x in alpha_sigma(self.alphas_cumprod, timesteps))
        noise = draw_noise(latents.shape, generator, device)
        noisy = torch.cat([alpha * latents + sigma * noise, condition], dim=1)  # (N, 8, h, w)
        with self.machine.autocast():
            features, residuals = self.painter.look(gray, used, unseen)
            prediction = self.painter.unet(noisy, timesteps.to(device), embedded, **residuals).sample
        prediction = prediction.float()
        error = prediction - prediction_target("v_prediction", latents, noise, alpha, sigma)
        chroma = chroma_latents(error).square().mean(dim=(1, 2, 3))  # (N,)
        plain = error.square().mean()
        at_last, elsewhere = chroma[:count], chroma[count:]
        weighed = (log_error(at_last).sum() + elsewhere.sum()) / len(chroma)
        loss = plain + settings["chroma_weight"] * weighed
        logged = {"loss": loss, "v": plain, "chroma": chroma.mean(), "chroma_last": at_last.mean()}
        if self.adversary is not None:
            # Latents that the prediction stands for; at the last timestep, where color is decided
            made = chroma_latents((alpha * noisy[:, :4] - sigma * prediction)[:count])
            added, more = self.adversary.step(made, latents[:count], condition[:count], features, loss, prediction)
            loss, logged = loss + added, logged | more
        return loss, {key: value.detach() for key, value in logged.items()}
