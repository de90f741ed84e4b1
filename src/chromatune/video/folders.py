"""A folder of numbered frames as a film, as scanners and editors exchange it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from chromatune.errors import PhotoError, VideoError, printable
from chromatune.images import IMAGE_SUFFIXES, Photo, read_photo
from chromatune.video.frames import Frame, VideoInfo

NUMBER = re.compile(r"(\d+)\D*$")  # the last one in a name


def frame_number(path: Path) -> int | None:
    """The number in the name of a frame's file, or None."""
    found = NUMBER.search(path.stem)
    return int(found[1]) if found else None


class FrameFolder:
    """Frames that are files; see `Film`."""

    def __init__(self, path: Path, rate: Fraction) -> None:
        """Lists the frames, and reads the first.

        Raises:
            VideoError: there are none, or two have one number.
        """
        self.paths = _numbered(path)
        self.rate = rate
        first = self._photo(next(iter(self.paths.values())))
        self._info = VideoInfo(
            path,
            first.width_px,
            first.height_px,
            bits=8 if first.max_value == 255 else 16,
            full_range=True,
            time_base=1 / rate,
            rate=rate,
            primaries=1,
            transfer=13,  # sRGB
            expected_frames=len(self.paths),
        )

    @property
    def info(self) -> VideoInfo:
        """What the first frame says."""
        return self._info

    @property
    def warnings(self) -> tuple[str, ...]:
        """None: a frame that cannot be read is an error."""
        return ()

    def index_of(self, number: int) -> int | None:
        """The place of the frame with a number in its name."""
        return next((index for index, each in enumerate(self.paths) if each == number), None)

    def read(self, *, colors: bool = False) -> Iterator[Frame]:
        """All frames by their numbers.

        Raises:
            VideoError: one cannot be read, or has another size or depth than the first.
        """
        info = self._info
        for ticks, (number, path) in enumerate(self.paths.items()):
            photo = self._photo(path)
            size, bits = (photo.width_px, photo.height_px), 8 if photo.max_value == 255 else 16
            if size != (info.width_px, info.height_px) or bits != info.bits:
                raise VideoError(
                    f"{printable(str(path))} is {size[0]} × {size[1]} px of {bits} bits, where the first frame is "
                    f"{info.width_px} × {info.height_px} px of {info.bits} bits; give frames of one size and depth"
                )
            rgb = None
            if colors:
                rgb = np.repeat(photo.gray[..., None], 3, axis=2) if photo.rgb is None else photo.rgb
            yield Frame(number, photo.gray, ticks, float(ticks / self.rate), photo, path, rgb)

    def _photo(self, path: Path) -> Photo:
        try:
            return read_photo(path, name=str(path))
        except PhotoError as error:
            raise VideoError(str(error)) from error


def _numbered(folder: Path) -> dict[int, Path]:
    """The frames in a folder by number, in the order of their numbers."""
    found: dict[int, Path] = {}
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    except OSError as error:
        raise VideoError(f"{printable(str(folder))}: cannot be read ({error.strerror}); check the path") from None
    for path in paths:
        number = frame_number(path)
        if number is None:
            continue
        if number in found:
            raise VideoError(
                f"{printable(str(folder))}: {found[number].name} and {path.name} have one number; keep one of them"
            )
        found[number] = path
    if not found:
        raise VideoError(
            f"{printable(str(folder))}: no numbered picture in it; give frames such as 000001.png, or a film"
        )
    return dict(sorted(found.items()))
