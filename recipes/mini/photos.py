"""Photos for the recipe: packed once into one array, then drawn as random square crops."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from loop import rank
from rich.progress import track

from chromatune.data import content_of, is_monochrome, read_rgb
from chromatune.errors import PhotoError
from chromatune.pipeline import PHOTO_DIGITS, TrainingSet

# Before any of it runs: processes that are forked from one with threads of OpenCV would wait for those for ever
cv2.setNumThreads(1)

SPLITS = ("train", "validation", "test")
LEFT_OUT = (BROKEN, MONOCHROME) = ("broken", "monochrome")  # reasons
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}


@dataclass(frozen=True)
class Pack:
    """Photos of one split: `pixels` is flat uint8 sRGB, photo i is `pixels[offset[i]:].reshape(shape[i])`."""

    pixels: np.ndarray  # (N,) uint8
    offset: np.ndarray  # (P,) int64
    shape: np.ndarray  # (P, 2) int64: height and width in pixels
    weight: np.ndarray  # (P,) float64, sums to 1
    files: list[str]

    def photo(self, index: int) -> np.ndarray:
        """Photo `index`, (H, W, 3) uint8 sRGB."""
        height, width = self.shape[index]
        start = self.offset[index]
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)


def set_of(file: str) -> str:
    """The set of a photo: the first folder of its path below the photos' folder."""
    return file.split("/")[0]


def content_share(path: Path) -> float:
    """A number in 0..1 from the SHA-256 of a file's bytes: the split never depends on names or order."""
    return int(hashlib.sha256(path.read_bytes()).hexdigest()[:12], 16) / 16**12


def split_of(share: float, settings: dict[str, Any]) -> str:
    """The split of a photo: the lowest shares are the test, the next the validation photos."""
    if share < settings["test"]:
        return "test"
    return "validation" if share < settings["test"] + settings["validation"] else "train"


def find_photos(folder: Path) -> list[Path]:
    """Every photo below `folder`, sorted.

    Raises:
        SystemExit: there is no such folder.
    """
    if not folder.is_dir():
        raise SystemExit(f"{folder}: there is no such folder; give one with color photos")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def read_to_pack(path: Path, settings: dict[str, Any]) -> np.ndarray | str:
    """A photo as it is packed, (H, W, 3) uint8; or why it is left out, one of `LEFT_OUT`.

    Args:
        path: the photo.
        settings: `[pack]`.
    """
    side_px, max_aspect = settings["side_px"], settings["max_aspect"]
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        return BROKEN
    height, width = bgr.shape[:2]
    keep_h, keep_w = min(height, int(width * max_aspect)), min(width, int(height * max_aspect))
    top, left = (height - keep_h) // 2, (width - keep_w) // 2
    bgr = bgr[top : top + keep_h, left : left + keep_w]
    scale = side_px / min(keep_h, keep_w)
    size = (max(side_px, round(keep_w * scale)), max(side_px, round(keep_h * scale)))
    small = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    rgb = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
    # tint_degree=0: as the shipped models were packed
    return MONOCHROME if is_monochrome(rgb, settings["min_chroma"], tint_degree=0) else rgb


def content_at(path: Path) -> str:
    """By which `training_data.json` knows a photo: the hash of its pixels at full size, as the package reads them.

    Empty where the package cannot read it.
    """
    try:
        return content_of(read_rgb(path, path.name))
    except PhotoError:
        return ""


def _load(path: Path, settings: dict[str, Any]) -> tuple[np.ndarray | str, float, str]:
    rgb = read_to_pack(path, settings)
    return rgb, content_share(path), "" if isinstance(rgb, str) else content_at(path)


