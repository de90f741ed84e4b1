"""What a run trains on: photos as latents, computed once and stored on disk, and the batches drawn from them.

A cache holds a few crops, flips and grays of each photo. Its folder's name is a hash of all that its numbers depend on
(photos, VAE, size, crops, grays, seed), so another run finds it or makes its own, and a stale one is never read.
It holds posterior moments, not samples.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch

from chromatune.data import (
    BROKEN,
    MONOCHROME,
    TOO_SMALL,
    PhotoItem,
    SkippedPhoto,
    content_of,
    draw_crop,
    make_pair,
    read_usable,
    smallest_side_px,
)
from chromatune.errors import DataError, PhotoError
from chromatune.files import atomic_write
from chromatune.options import StartStage, silent
from chromatune.pipeline import (
    PHOTO_DIGITS,
    Tokens,
    draw_latents,
    encode_moments,
    mode_of,
    read_json,
    to_pixels,
    tokenize,
)
from chromatune.training.initial_model import weights_digest
from chromatune.training.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

FORMAT = 4  # raised when the layout, the choice of photos or the drawing of pairs changes
SKIP_REASONS = (BROKEN, TOO_SMALL, MONOCHROME)
RESERVED_BYTES = 1 << 20
LARGEST_INDEX_BYTES = 256 << 20  # of a cache: the keys of the photos that were skipped
PHOTOS_PER_NOTE = 64  # encoded between two notes of how far a cache is


@dataclass(frozen=True)
class LatentCache:
    """A finished cache; photo i, variant k is row i · variants + k."""

    folder: Path
    items: tuple[PhotoItem, ...]  # the usable photos
    variants: int
    size_px: int
    condition: np.ndarray  # (N · variants, 4, h, w) float16, modes of the gray photos, unscaled
    moments: np.ndarray  # (N · variants, 8 or 4, h, w) float16, posteriors of the color photos
    rows: np.ndarray  # (N,) int64, row of each usable photo's first variant
    skipped: dict[str, list[str]]  # reason -> keys
    contents: np.ndarray  # (N · variants, 6) uint8, the first bytes of each photo's content hash
    grays: np.ndarray | None = None  # (N · variants, S, S) uint8, the gray photos themselves, for a photo encoder

    @property
    def seen(self) -> list[str]:
        """The content hash of each usable photo, cut to its first digits."""
        return [self.contents[row].tobytes().hex() for row in self.rows]


def draw_pair(
    rgb: np.ndarray, key: str, variant: int, size_px: int, settings: TrainSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the gray and the color crop of a photo's variant, (S, S, 3) uint8 each, the same at every call."""
    seed = int(hashlib.sha256(f"{settings.seed}/{key}/{variant}".encode()).hexdigest()[:16], 16)
    rng = np.random.default_rng(seed)
    crop = draw_crop(rgb.shape[0], rgb.shape[1], size_px, rng, zoom=settings.zoom, flip=settings.flip)
    return make_pair(rgb, crop, size_px, rng, gray=settings.gray)


def cache_key(
    items: Sequence[PhotoItem], vae_digest: str, size_px: int, settings: TrainSettings, with_grays: bool = False
) -> str:
    """Return the name of the cache folder, which changes with everything its numbers depend on."""
    facts = {
        "format": FORMAT,
        "photos": [(item.key, item.stamp) for item in items],
        "vae": vae_digest,
        "size_px": size_px,
        **{name: getattr(settings, name) for name in ("zoom", "flip", "gray", "seed", "cache_variants")},
    }
    if with_grays:
        facts["grays"] = True
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]


def open_cache(
    root: Path,
    items: Sequence[PhotoItem],
    vae: Any,
    size_px: int,
    settings: TrainSettings,
    start_stage: StartStage = silent,
    with_grays: bool = False,
) -> LatentCache:
    """Return the finished cache for these photos below `root`; make or complete it first where need be.

    Args:
        root: folder of all caches.
        items: the training photos; broken and gray ones are skipped and named.
        vae: the autoencoder, on the device it is to run on.
        size_px: side of the squares.
        settings: crops, grays, seed, number of variants.
        start_stage: shows how far the encoding is.
        with_grays: whether the gray photos are stored beside their latents.

    Raises:
        DataError: no photo is usable, or the disk is full.
    """
    folder = root / cache_key(items, weights_digest(vae), size_px, settings, with_grays)
    try:
        if folder.is_dir():
            try:
                return _open(folder, items, size_px, settings, with_grays)
            except ValueError:
                shutil.rmtree(folder)  # damaged; all of it comes from the photos again
        _make(folder, items, vae, size_px, settings, start_stage, with_grays)
        return _open(folder, items, size_px, settings, with_grays)
    except OSError as error:
        raise DataError(
            f"{folder}: the latent cache cannot be written ({error.strerror or error}); make room and run again"
        ) from None


