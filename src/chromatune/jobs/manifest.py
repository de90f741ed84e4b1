"""What is known of an archive's photos: a table in its destination, whole at whatever moment its process is killed."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chromatune.errors import DataError, first_line, printable

FILE_NAME = "manifest.sqlite"
FORM = 1  # of the table
COMMIT_SECONDS = 1.0  # what a kill costs at most, as work done again
PATIENCE_SECONDS = 60  # while somebody looks into the table with another program

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
PUT = f"INSERT OR REPLACE INTO photos ({COLUMNS}, finished_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class Row:
    """What became of a photo.

    Attributes:
        photo: its key.
        state: "done" or "failed".
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
    state: Literal["done", "failed"]
    stamp: str
    content: str = ""
    settings: str = ""
    result: str = ""
    result_bytes: int = 0
    pixels: int = 0
    message: str = ""
    warnings: tuple[str, ...] = ()


class Manifest:
    """The table. One process at a time writes it: whoever holds the destination."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        """Opens the table, made if missing.

        Args:
            folder: that holds its file.
            read_only: nothing is written, and without a file there are no rows.

        Raises:
            DataError: it is damaged, of a newer version, or cannot be written.
        """
        self.path = folder / FILE_NAME
        self._committed_at = time.monotonic()
        with self._told():
            if read_only:
                known = self.path.exists()
                # rw: what a killed process left half-written is put right by whoever opens it next
                uri = f"{self.path.absolute().as_uri()}?mode=rw" if known else ":memory:"
                self._table = sqlite3.connect(uri, uri=known, timeout=PATIENCE_SECONDS)
            else:
                self._table = sqlite3.connect(self.path, timeout=PATIENCE_SECONDS)
            # A rollback journal: the write-ahead log needs memory that processes share, which network drives have not
            (form,) = self._table.execute("PRAGMA user_version").fetchone()
            if form not in (0, FORM):
                raise DataError(f"{self._label}: made by another version of chromatune; give another DEST")
            if not read_only or not self.path.exists():
                self._table.execute("PRAGMA journal_mode = DELETE")
                self._table.execute("PRAGMA synchronous = FULL")
                self._table.execute(TABLE)
                self._table.execute(f"PRAGMA user_version = {FORM}")
                self._table.commit()

    def rows(self) -> Iterator[Row]:
        """All rows, sorted by photo."""
        with self._told():
            for photo, state, stamp, content, settings, result, size, pixels, message, warnings in self._table.execute(
                f"SELECT {COLUMNS} FROM photos ORDER BY photo"
            ):
                told = tuple(json.loads(warnings))
                names = os.fsdecode(photo), os.fsdecode(result)
                yield Row(names[0], state, stamp, content, settings, names[1], size, pixels, message, told)

    def put(self, row: Row) -> None:
        """Writes a row; it is on the disk a second later, or after `commit`.

        Raises:
            DataError: it cannot be written.
        """
        values = (row.state, row.stamp, row.content, row.settings, os.fsencode(row.result), row.result_bytes)
        texts = (_as_text(row.message), json.dumps(row.warnings), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        with self._told():
            self._table.execute(PUT, (os.fsencode(row.photo), *values, row.pixels, *texts))
        if time.monotonic() - self._committed_at > COMMIT_SECONDS:
            self.commit()

    def forget(self, photos: Iterable[str]) -> None:
        """Deletes rows."""
        with self._told():
            self._table.executemany("DELETE FROM photos WHERE photo = ?", [(os.fsencode(each),) for each in photos])

    def commit(self) -> None:
        """Brings all rows to the disk.

        Raises:
            DataError: they cannot be written.
        """
        with self._told():
            self._table.commit()
        self._committed_at = time.monotonic()

    def close(self) -> None:
        """Closes the file; rows that were not committed are dropped."""
        self._table.close()

    @property
    def _label(self) -> str:
        return printable(str(self.path))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What SQLite finds, as a `DataError` of one line."""
        try:
            yield
        except sqlite3.OperationalError as error:  # the disk is full, gone, not to be written to
            folder = self.path.parent.parent
            if not self.path.exists():
                raise DataError(f"{printable(str(folder))} is gone: it was removed, or its drive was") from error
            raise DataError(
                f"{self._label}: cannot be read or written ({first_line(error)}); check the disk"
            ) from error
        except (sqlite3.DatabaseError, ValueError) as error:
            raise DataError(
                f"{self._label} is damaged ({first_line(error)}); delete it, and all photos are colorized again"
            ) from error


def _as_text(message: str) -> str:
    """The message as text that can be stored: it may hold a name that is none."""
    return message.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
