"""One rule says which photos can be trained with, and a split whose held-out photos break it draws others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chromatune.data.inspection import inspect_source
from chromatune.data.items import PhotoItem
from chromatune.data.sources import open_source
from chromatune.data.splits import (
    MIN_SIDE_PX,
    SkippedPhoto,
    read_usable,
    split_source,
    split_usable,
    why_unusable,
)
from chromatune.errors import DataError, PhotoError


def photo(key: str, rgb_u8: np.ndarray | None, person: str | None = None) -> PhotoItem:
    def read() -> np.ndarray:
        if rgb_u8 is None:
            raise PhotoError(f"{key}: cut short")
        return rgb_u8

    return PhotoItem(key, person, read)


def sepia(rgb_u8: np.ndarray) -> np.ndarray:
    return np.clip(rgb_u8[..., :1] * np.array([1.0, 0.95, 0.86]), 0, 255).astype(np.uint8)


def test_the_reasons(draw) -> None:
    assert why_unusable(draw()) is None
    assert why_unusable(draw(MIN_SIDE_PX, 200)) is None
    assert why_unusable(draw(MIN_SIDE_PX - 1, 200)) == "too small"
    assert why_unusable(draw(40, 200), min_side_px=41) == "too small"
    assert why_unusable(sepia(draw())) == "gray or sepia"
    assert why_unusable(np.full((40, 40, 3), 90, np.uint8)) == "gray or sepia"


def test_a_photo_or_why_not(draw) -> None:
    np.testing.assert_array_equal(read_usable(photo("a", draw())), draw())
    assert read_usable(photo("a", None)) == SkippedPhoto("a", "broken", "a: cut short")
    assert read_usable(photo("a", draw(3, 200))) == SkippedPhoto("a", "too small", "a: 200 x 3 px", (3, 200))
    assert read_usable(photo("a", sepia(draw()))) == SkippedPhoto("a", "gray or sepia", "", (40, 60))


def test_an_inspection_leaves_out_the_same_photos(put, draw, tmp_path: Path) -> None:
    put("good.png")
    put("icon.png", draw(8, 8))
    put("gray.png", draw()[..., 0])
    put("sepia.png", sepia(draw()))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 junk")
    source = open_source(tmp_path)
    usable = [item for item in source.items if not isinstance(read_usable(item), SkippedPhoto)]
    assert [item.key for item in usable] == ["good.png"]
    assert inspect_source(source).usable == tuple(usable)


@pytest.mark.parametrize("bad", ["broken", "sepia", "small"])
@pytest.mark.parametrize("validation", [1, 0.2, 2])
def test_a_held_out_half_that_cannot_be_used_is_drawn_anew(draw, bad: str, validation) -> None:
    good = [photo(f"{index}", draw(seed=index)) for index in range(6)]
    held_out = {item.key for item in split_source(good, validation).validation}
    pixels = {"broken": None, "sepia": sepia(draw()), "small": draw(4, 4)}[bad]
    items = [photo(item.key, pixels) if item.key in held_out else item for item in good]
    split, skipped = split_usable(items, validation)
    assert {item.key for item in split.validation}.isdisjoint(held_out)
    assert {each.key for each in skipped} == held_out
    assert len(split.train) + len(split.validation) + len(held_out) == 6
    assert split_usable(items[::-1], validation)[0].digest == split.digest


@pytest.mark.parametrize("person", [None, "Ann", "own"])
def test_where_one_can_be_used_the_split_is_what_it_was(draw, person) -> None:
    def item(index: int, rgb_u8: np.ndarray | None) -> PhotoItem:
        who = {"Ann": ("Ann", "Bo")[index % 2], "own": f"p{index}"}.get(person or "")
        return photo(f"{index:02}", rgb_u8, who)

    items = [item(index, draw(seed=index)) for index in range(12)]
    split = split_source(items, 0.5, seed=3)
    assert split_usable(items, 0.5, seed=3) == (split, ())
    spared = split.validation[-1].key
    worse = [each if each.key == spared else item(index, None) for index, each in enumerate(items)]
    assert split_usable(worse, 0.5, seed=3)[0].digest == split.digest


@pytest.mark.parametrize("count", [2, 3, 7])
def test_photos_of_which_none_can_be_used(draw, count: int) -> None:
    items = [photo(f"{index}", (None, sepia(draw()))[index % 2]) for index in range(count)]
    with pytest.raises(DataError, match=r"^no usable photo to validate on \(.*\d (broken|gray or sepia)\); give more"):
        split_usable(items, 1)
    with pytest.raises(DataError, match="cannot be split"):
        split_usable(items[:1], 1)
