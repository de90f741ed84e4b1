"""Words that are true of a photo's own colours, so that a model trained with them obeys them."""

from __future__ import annotations

import cv2
import numpy as np

from chromatune import prompts

# CIELAB hue angle in degrees at the middle of each name, as photographs have it: their blues are skies and jeans,
# far from the screen's pure blue (306°).
HUE_DEGREES = {
    "red": 35.0, "orange": 65.0, "yellow": 97.0, "green": 138.0,
    "cyan": 200.0, "blue": 275.0, "purple": 312.0, "pink": 355.0,
}  # fmt: skip


def lab_of(rgb_u8: np.ndarray, side_px: int = 32) -> np.ndarray:
    """(side_px², 3) float32 CIELAB of an (H, W, 3) uint8 photo."""
    small = cv2.resize(rgb_u8, (side_px, side_px), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return cv2.cvtColor(small, cv2.COLOR_RGB2LAB).reshape(-1, 3)


def hue_shares(lab: np.ndarray, min_chroma: float = 15.0) -> dict[str, float]:
    """Share of the photo that each named hue covers; near-grey pixels count to none."""
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    hue = np.degrees(np.arctan2(lab[:, 2], lab[:, 1])) % 360
    names = list(HUE_DEGREES)
    distance = np.abs((hue[:, None] - np.array([HUE_DEGREES[n] for n in names]) + 180) % 360 - 180)
    nearest = distance.argmin(axis=1)
    return {name: float(((nearest == i) & (chroma > min_chroma)).mean()) for i, name in enumerate(names)}


def attribute_prompt(prompt: str, rgb_u8: np.ndarray, rng: np.random.Generator) -> str:
    """The prompt with one word that holds for this photo said after it; "natural" where none clearly holds.

    Without that word the plain prompts would be left with more than their share of dull photos, and mean dull colours.
    """
    lab = lab_of(rgb_u8)
    chroma, warmth = float(np.hypot(lab[:, 1], lab[:, 2]).mean()), float(lab[:, 2].mean())
    words = []
    if chroma > 24:
        words.append("vivid")
    elif chroma < 11:
        words.append("muted")
    if warmth > 13:
        words.append("warm")
    elif warmth < 1:
        words.append("cool")
    options = [(prompts.ATTRIBUTE_FORMS, word) for word in words]
    # Orange at skin's chroma is every face: a named hue must cover much, or stand out from skin.
    hues = [name for name, share in hue_shares(lab).items() if share > (0.5 if name in ("orange", "red") else 0.2)]
    options += [(prompts.HUE_FORMS, name) for name in hues] * 2
    options = options or [(prompts.ATTRIBUTE_FORMS, "natural")]
    forms, word = options[int(rng.integers(len(options)))]
    return prompts.with_attribute(prompt, forms[int(rng.integers(len(forms)))], word)
