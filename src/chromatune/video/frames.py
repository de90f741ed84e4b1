"""What a film is once it is open, and one frame of it: luma as the film stores it, upright."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from chromatune.color import resize
from chromatune.images import Photo, to_depth

FOOT, HEAD = 16, 235  # black and white of limited range, at 8 bits (BT.601)


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a film before its frames are decoded.

    Attributes:
        path: file or folder.
        width_px: of the upright picture.
        height_px: of the same.
        bits: of a sample of luma, 8..16.
        full_range: whether black and white are the ends of the scale, and not 16 and 235 (of 8 bits).
        time_base: seconds of one tick of `Frame.ticks`.
        rate: frames a second, on average.
        aspect: width of a pixel over its height, upright; None where the film says nothing.
        field_order: "" for progressive frames, else "tff" or "bff": which field comes first.
        primaries: FFmpeg's number of the color primaries, 2 if unknown.
        transfer: FFmpeg's number of the transfer curve, 2 if unknown.
        expected_frames: about so many; None if the film does not say.
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
        number: by which it is called: 0, 1 … in a film, the number in its name in a folder.
        luma: (H, W) uint8, or uint16 where there are more than 8 bits; code values as the film stores them.
        ticks: when it is shown, in units of the film's time base; they always grow.
        seconds: the same in seconds.
        photo: what its file held beside luma, where it is a file of its own.
        path: that file.
        rgb: (H, W, 3) full range of luma's type, only where colors were asked for.
    """

    number: int
    luma: np.ndarray
    ticks: int
    seconds: float
    photo: Photo | None = None
    path: Path | None = None
    rgb: np.ndarray | None = None


class Video(Protocol):
    """A film that can be read from its start any number of times."""

    @property
    def info(self) -> VideoInfo:
        """What is known of it."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the last complete reading found wrong, a line each."""

    def index_of(self, number: int) -> int | None:
        """The place, from 0, of the frame that is called by a number; None where there can be none."""

    def read(self, *, colors: bool = False) -> Iterator[Frame]:
        """All frames in their order.

        Args:
            colors: give `Frame.rgb`, too.

        Raises:
            VideoError: none can be read.
        """


def small_gray(frame: Frame, info: VideoInfo, size: tuple[int, int]) -> np.ndarray:
    """A frame's gray at a height and width: uint8, full range."""
    small = resize(frame.luma, *size)
    return to_depth(gray_of(small, info.bits, info.full_range), np.uint8)


def gray_of(luma: np.ndarray, bits: int, full_range: bool) -> np.ndarray:
    """Luma in full range: (H, W) uint8 0..255, or uint16 0..65535 where there are more than 8 bits.

    Args:
        luma: (H, W) code values.
        bits: of a code value.
        full_range: see `VideoInfo`.
    """
    if full_range and bits in (8, 16):
        return luma
    if bits == 8:
        return cv2.LUT(luma, _table(bits, full_range))
    return _table(bits, full_range)[np.minimum(luma, 2**bits - 1)]


@functools.cache
def _table(bits: int, full_range: bool) -> np.ndarray:
    """Code value ⇒ full range, uint8 of 8 bits, uint16 of more."""
    black, white = (0, 2**bits - 1) if full_range else (FOOT << (bits - 8), HEAD << (bits - 8))
    kind = np.uint8 if bits == 8 else np.uint16
    share = np.clip((np.arange(2**bits) - black) / (white - black), 0, 1)
    return np.rint(share * np.iinfo(kind).max).astype(kind)
