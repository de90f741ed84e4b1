"""What is measured: photos with the squares compared, those that are skipped and why, methods and the rows they give.

Which photos a limit leaves depends on their pixels alone, never on their names or order: lowest SHA-256 first. Every
photo of the split is decoded once for it. Squares of as many as fit into `SQUARES_BYTES` stay decoded until they are
scored and shown; only the others are decoded again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any

import numpy as np

from chromatune.data import (
    MONOCHROME,
    TOO_SMALL,
    PhotoItem,
    SkippedPhoto,
    Source,
    content_of,
    is_monochrome,
    open_source,
    read_rgb,
    smallest_side_px,
    split_source,
)
from chromatune.errors import DataError, OptionsError, PhotoError, count_of
from chromatune.evaluation.settings import EvaluationSettings
from chromatune.evaluation.squares import CENTER, Square, make_square, square_of
from chromatune.files import read_regular
from chromatune.images import IMAGE_SUFFIXES
from chromatune.options import Advance, StartStage

HELD_OUT, SEEN = "held-out", "seen"  # the two subsets of photos: not trained on, and trained on
MIN_CHROMA = 4.0  # mean CIELAB chroma under which a truth counts as gray
READERS = 4
LARGEST_KEYS_BYTES = 256 << 20  # of a list of keys, one a line
SQUARES_BYTES = 512 * 2**20  # of decoded squares in memory: 2,730 photos at 256 pixels

UNREADABLE, OTHER_SPLIT, NOT_LISTED = "unreadable", "other split", "not in the list of keys"
REPEATED, SAME_PERSON, OVER_LIMIT = "repeated", "same person", "over the limit"

GRAY_METHOD = "gray"  # the input handed back: what every other row must beat
NO_MODEL = "no model"  # the method whose only colors are the hints
_WITH_HINTS = re.compile(r"^(.*), ([1-9]\d*) hints?$")  # the name of results whose tool was given hints

Record = dict[str, Any]  # a line of rows.jsonl: `RECORD_KEYS`, and scores by name or "failed" with the reason
RECORD_TYPES = {"method": str, "hints": int, "raw": bool, "subset": str, "key": str}
RECORD_KEYS = tuple(RECORD_TYPES)


@dataclass(frozen=True)
class ChosenPhoto:
    """A photo that is measured.

    Attributes:
        key: its name in the source.
        content: SHA-256 of its pixels at full size, hexadecimal.
        subset: `HELD_OUT`, or `SEEN` for a photo that a model was trained on.
        read: gives (H, W, 3) uint8 sRGB at full size, or raises `PhotoError`.
        square: decoded when the photo was chosen; None where it did not fit into memory.
    """

    key: str
    content: str
    subset: str
    read: Callable[[], np.ndarray]
    square: Square | None = field(default=None, compare=False, repr=False)

    def open_square(self, size_px: int, how: str = CENTER) -> Square:
        """Return the square of side `size_px`, see `make_square`, decoded again where it is not in memory.

        Raises:
            DataError: the photo cannot be read any more, or has other pixels than when it was chosen.
        """
        if self.square is not None:
            return self.square
        try:
            rgb_u8 = self.read()
        except PhotoError as error:
            raise DataError(f"{self.key}: could be read when it was chosen and cannot any more ({error})") from error
        if content_of(rgb_u8) != self.content:
            raise DataError(
                f"{self.key}: has changed while it was being measured; leave the source alone and start again"
            )
        return square_of(rgb_u8, size_px, how)


@dataclass(frozen=True)
class Selection:
    """The photos of one source that are measured, lowest content hash first, and all others with a reason each."""

    photos: tuple[ChosenPhoto, ...]
    skipped: tuple[SkippedPhoto, ...]

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 over the contents of the measured photos."""
        return hashlib.sha256("".join(photo.content for photo in self.photos).encode()).hexdigest()[:16]

    @property
    def counts(self) -> dict[str, int]:
        """Number of skipped photos, by reason."""
        return dict(sorted(Counter(photo.reason for photo in self.skipped).items()))


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
        square: how a photo becomes a square, see `make_square`.
        every_photo: also gray, small and repeated photos, as published protocols have them.
    """

    size_px: int
    limit: int | None = None
    one_per_person: bool = False
    split: str = "all"
    validation: float | int = 0.1
    split_seed: int = 0
    keys: frozenset[str] | None = None
    square: str = CENTER
    every_photo: bool = False


def select_photos(
    settings: EvaluationSettings, start_stage: StartStage, keys: frozenset[str] | None = None
) -> list[tuple[Source, Selection]]:
    """Return the held-out photos and, with `settings.seen`, as many that were seen in training, each with its source.

    Args:
        settings: which photos.
        start_stage: shows progress.
        keys: only these photos, instead of those that the settings' file lists.

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
        keys=_read_keys(Path(settings.keys)) if keys is None and settings.keys is not None else keys,
        square=settings.square,
        every_photo=settings.every_photo,
    )
    source = open_source(settings.source)
    most = SQUARES_BYTES // (3 * settings.size_px**2)
    advance = start_stage("choosing photos", len(source.items))
    held_out = select(source, choice, squares=most, advance=advance)
    if settings.seen is None:
        return [(source, held_out)]
    seen_source = open_source(settings.seen)
    half = "train" if settings.split == "validation" else "all"
    seen_choice = dataclasses.replace(choice, split=half, keys=None, limit=len(held_out.photos))
    most -= sum(photo.square is not None for photo in held_out.photos)
    advance = start_stage("choosing seen photos", len(seen_source.items))
    seen = select(seen_source, seen_choice, subset=SEEN, squares=most, advance=advance)
    both = {photo.content for photo in held_out.photos} & {photo.content for photo in seen.photos}
    if both:
        photos = count_of(len(both), "photo is", "photos are")
        raise DataError(f"{photos} held out and seen in training; give --split validation, or other photos")
    return [(source, held_out), (seen_source, seen)]


