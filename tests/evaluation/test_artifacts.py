"""Artifacts on pictures whose failure is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data

from chromatune import color
from chromatune.color.luminance import CB_SCALE, CR_SCALE
from chromatune.errors import MissingExtraError
from chromatune.evaluation import artifacts
from chromatune.evaluation.metrics import delta_e_2000, lab_of


def half_red(edge_px: int) -> np.ndarray:
    """Chroma with one vertical edge, as (64, 64, 2)."""
    chroma = np.zeros((64, 64, 2), np.float32)
    chroma[:, edge_px:] = (-0.1, 0.2)
    return chroma


def paint(gray: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    rgb = np.stack(
        [
            gray + CR_SCALE * 255 * chroma[..., 1],
            gray.astype(float),
            gray + CB_SCALE * 255 * chroma[..., 0],
        ],
        axis=-1,
    )
    return np.clip(rgb, 0, 255).astype(np.uint8)


def bleeding(photo: np.ndarray, gray: np.ndarray) -> float:
    return artifacts.color_bleeding(photo, artifacts.near_luma_edges(gray))


def test_bleeding_is_chroma_edges_away_from_luma_edges():
    gray = np.full((64, 64), 80, np.uint8)
    gray[:, 32:] = 160
    followed, moved = (paint(gray, half_red(edge)) for edge in (32, 48))
    assert bleeding(followed, gray) == 0
    assert bleeding(moved, gray) > 0.5
    assert bleeding(np.repeat(gray[..., None], 3, axis=2), gray) == 0


def test_shifted_colors_of_a_photo_bleed_more():
    photo = cv2.resize(skimage.data.coffee()[:400, :400], (128, 128), interpolation=cv2.INTER_AREA)
    gray = color.luma(photo)
    shifted = np.roll(color.chroma_of(photo.astype(np.float32) / 255), 8, axis=1)
    moved = color.recompose(gray, shifted)
    assert bleeding(moved, gray) > 1.5 * bleeding(photo, gray)


def test_the_astronaut_has_a_face_and_the_coffee_has_none():
    find = artifacts.face_finder()
    astronaut = cv2.resize(skimage.data.astronaut(), (256, 256), interpolation=cv2.INTER_AREA)
    gray = color.luma(astronaut)
    face = find(gray)
    assert face is not None
    top, left, height, width = face
    assert (top < 60 < top + height, left < 112 < left + width) == (True, True)  # the nose
    assert find(np.full((64, 64), 90, np.uint8)) is None
    truth = lab_of(astronaut)
    assert artifacts.skin_distance(delta_e_2000(truth, truth), face) == 0
    outside = astronaut.copy()
    outside[200:] = 0
    assert artifacts.skin_distance(delta_e_2000(lab_of(outside), truth), face) == 0
    green = astronaut.copy()
    green[top : top + height, left : left + width, 1] = 255
    assert artifacts.skin_distance(delta_e_2000(lab_of(green), truth), face) > 20


def test_one_wrong_window_is_no_face():
    assert artifacts._clearest([]) is None
    assert artifacts._clearest([(0, 0, 40, 40), (100, 100, 40, 40)]) is None
    assert artifacts._clearest([(0, 0, 40, 40), (2, 2, 40, 40), (4, 2, 40, 40), (2, 4, 42, 42)]) == (2, 2, 40, 40)


def test_without_the_detector_the_message_names_the_extra(monkeypatch):
    monkeypatch.setattr(artifacts, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"chromatune\[evaluate\]"):
        artifacts.face_finder()
