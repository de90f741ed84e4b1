"""A small source of photos, and settings that measure it with the tiny pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from chromatune.evaluation.settings import EvaluationSettings, make_settings

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket")
SIDE_PX = 64

WritePng = Callable[[Path, np.ndarray], None]
Colored = Callable[..., np.ndarray]
Settings = Callable[..., EvaluationSettings]


@pytest.fixture(scope="session")
def write_png() -> WritePng:
    """Writes a file, and its folder if need be."""

    def write(path: Path, rgb_u8: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), rgb_u8[..., ::-1])

    return write


@pytest.fixture(scope="session")
def colored() -> Colored:
    """A photo that scikit-image ships, as a small square."""

    def make(name: str, side_px: int = SIDE_PX) -> np.ndarray:
        photo = getattr(skimage.data, name)()
        side = min(photo.shape[:2])
        square = np.ascontiguousarray(photo[:side, :side])
        return cv2.resize(square, (side_px, side_px), interpolation=cv2.INTER_AREA)

    return make


@pytest.fixture
def photos_dir(tmp_path: Path, write_png: WritePng, colored: Colored) -> Path:
    """Four color photos, and one of each kind that is left out."""
    folder = tmp_path / "photos"
    for name in PHOTOS:
        write_png(folder / f"{name}.png", colored(name))
    write_png(folder / "again.png", colored("coffee"))
    write_png(folder / "gray.png", np.repeat(colored("coffee")[..., :1], 3, axis=2))
    write_png(folder / "tiny.png", colored("rocket", SIDE_PX // 4))
    (folder / "broken.jpg").write_bytes(b"not a photo")
    return folder


@pytest.fixture
def settings(photos_dir: Path, tiny_pipeline_dir: Path) -> Settings:
    """Settings for the four photos and the tiny pipeline; what is given changes them."""

    def make(**changes: object) -> EvaluationSettings:
        fields = {"source": str(photos_dir), "models": (str(tiny_pipeline_dir),), "size_px": SIDE_PX, "device": "cpu"}
        return make_settings(**(fields | changes))

    return make
