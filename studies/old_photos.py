"""How much worse are the colors of an aged photograph than those of a clean one, as it is and by its restored view?

    python -m studies.old_photos FOLDER --keys FILE [--model mini] [--limit 200] [--sheet FILE.png]

FILE lists the photos, one path below FOLDER a line. Each is aged in each way of `AGEINGS`, colorized with `view=plain`
and `view=restored`, and its chroma put on the clean luma, so that what is measured is color alone: an aged photo
differs from the truth in luminance, and no colorizer is to blame for that. A dark photo is compared with the
photo in color that got as little light. Prints the mean distance of (Cb, Cr) from the truth, times 100 (for dark photos
divided by the light), PSNR, and CIEDE2000; in brackets how much the first is above that of the clean photo.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np

from chromatune import Colorizer, make_options
from chromatune.color import chroma_of, luma, recompose
from chromatune.evaluation import ciede2000, psnr
from studies.squares import colorized, make_parser, read_squares, write_sheet

VIEWS: tuple[Literal["plain", "restored"], ...] = ("plain", "restored")
DARK = 0.4  # share of the light that a dark photo got
SEPIA_RGB = (1.07, 0.98, 0.78)  # of white, before clipping: a toned silver print

Ageing = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # (H, W) float32 0..1 -> the same, or (H, W, 3)


def fade(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blacks raised by a quarter of the range, whites lowered by a sixth."""
    return (70 + 0.55 * 255 * gray) / 255


def grain(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise of 5 % of the range."""
    return np.clip(gray + 0.05 * rng.standard_normal(gray.shape, dtype=np.float32), 0, 1)


def soften(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur, sigma 0.6 % of the side."""
    return cv2.GaussianBlur(gray, (0, 0), 0.006 * min(gray.shape))


def pale(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blacks raised to almost half of the range, whites as they were."""
    return (120 + 0.5 * 255 * gray) / 255


def darken(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`DARK` of the light."""
    return DARK * gray


def vignette(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Corners of less than half of the light."""
    y, x = _plane(gray)
    return gray * (1 - 0.55 * np.clip((x**2 + y**2) / 1.6, 0, 1))


def stain(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Three dark blots with soft edges, and two bleached ones."""
    height, width = gray.shape

    def blots(count: int, largest: float) -> np.ndarray:
        drawn = np.zeros((height, width), np.float32)
        for _ in range(count):
            center = int(rng.uniform(0, width)), int(rng.uniform(0, height))
            axes = int(rng.uniform(0.08, largest) * width), int(rng.uniform(0.08, largest) * height)
            cv2.ellipse(drawn, center, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
        return cv2.GaussianBlur(drawn, (0, 0), 0.03 * width)

    return np.clip(gray * (1 - 0.45 * blots(3, 0.25)) + 0.3 * blots(2, 0.2) * (1 - gray), 0, 1)


def scratch(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White scratches from top to bottom, white and black dust, dark hairs."""
    height, width = gray.shape
    white, black = np.zeros((2, height, width), np.uint8)
    fixed = 8  # OpenCV draws at eighths of a pixel: 2 ** 3
    for _ in range(7):
        x = rng.uniform(0, width) + np.cumsum(rng.normal(0, 1.2, 12))
        y = np.linspace(rng.uniform(-0.1, 0.4) * height, rng.uniform(0.6, 1.1) * height, 12)
        points = np.rint(np.stack([x, y], axis=1) * fixed).astype(np.int32)
        cv2.polylines(white, [points], False, 255, int(rng.choice([1, 1, 2])), cv2.LINE_AA, 3)
    for _ in range(40):
        center = int(rng.uniform(0, width) * fixed), int(rng.uniform(0, height) * fixed)
        ink = white if rng.random() < 0.7 else black
        cv2.circle(ink, center, int(rng.uniform(0.5, 1.8) * fixed), 255, -1, cv2.LINE_AA, 3)
    for _ in range(5):
        hair = rng.uniform(0, 1, 2) * [width, height] + np.cumsum(rng.normal(0, 3, (8, 2)), axis=0)
        cv2.polylines(black, [np.rint(hair * fixed).astype(np.int32)], False, 255, 1, cv2.LINE_AA, 3)
    over, under = white.astype(np.float32) / 255, black.astype(np.float32) / 255
    return (gray * (1 - over) + 0.97 * over) * (1 - under) + 0.05 * under


def print_screen(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Dots of a printed picture at 45°, four pixels apart."""
    height, width = gray.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    dots = (np.cos(np.pi * (x + y) / np.sqrt(8)) + np.cos(np.pi * (x - y) / np.sqrt(8))) / 4
    return np.clip(gray + 0.45 * dots, 0, 1)


def sepia(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Toned: a color photo for whoever reads it, (H, W, 3)."""
    return np.clip(gray[..., None] * np.array(SEPIA_RGB, np.float32), 0, 1)


def _plane(gray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the photo as numbers from -1 to 1."""
    height, width = gray.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return y, x


AGEINGS: dict[str, tuple[Ageing, ...]] = {
    "clean": (),
    "faded": (fade,),
    "pale": (pale,),
    "dark": (darken,),
    "vignette": (vignette,),
    "stains": (stain,),
    "scratches": (scratch,),
    "halftone": (print_screen,),
    "sepia": (sepia,),
    "grainy": (grain,),
    "soft": (soften,),
    "several": (soften, grain, fade, scratch, sepia),
}


def main() -> None:
    """Ages, colorizes and compares; prints one line each."""
    parser = make_parser(__doc__, limit=200, sheet="ten photos: input, plain and restored result of each ageing")
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    truths = read_squares(arguments)
    colorizer = Colorizer.load(arguments.model, device="cpu")
    rows: list[list[np.ndarray]] = []
    clean: dict[str, float] = {}
    print(f"{len(truths)} photos, {arguments.model}; chroma error (against clean), PSNR, CIEDE2000")
    for name, ageings in AGEINGS.items():
        light = DARK if darken in ageings else 1.0
        lit = [np.rint(truth * light).astype(np.uint8) for truth in truths]
        aged = [_aged(luma(truth), ageings, seed) for seed, truth in enumerate(truths)]
        rows.append([_as_rgb(photo) for photo in aged[:10]])
        line = f"{name:9}"
        for view in VIEWS:
            results = colorized(colorizer, aged, make_options(steps=arguments.steps, view=view), f"{name}, {view}")
            scores = np.mean([_scores(*pair, light) for pair in zip(results, lit, strict=True)], axis=0)
            clean.setdefault(view, scores[0])
            line += f"  {view} {scores[0]:.2f} ({scores[0] / clean[view] - 1:+.1%}) {scores[1]:.2f} dB {scores[2]:.2f}"
            rows.append(results[:10])
        print(line, flush=True)
    if arguments.sheet:
        write_sheet(arguments.sheet, rows, scale=0.6)


def _scores(result: np.ndarray, truth: np.ndarray, light: float) -> tuple[float, float, float]:
    """Distance of the chroma times 100 at full light, PSNR and CIEDE2000 of the result's chroma on the truth's luma."""
    moved = recompose(luma(truth), chroma_of(result.astype(np.float32) / 255))
    off = chroma_of(moved.astype(np.float32) / 255) - chroma_of(truth.astype(np.float32) / 255)
    return 100 * float(np.hypot(off[..., 0], off[..., 1]).mean()) / light, psnr(moved, truth), ciede2000(moved, truth)


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
