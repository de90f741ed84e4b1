"""All that decides the numbers: which photos are measured, which are left out and why, and the squares compared.

Which photos a limit keeps depends on their pixels alone, never on their names or order: lowest SHA-256 first. Every
photo of the split is read once for it; photos are not kept, but read again when their turn comes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import platform
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import chromatune
from chromatune.data import (
    OWN_RESULT,
    PhotoItem,
    Source,
    apply_crop,
    center_crop,
    is_monochrome,
    open_source,
    split_source,
)
from chromatune.errors import DataError, PhotoError, count_of
from chromatune.evaluation.bootstrap import RESAMPLES
from chromatune.evaluation.settings import EvaluationSettings
from chromatune.options import Advance, StartStage
from chromatune.pipeline import weights_hash
from chromatune.reports import installed_versions

HELD_OUT, SEEN = "held-out", "seen"  # the two subsets of photos: not trained on, and trained on
LARGEST_ENLARGEMENT = 2  # beyond it, the comparison would be of interpolation
MIN_CHROMA = 4.0  # mean CIELAB chroma under which a truth counts as gray
READERS = 4

UNREADABLE, MONOCHROME, TOO_SMALL = "unreadable", "gray or sepia", "too small"
OTHER_SPLIT, NOT_LISTED = "other split", "not in the list of keys"
REPEATED, SAME_PERSON, OVER_LIMIT = "repeated", "same person", "over the limit"

LIBRARIES = ("torch", "diffusers", "transformers", "onnxruntime", "numpy", "opencv-python-headless")
SETTINGS = (
    "limit one_per_person split validation split_seed keys steps prompts hints seed device".split()
)  # told as they are


@dataclass(frozen=True)
class ChosenPhoto:
    """A photo that is measured.

    Attributes:
        key: its name in the source.
        content: SHA-256 of its pixels at full size, hexadecimal.
        subset: `HELD_OUT`, or `SEEN` for a photo that a model was trained on.
        read: gives (H, W, 3) uint8 sRGB at full size, or raises `PhotoError`.
    """

    key: str
    content: str
    subset: str
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


def select(source: Source, choice: Choice, *, subset: str = HELD_OUT, advance: Advance = lambda: None) -> Selection:
    """The photos to measure. Each photo of the source is either among them or left out, for one reason.

    Args:
        source: photos with their persons, where known.
        choice: how to choose.
        subset: what to call these photos.
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
        chosen.append(ChosenPhoto(item.key, content, subset, item.read))
    selection = Selection(tuple(chosen), tuple(left_out))
    if not chosen:
        why = ", ".join(f"{count} {reason}" for reason, count in selection.counts.items()) or "it is empty"
        raise DataError(f"{source.name}: no photo to measure ({why}); give readable color photos, or another split")
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
            keys = count_of(len(unknown), "such key")
            raise DataError(f"{source.name} has no photo {unknown[0]!r} ({keys}); correct the list")
        reasons |= {item.key: NOT_LISTED for item in source.items if item.key not in choice.keys}
    items = [item for item in source.items if item.key not in reasons]
    return items, [LeftOut(key, reason) for key, reason in reasons.items()]


def select_photos(settings: EvaluationSettings, start_stage: StartStage) -> list[tuple[Source, Selection]]:
    """The held-out photos and, where asked for, as many that were seen in training, each with its source.

    Raises:
        DataError: no photo is left, a source or list of keys cannot be read, or a photo is both held out and seen.
    """
    choice = Choice(
        size_px=settings.size_px,
        limit=settings.limit,
        one_per_person=settings.one_per_person,
        split=settings.split,
        validation=settings.validation,
        split_seed=settings.split_seed,
        keys=None if settings.keys is None else _read_keys(Path(settings.keys)),
    )
    source = open_source(settings.source)
    held_out = select(source, choice, advance=start_stage("choosing photos", len(source.items)))
    if settings.seen is None:
        return [(source, held_out)]
    seen_source = open_source(settings.seen)
    half = "train" if settings.split == "validation" else "all"
    seen_choice = dataclasses.replace(choice, split=half, keys=None, limit=len(held_out.photos))
    advance = start_stage("choosing seen photos", len(seen_source.items))
    seen = select(seen_source, seen_choice, subset=SEEN, advance=advance)
    both = {photo.content for photo in held_out.photos} & {photo.content for photo in seen.photos}
    if both:
        photos = count_of(len(both), "photo is", "photos are")
        raise DataError(f"{photos} held out and seen in training; give --split validation, or other photos")
    return [(source, held_out), (seen_source, seen)]


def describe_protocol(settings: EvaluationSettings, selected: list[tuple[Source, Selection]]) -> dict[str, Any]:
    """What protocol.json holds of the settings: photos and models with their hashes, versions, seeds.

    Args:
        settings: of the evaluation.
        selected: what `select_photos` gave.
    """
    source, held_out = selected[0]
    described: dict[str, Any] = {
        "source": source.name,
        "kind": source.kind,
        "photos": len(held_out.photos),
        "content": held_out.digest,
        # Results may come and go between two calls, and are no photos of either
        "left_out": held_out.counts | {reason: n for reason, n in source.skipped.items() if reason != OWN_RESULT},
        "gray_threshold": MIN_CHROMA,
        "square_px": settings.size_px,
    }
    for seen_source, seen in selected[1:]:
        described["seen"] = {"source": seen_source.name, "photos": len(seen.photos), "content": seen.digest}
    described |= {name: getattr(settings, name) for name in SETTINGS}
    described["models"] = {model: weights_hash(model) for model in settings.models}
    described["results"] = dict(settings.results)
    described["bootstrap"] = f"{RESAMPLES} resamples, percentile intervals"
    versions = installed_versions(LIBRARIES)
    described["versions"] = {"chromatune": chromatune.__version__, "python": platform.python_version()} | versions
    return described


def center_square(rgb_u8: np.ndarray, size_px: int) -> np.ndarray:
    """The largest centerd square, resized: (H, W, 3) uint8 -> (size_px, size_px, 3) uint8."""
    return apply_crop(rgb_u8, center_crop(*rgb_u8.shape[:2]), size_px)


def content_of(rgb_u8: np.ndarray) -> str:
    """SHA-256 of a photo's size and pixels, hexadecimal."""
    return hashlib.sha256(repr(rgb_u8.shape).encode() + np.ascontiguousarray(rgb_u8).tobytes()).hexdigest()


def _examined(items: Iterable[PhotoItem], size_px: int, advance: Advance) -> list[tuple[PhotoItem, str, str, str]]:
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
        if is_monochrome(center_square(rgb_u8, size_px), MIN_CHROMA):
            return item, content, MONOCHROME, ""
        return item, content, "", ""

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(examine, items))


def _read_keys(path: Path) -> frozenset[str]:
    try:
        keys = frozenset(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path}: the list of keys cannot be read ({error}); give a UTF-8 text file") from error
    if not keys:
        raise DataError(f"{path}: the list of keys is empty; give one key a line")
    return keys
