"""Hints on frames of a shot, carried to all of its keys along the motion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chromatune.color import CorrectionField
from chromatune.hints import HintedChroma, HintMap, Hints, draw
from chromatune.images import Photo
from chromatune.video.chroma import Ways, agree
from chromatune.video.motion import carried

FIRST_INFLUENCE, FULL_INFLUENCE = (
    0.35,
    0.75,
)  # of a hint on a pixel: below, it is not carried from there; above, in full
NEARER = 0.9  # share of a hint's say that is left with each key between
AFTERWARDS = 2  # rounds of agreement with hints


@dataclass(frozen=True, eq=False)
class _Source:
    """What is known of a hinted key: chroma over luma where a hint decides, and how much it does."""

    relative: np.ndarray  # (h, w, 2) float32
    weight: np.ndarray  # (h, w) float32, 0..1


def with_hints(
    chromas: Sequence[np.ndarray],
    lumas: Sequence[np.ndarray],
    levels: Sequence[float],
    ways: Ways,
    hints: Mapping[int, Hints],
    frame: Photo,
    hinted_of: Callable[[int, np.ndarray], HintedChroma],
    *,
    reach: float,
    strength: float,
) -> np.ndarray:
    """The keys' chromas with hints: (K, h, w, 2) float32.

    On its own key a hint acts as on a photo. What it decides there, all of it and not its point alone, is carried from
    key to key, as far as the flow is believed; and is a hint there, which the correction field spreads to what comes
    into view.

    Args:
        chromas: (h, w, 2) float32 each.
        lumas: (h, w) uint8 each.
        levels: log exposure of each.
        ways: see `find_ways`.
        hints: index of a key ⇒ what is said of it.
        frame: of the film's size: hints are in its pixels.
        hinted_of: index of a key and its chroma ⇒ its correction field.
        reach: see `ColorizeOptions`.
        strength: the same.
    """
    ready = [hinted_of(index, chroma) for index, chroma in enumerate(chromas)]
    drawn = {index: draw(each, frame, ready[index].grid) for index, each in hints.items()}
    sources = {
        index: _source(each, np.asarray(chromas[index]), lumas[index], ready[index], reach)
        for index, each in drawn.items()
    }
    said = _carried_to_all(sources, len(ready), ways)
    found = []
    for index, hinted in enumerate(ready):
        wanted = said[index]
        if index in drawn:
            wanted = _over(drawn[index], wanted)
        field = hinted.field_of(wanted, reach=reach)
        found.append(np.asarray(chromas[index] + np.float32(strength) * field, np.float32))
    return agree(found, levels, ways, rounds=AFTERWARDS)


def _source(drawn: HintMap, chroma: np.ndarray, luma: np.ndarray, hinted: HintedChroma, reach: float) -> _Source:
    gray = np.maximum(luma.astype(np.float32) / 255, 1 / 255)
    corrected = chroma + hinted.field_of(drawn, reach=reach)
    ones = np.ones((*gray.shape, 2), np.float32)
    influence = CorrectionField(luma / 255).solve(ones, drawn.weight, reach=reach)[..., 0]
    share = np.clip((influence - FIRST_INFLUENCE) / (FULL_INFLUENCE - FIRST_INFLUENCE), 0, 1)
    under = _Source(corrected / gray[..., None], share.astype(np.float32))
    over = _over(drawn, HintMap(under.relative, under.weight))
    return _Source(over.relative, over.weight)


def _over(top: HintMap, below: HintMap) -> HintMap:
    """Both, the top one first where it says something."""
    left = below.weight * (1 - top.weight)
    total = top.weight + left
    mean = (top.weight[..., None] * top.relative + left[..., None] * below.relative) / np.maximum(total, 1e-6)[
        ..., None
    ]
    return HintMap(mean, total)


def _carried_to_all(sources: Mapping[int, _Source], count: int, ways: Ways) -> list[HintMap]:
    """What all sources say at each key, the nearer ones more."""
    (height, width) = next(iter(sources.values())).weight.shape
    summed = np.zeros((count, height, width, 2), np.float32)
    total, most = np.zeros((count, height, width), np.float32), np.zeros((count, height, width), np.float32)
    for start, source in sources.items():
        for step in (-1, 1):
            place, believed = np.zeros((height, width, 2), np.float32), np.ones((height, width), np.float32)
            near, key = 1.0, start
            while True:
                if key != start or step == 1:
                    weight = carried(source.weight, place) * believed
                    summed[key] += (near * weight)[..., None] * carried(source.relative, place)
                    total[key] += near * weight
                    most[key] = np.maximum(most[key], weight)
                key, near = key + step, near * NEARER
                if not 0 <= key < count:
                    break
                there, trusted = ways[key, key - step]
                # Places are added up, so that what lies there is sampled once, however far it has come
                place = there + carried(place, there)
                believed = np.minimum(trusted, carried(believed, there))
    return [HintMap(summed[key] / np.maximum(total[key], 1e-6)[..., None], most[key]) for key in range(count)]
