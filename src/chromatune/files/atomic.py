"""Atomic writes: a file, or a folder, appears under its name only once it is complete and on the disk.

Until then a file is called `.NAME.MACHINE-PROCESS-RANDOM.part`, in the same folder, so that files that a killed process
left are distinguished from those that a living one is writing.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import re
import secrets
import shutil
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PART_NAME = re.compile(r"\..*\.(?P<machine>[0-9a-f]{8})-(?P<process>\d{1,10})-[0-9a-f]{16}\.part", re.DOTALL)
LONGEST_SHARE_OF_NAME = 40  # characters of the final name in the temporary one: names have an end, at 255 bytes
ABANDONED_AFTER_SECONDS = 3600

RENAME_NOREPLACE, AT_FDCWD = 1, -100  # of Linux' renameat2
RENAME_EXCL = 4  # of macOS' renamex_np

_LAST_RESORT_LOCK = threading.Lock()
_SWEPT: set[Path | tuple[int, int]] = set()  # folders that this process has looked through


def atomic_write(target: Path, data: bytes, *, overwrite: bool = True, follow_link: bool = False) -> None:
    """Write a file completely or not at all: under a temporary name, to the disk, then renamed; see `atomic_file`."""
    with atomic_file(target, overwrite=overwrite, follow_link=follow_link) as temporary, temporary.open("xb") as file:
        file.write(data)


@contextlib.contextmanager
def atomic_file(target: Path, *, overwrite: bool = True, follow_link: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write a file to, which takes the name `target` at the end; on an error nothing is left.

    Args:
        target: where to. A link there is replaced, not what it points at: anybody may have put it into the folder.
        overwrite: replace an existing file.
        follow_link: replace what a link points at, for a file that the user has named.

    Raises:
        OSError: it cannot be written, and `filename` says so; an existing file stays as it was.
        FileExistsError: it exists, and `overwrite` is off.
    """
    given = target
    if overwrite and follow_link:
        target = Path(os.path.realpath(target))
    sweep_parts(target.parent)
    # Same folder: a rename cannot cross file systems
    temporary = target.with_name(part_name(target.name))
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if overwrite:
            os.replace(temporary, target)
        else:
            _rename_to_new(temporary, target)
    except OSError as error:
        error.filename = str(given)  # a full disk names no file, other failures the temporary one
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_json(target: Path, value: Any) -> None:
    """Write a value as indented JSON, completely or not at all.

    Raises:
        OSError: it cannot be written; an existing file stays as it was.
        ValueError: a number is not finite: JSON has none.
    """
    atomic_write(target, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill, which replaces `folder` at the end; on an error nothing is left.

    Raises:
        OSError: it cannot be written; an existing folder stays as it was.
    """
    target = Path(os.path.realpath(folder))  # replace what a link points at, not the link
    # Fixed names, not random ones: the next call clears what a killed one left
    new, old = (target.with_name(f".{target.name}.{what}") for what in ("new", "old"))
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        yield new
        sync_folder(new)
        # No system renames over a full folder, so the old one steps aside first
        shutil.rmtree(old, ignore_errors=True)
        replaces = target.exists()
        if replaces:
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if replaces:
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Wait until all files of a folder are on the disk: a rename may get there before what it names."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())


def part_name(name: str) -> str:
    """Return a new temporary name for a file, in its folder."""
    return f".{name[:LONGEST_SHARE_OF_NAME]}.{_machine()}-{os.getpid()}-{secrets.token_hex(8)}.part"


def sweep_parts(folder: str | Path, descriptor: int | None = None) -> None:
    """Delete temporary files that processes of this machine left in a folder when they were killed, if an hour old.

    Files of other machines, of living processes and of other programs stay. A process looks once through each folder:
    a batch writes ten thousands of files there.

    Args:
        folder: its path; "." with a descriptor.
        descriptor: of the folder, where it was opened already.
    """
    known: Path | tuple[int, int] = Path(folder)
    if descriptor is not None:
        status = os.fstat(descriptor)
        known = status.st_dev, status.st_ino
    if known in _SWEPT:
        return
    _SWEPT.add(known)
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        opened = None
        if descriptor is not None:  # it need not be one that can be listed
            opened = os.open(folder, os.O_RDONLY, dir_fd=descriptor)
            stack.callback(os.close, opened)
        entries = stack.enter_context(os.scandir(folder if opened is None else opened))
        for entry in [entry for entry in entries if entry.name.endswith(".part") and _is_abandoned(entry)]:
            with contextlib.suppress(OSError):
                os.unlink(entry.path if opened is None else entry.name, dir_fd=opened)


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    found = PART_NAME.fullmatch(entry.name)
    if found is None or found["machine"] != _machine() or _is_alive(int(found["process"])):
        return False
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > ABANDONED_AFTER_SECONDS
    except OSError:
        return False


def _machine() -> str:
    """Return eight characters for this machine: process numbers mean nothing on another one that shares the folder."""
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _is_alive(process: int) -> bool:
    """Return whether such a process runs here; False on Windows, where files in use cannot be deleted anyway."""
    if os.name == "nt":  # os.kill would end it
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # another user's
    return True


def _rename_to_new(temporary: Path, target: Path) -> None:
    """Give the file its name, or raise FileExistsError; at no moment an empty or half file has that name."""
    try:
        os.link(temporary, target)  # a rename would replace the target, a hard link fails
        return
    except FileExistsError:
        raise
    except OSError:
        pass  # no hard links here (exFAT, some network folders)
    try:
        _rename_without_replacing(temporary, target)
        return
    except FileExistsError:
        raise
    except OSError:
        pass  # nor such a rename (old systems, some user-space file systems)
    with _LAST_RESORT_LOCK:  # two processes may both find the name free; an empty file under it would be worse
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        os.replace(temporary, target)


def _rename_without_replacing(temporary: Path, target: Path) -> None:
    """Rename a file, and fail if the target exists, which Python can do on Windows alone.

    Raises:
        FileExistsError: the target exists.
        OSError: it failed, or the system or file system has no such thing.
    """
    if os.name == "nt":
        os.rename(temporary, target)
        return
    old, new = os.fsencode(temporary), os.fsencode(target)
    library = ctypes.CDLL(None, use_errno=True)
    try:
        if sys.platform == "darwin":
            failed = library.renamex_np(old, new, RENAME_EXCL)
        else:
            failed = library.renameat2(AT_FDCWD, old, AT_FDCWD, new, RENAME_NOREPLACE)
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))
