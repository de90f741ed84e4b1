"""What looks alike to the photo encoder: cells of one photo, and cells of a photo and of a reference photo in color.

A stroke on one sleeve is found by the other; where a reference shows what the photo shows, its colors are taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import cv2
import numpy as np

from chromatune.color import grid_size, relative_chroma, resize
from chromatune.errors import PhotoError
from chromatune.images import Photo

MAX_REFERENCES = 8  # that a stranger may send with one photo
STRIDES = {8: 1.0, 16: 1.0, 32: 0.5}  # of the features, and what each counts: texture, parts, things
CELL_PX = 4  # of the grid, along a side
LEAST_SIMILARITY = 0.05  # cosine at and below which two cells have nothing to do with each other
SIMILAR_LUMA_SIGMA = 0.1  # difference of luma, 0..1, of cells of one photo
SOFT_WEIGHT = 2e-4  # of a certain likeness, over that of a hint: where a hint reaches along the luma, that decides
CHANNELS_AT_ONCE = 4  # OpenCV averages areas of no more channels
LEAST_COSINE = 0.7  # of a match: cells of unrelated photos have 0.6, of two views of one scene 0.8
MATCH_LUMA_SIGMA = 0.15  # difference of luma, 0..1, that a match may have
FIRST_SHARE, FULL_SHARE = 0.04, 0.1  # of the cells, each counted by its certainty: below, above; see `matches`


class Similarity:
    """Cells of 4 × 4 pixels of the grid, and how alike each two of them are."""

    def __init__(self, features: Mapping[int, np.ndarray], luma: np.ndarray) -> None:
        """Compare each cell with each other.

        Args:
            features: of the photo encoder: stride ⇒ (C, h, w) float32.
            luma: (h, w) float32, 0..1, at the grid's size.
        """
        self._grid = luma.shape
        self._size = cells_of(luma.shape)
        vectors = cell_features(features, self._size, centered=True)
        likeness = np.clip((vectors @ vectors.T - LEAST_SIMILARITY) / (1 - LEAST_SIMILARITY), 0, 1) ** 2
        cells = self._averaged(luma).ravel()
        likeness *= np.exp(-((cells[:, None] - cells) ** 2) / (2 * SIMILAR_LUMA_SIGMA**2))
        self._likeness = likeness

    def carry(self, values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Carry hints' values to the cells that look like those with hints: means of the values, and a soft weight.

        Args:
            values: (h, w, K) float32, at the grid's size; counts only where there is weight.
            weight: (h, w) float32, 0..1.

        Returns:
            (h, w, K) and (h, w) float32, the weight in terms of a hint's.
        """
        share = self._averaged(weight).ravel()
        hinted = np.flatnonzero(share)
        summed = self._averaged(values * weight[..., None]).reshape(share.size, -1)[hinted]  # mean times share
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


@dataclass(frozen=True, eq=False)
class Reference:
    """A photo in color as cells with features, color and luma, as it is and mirrored.

    Attributes:
        vectors: (N, C) float32, of length 1.
        relative: (N, 2) float32, chroma over luma.
        luma: (N,) float32, 0..1.
    """

    vectors: np.ndarray
    relative: np.ndarray
    luma: np.ndarray


def check_reference(photo: Photo) -> np.ndarray:
    """Return the photo's own colors, (H, W, 3).

    Raises:
        PhotoError: it has none.
    """
    if photo.rgb is None:
        raise PhotoError(f"{photo.name} has no color; a reference is a photo in color")
    return photo.rgb


def can_compare(features: Mapping[int, np.ndarray] | None) -> TypeGuard[Mapping[int, np.ndarray]]:
    """Return whether there are features, and of all strides that cells are compared by."""
    return features is not None and features.keys() >= STRIDES.keys()


def make_reference(photo: Photo, views: Sequence[Mapping[int, np.ndarray]]) -> Reference:
    """Return a photo in color as a reference.

    Args:
        photo: in color, see `check_reference`.
        views: features of its gray, and of its gray mirrored, see `can_compare`: stride ⇒ (C, h, w) float32 each. To
            the encoder, what looks to the left and what looks to the right differ.

    Raises:
        PhotoError: it is gray.
    """
    size = cells_of(grid_size(photo.height_px, photo.width_px))
    rgb = resize(check_reference(photo), *size).reshape(*size, 3) / photo.max_value
    relative, luma = relative_chroma(rgb), resize(photo.gray, *size).reshape(size).astype(np.float32) / photo.max_value
    return Reference(
        np.concatenate([cell_features(view, size) for view in views]),
        np.concatenate([relative.reshape(-1, 2), relative[:, ::-1].reshape(-1, 2)]),
        np.concatenate([luma.ravel(), luma[:, ::-1].ravel()]),
    )


