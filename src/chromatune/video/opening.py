"""A video's file ⇒ FFmpeg's container, within limits: formats by a list, this one file alone, nothing decoded yet."""

from __future__ import annotations

import ctypes
import io
import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from chromatune.errors import MissingExtraError, VideoError, first_line, printable
from chromatune.files import open_regular
from chromatune.images import MAX_PIXELS

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

MAX_STREAMS = 64  # pictures, sound, subtitles, attachments
MAX_PIXEL_BYTES = 8  # four samples of 16 bits: what one allocation of FFmpeg's may hold for each pixel of a frame
SPARE_BYTES = 64 << 20  # that an allocation may have beside: packets, indexes
MAX_INDEX_ENTRIES = 8_000_000  # samples of all tracks of an MP4 or MOV: FFmpeg takes up to 40 bytes for each
MAX_BOXES = 200_000  # of the same
MAX_BOX_DEPTH = 12  # of the same; FFmpeg's limit is a little lower
MAX_HEADER_BYTES = 64 << 20  # of a compressed header of a MOV
BOXES_OF_BOXES = b"moov trak mdia minf stbl moof traf mvex edts udta tref dinf gmhd wave ilst cmov".split()
SOUND_CHUNK = 1024  # samples that share an entry, where they are counted one by one
PROBE_BYTES = 5_000_000  # read to find out what the streams are, FFmpeg's own default
DECODER_THREADS_BYTES = 400_000_000  # of frames that the threads of a decoder work on together
MAX_DECODER_THREADS = 16  # FFmpeg's own limit
LEAST_STEP_BACK = Fraction(1, 2)  # seconds in which the packets of a stream run back where a file's times begin again
LEAST_STEP_AHEAD = 10  # seconds of the same, only in formats whose times may do so (FFmpeg's dts_delta_threshold)

PROTECTED_TAG = "ASF_Protection_Type"  # of Windows Media

# Formats of cameras, scanners, editors, broadcasters and the web. None that names other files (concat, HLS, DASH,
# image2), opens devices, or is a single picture.
DEMUXERS = (
    "3gp apng asf avi av1 avs2 cavsvideo dirac dnxhd dv evc film_cpk flic flv gif gxf h261 h263 h264 hevc iff ivf "
    "jpeg_pipe kux lxf m4v matroska mjpeg mov mp4 mpeg mpegts mpegvideo mxf nsv nut nuv obu ogg pva rm roq smk swf "
    "ty vc1 vvc webm wtv xmv yuv4mpegpipe"
).split()
# What may be decoded while a file is opened: sound whose frames are small, and whose parameters no header holds
PROBED_SOUND = (
    "aac aac_latm ac3 eac3 dca flac mp1float mp2float mp3float mp1 mp2 mp3 mp3adufloat mp3on4float opus vorbis amrnb "
    "amrwb libopencore_amrnb libopencore_amrwb truehd mlp"
).split()


