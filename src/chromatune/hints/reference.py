"""A reference photo: where it shows what the photo shows, as the photo encoder sees it, its colors are taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from chromatune.color import grid_size, relative_chroma, resize
from chromatune.errors import PhotoError
from chromatune.hints.similarity import cell_features, cells_of
from chromatune.images import Photo

LEAST_COSINE = 0.7  # of a match: cells of unrelated photos have 0.6, of two views of one scene 0.8
LUMA_SIGMA = 0.15  # difference of luma, 0..1, that a match may have
FIRST_SHARE, FULL_SHARE = 0.04, 0.1  # of the cells, each counted by its certainty: below, above; see `matches`


@dataclass(frozen=True, eq=False)
class Reference:
    """What a reference photo has in each cell, as it is and mirrored.

    Attributes:
        vectors: (N, C) float32, of length 1.
        relative: (N, 2) float32, chroma over luma.
        luma: (N,) float32, 0..1.
    """

    vectors: np.ndarray
    relative: np.ndarray
    luma: np.ndarray


def check_reference(photo: Photo) -> np.ndarray:
    """The photo's own colors, (H, W, 3).

    Raises:
        PhotoError: it has none.
    """
    if photo.rgb is None:
        raise PhotoError(f"{photo.name} has no color; a reference is a photo in color")
    return photo.rgb


def make_reference(photo: Photo, views: Sequence[Mapping[int, np.ndarray]]) -> Reference:
    """A photo in color as a reference.

    Args:
        photo: in color, see `check_reference`.
        views: features of its gray, and of its gray mirrored: stride ⇒ (C, h, w) float32 each. To the encoder, what
            looks to the left and what looks to the right differ.

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
    """Colors of the references where they show the same as the photo, and how certain that is.

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


def _match(reference: Reference, vectors: np.ndarray, luma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cosines = vectors @ reference.vectors.T
    best = cosines.argmax(axis=1)
    mutual = cosines.argmax(axis=0)[best] == np.arange(len(vectors))
    certainty = np.clip((cosines.max(axis=1) - LEAST_COSINE) / (1 - LEAST_COSINE), 0, 1) * mutual
    certainty *= np.exp(-((reference.luma[best] - luma) ** 2) / (2 * LUMA_SIGMA**2))
    known = np.clip((certainty.mean() - FIRST_SHARE) / (FULL_SHARE - FIRST_SHARE), 0, 1)
    return (known * certainty).astype(np.float32), reference.relative[best]


def _enlarged(cells: np.ndarray, size: tuple[int, int], grid: tuple[int, ...]) -> np.ndarray:
    """(cells, K) or (cells,) -> (h, w, K): each cell's value at its pixels; its neighbors may have no match."""
    planes = np.ascontiguousarray(cells.reshape(*size, -1))
    return cv2.resize(planes, (grid[1], grid[0]), interpolation=cv2.INTER_NEAREST).reshape(grid[0], grid[1], -1)