def select(
    source: Source, choice: Choice, *, subset: str = HELD_OUT, squares: int = 0, advance: Advance = lambda: None
) -> Selection:
    """Return the photos to measure; each other photo of the source is skipped, for one reason.

    Args:
        source: photos with their persons, where known.
        choice: how to choose.
        subset: what to call these photos.
        squares: of at most this many photos the square stays decoded.
        advance: called once for each photo that is examined.

    Raises:
        DataError: no photo is left, or a listed key is not in the source.
    """
    items, skipped = _in_split(source, choice)
    chosen: list[ChosenPhoto] = []
    contents: set[str] = set()
    persons: set[str] = set()
    decoded = _LowestSquares(squares)
    # an unreadable photo has no content, and so comes first
    for item, content, reason, detail in sorted(
        _examine(items, choice, decoded, advance), key=lambda examined: (examined[1], examined[0].key)
    ):
        if not reason and content in contents and not choice.every_photo:
            reason = REPEATED
        if not reason and choice.one_per_person and item.person in persons:
            reason = SAME_PERSON
        if not reason and choice.limit is not None and len(chosen) == choice.limit:
            reason = OVER_LIMIT
        if reason:
            skipped.append(SkippedPhoto(item.key, reason, detail))
            continue
        contents.add(content)
        if item.person is not None:
            persons.add(item.person)
        chosen.append(ChosenPhoto(item.key, content, subset, item.read, decoded.get(content)))
    selection = Selection(tuple(chosen), tuple(skipped))
    if not chosen:
        why = ", ".join(f"{count} {reason}" for reason, count in selection.counts.items()) or "it is empty"
        raise DataError(f"{source.name}: no photo to measure ({why}); give readable color photos, or another split")
    return selection


def _in_split(source: Source, choice: Choice) -> tuple[list[PhotoItem], list[SkippedPhoto]]:
    """Return the items to examine, and those that are skipped by name alone."""
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
    return items, [SkippedPhoto(key, reason) for key, reason in reasons.items()]


class _LowestSquares:
    """Squares of the photos with the lowest content hashes, which a limit leaves: memory stays bounded."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._squares: dict[str, Square] = {}
        self._highest_first: list[tuple[int, str]] = []
        self._lock = Lock()

    def add(self, content: str, square: Square) -> None:
        """Store a photo's square until there are too many of lower hashes."""
        with self._lock:
            if content in self._squares:
                return
            self._squares[content] = square
            heapq.heappush(self._highest_first, (-int(content, 16), content))
            if len(self._squares) > self._most:
                del self._squares[heapq.heappop(self._highest_first)[1]]

    def get(self, content: str) -> Square | None:
        """Return the photo's square, if it is stored."""
        return self._squares.get(content)