def pack(folder: Path, out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Packs every photo below `folder` into `out` as one file a split (train, validation, test); returns counts."""
    files = find_photos(folder)
    if not files:
        raise SystemExit(f"no photos below {folder}: give a folder with JPEG, PNG, WebP, TIFF or BMP files")
    out.mkdir(parents=True, exist_ok=True)
    splits: dict[str, list[tuple[str, np.ndarray]]] = {name: [] for name in SPLITS}
    contents: dict[str, str] = {}
    counts = dict.fromkeys(LEFT_OUT, 0)
    with ProcessPoolExecutor() as pool:
        results = pool.map(partial(_load, settings=settings), files, chunksize=32)
        for path, (rgb_u8, share, content) in track(zip(files, results, strict=True), "packing", total=len(files)):
            if isinstance(rgb_u8, str):
                counts[rgb_u8] += 1
            else:
                file = str(path.relative_to(folder))
                splits[split_of(share, settings)].append((file, rgb_u8))
                contents[file] = content
    counts |= {name: len(photos) for name, photos in splits.items()}
    train_hash = list_hash(file for file, _ in splits["train"])
    return save_pack(out, splits, {"photos": len(files), **counts, "train_hash": train_hash}, contents)


def list_hash(files: Iterable[str]) -> str:
    """A hash of the names of photos, in the order they are given in."""
    return hashlib.sha256("\n".join(files).encode()).hexdigest()[:16]


def save_pack(
    out: Path, splits: dict[str, list[tuple[str, np.ndarray]]], summary: dict[str, Any], contents: dict[str, str]
) -> dict[str, Any]:
    """Writes every split, then the summary, which says that the pack is whole; returns the summary.

    Args:
        out: folder of the pack.
        splits: split ⇒ names and photos, (H, W, 3) uint8.
        summary: what is known of the pack.
        contents: name ⇒ hash of the original photo's pixels, see `content_at`; photos may lack it.
    """
    for name in SPLITS:
        save_split(out, name, splits[name], contents)
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    return summary


def save_split(out: Path, name: str, photos: list[tuple[str, np.ndarray]], contents: dict[str, str]) -> None:
    """Writes photos, names and (H, W, 3) uint8, as the split `name` of the pack in `out`; `contents` by name."""
    shape = np.array([rgb.shape[:2] for _, rgb in photos], dtype=np.int64).reshape(-1, 2)
    sizes = shape.prod(axis=1) * 3
    path = out / f"{name}.pixels.npy"
    if photos:
        pixels = np.lib.format.open_memmap(path, "w+", np.uint8, (int(sizes.sum()),))
        for (_, rgb), end in zip(photos, np.cumsum(sizes), strict=True):
            pixels[end - rgb.size : end] = rgb.reshape(-1)
        pixels.flush()
    else:
        np.save(path, np.empty(0, np.uint8))  # no memory map is empty
    meta = {
        "files": [file for file, _ in photos],
        "shape": shape.tolist(),
        "offset": (np.cumsum(sizes) - sizes).tolist(),
        "contents": [contents.get(file, "") for file, _ in photos],
    }
    (out / f"{name}.json").write_text(json.dumps(meta))


def load_pack(out: Path, name: str, weights: dict[str, float] | None = None) -> Pack:
    """The split `name` (one of `SPLITS`) that `pack` wrote; `weights` by set (first folder), 1 where not named."""
    meta = json.loads((out / f"{name}.json").read_text())
    pixels = np.load(out / f"{name}.pixels.npy", mmap_mode="r")
    weight = np.array([(weights or {}).get(set_of(file), 1.0) for file in meta["files"]])
    if weight.size and not weight.any():  # a small folder may leave a split empty
        raise SystemExit(f"{out / name}: [pack.weights] in settings.toml gives every set here weight 0; change one")
    arrays = {key: np.asarray(meta[key]) for key in ("offset", "shape")}
    return Pack(pixels=pixels, files=meta["files"], weight=weight / weight.sum(), **arrays)


def training_sets(out: Path, weights: dict[str, float], before: Sequence[TrainingSet]) -> list[TrainingSet]:
    """The sets that the pack in `out` trains with, for `training_data.json`: a set's photos that are not in it before.

    Args:
        out: folder of the pack; photos of one that was made without hashes are counted alone.
        weights: by set; those of weight 0 are not trained with.
        before: what the model that is trained on has seen.
    """
    meta = json.loads((out / "train.json").read_text())
    known = {photo for each in before for photo in each.photos}
    sets: dict[str, list[str]] = {}
    for file, content in zip(meta["files"], meta.get("contents", [""] * len(meta["files"])), strict=True):
        if weights.get(set_of(file), 1.0) > 0:
            sets.setdefault(set_of(file), []).append(content[:PHOTO_DIGITS])
    new = {
        name: [content for content in contents if content and content not in known] for name, contents in sets.items()
    }
    return [
        TrainingSet.of(name, new[name], count=len(contents))
        for name, contents in sorted(sets.items())
        if new[name] or not all(contents)
    ]


def random_crop(rgb_u8: np.ndarray, size_px: int, rng: np.random.Generator, zoom: float = 0.8) -> np.ndarray:
    """A random square, at least `zoom` of the short side, flipped half the time, (size_px, size_px, 3) uint8."""
    height, width = rgb_u8.shape[:2]
    short_px = min(height, width)
    side = int(rng.integers(round(zoom * short_px), short_px + 1))
    top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    crop = rgb_u8[top : top + side, left : left + side]
    if side != size_px:
        interpolation = cv2.INTER_AREA if side > size_px else cv2.INTER_CUBIC
        crop = cv2.resize(crop, (size_px, size_px), interpolation=interpolation)
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def center_square(rgb_u8: np.ndarray, size_px: int) -> np.ndarray:
    """The largest centerd square, resized to (size_px, size_px, 3) uint8."""
    height, width = rgb_u8.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    crop = rgb_u8[top : top + side, left : left + side]
    interpolation = cv2.INTER_AREA if side >= size_px else cv2.INTER_CUBIC
    return cv2.resize(crop, (size_px, size_px), interpolation=interpolation)


def tilt(rgb_u8: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The square turned by up to 15° and up to a quarter smaller, black around it, as prints lie on a scanner."""
    side = rgb_u8.shape[0]
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), float(rng.uniform(-15, 15)), float(rng.uniform(0.75, 1.0)))
    return cv2.warpAffine(np.ascontiguousarray(rgb_u8), turn, (side, side), flags=cv2.INTER_AREA)


