"""The folder of a run: a file in it says what the run is, and a lock lets one process at a time work there.

A later call with the same facts resumes; one with other facts, or a second process at the same time, gets an error of
one line and changes nothing.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout

from chromatune.errors import DataError, OptionsError, shown
from chromatune.files.atomic import write_json
from chromatune.files.regular import read_regular

LOCK_FILE = ".lock"
LONGEST_FACT = 300  # characters in a message
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}  # of a file system without them, such as some network drives
MOST_NOTE_BYTES = 4_000_000  # of the file that says what a run is: thousands of times what is written


@contextmanager
def lock_run_folder(
    folder: Path,
    file_name: str,
    facts: Mapping[str, Any],
    what: str,
    *,
    ignored: tuple[str, ...] = (),
    other: str = "--out",
    without_locks: str = "",
) -> Iterator[bool]:
    """Lock a folder, made if missing, while the block runs; yield whether the run is new there.

    Args:
        folder: of the run.
        file_name: of the JSON object in that folder that says what the run is.
        facts: what the run is: all that must be the same for it to be resumed.
        what: how messages call it: "a run", "an evaluation".
        ignored: facts that may change; the newest are written.
        other: the option by which messages advise another folder.
        without_locks: what messages advise where the file system has no locks; by default another folder.

    Raises:
        OptionsError: the folder holds another run (the first difference is named), or another process works in it.
        DataError: the file is damaged, or cannot be written, or the file system has no locks.
    """
    try:
        _make_folder(folder, file_name, other)
        lock = FileLock(folder / LOCK_FILE)
        lock.acquire(timeout=0)
    except Timeout:
        raise OptionsError(
            f"{folder} is in use: another process is working there; wait for it to end, or give another {other}"
        ) from None
    except OSError as error:
        if error.errno in NO_LOCKS:
            advice = without_locks or f"give another {other}, on a local disk"
            raise DataError(f"{folder}: this file system has no file locks ({error.strerror}); {advice}") from error
        raise DataError(f"{folder}: cannot be written ({error.strerror}); give another {other}") from error
    try:
        yield _check_facts(folder, file_name, json.loads(json.dumps(facts)), what, ignored, other)
    finally:
        lock.release()


def claim_run_folder(
    folder: Path, file_name: str, facts: Mapping[str, Any], what: str, *, ignored: tuple[str, ...] = (), other: str
) -> None:
    """Write what a folder belongs to, or check it, as `lock_run_folder` does, where the lock is in another folder.

    Raises:
        OptionsError, DataError: see `lock_run_folder`.
    """
    try:
        _make_folder(folder, file_name, other)
        (folder / LOCK_FILE).touch()  # by which `is_run_folder` knows it
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); give another {other}") from error
    _check_facts(folder, file_name, json.loads(json.dumps(facts)), what, ignored, other)


def is_run_folder(folder: Path) -> bool:
    """Return whether a run works in a folder, or did: what lies there are its results."""
    return (folder / LOCK_FILE).is_file()


def discard_run_folder(folder: Path, file_name: str) -> None:
    """Undo `lock_run_folder` for a run that never began; the folder goes too, if nothing but empty folders is left."""
    for name in (file_name, LOCK_FILE):
        (folder / name).unlink(missing_ok=True)
    for empty in (*folder.glob("*/"), folder):
        with suppress(OSError):
            empty.rmdir()


def _make_folder(folder: Path, file_name: str, other: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_links(folder, (LOCK_FILE, file_name), other)


def _refuse_links(folder: Path, keys: tuple[str, ...], other: str) -> None:
    """Check that no file of a run, and no folder that one is in, is a link: what a run writes stays in its folder.

    Raises:
        DataError: one is.
    """
    for key in keys:
        for path in (folder / key, *(folder / key).parents):
            if path == folder:
                break
            if path.is_symlink():
                raise DataError(f"{path} is a link, which is not followed here; delete it, or give another {other}")


def _check_facts(
    folder: Path, file_name: str, facts: dict[str, Any], what: str, ignored: tuple[str, ...], other: str
) -> bool:
    """Write the facts, or compare them with those of an earlier call; return whether there was none."""
    path, known = folder / file_name, cast(Any, {})
    try:
        with suppress(FileNotFoundError):
            known = json.loads(read_regular(path, MOST_NOTE_BYTES, follow_link=False).decode()) or None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give another {other}") from None
    except (ValueError, RecursionError):
        known = None
    if not isinstance(known, dict):
        raise DataError(f"{path} is damaged, so {what} cannot resume there; give another {other}")
    for name in sorted(known.keys() | facts.keys()) if known else ():
        if name not in ignored and known.get(name) != facts.get(name):
            was, now = shown(known.get(name)), shown(facts.get(name))
            if was == now:  # two paths may differ at their ends
                was, now = (repr(each.get(name))[-LONGEST_FACT:] for each in (known, facts))
            raise OptionsError(
                f"{folder} holds {what} with {name}={was}, and now it is {now}; "
                f"give another {other}, or the same settings"
            )
    if known != facts:
        try:
            write_json(path, facts)
        except OSError as error:
            raise DataError(
                f"{path}: cannot be written ({error.strerror}); make room, or give another {other}"
            ) from error
    return not known
