"""Color that a photo has of its own: what is left without the tone of a print, which follows lightness.

A toned print (sepia, cyanotype, yellowed paper) has one tint, which lightness and place explain. What they do not
explain is local color: a stamp, a pencil line, hand-tinted cheeks. The limits below were chosen on prints drawn from
scikit-image's photos, as in `tests/test_own_color.py`: there grain, a JPEG's chroma noise, a mount or an uneven tint
never count as local, nor do stains unless all local color is wanted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from chromatune.color.luminance import chroma_of, lab_of

if TYPE_CHECKING:
    from chromatune.options import OwnColorChoice

SMALL_SIDE_PX = 64  # grain and a JPEG's chroma noise are averaged away before chroma is measured
LEAST_IN_COLOR = 6.0  # CIELAB units, see `OwnColor.in_color`
LEAST_OF_OWN = 1.0  # the same, mean distance from the tint, see `is_toned`

LONG_SIDE_PX = 512  # at which local color is looked for: pencil lines still have most of their chroma
BLUR_PX = 1.0  # sigma: takes a scanner's color noise below `FAINT`
FAINT, CLEAR = 6.0, 12.0  # CIELAB distance from the tint at which color begins to count, and is clear
GLAZE, INK = 16.0, 28.0  # CIELAB chroma up to which color is a tint over the photo, and from which on it covers it
GLAZE_SHARE = 0.5  # of a tint that is added to the model's color, which has some of it already: skin is pink
LEAST_REGION = 6e-4  # of the photo: clear pixels that a connected region needs, at least `LEAST_REGION_PX`
LEAST_REGION_PX = 30
AGING_HUES = 45.0, 115.0  # degrees in (a*, b*), yellow to brown: the hue of stained paper
AGING_RAMP = 10.0  # degrees over which a hue becomes one of aging
LARGEST_SHARE = 0.45  # of local color in a print; with more the photo is in color
LEAST_ELSEWHERE = 2.4  # mean CIELAB distance from the tint, outside of local color, of a photo in color
FITS = 8  # rounds of the tint's robust fit
FIT_POINTS = 4096
CENTER = 0.6  # of both sides: without mounts and frames


@dataclass(frozen=True, eq=False)
class OwnColor:
    """The color that a photo has of its own, small.

    Attributes:
        chroma: (h, w, 2) float32, (Cb, Cr): where `opacity` is 1 the photo's own, where it is 0 half of its difference
            from the print's tint.
        opacity: (h, w) float32 0..1, how far that covers the model's color: ink does, a faint tint is added to it.
        local: (h, w) float32 0..1, how sure local color of any hue is; in a photo in color, how sure any color is.
        sure: the same without yellow and brown, which may be stains; 0 everywhere in a photo in color.
        in_color: whether the photo is plainly in color, and no print. It is where the mean of `own_chroma` is above 6
            CIELAB units, and not for local color alone, such as a red frame. Gray and sepia prints have less than 2,
            also as JPEGs of quality 30 and with grain; prints with yellow edges, brown stains, a cream border or a red
            stamp mostly less than 6. Of color photos 66 % have more (84 % of press photos of faces, 600 each): what has
            less is dull, faded or of one hue, and may well be a print.
    """

    chroma: np.ndarray
    opacity: np.ndarray
    local: np.ndarray
    sure: np.ndarray
    in_color: bool

    def weight(self, choice: OwnColorChoice) -> np.ndarray:
        """Return the weight of the photo's own color, (h, w) float32 0..1."""
        if choice == "replace":
            return np.zeros_like(self.local)
        if choice == "blend":
            return self.local / 2
        return self.sure if choice == "auto" else self.local

    def share(self, choice: OwnColorChoice) -> float:
        """Return how much of the photo has its own color, at least in part, 0..1."""
        return float((self.weight(choice) >= 0.25).mean())

    def put_into(self, chroma: np.ndarray, choice: OwnColorChoice) -> np.ndarray:
        """Return a model's chroma with the photo's own where that is kept: (h, w, 2) float32, (Cb, Cr), of any size."""
        weight = self.weight(choice)
        if not weight.any():
            return chroma
        height_px, width_px = chroma.shape[:2]
        # Both weighted before they are resized, so that a stamp's edge keeps its hue
        both = np.dstack([self.chroma * weight[..., None], self.opacity * weight])
        smaller = height_px <= both.shape[0] and width_px <= both.shape[1]
        resized = cv2.resize(both, (width_px, height_px), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        return np.asarray(chroma * (1 - resized[..., 2:]) + resized[..., :2], np.float32)


def own_chroma(rgb: np.ndarray, tint_degree: int = 2) -> tuple[float, np.ndarray]:
    """Return the mean CIELAB chroma of a photo, and the part of it that lightness does not explain, at 64 x 64 points.

    In a toned print a and b follow from L alone: the tint fades towards black and white. So a polynomial in L is fitted
    to them, and what remains is the photo's own color.

    Args:
        rgb: (H, W, 3) uint8 or uint16 sRGB.
        tint_degree: of the polynomial; with 0 the tint is the same from black to white.

    Returns:
        Mean distance from gray, and (4096,) float64 distances from the tint, all in CIELAB units.
    """
    size = (SMALL_SIDE_PX, SMALL_SIDE_PX)
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.float32) / np.iinfo(rgb.dtype).max
    lab = lab_of(small).reshape(-1, 3)
    ab = lab[:, 1:]
    powers = np.vander(lab[:, 0] / 100, tint_degree + 1)  # (N, degree + 1)
    tint = powers @ np.linalg.lstsq(powers, ab)[0]  # (N, 2)
    return float(np.hypot(ab[:, 0], ab[:, 1]).mean()), np.sqrt(((ab - tint) ** 2).sum(axis=1))


