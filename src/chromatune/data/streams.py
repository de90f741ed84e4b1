"""Streams of photos: shards that are read one after the other, and of which nothing is listed or kept.

Shards are tar files in WebDataset's layout (`00001.jpg`, `00001.txt`, …), or those of a Hugging Face data set (parquet,
arrow, a name on the hub), on this disk or at any address that fsspec knows, such as `s3://bucket/photos-0000.tar`. Tar
files are read from their beginning to their end, without seeking; data sets by Hugging Face's `datasets`, which streams
them. Nothing in them is run, and no address is a command.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from chromatune.data.items import PhotoItem, read_rgb
from chromatune.data.prompt_sets import prompt_text
from chromatune.data.sources import STREAM_KINDS, split_columns
from chromatune.data.tables import COLOR_COLUMNS, DAMAGED, PROMPT_COLUMN, is_saved
from chromatune.errors import DataError, MissingExtraError, first_line, printable, shown
from chromatune.files import open_regular

TAR, HUGGING_FACE = STREAM_KINDS
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
MOST_SHARDS = 1_000_000
IMAGE_COLUMNS = (*COLOR_COLUMNS, "image", "jpg", "jpeg", "png", "webp")  # the first that is there
PROMPT_COLUMNS = (PROMPT_COLUMN, "txt")
NOTES_COLUMN, NOTES_PROMPTS = "json", (PROMPT_COLUMN, "prompt", "caption", "text")  # of a sample's JSON file
TEXT_FIELDS = ("txt", NOTES_COLUMN)
MOST_TEXT_BYTES, MOST_PHOTO_BYTES = 1 << 20, 1 << 30  # of a file in a tar file
KEY = "__key__"  # of a photo in its stream
TABLE_FORMATS = {".parquet": "parquet", ".arrow": "arrow"}


class StreamRecord(NamedTuple):
    """A photo of a stream, as it is stored, with its instruction; "" without one."""

    item: PhotoItem
    prompt: str


@dataclass(frozen=True)
class Stream:
    """Photos in shards, which can only be read one after the other.

    Attributes:
        name: of the first shard's folder or the data set.
        kind: "tar" or "stream".
        shards: how many there are.
        records: number of a shard ⇒ its photos, the same ones in the same order at every call. Raises DataError.
        has_prompts: whether photos have instructions of their own.
        digest: text that changes with the names of the shards.
    """

    name: str
    kind: str
    shards: int
    records: Callable[[int], Iterator[StreamRecord]]
    has_prompts: bool
    digest: str


def is_stream(spec: str | os.PathLike) -> bool:
    """Return whether `open_stream` takes this: `tar:…`, `stream:…`, an address such as s3://…, or a .tar file."""
    text = os.fsdecode(spec)
    kind, colon, _ = text.partition(":")
    where, _ = split_columns(text)
    return (bool(colon) and kind in (TAR, HUGGING_FACE)) or "://" in where or where.endswith(".tar")


def open_stream(spec: str | os.PathLike) -> Stream:
    """Open a stream of photos; the first records alone are read, to learn the columns.

    Args:
        spec: `photos.tar`, `photos-{000000..000099}.tar`, either of them at an address such as `s3://bucket/…`; or
            `stream:` before what holds a Hugging Face data set: a folder or file of parquet or arrow, `owner/name` on
            the hub, an address. Columns may follow: `#image=jpg&prompt=txt`.

    Raises:
        DataError: nothing is there, it cannot be read, or lacks the columns.
        MissingExtraError: the library `datasets` is not installed.
    """
    text = os.fsdecode(spec)
    kind, colon, place = text.partition(":")
    if not colon or kind not in (TAR, HUGGING_FACE):
        kind, place = "", text
    where, columns = split_columns(place)
    is_tar = kind == TAR or (kind == "" and where.endswith(".tar"))
    files = [_local(file) for file in expand_braces(where)]
    name = _name_of(files[0], is_tar)
    if is_tar:
        fields = {*IMAGE_COLUMNS, *PROMPT_COLUMNS, NOTES_COLUMN, *columns.values()}
        return _stream(partial(_tar_rows, files, fields), len(files), columns, name, TAR, files)
    return stream_of(_load(files), columns, name=name, files=files)


