"""Opening a path that may name anything: only a regular file is read, so that a named pipe cannot hang the reader."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Literal

# Without O_NONBLOCK, opening a named pipe waits until somebody writes to it
READ_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def open_regular(path: str | Path, *, follow_link: bool = True) -> BinaryIO:
    """Open a regular file for reading; its own name may be a link where `follow_link` says so.

    Raises:
        OSError: it cannot be opened, is a pipe, a socket or a device (`errno.EINVAL`), or a link that is not to be
            followed (`errno.ELOOP`); a folder is `errno.EISDIR`.
    """
    if not follow_link:
        refuse_link(path)
    return as_regular(os.open(path, READ_FLAGS if follow_link else READ_FLAGS | NO_LINK), str(path))


def append_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for appending, made if missing; its own name must not be a link.

    Raises:
        OSError: see `open_regular`.
    """
    refuse_link(path)
    flags = READ_FLAGS | os.O_RDWR | os.O_APPEND | os.O_CREAT | NO_LINK
    return as_regular(os.open(path, flags, 0o666), str(path), "ab")


def as_regular(descriptor: int, label: str, mode: Literal["rb", "ab"] = "rb") -> BinaryIO:
    """Return the file of a descriptor that was opened with `READ_FLAGS`; it is closed where it is no regular one.

    Raises:
        OSError: see `open_regular`.
    """
    try:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), label)
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "a pipe, socket or device, not a file", label)
        return os.fdopen(descriptor, mode)
    except BaseException:
        os.close(descriptor)
        raise


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
        if os.fstat(file.fileno()).st_size <= max_bytes:
            data = file.read(max_bytes + 1)  # it may grow meanwhile
            if len(data) <= max_bytes:
                return data
        raise OSError(errno.EFBIG, f"more than {max_bytes} bytes", str(path))