def draw_crops(
    pack: Pack, size_px: int, count: int, rng: np.random.Generator, zoom: float = 0.8, tilted: float = 0.0
) -> list[np.ndarray]:
    """`count` random crops, (size_px, size_px, 3) uint8 each; a share `tilted` of them lie askew."""
    chosen = rng.choice(len(pack.files), size=count, p=pack.weight)
    crops = [random_crop(pack.photo(int(index)), size_px, rng, zoom) for index in chosen]
    return [tilt(crop, rng) if rng.random() < tilted else crop for crop in crops]


def crop_batches(
    pack: Pack, size_px: int, count: int, seed: int, first_step: int, zoom: float = 0.8
) -> Iterator[tuple[list[np.ndarray], np.random.Generator]]:
    """Endless lists of `count` random crops and the generator for what else a batch draws.

    Batch k depends on the seed, k and the process alone.
    """
    for step in itertools.count(first_step):
        rng = np.random.default_rng((seed, step, rank()))
        yield draw_crops(pack, size_px, count, rng, zoom), rng


class Numbered(torch.utils.data.Dataset[Any]):
    """`make(k)` as item k."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


def numbered(make: Callable[[int], Any], first: int, loaders: int) -> Generator[Any]:
    """`make(first)`, `make(first + 1)`, … without end, made by `loaders` processes; by the caller where that is 0."""
    numbers = itertools.count(first)
    if loaders == 0:
        yield from map(make, numbers)
    else:  # forked, so that a pack's memory map is not copied
        fork = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
        yield from torch.utils.data.DataLoader(
            Numbered(make), batch_size=None, sampler=numbers, num_workers=loaders, prefetch_factor=4,
            multiprocessing_context=fork,
        )  # fmt: skip
