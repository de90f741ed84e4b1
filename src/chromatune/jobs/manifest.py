"""The table of an archive's photos, in its destination: whole at whatever moment its process is killed.

`ResultNames` gives each photo the name of its result, for good.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from chromatune.errors import DataError, first_line, printable, shown
from chromatune.files import is_key, open_regular, refuse_link
from chromatune.images import IMAGE_SUFFIXES, format_for, suffix_for
from chromatune.jobs.planning import ORDINARY_PHOTO

FILE_NAME = "manifest.sqlite"
FAILURES_FILE = "failures.jsonl"  # beside the results, for people and programs: the rows of photos that failed
FORMAT = 1  # of the table
COMMIT_SECONDS = 1.0  # what a kill costs at most, as work done again
LOCK_TIMEOUT_SECONDS = 60  # for another program that reads the table
LONGEST_NAME_BYTES = 255  # of a file on nearly all systems
OTHER_SUFFIX = ".png"  # holds every result
# What a table may be, that anybody may have left: more is damaged
MOST_BYTES = 1_000_000_000  # of its file: some four million photos
MOST_VALUE_BYTES = 1_000_000  # of one text in it
MOST_NUMBER = 2**53  # of pixels and bytes
LINKED_JOURNAL = bytes.fromhex("d9d505f920a163d7")  # ends a journal that names a file which SQLite then deletes

# Names are blobs: on a disk they need not be valid text
TABLE = """
CREATE TABLE IF NOT EXISTS photos (
    photo BLOB PRIMARY KEY,
    state TEXT NOT NULL,
    stamp TEXT NOT NULL,
    content TEXT NOT NULL,
    settings TEXT NOT NULL,
    result BLOB NOT NULL,
    result_bytes INTEGER NOT NULL,
    pixels INTEGER NOT NULL,
    message TEXT NOT NULL,
    warnings TEXT NOT NULL,
    finished_at TEXT NOT NULL
)
"""
COLUMNS = "photo, state, stamp, content, settings, result, result_bytes, pixels, message, warnings"
MADE_AS = "".join(TABLE.replace("IF NOT EXISTS", "").split())  # as SQLite keeps it, but for white space
PUT = f"INSERT OR REPLACE INTO photos ({COLUMNS}, finished_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


State = Literal["done", "failed", "skipped", "copied"]


@dataclass(frozen=True)
class Row:
    """The outcome of a photo.

    Attributes:
        photo: its key.
        state: "done" or "failed"; "skipped" or "copied" where the photo is in color already.
        stamp: of the photo and its layer, as they were.
        content: hash of both; of the result that is there.
        settings: key of all that decides a result's pixels beside them; of the result that is there.
        result: key of the result; "" for none.
        result_bytes: its size.
        pixels: of the photo.
        message: of a photo that failed.
        warnings: a line each.
    """

    photo: str
    state: State
    stamp: str
    content: str = ""
    settings: str = ""
    result: str = ""
    result_bytes: int = 0
    pixels: int = 0
    message: str = ""
    warnings: tuple[str, ...] = ()


class Manifest:
    """The table. One process at a time writes it: the one that has locked the destination."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        """Open the table in a folder, made if missing; read-only, nothing is written, and a missing one is empty.

        Raises:
            DataError: it is damaged, of a newer version, or cannot be written.
        """
        self.path = folder / FILE_NAME
        self._committed_at = time.monotonic()
        _check_files(self.path)
        with self._as_data_errors():
            if read_only:
                known = self.path.exists()
                # rw: SQLite rolls back what a killed process left half-written, on the next opening
                uri = f"{self.path.absolute().as_uri()}?mode=rw" if known else ":memory:"
                self._table = sqlite3.connect(uri, uri=known, timeout=LOCK_TIMEOUT_SECONDS)
            else:
                self._table = sqlite3.connect(self.path, timeout=LOCK_TIMEOUT_SECONDS)
            self._table.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_VALUE_BYTES)
            self._table.execute("PRAGMA trusted_schema = OFF")
            self._table.execute("PRAGMA cell_size_check = ON")
            # A rollback journal: the write-ahead log needs memory that processes share, which network drives have not
            (format_number,) = self._table.execute("PRAGMA user_version").fetchone()
            if format_number not in (0, FORMAT):
                raise DataError(
                    f"{self._label}: made by a newer version of chromatune; update it, or give another DEST"
                )
            # No view, no trigger, no expression: what is read and written is this table alone. A hard link may have put
            # another program's tables here, so nothing is written before
            made_as = self._table.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchmany(2)
            if ["".join(str(sql).split()) for (sql,) in made_as] not in ([], [MADE_AS]):
                raise ValueError("it is not a table of photos")
            if not read_only or not self.path.exists():
                self._table.execute("PRAGMA journal_mode = DELETE")
                self._table.execute("PRAGMA synchronous = FULL")
                self._table.execute(TABLE)
                self._table.execute(f"PRAGMA user_version = {FORMAT}")
                self._table.commit()

    def rows(self) -> Iterator[Row]:
        """Yield all rows, sorted by photo.

        Raises:
            DataError: one is not what this class writes, or two photos have one result.
        """
        results = set[str]()
        with self._as_data_errors():
            for values in self._table.execute(f"SELECT {COLUMNS} FROM photos ORDER BY photo"):
                row = _checked_row(*values)
                if row.result:
                    if _folded(row.result) in results:
                        raise ValueError(f"two photos have the result {shown(row.result)}")
                    results.add(_folded(row.result))
                yield row

    def put(self, row: Row) -> None:
        """Write a row; it is on the disk a second later, or after `commit`.

        Raises:
            DataError: it cannot be written.
        """
        values = (row.state, row.stamp, row.content, row.settings, os.fsencode(row.result), row.result_bytes)
        message = row.message.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")  # may hold a name
        texts = (message, json.dumps(row.warnings), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        with self._as_data_errors():
            self._table.execute(PUT, (os.fsencode(row.photo), *values, row.pixels, *texts))
        if time.monotonic() - self._committed_at > COMMIT_SECONDS:
            self.commit()

    def forget(self, photos: Iterable[str]) -> None:
        """Delete rows."""
        with self._as_data_errors():
            self._table.executemany("DELETE FROM photos WHERE photo = ?", [(os.fsencode(each),) for each in photos])

    def commit(self) -> None:
        """Bring all rows to the disk.

        Raises:
            DataError: they cannot be written.
        """
        with self._as_data_errors():
            self._table.commit()
        self._committed_at = time.monotonic()

    def close(self) -> None:
        """Close the file; rows that were not committed are dropped."""
        self._table.close()

    @property
    def _label(self) -> str:
        return printable(str(self.path))

    @contextmanager
    def _as_data_errors(self) -> Iterator[None]:
        """Raise what SQLite finds as a `DataError` of one line."""
        try:
            yield
        except sqlite3.OperationalError as error:  # the disk is full, gone, not to be written to
            folder = self.path.parent.parent
            if not self.path.exists():
                raise DataError(
                    f"{printable(str(folder))} is gone: it was deleted, or its drive was disconnected"
                ) from error
            raise DataError(
                f"{self._label}: cannot be read or written ({first_line(error)}); check the disk"
            ) from error
        except (sqlite3.DatabaseError, ValueError, RecursionError) as error:
            raise DataError(
                f"{self._label} is damaged ({first_line(error)}); delete it, and all photos are colorized again"
            ) from error


def _check_files(path: Path) -> None:
    """Check what SQLite will open, before it does.

    Raises:
        DataError: a link is in the place of a file or of their folder, or one is no file, too large, or a journal of
            more than a table.
    """
    advice = "delete it, and all photos are colorized again"
    for each in (path.parent, path, path.with_name(f"{path.name}-journal")):
        label = printable(str(each))
        try:
            refuse_link(each)
            if each == path.parent:
                continue
            with open_regular(each, follow_link=False) as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(-min(size, len(LINKED_JOURNAL)), os.SEEK_END)
                if size > MOST_BYTES or file.read() == LINKED_JOURNAL:
                    raise DataError(f"{label} is damaged (it is too large, or names another file); {advice}")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DataError(f"{label}: cannot be read ({error.strerror}); {advice}") from error


def _checked_row(
    photo: Any, state: Any, stamp: Any, content: Any, settings: Any, result: Any, size: Any, pixels: Any, message: Any,
    warnings: Any,
) -> Row:  # fmt: skip
    """Return a row of the table, where it is one that `Manifest.put` may have written.

    Raises:
        ValueError: it is not.
    """
    if not (isinstance(photo, bytes) and isinstance(result, bytes)):
        raise ValueError("it has an invalid name")
    names = os.fsdecode(photo), os.fsdecode(result)
    label = f"the row of {shown(names[0])}"
    if state not in get_args(State) or not all(isinstance(each, str) for each in (stamp, content, settings, message)):
        raise ValueError(f"{label} has invalid text")
    if not all(isinstance(each, int) and 0 <= each <= MOST_NUMBER for each in (size, pixels)):
        raise ValueError(f"{label} has invalid numbers")
    if not is_key(names[0]) or not (_is_result(names[1]) or (names[1] == "" and state in ("failed", "skipped"))):
        raise ValueError(f"{label} points outside the archive")
    lines = json.loads(warnings) if isinstance(warnings, str) else None
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise ValueError(f"{label} has invalid warnings")
    return Row(names[0], state, stamp, content, settings, names[1], size, pixels, message, tuple(lines))


def _is_result(key: str) -> bool:
    """Return whether a key is one that results have: below the folder, of a picture, nowhere hidden."""
    hidden = any(part.startswith(".") for part in key.split("/"))
    return is_key(key) and not hidden and os.path.splitext(key)[1].lower() in IMAGE_SUFFIXES


class ResultNames:
    """Keys of results by photo. A photo keeps its keys for good, whatever photos come later.

    Where a photo's own format holds its result, that is called as the photo. Where it does not (a GIF, a BMP with
    transparency), it is a PNG called as the photo with `.png` after its whole name: `a.gif` ⇒ `a.gif.png`. Names count
    as alike that some file systems do not tell apart, such as `A.jpg` and `a.jpg`; then a number is put between.
    """

    def __init__(self, known: Mapping[str, str]) -> None:
        """Start with keys of results that are there: photo ⇒ result."""
        self._photo_of = {_folded(result): photo for photo, result in known.items() if result}

    def names_of(self, photos: Iterable[str], suffixes: Mapping[str, str] | None = None) -> dict[str, tuple[str, str]]:
        """Return the keys of each photo's result: in the photo's own format, and as a PNG where that cannot hold it.

        Args:
            photos: their keys.
            suffixes: of photos whose names have none: `x.jpg.` becomes `x.jpg`, a JPEG `scan1` becomes `scan1.jpg`.
        """
        given = suffixes or {}
        parts = {photo: name_parts(photo, given.get(photo, "")) for photo in photos}
        own = {
            photo: self._free(photo, stem, suffix)
            for photo, (stem, suffix) in parts.items()
            if suffix_for(suffix, ORDINARY_PHOTO) == suffix
        }
        # after all photos' own names: a.gif.png may be a photo itself
        other = {photo: self._free(photo, photo, OTHER_SUFFIX) for photo in parts}
        return {photo: (own.get(photo, other[photo]), other[photo]) for photo in parts}

    def _free(self, photo: str, stem: str, suffix: str) -> str:
        number = 1
        while True:
            key = _fitting(stem, suffix if number == 1 else f"~{number}{suffix}")
            if self._photo_of.setdefault(_folded(key), photo) == photo:
                return key
            number += 1


def name_parts(photo: str, suffix: str = "") -> tuple[str, str]:
    """Return stem and suffix of a photo's key; of one without a suffix, as it would be with the one it should have."""
    if not suffix:
        return os.path.splitext(photo)
    folder, slash, name = photo.rpartition("/")
    whole = name.rstrip(" .") or "photo"
    stem, own = os.path.splitext(whole)
    if own.lower() in IMAGE_SUFFIXES and format_for(own) == format_for(suffix):
        return f"{folder}{slash}{stem}", own
    return f"{folder}{slash}{whole}", suffix


def _folded(key: str) -> str:
    """Return the key as file systems see it that do not tell all names apart."""
    return unicodedata.normalize("NFC", key).casefold()


def _fitting(stem: str, ending: str) -> str:
    """Join both; where the file's name would be too long, a checksum takes the place of the stem's end."""
    folder, slash, name = stem.rpartition("/")
    room = LONGEST_NAME_BYTES - len(os.fsencode(ending))
    data = os.fsencode(name)
    if len(data) > room:
        tail = f"~{zlib.crc32(data):08x}"
        while len(os.fsencode(name)) > room - len(tail):
            name = name[:-1]
        name += tail
    return f"{folder}{slash}{name}{ending}"
