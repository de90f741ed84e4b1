"""What the model is shown of an old photograph: a small copy with even tones, without scratches, dust and screen.

Models are taught on clean photos. Only their copy is repaired: the photo keeps its own luminance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

REPAIR_PX = 320  # short side at which scratches are found: they are thin, and gone at the model's size
PERCENTILES = (0.5, 99.9)  # of the tones, taken for the photo's black and white
# Tones of clean photos stay nearly as they are, because how dark a face is says something of its color. Chosen on 180
# validation photos, clean and aged.
# White ⇒ black from where on the photo is faded: one with a full white is rather a bright one
FADED_BLACK = ((0.85, 0.95), (0.15, 0.3))
FADES_OVER, TRUE_BLACK = 0.1, 0.06  # from there to there on it becomes this
# White ⇒ the copy's; linear in between
WHITES = ((0.0, 0.45, 0.7, 1.0), (0.9, 0.9, 0.7, 1.0))
LEAST_RANGE = 0.05  # between black and white: below it there is no photo to see
CHANGED = 0.08  # of black or white, from where on it is told

WIDEST_BORDER = 0.15  # share of a side
EVEN = 0.03  # standard deviation of a border's row
BORDER_EDGE = 0.08  # between a border and the photo in it

SCRATCH_PX = 5  # width of what is taken for a scratch, at 256 px; it grows with the size
STRONG = 0.16  # how far a scratch is from what is round it
SCRATCH_WHITE, SCRATCH_BLACK = 0.78, 0.15  # it is at least as bright, or as dark
LONG_PX, SPECK_PX2, SLENDER = 14, 16, 4.0  # at 256 px: length of a scratch, area of a speck, area over length
BUSY_SPECK, BUSY_SCRATCH = 0.12, 0.24  # share of such strokes round it, from where on they are texture
LEAST_DAMAGED, MOST_DAMAGED = 0.004, 0.08  # share of the photo: less is its detail, more a drawing or a print

SCREEN_PEAK = 10.0  # a frequency's strength over those round it
SCREEN_FREQUENCY = 0.14  # cycles a pixel, the lowest of a screen
SCREEN_ENERGY = 0.15  # share of all finer detail; screens have above 0.35, other photos below 0.05


@dataclass(frozen=True)
class Levels:
    """How tones are stretched for the model, linearly.

    Attributes:
        black, white: tones of the photo, 0..1.
        to_black, to_white: what the model sees in their place.
    """

    black: float
    white: float
    to_black: float
    to_white: float

    @property
    def chroma_gain(self) -> float:
        """What chroma for the copy is multiplied by: a photo that is lit less has less of it at equal saturation."""
        return self.white / self.to_white

    @property
    def note(self) -> str:
        """What is done, in a few words; empty where nothing is to be told."""
        changed = max(abs(self.to_black - self.black), abs(self.to_white - self.white)) > CHANGED
        return f"tones of {self.black:.0%} to {self.white:.0%} stretched" if changed else ""

    def apply(self, gray: np.ndarray) -> np.ndarray:
        """Return (H, W) float32 0..1 with the tones stretched."""
        gain = (self.to_white - self.to_black) / max(self.white - self.black, LEAST_RANGE)
        return np.clip((gray - np.float32(self.black)) * np.float32(gain) + np.float32(self.to_black), 0, 1)


class View(NamedTuple):
    """What a model is shown of a photo.

    Attributes:
        gray: (h, w) float32, luma 0..1.
        chroma_gain: for the photo, of chroma that was made for `gray`.
        notes: what was repaired, a few words each.
    """

    gray: np.ndarray
    chroma_gain: float = 1.0
    notes: tuple[str, ...] = ()


def shrink(gray: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a gray at another size, averaged over areas: (H, W) uint8 or uint16 -> (h, w) float32 0..1."""
    scale = np.float32(1 / np.iinfo(gray.dtype).max)
    smaller = size[0] <= gray.shape[0] and size[1] <= gray.shape[1]
    resized = cv2.resize(gray, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    return resized.astype(np.float32) * scale


def restored_view(gray: np.ndarray, size: tuple[int, int], levels: Levels | None = None) -> View:
    """Return a photo as the model is to see it: scratches and dust filled in, tones stretched, a screen taken out.

    Args:
        gray: (H, W) uint8 or uint16 luma of the photo at full size.
        size: height and width of the model's pass, in pixels.
        levels: of a film's shot: then tones alone are stretched, since its frames are without dirt already, and what
            is found in one frame and not in the next would flicker. By default the photo's own.
    """
    if levels is not None:
        return View(levels.apply(shrink(gray, size)), levels.chroma_gain, (levels.note,) if levels.note else ())
    scale = min(1.0, REPAIR_PX / min(gray.shape))
    at = max(size[0], round(gray.shape[0] * scale)), max(size[1], round(gray.shape[1] * scale))
    copy = shrink(gray, at)
    found = measure_levels([copy])
    damaged = find_damage(found.apply(copy))
    share = float(np.count_nonzero(damaged)) / damaged.size
    if share > 0:
        # Beside what was found, the scanner has blurred it into its surroundings
        grown = cv2.dilate(damaged.astype(np.uint8), np.ones((3, 3), np.uint8))
        filled = cv2.inpaint(np.rint(copy * 255).astype(np.uint8), grown, 3, cv2.INPAINT_TELEA)
        copy = np.where(grown > 0, filled.astype(np.float32) / 255, copy)
        found = measure_levels([copy])  # without the scratches' white
    small = copy if at == size else cv2.resize(copy, size[::-1], interpolation=cv2.INTER_AREA)
    descreened = remove_screen(small)
    notes = (
        found.note,
        f"scratches and dust filled in ({share:.1%} of it)" if share > 0 else "",
        "" if descreened is small else "a printer's screen taken out",
    )
    return View(found.apply(descreened), found.chroma_gain, tuple(note for note in notes if note))


def measure_levels(grays: Sequence[np.ndarray]) -> Levels:
    """Return the levels of grays of one scene, (H, W) float32 0..1 each; an even border is not looked at."""
    tones = np.concatenate([_without_border(gray)[::2, ::2].ravel() for gray in grays])  # a quarter says as much
    black, white = (float(tone) for tone in np.percentile(tones, PERCENTILES))
    if white - black < LEAST_RANGE:
        return Levels(0.0, 1.0, 0.0, 1.0)
    from_black = float(np.interp(white, *FADED_BLACK))
    tones_in, tones_out = (0.0, from_black, from_black + FADES_OVER, 1.0), (0.0, from_black, TRUE_BLACK, TRUE_BLACK)
    return Levels(black, white, float(np.interp(black, tones_in, tones_out)), float(np.interp(white, *WHITES)))


def _without_border(gray: np.ndarray) -> np.ndarray:
    """Return the part inside an even border, such as of a print's paper; a view, not a copy."""
    for _ in range(2):  # its rows, then its columns, as rows
        first, last = _border_rows(gray), _border_rows(gray[::-1])
        gray = gray[first : len(gray) - last].T
    return gray


def _border_rows(gray: np.ndarray) -> int:
    """Return how many of the first rows are an even border, with an edge after it; 0 if there is none."""
    rows = gray[: max(2, round(WIDEST_BORDER * len(gray)))]
    means, deviations = rows.mean(axis=1), rows.std(axis=1)
    uneven = (deviations > EVEN) | (np.abs(means - means[0]) > EVEN)
    count = int(np.argmax(uneven)) if uneven.any() else 0
    if count == 0:
        return 0
    after = slice(count, count + max(2, len(gray) // 50))  # where the edge is blurred, beyond it
    is_edge = np.abs(gray[after] - means[0]).mean(axis=1).max() > BORDER_EDGE
    return min(count + 2, len(rows)) if is_edge else 0


def find_damage(gray: np.ndarray) -> np.ndarray:
    """Return which pixels are scratches and dust: thin or small, far from what is round them, nearly white or black.

    Args:
        gray: (H, W) float32 0..1, with its tones stretched.

    Returns:
        (H, W) bool; none of them where so little or so much is found that it must be what the photo shows.
    """
    scale = min(gray.shape) / 256
    gray_u8 = np.rint(gray * 255).astype(np.uint8)
    width = max(3, 2 * round(SCRATCH_PX * scale / 2) + 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    found = np.zeros(gray.shape, bool)
    for operation, is_extreme in (
        (cv2.MORPH_TOPHAT, gray_u8 > 255 * SCRATCH_WHITE),
        (cv2.MORPH_BLACKHAT, gray_u8 < 255 * SCRATCH_BLACK),
    ):
        strength = cv2.morphologyEx(gray_u8, operation, kernel)
        found |= _slender(strength > 255 * STRONG / 2, (strength > 255 * STRONG) & is_extreme, scale)
    return found if LEAST_DAMAGED <= found.mean() <= MOST_DAMAGED else np.zeros_like(found)


def _slender(strokes: np.ndarray, sure: np.ndarray, scale: float) -> np.ndarray:
    """Return the strokes that are long and thin or small, a good part of them sure, and not amid many others."""
    if not sure.any():
        return sure
    count, labels, stats, centers = cv2.connectedComponentsWithStats(strokes.astype(np.uint8), connectivity=8)
    column, row = np.nan_to_num(centers).astype(int).T
    area = stats[:, cv2.CC_STAT_AREA]
    length = np.hypot(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    side = 2 * round(15 * scale) + 1
    around = cv2.blur(strokes.astype(np.float32), (side, side))[row, column]
    is_scratch = (length >= LONG_PX * scale) & (area < SLENDER * scale * length) & (around < BUSY_SCRATCH)
    is_speck = (area <= SPECK_PX2 * scale**2) & (around < BUSY_SPECK)
    is_sure = np.bincount(labels[sure], minlength=count) > 0.35 * area
    kept = (is_scratch | is_speck) & is_sure
    kept[0] = False  # what is no stroke
    return np.asarray(kept[labels])


def remove_screen(gray: np.ndarray) -> np.ndarray:
    """Return a gray without the dots of a printed picture: frequencies that stand out are notched.

    Args:
        gray: (h, w) float32 0..1.

    Returns:
        The same size; the array itself where there is no screen.
    """
    height, width = gray.shape
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    strength = np.abs(np.fft.rfft2((gray - gray.mean()) * window)).astype(np.float32)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    is_fine = frequency > SCREEN_FREQUENCY
    logarithm = np.log(strength + np.float32(1e-4))
    # Rows wrap; beyond the first and the last column a real picture's spectrum is mirrored
    around = cv2.blur(np.pad(logarithm, ((12, 12), (0, 0)), mode="wrap"), (25, 25))[12:-12]
    peaks = is_fine & (logarithm - around > np.log(SCREEN_PEAK))
    if (strength[peaks] ** 2).sum() < SCREEN_ENERGY * (strength[is_fine] ** 2).sum() + 1e-9:
        return gray
    notches = cv2.dilate(peaks.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(np.float32)
    blurred = cv2.GaussianBlur(np.pad(notches, ((6, 6), (0, 0)), mode="wrap"), (0, 0), 1.2)[6:-6]
    spectrum = np.fft.rfft2(gray) * (1 - np.clip(1.3 * blurred, 0, 1))
    return np.clip(np.fft.irfft2(spectrum, s=(height, width)), 0, 1).astype(np.float32)
