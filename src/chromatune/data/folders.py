"""Photos as files below a folder: any folder, LFW (a folder for each person), FFHQ (numbered files)."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from chromatune.data.items import PhotoItem, Source, file_item
from chromatune.errors import DataError, printable
from chromatune.images import HIDDEN_FOLDERS, IMAGE_SUFFIXES, Listing, list_folder

__all__ = ["HIDDEN_FOLDERS", "list_folder"]

READABLE_SUFFIXES = " ".join(sorted(IMAGE_SUFFIXES))

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


def open_folder(listing: Listing) -> Source:
    """All photos below a folder; nobody says who is on them.

    Raises:
        DataError: there are none.
    """
    items = [_item(listing.root, key) for key in listing.photos]
    return _source("folder", listing, items, {}, f"files ending in {READABLE_SUFFIXES}")


def open_lfw(listing: Listing) -> Source:
    """Labeled Faces in the Wild: `Name/Name_0001.jpg`; the folder is the person.

    Raises:
        DataError: no photo is named so.
    """
    matches = [(key, LFW_NAME.search(key)) for key in listing.photos]
    items = [_item(listing.root, key, match["person"]) for key, match in matches if match]
    skipped = {"not named as in LFW": len(matches) - len(items)}
    return _source("lfw", listing, items, skipped, "one folder for each person, with files such as Name/Name_0001.jpg")


def open_ffhq(listing: Listing) -> Source:
    """Flickr-Faces-HQ: `images1024x1024/00000/00000.png`, or the thumbnails or in-the-wild images where alone.

    `ffhq-dataset-v2.json` may lie beside them; it is not needed.

    Raises:
        DataError: no photo is named so.
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
    """Whether most photos are named as in LFW; a contact sheet beside them does not matter."""
    return _is_most(listing, (key for key in listing.photos if LFW_NAME.search(key)))


def looks_like_ffhq(listing: Listing) -> bool:
    """Whether most photos are named as in FFHQ and lie in one of its folders: numbers alone say little."""
    return _is_most(listing, (key for key in listing.photos if (match := _match_ffhq(listing, key)) and match["set"]))


def _match_ffhq(listing: Listing, key: str) -> re.Match[str] | None:
    return FFHQ_NAME.search(f"{_name_of(listing.root)}/{key}")  # the root may be images1024x1024 itself


def _is_most(listing: Listing, keys: Iterable[str]) -> bool:
    return 2 * sum(1 for _ in keys) > len(listing.photos)


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
