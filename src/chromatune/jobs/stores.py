"""Folders that photos are read from and results written to, by keys: paths below the folder with "/" between parts.

A store is a folder of this machine, or one behind a URL that fsspec opens (`s3://bucket/scans`, `gs://`, `sftp://`).
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from chromatune.errors import MissingExtraError, OptionsError, PhotoError, first_line, printable
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
from chromatune.images import (
    IMAGE_SUFFIXES,
    START_BYTES,
    find_own_results,
    is_hidden_folder,
    list_folder,
    suffix_of_content,
)

STATE_FOLDER = ".chromatune"  # in a destination: the records of its archive
STATE_FILE = f"{STATE_FOLDER}/archive.json"  # in a destination from the first moment on
SETTINGS_FILE = "chromatune.toml"  # in a folder of photos: settings of its own
SIDECAR_SUFFIX = ".xmp"  # captions and edits of other programs
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
# Stores in which a file appears when all of it is there; elsewhere it is written under another name and renamed
ATOMIC_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "memory"}
# What changes when the file does, by whatever name a store has for it, the surest first
CHANGE_FIELDS = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "created")
TIME_FIELDS = ("mtime", "LastModified", "last_modified")
STREAMED_STORES = {"http", "https"}  # what a server sends may have no end, whatever it says of the size
MOST_DEPTH, MOST_FOLDERS = 64, 100_000  # that such a server may list
MOST_LISTING_BYTES = 64 << 20  # of one folder: some million names
DOWNLOADED_BYTES = 100_000_000  # a larger photo behind a URL is opened by its header first, before it is read
LARGE = f"the file is longer than {DOWNLOADED_BYTES // 10**6} MB"
LISTING_S = 60.0  # how long sizes from a listing count: one by one, those of 50,000 results would take long


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
        others, _ = _split_keys(listing.others)
        suffixes, left_out = self._pictures_among(others)
        keys, refused = _split_keys([*listing.photos, *suffixes])
        found = ((key, self.stamp(key)) for key in sorted(keys))
        stamps = {key: stamp for key, stamp in found if stamp is not None}
        sidecars = tuple(key for key in others if _is_sidecar(key))
        files = tuple(key for key in others if _is_settings_file(key))
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


class RemoteFolder:
    """A folder behind a URL; in each process it opens a connection of its own, when it is first used."""

    def __init__(self, name: str) -> None:
        """Name a folder by its URL, without connecting."""
        self.name = name.rstrip("/") if not name.endswith("://") else name
        self._connection: tuple[Any, str] | None = None
        self._sizes: dict[str, int] = {}
        self._stamped_sizes: dict[str, int | None] = {}  # as `stamp` found them: `open` need not ask again
        self._sizes_until = 0.0

    @property
    def address(self) -> str:
        return self.name

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["name"])  # type: ignore[misc]

    @property
    def _fs(self) -> Any:
        return self.connect()[0]

    def connect(self) -> tuple[Any, str]:
        """Return fsspec's file system and the folder's path in it.

        Raises:
            MissingExtraError, OptionsError: a library that opens such URLs is not installed, or there is none.
        """
        if self._connection is None:
            if find_spec("fsspec") is None:
                raise MissingExtraError(self.name, "ray")
            import fsspec

            try:
                is_http = self.name.partition("://")[0].lower() in STREAMED_STORES
                more = {"client_kwargs": {"response_class": _bounded_response(self.name)}} if is_http else {}
                fs, root = fsspec.url_to_fs(self.name, use_listings_cache=False, **more)
            except ImportError as error:
                raise OptionsError(
                    f"{printable(self.name)}: the package that opens such URLs is not installed: {first_line(error)}"
                ) from None
            except ValueError as error:
                raise OptionsError(
                    f"{printable(self.name)}: unknown kind of URL ({printable(first_line(error))})"
                ) from None
            except Exception as error:  # of an archive's file that is none, of a store that needs to be told more
                reason = printable(first_line(error))
                raise OptionsError(f"{printable(self.name)}: cannot be opened ({reason}); check the URL") from error
            self._connection = fs, root.rstrip("/")
        return self._connection

    def _path(self, key: str) -> str:
        if problem := key_problem(key):
            raise PhotoError(f"{printable(f'{self.name}/{key}')}: its name {problem}; rename it")
        return f"{self.connect()[1]}/{key}"

    def find(self) -> StoreListing:
        listing = self._listing()
        keys, refused = _split_keys(key for key in listing if os.path.splitext(key)[1].lower() in IMAGE_SUFFIXES)
        stamps = {key: _stamp(listing[key]) for key in keys if not _is_hidden(key)}
        own = set(find_own_results(stamps))
        photos = {key: stamps[key] for key in sorted(stamps) if key not in own}
        others = [key for key in sorted(listing) if is_key(key) and not _is_hidden(key)]
        sidecars = tuple(key for key in others if _is_sidecar(key))
        files = tuple(key for key in others if _is_settings_file(key))
        return StoreListing(photos, len(own), refused=refused, sidecars=sidecars, settings_files=files)

    def _listing(self) -> dict[str, dict[str, Any]]:
        fs, root = self.connect()
        try:
            found = self._walked(fs, root) if _scheme(self.name) in STREAMED_STORES else fs.find(root, detail=True)
            gone = not found and not fs.exists(root)
        except OptionsError:
            raise
        except Exception as error:
            raise SourceGoneError(first_line(error)) from error
        if gone:
            raise SourceGoneError
        prefix = f"{root}/"
        # What lies elsewhere, by whatever a server lists, keeps its whole path: with a slash before it, that is no key
        return {
            path.removeprefix(prefix) if path.startswith(prefix) or not root else f"/{path}": info
            for path, info in found.items()
        }

    def _walked(self, fs: Any, root: str) -> dict[str, dict[str, Any]]:
        """Return all files that a server lists, folder by folder; it may list folders without end."""
        found: dict[str, dict[str, Any]] = {}
        for number, (_, _, files) in enumerate(fs.walk(root, maxdepth=MOST_DEPTH, detail=True), 1):
            found |= {info["name"]: info for info in files.values()}
            if number > MOST_FOLDERS:
                raise OptionsError(
                    f"{printable(self.name)}: more than {MOST_FOLDERS:,} folders; give one of its subfolders"
                )
        return found

    def stamp(self, key: str) -> str | None:
        """Return the size and the time or checksum of a file; None where there is no such file."""
        info = self._info(key)
        if info is not None:
            self._stamped_sizes[key] = info.get("size")
        return None if info is None else _stamp(info)

    def open(self, key: str) -> BinaryIO:
        """Open a file: downloaded, or where it is large, to be read piece by piece."""
        label, path = printable(f"{self.name}/{key}"), self._path(key)
        if key not in self._stamped_sizes:
            self.stamp(key)
        size = self._stamped_sizes.pop(key, None)
        try:
            if size is not None and size > DOWNLOADED_BYTES:
                return self._in_pieces(path, label)
            if _scheme(self.name) in STREAMED_STORES:
                return io.BytesIO(self._streamed(path, label))
            return io.BytesIO(self._fs.cat_file(path))
        except PhotoError:
            raise
        except FileNotFoundError:
            raise PhotoError(f"{label}: no longer there; it was moved or deleted during the run") from None
        except PermissionError:
            raise PhotoError(f"{label}: no permission to read it; change the file's permissions") from None
        except Exception as error:
            if self._is_gone():
                raise SourceGoneError(first_line(error)) from error
            reason = printable(first_line(error))
            raise PhotoError(f"{label}: cannot be read ({reason}); check it, or upload it again") from error

    def _is_gone(self) -> bool:
        """Return whether the folder itself cannot be reached."""
        fs, root = self.connect()
        try:
            return not fs.exists(root)
        except Exception:  # noqa: BLE001 - each store has errors of its own
            return True

    def open_result(self, key: str) -> BinaryIO:
        return self.open(key)

    def read_inside(self, key: str, most_bytes: int) -> bytes:
        try:
            with self.open(key) as file:
                data = file.read(most_bytes + 1)
        except (PhotoError, SourceGoneError) as error:
            raise OSError(errno.EIO, first_line(error), key) from error
        if len(data) > most_bytes:
            raise OSError(errno.EFBIG, f"more than {most_bytes} bytes", key)
        return data

    def _in_pieces(self, path: str, label: str) -> BinaryIO:
        """Return a large file that is read where and as far as its reader wants."""
        file: BinaryIO = self._fs.open(path, "rb")
        try:
            file.seek(0, os.SEEK_END)
            file.seek(0)
        except ValueError:
            file.close()
            raise PhotoError(f"{label}: {LARGE}, and the server does not support partial downloads") from None
        return file

    def _streamed(self, path: str, label: str) -> bytes:
        """Return a file that a server sends, up to a limit: it may send without end."""
        data = bytearray()
        # no blocks and a size of whatever: read as it comes, and asked for once
        with self._fs.open(path, "rb", block_size=0, size=1) as file:
            while piece := file.read(DOWNLOADED_BYTES + 1 - len(data)):
                data += piece
                if len(data) > DOWNLOADED_BYTES:
                    raise PhotoError(f"{label}: {LARGE}, and the server does not state its size")
        return bytes(data)

    def modified_ns(self, key: str) -> int | None:
        info = self._info(key) or {}
        found = next((info[name] for name in TIME_FIELDS if info.get(name) is not None), None)
        seconds = found.timestamp() if isinstance(found, datetime) else found
        return round(seconds * 1e9) if isinstance(seconds, int | float) else None

    def write(self, key: str, data: bytes, modified_ns: int | None = None) -> None:
        fs, path = self._fs, self._path(key)
        try:
            if _scheme(self.name) in ATOMIC_STORES:
                fs.pipe_file(path, data)
            else:
                folder, _, name = path.rpartition("/")
                fs.makedirs(folder, exist_ok=True)
                part = f"{folder}/.{secrets.token_hex(8)}.part"
                fs.pipe_file(part, data)
                fs.mv(part, path)
        except OSError:
            raise
        except Exception as error:  # each store has errors of its own
            raise OSError(errno.EIO, first_line(error)) from error
        self._sizes[key] = len(data)

    def size(self, key: str) -> int | None:
        """Return the bytes of a file, by a listing of the last minute if it is there; None for no such file."""
        if time.monotonic() > self._sizes_until:
            with suppress(SourceGoneError):
                self._sizes = {name: info["size"] for name, info in self._listing().items()}
            self._sizes_until = time.monotonic() + LISTING_S
        if key in self._sizes:
            return self._sizes[key]
        info = self._info(key)
        return None if info is None else info["size"]

    def remove(self, key: str) -> None:
        self._sizes.pop(key, None)
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._path(key))

    def _info(self, key: str) -> dict[str, Any] | None:
        try:
            info: dict[str, Any] = self._fs.info(self._path(key))
        except Exception:  # noqa: BLE001 - whatever is wrong, `open` reports it
            return None
        return info if info.get("type") == "file" else None


def _bounded_response(name: str) -> Any:
    """Return aiohttp's class of responses with a limit of text: a listing of the server `name` may have no end."""
    import aiohttp

    class BoundedResponse(aiohttp.ClientResponse):
        async def text(self, encoding: str | None = None, errors: str = "replace") -> str:
            data = bytearray()
            async for piece in self.content.iter_any():
                data += piece
                if len(data) > MOST_LISTING_BYTES:
                    self.close()
                    most = f"{MOST_LISTING_BYTES / 1e6:.0f} MB"
                    raise OptionsError(
                        f"{printable(name)}: lists more than {most} of names; give one of its subfolders"
                    )
            return data.decode(encoding or self.charset or "utf-8", errors)

    return BoundedResponse


def _split_keys(names: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the names that are keys, and those that are none."""
    all_names = list(names)
    return [name for name in all_names if is_key(name)], tuple(sorted(name for name in all_names if not is_key(name)))


def _is_sidecar(key: str) -> bool:
    return key.lower().endswith(SIDECAR_SUFFIX)


def _is_settings_file(key: str) -> bool:
    return key.rpartition("/")[2] == SETTINGS_FILE


def _is_hidden(key: str) -> bool:
    *folders, name = key.split("/")
    return name.startswith(".") or any(is_hidden_folder(folder) for folder in folders)


def open_store(name: str) -> Store:
    """Return the store of a folder's path or URL."""
    if _scheme(name) in ("", "file", "local"):
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


def _scheme(name: str) -> str:
    scheme, found, _ = name.partition("://")
    return scheme.rpartition("::")[2].lower() if found else ""


def _stamp(info: dict[str, Any]) -> str:
    change = next((info[name] for name in CHANGE_FIELDS if info.get(name) is not None), "")
    if isinstance(change, datetime):  # a listing may have seconds where a file alone has a date
        change = change.timestamp()
    return f"{info['size']}:{change:.6f}" if isinstance(change, float) else f"{info['size']}:{change}"
