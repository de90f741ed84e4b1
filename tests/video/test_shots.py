"""Cuts are found where they are, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chromatune.errors import OptionsError
from chromatune.video import Shot, find_shots, read_starts, thumbnail, write_starts


def starts(frames) -> list[int]:
    return [shot.start for shot in find_shots(thumbnail(np.clip(frame, 0, 255).astype(np.uint8)) for frame in frames)]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_cuts_are_found_through_grain_and_flicker(studio, seed: int) -> None:
    shots = [studio.pan(studio.texture(10 * seed + index), 20, step=1 + index) for index in range(3)]
    frames = [frame for shot in shots for frame in shot]
    assert starts(studio.aged(frames, seed, grain=10, flicker=0.1)) == [0, 20, 40]


def test_flashes_jumps_of_exposure_and_dirt_are_no_cuts(studio) -> None:
    frames = studio.pan(studio.texture(3), 50)
    frames[10] = frames[10] * 1.5 + 110
    frames[20] = frames[20] * 1.5 + 110
    frames[21] = frames[21] * 1.5 + 110
    frames[30:] = [0.6 * frame for frame in frames[30:]]
    frames[40] = frames[40].copy()
    frames[40][20:50, 30:60] = 250
    assert starts(studio.aged(frames, 0)) == [0]


def test_a_fade_is_no_cut_and_a_cut_within_black_is_one(studio) -> None:
    fade = np.concatenate([np.linspace(1, 0, 12), np.zeros(3)])
    first, second = studio.pan(studio.texture(4), 30), studio.pan(studio.texture(5), 30)
    out = [*first[:15], *(share * frame for share, frame in zip(fade, first[15:], strict=True))]
    into = [*(share * frame for share, frame in zip(fade[::-1], second[:15], strict=True)), *second[15:]]
    assert starts(out) == [0]
    assert starts([*out, *out[::-1]]) == [0]  # the same picture comes back
    found = starts([*out, *into])
    assert len(found) == 2 and 26 <= found[1] <= 34


def test_a_file_of_shots_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "shots.txt"
    write_starts(path, [Shot(0, 10), Shot(10, 25), Shot(25, 30)])
    assert read_starts(path) == [0, 10, 25]
    for text, words in {"5\n3\n": "line 2", "ten\n": "line 1", "-4": "line 1"}.items():
        path.write_text(text)
        with pytest.raises(OptionsError, match=words):
            read_starts(path)
