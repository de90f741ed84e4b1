"""A folder behind a URL (`s3://bucket/scans`, `gs://`, `sftp://`, whatever fsspec opens) as a store of an archive."""

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
from chromatune.images import HIDDEN_FOLDERS, IMAGE_SUFFIXES, find_own_results
from chromatune.jobs.stores import Found, LocalFolder, SourceGoneError, Store, check_folders

# A file appears there when all of it has come; elsewhere it is written under another name and renamed
WHOLE_PUTS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "memory"}
# What changes when the file does, by whatever name a store has for it, the surest first
CHANGES = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "created")
LISTING_S = 60.0  # how long sizes from a listing count: one by one, those of 50,000 results would take long


class RemoteFolder:
    """See `Store`; it travels to other processes, and opens its connection where it is used."""

    def __init__(self, name: str) -> None:
        """A folder by its URL; nothing is asked of the store yet."""
        self.name = name.rstrip("/") if not name.endswith("://") else name
        self._opened: tuple[Any, str] | None = None
        self._sizes: dict[str, int] = {}
        self._sizes_until = 0.0

    @property
    def address(self) -> str:
        """The URL."""
        return self.name

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["name"])  # type: ignore[misc]

    @property
    def _fs(self) -> Any:
        return self._open_store()[0]

    def _open_store(self) -> tuple[Any, str]:
        """The store, and the folder's path in it."""
        if self._opened is None:
            if find_spec("fsspec") is None:
                raise MissingExtraError(self.name, "ray")
            import fsspec

            try:
                fs, root = fsspec.url_to_fs(self.name, use_listings_cache=False)
            except ImportError as error:
                raise OptionsError(
                    f"{printable(self.name)}: what opens such URLs is not installed: {first_line(error)}"
                ) from None
            except ValueError as error:
                raise OptionsError(f"{printable(self.name)}: no such store ({first_line(error)})") from None
            self._opened = fs, root.rstrip("/")
        return self._opened

    def connect(self) -> None:
        """Passes where what opens such URLs is installed.

        Raises:
            MissingExtraError, OptionsError: it is not.
        """
        self._open_store()

    def _path(self, key: str) -> str:
        return f"{self._open_store()[1]}/{key}"

    def find(self) -> Found:
        """All photos below the folder; see `Store.find`."""
        stamps = {}
        for key, info in self._listing().items():
            hidden = any(part.startswith(HIDDEN_FOLDERS) for part in key.split("/"))
            if not hidden and os.path.splitext(key)[1].lower() in IMAGE_SUFFIXES:
                stamps[key] = _stamp(info)
        own = set(find_own_results(stamps))
        return Found({key: stamps[key] for key in sorted(stamps) if key not in own}, len(own))

    def _listing(self) -> dict[str, dict[str, Any]]:
        fs, root = self._open_store()
        try:
            found = fs.find(root, detail=True)
            gone = not found and not fs.exists(root)
        except Exception as error:
            raise SourceGoneError(first_line(error)) from error
        if gone:
            raise SourceGoneError
        return {path.removeprefix(f"{root}/"): info for path, info in found.items()}

    def stamp(self, key: str) -> str | None:
        """Size, and time or sum, of a file; None where there is no such file."""
        info = self._info(key)
        return None if info is None else _stamp(info)

    def open(self, key: str) -> BinaryIO:
        """A file for reading; it is fetched at once, see `Store.open`."""
        label = printable(f"{self.name}/{key}")
        try:
            return io.BytesIO(self._fs.cat_file(self._path(key)))
        except FileNotFoundError:
            raise PhotoError(f"{label}: no such file any more; it was moved or deleted while the run went on") from None
        except PermissionError:
            raise PhotoError(f"{label}: no permission to read it; change the file's rights") from None
        except Exception as error:
            raise SourceGoneError(first_line(error)) from error

    def write(self, key: str, data: bytes) -> None:
        """Writes a file whole or not at all; see `Store.write`."""
        fs, path = self._fs, self._path(key)
        try:
            if _scheme(self.name) in WHOLE_PUTS:
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
        """Bytes of a file, from a listing of the last minute where it is in there; None where there is no such file."""
        if time.monotonic() > self._sizes_until:
            with suppress(SourceGoneError):
                self._sizes = {name: info["size"] for name, info in self._listing().items()}
            self._sizes_until = time.monotonic() + LISTING_S
        if key in self._sizes:
            return self._sizes[key]
        info = self._info(key)
        return None if info is None else info["size"]

    def remove(self, key: str) -> None:
        """Deletes a file; nothing where there is none."""
        self._sizes.pop(key, None)
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._path(key))

    def _info(self, key: str) -> dict[str, Any] | None:
        try:
            info: dict[str, Any] = self._fs.info(self._path(key))
        except Exception:  # noqa: BLE001 - whatever is wrong, `open` will say it
            return None
        return info if info.get("type") == "file" else None


def open_store(name: str) -> Store:
    """The store of a folder's path or URL."""
    if _scheme(name) in ("", "file", "local"):
        return LocalFolder(name.partition("://")[2] or name)
    return RemoteFolder(name)


def check_stores(source: Store, destination: Store, layers: Store | None = None) -> None:
    """Checks that results cannot fall among the photos, and that layers are not among them; see `check_folders`.

    Raises:
        OptionsError: a folder is not there, or one lies in another.
        MissingExtraError: a URL takes what is not installed.
    """
    local = [each for each in (source, destination, layers) if isinstance(each, LocalFolder)]
    if len(local) == 2 + (layers is not None):
        check_folders(*local)
        return
    for each in (source, layers):
        if isinstance(each, LocalFolder) and not each.path.is_dir():
            raise OptionsError(f"{printable(each.name)}: no such folder; check the path")
    for each in (source, destination, layers):
        if isinstance(each, RemoteFolder):
            each.connect()
    photos, results = f"{source.address}/", f"{destination.address}/"
    if photos.startswith(results) or results.startswith(photos):
        raise OptionsError(f"{printable(destination.name)}: results may not fall among the photos; give another folder")
    if layers is not None and f"{layers.address}/".startswith(photos):
        raise OptionsError(f"{printable(layers.name)} lies among the photos, and its layers would be some; move it")


def _scheme(name: str) -> str:
    scheme, found, _ = name.partition("://")
    return scheme.rpartition("::")[2].lower() if found else ""


def _stamp(info: dict[str, Any]) -> str:
    change = next((info[name] for name in CHANGES if info.get(name) is not None), "")
    if isinstance(change, datetime):  # a listing may have seconds where a file alone has a date
        change = change.timestamp()
    return f"{info['size']}:{change:.6f}" if isinstance(change, float) else f"{info['size']}:{change}"
