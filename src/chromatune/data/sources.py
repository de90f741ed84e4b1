"""A path ⇒ Source: which layout of photos lies there, and the photos in it, none of them opened yet.

Folders of photos, LFW (a folder for each person) and FFHQ (numbered files) are read here; IMDB-WIKI, tables and Hugging
Face data sets have modules of their own.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from chromatune.data import imdb_wiki, tables
from chromatune.data.imdb_wiki import ImdbWikiFilter
from chromatune.data.items import PhotoItem, Source, file_item
from chromatune.errors import DataError, OptionsError, printable, shown
from chromatune.images import IMAGE_SUFFIXES, Listing, list_folder

KINDS = ("folder", "imdb-wiki", "ffhq", "lfw", "hf", "table")
STREAM_KINDS = ("tar", "stream")  # of shards, which `open_stream` opens
COLUMNS = ("image", "prompt")
ESCAPED = str.maketrans({"%": "%25", "&": "%26", "#": "%23"})
ACCEPTED = "a folder of photos, or KIND:PATH with KIND one of " + ", ".join(KINDS)

# http://vis-www.cs.umass.edu/lfw/README.txt: name/name_xxxx.jpg; below a folder such as lfw/ in some of the archives
LFW_NAME = re.compile(r"(?:^|/)(?P<person>[^/]+)/(?P=person)_\d{4}\.\w+$")

# https://github.com/NVlabs/ffhq-dataset: early downloads lack the folders of a thousand
FFHQ_NAME = re.compile(
    r"(?:^|/)(?:(?P<set>images1024x1024|in-the-wild-images|thumbnails128x128)/)?(?:\d{5}/)?\d{5}\.png$"
)
FFHQ_SETS = ("images1024x1024", "in-the-wild-images", "thumbnails128x128")  # one photo may be in all: the first counts

NOT_A_PHOTO = "not a photo's suffix"
OWN_RESULT = "made by chromatune"
NO_PERMISSION = "in a folder that cannot be opened"


def open_source(
    spec: str | os.PathLike,
    *,
    imdb_wiki_filter: ImdbWikiFilter | None = None,
    columns: Mapping[str, str] | None = None,
) -> Source:
    """Open a source of photos, listed by name and sorted; none is opened, so this takes seconds at most.

    Args:
        spec: a path, whose layout is recognized, or `kind:path` with a kind of `KINDS`. A data set on the Hugging Face
            hub is always `hf:owner/name`, so that a mistyped path never reaches for the network. Columns of a table or
            data set may follow: `hf:path#image=photo&prompt=caption`, with %26 for & and %23 for # in a name.
        imdb_wiki_filter: which photos of IMDB-WIKI to use; other kinds ignore it.
        columns: the same by "image" and "prompt"; they go before those of `spec`.

    Raises:
        DataError: nothing is there, the kind is unknown, no photo is found, or no table has the columns.
        MissingExtraError: the source needs a library that is not installed.
    """
    kind, place = _kind_and_place(os.fsdecode(spec))
    where, named = split_columns(place)
    named |= _checked(columns or {}, where)
    if kind in STREAM_KINDS or "://" in where or where.endswith(".tar"):
        raise DataError(
            f"{_label(where)}: is a stream of photos, which only `chromatune finetune` reads; unpack it first"
        )
    if named and kind not in (None, "hf", "table"):
        raise DataError(f"{_label(where)}: a source of kind {kind} has no columns; give hf:PATH or table:PATH")
    if kind == "hf":
        return tables.open_hugging_face(where, named)
    path = Path(where).expanduser()
    if not where or not os.path.exists(path):
        hint = f"; on the Hugging Face hub: hf:{where}" if tables.HUB_NAME.fullmatch(where) else ""
        raise DataError(f"{_label(where)}: no such folder; accepted: {ACCEPTED}{hint}")
    if kind == "table" or (kind is None and _is_photo_table(path, named)):
        return _open_photo_tables(path, named)
    if kind == "imdb-wiki" or (kind is None and imdb_wiki.find_metadata(path)):
        return imdb_wiki.open_imdb_wiki(path, imdb_wiki_filter)
    if kind is None and (tables.is_saved(path) or path.suffix in tables.DATASET_FORMATS):
        return tables.open_hugging_face(str(path), named)
    if not path.is_dir():
        raise DataError(f"{_label(where)}: is a file; accepted: {ACCEPTED}")
    return _open_listed(kind, list_folder(path), named)


def with_columns(spec: str, columns: Sequence[str]) -> str:
    """Return the spec of a source with the columns of its table in it, as `open_source` takes it.

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
    where, named = split_columns(place)
    # A column ends at &, and the first begins after #
    pairs = (f"{name}={value.translate(ESCAPED)}" for name, value in (named | given).items())
    return f"{'' if kind is None else f'{kind}:'}{where}#{'&'.join(pairs)}"


