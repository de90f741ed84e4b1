"""Colored frames ⇒ a video's file, whole or not at all, with the sound of its source; or a folder of frames."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import cv2
import numpy as np

from chromatune import color
from chromatune.errors import OptionsError, PhotoError, VideoError, first_line, printable, shown
from chromatune.files import LineFile, atomic_file, atomic_write
from chromatune.images import Photo, Provenance, encode_photo, format_for, suffix_for, with_provenance
from chromatune.video.containers import BOX_SUFFIXES, SHAPE_TAGS, tags_of, write_matroska_shape, xmp_box
from chromatune.video.opening import errors_as_lines, ffmpeg_path, require_av
from chromatune.video.reading import FULL_RANGE, LIMITED_RANGE
from chromatune.video.track_writing import TrackWriter
from chromatune.video.tracks import MATROSKA, TrackReader
from chromatune.video.video import Frame, VideoInfo
from chromatune.video.yuv import Planes, gray_of, to_planes

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.filter import Graph
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": MATROSKA}
FIELD_ORDERS = {"": 1, "tff": 2, "bff": 3}  # AVFieldOrder: progressive, TT, BB
REC601, BT709, UNKNOWN = 6, 1, 2  # AVColorSpace; AVColorPrimaries and AVColorTransferCharacteristic

DISK_ERRORS = ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EACCES", "EPERM", "ENOENT", "EMFILE")
TREE_MACROBLOCKS = 8  # libx264's results vary from run to run where its tree gets rows of another multiple

WRITTEN_FILE = "written.jsonl"
BEGUN = ""  # instead of the chroma's key, before a frame's file is written
LOSSY_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")  # frames in a folder are exact to the bit
FRAME_NAME = "{:06d}.png"


@dataclass(frozen=True)
class Codec:
    """How frames are encoded.

    Attributes:
        encoder: FFmpeg's name.
        depths: bits of a sample ⇒ FFmpeg's pixel format; a video gets the least depth that holds it, else the most.
        halved: whether chroma has half the height, and half the width.
        even: sides must be even; the last row or column is then given twice.
        options: of the encoder.
        containers: suffixes of files that may hold it ⇒ FFmpeg's name of the container.
        fields: whether it holds pictures of two fields.
    """

    encoder: str
    depths: Mapping[int, str]
    halved: tuple[bool, bool]
    even: bool
    options: Mapping[str, str]
    containers: Mapping[str, str]
    fields: bool = True

    def depth_for(self, bits: int) -> int:
        """Return bits of a sample of the result, for a video with `bits`."""
        return next((depth for depth in self.depths if depth >= bits), max(self.depths))

    def side_px(self, side_px: int) -> int:
        """Return the side of the result, for a video with one of `side_px`."""
        return side_px + (side_px % 2 if self.even else 0)


CODECS = {
    "h264": Codec(
        "libx264",
        {8: "yuv420p", 10: "yuv420p10le"},
        (True, True),
        True,
        {"crf": "18", "preset": "veryfast"},
        CONTAINERS,
    ),
    "h265": Codec(
        "libx265",
        {8: "yuv420p", 10: "yuv420p10le", 12: "yuv420p12le"},
        (True, True),
        True,
        {"crf": "20", "preset": "fast", "x265-params": "log-level=none"},
        CONTAINERS,
        fields=False,
    ),
    "ffv1": Codec(
        "ffv1",
        {8: "yuv444p", 10: "yuv444p10le", 12: "yuv444p12le", 14: "yuv444p14le", 16: "yuv444p16le"},
        (False, False),
        False,
        {"level": "3", "slicecrc": "1", "slices": "4"},
        {".mkv": MATROSKA, ".mov": "mp4"},  # FFmpeg's writer of MOV takes none, that of MP4, of the same boxes, does
    ),
    "prores": Codec(
        "prores_ks", {10: "yuv422p10le"}, (False, True), True, {"profile": "hq"}, {".mov": "mov", ".mkv": MATROSKA}
    ),
}


def choose_codec(out: Path, codec: str | None) -> Codec:
    """Return the codec of a file: by default H.264.

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
        raise OptionsError(f"{out}: {codec} needs a name that ends in {' or '.join(chosen.containers)}", "codec")
    return chosen


