"""Colorful photos, drawn here, and folders of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DrawPhoto = Callable[..., np.ndarray]


@pytest.fixture
def draw() -> DrawPhoto:
    """A function: size and seed ⇒ (H, W, 3) uint8, smooth, with many hues and no symmetry."""

    def colors(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))

    return colors


@pytest.fixture
def put(tmp_path: Path, draw: DrawPhoto) -> Callable[..., Path]:
    """Writes a photo under a name below `tmp_path`."""

    def write(name: str, rgb_u8: np.ndarray | None = None, **options) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw() if rgb_u8 is None else rgb_u8).save(path, **options)
        return path

    return write


@pytest.fixture
def png_bytes() -> Callable[[np.ndarray], bytes]:
    def encode(rgb_u8: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(rgb_u8).save(file, "PNG")
        return file.getvalue()

    return encode
