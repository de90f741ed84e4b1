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
from speed import Run, colorize, run

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


def crop(gray: np.ndarray, height_px: int, width_px: int, chance: np.random.Generator) -> np.ndarray:
    """A part of a photo at a size: (H, W) uint8."""
    part = chance.uniform(0.5, 1.0)
    height, width = (round(side * part) for side in gray.shape)
    top, left = (chance.integers(1 + whole - side) for whole, side in zip(gray.shape, (height, width), strict=True))
    return cv2.resize(
        gray[top : top + height, left : left + width], (width_px, height_px), interpolation=cv2.INTER_CUBIC
    )


def encode(gray: np.ndarray, kind: str) -> bytes:
    """A file's bytes; a kind that begins with -16 is of 16 bits."""
    deep = kind.startswith("-16")
    samples = gray.astype(np.uint16) * 257 if deep else gray
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
    return [sys.executable, "-m", "chromatune", "batch", str(root), str(out), "-q", "--colored", "recolor", *more]


def measure(command: list[str], out: Path) -> Run:
    """Wall and core seconds and peak memory; photos that fail do not end it.

    Raises:
        SystemExit: there is no result at all.
    """
    done = run(command, accepted=(0, 1))
    if not any(path.suffix.lower() in IMAGE_SUFFIXES for path in out.rglob("*")):
        raise SystemExit(f"{' '.join(command)}: made nothing")
    return done


def against_loop(root: Path, photos: list[Path], rounds: int) -> list[str]:
    """Rows: photos/s of both sides, core seconds, and the ratios."""
    sides: dict[str, list[list[Run]]] = {"batch": [], "loop": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs = (Path(folder) / name for name in sides)
            sides["batch"].append([measure(batch(root, ours), ours)])
            sides["loop"].append([measure(each, theirs) for each in loop_of(photos, root, theirs)])
    speeds = {name: [len(photos) / sum(run.seconds for run in each) for each in runs] for name, runs in sides.items()}
    cores = {
        name: [sum(run.core_seconds for run in each) / len(photos) for each in runs] for name, runs in sides.items()
    }
    lines = [f"| {len(photos)} photos | batch | loop of colorize | ratio |", "| --- | ---: | ---: | ---: |"]
    for what, found, pairs in (
        ("photos/s", speeds, zip(speeds["batch"], speeds["loop"], strict=True)),
        ("core seconds a photo", cores, zip(cores["loop"], cores["batch"], strict=True)),
    ):
        ratios = [better / worse for better, worse in pairs]
        span = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} … {max(ratios):.2f})"
        middle = {name: statistics.median(each) for name, each in found.items()}
        lines.append(f"| {what} | {middle['batch']:.3g} | {middle['loop']:.3g} | {span} |")
    peaks = {name: max(run.peak_mib for each in runs for run in each) for name, runs in sides.items()}
    return [*lines, f"| peak MiB | {peaks['batch']:.0f} | {peaks['loop']:.0f} | |"]


def over_workers(root: Path, photos: list[Path], counts: list[int], rounds: int) -> list[str]:
    """Rows: photos/s and memory for each number of workers."""
    found: dict[int, list[Run]] = defaultdict(list)
    for _ in range(rounds):
        for count in counts:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "out"
                found[count].append(measure(batch(root, out, count), out))
    lines = ["| workers | photos/s | peak MiB |", "| ---: | ---: | ---: |"]
    for count, each in found.items():
        seconds = statistics.median(run.seconds for run in each)
        lines.append(f"| {count} | {len(photos) / seconds:.2f} | {max(run.peak_mib for run in each):.0f} |")
    return lines


def over_sizes(sizes: list[float], count: int, workers: list[int]) -> list[str]:
    """Rows: photos/s of gray JPEGs of a size, for each number of workers."""
    photo = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY)
    lines = [
        "| megapixels | "
        + " | ".join(f"photos/s, --workers {each}" for each in workers)
        + " | core seconds a photo | peak MiB |",
        "| ---: |" + " ---: |" * (len(workers) + 2),
    ]
    for megapixels in sizes:
        side = round((megapixels * 1e6) ** 0.5)
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "photos"
            root.mkdir()
            number = max(4, min(count, round(count * 4 / max(megapixels, 1))))
            for index in range(number):
                cv2.imwrite(str(root / f"{index}.jpg"), cv2.resize(np.roll(photo, index, 1), (side, side)))
            outs = {each: Path(folder) / f"out-{each}" for each in workers}
            measured = [measure(batch(root, out, each), out) for each, out in outs.items()]
        speeds = " | ".join(f"{number / run.seconds:.2f}" for run in measured)
        cores = min(run.core_seconds for run in measured) / number  # the start is in it
        lines.append(f"| {megapixels:g} | {speeds} | {cores:.2f} | {max(run.peak_mib for run in measured):.0f} |")
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
        lines += ["", *over_sizes([float(each) for each in given.sizes.split(",")], 24, counts)]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if given.out:
        given.out.write_text(text)


if __name__ == "__main__":
    main()
