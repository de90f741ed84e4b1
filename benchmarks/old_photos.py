"""How much worse are the colours of a faded, toned, grainy or soft photograph than those of a clean one?

    python benchmarks/old_photos.py FOLDER --keys FILE [--model mini] [--limit 200] [--sheet FILE.png]

FILE lists the photos, one path below FOLDER a line. Each is aged in four ways and in all at once, colorized, and its
chroma put on the clean luma, so that the CIEDE2000 to the truth speaks of colour alone: an aged photo differs from the
truth in luminance, and no colorizer is to blame for that. Prints CIEDE2000, and how much it is above that of the clean
photo.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track
from squares import add_arguments, read_squares

from chromatune import ChromaTuneError, Colorizer, make_options
from chromatune.color import chroma_of, luma, recompose
from chromatune.evaluation.metrics import ciede2000

SEPIA_RGB = (1.07, 0.98, 0.78)  # of white, before clipping: a toned silver print

Ageing = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # (H, W) float32 0..1 -> the same, or (H, W, 3)


def fade(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blacks raised and whites lowered by 10 to 20 % of the range each."""
    black, white = rng.uniform(0.1, 0.2), 1 - rng.uniform(0.1, 0.2)
    return (black + (white - black) * grey).astype(np.float32)


def grain(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise of 5 % of the range."""
    return np.clip(grey + 0.05 * rng.standard_normal(grey.shape, dtype=np.float32), 0, 1)


def soften(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur, sigma 0.6 % of the side."""
    return cv2.GaussianBlur(grey, (0, 0), 0.006 * min(grey.shape))


def sepia(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Toned: a colour photo for whoever reads it, (H, W, 3)."""
    return np.clip(grey[..., None] * np.array(SEPIA_RGB, np.float32), 0, 1)


AGEINGS: dict[str, tuple[Ageing, ...]] = {
    "clean": (),
    "faded": (fade,),
    "sepia": (sepia,),
    "grainy": (grain,),
    "soft": (soften,),
    "all four": (soften, grain, fade, sepia),
}


def main() -> None:
    """Ages, colorizes and compares; prints one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, limit=200)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sheet", type=Path, help="PNG: ten photos, input and result of each ageing")
    arguments = parser.parse_args()
    truths = read_squares(arguments)
    greys = [luma(truth) for truth in truths]
    colorizer = Colorizer.load(arguments.model, device="cpu")
    options = make_options(steps=arguments.steps)
    rows, clean = [], None
    print(f"{len(truths)} photos, {arguments.model}\nphoto     CIEDE2000  against clean")
    for name, ageings in AGEINGS.items():
        aged = [_aged(grey, ageings, seed) for seed, grey in enumerate(greys)]
        outcomes = track(colorizer.colorize_many(aged, options), name, total=len(aged))
        results = [outcome.rgb for outcome in outcomes if not isinstance(outcome, ChromaTuneError)]
        moved = [
            recompose(grey, chroma_of(result.astype(np.float32) / 255))
            for grey, result in zip(greys, results, strict=True)
        ]
        error = float(np.mean([ciede2000(*pair) for pair in zip(moved, truths, strict=True)]))
        clean = error if clean is None else clean
        print(f"{name:9} {error:9.2f}  {error / clean - 1:+.1%}", flush=True)
        rows += [[_as_rgb(photo) for photo in aged[:10]], results[:10]]
    if arguments.sheet:
        sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows])
        cv2.imwrite(
            str(arguments.sheet), cv2.resize(sheet, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)[..., ::-1]
        )


def _aged(grey: np.ndarray, ageings: tuple[Ageing, ...], seed: int) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8."""
    rng, photo = np.random.default_rng(seed), grey.astype(np.float32) / 255
    for ageing in ageings:
        photo = ageing(photo, rng)
    return np.rint(photo * 255).astype(np.uint8)


def _as_rgb(photo: np.ndarray) -> np.ndarray:
    return photo if photo.ndim == 3 else np.repeat(photo[..., None], 3, axis=2)


if __name__ == "__main__":
    main()
