"""Hints on keyframes of a shot, propagated to all of its keyframes along the flow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from chromatune.color import CorrectionField, warp
from chromatune.hints import HintedChroma, HintMap, Hints, draw
from chromatune.images import Photo
from chromatune.video.flow import NeighborFlows

# Influence of a hint on a pixel: up to the first, it is not propagated from there; from the second on, in full
NO_INFLUENCE, FULL_INFLUENCE = 0.35, 0.75
DECAY = 0.9  # share of a hint's weight that is left after each keyframe


NOTHING_KNOWN: Mapping[int, HintMap] = {}


def propagate_hints(
    chromas: Sequence[np.ndarray],
    lumas: Sequence[np.ndarray],
    flows: NeighborFlows,
    hints: Mapping[int, Hints],
    photo: Photo,
    hinted_chroma: Callable[[int, np.ndarray], HintedChroma],
    *,
    reach: float,
    strength: float,
    known: Mapping[int, HintMap] = NOTHING_KNOWN,
) -> list[np.ndarray]:
    """Return the keyframes' chromas with hints: (h, w, 2) float32 each.

    On its own keyframe a hint acts as on a photo. Everything that it colors there is warped from keyframe to keyframe,
    as far as the flow is confident, and serves as a hint there: the correction field spreads it to what comes into
    view.

    Args:
        chromas: (h, w, 2) float32 each.
        lumas: (h, w) uint8 each.
        flows: see `neighbor_flows`.
        hints: index of a keyframe ⇒ its hints.
        photo: of the video's size: hints are in its pixels.
        hinted_chroma: index of a keyframe and its chroma ⇒ its correction field.
        reach: see `ColorizeOptions`.
        strength: the same.
        known: index of a keyframe ⇒ colors of much of it, at the grid, such as a still's; hints are on top.
    """
    ready = [hinted_chroma(index, chroma) for index, chroma in enumerate(chromas)]
    drawn = {index: draw(each, photo, ready[index].grid) for index, each in hints.items()}
    decided = {
        index: _decided(each, np.asarray(chromas[index]), lumas[index], ready[index], reach)
        for index, each in drawn.items()
    }
    for index, below in known.items():
        decided[index] = _stacked(decided[index], below) if index in decided else below
    everywhere = _warp_to_all(decided, len(ready), flows)
    found = []
    for index, hinted in enumerate(ready):
        hint_map = _stacked(drawn[index], everywhere[index]) if index in drawn else everywhere[index]
        correction = hinted.field_of(hint_map, reach=reach)
        found.append(np.asarray(chromas[index] + np.float32(strength) * correction, np.float32))
    return found


def _decided(drawn: HintMap, chroma: np.ndarray, luma: np.ndarray, hinted: HintedChroma, reach: float) -> HintMap:
    """All that hints decide on their own keyframe: chroma over luma there, and how much of it is theirs."""
    gray = np.maximum(luma.astype(np.float32) / 255, 1 / 255)
    corrected = chroma + hinted.field_of(drawn, reach=reach)
    ones = np.ones((*gray.shape, 2), np.float32)
    influence = CorrectionField(luma / 255).solve(ones, drawn.weight, reach=reach)[..., 0]
    share = np.clip((influence - NO_INFLUENCE) / (FULL_INFLUENCE - NO_INFLUENCE), 0, 1)
    return _stacked(drawn, HintMap(corrected / gray[..., None], share.astype(np.float32)))


def _stacked(top: HintMap, below: HintMap) -> HintMap:
    """Both hint maps, the top one first where it has weight."""
    rest = below.weight * (1 - top.weight)
    total = top.weight + rest
    summed = top.weight[..., None] * top.relative + rest[..., None] * below.relative
    return HintMap(summed / np.maximum(total, 1e-6)[..., None], total)


def _warp_to_all(decided: Mapping[int, HintMap], count: int, flows: NeighborFlows) -> list[HintMap]:
    """The hint map of each keyframe: a mean of all that is warped to it, the nearer ones with more weight."""
    (height, width) = next(iter(decided.values())).weight.shape
    summed = np.zeros((count, height, width, 2), np.float32)
    total, most = np.zeros((count, height, width), np.float32), np.zeros((count, height, width), np.float32)
    for start, hint_map in decided.items():
        for step in (-1, 1):
            path, path_confidence = np.zeros((height, width, 2), np.float32), np.ones((height, width), np.float32)
            nearness, keyframe = 1.0, start
            while True:
                if keyframe != start or step == 1:
                    weight = warp(hint_map.weight, path) * path_confidence
                    summed[keyframe] += (nearness * weight)[..., None] * warp(hint_map.relative, path)
                    total[keyframe] += nearness * weight
                    most[keyframe] = np.maximum(most[keyframe], weight)
                keyframe, nearness = keyframe + step, nearness * DECAY
                if not 0 <= keyframe < count:
                    break
                flow, confidence = flows[keyframe, keyframe - step]
                # Flows are added up, so that the source is sampled once, however far it has come
                path = flow + warp(path, flow)
                path_confidence = np.minimum(confidence, warp(path_confidence, flow))
    return [HintMap(summed[index] / np.maximum(total[index], 1e-6)[..., None], most[index]) for index in range(count)]
