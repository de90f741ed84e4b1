"""Where colored frames go: a film's file, or a folder of frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from chromatune import color
from chromatune.errors import OptionsError, PhotoError, VideoError, printable
from chromatune.files import LineFile
from chromatune.images import Photo, suffix_for, write_photo
from chromatune.video.frames import Frame, VideoInfo, gray_of
from chromatune.video.planes import Planes
from chromatune.video.writing import VideoWriter, choose_codec, video_writer

WRITTEN_FILE = "written.jsonl"
BEGUN = ""  # instead of a chroma's name, before a frame's file is written
LOSSY_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")  # frames in a folder are exact to the bit
FRAME_NAME = "{:06d}"


class Target(Protocol):
    """Takes the frames of a film in their order."""

    def has(self, frame: Frame, name: str) -> bool:
        """Whether a frame with the chroma of that name is there already."""

    def begin(self, frame: Frame) -> None:
        """Told before `make` of a frame that is not there."""

    def make(self, frame: Frame, chroma: np.ndarray) -> Planes | None:
        """The colored frame, for `write`; several threads may work at it.

        Args:
            frame: as it was read.
            chroma: (h, w, 2) float32, (Cb, Cr).
        """

    def write(self, frame: Frame, name: str, made: Planes | None) -> None:
        """Takes the next frame; `name` is that of its chroma."""

    def finish(self, seconds: float | None) -> None:
        """Ends the film, and its sound at a time; None for all of it."""


@contextmanager
def open_target(
    out: Path, info: VideoInfo, *, codec: str | None, strength: float, overwrite: bool, notes: Path
) -> Iterator[Target]:
    """The target of a path: a film's file where it has the suffix of one, else a folder.

    Args:
        out: file or folder.
        info: of the film that is colored.
        codec: see `choose_codec`.
        strength: factor on chroma.
        overwrite: replace what exists.
        notes: folder in which is written down which frames of a folder are made.

    Raises:
        OptionsError: a codec is given for a folder, or see `choose_codec`.
        VideoError: it cannot be written.
    """
    if out.suffix:
        with video_writer(out, choose_codec(out, codec), info, overwrite=overwrite) as writer:
            yield _FileTarget(writer, strength)
        return
    if codec is not None:
        raise OptionsError(f"--codec is of films, and {out} is a folder of frames; leave it out", "codec")
    try:
        out.mkdir(parents=True, exist_ok=True)
        notes.mkdir(parents=True, exist_ok=True)
        with LineFile(notes / WRITTEN_FILE, ("turn", "frame", "chroma")) as written:
            yield _FolderTarget(out, info, strength, written, overwrite)
    except OSError as error:
        name = printable(str(error.filename or out))
        raise VideoError(f"{name}: cannot be written ({error.strerror}); check disk and path") from error


class _FileTarget:
    """A film's file, which is written anew."""

    def __init__(self, writer: VideoWriter, strength: float) -> None:
        self._writer, self._strength = writer, strength

    def has(self, frame: Frame, name: str) -> bool:
        return False

    def begin(self, frame: Frame) -> None:
        pass

    def make(self, frame: Frame, chroma: np.ndarray) -> Planes:
        return self._writer.planes(frame, chroma, self._strength)

    def write(self, frame: Frame, name: str, made: Planes | None) -> None:
        if made is not None:
            self._writer.write(frame, made)

    def finish(self, seconds: float | None) -> None:
        self._writer.finish(seconds)


class _FolderTarget:
    """Frames as files; which chroma each was made with is written down, so that it is made again with another."""

    def __init__(self, out: Path, info: VideoInfo, strength: float, written: LineFile, overwrite: bool) -> None:
        self._out, self._info, self._strength = out, info, strength
        self._written, self._overwrite = written, overwrite
        records = written.read()
        self._turn = len(records)
        self._latest = {str(record["frame"]): str(record["chroma"]) for record in records}

    def has(self, frame: Frame, name: str) -> bool:
        path = self._path(frame)
        known = self._latest.get(path.name)
        if known == self._named(name) and path.is_file():
            return True
        if known is None and not self._overwrite and os.path.lexists(path):
            raise VideoError(f"{printable(str(path))} exists; give another folder, or --overwrite")
        return False

    def begin(self, frame: Frame) -> None:
        self._note(frame, BEGUN)

    def make(self, frame: Frame, chroma: np.ndarray) -> None:
        photo = self._photo(frame)
        rgb = color.recompose(photo.gray, chroma, strength=self._strength)
        try:
            write_photo(self._path(frame), rgb, photo, overwrite=True)  # `has` looked whether it may be
        except PhotoError as error:
            raise VideoError(str(error)) from error

    def write(self, frame: Frame, name: str, made: Planes | None) -> None:
        self._note(frame, self._named(name))

    def finish(self, seconds: float | None) -> None:
        pass

    def _named(self, name: str) -> str:
        return f"{name} {self._strength:g}"

    def _note(self, frame: Frame, chroma: str) -> None:
        self._turn += 1
        self._written.append([{"turn": self._turn, "frame": self._path(frame).name, "chroma": chroma}])

    def _path(self, frame: Frame) -> Path:
        if frame.path is None:
            return self._out / (FRAME_NAME.format(frame.number) + ".png")
        suffix = frame.path.suffix
        wanted = ".png" if suffix.lower() in LOSSY_SUFFIXES else suffix_for(suffix, self._photo(frame))
        return self._out / (frame.path.stem + wanted)

    def _photo(self, frame: Frame) -> Photo:
        if frame.photo is not None:
            return frame.photo
        return Photo(gray_of(frame.luma, self._info.bits, self._info.full_range))
