"""The latent cache as it lies on disk: parts of 64 photos, complete or absent, which several processes make together.

A part is one safetensors file, whose arrays are grouped by the photos' shapes; which photos are in it, and which are
skipped, stands in it too. So a cache that was interrupted is completed, processes and machines make different parts at
the same time, and none of them holds a lock or waits at a barrier.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from chromatune.data import BROKEN, MONOCHROME, TOO_LONG, TOO_SMALL, PhotoItem, Shape
from chromatune.errors import DataError
from chromatune.pipeline import PHOTO_DIGITS
from chromatune.training.settings import TrainSettings

SKIP_REASONS = (BROKEN, TOO_SMALL, MONOCHROME, TOO_LONG)
PHOTOS_PER_PART = 64
POLL_SECONDS = 0.5  # between two looks for the parts of other processes
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
            self._files[part] = safe_open(part_path(self.folder, part), "numpy")
        row = int(self.rows[photo]) * self.variants + variant
        suffix = suffix_of(self.shapes[self.buckets[photo]])
        names = ("condition", "moments", *(["grays"] if self.with_grays else []))
        return {name: self._files[part].get_slice(f"{name}.{suffix}")[row] for name in names}


class Plan(NamedTuple):
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


def share_parts(
    count: int, exists: Callable[[int], bool], make: Callable[[Sequence[int]], None], rank: int, ranks: int
) -> None:
    """Make the parts of this process, and wait until the other processes have made theirs.

    Where no part appears for a while, this process makes one that another one should have made: it may have ended, or
    be far slower. A part that two processes make is the same from both.

    Raises:
        DataError: a part that this process has made cannot be read again.
    """
    own = [part for part in range(rank, count, ranks) if not exists(part)]
    make(own)
    if not all(exists(part) for part in own):
        raise DataError("a part of the cache that was just written cannot be read again; check the disk")
    before, since = count + 1, time.monotonic()
    while missing := [part for part in range(count) if not exists(part)]:
        if len(missing) < before:
            before, since = len(missing), time.monotonic()
        elif time.monotonic() - since > PATIENCE_SECONDS:
            make([missing[-1 - rank % len(missing)]])
            continue
        time.sleep(POLL_SECONDS)


class PartIndex(NamedTuple):
    """Which photos are in a part, and where."""

    photos: np.ndarray  # (n,) int64 into the plan's items, in the order of shapes and rows
    buckets: np.ndarray  # (n,) int64
    rows: np.ndarray  # (n,) int64
    contents: np.ndarray  # (n, 6) uint8
    skipped: dict[str, list[str]]


def part_path(folder: Path, part: int) -> Path:
    """Return the file of a part."""
    return folder / f"part-{part:05d}.safetensors"


def suffix_of(shape: Shape) -> str:
    """Return what the names of a shape's arrays end in."""
    return f"{shape[0]}x{shape[1]}"


def open_part(plan: Plan, part: int) -> PartIndex | None:
    """Read which photos are in a part; None where it is missing, damaged, or of other photos."""
    path = part_path(plan.folder, part)
    if not path.is_file():  # a pipe would be waited for
        return None
    try:
        with safe_open(path, "numpy") as file:
            return _checked_index(plan, part, file)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _checked_index(plan: Plan, part: int, file: Any) -> PartIndex:
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
        suffix = suffix_of(shape)
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
    nothing = np.empty(0, np.int64)
    photos, buckets, rows = (np.concatenate([nothing, *found[name]]) for name in ("photos", "buckets", "rows"))
    contents = np.concatenate([np.empty((0, PHOTO_DIGITS // 2), np.uint8), *found["contents"]])
    unusable = {key for each in skipped.values() for key in each}
    if sorted(photos.tolist()) != [i for i in plan.photos_of(part) if plan.items[i].key not in unusable]:
        raise ValueError("other photos")
    return PartIndex(photos, buckets, rows, contents, skipped)


def _check_arrays(plan: Plan, file: Any, shape: Shape, count: int) -> None:
    """Check that a shape's latents are there as announced, by the file's header alone.

    Raises:
        ValueError: they are not; SafetensorError where one is missing.
    """
    if not plan.with_latents:
        return
    rows, suffix = count * plan.settings.cache_variants, suffix_of(shape)
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


def assemble(plan: Plan, parts: Sequence[PartIndex]) -> LatentCache:
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