class FrameWriter(Protocol):
    """A writer of the colored frames of a video, in their order."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What of the source is converted or left out, a line each; known before anything is written."""

    def has(self, frame: Frame, key: str) -> bool:
        """Return whether a frame with the chroma of that key was written by an earlier run."""

    def make(self, frame: Frame, chroma: np.ndarray) -> Any:
        """Return the colored frame, for `write`; several threads may do so, and nothing is written yet.

        Args:
            frame: as it was read.
            chroma: (h, w, 2) float32, (Cb, Cr).
        """

    def write(self, frame: Frame, key: str, made: Any) -> None:
        """Write the next frame; `key` is that of its chroma."""

    def finish(self) -> None:
        """Write what is held back."""


@contextmanager
def open_writer(
    out: Path,
    info: VideoInfo,
    *,
    codec: str | None = None,
    strength: float = 1.0,
    overwrite: bool = False,
    record_folder: Path | None = None,
    preview_seconds: float | None = None,
    provenance: Provenance | None = None,
) -> Iterator[FrameWriter]:
    """Open the writer of a path: of a video's file where it has a suffix, else of a folder of frames.

    Args:
        out: file or folder. A file appears under its name at the end; on an error nothing is left.
        info: of the video that is colored, from which all but the frames comes along where both are files.
        codec: see `choose_codec`.
        strength: factor on chroma.
        overwrite: replace what exists.
        record_folder: where the frames of a folder are recorded that are written; None for `out`.
        preview_seconds: length of the frames, and so of what comes along; None for all.
        provenance: how the result is made, to be written into a file; frames of a folder say it each.

    Raises:
        OptionsError: a codec is given for a folder or does not hold the video's fields, or see `choose_codec`.
        VideoError: it cannot be written.
    """
    if out.suffix:
        chosen = choose_codec(out, codec)
        if info.field_order and not chosen.fields:
            able = ", ".join(name for name, each in CODECS.items() if each.fields)
            raise OptionsError(f"{codec} cannot store interlaced video, as this one is; give one of {able}", "codec")
        with _open_file(out, chosen, info, strength, overwrite, preview_seconds, provenance) as writer:
            yield writer
        return
    if codec is not None:
        raise OptionsError(f"--codec is for video files, but {out} is a folder of frames; leave it out", "codec")
    record_folder = record_folder or out
    try:
        out.mkdir(parents=True, exist_ok=True)
        record_folder.mkdir(parents=True, exist_ok=True)
        with LineFile(record_folder / WRITTEN_FILE, ("turn", "frame", "chroma")) as written:
            yield FolderWriter(out, info, strength, written, overwrite, provenance)
    except OSError as error:
        name = printable(str(error.filename or out))
        raise VideoError(f"{name}: cannot be written ({error.strerror}); check disk and path") from error


class VideoWriter:
    """A video's file, which is written anew."""

    def __init__(
        self, container: OutputContainer, codec: Codec, info: VideoInfo, tracks: TrackWriter, strength: float
    ) -> None:
        self._container, self._codec, self._info, self._strength = container, codec, info, strength
        self._depth, self._tracks, self.warnings = codec.depth_for(info.bits), tracks, tracks.warnings
        self._stream = _video_stream(container, codec, info, self._depth)
        tracks.add_streams(self._stream)
        has_marks = info.field_order or info.aspect not in (None, 1)
        self._marker = _marker(self._stream, info) if has_marks else None
        container.start_encoding()

    def has(self, frame: Frame, key: str) -> bool:
        return False

    def make(self, frame: Frame, chroma: np.ndarray) -> Planes:
        return to_planes(
            frame.luma,
            chroma,
            bits=self._info.bits,
            out_bits=self._depth,
            full_range=self._info.full_range,
            halved=self._codec.halved,
            strength=self._strength,
            by_field=bool(self._info.field_order),
        )

    def write(self, frame: Frame, key: str, made: Planes) -> None:
        self._tracks.write(frame.seconds)
        picture = _picture(made, self._stream)
        picture.pts, picture.time_base = frame.ticks, self._info.time_base
        if self._marker is not None:
            self._marker.push(picture)
            picture = self._marker.vpull()
        self._container.mux(self._stream.encode(picture))

    def finish(self) -> None:
        self._tracks.finish()
        self._container.mux(self._stream.encode(None))


