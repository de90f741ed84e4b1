"""How much worse are the colors of a faded, toned, grainy or soft photograph than those of a clean one?

    python -m studies.old_photos FOLDER --keys FILE [--model mini] [--limit 200] [--sheet FILE.png]

FILE lists the photos, one path below FOLDER a line. Each is aged in four ways and in all at once, colorized, and its
chroma put on the clean luma, so that the CIEDE2000 to the truth speaks of color alone: an aged photo differs from the
truth in luminance, and no colorizer is to blame for that. Prints CIEDE2000, and how much it is above that of the clean
photo.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from chromatune import Colorizer, make_options
from chromatune.color import chroma_of, luma, recompose
from chromatune.evaluation import ciede2000
from studies.squares import colorized, make_parser, read_squares, write_sheet

SEPIA_RGB = (1.07, 0.98, 0.78)  # of white, before clipping: a toned silver print

Ageing = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # (H, W) float32 0..1 -> the same, or (H, W, 3)


def fade(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blacks raised and whites lowered by 10 to 20 % of the range each."""
    black, white = rng.uniform(0.1, 0.2), 1 - rng.uniform(0.1, 0.2)
    return (black + (white - black) * gray).astype(np.float32)


def grain(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise of 5 % of the range."""
    return np.clip(gray + 0.05 * rng.standard_normal(gray.shape, dtype=np.float32), 0, 1)


def soften(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur, sigma 0.6 % of the side."""
    return cv2.GaussianBlur(gray, (0, 0), 0.006 * min(gray.shape))


def sepia(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Toned: a color photo for whoever reads it, (H, W, 3)."""
    return np.clip(gray[..., None] * np.array(SEPIA_RGB, np.float32), 0, 1)


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
    parser = make_parser(__doc__, limit=200, sheet="ten photos, input and result of each ageing")
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    truths = read_squares(arguments)
    grays = [luma(truth) for truth in truths]
    colorizer = Colorizer.load(arguments.model, device="cpu")
    options = make_options(steps=arguments.steps)
    rows: list[list[np.ndarray]] = []
    clean = None
    print(f"{len(truths)} photos, {arguments.model}\nphoto     CIEDE2000  against clean")
    for name, ageings in AGEINGS.items():
        aged = [_aged(gray, ageings, seed) for seed, gray in enumerate(grays)]
        results = colorized(colorizer, aged, options, name)
        moved = [
            recompose(gray, chroma_of(result.astype(np.float32) / 255))
            for gray, result in zip(grays, results, strict=True)
        ]
        error = float(np.mean([ciede2000(*pair) for pair in zip(moved, truths, strict=True)]))
        clean = error if clean is None else clean
        print(f"{name:9} {error:9.2f}  {error / clean - 1:+.1%}", flush=True)
        rows += [[_as_rgb(photo) for photo in aged[:10]], results[:10]]
    if arguments.sheet:
        write_sheet(arguments.sheet, rows, scale=0.6)


def _aged(gray: np.ndarray, ageings: tuple[Ageing, ...], seed: int) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8."""
    rng, photo = np.random.default_rng(seed), gray.astype(np.float32) / 255
    for ageing in ageings:
        photo = ageing(photo, rng)
    return np.rint(photo * 255).astype(np.uint8)


def _as_rgb(photo: np.ndarray) -> np.ndarray:
    return photo if photo.ndim == 3 else np.repeat(photo[..., None], 3, axis=2)


if __name__ == "__main__":
    main()
