"""Motion between two gray pictures: dense flow, what it explains, and pictures carried along it."""

from __future__ import annotations

import threading

import cv2
import numpy as np

TRUSTED_PX = 0.5  # flow that comes back within so many pixels is trusted; more with the flow's own length
TRUSTED_SHARE = 0.05
LUMA_SIGMA = 0.06  # difference of carried luma, 0..1, beyond grain and exposure: it is another thing

SMALLEST_PX = 16  # pictures with a shorter side have no flow

_own = threading.local()


def flow_between(first: np.ndarray, second: np.ndarray, *, fine: bool = False) -> np.ndarray:
    """Where each pixel of the first picture lies in the second: (h, w, 2) float32, (x, y) steps in pixels.

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
    searches: dict[tuple[int, ...], cv2.DISOpticalFlow] = _own.__dict__.setdefault("searches", {})
    kind = (*first.shape, int(fine))
    if kind not in searches:
        preset = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM if fine else cv2.DISOPTICAL_FLOW_PRESET_FAST
        searches[kind] = cv2.DISOpticalFlow.create(preset)
    return np.asarray(searches[kind].calc(first, second, None))  # type: ignore[call-overload]


def carried(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The picture as the flow's first picture sees it: at each pixel, what lies where the flow points, bilinear.

    Args:
        picture: (h, w) or (h, w, C) float32, of the flow's second picture.
        flow: see `flow_between`.
    """
    columns, rows = _targets(flow)
    return cv2.remap(picture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def trust(there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """How far the flow is to be believed, (h, w) float32 0..1: the way back leads home, and within the picture.

    Args:
        there: from the first picture to the second.
        back: from the second to the first.
    """
    height, width = there.shape[:2]
    columns, rows = _targets(there)
    back = cv2.remap(back, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    home = there + back
    error = cv2.magnitude(home[..., 0], home[..., 1])
    length = cv2.magnitude(there[..., 0], there[..., 1])
    found = np.exp(-((error / (TRUSTED_PX + TRUSTED_SHARE * length)) ** 2) / 2)
    for at, side in ((columns, width), (rows, height)):
        outside = np.maximum(-at, at - np.float32(side - 1))
        found *= np.clip(1 - outside, 0, 1)
    return np.asarray(found, np.float32)


def _targets(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows, in pixels of the second picture, to which the flow points: (h, w) float32 each."""
    height, width = flow.shape[:2]
    columns = np.arange(width, dtype=np.float32)[None, :] + flow[..., 0]
    return columns, np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]


def likeness(luma: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """How far two lumas are of the same thing, (h, w) float32 0..1, apart from grain and exposure.

    Args:
        luma: (h, w) float32, 0..1.
        seen: what was carried there.
    """
    difference = cv2.GaussianBlur(luma - seen, (0, 0), 1.5)
    return np.asarray(np.exp(-((difference / LUMA_SIGMA) ** 2) / 2))
