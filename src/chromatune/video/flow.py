"""Motion and exposure between frames: flow that ends where lumas differ, and exposure without flicker."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from itertools import pairwise

import cv2
import numpy as np

from chromatune.color import flow_between, flow_confidence, warp

LUMA_SIGMA = 0.06  # difference of warped luma, 0..1, beyond grain and exposure: it is another thing
DARK, BRIGHT = 0.06, 0.92  # lumas between which exposure is measured
MOST_EXPOSURE_CHANGE = 0.35  # of log exposure from one frame to the next; more is a cut or a flash
EXPOSURE_FRAMES = 8  # on either side, over which exposure is smoothed
MOST_GAIN = 1.5  # log exposure between two frames

Sized = tuple[np.ndarray, np.ndarray]  # a gray at the model's size, and at the grid
NeighborFlows = dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]  # (from, to) ⇒ flow, confidence


def matched_flow(
    luma: np.ndarray, exposure: float, other: np.ndarray, other_exposure: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the flow from a frame to another and its confidence, (h, w) 0..1, which is low where lumas differ.

    Args:
        luma: (h, w) uint8 of the frame.
        exposure: its log exposure.
        other: (h, w) uint8 of the other.
        other_exposure: its log exposure.
    """
    flow = flow_between(luma, other)
    warped = warp(other.astype(np.float32) * (exposure_gain(exposure, other_exposure) / 255), flow)
    # Grain apart, the two lumas are of the same thing where they differ little
    difference = cv2.GaussianBlur(luma.astype(np.float32) / 255 - np.minimum(warped, 1), (0, 0), 1.5)
    similarity = np.asarray(np.exp(-((difference / LUMA_SIGMA) ** 2) / 2))
    combined = flow_confidence(flow, flow_between(other, luma)) * similarity
    return flow, cv2.GaussianBlur(combined, (0, 0), 1.5)


def neighbor_flows(lumas: Sequence[np.ndarray], exposures: Sequence[float]) -> NeighborFlows:
    """Return the flow from each keyframe to the next and to the one before, see `matched_flow`.

    Args:
        lumas: (h, w) uint8 of each keyframe.
        exposures: log exposure of each.
    """
    flows = {}
    for before, after in pairwise(range(len(lumas))):
        for here, there in ((before, after), (after, before)):
            flows[here, there] = matched_flow(lumas[here], exposures[here], lumas[there], exposures[there])
    return flows


def resized_flow(flow: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return a flow at another size of the pictures, height and width, in pixels of that size."""
    height, width = flow.shape[:2]
    scale = np.array([size[1] / width, size[0] / height], np.float32)
    return cv2.resize(flow, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) * scale


def exposure_change(before: np.ndarray, after: np.ndarray) -> float:
    """Return the change of log exposure from one frame to the next, along the motion, -0.35..0.35.

    Args:
        before: (h, w) uint8.
        after: the same.
    """
    warped = warp(before.astype(np.float32), flow_between(after, before)) / 255
    luma = after.astype(np.float32) / 255
    usable = (np.minimum(warped, luma) > DARK) & (np.maximum(warped, luma) < BRIGHT)
    if usable.mean() < 0.05:
        return 0.0
    change = np.log(np.median(luma[usable] / warped[usable]))
    return float(np.clip(change, -MOST_EXPOSURE_CHANGE, MOST_EXPOSURE_CHANGE))


def smoothed_exposure(exposures: Sequence[float] | np.ndarray, offset: int) -> float:
    """Return a frame's log exposure without its flicker: by a line through those around it, since a fade is no flicker.

    Args:
        exposures: of a shot's frames; they may end `EXPOSURE_FRAMES` after the frame.
        offset: of the frame.
    """
    start, stop = max(0, offset - EXPOSURE_FRAMES), min(len(exposures), offset + EXPOSURE_FRAMES + 1)
    if stop - start < 3:
        return float(exposures[offset])
    positions = np.arange(start, stop) - offset
    return float(np.polyval(np.polyfit(positions, exposures[start:stop], 1), 0))


def exposure_gain(exposure: float, other: float) -> np.float32:
    """Return the factor that brings what has one log exposure, `other`, to another."""
    return np.float32(np.exp(np.clip(exposure - other, -MOST_GAIN, MOST_GAIN)))


def stabilize(
    frames: Sequence[Sized], own: int, exposures: Sequence[float], exposure: float, pool: Executor
) -> np.ndarray:
    """Return a frame without grain and dirt: the median of it and its neighbors, warped to it, (H, W) uint8.

    Args:
        frames: it and its neighbors.
        own: its place among them.
        exposures: log exposure of each.
        exposure: that all are brought to.
        pool: works on the neighbors.
    """
    gains = [float(np.exp(np.clip(exposure - each, -1, 1))) for each in exposures]
    order = [own, *(index for index in range(len(frames)) if index != own)]
    found = median_along_flow(
        [frames[index][0].astype(np.float32) * (gains[index] / 255) for index in order],
        [frames[index][1] for index in order],
        pool,
    )
    return np.rint(255 * np.clip(found, 0, 1)).astype(np.uint8)


def median_along_flow(
    pictures: Sequence[np.ndarray], lumas: Sequence[np.ndarray], pool: Executor | None = None
) -> np.ndarray:
    """Return the median of pictures that are warped to the first of them, float32; where flow fails, the first counts.

    Args:
        pictures: (H, W) or (H, W, C) float32.
        lumas: (h, w) uint8 of each, at which flow is found.
        pool: works on them; None for one after another.
    """
    own = pictures[0]

    def warped(index: int) -> np.ndarray:
        flow = flow_between(lumas[0], lumas[index])
        weight = cv2.resize(flow_confidence(flow, flow_between(lumas[index], lumas[0])), own.shape[1::-1])
        weight = weight if own.ndim == 2 else weight[..., None]
        return np.asarray(own + weight * (warp(pictures[index], resized_flow(flow, own.shape)) - own))

    return median([own, *(map if pool is None else pool.map)(warped, range(1, len(pictures)))])


def median(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return the median of a few pictures, at each pixel: as NumPy's, which takes twenty times as long."""
    found, middle = list(pictures), len(pictures) // 2
    for turn in range(len(found)):  # sorted by exchanges of neighbors
        for place in range(turn % 2, len(found) - 1, 2):
            one, other = found[place : place + 2]
            found[place : place + 2] = cv2.min(one, other), cv2.max(one, other)
    return found[middle] if len(found) % 2 else (found[middle - 1] + found[middle]) / 2
