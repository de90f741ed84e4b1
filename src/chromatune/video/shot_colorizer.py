"""One shot: keyframes, stabilized ⇒ the model ⇒ their chroma, made consistent ⇒ chroma of every frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import cv2
import numpy as np

from chromatune.color import grid_size, resize, warp
from chromatune.hints import Hints
from chromatune.images import Photo
from chromatune.video.color_sources import KeyframeColors
from chromatune.video.flow import (
    NeighborFlows,
    exposure_gain,
    matched_flow,
    neighbor_flows,
    smoothed_exposure,
)
from chromatune.video.hint_propagation import propagate_hints
from chromatune.video.keyframes import Keyframe, find_keyframes, keyframe_offsets
from chromatune.video.stills import NO_STILLS, ShotStills

ROUNDS, ROUNDS_WITH_HINTS = 8, 2  # of keyframes taking their neighbors' chroma
NEIGHBOR_WEIGHT = 0.5  # of either neighbor, over a keyframe's own
LEAST_BELIEF = 0.02  # in a keyframe's own chroma: where no neighbor has any, it stays
MOST_REVIVAL = 1.3  # of the mean strength that is lost by that

LEAST_WEIGHT = 1e-9
FULL_WEIGHT = 0.3  # of confident flow, from which on nothing is filled in from around


@dataclass(frozen=True, eq=False)
class ShotColorizer:
    """Colors shots.

    Attributes:
        colors: of keyframes.
        photo: of the video's size and without content: hints are in its pixels.
        hint_reach: see `ColorizeOptions`.
        hint_strength: the same.
    """

    colors: KeyframeColors
    photo: Photo
    hint_reach: float = 1.0
    hint_strength: float = 1.0

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid of chroma and flow, which is that of hints."""
        return grid_size(*self.colors.size)

    def colorize_shot(
        self,
        grays: Iterable[np.ndarray],
        count: int,
        hints: Mapping[int, Hints],
        before: ShotChroma | None = None,
        *,
        start: int = 0,
        stills: ShotStills = NO_STILLS,
        warn: Callable[[str], None] = lambda line: None,
    ) -> ShotChroma:
        """Return the chroma of a shot.

        Args:
            grays: of its frames, (H, W) uint8 of the colors' size.
            count: of frames.
            hints: offset of a frame in the shot ⇒ its hints.
            before: of the frames just before, where the shot is the next segment of one that is very long.
            start: the shot's first frame.
            stills: finished frames of this shot, or of others.
            warn: gets a line for each still that shows something else than its frame.
        """
        exposures: list[float] = []
        offsets = keyframe_offsets(count, [*hints, *stills.own])
        keyframes: list[Keyframe] = []
        chromas: list[np.ndarray] = []
        weights: list[np.ndarray] = []
        corrected = bool(hints or stills)
        with (
            ThreadPoolExecutor(self.colors.workers, "flow") as pool,
            closing(find_keyframes(grays, offsets, self.grid, exposures, pool)) as found,
        ):
            for keyframe, given in self.colors.of_shot(found, start, stills.references):
                weight = np.ones(self.grid, np.float32) if given.weight is None else resize(given.weight, *self.grid)
                chromas.append(resize(given.chroma, *self.grid))
                weights.append(weight)
                # Only hints and stills look at the stabilized picture again
                small = Keyframe(keyframe.offset, keyframe.luma, keyframe.luma, keyframe.exposure)
                keyframes.append(keyframe if corrected else small)
        lumas, keyframe_exposures = [each.luma for each in keyframes], [each.exposure for each in keyframes]
        flows = neighbor_flows(lumas, keyframe_exposures)
        if before is not None:
            chromas[0], weights[0] = _continued(before, keyframes[0], chromas[0]), np.ones(self.grid, np.float32)
        consistent = make_consistent(
            chromas, keyframe_exposures, flows, fixed=0 if before is None else 1, weights=weights
        )
        maps, wrong = stills.maps(keyframes) if stills else ({}, [])
        for line in wrong:
            warn(line)
        if hints or maps:
            hinted = propagate_hints(
                list(consistent),
                lumas,
                flows,
                {offsets.index(offset): each for offset, each in hints.items()},
                self.photo,
                lambda index, chroma: self.colors.hinted(keyframes[index].stabilized, chroma),
                reach=self.hint_reach,
                strength=self.hint_strength,
                known=maps,
            )
            consistent = make_consistent(hinted, keyframe_exposures, flows, rounds=ROUNDS_WITH_HINTS)
        return ShotChroma(
            np.array(offsets), np.stack(lumas), consistent, np.array(keyframe_exposures), np.array(exposures)
        )


def _continued(before: ShotChroma, keyframe: Keyframe, own: np.ndarray) -> np.ndarray:
    """The chroma of a segment's first keyframe, as the last keyframe of the segment before has it."""
    flow, weight = matched_flow(keyframe.luma, 0.0, before.lumas[-1], 0.0)  # both are without flicker
    return np.asarray(own + weight[..., None] * (warp(before.chromas[-1], flow) - own), np.float32)


