"""Which photos can be trained with, and train and validation halves that share no person."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chromatune.data.items import PhotoItem
from chromatune.data.pairs import is_monochrome
from chromatune.errors import DataError, PhotoError, count_of, printable

DIGEST_LENGTH = 16  # hexadecimal digits
ACCEPTED = "a share between 0 and 1, or a whole number of photos from 1"

BROKEN, TOO_SMALL, MONOCHROME = "broken", "too small", "gray or sepia"  # reasons
TOO_LONG = "too long"  # for any aspect bucket
MIN_SIDE_PX = 16  # two cells of an autoencoder's latents: whatever is smaller is an icon or a tracking pixel
LARGEST_ENLARGEMENT = 2  # of a photo: beyond it, a model would learn interpolation, or be compared with it


@dataclass(frozen=True)
class SkippedPhoto:
    """A photo of a source that is not used, and why.

    Attributes:
        key: of the photo in its source.
        reason: in training one of `BROKEN`, `TOO_SMALL`, `MONOCHROME`, `TOO_LONG`.
        detail: one line with more to say than the reason; "" where there is none.
        size_px: its height and width; None where it cannot be read.
    """

    key: str
    reason: str
    detail: str = ""
    size_px: tuple[int, int] | None = None


def smallest_side_px(size_px: int) -> int:
    """Return the pixels that a photo's shorter side must have to be used at `size_px`: it is enlarged at most twice."""
    return max(MIN_SIDE_PX, -(-size_px // LARGEST_ENLARGEMENT))


def why_unusable(rgb_u8: np.ndarray, min_side_px: int = MIN_SIDE_PX) -> str | None:
    """Return why a photo cannot be trained with; None for one that can.

    Args:
        rgb_u8: (H, W, 3) uint8 sRGB.
        min_side_px: pixels that its shorter side must have.
    """
    if min(rgb_u8.shape[:2]) < min_side_px:
        return TOO_SMALL
    return MONOCHROME if is_monochrome(rgb_u8) else None


def read_usable(item: PhotoItem, min_side_px: int = MIN_SIDE_PX) -> np.ndarray | SkippedPhoto:
    """Read a photo, (H, W, 3) uint8 sRGB, or return why it cannot be trained with."""
    try:
        rgb_u8 = item.read()
    except PhotoError as error:
        return SkippedPhoto(item.key, BROKEN, str(error))
    reason = why_unusable(rgb_u8, min_side_px)
    if reason is None:
        return rgb_u8
    height, width = rgb_u8.shape[:2]
    detail = f"{printable(item.key)}: {width} x {height} px" if reason == TOO_SMALL else ""
    return SkippedPhoto(item.key, reason, detail, (height, width))


def split_usable(
    items: Sequence[PhotoItem], validation: float | int, seed: int = 0, min_side_px: int = MIN_SIDE_PX
) -> tuple[Split, tuple[SkippedPhoto, ...]]:
    """Split a source so that a usable photo is there to validate on; return what was skipped to find it too.

    As long as one photo of the validation half can be used, the split is that of `split_source`: photos are opened up
    to the first such one, and nothing is skipped. Else that half is skipped and the others are split again.

    Args:
        items: the photos, in any order.
        validation: share or number of photos to validate on, as for `split_source`.
        seed: another one gives another split.
        min_side_px: pixels that a photo's shorter side must have.

    Raises:
        DataError: the photos cannot be split, or none that could be held out is usable.
    """
    split = split_source(items, validation, seed)
    skipped: list[SkippedPhoto] = []
    while True:
        unusable: list[SkippedPhoto] = []
        for item in split.validation:
            result = read_usable(item, min_side_px)
            if not isinstance(result, SkippedPhoto):
                return split, tuple(skipped)
            unusable.append(result)
        skipped += unusable
        keys = {photo.key for photo in skipped}
        others = [item for item in items if item.key not in keys]
        try:
            split = split_source(others, validation, seed)
        except DataError as error:
            counts = Counter(photo.reason for photo in skipped)
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
            raise DataError(f"no usable photo to validate on ({reasons}); give more color photos") from error


@dataclass(frozen=True)
class Split:
    """Two halves of a source.

    Attributes:
        train: photos to learn from, in the order of their keys.
        validation: photos that training never sees, in the order of their keys.
        digest: first 16 hexadecimal digits of the SHA-256 over the keys of both halves.
    """

    train: tuple[PhotoItem, ...]
    validation: tuple[PhotoItem, ...]
    digest: str


def split_source(items: Sequence[PhotoItem], validation: float | int, seed: int = 0) -> Split:
    """Split photos for training and validation; all photos of a person go to one half, those without a person singly.

    People are drawn in the order of the hash of their name and the seed. One with more photos than are still wanted is
    skipped; if too few photos are found that way, the skipped person with the fewest is added.

    Args:
        items: the photos, in any order.
        validation: as a float the share of photos to validate on; as an int their number. It is met exactly where
            no person has two photos; else there may be more.
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
            f"{count_of(len(items), 'photo')} of {people} (or without a known person) cannot be split with "
            f"validation={validation}: one half would be empty; give more photos, or another number"
        )
    ordered = sorted(items, key=lambda item: item.key)
    train = tuple(item for item in ordered if item.key not in held_out)
    validation_items = tuple(item for item in ordered if item.key in held_out)
    return Split(train, validation_items, split_digest(train, validation_items))


def split_digest(train: Sequence[PhotoItem], validation: Sequence[PhotoItem]) -> str:
    """Return 16 hexadecimal digits that change with any key of either half, and with a key that changes sides."""
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
