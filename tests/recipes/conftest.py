"""Drawn photos, and the recipe's settings at a size that runs in seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "mini"

SETTINGS = """
seed = 1
size_px = 64
[lineage]
mini-base = ["drawings"]
mini = ["drawings", "more drawings"]
[pack]
side_px = 72
max_aspect = 1.6
test = 0.1
validation = 0.3
min_chroma = 4.0
[pack.weights]
[kinds]
drawings = ["drawn"]
[vae]
width = 8
encoder_blocks = [0, 1, 1, 1]
decoder_blocks = [1, 1, 1, 0]
batch = 6
steps = 3
lr = 1e-3
warmup = 1
zoom = 0.5
hint_weight = 1.0
chroma_weight = 3.0
structure_weight = 1.0
luma_scale = 0.04
chroma_scale = 0.08
[text]
vocab = 600
width = 16
layers = 1
heads = 2
[unet]
widths = [16, 32]
attention = [false, true]
layers = 1
head_dim = 16
[base]
batch = 2
steps = 3
lr = 1e-3
warmup = 1
dropout = 0.05
[colorizer]
batch = 2
repeats = 2.5
plain_share = 0.5
zoom = 0.8
tilted = 0.5
steps = 4
lr = 1e-3
encoder_lr = 0.5
unseen_share = 0.2
warmup = 1
dropout = 0.05
chroma_weight = 4.0
attribute_share = 0.3
retouched_share = 0.5
text_share = 0.5
decay_share = 0.5
critic_lr = 1e-3
critic_alone = 1
[plans.wide]
unet = { widths = [32, 48] }
[plans.critic]
like = "wide"
colorizer = { adversarial_share = 0.3, seed = 5 }
[defaults.mini]
steps = 1
vivid = 1.3
guidance_scale = 1.0
image_guidance_scale = 1.0
prompt = "colorize the photo"
[defaults.mini-base]
size_px = 32
steps = 2
guidance_scale = 1.0
image_guidance_scale = 1.0
prompt = "colorize the photo"
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """The recipe's modules, a folder of drawn photos, and the settings' file."""
    for module in ("kornia", "tokenizers"):
        pytest.importorskip(module)
    root = tmp_path_factory.mktemp("recipe")
    (root / "settings.toml").write_text(SETTINGS)
    photos = root / "photos" / "drawn"
    photos.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(60):
        image = np.zeros((80 + index % 3 * 20, 90, 3), np.uint8)
        image[:] = rng.integers(0, 256, 3)
        for _ in range(6):
            center, color = rng.integers(0, 80, 2), rng.integers(0, 256, 3)
            cv2.circle(image, tuple(map(int, center)), int(rng.integers(8, 30)), tuple(map(int, color)), -1)
        cv2.imwrite(str(photos / f"{index}.png"), image)
    gray = np.repeat(rng.integers(0, 256, (80, 80, 1), dtype=np.uint8), 3, axis=2)
    cv2.imwrite(str(photos / "gray.png"), gray)
    (photos / "broken.jpg").write_bytes(b"not a photo")
    (root / "photos" / "manifest.csv").write_text("file,set,license,source\ndrawn/0.png,drawn,CC0,nobody@1\n")
    sys.path.insert(0, str(RECIPE))
    yield root
    sys.path.remove(str(RECIPE))


@pytest.fixture(autouse=True)
def quick_export(request, recipe, monkeypatch):
    """Models without ONNX graphs, which take half a minute each; the slow tests trace them."""
    if "slow" not in request.keywords:
        monkeypatch.setattr("export.write_graphs", lambda folder: None)


@pytest.fixture
def killed_once_after(recipe, monkeypatch) -> Callable[[int], list[int]]:
    """Lets a training die once, when it has saved that step; returns a list that gets the steps saved."""
    import loop

    save = loop.save_atomic

    def prepare(step: int) -> list[int]:
        saved: list[int] = []

        def save_then_die(state, path):
            save(state, path)
            saved.append(state["step"])
            if saved.count(step) == 1 and saved[-1] == step:
                raise KeyboardInterrupt

        monkeypatch.setattr(loop, "save_atomic", save_then_die)
        return saved

    return prepare
