"""The frames of a video for one pass after another: decoded again as seldom as memory and disk allow."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from chromatune.color import resize
from chromatune.video.video import Frame, Video

MOST_HELD_BYTES = 200_000_000  # of decoded frames in memory: some 25 s at 640 × 480
MOST_SMALL_BYTES = 12_000_000_000  # of small frames on disk: more than an hour at the size of `mini`
MOST_DISK_SHARE = 0.5  # of what is free, that they may take


class HeldFrames:
    """The frames of a video, decoded once where they fit into `MOST_HELD_BYTES`.

    Of a longer video, small frames are kept on disk where `keep_small` asks for them: they are all that keyframes need.
    """

    def __init__(self, video: Video, seconds: float | None = None, folder: Path | None = None) -> None:
        """Read nothing yet.

        Args:
            video: whose frames.
            seconds: length to read from the start; None for all.
            folder: where small frames may be kept; None for nowhere.
        """
        self._video, self._seconds, self._folder = video, seconds, folder
        self._held: list[Frame] | None = None
        self._fits = True
        self._small_size: tuple[int, int] | None = None
        self._small: _SmallFrames | None = None

    def keep_small(self, height_px: int, width_px: int) -> None:
        """Keep the frames at a smaller size while they are first read, if they do not fit themselves."""
        self._small_size = height_px, width_px

    def small(self) -> Iterator[Frame]:
        """Yield the frames once: small where those were kept, of which only the luma counts, else as they are."""
        small, self._small = self._small, None
        if small is None:
            yield from self
            return
        try:
            yield from small
        finally:
            small.close()

    def __iter__(self) -> Iterator[Frame]:
        if self._held is not None:
            yield from self._held
            return
        held: list[Frame] = []
        small: _SmallFrames | None = None
        size = 0
        for frame in self._decoded():
            if self._fits:
                held.append(frame)
                size += _size_of(frame)
                if size > MOST_HELD_BYTES:
                    self._fits = False
                    small = self._small_from(held)
                    held.clear()
            elif small is not None and not small.append(frame):
                small = None
            yield frame
        if self._fits:
            self._held = held
        self._small = small

    def _small_from(self, frames: list[Frame]) -> _SmallFrames | None:
        """The file of small frames, with the first ones; None if there shall be none, or there is no room."""
        if self._small_size is None or self._folder is None:
            return None
        info = self._video.info
        expected = info.expected_frames or 0
        if self._seconds is not None:
            expected = min(expected, round(self._seconds * info.rate))
        with suppress(OSError):
            small = _SmallFrames(self._folder, self._small_size, expected)
            if all(small.append(frame) for frame in frames):
                return small
        return None

    def _decoded(self) -> Iterator[Frame]:
        frames = self._video.read()
        if self._seconds is None:
            yield from frames
            return
        start: float | None = None
        for frame in frames:
            if start is None:
                start = frame.seconds
            elif frame.seconds - start >= self._seconds:
                return
            yield frame


class _SmallFrames:
    """Lumas of one size in a file without a name, which is gone when the process ends, however it does."""

    def __init__(self, folder: Path, size: tuple[int, int], expected: int) -> None:
        """Make the file.

        Args:
            folder: in which it is.
            size: height and width of the lumas.
            expected: about how many there will be; 0 if that is unknown.

        Raises:
            OSError: it cannot be made, or there is no room for so many.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._room = min(MOST_SMALL_BYTES, int(shutil.disk_usage(folder).free * MOST_DISK_SHARE))
        self._size, self._dtype = size, np.dtype(np.uint8)
        if expected * size[0] * size[1] > self._room:
            raise OSError(errno.ENOSPC, "no room")
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - `close` does it

    def append(self, frame: Frame) -> bool:
        """Write a frame's luma; where there is no room, close the file and return False."""
        luma = resize(frame.luma, *self._size)
        self._dtype = luma.dtype
        self._room -= luma.nbytes
        with suppress(OSError):
            if self._room >= 0:
                self._file.write(luma.tobytes())
                return True
        self.close()
        return False

    def __iter__(self) -> Iterator[Frame]:
        height, width = self._size
        size = height * width * self._dtype.itemsize
        self._file.seek(0)
        number = 0
        while len(data := self._file.read(size)) == size:
            yield Frame(number, np.frombuffer(data, self._dtype).reshape(self._size), 0, 0.0)
            number += 1

    def close(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self._file.close()


def _size_of(frame: Frame) -> int:
    """Bytes that a frame takes in memory."""
    photo = frame.photo  # its gray is the luma
    extras = [] if photo is None else [extra for extra in (photo.rgb, photo.alpha) if extra is not None]
    return frame.luma.nbytes + sum(extra.nbytes for extra in extras)
