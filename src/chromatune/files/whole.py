"""A file, or a folder, that appears under its name only once it is complete and on the disk."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def write_whole(target: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Writes a file whole or not at all: under a temporary name, to the disk, then renamed.

    Raises:
        OSError: it cannot be written; an existing file stays as it was.
        FileExistsError: it exists, and `overwrite` is off.
    """
    if overwrite:
        target = Path(os.path.realpath(target))  # replace what a link points at, not the link
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")  # same folder: a rename cannot cross file systems
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            os.replace(temporary, target)
        else:
            _rename_to_new(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_json(target: Path, value: Any) -> None:
    """Writes a value as indented JSON, whole or not at all.

    Raises:
        OSError: it cannot be written; an existing file stays as it was.
        ValueError: a number is not finite: JSON has none.
    """
    write_whole(target, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes the name `folder` at the end in place of an older one; on an error nothing is left.

    Raises:
        OSError: it cannot be written; an existing folder stays as it was.
    """
    target = Path(os.path.realpath(folder))  # replace what a link points at, not the link
    # Names of their own, not random ones: the next call clears what a killed one left.
    new, old = (target.with_name(f".{target.name}.{what}") for what in ("new", "old"))
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        yield new
        sync_folder(new)
        _swap(new, target, old)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Waits until all files are on the disk: a rename may get there before what it names."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())


def _rename_to_new(temporary: Path, target: Path) -> None:
    """Give the file its name unless that exists: a rename would replace it, a hard link fails, with no gap between.

    Raises:
        FileExistsError: the target exists.
    """
    try:
        os.link(temporary, target)
        return
    except FileExistsError:
        raise
    except OSError:
        pass  # no hard links here (FAT, some network folders): reserve the name, then replace the reservation
    target.open("xb").close()
    try:
        os.replace(temporary, target)
    except OSError:
        target.unlink()
        raise


def _swap(new: Path, target: Path, old: Path) -> None:
    """Gives `new` the name `target`; no system renames over a full folder, so the old one steps aside first."""
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
