"""A folder that keeps what is found of a video, so that interrupted runs resume: its shots, and their chroma."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from chromatune.errors import VideoError, printable
from chromatune.files import atomic_write, open_regular, read_regular
from chromatune.video.shot_colorizer import ShotChroma

NAME_LENGTH = 20
MAX_CACHED_BYTES = 1 << 29  # of the arrays of a shot, or of a segment of one
CACHED_ARRAYS = {
    "offsets": np.dtype(np.int64),
    "lumas": np.dtype(np.uint8),
    "chromas": np.dtype(np.float16),
    "keyframe_exposures": np.dtype(np.float64),
    "exposures": np.dtype(np.float64),
}
SHOTS_FILE = "shots-{}.txt"
MAX_SHOTS_BYTES = 16 << 20  # a million shots
MOST_KNOWN_FRAMES = 100_000_000  # that such a file may speak of: weeks
SAMPLE_BYTES = 1 << 20  # at either end of a video's file
KnownShots: TypeAlias = tuple[list[int], int]  # first frames of shots, and the number of frames


class ChromaCache:
    """A folder with the chroma of shots, each file named by a hash of its inputs: interrupted runs resume."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # made when something is written

    @staticmethod
    def key(facts: Mapping[str, Any]) -> str:
        """Return a name of its own for each collection of facts: 20 hexadecimal digits."""
        text = json.dumps(facts, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:NAME_LENGTH]

    def path(self, key: str) -> Path:
        """Return the file of a shot."""
        return self.folder / f"shot-{key}.npz"

    def __contains__(self, key: str) -> bool:
        return self.path(key).is_file()

    def discard(self, key: str) -> None:
        """Delete the file of a shot, if it is there."""
        self.path(key).unlink(missing_ok=True)

    def write(self, key: str, chroma: ShotChroma) -> None:
        """Write a shot's chroma, whole or not at all.

        Raises:
            VideoError: it cannot be written.
        """
        file = io.BytesIO()
        arrays = {name: getattr(chroma, name).astype(dtype) for name, dtype in CACHED_ARRAYS.items()}
        np.savez_compressed(file, **arrays)
        self._write_bytes(self.path(key), file.getvalue())

    def read_shots(self, key: str) -> KnownShots | None:
        """Return the shots of an earlier run; None where there are none, or their file is damaged."""
        try:
            data = read_regular(self.folder / SHOTS_FILE.format(key), MAX_SHOTS_BYTES)
            *lines, checksum = data.decode("ascii").splitlines()
            *starts, end = (int(line.removeprefix("end ")) for line in lines)
        except (OSError, ValueError):
            return None
        is_sound = (
            checksum == _checksum(lines)
            and starts[:1] == [0]
            and starts == sorted({*starts})
            and starts[-1] < end <= MOST_KNOWN_FRAMES
        )
        return (starts, end) if is_sound else None

    def write_shots(self, key: str, starts: Sequence[int], count: int) -> None:
        """Write the first frames of shots, and the number of frames.

        Raises:
            VideoError: they cannot be written.
        """
        lines = [*map(str, starts), f"end {count}"]
        text = "".join(f"{line}\n" for line in [*lines, _checksum(lines)])
        self._write_bytes(self.folder / SHOTS_FILE.format(key), text.encode())

    def _write_bytes(self, path: Path, data: bytes) -> None:
        """Write a file of the cache.

        Raises:
            VideoError: it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_write(path, data)
        except OSError as error:
            name = printable(str(path))
            raise VideoError(f"{name}: cannot be written ({error.strerror}); make room, or give --cache DIR") from error

    def read(self, key: str, count: int) -> ShotChroma:
        """Return the chroma of a shot of `count` frames.

        Raises:
            VideoError: its file is damaged, or holds something else.
        """
        path = self.path(key)
        try:
            with open_regular(path) as file, zipfile.ZipFile(file) as members:
                if sum(each.file_size for each in members.infolist()) > MAX_CACHED_BYTES:
                    raise ValueError("more than a shot can have")
                file.seek(0)
                with np.load(file, allow_pickle=False) as arrays:
                    found = {name: arrays[name] for name in CACHED_ARRAYS}
            _check_cached(found, count)
            return ShotChroma(**found | {"chromas": found["chromas"].astype(np.float32)})
        except Exception as error:  # zipfile, zlib and numpy raise some fifteen types
            raise VideoError(f"{printable(str(path))} is damaged; delete it, and run again") from error


def _check_cached(arrays: Mapping[str, np.ndarray], count: int) -> None:
    """Check types, shapes and ranges of the arrays of a shot of `count` frames.

    Raises:
        ValueError: they are no shot's.
    """
    offsets, lumas, chromas = arrays["offsets"], arrays["lumas"], arrays["chromas"]
    dtypes = {name: array.dtype for name, array in arrays.items()}
    is_sound = (
        dtypes == CACHED_ARRAYS
        and offsets.ndim == 1
        and 0 < len(offsets) <= count
        and bool((np.diff(offsets, prepend=-1, append=count) > 0).all())
        and lumas.ndim == 3
        and min(lumas.shape) > 0
        and chromas.shape == (*lumas.shape, 2)
        and arrays["keyframe_exposures"].shape == offsets.shape == lumas.shape[:1]
        and arrays["exposures"].shape == (count,)
        and all(bool(np.isfinite(arrays[name]).all()) for name in ("chromas", "keyframe_exposures", "exposures"))
    )
    if not is_sound:
        raise ValueError("not the arrays of a shot")


def _checksum(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def fingerprint(path: Path) -> str:
    """Return a hash of a file's size, time and ends, or of the names, sizes and times of a folder's files.

    Raises:
        VideoError: it cannot be read.
    """
    found = hashlib.sha256()
    try:
        if path.is_dir():
            for file in sorted(each for each in path.iterdir() if not each.is_dir()):  # the result may be one in it
                status = file.stat()
                found.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
        else:
            status = path.stat()
            size = status.st_size
            found.update(f"{size}\0{status.st_mtime_ns}".encode())
            with open_regular(path) as opened:
                found.update(opened.read(SAMPLE_BYTES))
                opened.seek(max(0, size - SAMPLE_BYTES))
                found.update(opened.read())
    except OSError as error:
        raise VideoError(f"{printable(str(path))}: cannot be read ({error.strerror}); check the path") from None
    return found.hexdigest()
