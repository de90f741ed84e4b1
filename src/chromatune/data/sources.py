"""A path ⇒ Source: which layout of photos lies there, and the photos in it, none of them opened yet."""

from __future__ import annotations

import os
from pathlib import Path

from chromatune.data import folders, hugging_face, imdb_wiki
from chromatune.data.imdb_wiki import IMDB_WIKI_DEFAULT_COUNT, ImdbWikiFilter
from chromatune.data.items import PhotoItem, Source
from chromatune.errors import DataError, printable

__all__ = ["IMDB_WIKI_DEFAULT_COUNT", "KINDS", "ImdbWikiFilter", "PhotoItem", "Source", "open_source"]

KINDS = ("folder", "imdb-wiki", "ffhq", "lfw", "hf")
ACCEPTED = "a folder of photos, or KIND:PATH with KIND one of " + ", ".join(KINDS)


def open_source(spec: str | os.PathLike, *, imdb_wiki_filter: ImdbWikiFilter | None = None) -> Source:
    """The photos of a source, listed by name and sorted; none is opened, so this takes seconds at most.

    Args:
        spec: a path, whose layout is recognised, or `kind:path` with a kind of `KINDS`. A data set on the Hugging Face
            hub is always `hf:owner/name`, so that a mistyped path never reaches for the network.
        imdb_wiki_filter: which photos of IMDB-WIKI to take; other kinds take no notice.

    Raises:
        DataError: nothing is there, the kind is unknown, or no photo is found.
        MissingExtraError: the source needs a library that is not installed.
    """
    kind, where = _kind_and_place(os.fsdecode(spec))
    if kind == "hf":
        return hugging_face.open_hugging_face(where)
    path = Path(where).expanduser()
    if not where or not os.path.exists(path):
        raise DataError(f"{_label(where)}: no such folder; accepted: {ACCEPTED}{_hub_hint(where)}")
    if kind == "imdb-wiki" or (kind is None and imdb_wiki.find_metadata(path)):
        return imdb_wiki.open_imdb_wiki(path, imdb_wiki_filter)
    if kind is None and (hugging_face.is_saved(path) or path.suffix in hugging_face.TABLE_SUFFIXES):
        return hugging_face.open_hugging_face(str(path))
    if not path.is_dir():
        raise DataError(f"{_label(where)}: is a file; accepted: {ACCEPTED}")
    return _open_listed(kind, folders.list_folder(path))


def _open_listed(kind: str | None, listing: folders.Listing) -> Source:
    """A source whose files tell what it is; `kind` None asks them."""
    if kind is None and hugging_face.holds_tables(listing.root, listing.others, len(listing.photos)):
        return hugging_face.open_hugging_face(str(listing.root))
    if kind == "ffhq" or (kind is None and folders.looks_like_ffhq(listing)):
        return folders.open_ffhq(listing)
    if kind == "lfw" or (kind is None and folders.looks_like_lfw(listing)):
        return folders.open_lfw(listing)
    return folders.open_folder(listing)


def _kind_and_place(spec: str) -> tuple[str | None, str]:
    """`kind:place` in its two parts; the kind is None where the text is a path alone."""
    kind, colon, place = spec.partition(":")
    if colon and kind in KINDS:
        return kind, place
    if colon and not os.path.exists(spec) and os.sep not in kind and len(kind) > 1:  # one letter is a Windows drive
        raise DataError(f"{_label(spec)}: unknown kind {kind!r}; accepted: {ACCEPTED}")
    return None, spec


def _hub_hint(where: str) -> str:
    return f"; on the Hugging Face hub: hf:{where}" if hugging_face.HUB_NAME.fullmatch(where) else ""


def _label(where: str) -> str:
    return printable(where) if where else "''"
