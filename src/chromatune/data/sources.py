"""A path ⇒ Source: which layout of photos lies there, and the photos in it, none of them opened yet."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from chromatune.data import folders, hugging_face, imdb_wiki, photo_tables
from chromatune.data.folders import OWN_RESULT
from chromatune.data.imdb_wiki import IMDB_WIKI_DEFAULT_COUNT, ImdbWikiFilter
from chromatune.data.items import PhotoItem, Source
from chromatune.errors import DataError, OptionsError, printable, shown
from chromatune.images import Listing, list_folder

__all__ = [
    "IMDB_WIKI_DEFAULT_COUNT",
    "KINDS",
    "OWN_RESULT",
    "ImdbWikiFilter",
    "PhotoItem",
    "Source",
    "check_outside",
    "open_source",
    "with_columns",
]

KINDS = ("folder", "imdb-wiki", "ffhq", "lfw", "hf", "table")
COLUMNS = ("image", "prompt")
ACCEPTED = "a folder of photos, or KIND:PATH with KIND one of " + ", ".join(KINDS)


def open_source(
    spec: str | os.PathLike,
    *,
    imdb_wiki_filter: ImdbWikiFilter | None = None,
    columns: Mapping[str, str] | None = None,
) -> Source:
    """The photos of a source, listed by name and sorted; none is opened, so this takes seconds at most.

    Args:
        spec: a path, whose layout is recognized, or `kind:path` with a kind of `KINDS`. A data set on the Hugging Face
            hub is always `hf:owner/name`, so that a mistyped path never reaches for the network. Columns of a table or
            data set may follow: `hf:path#image=photo&prompt=caption`, with %26 for & and %23 for # in a name.
        imdb_wiki_filter: which photos of IMDB-WIKI to take; other kinds take no notice.
        columns: the same by "image" and "prompt"; they go before those of `spec`.

    Raises:
        DataError: nothing is there, the kind is unknown, no photo is found, or no table has the columns.
        MissingExtraError: the source needs a library that is not installed.
    """
    kind, place = _kind_and_place(os.fsdecode(spec))
    where, named = _columns_of(place)
    named |= _checked(columns or {}, where)
    if named and kind not in (None, "hf", "table"):
        raise DataError(f"{_label(where)}: a source of kind {kind} has no columns; give hf:PATH or table:PATH")
    if kind == "hf":
        return hugging_face.open_hugging_face(where, named)
    path = Path(where).expanduser()
    if not where or not os.path.exists(path):
        raise DataError(f"{_label(where)}: no such folder; accepted: {ACCEPTED}{_hub_hint(where)}")
    if kind == "table" or (kind is None and _is_photo_table(path, named)):
        return _open_photo_tables(path, named)
    if kind == "imdb-wiki" or (kind is None and imdb_wiki.find_metadata(path)):
        return imdb_wiki.open_imdb_wiki(path, imdb_wiki_filter)
    if kind is None and (hugging_face.is_saved(path) or path.suffix in hugging_face.TABLE_SUFFIXES):
        return hugging_face.open_hugging_face(str(path), named)
    if not path.is_dir():
        raise DataError(f"{_label(where)}: is a file; accepted: {ACCEPTED}")
    return _open_listed(kind, list_folder(path), named)


def with_columns(spec: str, columns: Sequence[str]) -> str:
    """The spec of a source with the columns of its table named in it, as `open_source` takes it.

    Args:
        spec: what `open_source` takes; columns that it names already stay, unless they are named again.
        columns: texts such as "image=photo" and "prompt=caption".

    Raises:
        OptionsError: one is not of that form, or two name the same.
    """
    given: dict[str, str] = {}
    for text in columns:
        name, _, value = text.partition("=")
        if name not in COLUMNS or not value:
            raise OptionsError(f"--column {shown(text)}: accepted: image=COLUMN or prompt=COLUMN")
        if name in given:
            raise OptionsError(f"--column {name} is given twice; give one column for it")
        given[name] = value
    if not given:
        return spec
    kind, place = _kind_and_place(spec)
    where, named = _columns_of(place)
    pairs = (f"{name}={_escaped(value)}" for name, value in (named | given).items())
    return f"{'' if kind is None else f'{kind}:'}{where}#{'&'.join(pairs)}"


def check_outside(out: Path, spec: str) -> None:
    """Refuses to write results into the very folder of the photos; a folder below it is left out of them.

    Args:
        out: where results are to go.
        spec: what `open_source` takes.

    Raises:
        OptionsError: it is that folder: results would be taken for photos, and the work could not be gone on with.
    """
    kind, place = _kind_and_place(spec)
    where, _ = _columns_of(place)
    if kind != "hf" and where and os.path.realpath(out) == os.path.realpath(Path(where).expanduser()):
        raise OptionsError(
            f"{printable(str(out))} holds the photos themselves, and results there would be taken for photos; "
            "give another --out, below it or elsewhere"
        )


def _open_listed(kind: str | None, listing: Listing, columns: Mapping[str, str]) -> Source:
    """A source whose files tell what it is; `kind` None asks them."""
    if kind is None:
        metadata = _metadata(listing)
        if columns and photo_tables.names_photos(metadata, columns):
            return photo_tables.open_photo_tables(listing.root, metadata, columns, listing.photos)
        if hugging_face.holds_tables(listing.root, listing.others, len(listing.photos)):
            return hugging_face.open_hugging_face(str(listing.root), columns)
        if listing.photos and (tables := hugging_face.photo_tables_of(listing.root, listing.others, columns)):
            return hugging_face.open_hugging_face(str(listing.root), columns, tables)
        if photo_tables.names_photos(metadata, columns):
            return photo_tables.open_photo_tables(listing.root, metadata, columns, listing.photos)
        if columns:
            names = " and ".join(shown(name) for name in columns.values())
            raise DataError(
                f"{_label(str(listing.root))}: no table here has {names}; give table:FILE, or other columns"
            )
    if kind == "ffhq" or (kind is None and folders.looks_like_ffhq(listing)):
        return folders.open_ffhq(listing)
    if kind == "lfw" or (kind is None and folders.looks_like_lfw(listing)):
        return folders.open_lfw(listing)
    return folders.open_folder(listing)


def _is_photo_table(path: Path, columns: Mapping[str, str]) -> bool:
    """Whether a file is a table of paths; a parquet file may as well hold the photos themselves."""
    if not path.is_file():
        return False
    suffix = path.suffix.lower()
    return suffix in (".csv", ".jsonl") or (suffix == ".parquet" and photo_tables.names_photos([path], columns))


def _open_photo_tables(path: Path, columns: Mapping[str, str]) -> Source:
    """The photos that a table, or the tables of a folder, name."""
    if path.is_file():
        if path.suffix.lower() not in photo_tables.TABLE_SUFFIXES:
            accepted = " ".join(photo_tables.TABLE_SUFFIXES)
            raise DataError(f"{_label(str(path))}: not a table; accepted: files ending in {accepted}")
        return photo_tables.open_photo_tables(path.parent, [path], columns)
    listing = list_folder(path)
    metadata = _metadata(listing)
    if not metadata:
        names = ", ".join(photo_tables.METADATA_NAMES)
        raise DataError(f"{_label(str(path))}: no table here; accepted: {names}, or table:FILE")
    return photo_tables.open_photo_tables(path, metadata, columns, listing.photos)


def _metadata(listing: Listing) -> list[Path]:
    return [listing.root / name for name in listing.others if os.path.basename(name) in photo_tables.METADATA_NAMES]


def _escaped(column: str) -> str:
    """A column's name as it stands in a spec, which ends at & and begins after #."""
    return column.replace("%", "%25").replace("&", "%26").replace("#", "%23")