def matches(
    references: Sequence[Reference], features: Mapping[int, np.ndarray], luma: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the references' colors where they show the same as the photo, and how certain that is.

    A cell takes the color of the reference's cell that it is most like, where that is most like it in turn. Chance
    matches are few: a reference counts from a small share of certain cells on, and not at all below it.

    Args:
        references: one or more.
        features: of the photo, stride ⇒ (C, h, w) float32.
        luma: (h, w) float32, 0..1, of the photo at the grid's size.

    Returns:
        (h, w, 2) float32 relative chroma, and (h, w) float32 certainty, 0..1.
    """
    size = cells_of(luma.shape)
    vectors = cell_features(features, size)
    cells = resize(luma, *size).ravel()
    summed, most = np.zeros((cells.size, 2), np.float32), np.zeros(cells.size, np.float32)
    total = np.full(cells.size, 1e-9, np.float32)
    for reference in references:
        certainty, relative = _match(reference, vectors, cells)
        summed += certainty[:, None] * relative
        total += certainty
        most = np.maximum(most, certainty)
    return _enlarged(summed / total[:, None], size, luma.shape), _enlarged(most, size, luma.shape)[..., 0]


def cells_of(grid: tuple[int, ...]) -> tuple[int, int]:
    """Return a grid's height and width in cells."""
    return max(1, round(grid[0] / CELL_PX)), max(1, round(grid[1] / CELL_PX))


def cell_features(features: Mapping[int, np.ndarray], size: tuple[int, ...], *, centered: bool = False) -> np.ndarray:
    """Return the features of each cell, all strides in one: (cells, C) float32 of length 1.

    Args:
        features: stride ⇒ (C, h, w) float32.
        size: height and width in cells.
        centered: the picture's mean is subtracted first: what distinguishes its cells remains.
    """
    found = []
    for stride, share in STRIDES.items():
        planes = np.moveaxis(features[stride], 0, -1)  # (h, w, C)
        if centered:
            planes = planes - planes.mean(axis=(0, 1))
        planes = planes / np.maximum(np.linalg.norm(planes, axis=-1, keepdims=True), 1e-6)
        found.append(share * _resized(planes, size))
    vectors = np.concatenate(found, axis=-1).reshape(size[0] * size[1], -1)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6), np.float32)


def _match(reference: Reference, vectors: np.ndarray, luma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cosines = vectors @ reference.vectors.T
    best = cosines.argmax(axis=1)
    mutual = cosines.argmax(axis=0)[best] == np.arange(len(vectors))
    certainty = np.clip((cosines.max(axis=1) - LEAST_COSINE) / (1 - LEAST_COSINE), 0, 1) * mutual
    certainty *= np.exp(-((reference.luma[best] - luma) ** 2) / (2 * MATCH_LUMA_SIGMA**2))
    known = np.clip((certainty.mean() - FIRST_SHARE) / (FULL_SHARE - FIRST_SHARE), 0, 1)
    return (known * certainty).astype(np.float32), reference.relative[best]


def _enlarged(cells: np.ndarray, size: tuple[int, int], grid: tuple[int, ...]) -> np.ndarray:
    """(cells, K) or (cells,) -> (h, w, K): each cell's value at its pixels; its neighbors may have no match."""
    planes = np.ascontiguousarray(cells.reshape(*size, -1))
    return cv2.resize(planes, (grid[1], grid[0]), interpolation=cv2.INTER_NEAREST).reshape(grid[0], grid[1], -1)


def _resized(planes: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    method = cv2.INTER_LINEAR if planes.shape[0] <= size[0] else cv2.INTER_AREA
    groups = [
        np.ascontiguousarray(planes[..., first : first + CHANNELS_AT_ONCE], np.float32)
        for first in range(0, planes.shape[-1], CHANNELS_AT_ONCE)
    ]
    resized = [cv2.resize(group, size[::-1], interpolation=method).reshape(*size, -1) for group in groups]
    return np.concatenate(resized, axis=-1)
