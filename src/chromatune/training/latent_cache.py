"""Latents of the training photos, computed once: a few crops, flips and grays of each, kept on disk.

A folder's name is a hash of all that its numbers depend on (photos, VAE, size, crops, grays, seed), so another run
finds it or makes its own, and a stale one is never read. Posterior moments are kept, not samples.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from chromatune.data import BROKEN, MONOCHROME, TOO_SMALL, PhotoItem, SkippedPhoto, draw_crop, make_pair, read_usable
from chromatune.errors import DataError
from chromatune.files import atomic_write
from chromatune.options import StartStage, silent
from chromatune.pipeline import encode_moments, mode_of, read_json, to_pixels
from chromatune.training.parts import weights_digest
from chromatune.training.settings import TrainSettings

FORMAT = 2  # raised when the layout or the drawing of pairs changes
LEFT_OUT = (BROKEN, TOO_SMALL, MONOCHROME)
RESERVED_BYTES = 1 << 20
PROGRESS_SAVE = 64  # photos between two notes of how far the making has come


@dataclass(frozen=True)
class LatentCache:
    """What a finished cache holds; photo i, variant k is row i · variants + k."""

    folder: Path
    items: tuple[PhotoItem, ...]  # the usable photos
    variants: int
    size_px: int
    condition: np.ndarray  # (N · variants, 4, h, w) float16, modes of the gray photos, unscaled
    moments: np.ndarray  # (N · variants, 8 or 4, h, w) float16, posteriors of the color photos
    rows: np.ndarray  # (N,) int64, row of each usable photo's first variant
    left_out: dict[str, list[str]]  # reason -> keys
    grays: np.ndarray | None = None  # (N · variants, S, S) uint8, the gray photos themselves, for a photo encoder


def cached_pair(item: PhotoItem, variant: int, size_px: int, settings: TrainSettings) -> tuple[np.ndarray, np.ndarray]:
    """Gray and color crop, (S, S, 3) uint8 each: what row (item, variant) was made from, drawn again.

    Raises:
        PhotoError: the photo cannot be read.
    """
    return _pair_of(item.read(), item.key, variant, size_px, settings)


def _pair_of(
    rgb: np.ndarray, key: str, variant: int, size_px: int, settings: TrainSettings
) -> tuple[np.ndarray, np.ndarray]:
    seed = int(hashlib.sha256(f"{settings.seed}/{key}/{variant}".encode()).hexdigest()[:16], 16)
    rng = np.random.default_rng(seed)
    crop = draw_crop(rgb.shape[0], rgb.shape[1], size_px, rng, zoom=settings.zoom, flip=settings.flip)
    return make_pair(rgb, crop, size_px, rng, gray=settings.gray)


def cache_key(
    items: Sequence[PhotoItem], vae_digest: str, size_px: int, settings: TrainSettings, with_grays: bool = False
) -> str:
    """Name of the cache folder: changes with everything its numbers depend on."""
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
    """The finished cache for these photos below `root`, made or completed first where need be.

    Args:
        root: folder of all caches.
        items: the training photos; broken and gray ones are left out and named.
        vae: the autoencoder, on the device it is to run on.
        size_px: side of the squares.
        settings: crops, grays, seed, number of variants.
        start_stage: shows how far the encoding is.
        with_grays: whether the gray photos are kept beside their latents.

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
    """The cache in a folder.

    Raises:
        ValueError: it is damaged.
        DataError: no photo is usable.
    """
    index = _read_index(folder, items, settings)
    unusable = {key for keys in index["left_out"].values() for key in keys}
    usable = [i for i, item in enumerate(items) if item.key not in unusable]
    if not usable:
        raise DataError(f"no usable photo among {len(items)}: {_reasons(index['left_out'])}")
    arrays = _open_arrays(folder, len(items) * index["variants"], size_px, with_grays)
    return LatentCache(
        folder=folder,
        items=tuple(items[i] for i in usable),
        variants=index["variants"],
        size_px=size_px,
        condition=arrays["condition"],
        moments=arrays["moments"],
        rows=np.array([i * index["variants"] for i in usable], dtype=np.int64),
        left_out=index["left_out"],
        grays=arrays.get("grays"),
    )


def _read_index(folder: Path, items: Sequence[PhotoItem], settings: TrainSettings) -> dict[str, Any]:
    """How far a cache is, and which photos it leaves out.

    Raises:
        ValueError: the note is missing or damaged, or of other photos.
    """
    index = read_json(folder / "index.json")
    left_out, done = index.get("left_out"), index.get("done")
    lists = list(left_out.values()) if isinstance(left_out, dict) else [None]
    if not all(isinstance(keys, list) and all(isinstance(key, str) for key in keys) for keys in lists):
        raise ValueError("index.json is damaged")
    if index.get("variants") != settings.cache_variants or not isinstance(done, int) or not 0 <= done <= len(items):
        raise ValueError("index.json is damaged")
    if set(left_out or ()) != set(LEFT_OUT):
        raise ValueError("index.json is damaged")
    return index


