"""Colored frames ⇒ a film's file, whole or not at all, with the sound of the film it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from chromatune.errors import OptionsError, VideoError, first_line, printable, shown
from chromatune.files import atomic_file
from chromatune.video.frames import Frame, VideoInfo
from chromatune.video.planes import Planes, planes_of
from chromatune.video.reading import FULL_RANGE, LIMITED_RANGE, Sound, require_av

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.filter import Graph
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
REC601, BT709, UNKNOWN = 6, 1, 2  # AVColorSpace; AVColorPrimaries and AVColorTransferCharacteristic


@dataclass(frozen=True)
class Codec:
    """How frames are encoded.

    Attributes:
        encoder: FFmpeg's name.
        depths: bits of a sample ⇒ FFmpeg's pixel format; a film gets the least depth that holds it, else the most.
        halved: whether chroma has half the height, and half the width.
        even: sides must be even; the last row or column is then given twice.
        options: of the encoder.
        containers: suffixes of files that may hold it.
    """

    encoder: str
    depths: Mapping[int, str]
    halved: tuple[bool, bool]
    even: bool
    options: Mapping[str, str]
    containers: tuple[str, ...]

    def depth_for(self, bits: int) -> int:
        """Bits of the result for a film of so many."""
        return next((depth for depth in self.depths if depth >= bits), max(self.depths))


CODECS = {
    "h264": Codec(
        "libx264",
        {8: "yuv420p", 10: "yuv420p10le"},
        (True, True),
        True,
        {"crf": "18", "preset": "veryfast"},
        (".mp4", ".m4v", ".mov", ".mkv"),
    ),
    "ffv1": Codec(
        "ffv1",
        {8: "yuv444p", 10: "yuv444p10le", 12: "yuv444p12le", 14: "yuv444p14le", 16: "yuv444p16le"},
        (False, False),
        False,
        {"level": "3", "slicecrc": "1", "slices": "4"},
        (".mkv", ".mov"),
    ),
    "prores": Codec("prores_ks", {10: "yuv422p10le"}, (False, True), True, {"profile": "hq"}, (".mov", ".mkv")),
}


def choose_codec(out: Path, codec: str | None) -> Codec:
    """The codec of a file: by default H.264.

    Raises:
        OptionsError: the file's suffix or the codec is unknown, or the file cannot hold the codec.
    """
    suffix = out.suffix.lower()
    if suffix not in CONTAINERS:
        raise OptionsError(f"{out}: accepted are {' '.join(CONTAINERS)}, or a folder for frames")
    if codec is not None and codec not in CODECS:
        raise OptionsError(f"codec {shown(codec)}: accepted are {', '.join(CODECS)}", "codec")
    chosen = CODECS[codec or "h264"]
    if suffix not in chosen.containers:
        raise OptionsError(f"{out}: {codec} goes into {' or '.join(chosen.containers)}; give such a name", "codec")
    return chosen


class VideoWriter:
    """Takes the frames of one film, in their order."""

    def __init__(self, container: OutputContainer, codec: Codec, info: VideoInfo, sound: Sound | None) -> None:
        """Made by `film_writer`."""
        self._container, self._codec, self._info = container, codec, info
        self._depth = codec.depth_for(info.bits)
        self._stream = _video_stream(container, codec, info, self._depth)
        self._sound_streams = [container.add_stream_from_template(each) for each in sound.streams] if sound else []
        self._index = {each.index: place for place, each in enumerate(sound.streams)} if sound else {}
        self._sound = sound.packets() if sound else iter(())
        self._waiting = next(self._sound, None)
        self._fields = _field_marker(self._stream, info) if info.field_order else None
        container.start_encoding()

    def planes(self, frame: Frame, chroma: np.ndarray, strength: float = 1.0) -> Planes:
        """The colored frame, for `write`; several threads may work at it."""
        return planes_of(
            frame.luma,
            chroma,
            bits=self._info.bits,
            out_bits=self._depth,
            full_range=self._info.full_range,
            halved=self._codec.halved,
            strength=strength,
            by_field=bool(self._info.field_order),
        )

    def write(self, frame: Frame, planes: Planes) -> None:
        """Encodes a frame, with the sound before it."""
        self._write_sound(frame.seconds)
        picture = _picture(planes, self._stream)
        picture.pts, picture.time_base = frame.ticks, self._info.time_base
        if self._fields is not None:
            self._fields.push(picture)
            picture = self._fields.vpull()
        self._container.mux(self._stream.encode(picture))

    def finish(self, seconds: float | None = None) -> None:
        """Writes what is held back, and the sound up to a time; None for all of it."""
        self._write_sound(seconds)
        self._container.mux(self._stream.encode(None))

    def _write_sound(self, seconds: float | None) -> None:
        while self._waiting is not None:
            packet = self._waiting
            if seconds is not None and float((packet.dts or 0) * packet.time_base) > seconds:
                return
            packet.stream = self._sound_streams[self._index[packet.stream.index]]
            self._container.mux(packet)
            self._waiting = next(self._sound, None)


@contextmanager
def video_writer(out: Path, codec: Codec, info: VideoInfo, *, overwrite: bool = False) -> Iterator[VideoWriter]:
    """A writer of a file that appears under its name at the end; on an error nothing is left.

    Args:
        out: the file.
        codec: see `choose_codec`.
        info: of the film it is made from, whose sound is copied where it is a file.
        overwrite: replace a file that exists.

    Raises:
        VideoError: it cannot be written.
    """
    require_av()
    import av

    name = printable(str(out))
    try:
        with ExitStack() as stack:
            part = stack.enter_context(atomic_file(out, overwrite=overwrite))
            sound = Sound(info.path) if info.path.is_file() else None
            if sound is not None:
                stack.callback(sound.close)
            container = av.open(str(part), "w", format=CONTAINERS[out.suffix.lower()])
            try:
                _check_sound(container, sound, name)
                yield VideoWriter(container, codec, info, sound)
                container.close()
            except av.error.FFmpegError as error:  # its file name cannot be set
                with suppress(av.error.FFmpegError):
                    container.close()
                raise OSError(error.errno or 0, error.strerror or first_line(error)) from error
            except BaseException:
                with suppress(av.error.FFmpegError):
                    container.close()
                raise
    except FileExistsError:
        raise VideoError(f"{name} exists; give another name, or --overwrite") from None
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise VideoError(f"{name}: cannot be written ({printable(reason)}); check disk and path") from error


def _check_sound(container: OutputContainer, sound: Sound | None, name: str) -> None:
    for each in sound.streams if sound else ():
        kind = each.codec_context.codec.canonical_name
        if kind not in container.supported_codecs:
            raise VideoError(f"{name}: sound of the kind {kind} cannot be copied into it; give a name ending in .mkv")


def _video_stream(container: OutputContainer, codec: Codec, info: VideoInfo, depth: int) -> VideoStream:
    options = dict(codec.options)
    stream = cast("VideoStream", container.add_stream(codec.encoder, rate=info.rate, options=options))
    even = 2 if codec.even else 1
    stream.width, stream.height = (-(-side // even) * even for side in (info.width_px, info.height_px))
    stream.pix_fmt = codec.depths[depth]
    stream.time_base = stream.codec_context.time_base = info.time_base
    if info.aspect is not None:
        stream.codec_context.sample_aspect_ratio = info.aspect
    context = stream.codec_context
    context.color_range = FULL_RANGE if info.full_range else LIMITED_RANGE
    context.colorspace = REC601
    context.color_primaries = BT709 if info.primaries == UNKNOWN else info.primaries
    context.color_trc = BT709 if info.transfer == UNKNOWN else info.transfer
    if info.field_order:
        from av.codec.context import Flags

        context.flags |= Flags.interlaced_dct | Flags.interlaced_me
    return stream


def _field_marker(stream: VideoStream, info: VideoInfo) -> Graph:
    """A filter that marks frames as interlaced: what encoders look at."""
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(width=stream.width, height=stream.height, format=stream.format, time_base=info.time_base)
    marker, sink = graph.add("setfield", info.field_order), graph.add("buffersink")
    source.link_to(marker)
    marker.link_to(sink)
    graph.configure()
    return graph


def _picture(planes: Planes, stream: VideoStream) -> VideoFrame:
    from av import VideoFrame

    picture = VideoFrame(stream.width, stream.height, stream.format.name)
    picture.color_range, picture.colorspace = stream.color_range, stream.colorspace
    for target, plane in zip(picture.planes, planes, strict=True):
        rows = np.frombuffer(memoryview(target), plane.dtype).reshape(target.height, target.line_size // plane.itemsize)
        below, right = target.height - plane.shape[0], target.width - plane.shape[1]
        if below or right:  # an odd side of a codec that takes even ones
            plane = cv2.copyMakeBorder(plane, 0, below, 0, right, cv2.BORDER_REPLICATE)
        rows[:, : target.width] = plane
    return picture
