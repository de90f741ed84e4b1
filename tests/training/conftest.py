"""Drawn color photos, and settings that make a run a matter of seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from chromatune.data import open_source
from chromatune.evaluation import score_result
from chromatune.training.run import train
from chromatune.training.settings import TrainSettings
from chromatune.training.training_loop import TrainResult

TrainTiny = Callable[..., tuple[TrainResult, list[dict[str, Any]]]]

TINY = {
    "size_px": 32,
    "batch": 2,
    "max_steps": 6,
    "warmup": 1,
    "lr": 1e-3,
    "log_every": 2,
    "validate_every": 3,
    "validation_photos": 2,
    "validation_steps": 1,
    "checkpoint_every": 3,
    "cache_variants": 2,
    "lab_photos": 1,
}


@pytest.fixture(autouse=True)
def _fresh(fresh_accelerate):
    """Every test here may train."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny models gain nothing from threads, which wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


@pytest.fixture(scope="session")
def train_tiny(drawn_photos, tiny_pipeline, tiny_settings, tmp_path_factory) -> TrainTiny:
    """Trains with the tiny settings and some changed: `train_tiny(out, lr=…)` -> what `train` returned, and its rows.

    All runs share their latents, but for one with a `cache_dir` (None: the run's own).
    """
    latents = tmp_path_factory.mktemp("latents")

    def run(
        out: Path, *, model: Path | str | None = None, cache_dir: Path | None = latents, track: list[str] | None = None,
        on_row: Callable[[dict[str, Any]], None] | None = None, untouched: str | None = None,
        clock: Callable[[], float] = time.monotonic, **changes: Any,
    ) -> tuple[TrainResult, list[dict[str, Any]]]:  # fmt: skip
        settings = TrainSettings(**(tiny_settings | changes))
        rows: list[dict[str, Any]] = []
        result = train(
            open_source(drawn_photos), str(model or tiny_pipeline()), settings, out, score=score_result,
            on_row=on_row or rows.append, cache_dir=cache_dir, track=track,
            untouched=untouched, clock=clock,
        )  # fmt: skip
        return result, rows

    return run


@pytest.fixture
def start(train_tiny: TrainTiny, tmp_path: Path) -> TrainTiny:
    """Trains below the test's own folder: `start("name", lr=…)`."""
    return lambda name="run", **changes: train_tiny(tmp_path / name, **changes)