def make_consistent(
    chromas: Sequence[np.ndarray],
    exposures: Sequence[float],
    flows: NeighborFlows,
    *,
    rounds: int = ROUNDS,
    fixed: int = 0,
    weights: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
    """Return the keyframes' chromas, each a mean of its own and its warped neighbors', again and again.

    Color that the model gave to a single keyframe fades, color that it gave to all stays. The mean strength of the shot
    is restored at the end, up to a factor of `MOST_REVIVAL`.

    Args:
        chromas: of each keyframe, (h, w, 2) float32.
        exposures: log exposure of each.
        flows: see `neighbor_flows`.
        rounds: how often.
        fixed: number of keyframes, from the first on, that stay as they are.
        weights: (h, w) float32 of each, 0..1, how far its own chroma is to be believed; None for 1.

    Returns:
        (K, h, w, 2) float32.
    """
    found = [np.asarray(chroma, np.float32) for chroma in chromas]
    shares = [np.ones(chroma.shape[:2], np.float32) for chroma in found]
    if weights is not None:
        shares = [np.maximum(weight, LEAST_BELIEF) for weight in weights]
    before = _mean_strength(found)
    for _ in range(rounds):
        found = [
            chroma if here < fixed else _mean(found, here, exposures, flows, shares)
            for here, chroma in enumerate(found)
        ]
    revival = np.float32(np.clip(before / max(_mean_strength(found), 1e-6), 1, MOST_REVIVAL))
    return np.stack([chroma * (1 if here < fixed else revival) for here, chroma in enumerate(found)])


def _mean(
    chromas: Sequence[np.ndarray],
    here: int,
    exposures: Sequence[float],
    flows: NeighborFlows,
    shares: Sequence[np.ndarray],
) -> np.ndarray:
    total = shares[here].copy()
    summed = total[..., None] * chromas[here]
    for other in (here - 1, here + 1):
        if (here, other) in flows:
            flow, flow_confidence = flows[here, other]
            weight = NEIGHBOR_WEIGHT * flow_confidence * warp(shares[other], flow)
            total += weight
            summed += weight[..., None] * warp(chromas[other], flow) * exposure_gain(exposures[here], exposures[other])
    return summed / total[..., None]


def _mean_strength(chromas: Sequence[np.ndarray]) -> float:
    return float(np.mean([np.linalg.norm(chroma, axis=-1).mean() for chroma in chromas]))


@dataclass(frozen=True, eq=False)
class ShotChroma:
    """The chroma of a shot's keyframes, and what gives it to all frames.

    Attributes:
        offsets: of the keyframes, growing.
        lumas: (K, h, w) uint8 at the grid.
        chromas: (K, h, w, 2) float32, (Cb, Cr).
        keyframe_exposures: (K,) smoothed log exposure of the keyframes.
        exposures: (N,) log exposure of all frames.
    """

    offsets: np.ndarray
    lumas: np.ndarray
    chromas: np.ndarray
    keyframe_exposures: np.ndarray
    exposures: np.ndarray

    def at(self, offset: int, luma: np.ndarray) -> np.ndarray:
        """Return the chroma of a frame: (h, w, 2) float32.

        It is warped from the keyframes before and after it, weighted by nearness and by the flow's confidence; where
        both flows fail, it is filled in from around. It follows the video's fades, not its flicker.

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
        exposure, smoothed = float(self.exposures[offset]), smoothed_exposure(self.exposures, offset)
        total, summed = np.zeros(luma.shape, np.float32), np.zeros((*luma.shape, 2), np.float32)
        for index, weight in sides:
            own_exposure = float(self.keyframe_exposures[index])
            flow, flow_confidence = matched_flow(luma, exposure, self.lumas[index], own_exposure)
            warped = warp(self.chromas[index], flow) * exposure_gain(smoothed, own_exposure)
            weights = np.float32(weight) * flow_confidence
            total += weights
            summed += cv2.merge([weights, weights]) * warped
        return _filled(summed, total)


def _filled(summed: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted sums over their weights; where those are small, what lies around, smoothly and from ever farther off."""
    divisor = np.maximum(weight, LEAST_WEIGHT)
    found = summed / cv2.merge([divisor, divisor])
    share = np.clip(weight / FULL_WEIGHT, 0, 1)
    if share.min() == 1 or min(weight.shape) < 4:
        return found
    size = (-(-weight.shape[1] // 2), -(-weight.shape[0] // 2))
    small = cv2.resize(np.dstack([summed, weight]), size, interpolation=cv2.INTER_AREA)
    around = cv2.resize(_filled(small[..., :2], small[..., 2]), weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return around + cv2.merge([share, share]) * (found - around)
