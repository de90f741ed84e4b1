"""Many seeds and words on one photo: how far results differ, how good the best is, how far text moves color."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chromatune import prompts
from chromatune.colorizer import Colorizer
from chromatune.evaluation import is_number, lab_of, psnr
from chromatune.options import Advance, make_options
from chromatune.results import ColorizeResult

SEEDS = 8
DRAWN, BEST = "drawn", f"best of {SEEDS}"
NOT_SKIN, SKIN = "named hue, not skin", "named hue, skin"
METRICS_OF = {DRAWN: ("psnr", "spread"), BEST: ("psnr",), NOT_SKIN: ("shift",), SKIN: ("shift",)}
ASPECTS = tuple(METRICS_OF)  # a row each
MAY_LACK = ("shift",)  # where too little of a photo is of the kind
SKIN_WIDTH_DEGREES = 25.0
LEAST_CHROMA = 8.0  # CIELAB; below it a pixel has no hue
LEAST_SHARE = 0.02  # of a photo's pixels, for a mean over them to be told

Scores = dict[str, dict[str, float | None]]  # aspect ⇒ metric ⇒ value


def measure(colorizer: Colorizer, truth: np.ndarray, gray: np.ndarray, seed: int) -> Scores:
    """One photo's scores.

    Args:
        colorizer: the model.
        truth: (S, S, 3) uint8 sRGB.
        gray: (S, S) uint8, its luma.
        seed: the first of `SEEDS` seeds; the words are all tried with this one.

    Returns:
        "psnr" (dB) and "spread" (standard deviation of a, b over seeds, CIELAB units, mean over pixels) for the rows of
        seeds; "shift" (mean move of a, b along the named hue's angle, over all hues) for the rows of text, None where
        the photo has too little of what they speak of.
    """
    first = seed * SEEDS
    drawn = [_colorized(colorizer, gray, number, "") for number in range(first, first + SEEDS)]
    decibels = [psnr(result, truth) for result in drawn]
    ab = np.stack([lab_of(result)[..., 1:] for result in drawn])  # (K, S, S, 2)
    spread = float(np.sqrt(ab.var(axis=0).sum(axis=-1)).mean())
    moves = [_shift(colorizer, gray, first, hue, ab[0]) for hue in prompts.NAMED_HUES]  # (S, S) each
    move, skin = np.mean(moves, axis=0), is_skin_colored(lab_of(truth))
    return {
        DRAWN: {"psnr": float(np.mean(decibels)), "spread": spread},
        BEST: {"psnr": float(np.max(decibels))},
        NOT_SKIN: {"shift": _mean_over(move, ~skin)},
        SKIN: {"shift": _mean_over(move, skin)},
    }


def is_skin_colored(lab: np.ndarray) -> np.ndarray:
    """Pixels of a hue that skin has: (H, W, 3) CIELAB -> (H, W) bool."""
    hue = np.degrees(np.arctan2(lab[..., 2], lab[..., 1]))
    near = np.abs((hue - prompts.SKIN_HUE_DEGREES + 180) % 360 - 180) < SKIN_WIDTH_DEGREES
    return near & (np.hypot(lab[..., 1], lab[..., 2]) > LEAST_CHROMA)


def measure_all(
    colorizer: Colorizer, photos: Sequence[tuple[str, np.ndarray, np.ndarray]], seed: int, advance: Advance
) -> list[dict[str, object]]:
    """One record a photo and aspect: {"row": aspect, "key", metrics}; `photos` are (key, truth, gray)."""
    records: list[dict[str, object]] = []
    for key, truth, gray in photos:
        found = measure(colorizer, truth, gray, seed)
        records += [{"row": aspect, "key": key, **scores} for aspect, scores in found.items()]
        advance()
    return records


def is_record(record: Mapping[str, Any]) -> bool:
    """Whether a line has an aspect, and numbers for its metrics, as `measure_all` gives them."""
    metrics = METRICS_OF.get(record["row"], ())
    if not metrics or not isinstance(record["key"], str) or record.keys() != {"row", "key", *metrics}:
        return False
    return all(is_number(record[name]) or (record[name] is None and name in MAY_LACK) for name in metrics)


def _colorized(colorizer: Colorizer, gray: np.ndarray, seed: int, said: str) -> np.ndarray:
    info = colorizer.info
    options = make_options(seed=seed, prompt=info.prompt + said, steps=info.variant_steps)
    result: ColorizeResult = colorizer.colorize(gray, options)
    return result.rgb


def _shift(colorizer: Colorizer, gray: np.ndarray, seed: int, hue: str, plain_ab: np.ndarray) -> np.ndarray:
    angle = math.radians(prompts.HUE_DEGREES[hue])
    asked = lab_of(_colorized(colorizer, gray, seed, prompts.HUE_FORMS[0].format(hue)))[..., 1:]
    return (asked - plain_ab) @ np.array([math.cos(angle), math.sin(angle)])


def _mean_over(values: np.ndarray, mask: np.ndarray) -> float | None:
    return float(values[mask].mean()) if mask.mean() >= LEAST_SHARE else None
