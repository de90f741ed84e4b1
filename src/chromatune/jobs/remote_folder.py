"""Folders behind URLs that fsspec opens, such as `s3://bucket/scans`, `gs://` and `sftp://`."""

from __future__ import annotations

import errno
import io
import os
import secrets
import time
from contextlib import suppress
from datetime import datetime
from importlib.util import find_spec
from typing import Any, BinaryIO

from chromatune.errors import MissingExtraError, OptionsError, PhotoError, first_line, printable
from chromatune.files import is_key, key_problem
from chromatune.images import IMAGE_SUFFIXES, find_own_results, is_hidden_folder
from chromatune.jobs.store_protocol import SourceGoneError, StoreListing, is_settings_file, is_sidecar, split_keys

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
        keys, refused = split_keys(key for key in listing if os.path.splitext(key)[1].lower() in IMAGE_SUFFIXES)
        stamps = {key: _stamp(listing[key]) for key in keys if not _is_hidden(key)}
        own = set(find_own_results(stamps))
        photos = {key: stamps[key] for key in sorted(stamps) if key not in own}
        others = [key for key in sorted(listing) if is_key(key) and not _is_hidden(key)]
        sidecars = tuple(key for key in others if is_sidecar(key))
        files = tuple(key for key in others if is_settings_file(key))
        return StoreListing(photos, len(own), refused=refused, sidecars=sidecars, settings_files=files)

    def _listing(self) -> dict[str, dict[str, Any]]:
        fs, root = self.connect()
        try:
            found = self._walked(fs, root) if scheme_of(self.name) in STREAMED_STORES else fs.find(root, detail=True)
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
            if scheme_of(self.name) in STREAMED_STORES:
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
            if scheme_of(self.name) in ATOMIC_STORES:
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


def _is_hidden(key: str) -> bool:
    *folders, name = key.split("/")
    return name.startswith(".") or any(is_hidden_folder(folder) for folder in folders)


def scheme_of(name: str) -> str:
    """Return the scheme of a URL, of a chained one the first; "" for a path."""
    scheme, found, _ = name.partition("://")
    return scheme.rpartition("::")[2].lower() if found else ""


def _stamp(info: dict[str, Any]) -> str:
    change = next((info[name] for name in CHANGE_FIELDS if info.get(name) is not None), "")
    if isinstance(change, datetime):  # a listing may have seconds where a file alone has a date
        change = change.timestamp()
    return f"{info['size']}:{change:.6f}" if isinstance(change, float) else f"{info['size']}:{change}"
