"""Dense flow between two gray pictures, its confidence, and pictures warped along it."""

from __future__ import annotations

import threading

import cv2
import numpy as np

CONFIDENT_PX = 0.5
CONFIDENT_SHARE = 0.05  # of the flow's length, by which the error may be larger
SMALLEST_PX = 16  # pictures with a shorter side have no flow

_thread = threading.local()


def flow_between(first: np.ndarray, second: np.ndarray, *, fine: bool = False) -> np.ndarray:
    """Return where each pixel of the first picture lies in the second: (h, w, 2) float32, (x, y) steps in pixels.

    Dense inverse search (Kroeger et al. 2016, arXiv 1603.03590), whose patches are compared without their means, so
    that a change of exposure is no motion.

    Args:
        first: (h, w) uint8.
        second: the same.
        fine: more exact, at four times the cost.
    """
    if min(first.shape) < SMALLEST_PX:
        return np.zeros((*first.shape, 2), np.float32)
    # They keep buffers, so that threads cannot share them; and a small picture lowers the scale of all later searches
    searches: dict[tuple[int, ...], cv2.DISOpticalFlow] = _thread.__dict__.setdefault("searches", {})
    kind = (*first.shape, int(fine))
    if kind not in searches:
        preset = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM if fine else cv2.DISOPTICAL_FLOW_PRESET_FAST
        searches[kind] = cv2.DISOpticalFlow.create(preset)
        # Of small pictures the first search differs a little from all later ones, which would make it count which
        # thread has come first
        searches[kind].calc(first, second, None)  # type: ignore[call-overload]
    return np.asarray(searches[kind].calc(first, second, None))  # type: ignore[call-overload]


def warp(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Return the picture as the flow's first picture sees it: at each pixel, what lies where the flow points, bilinear.

    Args:
        picture: (h, w) or (h, w, C) float32, of the flow's second picture.
        flow: see `flow_between`.
    """
    columns, rows = _endpoints(flow)
    return cv2.remap(picture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def flow_confidence(forward: np.ndarray, backward: np.ndarray, error_px: float = CONFIDENT_PX) -> np.ndarray:
    """Return the confidence of a flow, (h, w) float32 0..1: high where the backward flow returns, inside the picture.

    Args:
        forward: from the first picture to the second.
        backward: from the second to the first.
        error_px: of the flow there and back, at which confidence is exp(-1/2); more where the flow is long.
    """
    height, width = forward.shape[:2]
    columns, rows = _endpoints(forward)
    returned = forward + cv2.remap(backward, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    error = cv2.magnitude(returned[..., 0], returned[..., 1])
    length = cv2.magnitude(forward[..., 0], forward[..., 1])
    found = np.exp(-((error / (error_px + CONFIDENT_SHARE * length)) ** 2) / 2)
    for position, side in ((columns, width), (rows, height)):
        outside = np.maximum(-position, position - np.float32(side - 1))
        found *= np.clip(1 - outside, 0, 1)
    return np.asarray(found, np.float32)


def _endpoints(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows, in pixels of the second picture, to which the flow points: (h, w) float32 each."""
    height, width = flow.shape[:2]
    columns = np.arange(width, dtype=np.float32)[None, :] + flow[..., 0]
    return columns, np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
