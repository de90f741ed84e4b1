"""Hugging Face data sets with the columns that InstructPix2Pix is trained with, from a folder, a file or the hub.

The colour half of each row is used, and its instruction. `original_image` is not: the grey half is made from the colour
one at every step, so that the two are cropped alike and the model meets more than one kind of grey.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from chromatune.data.items import PhotoItem, Source, read_rgb
from chromatune.errors import DataError, MissingExtraError, PhotoError

COLOR_COLUMNS = ("colorized_image", "edited_image")  # of two, the first: it says what it is
PROMPT_COLUMN = "edit_prompt"
ACCEPTED_COLUMNS = "edited_image or colorized_image, edit_prompt (and original_image, which is made anew)"

SAVED_MARKERS = ("dataset_dict.json", "state.json")  # what save_to_disk leaves
TABLE_SUFFIXES = {".parquet": "parquet", ".arrow": "arrow"}
METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")  # an imagefolder's
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
    return any(_mentions_a_color_column(path) for path in tables)


def open_hugging_face(where: str) -> Source:
    """The colour photos of a data set, with their instructions; nothing is decoded yet.

    Of several splits, `train` is used: the others are for tests.

    Args:
        where: a folder that `save_to_disk` wrote; a folder of parquet or arrow files, or of images with a
            metadata.jsonl; one such file; or a name on the hub, `owner/name`.

    Raises:
        DataError: there is no such data set, it cannot be read, is empty, or lacks the columns.
        MissingExtraError: the library `datasets` is not installed.
    """
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingExtraError("a Hugging Face data set", "train") from error

    dataset, split, left_out = _one_split(where, _load(where))
    column = next((name for name in COLOR_COLUMNS if name in dataset.column_names), None)
    if column is None:
        raise DataError(f"{where}: columns {', '.join(dataset.column_names)}; accepted: {ACCEPTED_COLUMNS}")
    if len(dataset) == 0:
        raise DataError(f"{where}: the data set has no rows; give one with photos")
    dataset = dataset.with_format(None)  # a saved format such as torch would decode
    keys = [f"{split}/{index:07d}" for index in range(len(dataset))]
    prompts = None
    if PROMPT_COLUMN in dataset.column_names:
        texts = dataset.select_columns([PROMPT_COLUMN])[:][PROMPT_COLUMN]
        prompts = {key: str(text) for key, text in zip(keys, texts, strict=True) if text}
    photos = dataset.select_columns([column])
    if isinstance(photos.features[column], datasets.Image):
        photos = photos.cast_column(column, datasets.Image(decode=False))
    items = tuple(
        PhotoItem(key, None, partial(_read_row, photos, index, key), fingerprint=str(dataset._fingerprint))
        for index, key in enumerate(keys)
    )
    return Source(_name_of(where), "hf", items, prompts, left_out)


def _read_row(photos: Any, index: int, key: str) -> np.ndarray:
    """(H, W, 3) uint8 sRGB of a row of a data set that has one column; raises PhotoError."""
    import pyarrow as pa

    try:
        (value,) = photos[index].values()
    except (OSError, pa.ArrowException) as error:
        raise PhotoError(f"{key}: the data set's file cannot be read ({error}); download it again") from error
    if isinstance(value, dict):  # an Image that is not decoded, or the same by hand
        value = value.get("bytes") or value.get("path")
    if value is None:
        raise PhotoError(f"{key}: the row has no photo; remove it")
    return read_rgb(value, key)


def _name_of(where: str) -> str:
    return (
        where if HUB_NAME.fullmatch(where) and not os.path.exists(where) else os.path.basename(os.path.abspath(where))
    )


def _load(where: str) -> Any:
    """The data set, or the dict of its splits."""
    import datasets
    import pyarrow as pa

    path = Path(where).expanduser()
    try:
        if path.is_dir():
            with _no_progress():
                return datasets.load_from_disk(str(path)) if is_saved(path) else datasets.load_dataset(str(path))
        if path.suffix in TABLE_SUFFIXES and path.is_file():
            with _no_progress():
                return datasets.load_dataset(TABLE_SUFFIXES[path.suffix], data_files=str(path))
        if HUB_NAME.fullmatch(where):
            return datasets.load_dataset(where)
    except (datasets.exceptions.DatasetsError, OSError, ValueError, LookupError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(f"{where}: cannot be read as a Hugging Face data set ({reason})") from error
    raise DataError(
        f"{where}: no such data set; accepted: a folder, a .parquet or .arrow file, or owner/name on the hub"
    )


def _one_split(where: str, loaded: Any) -> tuple[Any, str, dict[str, int]]:
    """The split to use, its name, and how many rows are in each other one."""
    import datasets

    if isinstance(loaded, datasets.Dataset):
        return loaded, str(loaded.split or "train"), {}
    if len(loaded) != 1 and "train" not in loaded:
        raise DataError(f"{where}: splits {', '.join(loaded) or 'none'}; accepted: one split, or one named train")
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


def _mentions_a_color_column(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError:
        return False  # then it is a folder of photos
    return any(name.encode() in start for name in COLOR_COLUMNS)
