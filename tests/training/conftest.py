"""Drawn color photos, and settings that make a run a matter of seconds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from chromatune.data import open_source
from chromatune.evaluation.metrics import scores
from chromatune.training.loop import train
from chromatune.training.settings import TrainSettings

TINY = {
    "size_px": 32,
    "batch": 2,
    "max_steps": 6,
    "warmup": 1,
    "lr": 1e-3,
    "log_every": 2,
    "validate_every": 3,
    "validation_photos": 3,
    "validation_steps": 1,
    "checkpoint_every": 3,
    "cache_variants": 2,
    "lab_photos": 1,
}


@pytest.fixture(autouse=True)
def _fresh(fresh_accelerate):
    """Every test here may train."""


@pytest.fixture(scope="session")
def drawn_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 colored drawings, a gray one and a broken one."""
    folder = tmp_path_factory.mktemp("drawn")
    rng = np.random.default_rng(0)
    for index in range(12):
        image = np.full((48 + index % 3 * 8, 60, 3), rng.integers(0, 256, 3), np.uint8)
        for _ in range(5):
            center, color = rng.integers(0, 48, 2), rng.integers(0, 256, 3)
            cv2.circle(image, tuple(map(int, center)), int(rng.integers(6, 18)), tuple(map(int, color)), -1)
        cv2.imwrite(str(folder / f"{index:02d}.png"), image)
    cv2.imwrite(str(folder / "gray.png"), rng.integers(0, 256, (48, 48), dtype=np.uint8))
    (folder / "broken.jpg").write_bytes(b"not a photo")
    return folder


@pytest.fixture(scope="session")
def tiny_settings() -> dict[str, object]:
    """Settings of a run of six updates."""
    return dict(TINY)


@pytest.fixture
def start(drawn_photos, tiny_pipeline, tmp_path, tiny_settings):
    """Runs with the tiny settings and some changed: `start("name", lr=…)` -> what `train` returned, and its rows."""

    def start(name="run", *, model=None, cache_dir=None, **changes):
        settings = TrainSettings(**(tiny_settings | changes))
        rows = []
        trained = train(
            open_source(drawn_photos), str(model or tiny_pipeline()), settings, tmp_path / name, score=scores,
            on_row=rows.append, cache_dir=cache_dir,
        )  # fmt: skip
        return trained, rows

    return start