def stream_of(
    dataset: Any, columns: Mapping[str, str] | None = None, *, name: str = "stream", files: Sequence[str] = ()
) -> Stream:
    """Return a Hugging Face `IterableDataset` as a stream of photos.

    Args:
        dataset: its rows have a photo (as `datasets.Image`, bytes, or an array (H, W, 3) uint8) and perhaps a text.
        columns: names of the columns "image" and "prompt", where they are not the usual ones.
        name: of the stream.
        files: names of the shards, for the digest.

    Raises:
        DataError: the columns are not there.
    """
    import datasets

    for column, feature in (dataset.features or {}).items():
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(column, datasets.Image(decode=False))
    shards = int(dataset.num_shards)
    return _stream(partial(_data_set_rows, dataset, shards), shards, columns or {}, name, HUGGING_FACE, files)


def _stream(
    rows: Callable[[int], Iterator[dict[str, Any]]], shards: int, columns: Mapping[str, str], name: str, kind: str,
    files: Sequence[str],
) -> Stream:  # fmt: skip
    """Return the stream of what yields the rows of a shard by its number."""
    with _read_errors(name, 0):
        first = next(rows(0), None)
    if first is None:
        raise DataError(f"{printable(name)}: the stream is empty; give one with photos")
    image = _column(list(first), (columns["image"],) if "image" in columns else IMAGE_COLUMNS, name)
    wanted = columns.get("prompt")
    has_prompts = bool(_prompt_of(first, wanted))
    if wanted is not None and not has_prompts:
        raise DataError(f"{printable(name)}: no text in column {shown(wanted)}; name another one")
    records = partial(_records, rows, image, wanted, name)
    return Stream(name, kind, shards, records, has_prompts, "\n".join([name, str(shards), *files]))


def expand_braces(where: str) -> list[str]:
    """Return the names that `photos-{000000..000099}.tar` stands for, numbers of the first one's width.

    Raises:
        DataError: they are too many, or none.
    """
    found = BRACES.search(where)
    if found is None:
        return [where]
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < MOST_SHARDS:
        raise DataError(f"{printable(where)}: {{{found[1]}..{found[2]}}} names no shards; accepted: {{000000..000099}}")
    width, (before, after) = len(found[1]), (where[: found.start()], where[found.end() :])
    return [name for number in range(first, last + 1) for name in expand_braces(f"{before}{number:0{width}}{after}")]


def _load(files: list[str]) -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingExtraError("a stream of a Hugging Face data set", "train") from error
    first = Path(files[0])
    try:
        layout = TABLE_FORMATS.get(posixpath.splitext(files[0])[1])
        if layout is not None:
            return datasets.load_dataset(layout, data_files={"train": files}, split="train", streaming=True)
        if is_saved(first):
            return datasets.load_from_disk(str(first)).to_iterable_dataset()
        return datasets.load_dataset(files[0], split="train", streaming=True)
    except (datasets.exceptions.DatasetsError, RuntimeError, ImportError, *DAMAGED) as error:
        reason = printable(" ".join(str(error).split())[:160]) or type(error).__name__
        raise DataError(f"{printable(files[0])}: cannot be read as a stream of photos ({reason})") from error


def _local(file: str) -> str:
    return file if "://" in file else str(Path(file).expanduser())


def _name_of(file: str, is_tar: bool) -> str:
    """Return a name for a card: the file's without numbers and suffix, or the data set's."""
    base = posixpath.basename(file.rstrip("/")) if is_tar or "://" in file or os.path.exists(file) else file
    return re.sub(r"[-_]?\d*\.(tar|parquet|arrow)$", "", base) or "stream"


