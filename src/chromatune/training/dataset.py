"""Which pair is at each position of a run, and the batches made of them: from latents on disk, or from photos.

What chance decides about a position depends on the seed and the position alone, so a run resumes at any batch without
replaying what came before.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from chromatune.errors import DataError, PhotoError
from chromatune.pipeline import Tokens, draw_latents, mode_of, to_pixels, tokenize
from chromatune.training.embeddings import TextCache
from chromatune.training.encoding import draw_pair, encode_pixels
from chromatune.training.latent_cache import LatentCache
from chromatune.training.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

MOST_READERS = 8  # threads that read photos ahead of training, where no latents are kept


@dataclass(frozen=True)
class Batch:
    """One pass of one process, all that chance decides included."""

    latents: torch.Tensor  # (B, 4, h, w) float32, sampled and scaled: what is denoised
    condition: torch.Tensor  # (B, 4, h, w) float32, the gray photos' mode, unscaled; zeros where dropped
    noise: torch.Tensor  # (B, 4, h, w) float32
    timesteps: torch.Tensor  # (B,) int64
    tokens: Tokens  # of the batch's U different prompts
    prompt_of: torch.Tensor  # (B,) int64 into the prompts; the empty one where text is dropped
    has_photo: torch.Tensor  # (B,) bool: False where the photo is dropped, and `condition` is zeros
    truth: torch.Tensor | None  # (L, 3, H, W) float32 sRGB 0..1 of the first L pairs, for the LAB loss
    grays: torch.Tensor | None = None  # (B, H, W) uint8, for a photo encoder
    embeds: torch.Tensor | None = None  # (U, 77, C) float32 of the prompts, from a cache; None: read from the tokens

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on a device; the tokens stay, for the host looks prompts up by them."""
        moved: dict[str, Any] = {n: x.to(device) for n, x in vars(self).items() if isinstance(x, torch.Tensor)}
        return dataclasses.replace(self, **moved)


@dataclass(frozen=True)
class PixelBatch:
    """One pass of one process as pixels: they become latents when the batch is brought to a device."""

    rest: Batch  # all but `latents` and `condition`, whose places are empty; its noise has all 8 channels
    gray_u8: np.ndarray  # (B, H, W, 3) uint8
    color_u8: np.ndarray  # (B, H, W, 3) uint8
    vae: Any  # on the device that the batch will be brought to
    scaling_factor: float

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its latents, on a device."""
        batch = self.rest.to(device)
        gray, color = encode_pixels(self.vae, np.concatenate([self.gray_u8, self.color_u8])).float().chunk(2)
        return dataclasses.replace(
            batch,
            latents=draw_latents(color, batch.noise[:, 4:], self.scaling_factor),
            condition=mode_of(gray) * batch.has_photo.view(-1, 1, 1, 1),
            noise=batch.noise[:, :4],
        )


class Draw(NamedTuple):
    """What chance decides about one position of a run."""

    photo: int
    variant: int
    prompt: int  # the number of prompts where text is dropped: the empty one comes last
    timestep: int
    drops_photo: bool
    noise_seed: int


def draw_at(
    position: int, photo: int, variants: int, prompts: int, last_timestep: int, settings: TrainSettings
) -> Draw:
    """Draw what stands at a position of a run, but for the photo, which is given.

    Args:
        position: of the pair, over all processes.
        photo: its number.
        variants: how many are kept of a photo.
        prompts: how many there are to draw from.
        last_timestep: of the schedule.
        settings: the seed, and the shares of what is dropped.
    """
    rng = np.random.default_rng((settings.seed, 2, position))
    variant, prompt = int(rng.integers(variants)), int(rng.integers(prompts))
    timestep, at_last = int(rng.integers(last_timestep + 1)), rng.random() < settings.last_share
    # InstructPix2Pix's one draw for three kinds of dropout (arXiv 2211.09800, section 3.2.1).
    u, p = rng.random(), settings.dropout
    return Draw(
        photo=photo,
        variant=variant,
        prompt=prompts if u < 2 * p else prompt,
        timestep=last_timestep if at_last else timestep,
        drops_photo=bool(p <= u < 3 * p),
        noise_seed=int(rng.integers(2**63)),
    )


class PhotoOrder:
    """Which photos are in which batch of a run: each batch is of one group, such as the photos of an aspect bucket.

    A group's photos come in an endless row, each once an epoch, in an order of the epoch's own, and its batches are cut
    from that row. Which group's turn it is follows from the groups' sizes: in as many batches as there are photos, each
    photo comes as often as every other one, and at any moment a group is at most one batch ahead or behind.
    """

    def __init__(self, groups: Sequence[np.ndarray], seed: int) -> None:
        """Groups are arrays of photos' numbers; empty ones are left out."""
        self.groups, self.seed = [group for group in groups if len(group)], seed
        self._epochs: dict[int, tuple[int, np.ndarray]] = {}  # group ⇒ the last epoch drawn, and its order
        self._turns: tuple[int, np.ndarray, np.ndarray] | None = None  # of the last round

    def batch(self, number: int, size: int, rank: int = 0, ranks: int = 1, offset: int = 0) -> list[tuple[int, int]]:
        """Return photos and their epochs of batch `number` of process `rank` of `ranks`, `size` pairs each.

        Batches are counted from `offset` pairs on: to the pair with one group, to the batch with several.
        """
        if len(self.groups) > 1:
            number, offset = number + offset // (ranks * size), 0
        group, index = self._turn(number)
        first = offset + (index * ranks + rank) * size
        return [self._at(group, position) for position in range(first, first + size)]

    def _at(self, group: int, position: int) -> tuple[int, int]:
        """Return the photo at a position of a group's row, and its epoch."""
        photos = self.groups[group]
        epoch, index = divmod(position, len(photos))
        known = self._epochs.get(group)
        if known is None or known[0] != epoch:  # drawn once an epoch, and needed at each of a batch's positions
            # One group alone is in the order that runs without buckets have always had
            source = (self.seed, 1, epoch) if len(self.groups) == 1 else (self.seed, 1, epoch, group)
            known = self._epochs[group] = epoch, np.random.default_rng(source).permutation(len(photos))
        return int(photos[known[1][index]]), epoch

    def _turn(self, number: int) -> tuple[int, int]:
        """Return whose turn batch `number` is, and the number of this batch within the group."""
        if len(self.groups) == 1:
            return 0, number
        sizes = [len(group) for group in self.groups]
        turn, index = divmod(number, sum(sizes))
        if self._turns is None or self._turns[0] != turn:
            rng = np.random.default_rng((self.seed, 3, turn))
            when = np.concatenate([(np.arange(size) + rng.random()) / size for size in sizes])
            order = np.argsort(when, kind="stable")
            whose = np.repeat(np.arange(len(sizes)), sizes)[order]
            within = np.concatenate([np.arange(size) for size in sizes])[order]
            self._turns = turn, whose, within
        group = int(self._turns[1][index])
        return group, turn * sizes[group] + int(self._turns[2][index])


