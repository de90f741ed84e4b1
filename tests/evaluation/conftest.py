"""A small source of photos, and settings that measure it with the tiny pipeline."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from chromatune.evaluation.evaluation import evaluate
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


@pytest.fixture(scope="session")
def shared_photos(tmp_path_factory: pytest.TempPathFactory, write_png: WritePng, colored: Colored) -> Path:
    """Four color photos, and one of each kind that is skipped; no test changes them."""
    folder = tmp_path_factory.mktemp("evaluated") / "photos"
    for name in PHOTOS:
        write_png(folder / f"{name}.png", colored(name))
    write_png(folder / "again.png", colored("coffee"))
    write_png(folder / "gray.png", np.repeat(colored("coffee")[..., :1], 3, axis=2))
    write_png(folder / "tiny.png", colored("rocket", SIDE_PX // 4))
    (folder / "broken.jpg").write_bytes(b"not a photo")
    return folder


@pytest.fixture
def photos_dir(tmp_path: Path, shared_photos: Path) -> Path:
    """The same photos, to be changed."""
    return shutil.copytree(shared_photos, tmp_path / "photos")


@pytest.fixture(scope="session")
def settings(shared_photos: Path, tiny_pipeline_dir: Path) -> Settings:
    """Settings for the shared photos and the tiny pipeline; what is given changes them."""

    def make(**changes: object) -> EvaluationSettings:
        fields = {"source": str(shared_photos), "models": (str(tiny_pipeline_dir),), "size_px": SIDE_PX}
        return make_settings(**(fields | {"device": "cpu"} | changes))

    return make


@pytest.fixture(scope="session")
def whole(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation that ended; no test changes it."""
    out = tmp_path_factory.mktemp("whole") / "out"
    evaluate(settings(), out)
    return out


@pytest.fixture
def evaluated(whole: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to be changed."""
    return shutil.copytree(whole, tmp_path / "out")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The same bytes whatever the machine: another number of threads may move pixels."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
