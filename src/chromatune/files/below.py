"""Files by their keys: paths below a folder, "/" between their parts, that may come from anybody.

Nothing outside of the folder is read, written or deleted by a key. It is checked as text first. Then each folder on its
way is opened from within the one above it, and no link is followed, so that nobody can put one there in between. The
folder itself may be a link, or a mount point. Where the system has no such calls (Windows), the path is compared with
what the file system makes of it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from chromatune.files.atomic import part_name, sweep_parts
from chromatune.files.regular import NEW_FILE_RIGHTS, NO_LINK, NO_WAIT, link_error, open_checked

# More would make folders that programs cannot open or delete
LONGEST_KEY_BYTES, MOST_KEY_PARTS = 4096, 256
DRIVE = re.compile(r"[A-Za-z]:")
HAS_DESCRIPTORS = {os.open, os.mkdir, os.stat, os.unlink, os.rename} <= os.supports_dir_fd and bool(NO_LINK)
# O_PATH needs no right to list the folder
FOLDER_FLAGS = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_CLOEXEC", 0)
NEW_FILE_FLAGS = (
    os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
)


def key_problem(key: str) -> str:
    r"""Return what is wrong with a key, such as "has .. in it"; "" where it names a file below its folder.

    It is so for any system: backslashes count as other systems read them: `a\b.jpg` is a key, `..\b.jpg` is none.
    """
    parts = re.split(r"[/\\]", key)
    try:
        if len(os.fsencode(key)) > LONGEST_KEY_BYTES or len(parts) > MOST_KEY_PARTS:
            return f"has more than {LONGEST_KEY_BYTES} bytes or {MOST_KEY_PARTS} parts"
    except UnicodeEncodeError:
        return "has characters that no file's name can have here"
    if "\0" in key:
        return "has a NUL character in it"
    if ".." in parts:
        return "has .. in it"
    if parts[0] == "" or DRIVE.fullmatch(parts[0]):
        return "is no path below a folder"
    if "" in parts or "." in parts:
        return "has an empty part"
    if os.name == "nt" and (":" in key or any(not part.strip(" .") for part in parts)):
        return "has a part that Windows reads as something else"
    return ""


def is_key(key: str) -> bool:
    """Return whether a text is the key of a file below some folder, on any system."""
    return not key_problem(key)


def open_below(root: str | Path, key: str) -> BinaryIO:
    """Open a regular file below a folder for reading.

    Raises:
        OSError: see `open_regular`; or the key leads out of the folder (`errno.EINVAL`), or there is a link on its way
            (`errno.ELOOP`).
    """
    with _place_of(root, key) as place:
        place.refuse_link()
        return open_checked(os.path.join(root, key), "rb", place.open)


def stat_below(root: str | Path, key: str) -> os.stat_result:
    """Return the status of a file below a folder; of a link, its own.

    Raises:
        OSError: there is none, or as for `open_below`.
    """
    with _place_of(root, key) as place:
        return place.stat()


def write_below(root: str | Path, key: str, data: bytes, modified_ns: int | None = None, *, sync: bool = True) -> None:
    """Write a file below a folder completely or not at all, in place of an older one or of a link; make its folders.

    Args:
        root: the folder.
        key: of the file.
        data: its content.
        modified_ns: its time of last change, in nanoseconds since 1970; None for now.
        sync: wait until it is on the disk; else a power cut may leave it empty.

    Raises:
        OSError: it cannot be written, and an older one stays as it was; or as for `open_below`.
    """
    try:
        with _place_of(root, key, make=True) as place:
            _write(place, data, modified_ns, sync)
    except OSError as error:
        error.filename = os.path.join(root, key)  # not the temporary name
        raise


def remove_below(root: str | Path, key: str) -> None:
    """Delete a file below a folder, or a link there, if there is one.

    Raises:
        OSError: it cannot be deleted; or as for `open_below`.
    """
    with suppress(FileNotFoundError), _place_of(root, key) as place:
        os.unlink(place.path(place.name), dir_fd=place.folder)


@dataclass(frozen=True)
class _Place:
    """A name in a folder that was reached without a link.

    Attributes:
        name: of the file.
        key: of the file, for messages.
        folder: descriptor of its folder; None where the system has none.
        prefix: path of its folder, where there is no descriptor.
    """

    name: str
    key: str
    folder: int | None
    prefix: str = ""

    def path(self, name: str) -> str:
        """Return the path of a name in the folder: to be used with `dir_fd=folder`."""
        return os.path.join(self.prefix, name)

    def open(self, _: str, flags: int) -> int:
        return os.open(self.path(self.name), flags | NO_WAIT | NO_LINK, dir_fd=self.folder)

    def stat(self) -> os.stat_result:
        return os.stat(self.path(self.name), dir_fd=self.folder, follow_symlinks=False)

    def refuse_link(self) -> None:
        if stat.S_ISLNK(self.stat().st_mode):
            raise link_error(self.key)


def _write(place: _Place, data: bytes, modified_ns: int | None, sync: bool) -> None:
    sweep_parts(place.prefix or ".", place.folder)
    temporary = place.path(part_name(place.name))
    descriptor = os.open(temporary, NEW_FILE_FLAGS, NEW_FILE_RIGHTS, dir_fd=place.folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if modified_ns is not None:
                with suppress(OSError):  # a disk may not have such a time
                    os.utime(temporary, ns=(modified_ns, modified_ns), dir_fd=place.folder)
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, place.path(place.name), src_dir_fd=place.folder, dst_dir_fd=place.folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=place.folder)
        raise


@contextmanager
def _place_of(root: str | Path, key: str, *, make: bool = False) -> Iterator[_Place]:
    """Yield where a key leads; with `make`, its folders are made where they are missing."""
    if problem := key_problem(key):
        raise OSError(errno.EINVAL, f"its name {problem}", os.path.join(root, key))
    *folders, name = key.split("/")
    if not HAS_DESCRIPTORS:
        yield _Place(name, key, None, _compared(root, folders, make))
        return
    descriptor = os.open(root, FOLDER_FLAGS)
    try:
        for number, part in enumerate(folders):
            inner = _opened_folder(part, descriptor, "/".join(folders[: number + 1]), make)
            os.close(descriptor)
            descriptor = inner
        yield _Place(name, key, descriptor)
    finally:
        os.close(descriptor)


def _opened_folder(name: str, outer: int, label: str, make: bool) -> int:
    """Return the descriptor of a folder within another one; a link is none."""
    flags = FOLDER_FLAGS | NO_LINK
    try:
        return os.open(name, flags, dir_fd=outer)
    except FileNotFoundError:
        if not make:
            raise
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=outer)
        return os.open(name, flags, dir_fd=outer)
    except OSError:
        if stat.S_ISLNK(os.stat(name, dir_fd=outer, follow_symlinks=False).st_mode):
            raise link_error(label) from None
        raise


def _compared(root: str | Path, folders: list[str], make: bool) -> str:
    """Return the path of a folder below another one, where it is what it says: no link leads elsewhere."""
    path = os.path.join(os.path.realpath(root), *folders)
    for _ in range(2):
        if os.path.normcase(os.path.realpath(path)) != os.path.normcase(path):
            raise link_error("/".join(folders))
        if make:
            os.makedirs(path, exist_ok=True)
    return path
