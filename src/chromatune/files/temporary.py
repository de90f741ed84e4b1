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

LOCK_FILE = ".lock"  # in the folder; where nobody has locked it, the folder's process has ended


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
        _remove_if_abandoned(folder)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    lock = FileLock(folder / LOCK_FILE, mode=0o600)
    try:
        with lock:
            yield folder
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_if_abandoned(folder: Path) -> None:
    """Remove a folder of this user that no living process has locked."""
    with suppress(Timeout, OSError):
        status, lock_file = folder.lstat(), folder / LOCK_FILE
        own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
        if own and stat.S_ISDIR(status.st_mode) and stat.S_ISREG(lock_file.lstat().st_mode):
            with FileLock(lock_file).acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
