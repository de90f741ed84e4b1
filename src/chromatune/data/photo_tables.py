"""Photos named in a table: a CSV, JSON lines or parquet file with their paths and, in another column, instructions.

The form is that of a Hugging Face ImageFolder: `metadata.csv`, `.jsonl` or `.parquet` in any folder of the source, with
a column `file_name` relative to the table. A table is not trusted: a path that leads out of the source is left out.
"""

from __future__ import annotations

import json
import os
import posixpath
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from chromatune.data.items import PhotoItem, Source, file_item
from chromatune.data.prompt_sets import drawn_prompt, prompt_text
from chromatune.errors import DataError, MissingExtraError, first_line, printable, shown

METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")  # an imagefolder's
TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")
FILE_COLUMN, PROMPT_COLUMN = "file_name", "edit_prompt"
MAX_TABLE_BYTES = 2**30  # of a table's text; photos are named in it, not kept
MAX_ROWS = 10**7  # parquet packs rows that repeat into nothing
MAX_HEADER_BYTES = 2**20  # a first row longer than this names no columns
SHOWN_COLUMNS = 12

NOT_NAMED, NAMED_TWICE = "not named in the table", "named twice in the table"
GONE, OUTSIDE, NO_PATH = (
    "named in the table, not on the disk",
    "outside the folder of the source",
    "a row without a path",
)


def column_names(table: Path) -> tuple[str, ...]:
    """The names of a table's columns, () where it is none or cannot be read; reads its first row only."""
    try:
        if table.suffix.lower() == ".parquet":
            import pyarrow.parquet

            return tuple(pyarrow.parquet.read_schema(table).names)
        with table.open("rb") as file:
            line = file.readline(MAX_HEADER_BYTES)
        text = line.decode("utf-8-sig", "replace").strip()
        if table.suffix.lower() == ".csv":
            return tuple(name.strip().strip('"') for name in text.split(","))
        row = json.loads(text)
        return tuple(row) if isinstance(row, dict) else ()
    except (ImportError, OSError, ValueError, RecursionError, MemoryError):  # pyarrow's errors are of these
        return ()


def names_photos(tables: Sequence[Path], columns: Mapping[str, str]) -> bool:
    """Whether a table has a path and an instruction for each photo, or a path and the columns that are asked for."""
    wanted = {columns.get("image", FILE_COLUMN)}
    if "prompt" in columns or not columns:
        wanted.add(columns.get("prompt", PROMPT_COLUMN))
    return any(wanted <= set(column_names(table)) for table in tables)


def open_photo_tables(
    root: Path, tables: Sequence[Path], columns: Mapping[str, str], photos: Sequence[str] = ()
) -> Source:
    """The photos that tables name, keyed by their paths below `root`, with their instructions.

    A row without an instruction gets a drawn one, always the same; where no row has one, there are none.

    Args:
        root: folder that all photos lie below.
        tables: files in it, or below it; their paths are relative to each one's own folder.
        columns: names of the columns "image" and "prompt", where they are not file_name and edit_prompt.
        photos: relative paths of all photos there, to count those that no table names.

    Raises:
        DataError: a table cannot be read or lacks a column, or no photo is left.
        MissingExtraError: a library that reads tables is not installed.
    """
    skipped: Counter[str] = Counter()
    items: dict[str, PhotoItem] = {}
    prompts: dict[str, str] = {}
    for table in tables:
        folder = table.parent.relative_to(root).as_posix()
        for path, text in _rows(table, columns):
            key = _key_below(folder, path)
            file = root / key if key else root
            reason = _why_not(path, key, file, items)
            if reason:
                skipped[reason] += 1
                continue
            items[key] = file_item(file, key)
            prompts[key] = text
    skipped[NOT_NAMED] += len(set(photos) - set(items))
    if not items:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items() if count) or "it has no rows"
        raise DataError(f"{printable(str(tables[0]))}: names no photo ({reasons}); correct its paths")
    has_prompts = any(prompts.values())
    if not has_prompts and "prompt" in columns:
        raise DataError(f"{printable(str(tables[0]))}: no text in column {shown(columns['prompt'])}; name another one")
    own = {key: prompts[key] or drawn_prompt(key) for key in sorted(prompts)} if has_prompts else None
    ordered = tuple(items[key] for key in sorted(items))
    counts = {reason: count for reason, count in skipped.items() if count}
    return Source(os.path.basename(os.path.abspath(root)), "table", ordered, own, counts)