@dataclass(frozen=True)
class VideoLimits:
    """Limits of a video; what exceeds them is an error before it is decoded.

    Attributes:
        max_pixels: pixels of a frame.
        max_frames: number of frames; None for any.
        max_seconds: length in seconds; None for any.
    """

    max_pixels: int = MAX_PIXELS
    max_frames: int | None = None
    max_seconds: float | None = None

    @property
    def decoder_options(self) -> dict[str, str]:
        """Options of a decoder: larger frames are errors to it, which counts whole blocks of 16 or 64 px."""
        return {"max_pixels": str(self.max_pixels + self.max_pixels // 8 + 128 * 128)}


def require_av() -> None:
    """Check that PyAV is installed, and silence FFmpeg: errors are reported here, in one line.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise MissingExtraError("reading and writing videos", "video") from None
    av.logging.set_level(None)


@contextmanager
def errors_as_lines(path: Path, done: str = "read") -> Iterator[None]:
    """Raise whatever PyAV and FFmpeg raise, which is of many types, as a `VideoError`.

    Args:
        path: what is read or written.
        done: what cannot be done with it.

    Raises:
        VideoError: instead of the library's error.
    """
    import av

    try:
        yield
    except MemoryError as error:
        raise VideoError(f"{printable(str(path))}: not enough memory for it; make it smaller") from error
    except (
        av.error.FFmpegError, ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError
    ) as error:  # fmt: skip
        reason = printable(getattr(error, "strerror", None) or first_line(error))
        raise VideoError(f"{printable(str(path))}: cannot be {done} ({reason}); convert or copy it again") from error


def ffmpeg_path(path: Path) -> str:
    """Return a path as FFmpeg takes it for nothing else: `concat:a|b` and `pipe:0` are names of files, too."""
    return f"file:{path}"


def open_container(path: Path, limits: VideoLimits | None) -> InputContainer:
    """Open a video's file; no picture of it is decoded.

    Args:
        path: the file.
        limits: of its frames; None where none will be decoded.

    Raises:
        VideoError: there is no such file, or it is no video in one of the formats of `DEMUXERS`.
    """
    import av

    name = printable(str(path))
    if limits is not None:
        _limit_allocations(limits.max_pixels * MAX_PIXEL_BYTES + SPARE_BYTES)
    options = {
        "format_whitelist": ",".join(DEMUXERS),
        "codec_whitelist": ",".join(PROBED_SOUND),
        "protocol_whitelist": "file",
        "max_streams": str(MAX_STREAMS),
        "probesize": str(PROBE_BYTES),
    }
    try:
        with open_regular(path) as file:  # a pipe, on which FFmpeg would wait, is none
            check_index(file, name)
        return av.open(ffmpeg_path(path), "r", metadata_errors="replace", options=options)
    except FileNotFoundError:
        raise VideoError(f"{name}: no such file; check the path") from None
    except PermissionError:
        raise VideoError(f"{name}: no permission to read it; change the file's rights") from None
    except av.error.InvalidDataError:
        raise VideoError(f"{name}: no video, or damaged at its start; give a video, or a folder of frames") from None
    except av.error.ArgumentError:
        raise VideoError(
            f"{name}: no video of a format that is read, such as MP4, MOV, MKV, AVI and MPEG; convert it"
        ) from None
    except MemoryError as error:
        raise VideoError(f"{name}: has more than {MAX_STREAMS} tracks, or too large ones; convert it") from error
    except (av.error.FFmpegError, ArithmeticError, LookupError, OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise VideoError(f"{name}: cannot be opened ({printable(reason)}); give a video") from error


def check_index(file: BinaryIO, name: str) -> None:
    """Check how many samples the headers of an MP4 or MOV announce: a hundred bytes may announce millions.

    Raises:
        VideoError: they are too many.
    """
    try:
        entries = _announced(file, os.fstat(file.fileno()).st_size, [MAX_BOXES], {})
    except (struct.error, zlib.error):  # it is cut short
        return
    if entries > MAX_INDEX_ENTRIES:
        raise VideoError(f"{name}: its header announces more than {MAX_INDEX_ENTRIES} samples; give a shorter video")


def _announced(file: BinaryIO, end: int, left: list[int], track: dict[bytes, bool], depth: int = 0) -> float:
    """Return the number of samples that the boxes from here to `end` announce.

    Args:
        file: at the start of a box.
        end: where the last one ends.
        left: how many more boxes may be read.
        track: gets whether the track is sound, and whether its samples are counted one by one, as in PCM.
        depth: of the boxes in others.
    """
    total = 0.0
    while (start := file.tell()) + 8 <= end:
        left[0] -= 1
        if left[0] < 0 or depth > MAX_BOX_DEPTH:
            return math.inf
        size, kind = struct.unpack(">I4s", file.read(8))
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
        stop = min(start + size, end) if size else end
        if stop < file.tell():
            break
        if kind in BOXES_OF_BOXES:
            inner: dict[bytes, bool] = {} if kind == b"trak" else track
            samples = _announced(file, stop, left, inner, depth + 1)
            is_chunked = kind == b"trak" and inner.get(b"hdlr") and inner.get(b"stts")
            total += samples / SOUND_CHUNK if is_chunked else samples
        elif kind == b"cmvd":
            unpacked = zlib.decompressobj().decompress(file.read(stop - file.tell())[4:], MAX_HEADER_BYTES)
            total += _announced(io.BytesIO(unpacked), len(unpacked), left, track, depth + 1)
        elif kind in (b"stsz", b"stz2"):
            total += struct.unpack(">8xI", file.read(12))[0]
        elif kind == b"trun":
            total += struct.unpack(">4xI", file.read(8))[0]
        elif kind == b"stts":
            entries, _, ticks = struct.unpack(">4xIII", file.read(16))
            track[kind] = (entries, ticks) == (1, 1)
        elif kind == b"hdlr":
            track[kind] = track.get(kind, False) or file.read(12)[8:] == b"soun"  # that of its data comes, too
        file.seek(stop)
    return total


def is_known(stream: Stream) -> bool:
    """Return whether FFmpeg knows what a stream is coded with; PyAV's types say that it always does."""
    return getattr(stream, "codec_context", None) is not None


def film_stream(container: InputContainer) -> VideoStream | None:
    """Return the stream that is the film: no cover, and of several the default one, else that of the largest frames."""
    from av.stream import Disposition

    stills = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    films = [stream for stream in container.streams.video if not stream.disposition & stills]
    films = [stream for stream in films if stream.disposition & Disposition.default] or films

    def pixels(stream: VideoStream) -> int:
        return stream.codec_context.width * stream.codec_context.height if is_known(stream) else -1

    return max(films, key=pixels, default=None)


def video_stream(container: InputContainer, path: Path, limits: VideoLimits) -> VideoStream:
    """Return the stream of a file's frames, ready to be decoded within limits.

    Raises:
        VideoError: there is none, or its frames are too large.
    """
    name, stream = printable(str(path)), film_stream(container)
    if stream is None:
        kind = "sound alone" if container.streams.audio else "no picture"
        raise VideoError(f"{name}: {kind}, no frames; give a video")
    if PROTECTED_TAG in container.metadata:
        raise encrypted(path)
    context = stream.codec_context
    if context is None:
        raise VideoError(f"{name}: its picture is of a kind that FFmpeg does not decode; convert it")
    check_size(context.width, context.height, name, limits)
    context.options = limits.decoder_options
    stream.thread_type = "AUTO"
    context.thread_count = _decoder_threads(context.width * context.height)
    return stream


def encrypted(path: Path) -> VideoError:
    """Return the error of a file whose pictures can be decoded with a key alone: without, they are noise, or none."""
    return VideoError(f"{printable(str(path))}: its pictures are encrypted (DRM); give a copy without protection")


@dataclass
class _Parts:
    """The parts of a file, in each of which the times begin again, as in joined recordings.

    Attributes:
        shifts: seconds to add in each part; those of a part are one number for all its streams.
        part: in which each stream is, by its index.
        latest: time of each stream's last packet, as the file has it.
        end: where the last packet ends, by the time of the result.
    """

    shifts: list[Fraction] = field(default_factory=lambda: [Fraction()])
    part: dict[int, int] = field(default_factory=dict)
    latest: dict[int, Fraction] = field(default_factory=dict)
    end: Fraction = Fraction()

    def shift(self, index: int, seconds: Fraction, length: Fraction, may_jump: bool) -> Fraction:
        """Return the seconds to add to a packet's time.

        Args:
            index: of its stream.
            seconds: its time.
            length: how long it lasts.
            may_jump: a jump ahead begins a part, too.
        """
        part = self.part.setdefault(index, len(self.shifts) - 1)
        step = seconds - self.latest.get(index, seconds)
        if step < -LEAST_STEP_BACK or (may_jump and step > LEAST_STEP_AHEAD):
            part = self._part_after(part, self.latest[index] + self.shifts[part], seconds)
        self.part[index], self.latest[index] = part, seconds
        self.end = max(self.end, seconds + self.shifts[part] + length)
        return self.shifts[part]

    def _part_after(self, part: int, last: Fraction, seconds: Fraction) -> int:
        """The later part in which a stream goes on where it was; a new one if there is none."""
        distances = {later: abs(seconds + self.shifts[later] - last) for later in range(part + 1, len(self.shifts))}
        nearest = min(distances, key=distances.__getitem__, default=None)
        if nearest is not None and distances[nearest] < LEAST_STEP_AHEAD:
            return nearest
        self.shifts.append(self.end - seconds)
        return len(self.shifts) - 1


def packets_in_time(container: InputContainer, streams: Sequence[Stream]) -> Iterator[Packet]:
    """Yield the packets of streams in the file's order; where the times of the file begin again, theirs go on.

    Two readers of one file shift its parts alike, whichever streams they want, so that sound stays with its picture.

    Raises:
        av.error.FFmpegError: the file is cut short or damaged.
    """
    from av.format import Flags

    may_jump = bool(Flags.ts_discont & Flags(container.format.flags))
    wanted, parts = {stream.index for stream in streams}, _Parts()
    played = [each for each in (*container.streams.video, *container.streams.audio) if is_known(each)]
    timed = {stream.index for stream in played}
    for packet in container.demux([*played, *(stream for stream in streams if stream.index not in timed)]):
        index, ticks = packet.stream.index, packet.pts if packet.dts is None else packet.dts
        if ticks is not None:
            shift = parts.shifts[-1]  # that of subtitles is what they come between
            if index in timed:
                length = (packet.duration or 0) * packet.time_base
                shift = parts.shift(index, ticks * packet.time_base, length, may_jump)
            shift_ticks = round(shift / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + shift_ticks
            packet.dts = None if packet.dts is None else packet.dts + shift_ticks
        if index in wanted:
            yield packet


def _decoder_threads(pixels: int) -> int:
    """Number of threads of a decoder; 0, all that FFmpeg chooses, unless they hold too many large frames."""
    fitting = DECODER_THREADS_BYTES // max(1, pixels * MAX_PIXEL_BYTES // 2)
    return 0 if fitting >= min((os.cpu_count() or 1) + 1, MAX_DECODER_THREADS) else max(1, fitting)


def check_size(width_px: int, height_px: int, name: str, limits: VideoLimits) -> None:
    """Check the size of a frame.

    Raises:
        VideoError: it has too many pixels.
    """
    if width_px * height_px > limits.max_pixels:
        raise VideoError(
            f"{name}: its frames have more than {limits.max_pixels / 1e6:g} megapixels "
            f"({width_px} × {height_px} px); make it smaller"
        )


def _limit_allocations(most_bytes: int) -> None:
    """Limit each allocation of FFmpeg's, in the whole process, where its library can be reached: PyAV has no such call.

    A file of some bytes may otherwise announce an index of gigabytes.
    """
    import av._core

    with suppress(OSError, AttributeError):
        limit = ctypes.CDLL(av._core.__file__).av_max_alloc
        limit.argtypes, limit.restype = [ctypes.c_size_t], None
        limit(most_bytes)