def find_own_color(rgb: np.ndarray) -> OwnColor | None:
    """Return the local color of a photo, and whether all of it is in color; None for a print of one tone.

    Args:
        rgb: (H, W, 3) uint8 or uint16 sRGB.
    """
    scale = min(1.0, LONG_SIDE_PX / max(rgb.shape[:2]))
    size = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.float32) / np.iinfo(rgb.dtype).max
    lightness, a, b = cv2.split(lab_of(cv2.GaussianBlur(small, (0, 0), BLUR_PX)))  # (h, w)
    from_tint_a, from_tint_b = _from_tint(lightness / 100, a, b)
    distance, chroma = cv2.magnitude(from_tint_a, from_tint_b), cv2.magnitude(a, b)
    # Paper that is less yellow than the print lies away from the tint, too, but toward gray
    away = from_tint_a * a + from_tint_b * b > 0
    amount = np.minimum(distance, chroma) * away
    local, regions = _sure(amount)
    if not regions.any():
        return None
    sure, sure_regions = _sure(amount * _not_aging(from_tint_a, from_tint_b))
    elsewhere = float(distance[~regions].mean()) if not regions.all() else LEAST_ELSEWHERE
    colored = float(own_chroma(_as_u16(small))[1].mean()) > LEAST_IN_COLOR and elsewhere > LEAST_ELSEWHERE
    if colored or float(sure_regions.mean()) > LARGEST_SHARE:
        return OwnColor(chroma_of(small), np.ones_like(sure), _ramp(chroma), np.zeros_like(sure), True)
    tint = cv2.cvtColor(cv2.merge([lightness, a - from_tint_a, b - from_tint_b]), cv2.COLOR_LAB2RGB)
    opacity = np.clip((chroma - GLAZE) / (INK - GLAZE), 0, 1)
    own, glaze = chroma_of(small), 1 - opacity[..., None]
    added = own - glaze * (GLAZE_SHARE * chroma_of(np.clip(tint, 0, 1)) + (1 - GLAZE_SHARE) * own)
    return OwnColor(added, opacity, local, sure, False)


