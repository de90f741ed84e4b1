"""The folder of a run: a file in it says what the run is, and a lock lets one process at a time work there.

A later call with the same facts resumes; one with other facts, or a second process at the same time, gets an error of
one line and changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from chromatune.errors import DataError, OptionsError, shown
from chromatune.files.atomic import write_json
from chromatune.files.regular import read_regular

LOCK_FILE = ".lock"
LARGEST_FACTS_BYTES = 16 << 20


@contextmanager
def lock_run_folder(
    folder: Path,
    file_name: str,
    facts: Mapping[str, Any],
    what: str,
    *,
    ignored: tuple[str, ...] = (),
    other: str = "--out",
) -> Iterator[bool]:
    """Lock a folder, made if missing, while the block runs; yield whether the run is new there.

    Args:
        folder: of the run.
        file_name: of the JSON object in that folder that says what the run is.
        facts: what the run is: all that must be the same for it to be resumed.
        what: how messages call it: "a run", "an evaluation".
        ignored: facts that may change; the newest are written.
        other: the option by which messages advise another folder.

    Raises:
        OptionsError: the folder holds another run (the first difference is named), or another process works in it.
        DataError: the file is damaged, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
        lock.acquire(timeout=0)
    except Timeout:
        raise OptionsError(
            f"{folder} is in use: another process is working there; wait for it to end, or give another {other}"
        ) from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); give another {other}") from error
    try:
        yield _check_facts(folder / file_name, json.loads(json.dumps(facts)), what, ignored, other)
    finally:
        lock.release()


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


def _check_facts(path: Path, facts: dict[str, Any], what: str, ignored: tuple[str, ...], other: str) -> bool:
    """Write the facts, or compare them with those of an earlier call; return whether there was none."""
    known: Any = {}
    try:
        if path.exists():
            known = json.loads(read_regular(path, LARGEST_FACTS_BYTES)) or None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give another {other}") from None
    except (ValueError, RecursionError):
        known = None
    if not isinstance(known, dict):
        raise DataError(f"{path} is damaged, so {what} cannot resume there; give another {other}")
    for name in sorted(known.keys() | facts.keys()) if known else ():
        if name not in ignored and known.get(name) != facts.get(name):
            was, now = shown(known.get(name)), shown(facts.get(name))
            raise OptionsError(
                f"{path.parent} holds {what} with {name}={was}, and now it is {now}; "
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
