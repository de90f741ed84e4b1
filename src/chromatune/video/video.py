"""A video once it is open, and one of its frames: luma as the video stores it, upright."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from chromatune.images import Photo


@dataclass(frozen=True)
class VideoInfo:
    """What a video says of itself before its frames are decoded.

    Attributes:
        path: file or folder.
        width_px: of the upright picture.
        height_px: of the same.
        bits: of a sample of luma, 8..16.
        full_range: whether black and white are the ends of the scale, and not 16 and 235 (of 8 bits).
        time_base: seconds of one tick of `Frame.ticks`.
        rate: frames a second, on average.
        aspect: width of a pixel over its height, upright; None where the video says nothing.
        field_order: "" for progressive frames, else "tff" or "bff": which field comes first.
        primaries: FFmpeg's number of the color primaries, 2 if unknown.
        transfer: FFmpeg's number of the transfer curve, 2 if unknown.
        expected_frames: their approximate number; None if the video does not say.
    """

    path: Path
    width_px: int
    height_px: int
    bits: int
    full_range: bool
    time_base: Fraction
    rate: Fraction
    aspect: Fraction | None = None
    field_order: str = ""
    primaries: int = 2
    transfer: int = 2
    expected_frames: int | None = None


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame.

    Attributes:
        number: 0, 1 … in a file; in a folder, the number in the frame's name.
        luma: (H, W) uint8, or uint16 where there are more than 8 bits; code values as the video stores them.
        ticks: when it is shown, in units of the video's time base; they always grow.
        seconds: the same in seconds.
        photo: what its file holds, where the frame is a file of its own.
        path: that file.
        rgb: (H, W, 3) full range of luma's type, only where `read(colors=True)` made the frame.
    """

    number: int
    luma: np.ndarray
    ticks: int
    seconds: float
    photo: Photo | None = None
    path: Path | None = None
    rgb: np.ndarray | None = None


class Video(Protocol):
    """A video that can be read from its start any number of times."""

    @property
    def info(self) -> VideoInfo:
        """What the video says of itself."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the last complete reading found damaged or missing, a line each."""

    def index_of(self, number: int) -> int | None:
        """Return the position, from 0, of the frame with a number, or None if no frame can have it."""

    def read(self, *, colors: bool = False) -> Iterator[Frame]:
        """Yield all frames in their order.

        Args:
            colors: fill `Frame.rgb`, too.

        Raises:
            VideoError: no frame can be read.
        """
