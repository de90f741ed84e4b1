"""Quality of `chromatune.color.upsample_chroma`, side by side with the usual ways.

    python studies/upsampling.py                    # on the photos that scikit-image ships
    python studies/upsampling.py --photos FOLDER    # on your own too

Quality is the mean squared error of full-size chroma, as a ratio to bilinear's; each column is a way of making the
small chroma: `64` = true chroma, area-averaged to a short side of 64 px; `16>128` = the detail of 16 px, enlarged to
128 px, as a decoder of small latents gives.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from skimage import data

from chromatune import color

SHIPPED = ("astronaut", "chelsea", "coffee", "rocket")  # the photographs that scikit-image's wheel holds
CASES: tuple[tuple[int, int], ...] = ((16, 16), (32, 32), (64, 64), (128, 128), (16, 128), (32, 128))
GRAIN_SIGMA = 8.0  # gray levels


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="also measure these photos")
    arguments = parser.parse_args()
    print_quality("scikit-image's photos", [(name, getattr(data, name)()) for name in SHIPPED])
    if arguments.photos is not None:
        print_quality(str(arguments.photos), list(photos_in(arguments.photos)))


def print_quality(title: str, photos: list[tuple[str, np.ndarray]]) -> None:
    """Geometric mean over photos of each way's chroma error over bilinear's; then color noise made of grain."""
    names = [f"{held}" if held == size else f"{held}>{size}" for held, size in CASES]
    print(f"\n{title} ({len(photos)}): chroma error, bilinear = 1; noise from grain of sigma {GRAIN_SIGMA:g}")
    print(f"| way | {' | '.join(names)} | color noise |\n{'| --- ' * (len(CASES) + 2)}|")
    ways: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        "bilinear": lambda chroma, gray: cv2.resize(chroma, gray.shape[::-1]),
        "bicubic": lambda chroma, gray: cv2.resize(chroma, gray.shape[::-1], interpolation=cv2.INTER_CUBIC),
        "plain guided filter": plain_guided,
        "chromatune": color.upsample_chroma,
    }
    errors = {
        way: np.array([[chroma_error(f, rgb, case) for case in CASES] for _, rgb in photos]) for way, f in ways.items()
    }
    for way, upsample in ways.items():
        ratios = np.exp(np.log(errors[way] / errors["bilinear"]).mean(axis=0))
        noise = np.mean([grain_noise(upsample, rgb) for _, rgb in photos])
        print(f"| {way} | {' | '.join(f'{ratio:.3f}' for ratio in ratios)} | {noise:.2f} |", flush=True)


def photos_in(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and (H, W, 3) uint8 sRGB of each photo that OpenCV reads."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
            bgr = cv2.imread(str(path))
            if bgr is not None:
                yield path.name, np.ascontiguousarray(bgr[..., ::-1])


def small_chroma(truth: np.ndarray, case: tuple[int, int]) -> np.ndarray:
    """(h, w, 2): `truth` with the detail of `case[0]` px at a short side of `case[1]` px."""
    height_px, width_px = truth.shape[:2]

    def size_at(short_px: int) -> tuple[int, int]:
        scale = short_px / min(height_px, width_px)
        return round(width_px * scale), round(height_px * scale)

    held = cv2.resize(truth, size_at(case[0]), interpolation=cv2.INTER_AREA)
    return held if case[0] == case[1] else cv2.resize(held, size_at(case[1]), interpolation=cv2.INTER_CUBIC)


def chroma_error(upsample: Callable, rgb_u8: np.ndarray, case: tuple[int, int]) -> float:
    """Mean squared error of (Cb, Cr) at full size; never zero."""
    truth = color.chroma_of(rgb_u8.astype(np.float32) / 255)
    return float(np.square(upsample(small_chroma(truth, case), color.luma(rgb_u8)) - truth).mean()) + 1e-9


def grain_noise(upsample: Callable, rgb_u8: np.ndarray) -> float:
    """Standard deviation, in gray levels, of the chroma that grain on the photo at four times its size adds."""
    chroma = small_chroma(color.chroma_of(rgb_u8.astype(np.float32) / 255), (128, 128))
    clean = cv2.resize(color.luma(rgb_u8), None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    grain = np.random.default_rng(0).normal(0, GRAIN_SIGMA, clean.shape)
    grainy = np.rint(clean + grain).clip(0, 255).astype(np.uint8)
    return 255 * float((upsample(chroma, grainy) - upsample(chroma, clean)).std())


def plain_guided(chroma: np.ndarray, gray: np.ndarray) -> np.ndarray:
    """The fast guided filter as published, on four pixels per chroma pixel, radius 1 chroma pixel, eps 1e-3."""
    height_px, width_px = (min(full, 4 * small) for full, small in zip(gray.shape, chroma.shape[:2], strict=True))
    window = (9, 9)
    guide = cv2.resize(gray, (width_px, height_px), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    target = cv2.resize(chroma, (width_px, height_px))
    mean = cv2.blur(guide, window)
    variance = cv2.blur(guide * guide, window) - mean * mean
    planes = []
    for plane in cv2.split(target):
        slope = (cv2.blur(guide * plane, window) - mean * cv2.blur(plane, window)) / (variance + 1e-3)
        offset = cv2.blur(plane, window) - slope * mean
        wide_slope, wide_offset = (cv2.resize(cv2.blur(x, window), gray.shape[::-1]) for x in (slope, offset))
        planes.append(wide_slope * (gray / np.float32(255)) + wide_offset)
    return np.stack(planes, axis=-1)


if __name__ == "__main__":
    main()
