"""Opening a path that may name anything: only a regular file is read, so that a named pipe cannot hang the reader."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal

NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # without, opening a named pipe waits until somebody writes to it
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
NEW_FILE_RIGHTS = 0o666  # but for those that the umask takes

Opener = Callable[[str, int], int]  # as `open` has it: path and flags ⇒ descriptor


def open_regular(path: str | Path, *, follow_link: bool = True) -> BinaryIO:
    """Open a regular file for reading; only with `follow_link` its own name may be a link.

    Raises:
        OSError: it cannot be opened, is a pipe, a socket or a device (`errno.EINVAL`), or a link that is not followed
            (`errno.ELOOP`); a folder is `errno.EISDIR`.
    """
    if not follow_link:
        refuse_link(path)
    more = NO_WAIT if follow_link else NO_WAIT | NO_LINK
    return open_checked(path, "rb", lambda name, flags: os.open(name, flags | more))


def append_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for appending, made if missing; its own name must not be a link.

    Raises:
        OSError: see `open_regular`.
    """
    refuse_link(path)
    return open_checked(path, "ab", lambda name, flags: os.open(name, flags | NO_WAIT | NO_LINK, NEW_FILE_RIGHTS))


def open_checked(path: str | Path, mode: Literal["rb", "ab"], opener: Opener) -> BinaryIO:
    """Return the file that an opener opens without waiting, where it is a regular one.

    Raises:
        OSError: see `open_regular`.
    """
    file = open(path, mode, opener=opener)  # noqa: SIM115 - the caller closes it
    try:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "a pipe, socket or device, not a file", str(path))
    except BaseException:
        file.close()
        raise
    return file


def refuse_link(path: str | Path) -> None:
    """Raise an OSError (`errno.ELOOP`) where a path is a link itself; those on the way to it may be."""
    if os.path.islink(path):
        raise link_error(str(path))


def link_error(label: str) -> OSError:
    """Return the error of a link that is not followed."""
    return OSError(errno.ELOOP, "it is a link, which is not followed here", label)


def read_regular(path: str | Path, max_bytes: int | None = None, *, follow_link: bool = True) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: see `open_regular`; or it is larger than `max_bytes` (`errno.EFBIG`), before anything is read.
    """
    with open_regular(path, follow_link=follow_link) as file:
        if max_bytes is None:
            return file.read()
        size = os.fstat(file.fileno()).st_size
        if size <= max_bytes:
            data = file.read(size + 1)  # room is made for what is asked for, not for what is there
            if len(data) > size:  # it grows meanwhile
                data += file.read(max_bytes - size)
            if len(data) <= max_bytes:
                return data
        raise OSError(errno.EFBIG, f"more than {max_bytes} bytes", str(path))