def _examine(
    items: Iterable[PhotoItem], choice: Choice, squares: _LowestSquares, advance: Advance
) -> list[tuple[PhotoItem, str, str, str]]:
    """Return each item with its content hash, and the reason and detail if the photo itself cannot be measured."""

    def examine(item: PhotoItem) -> tuple[PhotoItem, str, str, str]:
        try:
            rgb_u8 = item.read()
        except PhotoError as error:
            return item, "", UNREADABLE, str(error)
        finally:
            advance()
        content, short_px = content_of(rgb_u8), min(rgb_u8.shape[:2])
        if short_px < smallest_side_px(choice.size_px) and not choice.every_photo:
            return item, content, TOO_SMALL, f"short side {short_px} px"
        square = square_of(rgb_u8, choice.size_px, choice.square)
        if not choice.every_photo and is_monochrome(square.rgb_u8, MIN_CHROMA):
            return item, content, MONOCHROME, ""
        squares.add(content, square)
        return item, content, "", ""

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(examine, items))


def _read_keys(path: Path) -> frozenset[str]:
    try:
        text = read_regular(path, LARGEST_KEYS_BYTES).decode("utf-8")
        keys = frozenset(line.strip() for line in text.splitlines() if line.strip())
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path}: the list of keys cannot be read ({error}); give a UTF-8 text file") from error
    if not keys:
        raise DataError(f"{path}: the list of keys is empty; give one key a line")
    return keys


@dataclass(frozen=True)
class Row:
    """A row of the tables.

    Attributes:
        method: name of the method, without hints.
        hints: number of hints of the truth; 0 without.
        raw: what the model or tool gave; else its color with the photo's own luminance.
    """

    method: str
    hints: int = 0
    raw: bool = False

    @property
    def name(self) -> str:
        """The row's name in tables, such as "mini, 3 hints" or "mini, raw"."""
        hints = f", {count_of(self.hints, 'hint')}" if self.hints else ""
        return f"{self.method}{hints}{', raw' if self.raw else ''}"

    @property
    def fields(self) -> dict[str, Any]:
        """The row in a line of rows.jsonl or summary.json."""
        return {"method": self.method, "hints": self.hints, "raw": self.raw}


def row_of(record: Mapping[str, Any]) -> Row:
    """Return the row of a line of rows.jsonl or summary.json."""
    return Row(record["method"], record["hints"], record["raw"])


def scored_by_row(records: Iterable[Record], subset: str) -> dict[Row, dict[str, Record]]:
    """Return the records with scores of one subset of the photos: row ⇒ key ⇒ record."""
    scored: dict[Row, dict[str, Record]] = {}
    for record in records:
        if record["subset"] == subset and "failed" not in record:
            scored.setdefault(row_of(record), {})[record["key"]] = record
    return scored


@dataclass(frozen=True)
class Method:
    """One way to colorize, run once over the photos; a model or another tool gives a recomposed and a raw row.

    Attributes:
        name: of the method, without hints.
        model: name to load, or None.
        folder: of result files, or None.
        steps: sampling steps; None means the model's own.
        prompt: instruction; None means the model's own.
        hints: number of hints of the truth; 0 without.
        best_of: seeds that are tried for each photo; of their results, the one nearest the truth counts.
    """

    name: str
    model: str | None = None
    folder: str | None = None
    steps: int | None = None
    prompt: str | None = None
    hints: int = 0
    best_of: int = 1

    @property
    def knows_truth(self) -> bool:
        """Whether the truth had a say in the results: no such method is compared with one that is without."""
        return self.hints > 0 or self.best_of > 1

    @property
    def row(self) -> Row:
        """The recomposed row, by whose name the method is called."""
        return Row(self.name, self.hints)

    @property
    def rows(self) -> tuple[Row, ...]:
        """Recomposed, then raw; gray is both, and what we color with hints is never raw."""
        alone = self.name == GRAY_METHOD or (self.hints > 0 and self.folder is None)
        return (self.row,) if alone else (self.row, replace(self.row, raw=True))


