"""Train and validation halves of a source: no person is in both, and the order of the photos does not matter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from chromatune.data.items import PhotoItem
from chromatune.errors import DataError, count_of

DIGEST_LENGTH = 16  # hexadecimal digits
ACCEPTED = "a share between 0 and 1, or a whole number of photos from 1"


@dataclass(frozen=True)
class Split:
    """Two halves of a source.

    Attributes:
        train: photos to learn from, in the order of their keys.
        validation: photos never learnt from, in the order of their keys.
        digest: first 16 hexadecimal digits of the SHA-256 over the keys of both halves.
    """

    train: tuple[PhotoItem, ...]
    validation: tuple[PhotoItem, ...]
    digest: str


def split_source(items: Sequence[PhotoItem], validation: float | int, seed: int = 0) -> Split:
    """Train and validation photos; all photos of a person go to one half, and a photo of nobody known goes alone.

    People are drawn in an order that the hash of their name and the seed gives. One with more photos than are still
    wanted is passed over; if too few are found that way, the smallest of those is added.

    Args:
        items: the photos, in any order.
        validation: as a float the share of photos to validate on; as an int their number. It is met exactly where
            nobody has two photos, else from above as nearly as people can be put together.
        seed: another one gives another split.

    Raises:
        DataError: a half would be empty, `validation` is neither of the two, or two photos have one key.
    """
    wanted = _wanted(validation, len(items))
    groups: dict[tuple[str, str], list[PhotoItem]] = {}
    for item in items:
        # "person", "photo": a photo whose key is someone's name must not join them
        group = ("photo", item.key) if item.person is None else ("person", item.person)
        groups.setdefault(group, []).append(item)
    if len({item.key for item in items}) != len(items):
        raise DataError("two photos have the same key; give sources whose keys differ")
    order = sorted(groups, key=lambda group: _sha256(str(seed), *group))
    chosen = _choose([len(groups[group]) for group in order], wanted)
    held_out = {item.key for index in chosen for item in groups[order[index]]}
    if not held_out or len(held_out) == len(items):
        people = count_of(len(groups), "person", "people")
        raise DataError(
            f"{count_of(len(items), 'photo')} of {people} (or of nobody known) cannot be split with "
            f"validation={validation}: one half would be empty; give more photos, or another number"
        )
    ordered = sorted(items, key=lambda item: item.key)
    train = tuple(item for item in ordered if item.key not in held_out)
    validation_items = tuple(item for item in ordered if item.key in held_out)
    return Split(train, validation_items, split_digest(train, validation_items))


def split_digest(train: Sequence[PhotoItem], validation: Sequence[PhotoItem]) -> str:
    """16 hexadecimal digits that change with any key of either half, and with a key that changes sides."""
    keys = [*sorted(item.key for item in train), "", *sorted(item.key for item in validation)]
    return _sha256(*keys)[:DIGEST_LENGTH]


def _wanted(validation: float | int, count: int) -> int:
    """How many photos to validate on."""
    if isinstance(validation, int) and not isinstance(validation, bool) and validation >= 1:
        return validation
    if isinstance(validation, float) and 0 < validation < 1:
        return max(1, round(validation * count))
    raise DataError(f"validation={validation}; accepted: {ACCEPTED}")


def _choose(sizes: Sequence[int], wanted: int) -> list[int]:
    """Indices of groups, taken in order, with at least `wanted` photos where that leaves a group out."""
    chosen: list[int] = []
    skipped: list[int] = []
    found = 0
    for index, size in enumerate(sizes):
        fits = found + size <= wanted
        (chosen if fits else skipped).append(index)
        found += size if fits else 0
    if found < wanted and len(skipped) > 1:
        chosen.append(min(skipped, key=lambda index: sizes[index]))
    return chosen


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
