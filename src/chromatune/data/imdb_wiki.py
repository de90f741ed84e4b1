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

The file is read by a process of its own, with limited memory. scipy.io.loadmat runs no code of a file, but trusts its
sizes and types: a changed byte can cause a segmentation fault, or an array larger than the memory. Both end the reading
process only.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chromatune.data.items import PhotoItem, Source, file_item
from chromatune.errors import DataError, MissingExtraError, first_line, printable, shown

VARIABLES = ("imdb", "wiki")
TEXT_FIELDS = ("full_path", "name", "celeb_names")
NUMBER_FIELDS = ("dob", "photo_taken", "gender", "face_score", "second_face_score", "celeb_id")
DAYS_PER_YEAR = 365.2425
GONE, OUTSIDE = "named in the metadata, not on the disk", "outside the folder of the metadata"  # reasons
OLDEST_YEARS = 110  # dates of birth are read from web pages: some make a person 300, others unborn

MAX_MEMORY_BYTES = 8 * 2**30  # the largest published file, IMDB's, takes about one
MAX_SECONDS = 300

# -I: a module in the working directory, which may be untrusted, cannot replace one of Python's
READER = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from chromatune.data.imdb_wiki import answer_read; answer_read()"
)
NO_STRUCT = "no struct"
DAMAGED = (
    OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, AssertionError,
    EOFError, NameError, struct.error, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class ImdbWikiFilter:
    """Which photos of IMDB-WIKI to use.

    Attributes:
        count: how many, the same ones each time, drawn by the hash of their names; None takes all.
        min_face_score: lowest score of the one face; the detector's scores go from 0 to about 7.
    """

    count: int | None = None
    min_face_score: float = 1.0


def find_metadata(path: Path) -> list[Path]:
    """Return imdb.mat and wiki.mat at a path, in the folder there or one folder below."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".mat" else []
    names = [f"{name}.mat" for name in VARIABLES]
    return sorted(found for name in names for found in (*path.glob(name), *path.glob(f"*/{name}")))


def open_imdb_wiki(path: Path, wanted: ImdbWikiFilter | None = None) -> Source:
    """Open the photos with exactly one clear face of a known person; color and size are checked when they are read.

    Args:
        path: a .mat file, or a folder with imdb.mat, wiki.mat or both, in it or one folder below.
        wanted: the filter; by default `ImdbWikiFilter()`.

    Raises:
        DataError: no metadata, damaged metadata, or no photo left.
        MissingExtraError: scipy is not installed.
    """
    wanted = wanted or ImdbWikiFilter()
    metadata = find_metadata(path)
    if not metadata:
        raise DataError(
            f"{printable(str(path))}: no imdb.mat or wiki.mat; unpack imdb_crop.tar or wiki_crop.tar, give its folder"
        )
    root = path if path.is_dir() else path.parent
    skipped: Counter[str] = Counter()
    passing = [item for mat in metadata for item in _items(mat, root, wanted, skipped)]
    chosen = _choose(passing, wanted.count, skipped)
    if not chosen:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        raise DataError(
            f"{printable(str(path))}: no photo left ({reasons or 'none named'}); unpack the photos beside the .mat file"
        )
    items = tuple(sorted(chosen, key=lambda item: item.key))
    return Source(os.path.basename(os.path.abspath(root)), "imdb-wiki", items, None, dict(skipped))


def _choose(items: list[PhotoItem], count: int | None, skipped: Counter[str]) -> list[PhotoItem]:
    """The first `count` photos by hash that are on the disk: only as many files are looked for as are needed."""
    chosen: list[PhotoItem] = []
    items = sorted(items, key=lambda item: hashlib.sha256(os.fsencode(item.key)).digest())
    for index, item in enumerate(items):
        if count is not None and len(chosen) == count:
            skipped[f"beyond the first {count}"] += len(items) - index
            break
        if item.file is not None and os.path.isfile(item.file):  # False for a name too long, or with a null character
            chosen.append(item)
        else:
            skipped[GONE] += 1
    return chosen


def _items(mat: Path, root: Path, wanted: ImdbWikiFilter, skipped: Counter[str]) -> Iterator[PhotoItem]:
    """Yield the photos that pass the filter; `skipped` counts the others by the first reason that holds."""
    data = read_struct(mat, VARIABLES, TEXT_FIELDS, NUMBER_FIELDS)
    try:
        paths, persons = data["full_path"], _persons(data)
        score, second = _numbers(data["face_score"]), _numbers(data["second_face_score"])
        ages = _ages(_numbers(data["dob"]), _numbers(data["photo_taken"]))
        genders = [{0.0: "female", 1.0: "male"}.get(value) for value in _numbers(data["gender"])]
        rows = list(zip(paths, persons, score, second, ages, genders, strict=True))
    except (LookupError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        reason = shown(first_line(error))
        raise DataError(
            f"{printable(str(mat))}: not the metadata of IMDB-WIKI ({reason}); download it again"
        ) from error
    folder = mat.parent.relative_to(root)
    for name, person, face_score, second_score, age, gender in rows:
        if not np.isfinite(face_score):
            skipped["no face"] += 1
        elif face_score < wanted.min_face_score:
            skipped[f"face score below {wanted.min_face_score:g}"] += 1
        elif not np.isnan(second_score):
            skipped["more than one face"] += 1
        elif not person:
            skipped["person unknown"] += 1
        elif not _is_below(name):
            skipped[OUTSIDE] += 1
        else:
            yield file_item(mat.parent / name, (folder / name).as_posix(), person, age, gender)


def _is_below(name: str) -> bool:
    """Return whether a photo's path stays below the metadata's folder, and can be hashed and written."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    absolute = posixpath.isabs(name) or os.path.isabs(name) or bool(os.path.splitdrive(name)[0])
    return not absolute and posixpath.normpath(name.replace(os.sep, "/")).split("/")[0] not in ("..", ".")


def _persons(data: dict[str, list[Any]]) -> list[str]:
    """Return who is on each photo, "" if unknown: by name, since imdb and wiki number the same people differently."""
    persons = data["name"]
    if "celeb_id" in data:
        known = data.get("celeb_names", [])
        numbers = _numbers(data["celeb_id"])
        persons = [_celebrity(number, known) or name for number, name in zip(numbers, persons, strict=True)]
    return [" ".join(name.casefold().split()) for name in persons]


def _celebrity(number: float, known: Sequence[str]) -> str:
    if not 1 <= number < np.inf:  # NaN too
        return ""
    return (known[int(number) - 1] if number <= len(known) else "") or f"celebrity {int(number)}"


def _ages(born_days: np.ndarray, photo_year: np.ndarray) -> list[int | None]:
    """Years of life in the middle of the photo's year, which is all that is known of its date; None if impossible."""
    years = photo_year + 0.5 - born_days / DAYS_PER_YEAR
    return [int(age) if 0 <= age <= OLDEST_YEARS else None for age in years]


def _numbers(values: Sequence[float]) -> np.ndarray:
    return np.asarray(values, dtype=np.float64).reshape(-1)


def read_struct(
    path: Path, names: Sequence[str], text_fields: Sequence[str], number_fields: Sequence[str]
) -> dict[str, list[Any]]:
    """Read the fields of the one struct, each a flat list of texts or of floats; those that it lacks are missing.

    Args:
        path: a .mat file up to version 7.
        names: of the variable; the first one that is there is read.
        text_fields: cell arrays of texts; an empty cell is "".
        number_fields: arrays of numbers.

    Raises:
        DataError: the file cannot be read, or has no such struct.
        MissingExtraError: scipy is not installed.
    """
    try:
        import scipy.io  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("IMDB-WIKI", "train") from error
    label = printable(str(path))
    if not path.is_file():  # a pipe would be waited for
        raise DataError(f"{label}: is no file; give the .mat file of the data set")
    paths = [os.path.abspath(folder) for folder in sys.path if folder]
    command = [sys.executable, "-I", "-c", READER, json.dumps(paths)]
    wanted = json.dumps([os.fsdecode(path.absolute()), list(names), list(text_fields), list(number_fields)])
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # each thread would take from the memory it may have
    try:
        done = subprocess.run(
            command, input=wanted.encode(), capture_output=True, timeout=MAX_SECONDS, env=environment, check=False
        )
        answer: dict[str, Any] = (
            json.loads(done.stdout) if done.returncode == 0 else {"error": "it is damaged or too large"}
        )
    except subprocess.TimeoutExpired:
        answer = {"error": f"not read after {MAX_SECONDS} seconds"}
    if answer.get("error") == NO_STRUCT:
        raise DataError(f"{label}: holds no struct {' or '.join(map(repr, names))}; download it again")
    if "error" in answer:
        raise DataError(f"{label}: cannot be read as a .mat file ({answer['error']}); download it again")
    return answer["fields"]


def answer_read() -> None:
    """Read the file named on standard input, in a process of its own; request and answer are JSON."""
    path, names, text_fields, number_fields = json.loads(sys.stdin.buffer.read())
    _limit_memory()
    try:
        answer: dict[str, Any] = {"fields": fields_of(path, names, text_fields, number_fields)}
    except MemoryError:
        answer = {"error": "it does not fit into memory"}
    except DataError as error:
        answer = {"error": str(error)}
    sys.stdout.buffer.write(json.dumps(answer).encode())


def fields_of(
    path: str, names: Sequence[str], text_fields: Sequence[str], number_fields: Sequence[str]
) -> dict[str, list[Any]]:
    """Read what `read_struct` returns in this process.

    Raises:
        DataError: its message is the reason, without the file's name.
    """
    from scipy.io import loadmat

    try:
        variables = loadmat(path, variable_names=names)
        found = next((variables[name] for name in names if name in variables), None)
        if not isinstance(found, np.ndarray) or found.dtype.names is None or found.size != 1:
            raise DataError(NO_STRUCT)
        row = found.reshape(-1)[0]
        fields: dict[str, list[Any]] = {name: _texts(row[name]) for name in text_fields if name in found.dtype.names}
        numbers = [name for name in number_fields if name in found.dtype.names]
        return fields | {name: np.asarray(row[name], dtype=np.float64).reshape(-1).tolist() for name in numbers}
    except DAMAGED as error:
        raise DataError(shown(getattr(error, "strerror", None) or first_line(error))) from error


def _texts(cells: Any) -> list[str]:
    """A MATLAB cell array of texts; an empty cell is an empty array."""
    return [str(np.asarray(cell).reshape(-1)[0]) if np.size(cell) else "" for cell in np.asarray(cells).reshape(-1)]


def _limit_memory() -> None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = MAX_MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MAX_MEMORY_BYTES, most)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (wanted, most))
    except (OSError, ValueError):  # macOS knows the limit and does not take it
        return