class FolderWriter:
    """A folder of frames; it is recorded which chroma each was made with, so that it is made again with another."""

    warnings = ()

    def __init__(
        self,
        out: Path,
        info: VideoInfo,
        strength: float,
        written: LineFile,
        overwrite: bool,
        provenance: Provenance | None = None,
    ) -> None:
        self._provenance = provenance
        self._out, self._info, self._strength = out, info, strength
        self._written, self._overwrite = written, overwrite
        records = written.read()
        self._turn = len(records)
        self._latest = {str(record["frame"]): str(record["chroma"]) for record in records}

    def has(self, frame: Frame, key: str) -> bool:
        path = self._path(frame)
        known = self._latest.get(path.name)
        if known == self._version(key) and path.is_file():
            return True
        if known is None and not self._overwrite and os.path.lexists(path):
            raise VideoError(f"{printable(str(path))} exists; give another folder, or --overwrite")
        return False

    def make(self, frame: Frame, chroma: np.ndarray) -> bytes:
        photo, path = self._photo(frame), self._path(frame)
        rgb = color.recompose(photo.gray, chroma, strength=self._strength)
        try:
            return encode_photo(rgb, photo, format_for(path.suffix), self._provenance)
        except PhotoError as error:
            raise VideoError(f"{printable(str(path))}: {error}") from error

    def write(self, frame: Frame, key: str, made: bytes) -> None:
        path = self._path(frame)
        self._record(path, BEGUN)
        atomic_write(path, made)
        self._record(path, self._version(key))

    def finish(self) -> None:
        pass  # there is no sound, and nothing is held back

    def _version(self, key: str) -> str:
        return f"{key} {self._strength:g}"

    def _record(self, path: Path, chroma: str) -> None:
        self._turn += 1
        self._written.append([{"turn": self._turn, "frame": path.name, "chroma": chroma}])

    def _path(self, frame: Frame) -> Path:
        if frame.path is None:
            return self._out / FRAME_NAME.format(frame.number)
        suffix = frame.path.suffix
        exact = ".png" if suffix.lower() in LOSSY_SUFFIXES else suffix_for(suffix, self._photo(frame))
        return self._out / (frame.path.stem + exact)

    def _photo(self, frame: Frame) -> Photo:
        if frame.photo is not None:
            return frame.photo
        return Photo(gray_of(frame.luma, self._info.bits, self._info.full_range))


