"""Hints of the truth: how much better a result gets where a person knows a few colors.

The field's protocols differ. siggraph17 (arXiv 1705.02999) is trained with points from a normal distribution around the
middle, each the mean of a square of 1 to 9 pixels' side; iColoriT (arXiv 2207.06831) draws places uniformly. Here the
places are spread: each next one is, of ten drawn uniformly, the farthest from all before (Mitchell's best candidate).
So the first N of them are the N hints, whatever the largest number, and differences between numbers are of the same
photo with more hints. Each is a square of the truth's mean color there, with a side of 10 pixels at 256. The truth's
colors are an upper bound of what a person knows.
"""

from __future__ import annotations

import re

import numpy as np

from chromatune.hints import Hints

SQUARE_SIDE = 10 / 256  # of the picture's
CANDIDATES = 10
COUNT_IN_NAME = re.compile(r"^(.*), (\d+) hints?$")


def spread_points(content: str, seed: int, count: int) -> np.ndarray:
    """Places of hints, (count, 2) float64, x and y in 0..1; those of a smaller count come first.

    Args:
        content: hash of the photo's pixels, hexadecimal: its places depend on nothing else.
        seed: of the evaluation.
        count: how many.
    """
    generator = np.random.default_rng([seed, int(content[:16], 16)])
    points = np.empty((count, 2))
    for index in range(count):
        candidates = generator.uniform(SQUARE_SIDE / 2, 1 - SQUARE_SIDE / 2, (CANDIDATES, 2))
        distances = ((candidates[:, None] - points[None, :index]) ** 2).sum(axis=2)  # (candidates, points)
        points[index] = candidates[distances.min(axis=1).argmax() if index else 0]
    return points


def squares(size_px: int, content: str, seed: int, count: int) -> list[tuple[int, int, int]]:
    """Left and top edge and side of each hint's square in a picture of `size_px`, in whole pixels."""
    side = max(1, round(SQUARE_SIDE * size_px))
    edges = np.clip(np.rint(spread_points(content, seed, count) * size_px - side / 2), 0, size_px - side).astype(int)
    return [(int(left), int(top), side) for left, top in edges]


def hints_of_truth(truth: np.ndarray, content: str, seed: int, count: int) -> Hints:
    """The first `count` hints of a photo.

    Args:
        truth: (S, S, 3) uint8 sRGB.
        content: see `spread_points`.
        seed: of the evaluation.
        count: how many; with none, no hints.
    """
    if not count:
        return Hints()
    rgba = np.zeros((*truth.shape[:2], 4), np.uint8)
    for left, top, side in squares(len(truth), content, seed, count):
        square = np.s_[top : top + side, left : left + side]
        rgba[square] = (*np.rint(truth[square].mean(axis=(0, 1))).astype(int), 255)
    return Hints.from_layer(rgba)


def count_in(name: str) -> tuple[str, int | None]:
    """The name of a row, apart from the number of hints that it ends with."""
    found = COUNT_IN_NAME.match(name)
    return (found[1], int(found[2])) if found else (name, None)
