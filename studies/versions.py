"""How far do variants of a photo differ, how patchy are they, and how far are they from the truth?

    python -m studies.versions FOLDER --keys FILE [--model mini] [--limit 60] [--variants 4] [--sheet FILE.png]

FILE lists the photos, one path below FOLDER a line. Compared are the model's own pass, its passes of several steps as
they are sampled (`steps`, further seeds), and the variants that are made of both (`variant`). Prints means over photos:

- spread: standard deviation of (Cb, Cr) over the variants, times 100. Larger is more to choose from.
- patchiness: length of the gradient of (Cb, Cr) where luma is flat, times 1000: colors that no edge explains.
- PSNR of each, and of the one whose (Cb, Cr) are nearest to the model's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from rich.progress import track

from chromatune import ColorizeOptions, Colorizer, PhotoError, make_options
from chromatune.color import luma, recompose
from chromatune.evaluation import psnr
from chromatune.images import Photo
from chromatune.results import ModelOutput, Request
from studies.squares import make_parser, read_squares, write_sheet

FLAT = 0.02  # gradient of luma, 0..1 a pixel, blurred by a pixel: below it there is no edge
SHEET_PHOTOS = 12


def patchiness(chroma: np.ndarray, gray: np.ndarray) -> float:
    """Return how much chroma changes where luma does not: mean length of its gradients there, times 1000 a pixel.

    Args:
        chroma: (H, W, 2) float, (Cb, Cr).
        gray: (H, W) uint8 luma.
    """
    down, right = np.gradient(cv2.GaussianBlur(gray.astype(np.float32) / 255, (0, 0), 1))
    flat = np.hypot(down, right) < FLAT
    lengths = sum(np.hypot(*np.gradient(chroma[..., channel])) for channel in (0, 1))
    return float(1000 * lengths[flat].mean()) if flat.any() else 0.0


def spread(chromas: Sequence[np.ndarray]) -> float:
    """Return how far variants of one photo differ: standard deviation over them, mean over the photo, times 100."""
    return float(100 * np.std(np.stack(chromas), axis=0).mean())


def ways(colorizer: Colorizer, variants: int) -> dict[str, list[ColorizeOptions]]:
    """Return the options of each row of the table."""
    steps, numbers = colorizer.info.variant_steps, range(1, variants + 1)
    return {
        "own pass": [make_options()],
        f"{steps} steps": [make_options(steps=steps, seed=number) for number in numbers],
        "variants": [make_options(variant=number + 1) for number in numbers],
    }


def outputs_of(colorizer: Colorizer, photo: Photo, options: Sequence[ColorizeOptions]) -> list[ModelOutput]:
    """Return the model's outputs for one photo; ends the study where there is none."""
    found = list(colorizer.model_outputs(Request(photo, each) for each in options))
    failed = [each for each in found if isinstance(each, PhotoError)]
    if failed:
        raise SystemExit(str(failed[0]))
    return [each for each in found if isinstance(each, ModelOutput)]


def main() -> None:
    """Colorizes and compares; prints one line for each way."""
    parser = make_parser(
        __doc__, limit=60, sheet="twelve photos: truth, own pass, and below it the variants of each way"
    )
    parser.add_argument("--variants", type=int, default=4)
    arguments = parser.parse_args()
    truths = read_squares(arguments)
    colorizer = Colorizer.load(arguments.model, device="cpu")
    rows: list[list[np.ndarray]] = []
    table: dict[str, list[tuple[float, float, float, float]]] = {}
    for index, truth in enumerate(track(truths, "variants")):
        gray = luma(truth)
        chromas = {
            name: [colorizer.chroma(output) for output in outputs_of(colorizer, Photo(gray), options)]
            for name, options in ways(colorizer, arguments.variants).items()
        }
        own = chromas["own pass"][0]
        for name, found in chromas.items():
            pictures = [recompose(gray, chroma) for chroma in found]
            scores = [psnr(picture, truth) for picture in pictures]
            nearest = int(np.argmin([np.linalg.norm(chroma - own) for chroma in found]))
            patchy = float(np.mean([patchiness(chroma, gray) for chroma in found]))
            table.setdefault(name, []).append((spread(found), patchy, float(np.mean(scores)), scores[nearest]))
            if index < SHEET_PHOTOS and len(pictures) > 1:
                rows.append([truth, recompose(gray, own), *pictures])
    print(f"{len(truths)} photos, {arguments.model}, {arguments.variants} variants")
    print(f"{'':10} spread  patchiness    PSNR  of the nearest")
    for name, measured in table.items():
        means = np.mean(measured, axis=0)
        print(f"{name:10} {means[0]:6.2f} {means[1]:11.2f} {means[2]:7.2f} {means[3]:7.2f}")
    if arguments.sheet is not None:
        write_sheet(arguments.sheet, rows, 0.5)


if __name__ == "__main__":
    main()
