"""Photos as latents, computed once and kept on disk, by all processes of a run together.

The cache's folder is named by a hash of all that its numbers depend on (photos, VAE, sizes, crops, grays, seed), so
another run finds it or makes its own, and a stale one is never read. It holds posterior moments, not samples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save

from chromatune.data import (
    TOO_LONG,
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
from chromatune.pipeline import PHOTO_DIGITS, encode_moments, mode_of, to_pixels
from chromatune.training.initial_model import weights_digest
from chromatune.training.latent_cache import (
    SKIP_REASONS,
    LatentCache,
    Plan,
    assemble,
    open_part,
    part_path,
    share_parts,
    suffix_of,
)
from chromatune.training.settings import TrainSettings

FORMAT = 5  # raised when the layout, the choice of photos or the drawing of pairs changes
PIXELS_PER_CALL = 1 << 20  # of the autoencoder on a CPU: four photos of 512 px
PIXELS_PER_CALL_GPU = 1 << 22
MOST_READERS = 8  # threads that read photos ahead of a GPU
MOST_TRIES = 4  # at a cache, where parts are damaged or another process deletes damaged ones


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
    plan = Plan(folder, items, size_px, shapes, settings, with_grays)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for _ in range(MOST_TRIES):
            parts = {part: open_part(plan, part) for part in range(plan.part_count)}
            damaged = [part for part, found in parts.items() if found is None]
            if not damaged:
                return assemble(plan, [found for found in parts.values() if found is not None])
            for part in damaged:  # it comes from the photos again
                part_path(folder, part).unlink(missing_ok=True)
            _make(plan, vae, start_stage, rank, ranks)
        raise OSError("its files are damaged again and again")
    except OSError as error:
        raise DataError(
            f"{folder}: the latent cache cannot be written ({error.strerror or error}); make room and run again"
        ) from None


@dataclass
class _Drawn:
    """A photo's variants, drawn and perhaps encoded already."""

    bucket: int
    content: np.ndarray  # (6,) uint8
    gray: np.ndarray | None  # (V, H, W, 3) uint8; None where no latents are wanted
    color: np.ndarray | None  # (V, H, W, 3) uint8
    encoded: dict[str, np.ndarray] = field(default_factory=dict)


def _make(plan: Plan, vae: Any, start_stage: StartStage, rank: int, ranks: int) -> None:
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
        return part_path(plan.folder, part).is_file()

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


def _draw(plan: Plan, index: int) -> _Drawn | SkippedPhoto:
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


def _write_part(plan: Plan, part: int, drawn: dict[int, _Drawn | SkippedPhoto]) -> None:
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
        tensors |= {f"{name}.{suffix_of(plan.shapes[bucket])}": array for name, array in arrays.items()}
    atomic_write(part_path(plan.folder, part), save(tensors, {"skipped": json.dumps(skipped)}))
