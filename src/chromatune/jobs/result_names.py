"""What the results of an archive are called: as their photos, in the same folders, and never two of them alike."""

from __future__ import annotations

import os
import unicodedata
import zlib
from collections.abc import Iterable, Mapping

from chromatune.images import suffix_for
from chromatune.jobs.destinations import ORDINARY_PHOTO

LONGEST_NAME_BYTES = 255  # of a file on nearly all systems
OTHER_SUFFIX = ".png"  # holds every result


class ResultNames:
    """Keys of results by photo. A photo keeps its keys for good, whatever photos come later.

    Where a photo's own format holds its result, that is called as the photo. Where it does not (a GIF, a BMP with
    transparency), it is a PNG called as the photo with `.png` after its whole name: `a.gif` ⇒ `a.gif.png`. Names count
    as alike that some file systems do not tell apart, such as `A.jpg` and `a.jpg`; then a number is put between.
    """

    def __init__(self, known: Mapping[str, str]) -> None:
        """Starts with keys of results that are there: photo ⇒ result."""
        self._photo_of = {_folded(result): photo for photo, result in known.items() if result}

    def names_of(self, photos: Iterable[str]) -> dict[str, tuple[str, str]]:
        """For each photo, the key of its result in the photo's own format, and the one where that cannot hold it."""
        photos = list(photos)
        own = {photo: self._free(photo, *os.path.splitext(photo)) for photo in photos if _keeps_suffix(photo)}
        # after all photos' own names: a.gif.png may be a photo itself
        other = {photo: self._free(photo, photo, OTHER_SUFFIX) for photo in photos}
        return {photo: (own.get(photo, other[photo]), other[photo]) for photo in photos}

    def _free(self, photo: str, stem: str, suffix: str) -> str:
        number = 1
        while True:
            key = _fitting(stem, suffix if number == 1 else f"~{number}{suffix}")
            if self._photo_of.setdefault(_folded(key), photo) == photo:
                return key
            number += 1


def _keeps_suffix(photo: str) -> bool:
    suffix = os.path.splitext(photo)[1]
    return suffix_for(suffix, ORDINARY_PHOTO) == suffix


def _folded(key: str) -> str:
    """The key as file systems see it that do not tell all names apart."""
    return unicodedata.normalize("NFC", key).casefold()


def _fitting(stem: str, ending: str) -> str:
    """Both together; where the file's name would be too long, the stem loses its end and gets a sum instead."""
    folder, slash, name = stem.rpartition("/")
    room = LONGEST_NAME_BYTES - len(os.fsencode(ending))
    data = os.fsencode(name)
    if len(data) > room:
        tail = f"~{zlib.crc32(data):08x}"
        while len(os.fsencode(name)) > room - len(tail):
            name = name[:-1]
        name += tail
    return f"{folder}{slash}{name}{ending}"