def plan_methods(settings: EvaluationSettings) -> list[Method]:
    """Return gray passthrough, then every model at each prompt and number of steps, then other tools' results.

    Raises:
        OptionsError: two rows would have one name.
    """
    methods = [Method(GRAY_METHOD)]
    short = {model: Path(model).name or model for model in settings.models}
    for model in settings.models:
        name = short[model] if list(short.values()).count(short[model]) == 1 else model
        for prompt in settings.prompts or (None,):
            for steps in settings.steps or (None,):
                words = [name]
                if prompt is not None and len(settings.prompts) > 1:
                    words.append(f"“{prompt}”")
                if steps is not None:
                    words.append(count_of(steps, "step"))
                plain = Method(", ".join(words), model=model, steps=steps, prompt=prompt)
                methods.append(plain)
                methods += [replace(plain, hints=count) for count in settings.hints if count]
                if settings.best_of > 1:
                    best = f"{plain.name}, best of {settings.best_of}"
                    methods.append(replace(plain, name=best, best_of=settings.best_of))
    methods += [Method(NO_MODEL, hints=count) for count in settings.hints if count]
    for name, folder in settings.results:
        found = _WITH_HINTS.match(name)
        given, hints = (found[1], int(found[2])) if found else (name, 0)
        methods.append(Method(given, folder=folder, hints=hints))
    rows = [row.name for method in methods for row in method.rows]
    for name in rows:
        if rows.count(name) > 1:
            raise OptionsError(f"two rows would be called {name!r}; give the results another name")
    return methods


class ResultFiles:
    """The image files below a folder, found by a photo's key or, where one photo and one file have it, by its stem."""

    def __init__(self, folder: str, keys: Iterable[str] = ()) -> None:
        """List the folder; of all photos that are measured, `keys`, a stem that several have names none.

        Raises:
            DataError: it does not exist.
        """
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise DataError(f"{folder}: no such folder of results; check --results")
        paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        self._photos_called = Counter(PurePosixPath(key).stem for key in keys)
        self._by_key: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        for path in paths:
            self._by_key.setdefault(path.relative_to(root).with_suffix("").as_posix(), []).append(path)
            self._by_stem.setdefault(path.stem, []).append(path)

    def find(self, key: str) -> Path:
        """Return the file of the photo `key`.

        Raises:
            PhotoError: there is none, or more than one that it could be.
        """
        name = PurePosixPath(key)
        found = self._by_key.get(name.with_suffix("").as_posix())
        if found is None and (found := self._by_stem.get(name.stem)) and self._photos_called[name.stem] > 1:
            photos = self._photos_called[name.stem]
            raise PhotoError(f"ambiguous: {photos} photos are called {name.stem}; keep their folders in the results")
        if found is None:
            raise PhotoError("missing")
        if len(found) > 1:
            raise PhotoError(f"ambiguous: {len(found)} files called {found[0].stem}")
        return found[0]

    def read(self, key: str, size_px: int, full_size: tuple[int, int], how: str = CENTER) -> np.ndarray:
        """Return the result for a photo, (S, S, 3) uint8 sRGB.

        A file of the square's size is used as it is; of one of the whole photo's size, the same square is made.
        Any other size would have to be stretched, and then its pixels would lie elsewhere than the truth's.

        Args:
            key: of the photo.
            size_px: S, the side of the squares that are compared.
            full_size: height and width of the whole photo, in pixels.
            how: the squares are made, see `make_square`.

        Raises:
            PhotoError: the file is missing, ambiguous, unreadable, or of another size.
        """
        path = self.find(key)
        rgb_u8 = read_rgb(path, path.name)
        height, width = rgb_u8.shape[:2]
        if (height, width) == (size_px, size_px):
            return rgb_u8
        if (height, width) == full_size:
            return make_square(rgb_u8, size_px, how)
        accepted = f"{size_px} x {size_px} or {full_size[1]} x {full_size[0]}"
        raise PhotoError(f"is {width} x {height} px; accepted: {accepted}")
