"""Hashes of what `chromatune colorize` and a short `chromatune finetune` write, to compare two versions.

    python studies/same_bytes.py --work DIR > before.txt     (at one commit)
    python studies/same_bytes.py --work DIR2 > after.txt     (at another; then: diff before.txt after.txt)

Photos are those that scikit-image ships, as PNG, JPEG and 16-bit TIFF; the training set is drawn here. A line a file:
its SHA-256, and what it is. Same machine, same versions of all libraries: another processor rounds otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import skimage.data

PHOTOS = ("astronaut", "cat", "coffee", "rocket", "camera", "hubble_deep_field")
WAYS: dict[str, list[str]] = {
    "default": [],
    "4 steps": ["--steps", "4"],
    "3 variants": ["--variants", "3"],
    "not recomposed": ["--no-recompose"],
    "mini-base, words, seed": ["--model", "mini-base", "--prompt", "colorize it, warm colors", "--seed", "5"],
    "guided": ["--steps", "2", "--guidance-scale", "3", "--image-guidance-scale", "1.5", "--strength", "0.7"],
    "small": ["--size", "128"],
}
FINETUNES: dict[str, list[str]] = {
    "quick": [],
    "LAB loss, averaged": ["--set", "lab_weight=0.5", "--set", "min_snr_gamma=5", "--set", "accumulation=2"],
    "from mini": ["--model", "mini"],
}
FINETUNE_SETTINGS = ["batch=4", "validate_every=10", "checkpoint_every=10", "validation_photos=4", "warmup=2"]
# Reports are for people and may change; checkpoints and logs hold dates and paths.
COMPARED = ("model/**/*.safetensors", "model/**/*.json", "metrics.jsonl", "grids/*.png", "cache/*/*.npy")


def write_photos(folder: Path) -> list[Path]:
    """The photos in three formats each, the TIFF with 16 bits."""
    folder.mkdir(parents=True)
    paths = []
    for name in PHOTOS:
        photo = getattr(skimage.data, name)()
        order = photo[..., ::-1] if photo.ndim == 3 else photo  # BGR is what OpenCV writes
        deep = order.astype(np.uint16) * 257
        deep += (np.indices(deep.shape).sum(axis=0) % 257).astype(np.uint16) * (deep < 65000)  # low bytes of its own
        for suffix, samples in ((".png", order), (".jpg", order), (".tif", deep)):
            paths.append(folder / f"{name}{suffix}")
            cv2.imwrite(str(paths[-1]), samples)
    return paths


def write_drawings(folder: Path, count: int = 24) -> None:
    """Colored discs on colored grounds, of several sizes."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        image = np.full((150 + index % 3 * 20, 160, 3), rng.integers(0, 256, 3), np.uint8)
        for _ in range(6):
            center, color = rng.integers(0, 150, 2).tolist(), rng.integers(0, 256, 3).tolist()
            cv2.circle(image, center, int(rng.integers(12, 60)), color, -1)
        path = folder / f"{index:02d}.png"
        cv2.imwrite(str(path), image)
        os.utime(path, (0, 0))  # a latent cache's name depends on it


def run(words: list[str]) -> None:
    """One command of the installed package, in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "chromatune", *words], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"chromatune {' '.join(words)}: exit {done.returncode}\n{done.stderr}")


def hashes(folder: Path, patterns: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(SHA-256, path below the folder) of each file that a pattern finds."""
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}):
        data = path.read_bytes()
        if path.suffix == ".json":  # where parts were loaded from is no part of a result
            known = json.loads(data)
            kept = {key: value for key, value in known.items() if key not in ("_name_or_path", "local_files_only")}
            data = json.dumps(kept).encode()
        name = path.relative_to(folder)
        parts = (name.parts[0], name.name) if name.parts[0] == "cache" else name.parts  # its name is a hash of dates
        yield hashlib.sha256(data).hexdigest(), "/".join(parts)


def main() -> None:
    """Runs everything and prints a line a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="new folder for photos and results")
    parser.add_argument("--only", choices=("colorize", "finetune"), help="one half of it")
    parser.add_argument("--hash", action="store_true", help="run nothing: hash what an earlier call left in the folder")
    arguments = parser.parse_args()
    work: Path = arguments.work
    if arguments.only != "finetune":
        if not arguments.hash:
            colorize_all(work)
        for way in WAYS:
            print_hashes(f"colorize, {way}", work / "results" / way.replace(" ", "-"), ("*",))
    if arguments.only != "colorize":
        if not arguments.hash:
            finetune_all(work)
        for way in FINETUNES:
            print_hashes(f"finetune, {way}", work / "runs" / way.replace(" ", "-"), COMPARED)


def colorize_all(work: Path) -> None:
    """Every photo in every way."""
    photos = [str(path) for path in write_photos(work / "photos")]
    for way, options in WAYS.items():
        out = work / "results" / way.replace(" ", "-")
        for suffix in (".png", ".jpg", ".tif"):  # three runs: equal stems in one folder would be refused
            run(["colorize", *(p for p in photos if p.endswith(suffix)), "-o", str(out), "--quiet", *options])


def finetune_all(work: Path) -> None:
    """Twenty updates in every way."""
    write_drawings(work / "drawings")
    settings = [word for setting in FINETUNE_SETTINGS for word in ("--set", setting)]
    for way, options in FINETUNES.items():
        out = work / "runs" / way.replace(" ", "-")
        run(["finetune", str(work / "drawings"), "--out", str(out), "--max-steps", "20", "-q", *settings, *options])


def print_hashes(what: str, folder: Path, patterns: tuple[str, ...]) -> None:
    """A line a file: its hash, and what it is."""
    for digest, name in hashes(folder, patterns):
        print(f"{digest[:32]}  {what}: {name}", flush=True)


if __name__ == "__main__":
    main()
