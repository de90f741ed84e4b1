"""Sample grids, `grids/step-000100.png`: what the model makes of a few held-out photos, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from chromatune.files import atomic_write
from chromatune.reports import png_of
from chromatune.training.validation_set import ValidationSet

GRID_PHOTOS = 8
GRIDS_FOLDER = "grids"


class Grid(NamedTuple):
    """Rows of a sample grid, (N, S, S, 3) uint8 sRGB each."""

    gray: np.ndarray
    raw: np.ndarray
    recomposed: np.ndarray | None  # where results were scored
    truth: np.ndarray


def grid_path(out: Path, step: int) -> Path:
    """Where the grid of the validation at `step` stands."""
    return out / GRIDS_FOLDER / f"step-{step:06d}.png"


def write_grid(path: Path, photos: ValidationSet, raw: np.ndarray, recomposed: np.ndarray | None) -> None:
    """A PNG of the first photos: input, raw result, recomposed result, truth, one row each.

    Args:
        path: of the file; its folder is made if missing.
        photos: what is validated on.
        raw: results, (N, S, S, 3) float32 sRGB 0..1.
        recomposed: with the photos' own luminance, (N, S, S, 3) uint8; no such row without it.
    """
    raw_u8 = np.rint(raw[:GRID_PHOTOS].clip(0, 1) * 255).astype(np.uint8)
    rows = [np.repeat(photos.gray_u8[:GRID_PHOTOS, ..., None], 3, axis=3), raw_u8]
    if recomposed is not None:
        rows.append(recomposed[:GRID_PHOTOS])
    rows.append(photos.truth_u8[:GRID_PHOTOS])
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, png_of(sheet))


def read_grid(path: Path, *, recomposed: bool) -> Grid | None:
    """What `write_grid` wrote, with or without a recomposed row; None where there is no such picture."""
    sheet = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    rows = 4 if recomposed else 3
    if sheet is None or sheet.shape[0] % rows or sheet.shape[1] % (sheet.shape[0] // rows):
        return None
    side = sheet.shape[0] // rows
    squares = sheet[..., ::-1].reshape(rows, side, -1, side, 3).swapaxes(1, 2)  # rows, N, S, S, RGB
    return Grid(squares[0], squares[1], squares[2] if recomposed else None, squares[-1])
