"""Splits: no person on both sides, the same whatever the order, and never an empty half."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chromatune.data.items import PhotoItem
from chromatune.data.splits import split_source
from chromatune.errors import DataError


def nothing() -> np.ndarray:
    raise AssertionError("a split opens no photo")


def photo(key: str, person: str | None = None) -> PhotoItem:
    return PhotoItem(key, person, nothing)


def photos(count: int, per_person: int = 0) -> list[PhotoItem]:
    return [photo(f"{index:04}.jpg", f"p{index // per_person}" if per_person else None) for index in range(count)]


def keys(items: tuple[PhotoItem, ...]) -> list[str]:
    return [item.key for item in items]


@given(
    persons=st.lists(st.one_of(st.none(), st.integers(0, 8)), min_size=1, max_size=40),
    validation=st.one_of(st.floats(0.05, 0.95), st.integers(1, 30)),
    seed=st.integers(0, 3),
)
def test_whole_persons_whole_source_any_order(persons, validation, seed) -> None:
    items = [photo(f"{index}.jpg", None if who is None else str(who)) for index, who in enumerate(persons)]
    shuffled = random.Random(seed).sample(items, len(items))
    try:
        split = split_source(items, validation, seed)
    except DataError:
        with pytest.raises(DataError):
            split_source(shuffled, validation, seed)
        return
    assert split == split_source(shuffled, validation, seed)
    assert split.train and split.validation
    assert sorted(keys(split.train + split.validation)) == sorted(keys(tuple(items)))
    sides = [{item.person for item in half} - {None} for half in (split.train, split.validation)]
    assert not sides[0] & sides[1]


def test_photos_of_nobody_known_are_split_exactly() -> None:
    assert len(split_source(photos(200), 0.1).validation) == 20
    assert len(split_source(photos(200), 30).validation) == 30


def test_a_number_is_reached_and_hardly_passed_where_there_are_persons() -> None:
    assert len(split_source(photos(300, per_person=3), 100).validation) == 102
    crowd = [*photos(100, per_person=2), *(photo(f"star/{index}", "star") for index in range(500))]
    for seed in range(20):  # one person with most photos must not swallow the validation half
        assert len(split_source(crowd, 20, seed).validation) == 20


def test_the_seed_and_every_key_count() -> None:
    items = photos(50)
    digests = {
        split_source(items, 0.2).digest,
        split_source(items, 0.2, seed=1).digest,
        split_source(items, 0.3).digest,
        split_source([*items[:-1], photo("other")], 0.2).digest,
    }
    assert len(digests) == 4
    assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in digests)


def test_the_digest_stays_what_it_was() -> None:
    """Results are recorded with it: a change here makes old records meaningless."""
    assert split_source(photos(10), 0.2).digest == "e817a88df6a60e54"


def test_a_key_that_is_a_name_joins_nobody() -> None:
    items = [photo("ann"), photo("x", "ann"), photo("y", "ann")]
    sizes = {len(split_source(items, 1, seed).validation) for seed in range(10)}
    assert sizes == {1}


@pytest.mark.parametrize("validation", [0, -1, 0.0, 1.0, -0.1, float("nan"), 5.0, True])
def test_what_is_neither_share_nor_number(validation) -> None:
    with pytest.raises(DataError, match="accepted: a share"):
        split_source(photos(10), validation)


@pytest.mark.parametrize(
    ("items", "validation"), [([], 0.5), (photos(1), 0.5), (photos(5), 5), (photos(9, per_person=9), 0.5)]
)
def test_an_empty_half_is_refused(items, validation) -> None:
    with pytest.raises(DataError, match="one half would be empty"):
        split_source(items, validation)


def test_two_photos_of_one_key_are_refused() -> None:
    with pytest.raises(DataError, match="same key"):
        split_source([photo("a"), photo("a")], 0.5)