def _why_not(path: str, key: str, file: Path, items: Mapping[str, PhotoItem]) -> str:
    if not path:
        return NO_PATH
    if not key:
        return OUTSIDE
    if key in items:
        return NAMED_TWICE
    try:
        key.encode()  # half a pair is no text that could be hashed and written
        return "" if file.is_file() else GONE
    except (OSError, ValueError):  # a name too long, or with a null character
        return GONE


def _key_below(folder: str, path: str) -> str:
    """The path below the root, "" where it leads out of it."""
    if posixpath.isabs(path) or os.path.isabs(path) or os.path.splitdrive(path)[0]:
        return ""
    key = posixpath.normpath(posixpath.join(folder, path.replace("\\", "/") if os.sep == "\\" else path))
    return "" if key in (".", "..") or key.startswith("../") else key


def _rows(table: Path, columns: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Path and instruction of each row; "" for what a row does not say."""
    image, prompt = columns.get("image", FILE_COLUMN), columns.get("prompt", PROMPT_COLUMN)
    label = printable(str(table))
    names, rows = _read(table, label, (image, prompt))
    if image not in names or (prompt not in names and "prompt" in columns):
        missing = image if image not in names else prompt
        known = ", ".join(map(shown, names[:SHOWN_COLUMNS])) or "none"
        raise DataError(f"{label}: no column {shown(missing)}; it has {known}: name one of these")
    for row in rows:
        path = row.get(image)
        yield path.strip() if isinstance(path, str) else "", prompt_text(row.get(prompt))


def _read(table: Path, label: str, wanted: tuple[str, str]) -> tuple[list[str], list[dict[str, Any]]]:
    """The names of the columns, and the rows with at least those that are wanted."""
    try:
        import pandas  # noqa: F401
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError("a table of photos", "train") from error
    try:
        if table.stat().st_size > MAX_TABLE_BYTES:
            raise DataError(
                f"{label}: more than {MAX_TABLE_BYTES // 2**20} MiB; give a table of paths and prompts only"
            )
        if table.suffix.lower() == ".parquet":
            head = pyarrow.parquet.read_metadata(table)
            if head.num_rows > MAX_ROWS:
                raise DataError(f"{label}: {head.num_rows} rows; accepted: at most {MAX_ROWS}")
            names = pyarrow.parquet.read_schema(table).names
            some = [name for name in dict.fromkeys(wanted) if name in names]
            return names, pyarrow.parquet.read_table(table, columns=some).to_pylist() if some else []
        if table.suffix.lower() == ".csv":
            return _csv(table, wanted)
        return _json_lines(table, wanted)
    except MemoryError as error:
        raise DataError(f"{label}: does not fit into memory; give a table of paths and prompts only") from error
    except (OSError, ValueError, RecursionError, KeyError, NotImplementedError) as error:  # pyarrow's are of these
        reason = getattr(error, "strerror", None) or first_line(error)
        raise DataError(
            f"{label}: cannot be read as a table ({shown(reason)}); save it anew, or go without: folder:PATH"
        ) from error


def _csv(table: Path, wanted: Sequence[str]) -> tuple[list[str], list[dict[str, Any]]]:
    import pandas

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pandas.errors.ParserWarning)  # each row ends in a comma
        # every cell as it stands: "NA" is a word; a cell of any length, which the csv module refuses
        frame = pandas.read_csv(table, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    frame.columns = pandas.Index([str(name).strip() for name in frame.columns])
    frame = frame.loc[:, ~frame.columns.duplicated()]
    some = [name for name in dict.fromkeys(wanted) if name in frame.columns]
    return list(frame.columns), frame[some].to_dict("records")


def _json_lines(table: Path, wanted: Sequence[str]) -> tuple[list[str], list[dict[str, Any]]]:
    names: dict[str, None] = {}  # in the order of the rows
    rows: list[dict[str, Any]] = []
    with table.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number} is no JSON object") from error
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is no JSON object")
            names |= dict.fromkeys(row)
            rows.append({name: row.get(name) for name in wanted})
    return list(names), rows
