"""Stores of photos and results: folders of this machine, and the choice between them and folders behind URLs."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from chromatune.errors import OptionsError, PhotoError, printable
from chromatune.files import (
    is_key,
    key_problem,
    open_below,
    open_regular,
    read_regular,
    remove_below,
    stat_below,
    write_below,
)
from chromatune.images import IMAGE_SUFFIXES, START_BYTES, list_folder, suffix_of_content
from chromatune.jobs.remote_folder import RemoteFolder, scheme_of
from chromatune.jobs.store_protocol import (
    STATE_FILE,
    SourceGoneError,
    Store,
    StoreListing,
    is_settings_file,
    is_sidecar,
    split_keys,
)

# Of files that are no pictures: they need not be opened to know it
OTHER_SUFFIXES = frozenset(
    ".xmp .txt .md .log .json .jsonl .xml .csv .tsv .toml .ini .db .sqlite .html .htm .pdf .doc .docx .xls .xlsx .odt "
    ".ods .rtf .zip .7z .gz .tar .rar .mp3 .wav .flac .m4a .mp4 .m4v .mov .avi .mkv .mpg .mts .exe .dll .lnk .url .py "
    ".sh .bat .icc .icm .lrcat .lrdata .pp3 .dop .cos .on1 .aae .thm".split()
)
# Wrong with one file's name or size; all other errors are the whole destination's
OF_ONE_FILE = {
    errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EFBIG, errno.EINVAL, errno.EILSEQ, errno.ELOOP,
}  # fmt: skip
NO_ACCESS = {errno.EACCES, errno.EPERM}


@dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine, or of a drive that is mounted on it."""

    name: str

    @property
    def path(self) -> Path:
        return Path(self.name).expanduser()

    @property
    def address(self) -> str:
        """The folder's absolute path, as valid text."""
        return os.fsencode(self.path.resolve()).decode("utf-8", "backslashreplace")

    def find(self) -> StoreListing:
        """List all photos below the folder, through links too; no hidden ones, and none in folders of results."""
        if not self.path.is_dir():
            raise SourceGoneError
        listing = list_folder(self.path)
        others, _ = split_keys(listing.others)
        suffixes, left_out = self._pictures_among(others)
        keys, refused = split_keys([*listing.photos, *suffixes])
        found = ((key, self.stamp(key)) for key in sorted(keys))
        stamps = {key: stamp for key, stamp in found if stamp is not None}
        sidecars = tuple(key for key in others if is_sidecar(key))
        files = tuple(key for key in others if is_settings_file(key))
        counts = len(listing.results), listing.closed_folders
        return StoreListing(stamps, *counts, refused, sidecars, files, suffixes, tuple(left_out))

    def _pictures_among(self, others: Iterable[str]) -> tuple[dict[str, str], list[str]]:
        """Return which files without a photo's suffix are pictures by their first bytes.

        Returns:
            Those without any suffix, or with points and spaces after it, each with the one it should have; and those
            with the suffix of something else.
        """
        nameless, left_out = dict[str, str](), list[str]()
        for key in others:
            suffix = os.path.splitext(key.rstrip(" ."))[1].lower()
            if suffix in OTHER_SUFFIXES:
                continue
            with suppress(OSError), open_regular(self.path / key) as file:
                if found := suffix_of_content(file.read(START_BYTES)):
                    if suffix and suffix not in IMAGE_SUFFIXES:
                        left_out.append(key)
                    else:
                        nameless[key] = found
        return nameless, left_out

    def stamp(self, key: str) -> str | None:
        """Return the size and the time of the last change; None where there is no such file."""
        if not is_key(key):
            return None
        try:
            found = os.stat(self.path / key)
        except OSError:
            return None
        return f"{found.st_size}:{found.st_mtime_ns}" if stat.S_ISREG(found.st_mode) else None

    def open(self, key: str) -> BinaryIO:
        path = self.path / key
        if problem := key_problem(key):
            raise PhotoError(f"{printable(str(path))}: its name {problem}; rename it")
        return self._opened(key, lambda: open_regular(path))

    def open_result(self, key: str) -> BinaryIO:
        return self._opened(key, lambda: open_below(self.path, key))

    def read_inside(self, key: str, most_bytes: int) -> bytes:
        real, root = (Path(os.path.realpath(path)) for path in (self.path / key, self.path))
        if root not in real.parents:
            raise OSError(errno.ELOOP, "it is a link out of the folder, which is not followed", key)
        return read_regular(real, most_bytes, follow_link=False)

    def _opened(self, key: str, open_file: Callable[[], BinaryIO]) -> BinaryIO:
        label = printable(str(self.path / key))
        try:
            return open_file()
        except FileNotFoundError:
            if self._is_gone():
                raise SourceGoneError from None
            raise PhotoError(f"{label}: no longer there; it was moved or deleted during the run") from None
        except PermissionError:
            raise PhotoError(f"{label}: no permission to read it; change the file's permissions") from None
        except (OSError, ValueError) as error:
            if self._is_gone():
                raise SourceGoneError from None
            reason = getattr(error, "strerror", None) or error
            raise PhotoError(f"{label}: cannot be opened ({reason}); check the disk") from error

    def modified_ns(self, key: str) -> int | None:
        try:
            return os.stat(self.path / key).st_mtime_ns
        except OSError:
            return None

    def write(self, key: str, data: bytes, modified_ns: int | None = None) -> None:
        try:
            stat_below(self.path, STATE_FILE)
        except FileNotFoundError:  # made again, it would be a folder in place of a removed drive
            raise FileNotFoundError(errno.ENOENT, "it was deleted, or its drive was disconnected", self.name) from None
        try:
            write_below(self.path, key, data, modified_ns)
        except OSError as error:
            whole = error.errno in NO_ACCESS and not os.access(self.path, os.W_OK)
            if error.errno in OF_ONE_FILE | NO_ACCESS and not whole:
                label, reason = printable(str(self.path / key)), error.strerror or error
                advice = "put a folder in its place" if error.errno == errno.ELOOP else "rename the photo"
                raise PhotoError(f"{label}: cannot be written ({reason}); {advice}") from error
            raise

    def size(self, key: str) -> int | None:
        try:
            found = stat_below(self.path, key)
        except OSError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def remove(self, key: str) -> None:
        remove_below(self.path, key)

    def _is_gone(self) -> bool:
        """Return whether the folder is gone, or empty as the mount point of a removed drive is."""
        try:
            with os.scandir(self.path) as entries:
                return next(entries, None) is None
        except OSError:
            return True