def check_outside(out: Path, spec: str) -> None:
    """Refuse to write results into the very folder of the photos; a folder below it is not read as photos.

    Args:
        out: where results are to go.
        spec: what `open_source` takes.

    Raises:
        OptionsError: it is that folder: results would be read as photos, and the work could not be resumed.
    """
    kind, place = _kind_and_place(spec)
    where, _ = split_columns(place)
    if kind != "hf" and where and os.path.realpath(out) == os.path.realpath(Path(where).expanduser()):
        raise OptionsError(
            f"{printable(str(out))} holds the photos themselves, and results there would be read as photos; "
            "give another --out, below it or elsewhere"
        )


def _open_listed(kind: str | None, listing: Listing, columns: Mapping[str, str]) -> Source:
    """Open a folder; with `kind` None its files decide what it is."""
    if kind is None:
        metadata = _metadata(listing)
        if columns and tables.names_photos(metadata, columns):
            return tables.open_photo_tables(listing.root, metadata, columns, listing.photos)
        if tables.holds_tables(listing.root, listing.others, len(listing.photos)):
            return tables.open_hugging_face(str(listing.root), columns)
        if listing.photos and (parquets := tables.photo_tables_of(listing.root, listing.others, columns)):
            return tables.open_hugging_face(str(listing.root), columns, parquets)
        if tables.names_photos(metadata, columns):
            return tables.open_photo_tables(listing.root, metadata, columns, listing.photos)
        if columns:
            names = " and ".join(shown(name) for name in columns.values())
            raise DataError(
                f"{_label(str(listing.root))}: no table here has {names}; give table:FILE, or other columns"
            )
    if kind == "ffhq" or (kind is None and looks_like_ffhq(listing)):
        return open_ffhq(listing)
    if kind == "lfw" or (kind is None and looks_like_lfw(listing)):
        return open_lfw(listing)
    items = [_item(listing.root, key) for key in listing.photos]  # who is on them is unknown
    return _source("folder", listing, items, {}, f"files ending in {' '.join(sorted(IMAGE_SUFFIXES))}")


def _is_photo_table(path: Path, columns: Mapping[str, str]) -> bool:
    """Return whether a file is a table of paths; a parquet file may hold the photos themselves."""
    if not path.is_file():
        return False
    suffix = path.suffix.lower()
    return suffix in (".csv", ".jsonl") or (suffix == ".parquet" and tables.names_photos([path], columns))


def _open_photo_tables(path: Path, columns: Mapping[str, str]) -> Source:
    """The photos that a table, or the tables of a folder, name."""
    if path.is_file():
        if path.suffix.lower() not in tables.TABLE_SUFFIXES:
            accepted = " ".join(tables.TABLE_SUFFIXES)
            raise DataError(f"{_label(str(path))}: not a table; accepted: files ending in {accepted}")
        return tables.open_photo_tables(path.parent, [path], columns)
    listing = list_folder(path)
    metadata = _metadata(listing)
    if not metadata:
        names = ", ".join(tables.METADATA_NAMES)
        raise DataError(f"{_label(str(path))}: no table here; accepted: {names}, or table:FILE")
    return tables.open_photo_tables(path, metadata, columns, listing.photos)


