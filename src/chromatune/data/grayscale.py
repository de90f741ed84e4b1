"""Gray photographs as a camera, a film and the years would have made them from a color scene."""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np

from chromatune.errors import OptionsError

GrayMethod = Literal["rec601", "rec709", "average", "orthochromatic", "red-filter", "random"]

# Weights of R, G, B. Orthochromatic film is blind to red; a red filter darkens skies.
GRAY_WEIGHTS: dict[str, tuple[float, float, float]] = {
    "rec601": (0.299, 0.587, 0.114),
    "rec709": (0.2126, 0.7152, 0.0722),
    "average": (1 / 3, 1 / 3, 1 / 3),
    "orthochromatic": (0.05, 0.60, 0.35),
    "red-filter": (0.75, 0.20, 0.05),
}
GRAY_METHODS: tuple[str, ...] = get_args(GrayMethod)


def make_gray(rgb: np.ndarray, method: GrayMethod = "rec601", rng: np.random.Generator | None = None) -> np.ndarray:
    """Gray of a color photo: (H, W, 3) float32 sRGB 0..1 -> (H, W) float32 0..1.

    `random` draws the three weights from a Dirichlet distribution around Rec.601 and needs `rng`.

    Raises:
        OptionsError: the method is unknown, or `random` came without `rng`.
    """
    if method == "random":
        if rng is None:
            raise OptionsError("gray method 'random' needs a random generator")
        weights = rng.dirichlet(8 * np.asarray(GRAY_WEIGHTS["rec601"]) + 0.5)
    elif method in GRAY_WEIGHTS:
        weights = np.asarray(GRAY_WEIGHTS[method])
    else:
        raise OptionsError(f"gray method {method!r}; accepted: {', '.join(GRAY_METHODS)}")
    return np.clip(rgb @ weights.astype(np.float32), 0, 1)


def age(gray: np.ndarray, rng: np.random.Generator, amount: float = 1.0) -> np.ndarray:
    """The gray photo after the years: (H, W) float32 0..1 in and out.

    In the order light meets them: lens blur, film contrast, grain, then fading of the print (raised blacks,
    lowered whites). `amount` scales all four; 0 changes nothing.
    """
    height, width = gray.shape
    short_side_px = min(height, width)
    blur_px = float(rng.uniform(0, 0.008)) * short_side_px * amount
    if blur_px > 0.3:
        gray = cv2.GaussianBlur(gray, (0, 0), blur_px)
    gamma = float(np.exp(rng.normal(0, 0.25 * amount)))
    gray = np.power(gray, gamma)
    grain = float(rng.uniform(0, 0.06)) * amount
    if grain > 0.003:
        noise = rng.standard_normal((height, width), dtype=np.float32)
        if rng.random() < 0.5:
            noise = cv2.GaussianBlur(noise, (0, 0), 0.8) * 2.0
        gray = gray + grain * noise
    black, white = float(rng.uniform(0, 0.2)) * amount, 1 - float(rng.uniform(0, 0.2)) * amount
    faded = black + (white - black) * np.clip(gray, 0, 1)
    return np.clip(faded, 0, 1).astype(np.float32)


def random_gray(rgb: np.ndarray, rng: np.random.Generator, plain_share: float = 0.4) -> np.ndarray:
    """A training input, (H, W) float32 0..1: plain Rec.601 for `plain_share`, else other weights and an age."""
    if rng.random() < plain_share:
        return make_gray(rgb, "rec601")
    gray = make_gray(rgb, "random", rng)
    return age(gray, rng, amount=float(rng.uniform(0, 1))) if rng.random() < 0.75 else gray
