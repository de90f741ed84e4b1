"""PhotoItem and Source: what every layout of photos becomes, with no photo opened yet."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from chromatune.images import Photo, read_photo, to_depth

ReadPhoto = Callable[[], np.ndarray]


@dataclass(frozen=True)
class PhotoItem:
    """One photo of a source, not opened yet.

    Attributes:
        key: name inside the source, the same wherever the source lies; for a file its relative POSIX path.
        person: who is on it, spelled the same for all photos of one person; None if the source does not say.
        read: opens it: (H, W, 3) uint8 sRGB, upright. Raises PhotoError. Can be pickled.
        age: of the person, in years, where the source says it.
        gender: "female" or "male", where the source says it.
        file: the file that is opened, if the photo is a file of its own.
        fingerprint: of the data set that holds it, if it is not.
    """

    key: str
    person: str | None
    read: ReadPhoto
    age: int | None = None
    gender: str | None = None
    file: Path | None = None
    fingerprint: str = ""

    @property
    def stamp(self) -> str:
        """Text that changes when the photo does, so that caches notice; opens nothing.

        A file's size and time of change, or the data set's fingerprint; "gone" for a file that is no longer there.
        """
        if self.file is None:
            return self.fingerprint
        try:
            status = self.file.stat()
        except OSError:
            return "gone"
        return f"{status.st_size}-{status.st_mtime_ns}"


@dataclass(frozen=True)
class Source:
    """Photos of one place, in the order of their keys.

    Attributes:
        name: folder's or data set's name.
        kind: one of `chromatune.data.sources.KINDS`.
        items: the photos.
        prompts: instruction of each key, where the source has its own; else None.
        skipped: reason ⇒ how many photos are not among the items for it, as far as names and metadata tell.
    """

    name: str
    kind: str
    items: tuple[PhotoItem, ...]
    prompts: Mapping[str, str] | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)


def read_rgb(source: Any, name: str) -> np.ndarray:
    """Return (H, W, 3) uint8 sRGB of a photo: upright, 16 bits rounded to 8, gray repeated, transparency ignored.

    Args:
        source: what `chromatune.images.read_photo` takes.
        name: what to call it in messages.

    Raises:
        PhotoError: it cannot be read.
    """
    photo: Photo = read_photo(source, name=name)
    if photo.rgb is not None:
        return to_depth(photo.rgb, np.uint8)
    return np.repeat(to_depth(photo.gray, np.uint8)[..., None], 3, axis=2)


def content_of(rgb_u8: np.ndarray) -> str:
    """Return the SHA-256 of a photo's size and pixels, hexadecimal; (H, W, 3) uint8 sRGB."""
    return hashlib.sha256(repr(rgb_u8.shape).encode() + np.ascontiguousarray(rgb_u8).tobytes()).hexdigest()


def file_item(
    path: Path, key: str, person: str | None = None, age: int | None = None, gender: str | None = None
) -> PhotoItem:
    """Return the item of a file; messages call it by its key."""
    return PhotoItem(key, person, partial(read_rgb, path, key), age, gender, path)
