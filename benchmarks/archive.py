"""Photos/s and memory of `chromatune batch`: against a loop of `chromatune colorize`, over workers and photo sizes.

    python benchmarks/archive.py FOLDER [--workers 1,2] [--rounds 3] [--out FILE]
    python benchmarks/archive.py --draw 200 FOLDER     # first draws photos of mixed size, format and depth there

Sides take turns within a run; what counts is the median of their ratios. The loop calls `chromatune colorize` for 50
files at a time, into a folder for each folder.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from skimage import data
from speed import colorize, run

from chromatune.images import IMAGE_SUFFIXES

AT_A_TIME = 50
SHAPES = [(240, 320), (480, 640), (700, 500), (900, 1200), (1200, 1600)]  # height and width in pixels
FORMATS = [".jpg", ".jpg", ".png", ".tif", ".webp", ".bmp", "-16.png", "-16.tif"]
BROKEN_SHARE = 0.03


def draw_archive(folder: Path, count: int, *, seed: int = 0, shapes: list[tuple[int, int]] = SHAPES) -> list[str]:
    """Photos of mixed size, format and depth in nested folders, 3 % of them broken; keys of the broken ones."""
    chance = np.random.default_rng(seed)
    photos = [cv2.cvtColor(each(), cv2.COLOR_RGB2GRAY) for each in (data.astronaut, data.coffee, data.chelsea)]
    broken = []
    for index in range(count):
        kind = FORMATS[chance.integers(len(FORMATS))]
        height_px, width_px = shapes[chance.integers(len(shapes))]
        key = f"box-{index // 200}/{index // 50 % 4}/scan-{index:05d}{kind}"  # 50 in a folder
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = encode(crop(photos[chance.integers(len(photos))], height_px, width_px, chance), kind)
        if chance.random() < BROKEN_SHARE:
            encoded = [b"", b"no picture", encoded[: len(encoded) // 3]][chance.integers(3)]
            broken.append(key)
        path.write_bytes(encoded)
    return broken


def crop(grey: np.ndarray, height_px: int, width_px: int, chance: np.random.Generator) -> np.ndarray:
    """A part of a photo at a size: (H, W) uint8."""
    part = chance.uniform(0.5, 1.0)
    height, width = (round(side * part) for side in grey.shape)
    top, left = (chance.integers(1 + whole - side) for whole, side in zip(grey.shape, (height, width), strict=True))
    return cv2.resize(
        grey[top : top + height, left : left + width], (width_px, height_px), interpolation=cv2.INTER_CUBIC
    )


def encode(grey: np.ndarray, kind: str) -> bytes:
    """A file's bytes; a kind that begins with -16 is of 16 bits."""
    deep = kind.startswith("-16")
    samples = grey.astype(np.uint16) * 257 if deep else grey
    return bytes(cv2.imencode(kind.removeprefix("-16"), samples)[1])


def loop_of(photos: list[Path], root: Path, out: Path) -> Iterator[list[str]]:
    """The commands of a shell loop: 50 photos of one folder each."""
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for photo in photos:
        by_folder[photo.parent].append(photo)
    for folder, members in by_folder.items():
        for first in range(0, len(members), AT_A_TIME):
            yield colorize(members[first : first + AT_A_TIME], out / folder.relative_to(root))


def batch(root: Path, out: Path, workers: int | None = None) -> list[str]:
    """The command of this package for a folder."""
    more = [] if workers is None else ["--workers", str(workers)]
    return [sys.executable, "-m", "chromatune", "batch", str(root), str(out), "-q", *more]


def measure(command: list[str]) -> tuple[float, float]:
    """Wall seconds, and peak memory in MiB; photos that fail do not end it."""
    done = run(command, accepted=(0, 1))
    return done.seconds, done.peak_mib


def against_loop(root: Path, photos: list[Path], rounds: int) -> list[str]:
    """Rows: photos/s of both sides and the ratio."""
    sides: dict[str, list[float]] = {"batch": [], "loop": []}
    peak = 0.0
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            seconds, mib = measure(batch(root, Path(folder) / "batch"))
            sides["batch"].append(len(photos) / seconds)
            peak = max(peak, mib)
            total = sum(measure(command)[0] for command in loop_of(photos, root, Path(folder) / "loop"))
            sides["loop"].append(len(photos) / total)
    ratios = [ours / theirs for ours, theirs in zip(sides["batch"], sides["loop"], strict=True)]
    middle = {name: statistics.median(each) for name, each in sides.items()}
    span = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})"
    return [
        "| photos | batch, photos/s | loop of colorize, photos/s | ratio | peak MiB of batch |",
        "| ---: | ---: | ---: | ---: | ---: |",
        f"| {len(photos)} | {middle['batch']:.2f} | {middle['loop']:.2f} | **{span}** | {peak:.0f} |",
    ]


def over_workers(root: Path, photos: list[Path], counts: list[int], rounds: int) -> list[str]:
    """Rows: photos/s and memory for each number of workers."""
    found: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for _ in range(rounds):
        for count in counts:
            with tempfile.TemporaryDirectory() as folder:
                seconds, mib = measure(batch(root, Path(folder) / "out", count))
                found[count].append((len(photos) / seconds, mib))
    lines = ["| workers | photos/s | peak MiB |", "| ---: | ---: | ---: |"]
    for count, each in found.items():
        speeds, peaks = zip(*each, strict=True)
        lines.append(f"| {count} | {statistics.median(speeds):.2f} | {max(peaks):.0f} |")
    return lines


def over_sizes(sizes: list[float], count: int, workers: list[int]) -> list[str]:
    """Rows: photos/s of grey JPEGs of a size, for each number of workers."""
    photo = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY)
    lines = [
        "| megapixels | " + " | ".join(f"{each} workers, photos/s" for each in workers) + " | peak MiB |",
        "| ---: |" + " ---: |" * (len(workers) + 1),
    ]
    for megapixels in sizes:
        side = round((megapixels * 1e6) ** 0.5)
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "photos"
            root.mkdir()
            number = max(4, min(count, round(count * 4 / max(megapixels, 1))))
            for index in range(number):
                cv2.imwrite(str(root / f"{index}.jpg"), cv2.resize(np.roll(photo, index, 1), (side, side)))
            measured = [measure(batch(root, Path(folder) / f"out-{each}", each)) for each in workers]
        speeds = " | ".join(f"{number / seconds:.2f}" for seconds, _ in measured)
        lines.append(f"| {megapixels:g} | {speeds} | {max(mib for _, mib in measured):.0f} |")
    return lines


def main() -> None:
    """Draws if asked to, measures, prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draw", type=int, default=0, help="number of photos to draw there first")
    parser.add_argument("--workers", default="", help="numbers of them, such as 1,2")
    parser.add_argument("--sizes", default="", help="megapixels, such as 0.3,1,4,12,50")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.draw:
        shutil.rmtree(given.folder, ignore_errors=True)
        print(f"drawn, {len(draw_archive(given.folder, given.draw))} of them broken", file=sys.stderr)
    photos = sorted(path for path in given.folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    counts = [int(each) for each in given.workers.split(",") if each]
    lines = against_loop(given.folder, photos, given.rounds)
    if counts:
        lines += ["", *over_workers(given.folder, photos, counts, given.rounds)]
    if counts and given.sizes:
        lines += ["", *over_sizes([float(each) for each in given.sizes.split(",")], 40, counts)]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if given.out:
        given.out.write_text(text)


if __name__ == "__main__":
    main()
