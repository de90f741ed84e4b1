"""IMDB-WIKI from its published archives: photos of people, filtered by the metadata in imdb.mat and wiki.mat.

Rothe, Timofte, Van Gool 2018, https://data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki/. A .mat file lies beside the folders
00, 01 ... of photos that it names, whether the archive holds whole photos or face crops. Its one variable, `imdb` or
`wiki`, is a struct whose fields have an entry for each photo:

dob                 date of birth, days since year 0 (MATLAB's date numbers)
photo_taken         year of the photo
full_path           file, relative to the .mat file
gender              0 female, 1 male, NaN unknown
name                of the person, may be empty
face_score          of the best face found; -Inf if there is none
second_face_score   of the next face; NaN if there is none
celeb_id            number of the person, from 1, and
celeb_names         names by that number: imdb only
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chromatune.data.items import Source, file_item
from chromatune.errors import DataError, MissingExtraError

IMDB_WIKI_DEFAULT_COUNT = 766  # as many as the paper trained with (arXiv 2312.04780)
VARIABLES = ("imdb", "wiki")
DAYS_PER_YEAR = 365.2425
OLDEST_YEARS = 110  # dates of birth are read from web pages: some make a person 300, others unborn


@dataclass(frozen=True)
class ImdbWikiFilter:
    """Which photos of IMDB-WIKI to take.

    Attributes:
        count: how many, the same ones each time, drawn by the hash of their names; None takes all.
        min_face_score: lowest score of the one face; the detector's scores go from 0 to about 7.
    """

    count: int | None = IMDB_WIKI_DEFAULT_COUNT
    min_face_score: float = 1.0


@dataclass(frozen=True)
class _Entry:
    """A photo that the metadata lets through."""

    key: str
    path: Path
    person: str
    age: int | None
    gender: str | None


def find_metadata(path: Path) -> list[Path]:
    """imdb.mat and wiki.mat at a path, in the folder there or one folder below."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".mat" else []
    names = [f"{name}.mat" for name in VARIABLES]
    return sorted(found for name in names for found in (*path.glob(name), *path.glob(f"*/{name}")))


def open_imdb_wiki(path: Path, wanted: ImdbWikiFilter | None = None) -> Source:
    """Photos with exactly one clear face of a known person; colour and size are judged when they are read.

    Args:
        path: a .mat file, or a folder with imdb.mat, wiki.mat or both, in it or one folder below.
        wanted: what to take; by default `ImdbWikiFilter()`.

    Raises:
        DataError: no metadata, damaged metadata, or no photo left.
        MissingExtraError: scipy is not installed.
    """
    wanted = wanted or ImdbWikiFilter()
    metadata = find_metadata(path)
    if not metadata:
        raise DataError(f"{path}: no imdb.mat or wiki.mat; unpack imdb_crop.tar or wiki_crop.tar and give its folder")
    root = path if path.is_dir() else path.parent
    left_out: Counter[str] = Counter()
    entries = [entry for mat in metadata for entry in _entries(mat, root, wanted, left_out)]
    chosen = _choose(entries, wanted.count, left_out)
    if not chosen:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise DataError(f"{path}: no photo left ({reasons or 'none named'}); unpack the photos beside the .mat file")
    items = [
        file_item(entry.path, entry.key, entry.person, entry.age, entry.gender)
        for entry in sorted(chosen, key=lambda entry: entry.key)
    ]
    return Source(os.path.basename(os.path.abspath(root)), "imdb-wiki", tuple(items), None, dict(left_out))


def _choose(entries: list[_Entry], count: int | None, left_out: Counter[str]) -> list[_Entry]:
    """The first `count` photos by hash that are on the disk: only as many files are looked for as are needed."""
    chosen: list[_Entry] = []
    entries = sorted(entries, key=lambda entry: hashlib.sha256(os.fsencode(entry.key)).digest())
    for index, entry in enumerate(entries):
        if count is not None and len(chosen) == count:
            left_out[f"beyond the first {count}"] += len(entries) - index
            break
        if entry.path.is_file():
            chosen.append(entry)
        else:
            left_out["named in the metadata, not on the disk"] += 1
    return chosen


def _entries(mat: Path, root: Path, wanted: ImdbWikiFilter, left_out: Counter[str]) -> Iterator[_Entry]:
    """What the metadata lets through; `left_out` counts the others by the first reason that holds."""
    data = _load(mat)
    try:
        paths, persons = _texts(data["full_path"]), _persons(data)
        score, second = _numbers(data["face_score"]), _numbers(data["second_face_score"])
        ages = _ages(_numbers(data["dob"]), _numbers(data["photo_taken"]))
        genders = [{0.0: "female", 1.0: "male"}.get(value) for value in _numbers(data["gender"])]
        rows = list(zip(paths, persons, score, second, ages, genders, strict=True))
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{mat}: not the metadata of IMDB-WIKI ({error}); download it again") from error
    folder = mat.parent.relative_to(root)
    for name, person, face_score, second_score, age, gender in rows:
        if not np.isfinite(face_score):
            left_out["no face"] += 1
        elif face_score < wanted.min_face_score:
            left_out[f"face score below {wanted.min_face_score:g}"] += 1
        elif not np.isnan(second_score):
            left_out["more than one face"] += 1
        elif not person:
            left_out["person unknown"] += 1
        else:
            yield _Entry((folder / name).as_posix(), mat.parent / name, person, age, gender)


def _load(mat: Path) -> dict[str, Any]:
    """Fields of the one struct in a .mat file."""
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError as error:
        raise MissingExtraError("IMDB-WIKI", "train") from error
    try:
        variables = loadmat(mat, variable_names=VARIABLES)
    except (ValueError, TypeError, NotImplementedError, EOFError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{mat}: cannot be read as a .mat file ({reason}); download it again") from error
    except OSError as error:
        raise DataError(f"{mat}: cannot be opened ({error.strerror or error}); check its rights") from error
    struct = next((variables[name] for name in VARIABLES if name in variables), None)
    if struct is None or struct.dtype.names is None or struct.size != 1:
        raise DataError(f"{mat}: holds no struct 'imdb' or 'wiki'; download it again")
    row = struct.reshape(-1)[0]
    return {name: row[name] for name in struct.dtype.names}


def _persons(data: dict[str, Any]) -> list[str]:
    """Who is on each photo, "" if unknown: by name, for imdb and wiki number people apart and share many of them."""
    persons = _texts(data["name"])
    if "celeb_id" in data:
        known = _texts(data["celeb_names"]) if "celeb_names" in data else []
        numbers = _numbers(data["celeb_id"])
        persons = [_celebrity(number, known) or name for number, name in zip(numbers, persons, strict=True)]
    return [" ".join(name.casefold().split()) for name in persons]


def _celebrity(number: float, known: Sequence[str]) -> str:
    if not number >= 1:  # NaN too
        return ""
    return (known[int(number) - 1] if number <= len(known) else "") or f"celebrity {int(number)}"


def _ages(born_days: np.ndarray, photo_year: np.ndarray) -> list[int | None]:
    """Years of life in the middle of the photo's year, which is all that is known of its date; None if impossible."""
    years = photo_year + 0.5 - born_days / DAYS_PER_YEAR
    return [int(age) if 0 <= age <= OLDEST_YEARS else None for age in years]


def _numbers(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float64).reshape(-1)


def _texts(cells: np.ndarray) -> list[str]:
    """A MATLAB cell array of texts; an empty cell is an empty array."""
    return [str(np.asarray(cell).reshape(-1)[0]) if np.size(cell) else "" for cell in np.asarray(cells).reshape(-1)]
