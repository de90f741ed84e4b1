"""What studies of a model on listed photos share: arguments, photos as squares, results, a sheet of pictures."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from rich.progress import track

from chromatune import ColorizeOptions, Colorizer, PhotoError
from chromatune.data import read_rgb
from chromatune.evaluation import center_square
from chromatune.files import atomic_write
from chromatune.reports import png_of

SIDE_PX = 256
T = TypeVar("T")


def make_parser(
    description: str | None, *, limit: int, sheet: str, model: str | None = "mini"
) -> argparse.ArgumentParser:
    """A parser with FOLDER, --keys, --limit, --model and --sheet.

    Args:
        description: the study's docstring.
        limit: default of --limit.
        sheet: what the sheet shows, for the help.
        model: default of --model; None for a study without one.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--keys", type=Path, required=True, help="photos, one path below FOLDER a line")
    parser.add_argument("--limit", type=int, default=limit, help="at most this many, evenly spread over the list")
    if model is not None:
        parser.add_argument("--model", default=model)
    parser.add_argument("--sheet", type=Path, help=f"PNG: {sheet}")
    return parser


def read_photos(arguments: argparse.Namespace) -> list[np.ndarray]:
    """The chosen photos as they are, (H, W, 3) uint8 each."""
    try:
        keys = arguments.keys.read_text(encoding="utf-8").splitlines()
        chosen = np.unique(np.linspace(0, len(keys) - 1, min(arguments.limit, len(keys))).astype(int))
        return [read_rgb(arguments.folder / keys[i], keys[i]) for i in chosen]
    except (OSError, ValueError, PhotoError) as error:
        raise SystemExit(f"the photos of {arguments.keys} cannot be read: {error}") from None


def read_squares(arguments: argparse.Namespace) -> list[np.ndarray]:
    """Their center squares, (SIDE_PX, SIDE_PX, 3) uint8 each."""
    return [center_square(photo, SIDE_PX) for photo in read_photos(arguments)]


def colorized(
    colorizer: Colorizer, photos: Sequence[np.ndarray], options: ColorizeOptions, name: str
) -> list[np.ndarray]:
    """The photos in color, (H, W, 3) uint8 each, with a bar called `name`."""
    return [result.rgb for result in succeeded(colorizer.colorize_many(photos, options), name, len(photos))]


def succeeded(outcomes: Iterable[T | PhotoError], name: str, total: int) -> Iterator[T]:
    """The outcomes, with a bar; ends the study at the first that failed: means over the others would not compare."""
    for outcome in track(outcomes, name, total=total):
        if isinstance(outcome, PhotoError):
            raise SystemExit(str(outcome))
        yield outcome


def write_sheet(path: Path, rows: Sequence[Sequence[np.ndarray]], scale: float) -> None:
    """A PNG with rows of squares of one size, (H, W, 3) uint8 each, made smaller."""
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    atomic_write(path, png_of(cv2.resize(sheet, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)))