def _columns_of(place: str) -> tuple[str, dict[str, str]]:
    """`path#image=a&prompt=b` in its path and columns; a path that is there as it stands has none."""
    where, mark, text = place.rpartition("#")
    if not mark or "=" not in text or os.path.exists(os.path.expanduser(place)):
        return place, {}
    pairs = [part.partition("=") for part in text.split("&")]
    return where, _checked({name: unquote(value) for name, _, value in pairs}, where)


def _checked(columns: Mapping[str, str], where: str) -> dict[str, str]:
    for name, value in columns.items():
        if name not in COLUMNS or not value:
            given = shown(f"{name}={value}")
            raise DataError(f"{_label(where)}: column {given}; accepted: #image=COLUMN&prompt=COLUMN, or one of them")
    return dict(columns)


def _kind_and_place(spec: str) -> tuple[str | None, str]:
    """`kind:place` in its two parts; the kind is None where the text is a path alone."""
    kind, colon, place = spec.partition(":")
    if colon and kind in KINDS:
        return kind, place
    if colon and not os.path.exists(spec) and os.sep not in kind and len(kind) > 1:  # one letter is a Windows drive
        raise DataError(f"{_label(spec)}: unknown kind {shown(kind)}; accepted: {ACCEPTED}")
    return None, spec


def _hub_hint(where: str) -> str:
    return f"; on the Hugging Face hub: hf:{where}" if hugging_face.HUB_NAME.fullmatch(where) else ""


def _label(where: str) -> str:
    return printable(where) if where else "''"
