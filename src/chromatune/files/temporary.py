"""Temporary folders that are removed at the end; those that killed processes left, by the next process."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_FILE = ".lock"  # in the folder, where the system has no locks of folders


@contextmanager
def private_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder that only this user can open, and remove it at the end.

    First, folders of that prefix are removed whose processes were killed.

    Args:
        prefix: of its name.
        parent: where to make it; None for the system's temporary folder.

    Raises:
        OSError: it cannot be made.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError, Timeout):
            if _is_own_folder(folder):
                with _locked(folder, wait=False):
                    shutil.rmtree(folder, ignore_errors=True)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with _locked(folder, wait=True):
            if not folder.exists():  # another process took it for an abandoned one before it was locked
                continue
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return


def _is_own_folder(folder: Path) -> bool:
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and (not hasattr(os, "getuid") or status.st_uid == os.getuid())


@contextmanager
def _locked(folder: Path, wait: bool) -> Iterator[None]:
    """Lock a folder, or raise an OSError or `Timeout` where another process has; its end, or a kill, frees it."""
    try:
        import fcntl
    except ImportError:  # Windows
        with FileLock(folder / LOCK_FILE, timeout=-1 if wait else 0):
            yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)
