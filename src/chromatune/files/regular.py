"""Opening a path that may name anything: only a regular file is read, so that a named pipe cannot hang the reader."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading, through links too.

    Raises:
        OSError: it cannot be opened, or is a pipe, a socket or a device (`errno.EINVAL`); a folder is `errno.EISDIR`.
    """
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - the caller closes it
    try:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "a pipe, socket or device, not a file", str(path))
    except BaseException:
        file.close()
        raise
    return file


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a named pipe would wait until somebody writes to it


def read_regular(path: str | Path, max_bytes: int | None = None) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: see `open_regular`; or it is larger than `max_bytes` (`errno.EFBIG`), before anything is read.
    """
    with open_regular(path) as file:
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
