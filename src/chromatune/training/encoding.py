"""Photos as latents and prompts as embeddings, computed once and kept on disk: the caches that a run trains from.

A cache is a folder of parts, one safetensors file for each 64 photos, complete or absent. So a cache that was
interrupted is completed, several processes and machines make different parts at the same time, and none of them holds
a lock or waits at a barrier: a process that has made its own parts looks which are missing still. The folder's name is
a hash of all that its numbers depend on (photos, VAE, sizes, crops, grays, seed), so another run finds it or makes its
own, and a stale one is never read. It holds posterior moments, not samples.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from chromatune.data import (
    BROKEN,
    MONOCHROME,
    TOO_LONG,
    TOO_SMALL,
    PhotoItem,
    Shape,
    SkippedPhoto,
    bucket_of,
    content_of,
    draw_bucket_crop,
    draw_crop,
    make_pair,
    read_usable,
    smallest_side_px,
)
from chromatune.errors import DataError, printable
from chromatune.files import atomic_write, prefetch
from chromatune.options import StartStage, silent
from chromatune.pipeline import PHOTO_DIGITS, Tokens, embed_tokens, encode_moments, mode_of, to_pixels
from chromatune.training.initial_model import weights_digest
from chromatune.training.settings import TrainSettings

FORMAT = 5  # raised when the layout, the choice of photos or the drawing of pairs changes
SKIP_REASONS = (BROKEN, TOO_SMALL, MONOCHROME, TOO_LONG)
PHOTOS_PER_PART = 64
PROMPTS_PER_PART, PROMPTS_PER_CALL = 1024, 32
PIXELS_PER_CALL = 1 << 20  # of the autoencoder on a CPU: four photos of 512 px
PIXELS_PER_CALL_GPU = 1 << 22
MOST_READERS = 8  # threads that read photos ahead of a GPU
POLL_SECONDS = 0.5  # between two looks for the parts of other processes
MOST_TRIES = 4  # at a cache, where parts are damaged or another process deletes damaged ones
PATIENCE_SECONDS = 120.0  # without a new part, until a process takes one over that another should have made


@dataclass(frozen=True)
class LatentCache:
    """A complete cache. Photo i lies in file `parts[i]`, in row `rows[i]` of the arrays of its shape.

    Without latents (`cache=off`), it says which photos are usable, and in which bucket each is.
    """

    folder: Path
    items: tuple[PhotoItem, ...]  # the usable photos
    variants: int
    shapes: tuple[Shape, ...]  # of the pairs, pixels: the square, or the aspect buckets
    buckets: np.ndarray  # (N,) int64, index of each photo's shape
    parts: np.ndarray  # (N,) int64
    rows: np.ndarray  # (N,) int64
    contents: np.ndarray  # (N, 6) uint8, the first bytes of each photo's content hash
    skipped: dict[str, list[str]]  # reason -> keys
    with_grays: bool = False
    with_latents: bool = True
    elsewhere: tuple[str, ...] = ()  # content hashes of photos that other machines encode, and train with
    _files: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)  # those opened already

    @property
    def count(self) -> int:
        """The number of usable photos, on all machines."""
        return len(self.items) + len(self.elsewhere)

    @property
    def seen(self) -> list[str]:
        """The content hash of each usable photo, cut to its first digits."""
        return [*(row.tobytes().hex() for row in self.contents), *self.elsewhere]

    def read(self, photo: int, variant: int) -> dict[str, np.ndarray]:
        """Return the arrays of a photo's variant by name.

        Returns:
            `condition`, (4, h, w) float16, mode of the gray photo, unscaled; `moments`, (8 or 4, h, w) float16,
            posterior of the color photo; for a photo encoder `grays`, (H, W) uint8, the gray photo itself.
        """
        part = int(self.parts[photo])
        if part not in self._files:
            self._files[part] = safe_open(_part_path(self.folder, part), "numpy")
        row = int(self.rows[photo]) * self.variants + variant
        suffix = _suffix(self.shapes[self.buckets[photo]])
        names = ("condition", "moments", *(["grays"] if self.with_grays else []))
        return {name: self._files[part].get_slice(f"{name}.{suffix}")[row] for name in names}


def draw_pair(
    rgb: np.ndarray, key: str, variant: int, size: int | Shape, settings: TrainSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the gray and the color crop of a photo's variant, (H, W, 3) uint8 each, the same at every call."""
    seed = int(hashlib.sha256(f"{settings.seed}/{key}/{variant}".encode()).hexdigest()[:16], 16)
    rng = np.random.default_rng(seed)
    shape = (size, size) if isinstance(size, int) else size
    height, width = rgb.shape[:2]
    if settings.aspect == "square":
        crop = draw_crop(height, width, shape[0], rng, zoom=settings.zoom, flip=settings.flip)
    else:
        crop = draw_bucket_crop(height, width, shape, rng, zoom=settings.zoom, flip=settings.flip)
    return make_pair(rgb, crop, shape, rng, gray=settings.gray)


