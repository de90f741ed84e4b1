"""Words that are true of a photo's own colors, so that a model trained with them obeys them."""

from __future__ import annotations

import cv2
import numpy as np

from chromatune import prompts
from chromatune.prompts import HUE_DEGREES, SKIN_HUE_DEGREES


def lab_of(rgb_u8: np.ndarray, side_px: int = 32) -> np.ndarray:
    """(side_px², 3) float32 CIELAB of an (H, W, 3) uint8 photo."""
    small = cv2.resize(rgb_u8, (side_px, side_px), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return cv2.cvtColor(small, cv2.COLOR_RGB2LAB).reshape(-1, 3)


def hue_shares(lab: np.ndarray, min_chroma: float = 15.0) -> dict[str, float]:
    """Share of the photo that each named hue covers; near-gray pixels count to none."""
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    hue = np.degrees(np.arctan2(lab[:, 2], lab[:, 1])) % 360
    names = list(HUE_DEGREES)
    distance = np.abs((hue[:, None] - np.array([HUE_DEGREES[n] for n in names]) + 180) % 360 - 180)
    nearest = distance.argmin(axis=1)
    return {name: float(((nearest == i) & (chroma > min_chroma)).mean()) for i, name in enumerate(names)}


SKIN_HUE_WIDTH = 25.0  # degrees: what a named hue leaves as it is
FEWEST_CHROMA = 8.0  # pixels below it have no hue worth keeping
WORDS = (*prompts.ATTRIBUTES, *HUE_DEGREES)


def retouched(rgb_u8: np.ndarray, word: str, rng: np.random.Generator) -> np.ndarray:
    """The photo made to be what the word says: (H, W, 3) uint8 in and out, CIELAB L as it was but for the gamut.

    What a photo happens to be teaches a word only with the photos that are so, and rare hues hardly at all. A named
    hue goes to all that is not of skin's color, so that a model learns to leave skin alone.
    """
    lab: np.ndarray = cv2.cvtColor(rgb_u8.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    ab = lab[..., 1:]
    if word in ("vivid", "muted"):
        ab *= rng.uniform(1.4, 2.0) if word == "vivid" else rng.uniform(0.2, 0.5)
    elif word in ("warm", "cool"):
        sign = 1 if word == "warm" else -1
        ab += sign * rng.uniform(7, 15) * np.array([0.25, 1], np.float32) * _room(lab[..., :1])
    else:
        angle = np.radians(HUE_DEGREES[word] + rng.uniform(-8, 8))
        aim = rng.uniform(20, 40) * np.array([np.cos(angle), np.sin(angle)], np.float32)
        moved = 0.25 * ab + aim * _room(lab[..., :1])
        lab[..., 1:] = moved + _skin_likeness(ab)[..., None] * (ab - moved)
    rgb = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB)
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def _room(lightness: np.ndarray) -> np.ndarray:
    """0 at black and white, where the gamut has no chroma, near 1 between: L 0..100 of any shape."""
    square = np.square((lightness - 50) / 50)  # NumPy's ** 4 is ten times slower
    return 1 - np.square(square)


def _skin_likeness(ab: np.ndarray) -> np.ndarray:
    """(H, W, 2) -> (H, W) float32, 0..1, without hard edges."""
    hue = np.degrees(np.arctan2(ab[..., 1], ab[..., 0]))
    near = np.exp(-((((hue - SKIN_HUE_DEGREES + 180) % 360 - 180) / SKIN_HUE_WIDTH) ** 2))
    colored = np.clip(np.hypot(ab[..., 0], ab[..., 1]) / FEWEST_CHROMA - 0.5, 0, 1)
    return cv2.GaussianBlur((near * colored).astype(np.float32), (0, 0), 1.5)


def attribute_prompt(prompt: str, rgb_u8: np.ndarray, rng: np.random.Generator) -> str:
    """The prompt with one word that holds for this photo said after it; "natural" where none clearly holds.

    Without that word the plain prompts would be left with more than their share of dull photos, and mean dull colors.
    """
    lab = lab_of(rgb_u8)
    chroma, warmth = float(np.hypot(lab[:, 1], lab[:, 2]).mean()), float(lab[:, 2].mean())
    options = []
    if chroma > 24:
        options.append("vivid")
    elif chroma < 11:
        options.append("muted")
    if warmth > 13:
        options.append("warm")
    elif warmth < 1:
        options.append("cool")
    # Orange at skin's chroma is every face: a named hue must cover much, or stand out from skin.
    hues = [name for name, share in hue_shares(lab).items() if share > (0.5 if name in ("orange", "red") else 0.2)]
    options = [*options, *hues, *hues] or [prompts.NO_ATTRIBUTE]
    return said(prompt, options[int(rng.integers(len(options)))], rng)


def said(prompt: str, word: str, rng: np.random.Generator) -> str:
    """The prompt with the word after it, in a form drawn for it."""
    forms = prompts.HUE_FORMS if word in HUE_DEGREES else prompts.ATTRIBUTE_FORMS
    return prompts.with_attribute(prompt, forms[int(rng.integers(len(forms)))], word)