class BatchSampler:
    """Batches of a run by number.

    The photo, prompt, timestep and noise at position p depend on the seed and p alone. So a run resumes anywhere
    without replaying what came before, processes never share noise, and two of them draw what one would with twice the
    batch. `prompts` are the instructions to draw from, or each photo's own by its key.
    """

    def __init__(
        self,
        cache: LatentCache,
        prompts: Sequence[str] | Mapping[str, str],
        tokenizer: CLIPTokenizer,
        scaling_factor: float,
        num_train_timesteps: int,
        settings: TrainSettings,
        *,
        vae: Any = None,
        vae_factor: int = 8,
        with_grays: bool = False,
    ) -> None:
        """The last three are for a cache without latents: the autoencoder, its factor, whether there are grays."""
        self.cache, self.settings = cache, settings
        self.offset = 0  # pairs before batch 0; not 0 where a run goes on with other batches, or on other processes
        self.scaling_factor, self.last_timestep = scaling_factor, num_train_timesteps - 1
        own = prompts if isinstance(prompts, Mapping) else None
        prompts = sorted(set(own.values())) if own is not None else list(prompts)
        self.own_prompt = None if own is None else [prompts.index(own[item.key]) for item in cache.items]
        self.prompt_count = len(prompts)
        self.tokens = tokenize(tokenizer, [*prompts, ""])  # of P + 1 prompts; the empty one is for dropped text
        self.texts: TextCache | None = None  # their embeddings, where they are kept
        self.offset = 0  # pairs before batch 0; not 0 where a run goes on with other batches, or on other processes
        self.share: tuple[int, int] | None = None  # of a machine's own photos: this process among its machine's
        groups = [np.flatnonzero(cache.buckets == bucket) for bucket in range(len(cache.shapes))]
        self.order = PhotoOrder(groups, settings.seed)
        self._vae, self._vae_factor, self._with_grays = vae, vae_factor, with_grays
        self._readers = None if cache.with_latents else ThreadPoolExecutor(min(MOST_READERS, os.cpu_count() or 1))
        self._pairs: dict[tuple[int, int], Future[tuple[np.ndarray, np.ndarray]]] = {}  # photo, epoch ⇒ being read

    def batch(self, number: int, rank: int = 0, ranks: int = 1) -> Batch | PixelBatch:
        """Make batch `number` (passes, not updates) of process `rank` of `ranks`, on the CPU.

        Raises:
            DataError: a photo that could be read when the run began cannot be read any more.
        """
        size = self.settings.batch
        chosen = self._chosen(number, rank, ranks)
        first = self.offset + (number * ranks + rank) * size
        draws = [self.draw(position, photo) for position, (photo, _) in enumerate(chosen, start=first)]
        prompts, prompt_of = np.unique([draw.prompt for draw in draws], return_inverse=True)
        words = {
            "tokens": self.tokens.rows(torch.from_numpy(prompts)),
            "prompt_of": torch.from_numpy(prompt_of),
            "embeds": None if self.texts is None else self.texts.rows(prompts),
        }
        if not self.cache.with_latents:
            pairs = self._read_pairs(chosen, self._chosen(number + 1, rank, ranks))
            return pixel_batch(
                pairs, draws, words, self._vae, self._vae_factor, self.scaling_factor, self.settings, self._with_grays
            )
        return self._cached(draws, words)

    def _chosen(self, number: int, rank: int, ranks: int) -> list[tuple[int, int]]:
        return self.order.batch(number, self.settings.batch, *(self.share or (rank, ranks)), self.offset)

    def _cached(self, draws: Sequence[Draw], words: Mapping[str, Any]) -> Batch:
        """Make a batch from latents on disk."""
        cache, settings = self.cache, self.settings
        rows = [cache.read(draw.photo, draw.variant) for draw in draws]
        arrays = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
        moments, condition = arrays["moments"].float(), arrays["condition"].float()
        shape = (8, *condition.shape[2:])  # 4 of noise, 4 to sample the posterior with
        noise = torch.stack([draw_training_noise(draw.noise_seed, shape) for draw in draws])  # (B, 8, h, w)
        has_photo = torch.tensor([not draw.drops_photo for draw in draws])
        return Batch(
            latents=draw_latents(moments, noise[:, 4:], self.scaling_factor),
            condition=condition * has_photo.view(-1, 1, 1, 1),
            noise=noise[:, :4],
            timesteps=torch.tensor([draw.timestep for draw in draws]),
            has_photo=has_photo,
            truth=self._truth(draws[: settings.lab_photos]) if settings.lab_weight > 0 else None,
            grays=arrays.get("grays"),
            **words,
        )

    def draw(self, position: int, photo: int) -> Draw:
        """Draw what stands at a position of the run, with the photo there."""
        drawn = draw_at(position, photo, self.cache.variants, self.prompt_count, self.last_timestep, self.settings)
        if self.own_prompt is None or drawn.prompt == self.prompt_count:
            return drawn
        return drawn._replace(prompt=self.own_prompt[photo])

    def _read_pairs(
        self, chosen: Sequence[tuple[int, int]], following: Sequence[tuple[int, int]]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Read the pairs of a batch, and begin to read those of the following one."""
        assert self._readers is not None
        for photo, epoch in (*chosen, *following):
            if (photo, epoch) not in self._pairs:
                self._pairs[photo, epoch] = self._readers.submit(self._read_pair, photo, epoch)
        pairs = [self._pairs[key].result() for key in chosen]
        self._pairs = {key: self._pairs[key] for key in following}
        return pairs

    def _read_pair(self, photo: int, variant: int) -> tuple[np.ndarray, np.ndarray]:
        """Read a photo's variant, (H, W, 3) uint8 twice: without latents, each epoch has one of its own."""
        cache = self.cache
        shape = cache.shapes[int(cache.buckets[photo])]
        try:
            rgb = cache.items[photo].read()
        except PhotoError as error:
            raise DataError(f"{error}; it was readable when the run began: put it back, then resume") from None
        return draw_pair(rgb, cache.items[photo].key, variant, shape, self.settings)

    def _truth(self, draws: Sequence[Draw]) -> torch.Tensor:
        """Read the color crops of some pairs, (L, 3, H, W) float32 sRGB 0..1."""
        return to_pixels(np.stack([self._read_pair(draw.photo, draw.variant)[1] for draw in draws]))


def pixel_batch(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], draws: Sequence[Draw], words: Mapping[str, Any],
    vae: Any, vae_factor: int, scaling_factor: float, settings: TrainSettings, with_grays: bool,
) -> PixelBatch:  # fmt: skip
    """Make a batch whose photos are encoded on the device.

    Args:
        pairs: gray and color half of each pair, (H, W, 3) uint8, all of one shape.
        draws: what chance decided about each pair.
        words: `tokens`, `prompt_of` and `embeds` of the batch.
        vae: the autoencoder.
        vae_factor: pixels of a side for each latent.
        scaling_factor: of its latents.
        settings: whether and for how many pairs there is a LAB loss.
        with_grays: whether a photo encoder wants the gray photos.
    """
    gray_u8, color_u8 = (np.stack(half) for half in zip(*pairs, strict=True))
    shape = (8, *(side // vae_factor for side in color_u8.shape[1:3]))
    truth_u8 = color_u8[: settings.lab_photos] if settings.lab_weight > 0 else None
    rest = Batch(
        latents=torch.empty(0),
        condition=torch.empty(0),
        noise=torch.stack([draw_training_noise(draw.noise_seed, shape) for draw in draws]),
        timesteps=torch.tensor([draw.timestep for draw in draws]),
        has_photo=torch.tensor([not draw.drops_photo for draw in draws]),
        truth=None if truth_u8 is None else to_pixels(truth_u8),
        grays=torch.from_numpy(gray_u8[..., 0].copy()) if with_grays else None,
        **words,
    )
    return PixelBatch(rest, gray_u8, color_u8, vae, scaling_factor)


def draw_training_noise(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Draw standard normal noise of its own seed, float32 on the CPU: the same on every device and in every batch."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