def read_for_training(
    item: PhotoItem, size_px: int, shapes: Sequence[Shape], settings: TrainSettings
) -> tuple[np.ndarray, int] | SkippedPhoto:
    """Read a photo, (H, W, 3) uint8 sRGB, and find its shape's index; or return why it cannot be trained with."""
    rgb = read_usable(item, smallest_side_px(size_px))
    if isinstance(rgb, SkippedPhoto) or settings.aspect == "square":
        return rgb if isinstance(rgb, SkippedPhoto) else (rgb, 0)
    height, width = rgb.shape[:2]
    bucket = bucket_of(height, width, shapes)
    if bucket is None:
        return SkippedPhoto(item.key, TOO_LONG, f"{printable(item.key)}: {width} x {height} px", (height, width))
    return rgb, bucket


def cache_key(
    items: Sequence[PhotoItem], vae_digest: str, shapes: Sequence[Shape], settings: TrainSettings,
    with_grays: bool = False,
) -> str:  # fmt: skip
    """Return the name of the cache folder, which changes with everything its numbers depend on."""
    facts: dict[str, Any] = {
        "format": FORMAT,
        "photos": [(item.key, item.stamp) for item in items],
        "vae": vae_digest,
        "shapes": list(shapes),
        **{name: getattr(settings, name) for name in ("aspect", "zoom", "flip", "gray", "seed", "cache_variants")},
    }
    if settings.cache == "off":
        facts = {name: facts[name] for name in ("format", "photos", "shapes", "aspect")}
    elif with_grays:
        facts["grays"] = True
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]


