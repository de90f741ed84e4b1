"""Hugging Face data sets with the columns that InstructPix2Pix is trained with, from a folder, a file or the hub.

The color half of each row is used, and its instruction. `original_image` is not: the gray half is made from the color
one at every step, so that the two are cropped alike and the model meets more than one kind of gray.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from chromatune.data.items import PhotoItem, Source, read_rgb
from chromatune.data.photo_tables import METADATA_NAMES, PROMPT_COLUMN, SHOWN_COLUMNS, column_names
from chromatune.data.prompt_sets import drawn_prompt, prompt_text
from chromatune.errors import LONGEST_SHOWN, DataError, MissingExtraError, PhotoError, first_line, printable, shown

COLOR_COLUMNS = ("colorized_image", "edited_image")  # of two, the first: it says what it is
ANY_PHOTO_COLUMN = "image"  # where there is neither
ACCEPTED_COLUMNS = (
    "edited_image, colorized_image or image, edit_prompt (and original_image, which is made anew); name others as in "
    "hf:PATH#image=photo&prompt=caption"
)

SAVED_MARKERS = ("dataset_dict.json", "state.json")  # what save_to_disk leaves
TABLE_SUFFIXES = {".parquet": "parquet", ".arrow": "arrow"}
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


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` of a data set, or of a dict of them, wrote this folder."""
    return any((folder / name).is_file() for name in SAVED_MARKERS)


def holds_tables(folder: Path, files: Sequence[str], photos: int) -> bool:
    """Whether a folder's files are a data set: tables alone, or photos that a table pairs as InstructPix2Pix does.

    Args:
        folder: where the files are.
        files: those that are not photos, relative to the folder.
        photos: how many others are photos.
    """
    if not photos:
        return any(os.path.splitext(name)[1] in TABLE_SUFFIXES for name in files)
    tables = (folder / name for name in files if os.path.basename(name) in METADATA_NAMES)
    return any(_has_a_color_column(path) for path in tables)


def photo_tables_of(folder: Path, files: Sequence[str], columns: Mapping[str, str]) -> list[str]:
    """The parquet files in a folder that hold color photos themselves, to train with; pictures may lie beside them.

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
    """The color photos of a data set, with their instructions; nothing is decoded yet.

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
    """Whether a column may hold texts or lists of them: others, such as photos, would be decoded for nothing."""
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
    return (
        where if HUB_NAME.fullmatch(where) and not os.path.exists(where) else os.path.basename(os.path.abspath(where))
    )


def _load(where: str, tables: Sequence[str] = ()) -> Any:
    """The data set, or the dict of its splits."""
    import datasets
    import pyarrow as pa

    path = Path(where).expanduser()
    try:
        if tables:
            with _no_progress():
                files = [str(path / name) for name in tables]
                return datasets.load_dataset("parquet", data_files={"train": files})
        if path.is_dir():
            with _no_progress():
                return datasets.load_from_disk(str(path)) if is_saved(path) else datasets.load_dataset(str(path))
        if path.suffix in TABLE_SUFFIXES and path.is_file():
            with _no_progress():
                return datasets.load_dataset(TABLE_SUFFIXES[path.suffix], data_files=str(path))
        if HUB_NAME.fullmatch(where):
            return datasets.load_dataset(where)
    except (datasets.exceptions.DatasetsError, pa.ArrowException, *DAMAGED) as error:
        reason = printable(" ".join(str(error).split())[:160]) or type(error).__name__
        raise DataError(f"{printable(where)}: cannot be read as a Hugging Face data set ({reason})") from error
    raise DataError(
        f"{printable(where)}: no such data set; accepted: a folder, a .parquet or .arrow file, or owner/name on the hub"
    )


def _one_split(label: str, loaded: Any) -> tuple[Any, str, dict[str, int]]:
    """The split to use, its name, and how many rows are in each other one."""
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


def _has_a_color_column(table: Path) -> bool:
    return any(name.removesuffix("_file_name") in COLOR_COLUMNS for name in column_names(table))
