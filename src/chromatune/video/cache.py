"""Chroma of shots, kept on the disk: small, named by all that decides it, so that an interrupted film goes on."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chromatune.errors import VideoError, printable
from chromatune.files import atomic_write
from chromatune.video.chroma import ShotChroma

SAMPLE_BYTES = 1 << 20  # at either end of a film's file
NAME_LENGTH = 20


def name_of(facts: Mapping[str, Any]) -> str:
    """A name for all that facts say, 20 hexadecimal digits."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:NAME_LENGTH]


def fingerprint(path: Path) -> str:
    """What tells a film from others: of a file size, time and ends, of a folder names, sizes and times of its files.

    Raises:
        VideoError: it cannot be read.
    """
    found = hashlib.sha256()
    try:
        if path.is_dir():
            for file in sorted(path.iterdir()):
                status = file.stat()
                found.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
        else:
            status = path.stat()
            size = status.st_size
            found.update(f"{size}\0{status.st_mtime_ns}".encode())
            with path.open("rb") as opened:
                found.update(opened.read(SAMPLE_BYTES))
                opened.seek(max(0, size - SAMPLE_BYTES))
                found.update(opened.read())
    except OSError as error:
        raise VideoError(f"{printable(str(path))}: cannot be read ({error.strerror}); check the path") from None
    return found.hexdigest()


class ChromaCache:
    """A folder of shots' chroma."""

    def __init__(self, folder: Path) -> None:
        """Makes nothing yet."""
        self.folder = folder

    def path(self, name: str) -> Path:
        """The file of a shot."""
        return self.folder / f"shot-{name}.npz"

    def __contains__(self, name: str) -> bool:
        return self.path(name).is_file()

    def write(self, name: str, shot: ShotChroma) -> None:
        """Keeps a shot's chroma, whole or not at all.

        Raises:
            VideoError: it cannot be written.
        """
        file = io.BytesIO()
        np.savez_compressed(
            file,
            offsets=shot.offsets.astype(np.int64),
            lumas=shot.lumas,
            chromas=shot.chromas.astype(np.float16),
            levels=shot.levels.astype(np.float64),
            exposures=shot.exposures.astype(np.float64),
        )
        self.write_bytes(self.path(name), file.getvalue())

    def write_bytes(self, path: Path, data: bytes) -> None:
        """Writes a file of the cache.

        Raises:
            VideoError: it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_write(path, data)
        except OSError as error:
            name = printable(str(path))
            raise VideoError(f"{name}: cannot be written ({error.strerror}); make room, or give --cache DIR") from error

    def read(self, name: str) -> ShotChroma:
        """A shot's chroma.

        Raises:
            VideoError: its file is damaged.
        """
        path = self.path(name)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return ShotChroma(
                    arrays["offsets"],
                    arrays["lumas"],
                    arrays["chromas"].astype(np.float32),
                    arrays["levels"],
                    arrays["exposures"],
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise VideoError(f"{printable(str(path))} is damaged; delete it, and run again") from error
