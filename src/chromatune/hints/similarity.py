"""Which cells of a photo look alike to the photo encoder: a stroke on one sleeve is found by the other."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

STRIDES = {8: 1.0, 16: 1.0, 32: 0.5}  # of the features, and what each counts: texture, parts, things
CELL_PX = 4  # of the grid, along a side
LEAST_SIMILARITY = 0.05  # cosine at and below which two cells have nothing to do with each other
LUMA_SIGMA = 0.1  # difference of luma, 0..1
SOFT_WEIGHT = 2e-4  # of a certain likeness, over that of a hint: where a hint reaches along the luma, that decides
CHANNELS_AT_ONCE = 4  # OpenCV averages areas of no more


class Similarity:
    """Cells of 4 × 4 pixels of the grid, and how alike each two of them are."""

    def __init__(self, features: Mapping[int, np.ndarray], luma: np.ndarray) -> None:
        """Compares.

        Args:
            features: of the photo encoder: stride ⇒ (C, h, w) float32.
            luma: (h, w) float32, 0..1, at the grid's size.
        """
        self._grid = luma.shape
        self._size = cells_of(luma.shape)
        vectors = cell_features(features, self._size, centerd=True)
        likeness = np.clip((vectors @ vectors.T - LEAST_SIMILARITY) / (1 - LEAST_SIMILARITY), 0, 1) ** 2
        cells = self._averaged(luma).ravel()
        likeness *= np.exp(-((cells[:, None] - cells) ** 2) / (2 * LUMA_SIGMA**2))
        self._likeness = likeness

    def carry(self, said: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What hints say, for the cells that look like those with hints: means of the hints', and a soft weight.

        Args:
            said: (h, w, K) float32, at the grid's size; counts only where there is weight.
            weight: (h, w) float32, 0..1.

        Returns:
            (h, w, K) and (h, w) float32, the weight in terms of a hint's.
        """
        share = self._averaged(weight).ravel()
        hinted = np.flatnonzero(share)
        summed = self._averaged(said * weight[..., None]).reshape(share.size, -1)[hinted]  # mean times share
        likeness = self._likeness[:, hinted]
        certain = likeness @ share[hinted]
        means = (likeness @ summed) / np.maximum(certain, 1e-9)[:, None]
        return self._spread(means), SOFT_WEIGHT * self._spread(np.minimum(certain, 1)[:, None])[..., 0]

    def _averaged(self, plane: np.ndarray) -> np.ndarray:
        return cv2.resize(plane, self._size[::-1], interpolation=cv2.INTER_AREA)

    def _spread(self, cells: np.ndarray) -> np.ndarray:
        """(cells, K) -> (h, w, K), linear between the cells' centers."""
        planes = cells.reshape(*self._size, -1).astype(np.float32)
        found = cv2.resize(planes, self._grid[::-1], interpolation=cv2.INTER_LINEAR)
        return found.reshape(*self._grid, -1)


def cells_of(grid: tuple[int, ...]) -> tuple[int, int]:
    """Height and width in cells of a grid."""
    return max(1, round(grid[0] / CELL_PX)), max(1, round(grid[1] / CELL_PX))


def cell_features(features: Mapping[int, np.ndarray], size: tuple[int, ...], *, centerd: bool = False) -> np.ndarray:
    """Features of each cell, all strides in one: (cells, C) float32 of length 1.

    Args:
        features: stride ⇒ (C, h, w) float32.
        size: height and width in cells.
        centerd: the picture's mean is taken away first: what tells its cells apart remains.
    """
    found = []
    for stride, share in STRIDES.items():
        planes = np.moveaxis(features[stride], 0, -1)  # (h, w, C)
        if centerd:
            planes = planes - planes.mean(axis=(0, 1))
        planes = planes / np.maximum(np.linalg.norm(planes, axis=-1, keepdims=True), 1e-6)
        found.append(share * _resized(planes, size))
    vectors = np.concatenate(found, axis=-1).reshape(size[0] * size[1], -1)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6), np.float32)


def _resized(planes: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    method = cv2.INTER_LINEAR if planes.shape[0] <= size[0] else cv2.INTER_AREA
    most = CHANNELS_AT_ONCE if method == cv2.INTER_LINEAR else 4  # as many as OpenCV averages over areas
    groups = [
        np.ascontiguousarray(planes[..., first : first + most], np.float32)
        for first in range(0, planes.shape[-1], most)
    ]
    resized = [cv2.resize(group, size[::-1], interpolation=method).reshape(*size, -1) for group in groups]
    return np.concatenate(resized, axis=-1)
