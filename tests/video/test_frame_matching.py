"""Frames of a finished film are found: by time and by what they show, also where that film is not quite the same."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from chromatune.video.frame_matching import Signatures, match_frames, signatures_of
from chromatune.video.shots import shots_from, thumbnail

RATE = 25
CUTS = [0, 40, 70, 120]
COUNT = 150


@pytest.fixture(scope="module")
def grays(studio) -> list[np.ndarray]:
    """Four shots in motion."""
    stops = [*CUTS[1:], COUNT]
    shots = [
        studio.pan(studio.texture(seed, 240, 480), stop - start, step=3)
        for seed, (start, stop) in enumerate(zip(CUTS, stops, strict=True))
    ]
    return studio.aged([frame for shot in shots for frame in shot], 0)


def signatures(pictures: list[np.ndarray], rate: float = RATE) -> Signatures:
    return signatures_of((thumbnail(picture), index / rate) for index, picture in enumerate(pictures))


def retoned(picture: np.ndarray) -> np.ndarray:
    return (30 + 200 * (picture / 255.0) ** 1.4).astype(np.uint8)


def finished_orders() -> dict[str, list[int]]:
    """Names of finished films ⇒ which frames of the film they show, one after another."""
    rng = np.random.default_rng(0)
    dropped = sorted({*range(COUNT)} - {*rng.choice(COUNT, 8, replace=False).tolist()})
    return {
        "the same": [*range(COUNT)],
        "begins later": [*range(17, COUNT)],
        "frames dropped": dropped,
        "frames doubled": sorted([*range(COUNT), *rng.choice(COUNT, 15).tolist()]),
        "dropped in a row": [*range(85), *range(105, COUNT)],
        "a leader before": [-1] * 30 + [*range(COUNT)],
        "24 frames a second": [int(index * RATE / 24) for index in range(COUNT * 24 // RATE)],
    }


@pytest.mark.parametrize("kind", finished_orders())
def test_each_frame_has_the_one_that_shows_the_same(grays: list[np.ndarray], kind: str) -> None:
    order = finished_orders()[kind]
    leader = np.zeros_like(grays[0])
    finished = [leader if index < 0 else retoned(grays[index]) for index in order]
    found = match_frames(
        signatures(grays), signatures(finished, 24 if kind == "24 frames a second" else RATE), shots_from(CUTS, COUNT)
    )
    there = np.isin(np.arange(COUNT), order) & (found >= 0)
    apart = np.abs(np.array(order)[found[there]] - np.flatnonzero(there))
    assert there.sum() >= 0.95 * len({*order} - {-1})
    assert (apart <= 1).mean() >= 0.97 and apart.max() <= 3
    assert (np.diff(found[found >= 0]) >= 0).all()


def test_a_shot_that_is_not_there_has_none(grays: list[np.ndarray]) -> None:
    order = [*range(40), *range(70, COUNT)]
    found = match_frames(signatures(grays), signatures([grays[index] for index in order]), shots_from(CUTS, COUNT))
    assert (found[40:70] == -1).all()
    assert [order[index] for index in found[70:]] == [*range(70, COUNT)] and (found[:40] == np.arange(40)).all()


def test_black_borders_and_a_dark_shot_do_not_matter(grays: list[np.ndarray]) -> None:
    dark = [picture if not 40 <= index < 70 else np.full_like(picture, 12) for index, picture in enumerate(grays)]
    boxed = [cv2.copyMakeBorder(picture, 0, 0, 20, 20, cv2.BORDER_CONSTANT) for picture in dark]
    found = match_frames(signatures(dark), signatures(boxed), shots_from(CUTS, COUNT))
    assert np.abs(found - np.arange(COUNT)).max() <= 1


def test_another_film_has_nothing(grays: list[np.ndarray], studio) -> None:
    other = studio.aged(studio.pan(studio.texture(9, 240, 480), 100, step=2), 1)
    assert (match_frames(signatures(grays), signatures(other), shots_from(CUTS, COUNT)) == -1).all()