def _open(
    folder: Path, items: Sequence[PhotoItem], size_px: int, settings: TrainSettings, with_grays: bool
) -> LatentCache:
    """Open the cache in a folder.

    Raises:
        ValueError: it is damaged.
    """
    index = _read_index(folder, items, settings)
    unusable = {key for keys in index["skipped"].values() for key in keys}
    usable = [i for i, item in enumerate(items) if item.key not in unusable]
    if not usable:
        raise ValueError("index.json is damaged")
    arrays = _open_arrays(folder, len(items) * index["variants"], size_px, with_grays)
    return LatentCache(
        folder=folder,
        items=tuple(items[i] for i in usable),
        variants=index["variants"],
        size_px=size_px,
        rows=np.array([i * index["variants"] for i in usable], dtype=np.int64),
        skipped=index["skipped"],
        **arrays,
    )


def _read_index(folder: Path, items: Sequence[PhotoItem], settings: TrainSettings) -> dict[str, Any]:
    """Read how far a cache is, and which photos it skips.

    Raises:
        ValueError: the note is missing or damaged, or of other photos.
    """
    index = read_json(folder / "index.json", LARGEST_INDEX_BYTES)
    skipped, done = index.get("skipped"), index.get("done")
    if not isinstance(skipped, dict) or skipped.keys() != set(SKIP_REASONS):
        raise ValueError("index.json is damaged")
    sound = all(isinstance(keys, list) and all(isinstance(key, str) for key in keys) for keys in skipped.values())
    sound = sound and isinstance(done, int) and 0 <= done <= len(items)
    if not sound or index.get("variants") != settings.cache_variants:
        raise ValueError("index.json is damaged")
    return index