def _open_arrays(folder: Path, rows: int, size_px: int, with_grays: bool) -> dict[str, np.ndarray]:
    """The arrays of a cache by name: condition (rows, 4, h, h), moments (rows, 8 or 4, h, h), grays (rows, S, S).

    Raises:
        ValueError: one is missing or damaged, or they are not of one cache.
    """
    names = ("condition", "moments", *(["grays"] if with_grays else []))
    arrays = {name: _open_array(folder / f"{name}.npy", rows) for name in names}
    side = arrays["condition"].shape[-1]
    known = [(rows, channels, side, side) for channels in (4, 8)]  # a small autoencoder has no posteriors
    if arrays["condition"].shape != known[0] or arrays["moments"].shape not in known:
        raise ValueError("the latents are damaged")
    if with_grays and arrays["grays"].shape != (rows, size_px, size_px):
        raise ValueError("the gray photos are damaged")
    if any(array.dtype != (np.uint8 if name == "grays" else np.float16) for name, array in arrays.items()):
        raise ValueError("the numbers are of another type")
    return arrays


def _open_array(path: Path, rows: int, mode: Literal["r", "r+"] = "r") -> np.ndarray:
    """An array on disk, (rows, ...) float16 or uint8.

    Raises:
        ValueError: it is missing, cut, or another one.
    """
    try:
        # For reading first: what is opened for writing is lengthened with zeros where it was cut
        array = np.lib.format.open_memmap(path, mode="r")
        whole = array.offset + array.nbytes == path.stat().st_size
    except Exception as error:  # its header is read as Python's own literals are, with all that can go wrong there
        raise ValueError(f"{path.name} is damaged") from error
    usual = array.dtype in (np.float16, np.uint8) and array.flags.c_contiguous
    if not whole or not usual or array.shape[:1] != (rows,):
        raise ValueError(f"{path.name} is cut or damaged")
    return array if mode == "r" else np.lib.format.open_memmap(path, mode=mode)


def _reasons(left_out: dict[str, list[str]]) -> str:
    return ", ".join(f"{len(keys)} {reason}" for reason, keys in left_out.items() if keys)


def _make(
    folder: Path, items: Sequence[PhotoItem], vae: Any, size_px: int, settings: TrainSettings,
    start_stage: StartStage, with_grays: bool,
) -> None:  # fmt: skip
    """Fills `folder.partial`, going on where an earlier try stopped, and gives it its name when complete."""
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    device = next(vae.parameters()).device
    note = partial / "index.json"  # how far it is, and in the end what is there
    index: dict[str, Any] = {"variants": settings.cache_variants}
    try:
        index = _read_index(partial, items, settings)
        if index["done"] > sum(map(len, index["left_out"].values())):
            _open_arrays(partial, len(items) * index["variants"], size_px, with_grays)
        else:  # no photo is in them yet; a full disk may have left them empty
            for array_file in partial.glob("*.npy"):
                array_file.unlink()
    except ValueError:  # not begun, or damaged: made anew
        shutil.rmtree(partial)
        partial.mkdir()
        index |= {"done": 0, "left_out": {name: [] for name in LEFT_OUT}}
    advance = start_stage("encoding photos", len(items))
    for _ in range(index["done"]):
        advance()
    arrays: dict[str, np.ndarray] = {}
    for number, item in enumerate(items[index["done"] :], start=index["done"]):
        pairs = _usable_pairs(item, size_px, settings, index["left_out"])
        if pairs is not None:
            values = _encode(vae, pairs, device)
            if with_grays:
                values["grays"] = np.stack([gray[..., 0] for gray, _ in pairs])
            _store(partial, arrays, number, len(items), values)
        advance()
        if (number + 1) % PROGRESS_SAVE == 0 or number + 1 == len(items):
            for array in arrays.values():
                array.flush()  # type: ignore[attr-defined]
            index["done"] = number + 1
            atomic_write(note, json.dumps(index).encode())
    if not arrays and not (partial / "condition.npy").exists():
        shutil.rmtree(partial)
        raise DataError(f"no usable photo among {len(items)}: {_reasons(index['left_out'])}")
    arrays.clear()
    os.replace(partial, folder)


def _usable_pairs(
    item: PhotoItem, size_px: int, settings: TrainSettings, left_out: dict[str, list[str]]
) -> list[tuple[np.ndarray, np.ndarray]] | None:
    rgb = read_usable(item)
    if isinstance(rgb, SkippedPhoto):
        left_out[rgb.reason].append(item.key)
        return None
    return [_pair_of(rgb, item.key, k, size_px, settings) for k in range(settings.cache_variants)]


@torch.no_grad()
def _encode(vae: Any, pairs: list[tuple[np.ndarray, np.ndarray]], device: torch.device) -> dict[str, np.ndarray]:
    """Condition and moments of one photo's variants, (variants, 4 or 8, h, w) float16."""
    gray, color = (encode_moments(vae, to_pixels(np.stack(half)).to(device)) for half in zip(*pairs, strict=True))
    return {name: x.cpu().numpy().astype(np.float16) for name, x in (("condition", mode_of(gray)), ("moments", color))}


def _store(
    partial: Path, arrays: dict[str, np.ndarray], number: int, total: int, values: dict[str, np.ndarray]
) -> None:
    for name, value in values.items():
        if name not in arrays:
            path, rows = partial / f"{name}.npy", total * len(value)
            if not path.exists():
                np.lib.format.open_memmap(path, mode="w+", dtype=value.dtype, shape=(rows, *value.shape[1:]))
            _reserve(path)
            arrays[name] = _open_array(path, rows, mode="r+")
        arrays[name][number * len(value) : (number + 1) * len(value)] = value


def _reserve(path: Path) -> None:
    """Takes the file's room on the disk at once: without it, a full disk ends the process by a signal, wordlessly.

    Raises:
        OSError: the disk is full.
    """
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
