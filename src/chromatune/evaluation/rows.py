"""Methods and the rows they give, and the scores on disk: one JSON line a row and photo, appended, never rewritten."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from chromatune.errors import DataError, OptionsError
from chromatune.evaluation.settings import EvaluationSettings

GREY = "grey"
RAW = ", raw"

Record = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """One way to colorize, run once over the photos; a model or another tool gives a recomposed and a raw row.

    Attributes:
        name: of the recomposed row.
        model: name to load, or None.
        folder: of result files, or None.
        steps: sampling steps; None means the model's own.
        prompt: instruction; None means the model's own.
    """

    name: str
    model: str | None = None
    folder: str | None = None
    steps: int | None = None
    prompt: str | None = None

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the rows: recomposed, then raw; grey is both."""
        return (GREY,) if self.name == GREY else (self.name, self.name + RAW)


def plan_methods(settings: EvaluationSettings) -> list[Method]:
    """Grey passthrough, then every model at each prompt and number of steps, then other tools' results.

    Raises:
        OptionsError: two rows would have one name.
    """
    methods = [Method(GREY)]
    short = {model: Path(model).name or model for model in settings.models}
    for model in settings.models:
        name = short[model] if list(short.values()).count(short[model]) == 1 else model
        for prompt in settings.prompts or (None,):
            for steps in settings.steps or (None,):
                words = [name]
                if prompt is not None and len(settings.prompts) > 1:
                    words.append(f"“{prompt}”")
                if steps is not None:
                    words.append("1 step" if steps == 1 else f"{steps} steps")
                methods.append(Method(", ".join(words), model=model, steps=steps, prompt=prompt))
    methods += [Method(name, folder=folder) for name, folder in settings.results]
    rows = [row for method in methods for row in method.rows]
    for row in rows:
        if rows.count(row) > 1:
            raise OptionsError(f"two rows would be called {row!r}; give the results another name")
    return methods


class LineFile:
    """A file of JSON lines that grows: what an interrupted run wrote is kept, a torn last line is dropped."""

    def __init__(self, path: Path, keys: Sequence[str]) -> None:
        """Opens or makes the file; `keys` are the fields that together name a line.

        Raises:
            DataError: a line other than the last is damaged.
        """
        self._path, self._keys = path, keys
        if path.exists():
            _drop_torn_line(path)
        self._known = {self._name(record) for record in self.read()} if path.exists() else set()
        self._file: BinaryIO = path.open("ab")

    def __enter__(self) -> LineFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __contains__(self, name: tuple[Any, ...]) -> bool:
        return name in self._known

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Writes the lines that are not there yet, and flushes: at most the photo in hand is lost."""
        new = [record for record in records if self._name(record) not in self._known]
        lines = (json.dumps(record, allow_nan=False) + "\n" for record in new)
        self._file.write("".join(lines).encode())
        self._file.flush()
        self._known.update(self._name(record) for record in new)

    def read(self) -> list[Record]:
        """All lines.

        Raises:
            DataError: a line is damaged.
        """
        records = []
        for number, line in enumerate(self._path.read_bytes().splitlines(), 1):
            try:
                record = json.loads(line)
                self._name(record)
            except (ValueError, KeyError, TypeError):
                raise DataError(
                    f"{self._path}: line {number} is damaged; delete the file, or give another --out"
                ) from None
            records.append(record)
        return records

    def _name(self, record: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(record[key] for key in self._keys)


def _drop_torn_line(path: Path) -> None:
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        with path.open("r+b") as file:
            file.truncate(end)
