"""How exactly are the colors of a finished picture taken over to the photo that it was made from?

    python -m studies.finished_pictures FOLDER --keys FILE [--limit 60] [--sheet FILE.png]

FILE lists the photos, one path below FOLDER a line. Each is the truth; its luma is the photo, and each edit of `EDITS`
makes a finished picture of it. Prints the mean distance in CIELAB's (a, b) between the result and the truth, for the
gray photo, the picture's chroma when it is simply stretched over the photo, the same if the picture fitted exactly
(only tones, sharpness and size changed), that with chroma scaled by the ratio of the lumas, and for `take_colors`; then
how many of the pictures were refused, and how many unrelated ones: each photo with another one of the list.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import cv2
import numpy as np
from rich.progress import track

from chromatune import PhotoError
from chromatune.color import (
    Aligned,
    align,
    chroma_of,
    fit_gamut,
    luma,
    recompose,
    relative_chroma,
    resize,
    take_colors,
)
from studies.squares import make_parser, read_photos, write_sheet

COLUMNS = ("gray", "stretched", "exact fit", "by ratio", "aligned")
TILE_PX = 200
APERTURE = 0.8  # share of a side that the crop keeps
PAPERS = ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.93, 0.89, 0.8))  # of borders
WARP_PX, REDRAWN_WARP_PX = 6.0, 2.0
REDRAWN_SHARE = 0.1  # of the area

# Truth and another photo, (H, W, 3) float32 0..1, with geometry or without ⇒ a finished picture
Edit = Callable[[np.ndarray, np.ndarray, np.random.Generator, bool], np.ndarray]


def trial(truth: np.ndarray, other: np.ndarray, rng: np.random.Generator, moved: bool) -> np.ndarray:
    """Warped by up to 6 px, cropped by 2 % on each side, re-toned, sharpened, a third larger."""
    rgb = _toned(truth, rng.uniform(0.75, 1.3), rng.uniform(-0.2, 0.4), 0, only_luma=rng.random() < 0.5)
    rgb = _cut(_warped(rgb, rng, WARP_PX), 0.96) if moved else rgb
    return _resized(np.clip(rgb + 0.8 * (rgb - cv2.GaussianBlur(rgb, (0, 0), 1.2)), 0, 1), 1.37, 1.37)


def crop(truth: np.ndarray, other: np.ndarray, rng: np.random.Generator, moved: bool) -> np.ndarray:
    """80 % of each side, turned by 5°."""
    return _cut(truth, APERTURE, float(rng.choice([-5, 5]))) if moved else truth


def crop_of_area(truth: np.ndarray, other: np.ndarray, rng: np.random.Generator, moved: bool) -> np.ndarray:
    """80 % of the area, turned by 5°."""
    return _cut(truth, APERTURE**0.5, float(rng.choice([-5, 5]))) if moved else truth


def reframe(truth: np.ndarray, other: np.ndarray, rng: np.random.Generator, moved: bool) -> np.ndarray:
    """One side stretched by 15 %, with borders of 4 to 12 % of each side."""
    if not moved:
        return truth
    rgb = _resized(truth, 1.15, 1) if rng.random() < 0.5 else _resized(truth, 1, 1.15)
    height, width = rgb.shape[:2]
    top, bottom, left, right = (round(rng.uniform(0.04, 0.12) * side) for side in (height, height, width, width))
    paper = PAPERS[int(rng.integers(len(PAPERS)))]
    return cv2.copyMakeBorder(rgb, top, bottom, left, right, cv2.BORDER_CONSTANT, value=paper)


def redraw(truth: np.ndarray, other: np.ndarray, rng: np.random.Generator, moved: bool) -> np.ndarray:
    """A tenth of the area shows another photo; all of it warped by up to 2 px."""
    if not moved:
        return truth
    height, width = truth.shape[:2]
    aspect = rng.uniform(0.7, 1.4)
    area = REDRAWN_SHARE * height * width / np.pi
    radius_x, radius_y = (area * aspect) ** 0.5, (area / aspect) ** 0.5
    x, y = rng.uniform(radius_x, width - radius_x), rng.uniform(radius_y, height - radius_y)
    rows, columns = np.mgrid[:height, :width]
    inside = 1 - np.hypot((columns - x) / radius_x, (rows - y) / radius_y)
    mask = np.clip(inside * min(radius_x, radius_y) / 2 + 0.5, 0, 1).astype(np.float32)[..., None]
    return _warped(truth, rng, REDRAWN_WARP_PX) * (1 - mask) + resize(other, height, width) * mask


def retone(truth: np.ndarray, other: np.ndarray, rng: np.random.Generator, moved: bool) -> np.ndarray:
    """Gamma of 0.5 to 2, contrast and raised blacks; over luma or over each channel."""
    gamma = float(rng.choice([0.5, 0.65, 1.6, 2.0]))
    return _toned(truth, gamma, rng.uniform(-0.5, 0.8), rng.uniform(0, 0.2), only_luma=rng.random() < 0.5)


def compress(truth: np.ndarray, other: np.ndarray, rng: np.random.Generator, moved: bool) -> np.ndarray:
    """Half the size, as a JPEG of quality 60."""
    levels = np.rint(_resized(truth, 0.5, 0.5) * 255).astype(np.uint8)
    _, file = cv2.imencode(".jpg", levels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.float32)[..., ::-1] / 255


EDITS: dict[str, Edit] = {
    "warped, re-toned, sharpened": trial,
    "cropped, turned": crop,
    "cropped less, turned": crop_of_area,
    "other aspect, borders": reframe,
    "a tenth redrawn": redraw,
    "re-toned heavily": retone,
    "half size, JPEG 60": compress,
}


def main() -> None:
    """Edits, takes colors and compares; prints a line for each edit."""
    sheet = "ten photos of each edit: photo, finished picture, confidence, result"
    arguments = make_parser(__doc__, limit=60, sheet=sheet, model=None).parse_args()
    truths = read_photos(arguments)
    photos = [truth.astype(np.float32) / 255 for truth in truths]
    print(f"{len(truths)} photos; mean distance of (a, b): {', '.join(COLUMNS)}; pictures refused, lowest agreement")
    rows: list[list[np.ndarray]] = []
    for name, edit in EDITS.items():
        errors, scores = [], []
        tiles: list[list[np.ndarray]] = [[], [], [], []]
        for index, truth in enumerate(track(truths, name)):
            pictures = [
                _levels(edit(photos[index], photos[index - 1], _generator(name, index), moved))
                for moved in (True, False)
            ]
            found, score, shown = _errors(truth, *pictures)
            errors.append(found)
            scores.append(score)
            if index < 10:
                for row, tile in zip(tiles, shown, strict=True):
                    row.append(_tile(tile))
        refused = sum(score is None for score in scores)
        lowest = min((score for score in scores if score is not None), default=0)
        print(
            f"{name:28}",
            *(f"{value:6.2f}" for value in np.mean(errors, axis=0)),
            f"  {refused}  {lowest:.2f}",
            flush=True,
        )
        rows += tiles
    pairs = [(luma(truth), truths[index - 1]) for index, truth in enumerate(track(truths, "unrelated"))]
    refused = sum(_taken(*pair) is None for pair in pairs)
    highest = max(align(*pair).score for pair in pairs)
    print(f"unrelated pictures: {refused} of {len(pairs)} refused, highest agreement {highest:.2f}")
    if arguments.sheet:
        write_sheet(arguments.sheet, rows, scale=1)


def _errors(
    truth: np.ndarray, finished: np.ndarray, fitting: np.ndarray
) -> tuple[list[float], float | None, list[np.ndarray]]:
    """Errors in the order of `COLUMNS`, the score unless the picture is refused, and pictures for the sheet.

    Args:
        truth: (H, W, 3) uint8.
        finished: (H2, W2, 3) uint8.
        fitting: the same without what moves things.
    """
    gray = luma(truth)
    light = gray.astype(np.float32) / 255
    exact = resize(fitting, *gray.shape).astype(np.float32) / 255
    by_ratio = fit_gamut(relative_chroma(exact) * light[..., None], light)
    stretched = chroma_of(resize(finished, *gray.shape).astype(np.float32) / 255)
    taken = _taken(gray, finished)
    chromas = [np.zeros_like(stretched), stretched, chroma_of(exact), by_ratio]
    chromas.append(chromas[0] if taken is None else taken.chroma)
    results = [recompose(gray, chroma) for chroma in chromas]
    confidence = light * 0 if taken is None else taken.confidence
    shown = [
        results[0],
        finished,
        cv2.cvtColor(np.rint(confidence * 255).astype(np.uint8), cv2.COLOR_GRAY2RGB),
        results[-1],
    ]
    return [_distance(result, truth) for result in results], None if taken is None else taken.score, shown


def _taken(gray: np.ndarray, finished: np.ndarray) -> Aligned | None:
    try:
        return take_colors(gray, finished)
    except PhotoError:
        return None


def _distance(result: np.ndarray, truth: np.ndarray) -> float:
    lab, true_lab = (cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for rgb in (result, truth))
    return float(np.hypot(*np.moveaxis(lab[..., 1:] - true_lab[..., 1:], -1, 0)).mean())


def _generator(name: str, index: int) -> np.random.Generator:
    return np.random.default_rng([index, zlib.crc32(name.encode())])


def _levels(rgb: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def _tile(rgb: np.ndarray) -> np.ndarray:
    """The whole picture on a gray square."""
    scale = TILE_PX / max(rgb.shape[:2])
    small = resize(rgb, *(max(1, round(side * scale)) for side in rgb.shape[:2]))
    tile = np.full((TILE_PX, TILE_PX, 3), 60, np.uint8)
    top, left = ((TILE_PX - side) // 2 for side in small.shape[:2])
    tile[top : top + small.shape[0], left : left + small.shape[1]] = small
    return tile


def _resized(rgb: np.ndarray, x: float, y: float) -> np.ndarray:
    return np.clip(resize(rgb, round(rgb.shape[0] * y), round(rgb.shape[1] * x)), 0, 1)


def _remapped(rgb: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    points = x.astype(np.float32), y.astype(np.float32)
    return np.clip(cv2.remap(rgb, *points, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT), 0, 1)


def _warped(rgb: np.ndarray, rng: np.random.Generator, most_px: float) -> np.ndarray:
    """Bent smoothly, over an eighth of the short side."""
    height, width = rgb.shape[:2]
    noise = rng.standard_normal((height, width, 2)).astype(np.float32)
    shift = cv2.GaussianBlur(noise, (0, 0), min(height, width) / 8)
    shift *= most_px / np.hypot(shift[..., 0], shift[..., 1]).max()
    rows, columns = np.mgrid[:height, :width]
    return _remapped(rgb, columns + shift[..., 0], rows + shift[..., 1])


def _cut(rgb: np.ndarray, keep: float, degrees: float = 0) -> np.ndarray:
    """The middle, with a share of each side, turned."""
    sides = [round(side * keep) for side in rgb.shape[:2]]
    y, x = (part - (side - 1) / 2 for part, side in zip(np.mgrid[: sides[0], : sides[1]], sides, strict=True))
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    center_y, center_x = ((side - 1) / 2 for side in rgb.shape[:2])
    return _remapped(rgb, center_x + cosine * x - sine * y, center_y + sine * x + cosine * y)


def _toned(rgb: np.ndarray, gamma: float, contrast: float, lift: float, *, only_luma: bool) -> np.ndarray:
    """Another gamma, an S-shaped curve, blacks raised to `lift`: of luma, with chroma as it was, or of each channel."""
    own = luma(rgb)[..., None] if only_luma else rgb
    curve = own**gamma
    curve = curve + contrast * (curve - 0.5) * 4 * curve * (1 - curve)
    curve = lift + (1 - lift) * np.clip(curve, 0, 1)
    return np.clip(rgb + (curve - own), 0, 1).astype(np.float32)


if __name__ == "__main__":
    main()
