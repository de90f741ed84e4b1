"""The frames of a shot that get colors first: evenly spread, without grain, dirt and flicker."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from chromatune.color import resize
from chromatune.files import prefetch
from chromatune.video.flow import EXPOSURE_FRAMES, Sized, exposure_change, smoothed_exposure, stabilize

KEYFRAME_STEP = 14  # frames from one keyframe to the next, at most
STABILIZING_FRAMES = 2  # on either side of a keyframe
MEASURED_AHEAD = 8  # frames whose exposure is measured at the same time


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
    grays: Iterable[np.ndarray], offsets: Sequence[int], grid: tuple[int, int], exposures: list[float], pool: Executor
) -> Generator[Keyframe]:
    """Yield the keyframes of a shot while its frames are read.

    Args:
        grays: of the shot's frames, (H, W) uint8 at the model's size; about thirty are held at a time.
        offsets: see `keyframe_offsets`.
        grid: height and width.
        exposures: gets a log exposure for each frame, the sum of `exposure_change` from 0 on.
        pool: measures flow; its threads do nothing else, so that it never waits for the model.
    """
    held: deque[Sized] = deque()
    first, waiting = 0, deque(offsets)

    def make() -> Keyframe:
        offset = waiting.popleft()
        near = range(max(first, offset - STABILIZING_FRAMES), min(first + len(held), offset + STABILIZING_FRAMES + 1))
        exposure = smoothed_exposure(exposures, offset)
        frames = [held[index - first] for index in near]
        stabilized = stabilize(frames, near.index(offset), exposures[near.start : near.stop], exposure, pool)
        return Keyframe(offset, stabilized, resize(stabilized, *grid), exposure)

    def measured(pair: tuple[Sized | None, Sized]) -> tuple[Sized, float]:
        """A frame, and its change of exposure from the one before."""
        before, frame = pair
        return frame, 0.0 if before is None else exposure_change(before[1], frame[1])

    def pairs() -> Iterator[tuple[Sized | None, Sized]]:
        before: Sized | None = None
        for gray in grays:
            frame = gray, resize(gray, *grid)
            yield before, frame
            before = frame

    with closing(prefetch(pool, measured, pairs(), MEASURED_AHEAD)) as frames:
        for index, (frame, change) in enumerate(frames):
            exposures.append(exposures[-1] + change if exposures else 0.0)
            held.append(frame)
            while waiting and index >= waiting[0] + EXPOSURE_FRAMES:
                yield make()
            while held and (not waiting or first < waiting[0] - STABILIZING_FRAMES) and len(held) > 1:
                held.popleft()
                first += 1
    while waiting and exposures:
        yield make()
