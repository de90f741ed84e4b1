"""`training_data.json` of a model's folder: which photos it has seen, so that nobody tests on them unawares.

A photo is known by the first digits of the hash of its pixels, whatever its file is called and saved without loss: one
that was encoded again, scaled or cropped is another photo. A model lists its own sets after those of its ancestors.

{"format": 1, "base": MODEL, "sets": [{"set": NAME, "count": N, "hash": OF THE LIST, "photos": [12 digits, …]}, …]}

"base", if there is one, is a model that ships with the package; its sets come first, and are read from its folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from chromatune.errors import ModelError, count_of, printable, shown
from chromatune.files import atomic_write
from chromatune.options import first_problem
from chromatune.pipeline.checks import AGAIN, read_json
from chromatune.pipeline.model_files import TRAINING_DATA_FILE, ModelFiles, find_pipeline, is_embedded
from chromatune.pipeline.model_kinds import BlendFiles, find_model

PHOTO_DIGITS = 12  # among 20,000 photos trained on, one of a thousand others is mistaken once in ten million times
LONGEST_NAME = 200
LARGEST_BYTES = 64 << 20  # some four million photos


class _StoredSet(BaseModel):
    set: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
    count: Annotated[int, Field(ge=0, strict=True)]
    hash: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    photos: list[Annotated[str, Field(pattern=f"^[0-9a-f]{{{PHOTO_DIGITS}}}$")]]


class _Stored(BaseModel):
    format: Literal[1]
    base: Annotated[str, Field(max_length=LONGEST_NAME)] | None = None
    sets: Annotated[list[_StoredSet], Field(max_length=1000)]


@dataclass(frozen=True)
class TrainingSet:
    """Photos that a model was trained on, of one source.

    Attributes:
        name: of the source, at most 200 characters.
        count: how many it was trained on: more than `photos` where some are equal, not at hand, or in another set.
        photos: first `PHOTO_DIGITS` of each photo's content hash (`chromatune.data.content_of`), sorted.
    """

    name: str
    count: int
    photos: tuple[str, ...]

    @classmethod
    def of(cls, name: str, contents: Sequence[str], count: int | None = None) -> TrainingSet:
        """Return the set of photos with these content hashes, whole or cut to their first digits."""
        photos = tuple(sorted({content[:PHOTO_DIGITS] for content in contents}))
        return cls(printable(name)[:LONGEST_NAME] or "photos", len(contents) if count is None else count, photos)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the list."""
        return hashlib.sha256("\n".join(self.photos).encode()).hexdigest()[:16]


class Overlap(NamedTuple):
    """Photos to be measured that a model was trained on.

    Attributes:
        model: its name.
        photos: how many of them.
        of: how many are to be measured.
        sets: name of each set of its training that they are in ⇒ how many.
    """

    model: str
    photos: int
    of: int
    sets: dict[str, int]

    @property
    def warning(self) -> str:
        """What the reader of scores must know, in one line."""
        sets = ", ".join(f"{printable(name)}: {count}" for name, count in self.sets.items())
        return (
            f"{printable(self.model)}, or a model that it comes from, was trained on {self.photos} of the "
            f"{count_of(self.of, 'photo')} measured ({sets}): its scores there say little of new photos."
        )


def training_overlap(model: str, contents: Iterable[str]) -> Overlap | None:
    """Return which of the photos with these content hashes the model has seen, or None where it is none of them.

    Raises:
        ModelError: the model is unknown, or its list is damaged.
    """
    measured = [content[:PHOTO_DIGITS] for content in contents]
    photos_of: dict[str, set[str]] = {}
    for each in read_training_data(model):
        photos_of.setdefault(each.name, set()).update(each.photos)
    seen = set().union(*photos_of.values())
    count = sum(photo in seen for photo in measured)
    counts = {name: sum(photo in photos for photo in measured) for name, photos in photos_of.items()}
    return Overlap(model, count, len(measured), {name: n for name, n in counts.items() if n}) if count else None


def write_training_data(folder: Path, sets: Iterable[TrainingSet], *, base: str | None = None) -> None:
    """Write `training_data.json` of a model; sets that are there twice are written once.

    Args:
        folder: of the model.
        sets: those of its ancestors, then its own.
        base: a model that ships in the same package: sets that it has too are left to its file.

    Raises:
        ModelError: the base is unknown, or its list is damaged.
        OSError: it cannot be written.
    """
    listed = list(dict.fromkeys(sets))
    known = read_training_data(base) if base is not None else ()
    if known and set(known) <= set(listed):
        listed = [each for each in listed if each not in known]
    else:
        base = None
    rows = [{"set": each.name, "count": each.count, "hash": each.digest, "photos": each.photos} for each in listed]
    stored = {"format": 1, **({} if base is None else {"base": base}), "sets": rows}
    text = json.dumps(stored, ensure_ascii=False, separators=(",", ":"))
    atomic_write(folder / TRAINING_DATA_FILE, f"{text}\n".encode())


def read_training_data(name: str) -> tuple[TrainingSet, ...]:
    """Return the sets that the model `name` (see `load_pipeline`) says it has seen; none where it does not say.

    For a LoRA, what its base has seen is among them.

    Raises:
        ModelError: the model is unknown, or its list is damaged.
    """
    files = find_model(name)
    if isinstance(files, BlendFiles):
        both = (read_training_data(each.name) for each in (files.first, files.second))
        return tuple(dict.fromkeys(each for sets in both for each in sets))
    if not isinstance(files, ModelFiles):
        return ()
    folders = (files.pipeline_folder, *files.loras)
    return tuple(dict.fromkeys(each for folder in folders for each in _read_sets(name, folder)))


def _read_sets(name: str, folder: Path) -> Sequence[TrainingSet]:
    path = folder / TRAINING_DATA_FILE
    if not path.exists():
        return ()
    try:
        stored = _Stored.model_validate(read_json(path, LARGEST_BYTES))
    except ValidationError as error:
        raise ModelError(f"{name}: {TRAINING_DATA_FILE} has {first_problem(error)}; {AGAIN}") from None
    except ValueError as error:
        raise ModelError(f"{name}: {TRAINING_DATA_FILE} {error}; {AGAIN}") from None
    sets: list[TrainingSet] = []
    if stored.base is not None:
        # Only for the package's own models, among which there is no circle
        if not is_embedded(stored.base) or folder == find_pipeline(stored.base).path:
            problem = f"names {shown(stored.base)} as base, which does not ship with chromatune"
            raise ModelError(f"{name}: {TRAINING_DATA_FILE} {problem}; {AGAIN}")
        sets += read_training_data(stored.base)
    for row in stored.sets:
        found = TrainingSet(row.set, row.count, tuple(row.photos))
        if list(found.photos) != sorted(set(found.photos)) or found.count < len(row.photos) or found.digest != row.hash:
            problem = f"is cut or changed: {shown(row.set)} is not the list of its hash"
            raise ModelError(f"{name}: {TRAINING_DATA_FILE} {problem}; {AGAIN}")
        sets.append(found)
    return sets
