"""A struct in a MATLAB file, read by a process of its own: a damaged file can end the process that scipy reads it in.

scipy.io.loadmat runs no code of a file, but trusts the sizes and types in it: a changed byte can be a segmentation
fault, or an array larger than the memory. Both end the reading process alone, whose memory is limited.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chromatune.errors import DataError, MissingExtraError, first_line, printable, shown

MAX_MEMORY_BYTES = 8 * 2**30  # the largest published file, IMDB's, takes about one
MAX_SECONDS = 300

# -I: no module from the working directory, which may be a stranger's folder, stands for one of Python's
READER = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from chromatune.data.mat_files import main; main()"
NO_STRUCT = "no struct"
DAMAGED = (
    OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, AssertionError,
    EOFError, NameError, struct.error, zlib.error,
)  # fmt: skip


def read_struct(
    path: Path, names: Sequence[str], text_fields: Sequence[str], number_fields: Sequence[str]
) -> dict[str, list[Any]]:
    """The fields of the one struct, each a flat list of texts or of floats; those that it lacks are not there.

    Args:
        path: a .mat file up to version 7.
        names: of the variable; the first one that is there is taken.
        text_fields: cell arrays of texts; an empty cell is "".
        number_fields: arrays of numbers.

    Raises:
        DataError: the file cannot be read, or has no such struct.
        MissingExtraError: scipy is not installed.
    """
    try:
        import scipy.io  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("IMDB-WIKI", "train") from error
    label = printable(str(path))
    paths = [os.path.abspath(folder) for folder in sys.path if folder]
    command = [sys.executable, "-I", "-c", READER, json.dumps(paths)]
    wanted = json.dumps([os.fsdecode(path.absolute()), list(names), list(text_fields), list(number_fields)])
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # each thread would take from the memory it may have
    try:
        done = subprocess.run(
            command, input=wanted.encode(), capture_output=True, timeout=MAX_SECONDS, env=environment, check=False
        )
        answer: dict[str, Any] = (
            json.loads(done.stdout) if done.returncode == 0 else {"error": "it is damaged or too large"}
        )
    except subprocess.TimeoutExpired:
        answer = {"error": f"not read after {MAX_SECONDS} seconds"}
    if answer.get("error") == NO_STRUCT:
        raise DataError(f"{label}: holds no struct {' or '.join(map(repr, names))}; download it again")
    if "error" in answer:
        raise DataError(f"{label}: cannot be read as a .mat file ({answer['error']}); download it again")
    return answer["fields"]


def main() -> None:
    """Answers, in the process of its own, what is asked on standard input; both are JSON."""
    path, names, text_fields, number_fields = json.loads(sys.stdin.buffer.read())
    _limit_memory()
    try:
        answer: dict[str, Any] = {"fields": fields_of(path, names, text_fields, number_fields)}
    except MemoryError:
        answer = {"error": "it does not fit into memory"}
    except DataError as error:
        answer = {"error": str(error)}
    sys.stdout.buffer.write(json.dumps(answer).encode())


def fields_of(
    path: str, names: Sequence[str], text_fields: Sequence[str], number_fields: Sequence[str]
) -> dict[str, list[Any]]:
    """What `read_struct` gives, read in this process.

    Raises:
        DataError: with the reason alone.
    """
    from scipy.io import loadmat

    try:
        variables = loadmat(path, variable_names=names)
        found = next((variables[name] for name in names if name in variables), None)
        if not isinstance(found, np.ndarray) or found.dtype.names is None or found.size != 1:
            raise DataError(NO_STRUCT)
        row = found.reshape(-1)[0]
        fields: dict[str, list[Any]] = {name: _texts(row[name]) for name in text_fields if name in found.dtype.names}
        numbers = [name for name in number_fields if name in found.dtype.names]
        return fields | {name: np.asarray(row[name], dtype=np.float64).reshape(-1).tolist() for name in numbers}
    except DAMAGED as error:
        raise DataError(shown(getattr(error, "strerror", None) or first_line(error))) from error


def _texts(cells: Any) -> list[str]:
    """A MATLAB cell array of texts; an empty cell is an empty array."""
    return [str(np.asarray(cell).reshape(-1)[0]) if np.size(cell) else "" for cell in np.asarray(cells).reshape(-1)]


def _limit_memory() -> None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = MAX_MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MAX_MEMORY_BYTES, most)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (wanted, most))
    except (OSError, ValueError):  # macOS knows the limit and does not take it
        return