@contextmanager
def _open_file(
    out: Path,
    codec: Codec,
    info: VideoInfo,
    strength: float,
    overwrite: bool,
    preview_seconds: float | None,
    provenance: Provenance | None,
) -> Iterator[VideoWriter]:
    require_av()
    import av

    name, suffix = printable(str(out)), out.suffix.lower()
    try:
        with ExitStack() as stack:
            part = stack.enter_context(atomic_file(out, overwrite=overwrite, follow_link=True))
            reader = TrackReader(info.path) if info.path.is_file() else None
            if reader is not None:
                stack.callback(reader.close)
            container = av.open(ffmpeg_path(part), "w", format=codec.containers[suffix])
            try:
                with errors_as_lines(info.path, f"written as {suffix}"):
                    tracks = TrackWriter(container, reader, name, suffix, preview_seconds)
                    if provenance is not None and suffix not in BOX_SUFFIXES:
                        tracks.tags.update(tags_of(provenance))
                    writer = VideoWriter(container, codec, info, tracks, strength)
                yield writer
                container.close()
                _complete(part, suffix, codec.side_px(info.width_px), info.aspect, provenance)
            except av.error.FFmpegError as error:  # its file name cannot be set
                with suppress(av.error.FFmpegError):
                    container.close()
                if errno.errorcode.get(error.errno or 0) not in DISK_ERRORS:
                    raise VideoError(
                        f"{name}: FFmpeg cannot write it ({printable(error.strerror or first_line(error))}); give a "
                        "name ending in .mkv, or convert the video first"
                    ) from error
                raise OSError(error.errno or 0, error.strerror or first_line(error)) from error
            except (ArithmeticError, ValueError) as error:
                with suppress(av.error.FFmpegError):
                    container.close()
                reason = printable(first_line(error))
                raise VideoError(f"{name}: cannot be written ({reason}); convert the video first") from error
            except BaseException:
                with suppress(av.error.FFmpegError):
                    container.close()
                raise
    except FileExistsError:
        raise VideoError(f"{name} exists; give another name, or --overwrite") from None
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise VideoError(f"{name}: cannot be written ({printable(reason)}); check disk and path") from error


def _complete(part: Path, suffix: str, width_px: int, aspect: Fraction | None, provenance: Provenance | None) -> None:
    """Write into a finished file what FFmpeg does not."""
    if suffix in BOX_SUFFIXES and provenance is not None:
        with open(part, "ab") as file:
            file.write(xmp_box(with_provenance(None, provenance)))
    if suffix not in BOX_SUFFIXES and aspect is not None and aspect != 1:
        with open(part, "r+b") as file:
            write_matroska_shape(file, width_px, aspect)


def _video_stream(container: OutputContainer, codec: Codec, info: VideoInfo, depth: int) -> VideoStream:
    options = dict(codec.options)
    if codec.encoder == "libx264" and -(-info.width_px // 16) % TREE_MACROBLOCKS:
        options["x264-params"] = "mbtree=0"
    stream = cast("VideoStream", container.add_stream(codec.encoder, rate=info.rate, options=options))
    stream.width, stream.height = codec.side_px(info.width_px), codec.side_px(info.height_px)
    stream.pix_fmt = codec.depths[depth]
    stream.time_base = stream.codec_context.time_base = info.time_base
    if info.aspect is not None:
        stream.codec_context.sample_aspect_ratio = info.aspect
    context = stream.codec_context
    if codec.encoder == "libx264":
        context.thread_type = "FRAME"  # threads that share a frame wait for each other, and for the next one
    context.color_range = FULL_RANGE if info.full_range else LIMITED_RANGE
    context.colorspace = REC601
    context.color_primaries = BT709 if info.primaries == UNKNOWN else info.primaries
    context.color_trc = BT709 if info.transfer == UNKNOWN else info.transfer
    if info.field_order:
        from av.codec.context import Flags

        context.flags |= Flags.interlaced_dct | Flags.interlaced_me
    context.field_order = FIELD_ORDERS[info.field_order]
    if codec.encoder == "libx265" and container.format.name != MATROSKA:
        context.codec_tag = "hvc1"  # that some players insist on
    if info.aspect not in (None, 1) and container.format.name == MATROSKA:
        stream.metadata.update(SHAPE_TAGS)
    return stream


def _marker(stream: VideoStream, info: VideoInfo) -> Graph:
    """A filter that marks each frame with the order of its fields and the shape of its pixels, which encoders read."""
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(width=stream.width, height=stream.height, format=stream.format, time_base=info.time_base)
    shape = str(info.aspect or 1)
    marks = [graph.add("setfield", info.field_order or "prog"), graph.add("setsar", shape), graph.add("buffersink")]
    for mark in marks:
        source.link_to(mark)
        source = mark
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
