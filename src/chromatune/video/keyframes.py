"""The frames of a shot that get colors first: evenly spread, without grain, dirt and flicker."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from chromatune.color import resize
from chromatune.video.flow import EXPOSURE_FRAMES, exposure_change, median_along_flow, smoothed_exposure

KEYFRAME_STEP = 14  # frames from one keyframe to the next, at most
STABILIZING_FRAMES = 2  # on either side of a keyframe


@dataclass(frozen=True, eq=False)
class Keyframe:
    """A frame that goes through the model.

    Attributes:
        offset: its position in the shot.
        stabilized: (H, W) uint8 at the model's size: without grain, dirt and flicker.
        luma: (h, w) uint8, the same at the grid, for flow.
        exposure: smoothed log exposure that it was brought to.
    """

    offset: int
    stabilized: np.ndarray
    luma: np.ndarray
    exposure: float


def keyframe_offsets(count: int, hinted: Iterable[int] = ()) -> list[int]:
    """Return offsets of the keyframes of a shot of `count` frames: the middles of equal parts, and hinted frames."""
    parts = -(-count // KEYFRAME_STEP)
    evenly = {(2 * part + 1) * count // (2 * parts) for part in range(parts)}
    return sorted(evenly | set(hinted))


def find_keyframes(
    grays: Iterable[np.ndarray], offsets: Sequence[int], grid: tuple[int, int], exposures: list[float]
) -> Iterator[Keyframe]:
    """Yield the keyframes of a shot while its frames are read.

    Args:
        grays: of the shot's frames, (H, W) uint8 at the model's size; about twenty are held at a time.
        offsets: see `keyframe_offsets`.
        grid: height and width.
        exposures: gets a log exposure for each frame, the sum of `exposure_change` from 0 on.
    """
    held: deque[tuple[np.ndarray, np.ndarray]] = deque()  # grays at the model's size, and at the grid
    first, waiting = 0, deque(offsets)

    def make() -> Keyframe:
        offset = waiting.popleft()
        near = range(max(first, offset - STABILIZING_FRAMES), min(first + len(held), offset + STABILIZING_FRAMES + 1))
        exposure = smoothed_exposure(exposures, offset)
        stabilized = _stabilized(
            [held[index - first] for index in near], near.index(offset), exposures[near.start : near.stop], exposure
        )
        return Keyframe(offset, stabilized, resize(stabilized, *grid), exposure)

    for index, gray in enumerate(grays):
        small = resize(gray, *grid)
        change = exposure_change(held[-1][1], small) if held else 0.0
        exposures.append(exposures[-1] + change if exposures else 0.0)
        held.append((gray, small))
        while waiting and index >= waiting[0] + EXPOSURE_FRAMES:
            yield make()
        while held and (not waiting or first < waiting[0] - STABILIZING_FRAMES) and len(held) > 1:
            held.popleft()
            first += 1
    while waiting and exposures:
        yield make()


def _stabilized(
    frames: Sequence[tuple[np.ndarray, np.ndarray]], own: int, exposures: Sequence[float], exposure: float
) -> np.ndarray:
    """The median of a frame and its neighbors, warped to it and brought to one exposure."""
    gains = [float(np.exp(np.clip(exposure - each, -1, 1))) for each in exposures]
    order = [own, *(index for index in range(len(frames)) if index != own)]
    median = median_along_flow(
        [frames[index][0].astype(np.float32) * (gains[index] / 255) for index in order],
        [frames[index][1] for index in order],
    )
    return np.rint(255 * np.clip(median, 0, 1)).astype(np.uint8)