class _Plan(NamedTuple):
    """What a cache is made from, and where."""

    folder: Path
    items: Sequence[PhotoItem]
    size_px: int
    shapes: tuple[Shape, ...]
    settings: TrainSettings
    with_grays: bool

    @property
    def part_count(self) -> int:
        return -(-len(self.items) // PHOTOS_PER_PART)

    @property
    def with_latents(self) -> bool:
        return self.settings.cache == "on"

    def photos_of(self, part: int) -> range:
        first = part * PHOTOS_PER_PART
        return range(first, min(first + PHOTOS_PER_PART, len(self.items)))


def open_cache(
    root: Path, items: Sequence[PhotoItem], vae: Any, size_px: int, settings: TrainSettings,
    start_stage: StartStage = silent, with_grays: bool = False, *,
    shapes: Sequence[Shape] | None = None, rank: int = 0, ranks: int = 1,
) -> LatentCache:  # fmt: skip
    """Return the complete cache for these photos below `root`; make what is missing of it first.

    Several processes share the work: each makes its own share of the parts, then waits for the others, without any
    communication but the files.

    Args:
        root: folder of all caches.
        items: the training photos; broken and gray ones are skipped and named.
        vae: the autoencoder, on the device it is to run on.
        size_px: side of the model's square.
        settings: crops, grays, seed, number of variants.
        start_stage: shows how far the encoding is.
        with_grays: whether the gray photos are stored beside their latents.
        shapes: the aspect buckets; by default the square.
        rank: number of this process among those that share `root` and work on the same photos.
        ranks: how many these are.

    Raises:
        DataError: no photo is usable, or the disk is full.
    """
    shapes = tuple(shapes or [(size_px, size_px)])
    folder = root / cache_key(items, weights_digest(vae), shapes, settings, with_grays)
    plan = _Plan(folder, items, size_px, shapes, settings, with_grays)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for _ in range(MOST_TRIES):
            parts = {part: _open_part(plan, part) for part in range(plan.part_count)}
            damaged = [part for part, found in parts.items() if found is None]
            if not damaged:
                return _assemble(plan, [found for found in parts.values() if found is not None])
            for part in damaged:  # it comes from the photos again
                _part_path(folder, part).unlink(missing_ok=True)
            _make(plan, vae, start_stage, rank, ranks)
        raise OSError("its files are damaged again and again")
    except OSError as error:
        raise DataError(
            f"{folder}: the latent cache cannot be written ({error.strerror or error}); make room and run again"
        ) from None


def share_parts(
    count: int, exists: Callable[[int], bool], make: Callable[[Sequence[int]], None], rank: int, ranks: int
) -> None:
    """Make the parts of this process, and wait until the other processes have made theirs.

    Where no part appears for a while, this process makes one that another one should have made: it may have ended, or
    be far slower. A part that two processes make is the same from both.
    """
    make([part for part in range(rank, count, ranks) if not exists(part)])
    before, since = count + 1, time.monotonic()
    while missing := [part for part in range(count) if not exists(part)]:
        if len(missing) < before:
            before, since = len(missing), time.monotonic()
        elif time.monotonic() - since > PATIENCE_SECONDS:
            make([missing[-1 - rank % len(missing)]])
            continue
        time.sleep(POLL_SECONDS)


# ---------------------------------------------------------------------------------------------------------------------
# Parts


class _PartIndex(NamedTuple):
    photos: np.ndarray  # (n,) int64 into the plan's items, in the order of shapes and rows
    buckets: np.ndarray  # (n,) int64
    rows: np.ndarray  # (n,) int64
    contents: np.ndarray  # (n, 6) uint8
    skipped: dict[str, list[str]]


def _part_path(folder: Path, part: int) -> Path:
    return folder / f"part-{part:05d}.safetensors"


def _suffix(shape: Shape) -> str:
    return f"{shape[0]}x{shape[1]}"


def _open_part(plan: _Plan, part: int) -> _PartIndex | None:
    """Read which photos are in a part; None where it is missing, damaged, or of other photos."""
    path = _part_path(plan.folder, part)
    if not path.is_file():  # a pipe would be waited for
        return None
    try:
        with safe_open(path, "numpy") as file:
            return _checked_index(plan, part, file)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _checked_index(plan: _Plan, part: int, file: Any) -> _PartIndex:
    """Read a part's index.

    Raises:
        ValueError: the arrays are not those of this part; KeyError and TypeError where its notes are senseless.
    """
    skipped = json.loads(file.metadata()["skipped"])
    keys = {plan.items[index].key for index in plan.photos_of(part)}
    if not isinstance(skipped, dict) or skipped.keys() != set(SKIP_REASONS):
        raise ValueError("other notes")
    if not keys.issuperset(key for each in skipped.values() for key in each):
        raise ValueError("other photos")
    names = set(file.keys())
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("photos", "buckets", "rows", "contents")}
    for bucket, shape in enumerate(plan.shapes):
        suffix = _suffix(shape)
        if f"photos.{suffix}" not in names:
            continue
        photos = file.get_tensor(f"photos.{suffix}")
        contents = file.get_tensor(f"contents.{suffix}")
        count = len(photos)
        if photos.dtype != np.int64 or contents.shape != (count, PHOTO_DIGITS // 2) or contents.dtype != np.uint8:
            raise ValueError("other hashes")
        _check_arrays(plan, file, shape, count)
        for name, values in (("photos", photos), ("contents", contents), ("rows", np.arange(count))):
            found[name].append(values)
        found["buckets"].append(np.full(count, bucket))
    arrays = [np.concatenate(found[name]) if found[name] else np.empty(0, np.int64) for name in _PartIndex._fields[:3]]
    contents = np.concatenate([*found["contents"], np.empty((0, PHOTO_DIGITS // 2), np.uint8)])
    unusable = {key for each in skipped.values() for key in each}
    if sorted(arrays[0].tolist()) != [i for i in plan.photos_of(part) if plan.items[i].key not in unusable]:
        raise ValueError("other photos")
    return _PartIndex(*arrays, contents, skipped)


def _check_arrays(plan: _Plan, file: Any, shape: Shape, count: int) -> None:
    """Check that a shape's latents are there as announced, by the file's header alone.

    Raises:
        ValueError: they are not; SafetensorError where one is missing.
    """
    if not plan.with_latents:
        return
    rows, suffix = count * plan.settings.cache_variants, _suffix(shape)
    condition, moments = (file.get_slice(f"{name}.{suffix}") for name in ("condition", "moments"))
    latent = condition.get_shape()[2:]
    fits = condition.get_shape() == [rows, 4, *latent] and all(side > 0 for side in latent) and len(latent) == 2
    channels = (4, 8)  # a small autoencoder has no posterior
    fits = fits and moments.get_shape() in ([rows, each, *latent] for each in channels)
    if not fits or {condition.get_dtype(), moments.get_dtype()} != {"F16"}:
        raise ValueError("other latents")
    if plan.with_grays:
        grays = file.get_slice(f"grays.{suffix}")
        if grays.get_shape() != [rows, *shape] or grays.get_dtype() != "U8":
            raise ValueError("other grays")


def _assemble(plan: _Plan, parts: Sequence[_PartIndex]) -> LatentCache:
    """Return the cache whose parts these are.

    Raises:
        DataError: no photo is usable.
    """
    skipped = {reason: [key for part in parts for key in part.skipped[reason]] for reason in SKIP_REASONS}
    photos = np.concatenate([part.photos for part in parts])
    if not len(photos):
        reasons = ", ".join(f"{len(keys)} {reason}" for reason, keys in skipped.items() if keys)
        raise DataError(f"no usable photo among {len(plan.items)}: {reasons}")
    order = np.argsort(photos)
    numbers = np.concatenate([np.full(len(part.photos), number) for number, part in enumerate(parts)])
    return LatentCache(
        folder=plan.folder,
        items=tuple(plan.items[index] for index in photos[order]),
        variants=plan.settings.cache_variants,
        shapes=plan.shapes,
        buckets=np.concatenate([part.buckets for part in parts])[order],
        parts=numbers[order],
        rows=np.concatenate([part.rows for part in parts])[order],
        contents=np.concatenate([part.contents for part in parts])[order],
        skipped=skipped,
        with_grays=plan.with_grays and plan.with_latents,
        with_latents=plan.with_latents,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Encoding


@dataclass
class _Drawn:
    """A photo's variants, drawn and perhaps encoded already."""

    bucket: int
    content: np.ndarray  # (6,) uint8
    gray: np.ndarray | None  # (V, H, W, 3) uint8; None where no latents are wanted
    color: np.ndarray | None  # (V, H, W, 3) uint8
    encoded: dict[str, np.ndarray] = field(default_factory=dict)


def _make(plan: _Plan, vae: Any, start_stage: StartStage, rank: int, ranks: int) -> None:
    """Make the parts that are missing, this process its own first."""
    advance = start_stage("encoding photos", len(plan.items))
    device = next(vae.parameters()).device
    on_cpu = device.type == "cpu"
    shown = 0

    def show(photos: int) -> None:
        nonlocal shown
        for _ in range(photos - shown):
            advance()
        shown = max(shown, photos)

    def exists(part: int) -> bool:
        return _part_path(plan.folder, part).is_file()

    def draw(index: int) -> _Drawn | SkippedPhoto:
        drawn = _draw(plan, index)
        if on_cpu and isinstance(drawn, _Drawn) and drawn.color is not None:
            _encode_photos(vae, [drawn])
        return drawn

    def make(parts: Sequence[int]) -> None:
        indices = [index for part in parts for index in plan.photos_of(part)]
        depth = 2 * workers
        results = prefetch(pool, draw, indices, depth)
        for part in parts:
            show(sum(len(plan.photos_of(each)) for each in range(plan.part_count) if exists(each)))
            drawn: dict[int, _Drawn | SkippedPhoto] = {}
            waiting: dict[int, list[_Drawn]] = {}  # by shape, for the next call of the autoencoder
            for index in plan.photos_of(part):
                drawn[index] = result = next(results)
                show(shown + 1)
                if isinstance(result, _Drawn) and result.color is not None and not result.encoded:
                    _encode_full(vae, waiting.setdefault(result.bucket, []), result)
            for rest in waiting.values():
                _encode_photos(vae, rest)
            _write_part(plan, part, drawn)
        results.close()

    with _encoding_threads(on_cpu) as workers, ThreadPoolExecutor(workers) as pool:
        share_parts(plan.part_count, exists, make, rank, ranks)
    show(len(plan.items))


@contextmanager
def _encoding_threads(on_cpu: bool) -> Iterator[int]:
    """Yield how many threads prepare photos; on a CPU each of them computes alone.

    A convolution of a few photos does not keep several cores busy: they wait for each other after each layer. So every
    core has photos of its own.
    """
    threads = torch.get_num_threads()
    if not on_cpu:
        yield max(1, min(MOST_READERS, threads))
        return
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _draw(plan: _Plan, index: int) -> _Drawn | SkippedPhoto:
    """Read a photo and draw its variants."""
    item, settings = plan.items[index], plan.settings
    found = read_for_training(item, plan.size_px, plan.shapes, settings)
    if isinstance(found, SkippedPhoto):
        return found
    rgb, bucket = found
    content = np.frombuffer(bytes.fromhex(content_of(rgb)[:PHOTO_DIGITS]), np.uint8)
    if not plan.with_latents:
        return _Drawn(bucket, content, None, None)
    shape, variants = plan.shapes[bucket], range(settings.cache_variants)
    gray, color = zip(*(draw_pair(rgb, item.key, variant, shape, settings) for variant in variants), strict=True)
    return _Drawn(bucket, content, np.stack(gray), np.stack(color))


def _encode_full(vae: Any, waiting: list[_Drawn], drawn: _Drawn) -> None:
    """Add a photo to those that wait, and encode them all where they fill a call of the autoencoder on a GPU."""
    waiting.append(drawn)
    assert drawn.color is not None
    if 2 * len(waiting) * drawn.color[..., 0].size >= PIXELS_PER_CALL_GPU:
        _encode_photos(vae, waiting)
        waiting.clear()


def _encode_photos(vae: Any, photos: Sequence[_Drawn]) -> None:
    """Encode photos of one shape, and put the latents of each in place of its pixels."""
    if not photos:
        return
    grays = [photo.gray for photo in photos if photo.gray is not None]
    colors = [photo.color for photo in photos if photo.color is not None]
    condition, moments = encode_pixels(vae, np.concatenate([*grays, *colors])).chunk(2)
    latents = {"condition": mode_of(condition), "moments": moments}
    # Contiguous, for what is written is the memory as it lies there
    arrays = {name: np.ascontiguousarray(x.cpu().numpy(), np.float16) for name, x in latents.items()}
    first = 0
    for photo, gray in zip(photos, grays, strict=True):
        rows = slice(first, first + len(gray))
        photo.encoded = {name: array[rows] for name, array in arrays.items()} | {"grays": gray[..., 0].copy()}
        photo.gray = photo.color = None
        first = rows.stop


@torch.no_grad()
def encode_pixels(vae: Any, photos_u8: np.ndarray) -> torch.Tensor:
    """Encode photos of one shape, (N, H, W, 3) uint8 -> (N, 8 or 4, h, w) on the autoencoder's device.

    As many at once as a device holds with an autoencoder of Stable Diffusion's size.
    """
    device = next(vae.parameters()).device
    pixels = PIXELS_PER_CALL if device.type == "cpu" else PIXELS_PER_CALL_GPU
    at_once = max(1, pixels // photos_u8[0, ..., 0].size)
    chunks = (photos_u8[first : first + at_once] for first in range(0, len(photos_u8), at_once))
    layout = torch.channels_last if device.type == "cpu" else torch.preserve_format
    return torch.cat([encode_moments(vae, to_pixels(chunk).to(device, memory_format=layout)) for chunk in chunks])


def _write_part(plan: _Plan, part: int, drawn: dict[int, _Drawn | SkippedPhoto]) -> None:
    """Write a part, completely or not at all."""
    skipped: dict[str, list[str]] = {reason: [] for reason in SKIP_REASONS}
    groups: dict[int, list[int]] = {}  # photos by shape
    for index, result in drawn.items():
        if isinstance(result, SkippedPhoto):
            skipped[result.reason].append(result.key)
        else:
            groups.setdefault(result.bucket, []).append(index)
    tensors: dict[str, np.ndarray] = {}
    names = ("condition", "moments", *(["grays"] if plan.with_grays else [])) if plan.with_latents else ()
    for bucket, indices in groups.items():
        photos = [photo for index in indices if isinstance(photo := drawn[index], _Drawn)]
        arrays = {name: np.concatenate([photo.encoded[name] for photo in photos]) for name in names}
        arrays |= {"photos": np.array(indices, np.int64), "contents": np.stack([photo.content for photo in photos])}
        tensors |= {f"{name}.{_suffix(plan.shapes[bucket])}": array for name, array in arrays.items()}
    atomic_write(_part_path(plan.folder, part), save(tensors, {"skipped": json.dumps(skipped)}))


# ---------------------------------------------------------------------------------------------------------------------
# Prompts


@dataclass(frozen=True)
class TextCache:
    """The embeddings of prompts by a frozen text encoder, on disk."""

    folder: Path
    _files: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)  # those opened already

    def rows(self, prompts: Iterable[int]) -> torch.Tensor:
        """Return the embeddings of prompts by their numbers, (U, 77, C) float32."""
        return torch.from_numpy(np.stack([self._row(int(prompt)) for prompt in prompts])).float()

    def _row(self, prompt: int) -> np.ndarray:
        part, row = divmod(prompt, PROMPTS_PER_PART)
        if part not in self._files:
            self._files[part] = safe_open(_part_path(self.folder, part), "numpy")
        return self._files[part].get_slice("embeds")[row]


def open_text_cache(root: Path, tokens: Tokens, text_encoder: Any, rank: int = 0, ranks: int = 1) -> TextCache:
    """Return the embeddings of prompts, read from a cache below `root`; make what is missing of it first.

    Args:
        root: folder of all caches.
        tokens: of all prompts.
        text_encoder: frozen, on the device it is to run on.
        rank: number of this process among those that share `root`.
        ranks: how many these are.

    Raises:
        DataError: the disk is full.
    """
    digest = hashlib.sha256(f"{FORMAT}/{weights_digest(text_encoder)}".encode())
    digest.update(tokens.ids.numpy().tobytes() + tokens.mask.numpy().tobytes())
    folder, count = root / f"text-{digest.hexdigest()[:20]}", len(tokens.ids)
    width = tokens.ids.shape[1]

    def prompts_of(part: int) -> range:
        return range(part * PROMPTS_PER_PART, min((part + 1) * PROMPTS_PER_PART, count))

    def is_sound(part: int) -> bool:
        try:
            with safe_open(_part_path(folder, part), "numpy") as file:
                embeds = file.get_slice("embeds")
                return embeds.get_shape()[:2] == [len(prompts_of(part)), width] and embeds.get_dtype() == "F16"
        except (SafetensorError, OSError):
            return False

    def make(parts: Sequence[int]) -> None:
        for part in parts:
            prompts = torch.tensor(prompts_of(part)).split(PROMPTS_PER_CALL)
            read = [embed_tokens(text_encoder, tokens.rows(some)).cpu() for some in prompts]
            embeds = torch.cat(read).numpy().astype(np.float16)
            atomic_write(_part_path(folder, part), save({"embeds": embeds}))

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            share_parts(-(-count // PROMPTS_PER_PART), is_sound, make, rank, ranks)
    except OSError as error:
        raise DataError(
            f"{folder}: the text cache cannot be written ({error.strerror or error}); make room and run again"
        ) from None
    return TextCache(folder)
