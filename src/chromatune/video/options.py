"""Options of a video, and hints by frame as the command line and folders give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chromatune.errors import OptionsError, printable, shown
from chromatune.hints import LAYER_SUFFIXES, Hints, list_layers, parse_point
from chromatune.images import Photo
from chromatune.options import ColorizeOptions
from chromatune.video.reading import by_number
from chromatune.video.stills import Still, StillPlace
from chromatune.video.video import Video

MAX_DIGITS = 20  # of a frame's number


@dataclass(frozen=True, eq=False)
class VideoOptions:
    """How a video is colorized.

    Attributes:
        out: a video's file, or a folder of frames.
        model: see `Colorizer.load`; None for none, where `colors` gives all.
        colorize_options: of all frames.
        hints: number of a frame ⇒ its hints.
        colors: a finished film, made of the video in any way: its colors are taken, a model's only where it has none.
        stills: finished frames by number or timecode; their colors are propagated through their shots.
        like: photos in color that show the same things.
        codec: "h264", "h265", "ffv1" or "prores"; None for H.264.
        starts: first frames of shots; None to find them.
        preview_seconds: length to colorize from the start; None for all.
        cache: folder for chroma; None for OUT.chroma.
        overwrite: replace what exists.
        device: where to compute; None for the best there is.
        runtime: the library that computes; None for the faster one.
    """

    out: Path
    model: str | None = "mini"
    colorize_options: ColorizeOptions = ColorizeOptions()
    hints: Mapping[int, Hints] = field(default_factory=dict)
    colors: Video | None = None
    stills: Mapping[StillPlace, Still] = field(default_factory=dict)
    like: Sequence[Photo] = ()
    codec: str | None = None
    starts: Sequence[int] | None = None
    preview_seconds: float | None = None
    cache: Path | None = None
    overwrite: bool = False
    device: str | None = None
    runtime: str | None = None


def parse_frame_point(text: str) -> tuple[int, Hints]:
    """Return the number of a frame and a point hint on it, from FRAME:X,Y=COLOR.

    Raises:
        OptionsError: it is written otherwise.
    """
    number, colon, point = text.partition(":")
    if not colon or not number.strip().isdecimal() or len(number) > MAX_DIGITS:
        raise OptionsError(f"hint {shown(text)}: accepted is FRAME:X,Y=COLOR, such as 120:420,310=#a03020")
    return int(number), parse_point(point)


def layers_by_frame(folder: Path) -> dict[int, Hints]:
    """Return the painted layers in a folder, by the number of the frame in their names.

    Raises:
        OptionsError: there is no such folder, no layer in it, or two of one frame.
        PhotoError: a layer is no picture with transparency.
    """
    name = printable(str(folder))
    found = by_number(list_layers(folder), name, OptionsError)
    if not found:
        raise OptionsError(f"{name}: no layer in it; accepted are {' '.join(LAYER_SUFFIXES)} with a frame's number")
    return {number: Hints.from_layer(path, name=str(path)) for number, path in found.items()}
