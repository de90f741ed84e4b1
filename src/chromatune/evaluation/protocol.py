"""Which photos are measured, which are left out and why, and the squares that are compared.

Which photos a limit keeps depends on their pixels alone, never on their names or order: lowest SHA-256 first. Every
photo of the split is read once for it; photos are not kept, but read again when their turn comes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from chromatune.data.pairs import apply_crop, centre_crop, is_monochrome
from chromatune.data.sources import PhotoItem, Source
from chromatune.data.splits import split_source
from chromatune.errors import DataError, PhotoError

HELD_OUT, SEEN = "held-out", "seen"
LARGEST_ENLARGEMENT = 2  # beyond it, the comparison would be of interpolation
MIN_CHROMA = 4.0  # mean CIELAB chroma under which a truth counts as grey
READERS = 4

UNREADABLE, GREY, TOO_SMALL = "unreadable", "grey or sepia", "too small"
OTHER_SPLIT, NOT_LISTED = "other split", "not in the list of keys"
REPEATED, SAME_PERSON, OVER_LIMIT = "repeated", "same person", "over the limit"


@dataclass(frozen=True)
class ChosenPhoto:
    """A photo that is measured.

    Attributes:
        key: its name in the source.
        content: SHA-256 of its pixels at full size, hexadecimal.
        part: `HELD_OUT`, or `SEEN` for a photo that a model was trained on.
        read: gives (H, W, 3) uint8 sRGB at full size, or raises `PhotoError`.
    """

    key: str
    content: str
    part: str
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class LeftOut:
    """A photo that is not measured, and why: one of the reasons above, and for a broken one what the reader said."""

    key: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Selection:
    """The photos of one source that are measured, lowest content hash first, and all others with a reason each."""

    photos: tuple[ChosenPhoto, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 over the contents of the measured photos."""
        return hashlib.sha256("".join(photo.content for photo in self.photos).encode()).hexdigest()[:16]

    @property
    def counts(self) -> dict[str, int]:
        """Number of photos left out, by reason."""
        return dict(sorted(Counter(photo.reason for photo in self.left_out).items()))


@dataclass(frozen=True)
class Choice:
    """How photos are chosen from a source.

    Attributes:
        size_px: side of the squares that will be compared.
        limit: at most this many photos, lowest content hash first; None for all.
        one_per_person: of each person, the photo of lowest content hash.
        split: "all", or the half that `chromatune.data.splits` gives: "train" or "validation".
        validation: share (float) or number (int) of photos in the validation half.
        split_seed: seed of that split.
        keys: only these photos; None for all.
    """

    size_px: int
    limit: int | None = None
    one_per_person: bool = False
    split: str = "all"
    validation: float | int = 0.1
    split_seed: int = 0
    keys: frozenset[str] | None = None


def select(
    source: Source, choice: Choice, *, part: str = HELD_OUT, advance: Callable[[], None] = lambda: None
) -> Selection:
    """The photos to measure. Each photo of the source is either among them or left out, for one reason.

    Args:
        source: photos with their persons, where known.
        choice: how to choose.
        part: what to call these photos.
        advance: called once a photo that is looked at.

    Raises:
        DataError: no photo is left, or a listed key is not in the source.
    """
    items, left_out = _in_split(source, choice)
    chosen: list[ChosenPhoto] = []
    contents: set[str] = set()
    persons: set[str] = set()
    # an unreadable photo has no content, and so comes first
    for item, content, reason, detail in sorted(
        _examined(items, choice.size_px, advance), key=lambda examined: (examined[1], examined[0].key)
    ):
        if not reason and content in contents:
            reason = REPEATED
        if not reason and choice.one_per_person and item.person in persons:
            reason = SAME_PERSON
        if not reason and choice.limit is not None and len(chosen) == choice.limit:
            reason = OVER_LIMIT
        if reason:
            left_out.append(LeftOut(item.key, reason, detail))
            continue
        contents.add(content)
        if item.person is not None:
            persons.add(item.person)
        chosen.append(ChosenPhoto(item.key, content, part, item.read))
    selection = Selection(tuple(chosen), tuple(left_out))
    if not chosen:
        why = ", ".join(f"{count} {reason}" for reason, count in selection.counts.items()) or "it is empty"
        raise DataError(f"{source.name}: no photo to measure ({why}); give readable colour photos, or another split")
    return selection


def _in_split(source: Source, choice: Choice) -> tuple[list[PhotoItem], list[LeftOut]]:
    """The items to look at, and those that names alone leave out."""
    reasons: dict[str, str] = {}
    if choice.split != "all":
        halves = split_source(source.items, choice.validation, choice.split_seed)
        others = halves.validation if choice.split == "train" else halves.train
        reasons |= {item.key: OTHER_SPLIT for item in others}
    if choice.keys is not None:
        unknown = sorted(choice.keys - {item.key for item in source.items})
        if unknown:
            raise DataError(f"{source.name} has no photo {unknown[0]!r} ({len(unknown)} such keys); correct the list")
        reasons |= {item.key: NOT_LISTED for item in source.items if item.key not in choice.keys}
    items = [item for item in source.items if item.key not in reasons]
    return items, [LeftOut(key, reason) for key, reason in reasons.items()]


def centre_square(rgb_u8: np.ndarray, size_px: int) -> np.ndarray:
    """The largest centred square, resized: (H, W, 3) uint8 -> (size_px, size_px, 3) uint8."""
    return apply_crop(rgb_u8, centre_crop(*rgb_u8.shape[:2]), size_px)


def content_of(rgb_u8: np.ndarray) -> str:
    """SHA-256 of a photo's size and pixels, hexadecimal."""
    return hashlib.sha256(repr(rgb_u8.shape).encode() + np.ascontiguousarray(rgb_u8).tobytes()).hexdigest()


def _examined(
    items: Iterable[PhotoItem], size_px: int, advance: Callable[[], None]
) -> list[tuple[PhotoItem, str, str, str]]:
    """Each item with its content hash, and the reason and detail if the photo itself cannot be measured."""

    def examine(item: PhotoItem) -> tuple[PhotoItem, str, str, str]:
        try:
            rgb_u8 = item.read()
        except PhotoError as error:
            return item, "", UNREADABLE, str(error)
        finally:
            advance()
        content, short_px = content_of(rgb_u8), min(rgb_u8.shape[:2])
        if short_px * LARGEST_ENLARGEMENT < size_px:
            return item, content, TOO_SMALL, f"short side {short_px} px"
        if is_monochrome(centre_square(rgb_u8, size_px), MIN_CHROMA):
            return item, content, GREY, ""
        return item, content, "", ""

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(examine, items))