def _open_arrays(folder: Path, rows: int, size_px: int, with_grays: bool) -> dict[str, np.ndarray]:
    """Open a cache's arrays by name: condition (rows, 4, h, h), moments (rows, 8 or 4, h, h), contents, grays.

    Raises:
        ValueError: one is missing or damaged, or they are not of one cache.
    """
    names = ("condition", "moments", "contents", *(["grays"] if with_grays else []))
    arrays: dict[str, np.ndarray] = {name: _open_array(folder / f"{name}.npy", rows) for name in names}
    side = arrays["condition"].shape[-1]
    shapes = [(rows, channels, side, side) for channels in (4, 8)]  # a small autoencoder has no posteriors
    if arrays["condition"].shape != shapes[0] or arrays["moments"].shape not in shapes:
        raise ValueError("the latents are damaged")
    if with_grays and arrays["grays"].shape != (rows, size_px, size_px):
        raise ValueError("the gray photos are damaged")
    if arrays["contents"].shape != (rows, PHOTO_DIGITS // 2):
        raise ValueError("the hashes of the photos are damaged")
    of_bytes = ("grays", "contents")
    if any(array.dtype != (np.uint8 if name in of_bytes else np.float16) for name, array in arrays.items()):
        raise ValueError("the numbers are of another type")
    return arrays


def _open_array(path: Path, rows: int, mode: Literal["r", "r+"] = "r") -> np.memmap[Any, Any]:
    """Open an array on disk, (rows, ...) float16 or uint8.

    Raises:
        ValueError: it is missing, cut, or another one.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise ValueError("it is no file")
        # For reading first: what is opened for writing is lengthened with zeros where it was cut
        array = np.lib.format.open_memmap(path, mode="r")
        whole = array.offset + array.nbytes == path.stat().st_size
    except Exception as error:  # its header is read as Python's own literals are, with all that can go wrong there
        raise ValueError(f"{path.name} is damaged") from error
    usual = array.dtype in (np.float16, np.uint8) and array.flags.c_contiguous
    if not whole or not usual or array.shape[:1] != (rows,):
        raise ValueError(f"{path.name} is cut or damaged")
    return array if mode == "r" else np.lib.format.open_memmap(path, mode=mode)


def _make(
    folder: Path, items: Sequence[PhotoItem], vae: Any, size_px: int, settings: TrainSettings,
    start_stage: StartStage, with_grays: bool,
) -> None:  # fmt: skip
    """Fill `folder.partial`, from where an earlier try stopped, and give it its name when complete."""
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    index: dict[str, Any] = {"variants": settings.cache_variants}
    try:
        index = _read_index(partial, items, settings)
        if index["done"] > sum(map(len, index["skipped"].values())):
            _open_arrays(partial, len(items) * index["variants"], size_px, with_grays)
        else:  # no photo is in them yet; a full disk may have left them empty
            for array_file in partial.glob("*.npy"):
                array_file.unlink()
    except ValueError:  # not begun, or damaged: made anew
        shutil.rmtree(partial)
        partial.mkdir()
        index |= {"done": 0, "skipped": {name: [] for name in SKIP_REASONS}}
    advance = start_stage("encoding photos", len(items))
    for _ in range(index["done"]):
        advance()
    arrays: dict[str, np.memmap[Any, Any]] = {}
    for number, item in enumerate(items[index["done"] :], start=index["done"]):
        rgb = read_usable(item, smallest_side_px(size_px))
        if isinstance(rgb, SkippedPhoto):
            index["skipped"][rgb.reason].append(item.key)
        else:
            pairs = [draw_pair(rgb, item.key, k, size_px, settings) for k in range(settings.cache_variants)]
            content = np.frombuffer(bytes.fromhex(content_of(rgb)[:PHOTO_DIGITS]), np.uint8)
            encoded = _encode(vae, pairs, with_grays) | {"contents": np.tile(content, (len(pairs), 1))}
            for name, values in encoded.items():
                if name not in arrays:
                    arrays[name] = _array_to_fill(partial / f"{name}.npy", len(items), values)
                arrays[name][number * len(values) : (number + 1) * len(values)] = values
        advance()
        if (number + 1) % PHOTOS_PER_NOTE == 0 or number + 1 == len(items):
            for array in arrays.values():
                array.flush()
            index["done"] = number + 1
            atomic_write(partial / "index.json", json.dumps(index).encode())
    if not arrays and not (partial / "condition.npy").exists():
        shutil.rmtree(partial)
        reasons = ", ".join(f"{len(keys)} {reason}" for reason, keys in index["skipped"].items() if keys)
        raise DataError(f"no usable photo among {len(items)}: {reasons}")
    arrays.clear()
    os.replace(partial, folder)


@torch.no_grad()
def _encode(vae: Any, pairs: list[tuple[np.ndarray, np.ndarray]], with_grays: bool) -> dict[str, np.ndarray]:
    """Encode one photo's variants: condition and moments, (variants, 4 or 8, h, w) float16; grays as they are."""
    device = next(vae.parameters()).device
    gray, color = (encode_moments(vae, to_pixels(np.stack(half)).to(device)) for half in zip(*pairs, strict=True))
    latents = {"condition": mode_of(gray), "moments": color}
    values = {name: x.cpu().numpy().astype(np.float16) for name, x in latents.items()}
    return values | ({"grays": np.stack([gray_u8[..., 0] for gray_u8, _ in pairs])} if with_grays else {})


def _array_to_fill(path: Path, photos: int, values: np.ndarray) -> np.memmap[Any, Any]:
    """Open a cache's array for writing, made if missing, with room for as many values of each photo as these.

    The whole file is allocated on the disk at once: else a full disk would end the process by a signal, wordlessly.

    Raises:
        OSError: the disk is full.
    """
    rows = photos * len(values)
    if not path.exists():
        np.lib.format.open_memmap(path, mode="w+", dtype=values.dtype, shape=(rows, *values.shape[1:]))
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif sys.platform != "win32":  # whose files have no holes
            for start in range(0, size, RESERVED_BYTES):
                file.seek(start)
                block = file.read(RESERVED_BYTES)
                file.seek(start)
                file.write(block)
            os.fsync(file.fileno())
    return _open_array(path, rows, mode="r+")


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
    grays: torch.Tensor | None = None  # (B, S, S) uint8, for a photo encoder

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on a device; the tokens stay, for the host looks prompts up by them."""
        moved: dict[str, Any] = {n: x.to(device) for n, x in vars(self).items() if isinstance(x, torch.Tensor)}
        return dataclasses.replace(self, **moved)


class Draw(NamedTuple):
    """What chance decides about one position of a run."""

    photo: int
    variant: int
    prompt: int  # the number of prompts where text is dropped: the empty one comes last
    timestep: int
    drops_photo: bool
    noise_seed: int


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
    ) -> None:
        self.cache, self.settings = cache, settings
        self.offset = 0  # pairs before batch 0; not 0 where a run goes on with other batches, or on other processes
        self.scaling_factor, self.last_timestep = scaling_factor, num_train_timesteps - 1
        own = prompts if isinstance(prompts, Mapping) else None
        prompts = sorted(set(own.values())) if own is not None else list(prompts)
        self.own_prompt = None if own is None else [prompts.index(own[item.key]) for item in cache.items]
        self.prompt_count = len(prompts)
        self.tokens = tokenize(tokenizer, [*prompts, ""])  # of P + 1 prompts; the empty one is for dropped text
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))  # the last epoch drawn, and its order

    def batch(self, number: int, rank: int = 0, ranks: int = 1) -> Batch:
        """Make batch `number` (passes, not updates) of process `rank` of `ranks`, on the CPU.

        Raises:
            DataError: a photo that could be read when the run began cannot be read any more.
        """
        cache, settings = self.cache, self.settings
        first = self.offset + (number * ranks + rank) * settings.batch
        draws = [self.draw(position) for position in range(first, first + settings.batch)]
        rows = [int(cache.rows[draw.photo]) + draw.variant for draw in draws]
        shape = (8, *cache.condition.shape[2:])  # 4 of noise, 4 to sample the posterior with
        noise = torch.stack([draw_training_noise(draw.noise_seed, shape) for draw in draws])  # (B, 8, h, w)
        moments = torch.from_numpy(np.stack([cache.moments[row] for row in rows])).float()
        condition = torch.from_numpy(np.stack([cache.condition[row] for row in rows])).float()
        has_photo = torch.tensor([not draw.drops_photo for draw in draws])
        prompts, prompt_of = np.unique([draw.prompt for draw in draws], return_inverse=True)
        return Batch(
            latents=draw_latents(moments, noise[:, 4:], self.scaling_factor),
            condition=condition * has_photo.view(-1, 1, 1, 1),
            noise=noise[:, :4],
            timesteps=torch.tensor([draw.timestep for draw in draws]),
            tokens=self.tokens.rows(torch.from_numpy(prompts)),
            prompt_of=torch.from_numpy(prompt_of),
            has_photo=has_photo,
            truth=self._truth(draws[: settings.lab_photos]) if settings.lab_weight > 0 else None,
            grays=None if cache.grays is None else torch.from_numpy(np.stack([cache.grays[row] for row in rows])),
        )

    def draw(self, position: int) -> Draw:
        """Draw what stands at a position of the run."""
        settings, rng = self.settings, np.random.default_rng((self.settings.seed, 2, position))
        photo = self.photo_at(position)
        variant, prompt = int(rng.integers(self.cache.variants)), int(rng.integers(self.prompt_count))
        prompt = prompt if self.own_prompt is None else self.own_prompt[photo]
        timestep, at_last = int(rng.integers(self.last_timestep + 1)), rng.random() < settings.last_share
        # InstructPix2Pix's one draw for three kinds of dropout (arXiv 2211.09800, section 3.2.1).
        u, p = rng.random(), settings.dropout
        return Draw(
            photo=photo,
            variant=variant,
            prompt=self.prompt_count if u < 2 * p else prompt,
            timestep=self.last_timestep if at_last else timestep,
            drops_photo=bool(p <= u < 3 * p),
            noise_seed=int(rng.integers(2**63)),
        )

    def photo_at(self, position: int) -> int:
        """Return the index of the photo at a position: each photo once an epoch, in an order of the epoch's own."""
        epoch, index = divmod(position, len(self.cache.items))
        if epoch != self._order[0]:  # drawn once an epoch, and needed at each of a batch's positions
            rng = np.random.default_rng((self.settings.seed, 1, epoch))
            self._order = epoch, rng.permutation(len(self.cache.items))
        return int(self._order[1][index])

    def _truth(self, draws: Sequence[Draw]) -> torch.Tensor:
        """Read the color crops of some pairs, (L, 3, H, W) float32 sRGB 0..1."""
        truths = []
        for draw in draws:
            item = self.cache.items[draw.photo]
            try:
                rgb = item.read()
            except PhotoError as error:
                raise DataError(f"{error}; it was readable when the run began: put it back, then resume") from None
            truths.append(draw_pair(rgb, item.key, draw.variant, self.cache.size_px, self.settings)[1])
        return to_pixels(np.stack(truths))


def draw_training_noise(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Draw standard normal noise of its own seed, float32 on the CPU: the same on every device and in every batch."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
