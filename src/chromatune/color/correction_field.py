"""The correction field: corrections at the few pixels of hints, spread over the photo along equal luma.

At a grid of moderate size, x solves (L + λM + εI) x = λM d: d is the correction that is wanted where there are hints, M
the weights of the hints (diagonal), and L the Laplacian of a graph that joins each pixel with its eight neighbors, the
more strongly the more equal their luma is (Levin et al. 2004, with a leak). ε lets a correction fade with the distance.

All weights are at least 0, so x is at every pixel a mean of the d and of 0, with weights that are at least 0: between
contradicting hints there is no overshoot.

The matrix changes with the hints' pixels, and is factored again with them: at 128 x 171 pixels that takes a twentieth
of a second on one core.

The same graph smooths values that are given at every pixel (`CorrectionField.smooth`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # loading SciPy takes a third of a second, and is left to the first hint
    from scipy.sparse import csc_matrix

GRID_SHORT_SIDE_PX = 128
MAX_ASPECT = 4.0  # longer strips are squeezed: the time grows with the grid's length
LUMA_SIGMA = 0.03  # difference of luma, 0..1, at which two neighbors are joined by exp(-1/2)
LEAST_AFFINITY = 1e-4  # no pixel is cut off, such as a speck of grain in a stroke
HINT_WEIGHT = 100.0  # λ: a hint that covers a tenth of a pixel still outweighs its neighbors
LEAK = 2e-4  # ε at a reach of 1


class CorrectionField:
    """The graph of one photo, which spreads hints over it."""

    def __init__(self, luma: np.ndarray) -> None:
        """Build the graph.

        Args:
            luma: (h, w) float, 0..1, at the grid's size.
        """
        self.luma = np.asarray(luma, np.float32)
        self._laplacian = _laplacian(self.luma.astype(np.float64))

    def solve(self, correction: np.ndarray, weight: np.ndarray, *, reach: float = 1.0) -> np.ndarray:
        """Solve for the correction at every pixel.

        Args:
            correction: (h, w, K) float, d; counts only where there is weight.
            weight: (h, w) float, the diagonal of M, 0..1.
            reach: how far a hint acts, 1 by default: ε is divided by its square.

        Returns:
            (h, w, K) float32.
        """
        if not weight.any():
            return np.zeros(correction.shape, np.float32)
        weights = HINT_WEIGHT * weight.astype(np.float64).ravel()
        return self._solve(weights + LEAK / reach**2, weights, correction)

    def smooth(self, values: np.ndarray, pull: float) -> np.ndarray:
        """Smooth values along equal luma: x of (L + pull D) x = pull D values, D the diagonal of L.

        Each x is a mean of the values, with weights that are at least 0. With D, and not the same weight everywhere,
        values spread as far over texture, whose pixels are loosely joined, as over a flat wall.

        Args:
            values: (h, w, 2) float, at the grid's size.
            pull: the smaller, the further they spread: about 0.6 / √pull pixels.

        Returns:
            (h, w, 2) float32.
        """
        weights = pull * self._laplacian.diagonal()
        return self._solve(weights, weights, values)

    def _solve(self, diagonal: np.ndarray, weights: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return x of (L + diagonal) x = weights · values: (h, w, K) float32."""
        from scipy.sparse import diags_array
        from scipy.sparse.linalg import splu

        matrix = self._laplacian + diags_array(diagonal, format="csc")
        # Symmetric and diagonally dominant: no pivots are needed, and the ordering is that of the graph
        factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0, options={"SymmetricMode": True})
        found = factors.solve(weights[:, None] * values.reshape(len(weights), -1).astype(np.float64))
        return np.asarray(found.reshape(values.shape), np.float32)


def grid_size(height_px: int, width_px: int) -> tuple[int, int]:
    """Return height and width of the grid of a photo: its aspect up to `MAX_ASPECT`, and no more pixels than it has."""
    short_px, long_px = sorted((height_px, width_px))
    short = min(GRID_SHORT_SIDE_PX, short_px)
    long = min(long_px, round(short * min(MAX_ASPECT, long_px / short_px)))
    return (short, long) if height_px <= width_px else (long, short)


def upsample_field(field: np.ndarray, luma: np.ndarray, fine_luma: np.ndarray) -> np.ndarray:
    """Upsample the field, with edges where luma has them: joint bilateral upsampling (Kopf et al. 2007).

    Each value is a mean of the nine around it, so that nothing overshoots here either.

    Args:
        field: (h, w, 2) float32.
        luma: (h, w) float32, 0..1, that it was made for.
        fine_luma: (H, W) float32, 0..1.

    Returns:
        (H, W, 2) float32.
    """
    height, width = fine_luma.shape
    (rows, row_share), (columns, column_share) = (
        _neighbors(fine, coarse) for fine, coarse in zip(fine_luma.shape, luma.shape, strict=True)
    )
    total = np.full((height, width), 1e-12, np.float32)
    found = np.zeros((height, width, 2), np.float32)
    for row, share in zip(rows, row_share, strict=True):
        for column, other_share in zip(columns, column_share, strict=True):
            near = luma[row][:, column]
            weight = (near - fine_luma) ** 2
            weight *= -1 / (2 * LUMA_SIGMA**2)
            np.exp(weight, out=weight)
            weight += LEAST_AFFINITY
            weight *= np.outer(share, other_share)
            total += weight
            found += weight[..., None] * field[row][:, column]
    return found / total[..., None]


def _neighbors(fine: int, coarse: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The three coarse pixels around each fine one along one side, and their shares: a quadratic B-spline's."""
    center = (np.arange(fine) + 0.5) * coarse / fine - 0.5
    nearest = np.clip(np.rint(center), 0, coarse - 1).astype(int)
    indices = [np.clip(nearest + offset, 0, coarse - 1) for offset in (-1, 0, 1)]
    off = np.clip(center - nearest, -0.5, 0.5)
    shares = [(0.5 - off) ** 2 / 2, 0.75 - off**2, (0.5 + off) ** 2 / 2]
    return indices, [share.astype(np.float32) for share in shares]


def _laplacian(luma: np.ndarray) -> csc_matrix:
    """L of the pixels in reading order, (h w, h w)."""
    from scipy.sparse import coo_matrix

    index = np.arange(luma.size).reshape(luma.shape)
    pairs = (  # of pixels: the first ones, and the second ones
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1, 1:], np.s_[1:, :-1]),
        (np.s_[:-1], np.s_[1:]),
        (np.s_[:-1, :-1], np.s_[1:, 1:]),
    )
    here = np.concatenate([index[first].ravel() for first, _ in pairs])
    there = np.concatenate([index[second].ravel() for _, second in pairs])
    difference = luma.ravel()[here] - luma.ravel()[there]
    affinity = np.exp(-(difference**2) / (2 * LUMA_SIGMA**2)) + LEAST_AFFINITY
    degree = np.bincount(here, affinity, luma.size) + np.bincount(there, affinity, luma.size)
    rows = np.concatenate([here, there, index.ravel()])
    columns = np.concatenate([there, here, index.ravel()])
    values = np.concatenate([-affinity, -affinity, degree])
    return coo_matrix((values, (rows, columns)), (luma.size, luma.size)).tocsc()
