"""Photos that a list names, as squares: what several benchmarks begin with."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from chromatune.data.items import read_rgb
from chromatune.evaluation.protocol import centre_square

SIDE_PX = 256


def add_arguments(parser: argparse.ArgumentParser, limit: int) -> None:
    """FOLDER, --keys, --limit and --model."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("--keys", type=Path, required=True, help="photos, one path below FOLDER a line")
    parser.add_argument("--limit", type=int, default=limit, help="at most this many, evenly spread over the list")
    parser.add_argument("--model", default="mini")


def read_squares(arguments: argparse.Namespace) -> list[np.ndarray]:
    """Centre squares, (SIDE_PX, SIDE_PX, 3) uint8 each."""
    keys = arguments.keys.read_text(encoding="utf-8").splitlines()
    chosen = np.unique(np.linspace(0, len(keys) - 1, arguments.limit).astype(int))
    return [centre_square(read_rgb(arguments.folder / keys[i], keys[i]), SIDE_PX) for i in chosen]