def open_store(name: str) -> Store:
    """Return the store of a folder's path or URL."""
    if scheme_of(name) in ("", "file", "local"):
        return LocalFolder(name.partition("://")[2] or name)
    return RemoteFolder(name)


def check_stores(source: Store, destination: Store, layers: Store | None = None) -> None:
    """Check that results cannot fall among the photos, and that layers are not among them.

    Raises:
        OptionsError: a folder is not there, or one lies in another.
        MissingExtraError: a library that opens such URLs is not installed.
    """
    local = [each for each in (source, destination, layers) if isinstance(each, LocalFolder)]
    if len(local) == 2 + (layers is not None):
        _check_folders(*local)
        return
    for each in (source, layers):
        if isinstance(each, LocalFolder) and not each.path.is_dir():
            raise OptionsError(f"{printable(each.name)}: no such folder; check the path")
    for each in (source, destination, layers):
        if isinstance(each, RemoteFolder):
            each.connect()
    photos, results = f"{source.address}/", f"{destination.address}/"
    if photos.startswith(results) or results.startswith(photos):
        raise OptionsError(
            f"{printable(destination.name)}: results may not be written among the photos; give another DEST"
        )
    if layers is not None and f"{layers.address}/".startswith(photos):
        raise OptionsError(
            f"{printable(layers.name)} is inside the photo folder: its layers would be colorized; move it"
        )


def _check_folders(source: LocalFolder, destination: LocalFolder, layers: LocalFolder | None = None) -> None:
    """Check the same of folders of this machine, through links too."""
    if not source.path.is_dir():
        kind = "is a file; give the folder it is in" if source.path.exists() else "no such folder; check the path"
        raise OptionsError(f"{printable(source.name)}: {kind}")
    photos, results = (Path(os.path.realpath(each.path)) for each in (source, destination))
    if photos == results:
        raise OptionsError(f"{printable(destination.name)}: results may not replace the photos; give another DEST")
    if results in photos.parents:
        raise OptionsError(
            f"{printable(source.name)} is inside {printable(destination.name)}: results would be mixed with the "
            "photos; give another DEST"
        )
    if layers is None:
        return
    label = printable(layers.name)
    if not layers.path.is_dir():
        raise OptionsError(f"--hints-dir {label}: no such folder; give a folder of painted layers")
    real = Path(os.path.realpath(layers.path))
    if photos in (real, *real.parents):
        raise OptionsError(
            f"--hints-dir {label} is inside the photo folder: its layers would be colorized; move it beside them"
        )