def _data_set_rows(dataset: Any, shards: int, shard: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a shard of a data set, with a key each."""
    import datasets

    try:
        for index, row in enumerate(dataset.shard(num_shards=shards, index=shard)):
            yield {**row, KEY: f"{shard:05d}/{index:07d}"}
    except datasets.exceptions.DatasetsError as error:
        raise ValueError(first_line(error)) from error


def _tar_rows(files: Sequence[str], fields: set[str], shard: int) -> Iterator[dict[str, Any]]:
    """Yield the samples of a tar file: consecutive files with the same name up to its first dot, by what follows.

    Only some fields are read; of the others the names alone are there.
    """
    row: dict[str, Any] = {}
    label = posixpath.basename(files[shard])
    with _open_shard(files[shard]) as file, tarfile.open(fileobj=file, mode="r|*") as tar:
        for member in tar:
            folder, name = posixpath.split(member.name)
            stem, _, field = name.partition(".")
            if not member.isfile() or not stem or not field:
                continue
            key = f"{label}/{posixpath.join(folder, stem)}"
            if row and row[KEY] != key:
                yield row
                row = {}
            row |= {field.lower(): _field(tar, member, field.lower()) if field.lower() in fields else None, KEY: key}
    if row:
        yield row


def _field(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> Any:
    """Read a file of a sample: bytes of a photo, a text, or what is in a JSON file; None where it is none of these."""
    file = tar.extractfile(member)
    if file is None or member.size > (MOST_TEXT_BYTES if name in TEXT_FIELDS else MOST_PHOTO_BYTES):
        return None
    data = file.read()
    if name not in TEXT_FIELDS:
        return data
    text = data.decode("utf-8", "replace")
    if name != NOTES_COLUMN:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _open_shard(file: str) -> Any:
    """Open a tar file at a path or an address for reading from its beginning to its end."""
    if "://" not in file:
        return open_regular(Path(file))
    import fsspec

    return fsspec.open(file, "rb").open()


def _column(names: Sequence[str], wanted: Sequence[str], name: str) -> str:
    found = next((column for column in wanted if column in names), None)
    if found is None:
        known = ", ".join(shown(column) for column in names[:12] if column != KEY) or "none"
        raise DataError(f"{printable(name)}: columns {known}; name the photo's: #image=COLUMN")
    return found


def _prompt_of(row: Mapping[str, Any], wanted: str | None) -> str:
    """Return a row's instruction, from a text of its own or from its JSON; "" without one."""
    notes = row.get(NOTES_COLUMN)
    notes = notes if isinstance(notes, dict) else {}
    if wanted is not None:
        return prompt_text(row.get(wanted)) or prompt_text(notes.get(wanted))
    texts = [*(row.get(column) for column in PROMPT_COLUMNS), *(notes.get(column) for column in NOTES_PROMPTS)]
    return next(filter(None, map(prompt_text, texts)), "")


def _records(
    rows: Callable[[int], Iterator[dict[str, Any]]], image: str, wanted: str | None, name: str, shard: int
) -> Iterator[StreamRecord]:
    """Yield the photos of a shard.

    Raises:
        DataError: it cannot be read.
    """
    with _read_errors(name, shard):
        for row in rows(shard):
            key = row[KEY]
            yield StreamRecord(PhotoItem(key, None, partial(_read, row.get(image), key)), _prompt_of(row, wanted))


@contextmanager
def _read_errors(name: str, shard: int) -> Iterator[None]:
    """Say in one line which shard of a stream cannot be read.

    Raises:
        DataError: always where reading fails.
    """
    try:
        yield
    except DataError:
        raise
    except (tarfile.TarError, EOFError, RuntimeError, ImportError, *DAMAGED) as error:
        reason = shown(first_line(error))
        raise DataError(
            f"{printable(name)}: shard {shard} cannot be read ({reason}); repair it, or leave it out"
        ) from error


def _read(value: Any, key: str) -> np.ndarray:
    """Return (H, W, 3) uint8 sRGB of a row's photo; raises PhotoError."""
    if isinstance(value, dict):  # an Image that is not decoded
        value = value.get("bytes")  # never a path: anybody may have written it
    if isinstance(value, list):  # an array that went through Arrow
        value = np.asarray(value, dtype=np.uint8)
    return read_rgb(b"" if value is None else value, key)
