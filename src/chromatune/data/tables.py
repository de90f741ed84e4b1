"""Photos by tables: files of paths and instructions, and Hugging Face data sets with InstructPix2Pix's columns.

A table of paths has the form of a Hugging Face ImageFolder: `metadata.csv`, `.jsonl` or `.parquet` in any folder of the
source, with a column `file_name` relative to the table. Paths that lead out of the source are skipped.

A data set comes from a folder, a file or the hub. The color half of each row is used, and its instruction.
`original_image` is not: the gray half of each crop is made from the color one, so that the two are cropped alike and
the model meets more than one kind of gray.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from chromatune.data.items import PhotoItem, Source, file_item, read_rgb
from chromatune.data.prompt_sets import drawn_prompt, prompt_text
from chromatune.errors import LONGEST_SHOWN, DataError, MissingExtraError, PhotoError, first_line, printable, shown
from chromatune.files import open_regular

METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")  # an imagefolder's
TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")
FILE_COLUMN, PROMPT_COLUMN = "file_name", "edit_prompt"
MAX_TABLE_BYTES = 2**30  # of a table's text; it names photos, and does not hold them
MAX_ROWS = 10**7  # parquet packs rows that repeat into nothing
MAX_ROW_BYTES = 2**20  # of text: paths and prompts are shorter, and a header that is longer names no columns
SHOWN_COLUMNS = 12

NOT_NAMED, NAMED_TWICE = "not named in the table", "named twice in the table"
GONE, OUTSIDE = "named in the table, not on the disk", "outside the folder of the source"
NO_PATH = "a row without a path"

COLOR_COLUMNS = ("colorized_image", "edited_image")  # of two, the first: it says what it is
ANY_PHOTO_COLUMN = "image"  # where there is neither
ACCEPTED_COLUMNS = (
    "edited_image, colorized_image or image, edit_prompt (and original_image, which is made anew); name others as in "
    "hf:PATH#image=photo&prompt=caption"
)

SAVED_MARKERS = ("dataset_dict.json", "state.json")  # what save_to_disk leaves
NOTE_SUFFIXES = (".arrow", ".parquet", ".json", ".jsonl", ".csv", ".md", ".yaml")  # files of a data set, not photos
DATASET_FORMATS = {".parquet": "parquet", ".arrow": "arrow"}
OTHER_SPLIT = re.compile(r"(?:^|[/._-])(?:test|testing|validation|valid|val|dev|eval)(?=[/._-])")
# What the library raises, unasked, for a data set's own notes and tables that are not what they should be
DAMAGED = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    MemoryError,
    NotImplementedError,
)
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def column_names(table: Path) -> tuple[str, ...]:
    """Return the names of a table's columns, () where it is none or cannot be read; reads its first row only."""
    try:
        with open_regular(table) as file:
            if table.suffix.lower() == ".parquet":
                import pyarrow.parquet

                return tuple(pyarrow.parquet.read_schema(file).names)
            line = file.readline(MAX_ROW_BYTES)
        text = line.decode("utf-8-sig", "replace").strip()
        if table.suffix.lower() == ".csv":
            return tuple(name.strip().strip('"') for name in text.split(","))
        row = json.loads(text)
        return tuple(row) if isinstance(row, dict) else ()
    except (ImportError, OSError, ValueError, RecursionError, MemoryError):  # pyarrow's errors are of these
        return ()


def names_photos(tables: Sequence[Path], columns: Mapping[str, str]) -> bool:
    """Return whether a table has a path and an instruction for each photo, or the path and columns that were given."""
    wanted = {columns.get("image", FILE_COLUMN)}
    if "prompt" in columns or not columns:
        wanted.add(columns.get("prompt", PROMPT_COLUMN))
    return any(wanted <= set(column_names(table)) for table in tables)


