"""Folders that photos are read from and results written to, by keys: paths below the folder with "/" between parts."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from chromatune.errors import OptionsError, PhotoError, printable
from chromatune.files import atomic_write
from chromatune.images import list_folder

MARK = ".chromatune"  # folder of what a run keeps in its destination
NOTE = f"{MARK}/archive.json"  # in a destination from the first moment on
# What is wrong with one file's name or size; all else is wrong with the whole destination
OF_ONE_FILE = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EFBIG, errno.EINVAL, errno.EILSEQ}
NO_ACCESS = {errno.EACCES, errno.EPERM}


class SourceGoneError(Exception):
    """The folder of the photos itself is no longer there."""


@dataclass(frozen=True)
class Found:
    """What lies in a store.

    Attributes:
        stamps: key ⇒ stamp of each file with a photo's suffix, sorted by key.
        own_results: how many more are results of earlier runs beside their photos.
        closed_folders: how many folders could not be opened.
    """

    stamps: Mapping[str, str]
    own_results: int = 0
    closed_folders: int = 0


class Store(Protocol):
    """A folder here or elsewhere; what processes of their own take must be able to travel to them."""

    @property
    def name(self) -> str:
        """The folder as the user named it."""

    @property
    def address(self) -> str:
        """The same folder's one name, from wherever it is called."""

    def find(self) -> Found:
        """All photos below the folder. Raises a `SourceGoneError` where there is no such folder."""

    def stamp(self, key: str) -> str | None:
        """What changes when the file does, such as its size and time; None where there is no such file."""

    def open(self, key: str) -> BinaryIO:
        """A file for reading, seekable.

        Raises:
            PhotoError: this file cannot be opened.
            SourceGoneError: the folder itself is gone.
        """

    def write(self, key: str, data: bytes) -> None:
        """Writes a file whole or not at all, in place of an older one; its folder is made.

        Raises:
            PhotoError: this file cannot be written, others may.
            OSError: none can: the disk is full, or the folder is gone or must not be written to.
        """

    def size(self, key: str) -> int | None:
        """Bytes of a file; None where there is no such file."""

    def remove(self, key: str) -> None:
        """Deletes a file; nothing where there is none."""


@dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine, or of a drive that is mounted here."""

    name: str

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.name).expanduser()

    @property
    def address(self) -> str:
        """The folder's absolute path, as valid text."""
        return os.fsencode(self.path.resolve()).decode("utf-8", "backslashreplace")

    def find(self) -> Found:
        """All photos below the folder, through links too; no hidden ones, and none in a destination of a run.

        Raises:
            SourceGoneError: there is no such folder.
        """
        if not self.path.is_dir():
            raise SourceGoneError
        listing = list_folder(self.path)
        found = ((key, self.stamp(key)) for key in listing.photos)
        stamps = {key: stamp for key, stamp in found if stamp is not None}
        return Found(stamps, len(listing.results), listing.closed_folders)

    def stamp(self, key: str) -> str | None:
        """Size and time of the file's last change; None where there is no such file."""
        found = self._stat(key)
        return None if found is None else f"{found.st_size}:{found.st_mtime_ns}"

    def open(self, key: str) -> BinaryIO:
        """A file for reading; see `Store.open`."""
        path = self.path / key
        label = printable(str(path))
        try:
            return path.open("rb")
        except FileNotFoundError:
            if self._is_gone():
                raise SourceGoneError from None
            raise PhotoError(f"{label}: no such file any more; it was moved or deleted while the run went on") from None
        except PermissionError:
            raise PhotoError(f"{label}: no permission to read it; change the file's rights") from None
        except (OSError, ValueError) as error:
            if self._is_gone():
                raise SourceGoneError from None
            reason = getattr(error, "strerror", None) or error
            raise PhotoError(f"{label}: cannot be opened ({reason}); check the disk") from error

    def write(self, key: str, data: bytes) -> None:
        """Writes a file; see `Store.write`."""
        path = self.path / key
        if not (self.path / NOTE).exists():  # made again, it would be a folder beside a drive that was taken away
            raise FileNotFoundError(errno.ENOENT, "it was removed, or its drive was", self.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, data)
        except OSError as error:
            whole = error.errno in NO_ACCESS and not os.access(self.path, os.W_OK)
            if error.errno in OF_ONE_FILE | NO_ACCESS and not whole:
                reason = error.strerror or error
                raise PhotoError(f"{printable(str(path))}: cannot be written ({reason}); rename the photo") from error
            raise

    def size(self, key: str) -> int | None:
        """Bytes of a file; None where there is no such file."""
        found = self._stat(key)
        return None if found is None else found.st_size

    def remove(self, key: str) -> None:
        """Deletes a file; nothing where there is none."""
        with suppress(FileNotFoundError):
            (self.path / key).unlink()

    def _stat(self, key: str) -> os.stat_result | None:
        try:
            found = os.stat(self.path / key)
        except (OSError, ValueError):
            return None
        return found if stat.S_ISREG(found.st_mode) else None

    def _is_gone(self) -> bool:
        """Whether the folder is gone, or empty as the place of a drive that was taken away is."""
        try:
            with os.scandir(self.path) as entries:
                return next(entries, None) is None
        except OSError:
            return True


def check_folders(source: LocalFolder, destination: LocalFolder, layers: LocalFolder | None = None) -> None:
    """Checks that results cannot fall among the photos, and that layers are not among them.

    Raises:
        OptionsError: there is no such source, both are one folder, the source lies in the destination, or the layers
            are not there or lie in the source.
    """
    if not source.path.is_dir():
        kind = "is a file; give the folder it is in" if source.path.exists() else "no such folder; check the path"
        raise OptionsError(f"{printable(source.name)}: {kind}")
    photos, results = (Path(os.path.realpath(each.path)) for each in (source, destination))
    if photos == results:
        raise OptionsError(f"{printable(destination.name)}: results may not replace photos; give another folder")
    if results in photos.parents:
        raise OptionsError(
            f"{printable(source.name)} lies in {printable(destination.name)}: results would fall among the photos; "
            "give another folder for them"
        )
    if layers is None:
        return
    label = printable(layers.name)
    if not layers.path.is_dir():
        raise OptionsError(f"--hints-dir {label}: no such folder; give a folder of painted layers")
    real = Path(os.path.realpath(layers.path))
    if photos in (real, *real.parents):
        raise OptionsError(
            f"--hints-dir {label} lies among the photos, and its layers would be some; move it beside them"
        )
