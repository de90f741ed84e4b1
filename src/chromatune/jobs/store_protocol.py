"""What every folder of photos or results offers, whether on this machine or behind a URL.

Files have keys: paths below the folder with "/" between parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from chromatune.files import is_key

STATE_FOLDER = ".chromatune"  # in a destination: the records of its archive
STATE_FILE = f"{STATE_FOLDER}/archive.json"  # in a destination from the first moment on
SETTINGS_FILE = "chromatune.toml"  # in a folder of photos: settings of its own
SIDECAR_SUFFIX = ".xmp"  # captions and edits of other programs


class SourceGoneError(Exception):
    """The folder of the photos itself is no longer there."""


@dataclass(frozen=True)
class StoreListing:
    """The photos of a store.

    Attributes:
        stamps: key ⇒ stamp of each file with a photo's suffix, sorted by key.
        own_results: number of further files: results of earlier runs beside their photos.
        closed_folders: number of folders that could not be opened.
        refused: names that are no keys: they lead out of the folder. Their photos are skipped.
        sidecars: keys of XMP files, which belong to photos.
        settings_files: keys of files with settings of their folders.
        suffixes: key ⇒ the suffix that it should have, of each photo in `stamps` whose name has none.
        left_out: keys of pictures whose names say that they are something else, such as `x.jpg_original`.
    """

    stamps: Mapping[str, str]
    own_results: int = 0
    closed_folders: int = 0
    refused: tuple[str, ...] = ()
    sidecars: tuple[str, ...] = ()
    settings_files: tuple[str, ...] = ()
    suffixes: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


class Store(Protocol):
    """A folder of this machine or behind a URL; it can be sent to other processes."""

    @property
    def name(self) -> str:
        """The folder as the user named it."""

    @property
    def address(self) -> str:
        """The folder's one name, the same in every process and working directory."""

    def find(self) -> StoreListing:
        """List all photos below the folder; raise a `SourceGoneError` where there is no such folder."""

    def stamp(self, key: str) -> str | None:
        """Return what changes when the file does, such as its size and time; None where there is no such file."""

    def open(self, key: str) -> BinaryIO:
        """Open a file for reading, seekable, through links that are in the folder.

        Raises:
            PhotoError: this file cannot be opened.
            SourceGoneError: the folder itself is gone.
        """

    def open_result(self, key: str) -> BinaryIO:
        """Open a file that `write` made, through no link; raise as `open` does."""

    def read_inside(self, key: str, most_bytes: int) -> bytes:
        """Return a small file, through no link that leads out of the folder.

        Raises:
            OSError: it cannot be read, is longer, or lies elsewhere.
        """

    def modified_ns(self, key: str) -> int | None:
        """Return when a file was last changed, in nanoseconds since 1970; None where the store does not say."""

    def write(self, key: str, data: bytes, modified_ns: int | None = None) -> None:
        """Write a file whole or not at all, in place of an older one, and make its folder.

        Args:
            key: of the file.
            data: its content.
            modified_ns: its time of last change, where the store can keep one; None for now.

        Raises:
            PhotoError: this file cannot be written, others may.
            OSError: none can: the disk is full, or the folder is gone or must not be written to.
        """

    def size(self, key: str) -> int | None:
        """Return the bytes of a file; None where there is no such file."""

    def remove(self, key: str) -> None:
        """Delete a file, if there is one."""


def split_keys(names: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the names that are keys, and those that are none."""
    all_names = list(names)
    return [name for name in all_names if is_key(name)], tuple(sorted(name for name in all_names if not is_key(name)))


def is_sidecar(key: str) -> bool:
    """Return whether a file holds captions or edits of a photo."""
    return key.lower().endswith(SIDECAR_SUFFIX)


def is_settings_file(key: str) -> bool:
    """Return whether a file has settings of its folder."""
    return key.rpartition("/")[2] == SETTINGS_FILE
