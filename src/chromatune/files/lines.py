"""Files of JSON lines: what an interrupted run wrote stays, a torn last line is dropped."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from chromatune.errors import DataError
from chromatune.files.regular import read_regular

Record = dict[str, Any]
IsSound = Callable[[Record], bool]  # whether a line holds what its reader needs


class LineFile:
    """A file of JSON lines that grows; the fields `keys` of a line together name it, and no name comes twice."""

    def __init__(self, path: Path, keys: Sequence[str], is_sound: IsSound | None = None) -> None:
        """Open or make the file.

        Args:
            path: the file.
            keys: fields that every line has.
            is_sound: what else must hold of a line.

        Raises:
            DataError: a line other than the last is damaged.
        """
        self._path, self._keys, self._is_sound = path, keys, is_sound
        if path.exists():
            data = self._whole()
            end = data.rfind(b"\n") + 1
            if end < len(data):  # a torn last line
                os.truncate(path, end)
        self._known = {self._name(record) for record in self.read()} if path.exists() else set()
        self._file: BinaryIO = path.open("ab")

    def _whole(self) -> bytes:
        try:
            return read_regular(self._path)
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read ({error.strerror}); give another --out") from None

    def __enter__(self) -> LineFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext():  # a full disk was reported already
            self._file.close()

    def __contains__(self, name: tuple[Any, ...]) -> bool:
        return name in self._known

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write the lines that are not there yet, and flush: at most the last line is lost.

        Raises:
            OSError: they cannot be written; `filename` is the file's.
        """
        new = [record for record in records if self._name(record) not in self._known]
        lines = (json.dumps(record, allow_nan=False) + "\n" for record in new)
        try:
            self._file.write("".join(lines).encode())
            self._file.flush()
        except OSError as error:
            error.filename = str(self._path)
            raise
        self._known.update(self._name(record) for record in new)

    def read(self) -> list[Record]:
        """Return all lines.

        Raises:
            DataError: a line is damaged.
        """
        return read_json_lines(self._path, self._keys, self._is_sound)

    def _name(self, record: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(record[key] for key in self._keys)


def read_json_lines(path: Path, keys: Sequence[str] = (), is_sound: IsSound | None = None) -> list[Record]:
    """Return all lines of a file, each an object that has the fields `keys`, with texts or numbers in them.

    Args:
        path: the file.
        keys: fields that every line has.
        is_sound: what else must hold of a line.

    Raises:
        DataError: the file cannot be read, or a line is damaged.
    """
    try:
        lines = read_regular(path).splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path, or give another --out") from None
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or not all(isinstance(record.get(key), str | int | float) for key in keys):
            record = None
        if record is None or (is_sound is not None and not is_sound(record)):
            raise DataError(f"{path}: line {number} is damaged; delete the file, or give another --out")
        records.append(record)
    return records
