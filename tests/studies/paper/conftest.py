"""Drawn photos for every role, and an experiment small enough to run in seconds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from studies.paper.declaration import Experiment, parse

SMALL: dict[str, float] = {
    "max_steps": 2,
    "batch": 2,
    "size_px": 32,
    "cache_variants": 1,
    "validation_photos": 2,
    "validate_every": 2,
}
SMALL |= {"warmup": 1, "checkpoint_every": 1, "lab_photos": 1, "validation": 0.25}


@pytest.fixture(autouse=True)
def _fresh(fresh_accelerate):
    """Every test here may train."""


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 colored drawings, and a broken photo."""
    folder = tmp_path_factory.mktemp("drawings")
    rng = np.random.default_rng(3)
    for index in range(40):
        image = np.full((72, 64 + index % 3 * 8, 3), rng.integers(0, 256, 3), np.uint8)
        for _ in range(5):
            center, color = rng.integers(0, 64, 2), rng.integers(0, 256, 3)
            cv2.circle(image, tuple(map(int, center)), int(rng.integers(6, 24)), tuple(map(int, color)), -1)
        cv2.imwrite(str(folder / f"{index:02d}.png"), image)
    (folder / "broken.jpg").write_bytes(b"not a photo")
    return folder


@pytest.fixture(scope="session")
def experiment() -> Experiment:
    """One fine-tuned arm, one baseline; the claim compares them."""
    budget = {"train_photos": 12, "test_photos": 3, "seeds": 2, "settings": SMALL}
    return parse(
        "small",
        {
            "question": "Does it run?",
            "source": "nowhere",
            "measure": "PSNR",
            "roles": {"photos": "drawings"},
            "budgets": {"quick": budget, "full": budget},
            "arms": [
                {"name": "tuned", "train": "photos"},
                {"name": "mean", "train": "photos", "baseline": "mean-chroma"},
            ],
            "tests": [
                {"name": "unseen", "on": "photos"},
                {"name": "asked twice", "on": "photos", "prompts": ["a", "b"], "arms": ["tuned"]},
            ],
            "claims": [
                {
                    "text": "tuned is 50 dB better than the mean",
                    "metric": "psnr",
                    "terms": {"tuned/unseen": 1, "mean/unseen": -1},
                    "margin": 50,
                },
            ],
        },
    )