def open_photo_tables(
    root: Path, tables: Sequence[Path], columns: Mapping[str, str], photos: Sequence[str] = ()
) -> Source:
    """Open the photos that tables name, keyed by their paths below `root`, with their instructions.

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
        key.encode()
    except UnicodeEncodeError:  # half a pair is no text that could be hashed and written
        return GONE
    return "" if os.path.isfile(file) else GONE  # False for a name too long, or with a null character


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
        with open_regular(table) as file:
            if os.fstat(file.fileno()).st_size > MAX_TABLE_BYTES:
                raise DataError(
                    f"{label}: more than {MAX_TABLE_BYTES // 2**20} MiB; give a table of paths and prompts only"
                )
            if table.suffix.lower() == ".csv":
                return _csv(file, wanted)
            if table.suffix.lower() != ".parquet":
                return _json_lines(file, wanted)
            head = pyarrow.parquet.read_metadata(file)
            if head.num_rows > MAX_ROWS:
                raise DataError(f"{label}: {head.num_rows} rows; accepted: at most {MAX_ROWS}")
            names = head.schema.to_arrow_schema().names
            some = [name for name in dict.fromkeys(wanted) if name in names]
            return names, pyarrow.parquet.read_table(file, columns=some).to_pylist() if some else []
    except MemoryError as error:
        raise DataError(f"{label}: does not fit into memory; give a table of paths and prompts only") from error
    except (OSError, ValueError, RecursionError, KeyError, NotImplementedError) as error:  # pyarrow's are of these
        reason = getattr(error, "strerror", None) or first_line(error)
        raise DataError(
            f"{label}: cannot be read as a table ({shown(reason)}); save it again, or go without: folder:PATH"
        ) from error


def _csv(table: BinaryIO, wanted: Sequence[str]) -> tuple[list[str], list[dict[str, Any]]]:
    import pandas

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pandas.errors.ParserWarning)  # each row ends in a comma
        # every cell as it stands: "NA" is a word; a cell of any length, which the csv module refuses
        frame = pandas.read_csv(table, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    frame.columns = pandas.Index([str(name).strip() for name in frame.columns])
    frame = frame.loc[:, ~frame.columns.duplicated()]
    some = [name for name in dict.fromkeys(wanted) if name in frame.columns]
    return list(frame.columns), frame[some].to_dict("records")


def _json_lines(table: BinaryIO, wanted: Sequence[str]) -> tuple[list[str], list[dict[str, Any]]]:
    names: dict[str, None] = {}  # in the order of the rows
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(iter(lambda: table.readline(MAX_ROW_BYTES + 1), b""), start=1):
        if len(line) > MAX_ROW_BYTES:
            raise ValueError(f"line {number} is longer than {MAX_ROW_BYTES // 2**20} MiB")
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is no JSON object") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is no JSON object")
        names |= dict.fromkeys(row)
        rows.append({name: row.get(name) for name in wanted})
    return list(names), rows


def is_saved(folder: Path) -> bool:
    """Return whether `save_to_disk` of a data set, or of a dict of them, wrote this folder."""
    return any((folder / name).is_file() for name in SAVED_MARKERS)


def holds_tables(folder: Path, files: Sequence[str], photos: int) -> bool:
    """Return whether a folder is a data set: tables alone, or photos that a table pairs as InstructPix2Pix does.

    Args:
        folder: where the files are.
        files: those that are not photos, relative to the folder.
        photos: how many others are photos.
    """
    if not photos:
        return any(os.path.splitext(name)[1] in DATASET_FORMATS for name in files)
    tables = (folder / name for name in files if os.path.basename(name) in METADATA_NAMES)
    names = (name for path in tables for name in column_names(path))
    return any(name.removesuffix("_file_name") in COLOR_COLUMNS for name in names)


def photo_tables_of(folder: Path, files: Sequence[str], columns: Mapping[str, str]) -> list[str]:
    """Return the parquet files in a folder that hold color photos themselves; pictures may lie beside them.

    Args:
        folder: where the files are.
        files: relative to the folder.
        columns: names of the columns "image" and "prompt", where they are not the usual ones.
    """
    names = [name for name in files if name.endswith(".parquet") and os.path.basename(name) not in METADATA_NAMES]
    wanted = {columns["image"]} if "image" in columns else {*COLOR_COLUMNS}
    found = [name for name in names if wanted & set(column_names(folder / name))]
    return [name for name in found if not OTHER_SPLIT.search(name)] or found


def open_hugging_face(where: str, columns: Mapping[str, str] | None = None, tables: Sequence[str] = ()) -> Source:
    """Open the color photos of a data set, with their instructions; nothing is decoded yet.

    Of several splits, `train` is used: the others are for tests.

    Args:
        where: a folder that `save_to_disk` wrote; a folder of parquet or arrow files, or of images with a
            metadata.jsonl; one such file; or a name on the hub, `owner/name`.
        columns: names of the columns "image" and "prompt", where they are not the usual ones.
        tables: of a folder, only these parquet files, relative to it; by default what the library finds.

    Raises:
        DataError: there is no such data set, it cannot be read, is empty, or lacks the columns.
        MissingExtraError: the library `datasets` is not installed.
    """
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingExtraError("a Hugging Face data set", "train") from error

    columns, label = columns or {}, printable(where)
    dataset, split, skipped = _one_split(label, _load(where, tables))
    column = _photo_column(label, dataset.column_names, columns)
    if len(dataset) == 0:
        raise DataError(f"{label}: the data set has no rows; give one with photos")
    dataset = dataset.with_format(None)  # a saved format such as torch would decode
    keys = [f"{split}/{index:07d}" for index in range(len(dataset))]
    prompts = _prompts(label, dataset, keys, columns)
    photos = dataset.select_columns([column])
    if isinstance(photos.features[column], datasets.Image):
        photos = photos.cast_column(column, datasets.Image(decode=False))
    path = Path(where).expanduser()
    folder = path if path.is_dir() else path.parent  # what a table's relative paths are relative to
    items = tuple(
        PhotoItem(key, None, partial(_read_row, photos, index, key, folder), fingerprint=str(dataset._fingerprint))
        for index, key in enumerate(keys)
    )
    return Source(_name_of(where), "hf", items, prompts, skipped)


def _photo_column(label: str, names: Sequence[str], columns: Mapping[str, str]) -> str:
    wanted = (columns["image"],) if "image" in columns else (*COLOR_COLUMNS, ANY_PHOTO_COLUMN)
    column = next((name for name in wanted if name in names), None)
    missing = columns["prompt"] if columns.get("prompt", names[0] if names else "") not in names else None
    if column is None or missing is not None:
        known = ", ".join(printable(name)[:LONGEST_SHOWN] for name in names[:SHOWN_COLUMNS]) or "none"
        raise DataError(f"{label}: columns {known}; accepted: {ACCEPTED_COLUMNS}")
    return column


def _prompts(label: str, dataset: Any, keys: Sequence[str], columns: Mapping[str, str]) -> dict[str, str] | None:
    """The instruction of every row, a drawn one where it has none; None where no row has one."""
    column = columns.get("prompt", PROMPT_COLUMN)
    texts = [""]
    if column in dataset.column_names and _may_hold_text(dataset.features[column]):
        texts = [prompt_text(value) for value in dataset.select_columns([column])[:][column]]
    if any(texts):
        return {key: text or drawn_prompt(key) for key, text in zip(keys, texts, strict=True)}
    if "prompt" in columns:
        raise DataError(f"{label}: no text in column {shown(column)}; name another one")
    return None


def _may_hold_text(feature: Any) -> bool:
    """Return whether a column may hold texts or lists of them: others, such as photos, would be decoded for nothing."""
    inner = getattr(feature, "feature", feature)
    return "string" in str(getattr(inner, "dtype", ""))


def _read_row(photos: Any, index: int, key: str, folder: Path) -> np.ndarray:
    """(H, W, 3) uint8 sRGB of a row of a data set that has one column; raises PhotoError."""
    import pyarrow as pa

    try:
        (value,) = photos[index].values()
    except (OSError, ValueError, LookupError, pa.ArrowException) as error:
        reason = shown(first_line(error))
        raise PhotoError(f"{key}: the data set's file cannot be read ({reason}); download it again") from error
    if isinstance(value, dict):  # an Image that is not decoded, or the same by hand
        value = value.get("bytes") or value.get("path")
    if value is None:
        raise PhotoError(f"{key}: the row has no photo; remove it")
    if isinstance(value, str) and "\0" not in value and (folder / value).is_file():
        value = str(folder / value)
    return read_rgb(value, key)


def _name_of(where: str) -> str:
    is_on_hub = HUB_NAME.fullmatch(where) and not os.path.exists(where)
    return where if is_on_hub else os.path.basename(os.path.abspath(where))


def _load(where: str, tables: Sequence[str] = ()) -> Any:
    """The data set, or the dict of its splits."""
    import datasets
    import pyarrow as pa

    path = Path(where).expanduser()
    try:
        _check_files(path)
        with _no_progress():
            if tables:
                files = [str(path / name) for name in tables]
                return datasets.load_dataset("parquet", data_files={"train": files})
            if path.is_dir():
                return datasets.load_from_disk(str(path)) if is_saved(path) else datasets.load_dataset(str(path))
            if path.suffix in DATASET_FORMATS and path.is_file():
                return datasets.load_dataset(DATASET_FORMATS[path.suffix], data_files=str(path))
        if HUB_NAME.fullmatch(where):
            return datasets.load_dataset(where)
    except (datasets.exceptions.DatasetsError, pa.ArrowException, RuntimeError, *DAMAGED) as error:
        reason = printable(" ".join(str(error).split())[:160]) or type(error).__name__
        raise DataError(f"{printable(where)}: cannot be read as a Hugging Face data set ({reason})") from error
    raise DataError(
        f"{printable(where)}: no such data set; accepted: a folder, a .parquet or .arrow file, or owner/name on the hub"
    )


def _check_files(path: Path) -> None:
    """Check that the tables and notes of a folder are files, as the library opens what bears their names.

    Raises:
        ValueError: one is a pipe or the like, which would be waited for.
    """
    for folder, _, names in os.walk(path):
        for name in names:
            found = Path(folder, name)
            if found.suffix in NOTE_SUFFIXES and found.exists() and not found.is_file():
                raise ValueError(f"{name} is no file")


def _one_split(label: str, loaded: Any) -> tuple[Any, str, dict[str, int]]:
    """The split to use, its name, and the number of rows of each other split."""
    import datasets

    if isinstance(loaded, datasets.Dataset):
        return loaded, str(loaded.split or "train"), {}
    if len(loaded) != 1 and "train" not in loaded:
        raise DataError(
            f"{label}: splits {shown(', '.join(loaded))[1:-1] or 'none'}; accepted: one split, or one named train"
        )
    chosen = "train" if "train" in loaded else next(iter(loaded))
    others = {f"in split {name}": len(rows) for name, rows in loaded.items() if name != chosen}
    return loaded[chosen], chosen, others


@contextmanager
def _no_progress() -> Iterator[None]:
    """Keep the library's own bars off the terminal: a local data set takes a moment."""
    import datasets

    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