def _as_u16(rgb: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(rgb, 0, 1) * 65535).astype(np.uint16)


def _from_tint(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how a* and b* differ from the print's tint, (h, w) float32 each.

    The tint is a quadratic in lightness (0..1) and linear in the place, fitted robustly: to the whole picture and to
    its center, as a print and its mount have two. The nearer one counts.
    """
    height, width = a.shape
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    top, left = int(height * (1 - CENTER) / 2), int(width * (1 - CENTER) / 2)

    def from_fit(rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        step = max(1, math.isqrt(a[rows, columns].size // FIT_POINTS))
        planes = (each[rows, columns][::step, ::step] for each in np.broadcast_arrays(lightness, x, y, a, b))
        sampled = [each.ravel() for each in planes]
        light, across, down = sampled[:3]
        terms = np.stack([np.ones_like(light), light, light * light, across, down], axis=1)  # (N, 5)
        factors = _robust_fit(terms, np.stack(sampled[3:], axis=1)).astype(np.float32)
        tints = ((f[2] * lightness + f[1]) * lightness + (f[3] * x + f[4] * y + f[0]) for f in factors.T)
        of_a, of_b = (plane - tint for plane, tint in zip((a, b), tints, strict=True))
        return of_a, of_b

    whole = from_fit(slice(None), slice(None))
    inner = from_fit(slice(top, height - top), slice(left, width - left))
    nearer = cv2.magnitude(*inner) < cv2.magnitude(*whole)
    return np.where(nearer, inner[0], whole[0]), np.where(nearer, inner[1], whole[1])


def _robust_fit(terms: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the factors of (N, 5) terms that give (N, 2) values with the least sum of distances: (5, 2)."""
    terms, values = terms.astype(np.float64), values.astype(np.float64)
    weights = np.ones((len(terms), 1))
    for _ in range(FITS):
        weighted = terms * weights
        # A picture of one lightness leaves factors open: the least ones then
        factors = np.linalg.lstsq(weighted.T @ terms, weighted.T @ values)[0]
        residual = values - terms @ factors
        weights = 1 / np.maximum(np.hypot(residual[:, 0], residual[:, 1]), 1)[:, None]  # below one unit, squares
    return np.asarray(factors)


def _not_aging(from_tint_a: np.ndarray, from_tint_b: np.ndarray) -> np.ndarray:
    """Return 0 where a difference from the tint, (h, w) each, has the hue of stains, with a ramp to 1 elsewhere."""
    hue = cv2.phase(from_tint_a, from_tint_b, angleInDegrees=True)
    inside = np.minimum(hue - AGING_HUES[0], AGING_HUES[1] - hue)
    return np.asarray(1 - np.clip(inside / AGING_RAMP, 0, 1), np.float32)


def _sure(amount: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how sure local color is, 0..1, and its regions: connected, with enough that is clear.

    Args:
        amount: (h, w) float32, CIELAB units.
    """
    count, labels = cv2.connectedComponents((amount > FAINT).astype(np.uint8), connectivity=8)
    clear = np.bincount(labels[amount > CLEAR], minlength=count)
    wanted = clear >= max(LEAST_REGION_PX, LEAST_REGION * amount.size)
    wanted[0] = False  # what is no region
    regions = wanted[labels]
    return _ramp(amount) * regions, regions


def _ramp(amount: np.ndarray) -> np.ndarray:
    """Return 0 up to `FAINT` and 1 from `CLEAR` on."""
    return np.asarray(np.clip((amount - FAINT) / (CLEAR - FAINT), 0, 1), np.float32)


def is_toned(rgb: np.ndarray) -> bool:
    """Return whether a picture is gray, or of one tint as a print: with no colors to take over.

    Of 400 color photos one counts as toned; of dull ones and those of mostly one hue, which `OwnColor.in_color` leaves
    out, none.

    Args:
        rgb: (H, W, 3) uint8 or uint16 sRGB.
    """
    return float(own_chroma(rgb)[1].mean()) < LEAST_OF_OWN
