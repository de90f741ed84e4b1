"""Chroma through a shot: that of its keys made one, and carried to each frame along the motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from chromatune.video.keys import evened
from chromatune.video.motion import carried, flow_between, likeness, trust

ROUNDS = 8  # of keys taking their neighbors' chroma
NEIGHBOR_WEIGHT = 0.5  # of either neighbor, over a key's own
LEAST_WEIGHT = 1e-9
SURE = 0.3  # of the weight that believed flow has, above which nothing is taken from around
MOST_REVIVAL = 1.3
MOST_GAIN = 1.5  # log exposure between a key and a frame


@dataclass(frozen=True, eq=False)
class ShotChroma:
    """The chroma of a shot, small.

    Attributes:
        offsets: of its keys, growing.
        lumas: (K, h, w) uint8 at the grid.
        chromas: (K, h, w, 2) float32, (Cb, Cr).
        levels: (K,) log exposure of the keys.
        exposures: (N,) log exposure of all frames.
    """

    offsets: np.ndarray
    lumas: np.ndarray
    chromas: np.ndarray
    levels: np.ndarray
    exposures: np.ndarray

    def at(self, offset: int, luma: np.ndarray) -> np.ndarray:
        """The chroma of a frame: (h, w, 2) float32.

        It is carried from the keys before and after it, the nearer counting more, each where its flow is believed;
        where neither's is, from around. It fades with the film; that it flickers with it as well would be worse to look
        at than that it does not.

        Args:
            offset: of the frame in the shot.
            luma: (h, w) uint8, its gray at the grid.
        """
        after = int(np.searchsorted(self.offsets, offset))
        if after < len(self.offsets) and self.offsets[after] == offset:
            sides = [(after, 1.0)]
        elif after == 0 or after == len(self.offsets):
            sides = [(min(after, len(self.offsets) - 1), 1.0)]
        else:
            share = (offset - self.offsets[after - 1]) / (self.offsets[after] - self.offsets[after - 1])
            sides = [(after - 1, 1 - float(share)), (after, float(share))]
        exposure, level = float(self.exposures[offset]), evened(self.exposures, offset)
        total, found = np.zeros(luma.shape, np.float32), np.zeros((*luma.shape, 2), np.float32)
        for key, weight in sides:
            moved, believed = self._from(key, luma, exposure, level)
            total += weight * believed
            found += (weight * believed)[..., None] * moved
        return _filled(found, total)

    def _from(self, key: int, luma: np.ndarray, exposure: float, level: float) -> tuple[np.ndarray, np.ndarray]:
        there, believed = carry_to(luma, exposure, self.lumas[key], float(self.levels[key]))
        return carried(self.chromas[key], there) * _gain(level, float(self.levels[key])), believed


def carry_to(
    luma: np.ndarray, exposure: float, other: np.ndarray, other_exposure: float
) -> tuple[np.ndarray, np.ndarray]:
    """The flow from a frame to another, and how far it is believed, (h, w) 0..1.

    Args:
        luma: (h, w) uint8 of the frame.
        exposure: its log exposure.
        other: (h, w) uint8 of the other.
        other_exposure: its log exposure.
    """
    there = flow_between(luma, other)
    seen = carried(other.astype(np.float32) * (_gain(exposure, other_exposure) / 255), there)
    believed = trust(there, flow_between(other, luma)) * likeness(luma.astype(np.float32) / 255, np.minimum(seen, 1))
    return there, cv2.GaussianBlur(believed, (0, 0), 1.5)


Ways = dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]  # from a key to a neighbor: flow, and belief in it


def find_ways(lumas: Sequence[np.ndarray], levels: Sequence[float]) -> Ways:
    """The flow from each key to the next and to the one before, see `carry_to`.

    Args:
        lumas: (h, w) uint8 of each key.
        levels: log exposure of each.
    """
    pairs = [pair for first in range(len(lumas) - 1) for pair in ((first, first + 1), (first + 1, first))]
    return {(here, there): carry_to(lumas[here], levels[here], lumas[there], levels[there]) for here, there in pairs}


def agree(
    chromas: Sequence[np.ndarray], levels: Sequence[float], ways: Ways, *, rounds: int = ROUNDS, fixed: int = 0
) -> np.ndarray:
    """The keys' chromas, each a mean of its own and what its neighbors have there, again and again.

    What the model said of one key alone fades, what it said of all stays; the shot's mean strength stays as it was.

    Args:
        chromas: of each key, (h, w, 2) float32.
        levels: log exposure of each.
        ways: see `find_ways`.
        rounds: how often.
        fixed: so many of the first keys stay as they are.

    Returns:
        (K, h, w, 2) float32.
    """
    found = [np.asarray(chroma, np.float32) for chroma in chromas]
    before = _strength(found)
    for _ in range(rounds):
        found = [own if here < fixed else _mean(found, here, levels, ways) for here, own in enumerate(found)]
    revival = np.float32(np.clip(before / max(_strength(found), 1e-6), 1, MOST_REVIVAL))
    return np.stack([chroma * (1 if here < fixed else revival) for here, chroma in enumerate(found)])


def _mean(found: Sequence[np.ndarray], here: int, levels: Sequence[float], ways: Ways) -> np.ndarray:
    own = found[here]
    total, summed = np.ones(own.shape[:2], np.float32), own.copy()
    for other in (here - 1, here + 1):
        if (here, other) in ways:
            there, believed = ways[here, other]
            weight = NEIGHBOR_WEIGHT * believed
            total += weight
            summed += weight[..., None] * carried(found[other], there) * _gain(levels[here], levels[other])
    return summed / total[..., None]


def _strength(chromas: Sequence[np.ndarray]) -> float:
    return float(np.mean([np.linalg.norm(chroma, axis=-1).mean() for chroma in chromas]))


def _gain(level: float, other: float) -> np.float32:
    """What chroma of one exposure is multiplied by to be that of another."""
    return np.float32(np.exp(np.clip(level - other, -MOST_GAIN, MOST_GAIN)))


def _filled(summed: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted sums over their weights; where those are small, smoothly what lies around, from ever farther off."""
    found = summed / np.maximum(weight, LEAST_WEIGHT)[..., None]
    sure = np.clip(weight / SURE, 0, 1)
    if sure.min() == 1 or min(weight.shape) < 4:
        return found
    size = (-(-weight.shape[1] // 2), -(-weight.shape[0] // 2))
    small = cv2.resize(np.dstack([summed, weight]), size, interpolation=cv2.INTER_AREA)
    around = cv2.resize(_filled(small[..., :2], small[..., 2]), weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return around + sure[..., None] * (found - around)
