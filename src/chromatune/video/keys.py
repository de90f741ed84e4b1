"""Key frames of a shot, steadied along the motion: what the model is asked to color."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from chromatune.color import resize
from chromatune.video.motion import carried, flow_between, trust

KEY_STEP = 14  # frames from one key to the next, at most
NEIGHBORS = 2  # frames on either side that steady a key
EXPOSURE_FRAMES = 8  # on either side, over which exposure is evened
DARK, BRIGHT = 0.06, 0.92  # lumas between which exposure is measured
MOST_EXPOSURE = 0.35  # change of log exposure from one frame to the next that is believed


@dataclass(frozen=True, eq=False)
class Key:
    """A key frame.

    Attributes:
        offset: its place in the shot.
        steadied: (H, W) uint8 at the model's size: grain, dirt and flicker taken away.
        luma: (h, w) uint8, the same at the grid, for flow.
        exposure: log of the exposure that it was brought to; see `exposures_of`.
    """

    offset: int
    steadied: np.ndarray
    luma: np.ndarray
    exposure: float


def key_offsets(count: int, wanted: Iterable[int] = ()) -> list[int]:
    """Offsets of the keys of a shot of `count` frames: in the middle of equal parts, and those wanted."""
    parts = -(-count // KEY_STEP)
    evenly = {(2 * part + 1) * count // (2 * parts) for part in range(parts)}
    return sorted(evenly | set(wanted))


def find_keys(
    grays: Iterable[np.ndarray], offsets: Sequence[int], grid: tuple[int, int], exposures: list[float]
) -> Iterator[Key]:
    """The keys of a shot, one after the other, while its frames are read.

    Args:
        grays: of the shot's frames, (H, W) uint8 at the model's size; about twenty are held at a time.
        offsets: see `key_offsets`.
        grid: height and width.
        exposures: gets a log exposure for each frame: see `exposure_step`; their sum, from 0 on.
    """
    held: deque[tuple[np.ndarray, np.ndarray]] = deque()  # grays at the model's size, and at the grid
    first, waiting = 0, deque(offsets)

    def make() -> Key:
        offset = waiting.popleft()
        near = range(max(first, offset - NEIGHBORS), min(first + len(held), offset + NEIGHBORS + 1))
        level = evened(exposures, offset)
        steadied = _steadied(
            [held[index - first] for index in near], near.index(offset), exposures[near.start :], level
        )
        return Key(offset, steadied, resize(steadied, *grid), level)

    for index, gray in enumerate(grays):
        small = resize(gray, *grid)
        step = exposure_step(held[-1][1], small) if held else 0.0
        exposures.append(exposures[-1] + step if exposures else 0.0)
        held.append((gray, small))
        while waiting and index >= waiting[0] + EXPOSURE_FRAMES:
            yield make()
        while held and (not waiting or first < waiting[0] - NEIGHBORS) and len(held) > 1:
            held.popleft()
            first += 1
    while waiting and exposures:
        yield make()


def exposure_step(before: np.ndarray, after: np.ndarray) -> float:
    """Change of log exposure from one frame to the next, along the motion, -0.35..0.35.

    Args:
        before: (h, w) uint8.
        after: the same.
    """
    seen = carried(before.astype(np.float32), flow_between(after, before)) / 255
    luma = after.astype(np.float32) / 255
    usable = (np.minimum(seen, luma) > DARK) & (np.maximum(seen, luma) < BRIGHT)
    if usable.mean() < 0.05:
        return 0.0
    return float(np.clip(np.median(np.log(luma[usable] / seen[usable])), -MOST_EXPOSURE, MOST_EXPOSURE))


def evened(exposures: Sequence[float] | np.ndarray, offset: int) -> float:
    """Log exposure of a frame without its flicker: a straight line through those around it, for a fade is no flicker.

    Args:
        exposures: of a shot's frames; they may end `EXPOSURE_FRAMES` after the frame.
        offset: of the frame.
    """
    start, stop = max(0, offset - EXPOSURE_FRAMES), min(len(exposures), offset + EXPOSURE_FRAMES + 1)
    if stop - start < 3:
        return float(exposures[offset])
    places = np.arange(start, stop) - offset
    return float(np.polyval(np.polyfit(places, exposures[start:stop], 1), 0))


def _steadied(
    frames: Sequence[tuple[np.ndarray, np.ndarray]], own: int, exposures: Sequence[float], level: float
) -> np.ndarray:
    """The median of a frame and its neighbors, carried to it and brought to one exposure."""
    gains = [float(np.exp(np.clip(level - each, -1, 1))) for each, _ in zip(exposures, frames, strict=False)]
    gray, small = frames[own]
    full = gray.astype(np.float32) * (gains[own] / 255)
    stack = [full]
    for index, (other, other_small) in enumerate(frames):
        if index == own:
            continue
        there = flow_between(small, other_small)
        believed = trust(there, flow_between(other_small, small))
        share = cv2.resize(believed, gray.shape[::-1])
        moved = carried(other.astype(np.float32) * (gains[index] / 255), enlarged_flow(there, gray.shape))
        stack.append(full + share * (moved - full))
    return np.rint(255 * np.clip(np.median(stack, axis=0), 0, 1)).astype(np.uint8)


def enlarged_flow(flow: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A flow at another size of the pictures, height and width, in pixels of that size."""
    height, width = flow.shape[:2]
    scale = np.array([size[1] / width, size[0] / height], np.float32)
    return cv2.resize(flow, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) * scale
