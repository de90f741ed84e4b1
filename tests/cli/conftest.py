"""Photos on a disk, and an engine that colorizes by arithmetic, so that the command line is tested without torch."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromatune.errors import ModelError, PhotoError
from chromatune.images import Photo, encode_photo, write_photo
from chromatune.options import ColorizeOptions


@dataclass(frozen=True)
class FakeResult:
    rgb: np.ndarray
    photo: Photo

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        write_photo(path, self.rgb, self.photo, overwrite=overwrite)

    def encode(self, format: str) -> bytes:
        return encode_photo(self.rgb, self.photo, format)


@dataclass
class FakeEngine:
    """Stands for `chromatune.colorizer.Colorizer`: the result's blue is the seed; a white photo fails."""

    loads: list[tuple[str, str | None]] = field(default_factory=list)
    calls: list[tuple[str, ColorizeOptions, int]] = field(default_factory=list)
    failure: BaseException | None = None

    def load(self, model: str = "mini", *, device: str | None = None) -> FakeEngine:
        if model == "unknown":
            raise ModelError("unknown model 'unknown'; accepted: mini")
        self.loads.append((model, device))
        return self

    def colorize_many(
        self, photos: Iterable[Photo], options: ColorizeOptions, *, batch_size: int = 8
    ) -> Iterator[FakeResult | PhotoError]:
        for photo in list(photos):  # reads ahead, as the real one does
            self.calls.append((photo.name, options, batch_size))
            if self.failure is not None:
                raise self.failure
            if photo.grey.min() == photo.max_value:
                yield PhotoError(f"{photo.name}: is white")
                continue
            rgb = np.repeat(photo.grey[..., None], 3, axis=2)
            rgb[..., 2] = options.seed
            yield FakeResult(rgb, photo)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine()
    module = types.ModuleType("chromatune.colorizer")
    module.Colorizer = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "chromatune.colorizer", module)
    return fake


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is also the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def put(folder: Path) -> Callable[..., Path]:
    """Writes a small grey photo under a name, and returns its path relative to the folder."""

    def write(name: str, *, mode: str = "L", level: int = 100) -> Path:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if mode == "I;16":
            Image.fromarray(np.full((6, 8), level * 257, np.uint16)).save(path)
        elif mode == "LA":
            Image.fromarray(np.dstack([np.full((6, 8), level, np.uint8), np.full((6, 8), 9, np.uint8)])).save(path)
        else:
            Image.fromarray(np.full((6, 8), level, np.uint8)).save(path)
        return path

    return write