def _metadata(listing: Listing) -> list[Path]:
    return [listing.root / name for name in listing.others if os.path.basename(name) in tables.METADATA_NAMES]


def split_columns(place: str) -> tuple[str, dict[str, str]]:
    """Return the path and the columns of `path#image=a&prompt=b`; a path that is there as it stands has none."""
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
    if colon and kind in (*KINDS, *STREAM_KINDS):
        return kind, place
    if place.startswith("//"):  # an address
        return None, spec
    if colon and not os.path.exists(spec) and os.sep not in kind and len(kind) > 1:  # one letter is a Windows drive
        raise DataError(f"{_label(spec)}: unknown kind {shown(kind)}; accepted: {ACCEPTED}")
    return None, spec


def _label(where: str) -> str:
    return printable(where) if where else "''"


def open_lfw(listing: Listing) -> Source:
    """Open Labeled Faces in the Wild: `Name/Name_0001.jpg`; the folder is the person."""
    matches = [(key, LFW_NAME.search(key)) for key in listing.photos]
    items = [_item(listing.root, key, match["person"]) for key, match in matches if match]
    skipped = {"not named as in LFW": len(matches) - len(items)}
    return _source("lfw", listing, items, skipped, "one folder for each person, with files such as Name/Name_0001.jpg")


def open_ffhq(listing: Listing) -> Source:
    """Open Flickr-Faces-HQ: `images1024x1024/00000/00000.png`, or the thumbnails or in-the-wild images where alone.

    `ffhq-dataset-v2.json` may lie beside them; it is not needed.
    """
    set_of = {key: match["set"] or "" for key in listing.photos if (match := _match_ffhq(listing, key))}
    chosen = next((name for name in FFHQ_SETS if name in set_of.values()), "")
    items = [_item(listing.root, key) for key, name in set_of.items() if name == chosen]
    skipped = {
        "the same photos in another size": len(set_of) - len(items),
        "not named as in FFHQ": len(listing.photos) - len(set_of),
    }
    return _source("ffhq", listing, items, skipped, "files such as images1024x1024/00000/00000.png")


def looks_like_lfw(listing: Listing) -> bool:
    """Return whether most photos are named as in LFW; a contact sheet beside them does not matter."""
    return 2 * sum(LFW_NAME.search(key) is not None for key in listing.photos) > len(listing.photos)


def looks_like_ffhq(listing: Listing) -> bool:
    """Return whether most photos are named as in FFHQ and lie in one of its folders: numbers alone say little."""
    matches = (_match_ffhq(listing, key) for key in listing.photos)
    return 2 * sum(bool(match and match["set"]) for match in matches) > len(listing.photos)


def _match_ffhq(listing: Listing, key: str) -> re.Match[str] | None:
    return FFHQ_NAME.search(f"{_name_of(listing.root)}/{key}")  # the root may be images1024x1024 itself


def _name_of(root: Path) -> str:
    return os.path.basename(os.path.abspath(root)) or str(root)


def _item(root: Path, name: str, person: str | None = None) -> PhotoItem:
    return file_item(root / name, _as_text(name), None if person is None else _as_text(person))


def _as_text(name: str) -> str:
    """A file's name as text that can be hashed and written: names on a disk need not be valid Unicode."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _source(kind: str, listing: Listing, items: list[PhotoItem], skipped: dict[str, int], expected: str) -> Source:
    if not items:
        raise DataError(
            f"{printable(str(listing.root))}: no photos of kind '{kind}' below this folder; expected: {expected}"
        )
    by_name = {
        NOT_A_PHOTO: len(listing.others),
        OWN_RESULT: len(listing.results),
        NO_PERMISSION: listing.closed_folders,
    }
    counts = Counter(by_name) + Counter(skipped)  # the sum drops zeros
    return Source(_name_of(listing.root), kind, tuple(items), None, dict(counts))
