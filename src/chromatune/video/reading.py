"""Videos as they are read: files by FFmpeg (PyAV) ⇒ frames and packets of sound, and folders of numbered frames."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chromatune import color
from chromatune.errors import ChromaTuneError, PhotoError, VideoError, count_of, printable
from chromatune.images import IMAGE_SUFFIXES, Photo, read_photo
from chromatune.video.opening import (
    VideoLimits,
    check_size,
    encrypted,
    errors_as_lines,
    open_container,
    packets_in_time,
    require_av,
    video_stream,
)
from chromatune.video.video import Frame, Video, VideoInfo

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

FULL_RANGE, LIMITED_RANGE = 2, 1  # AVColorRange
PLANAR = re.compile(r"(yuvj?|yuva)\d{3}p(\d+le)?|gray(\d+le)?")  # plane 0 is luma, samples of native order
USUAL_RATE = Fraction(25)
MOST_RATE = 1000  # frames a second: more is a guess of FFmpeg's from a few times, such as of a DVD's still picture
LOOKED_AT_FRAMES = 5  # at a video's start, for its kind
MAX_BITS = 16  # of a sample
NO_LIMITS = VideoLimits()
MAX_DAMAGED_PACKETS = 10_000  # one after another, after which the rest of a video is not tried
LEAST_SHARE = 0.98  # of the frames that a file promises, under which it is said to be cut short
NUMBER = re.compile(r"\d+")  # in a name
LONGEST_GAP_FRAMES = 250  # between numbers, that is kept; a longer one is that between reels
SCAN_SUFFIXES = (".dpx", ".cin", ".exr")  # of film scanners and compositors: logarithmic or linear light


def open_video(path: str | Path, *, rate: Fraction | None = None, limits: VideoLimits = NO_LIMITS) -> Video:
    """Open a video: a file in one of many formats, or a folder of numbered frames.

    Args:
        path: file or folder.
        rate: frames a second of a folder, which says nothing of them; 25 by default.
        limits: of a file.

    Raises:
        VideoError: there is no such path, it is no video, or it exceeds a limit.
        MissingExtraError: PyAV is not installed, and it is a file.
    """
    path = Path(path)
    return FrameFolder(path, rate or USUAL_RATE) if path.is_dir() else VideoFile(path, limits)


class VideoFile:
    """A video in a file; see `Video`."""

    def __init__(self, path: Path, limits: VideoLimits = NO_LIMITS) -> None:
        """Read what the file says of itself, and its first frame.

        Raises:
            VideoError: it is no video, or exceeds a limit.
            MissingExtraError: PyAV is not installed.
        """
        require_av()
        self._path, self._name, self._limits = path, printable(str(path)), limits
        self.warnings: tuple[str, ...] = ()
        with errors_as_lines(path), open_container(path, limits) as container:
            self.info = _info_of(container, video_stream(container, path, limits), path, limits)
        expected = self.info.expected_frames or 0
        self._check_length(expected, float(expected / self.info.rate), least_share=1 / LEAST_SHARE)

    def index_of(self, number: int) -> int | None:
        return number if number >= 0 else None  # frames of a file count from 0

    def read(self, *, colors: bool = False) -> Iterator[Frame]:
        """Yield all frames that can be decoded, in the order in which they are shown.

        Raises:
            VideoError: there is none, one has another size or depth than the first, or there are too many.
        """
        info, damage, number = self.info, _Damage(), 0
        last_ticks: int | None = None
        start_seconds = 0.0
        with errors_as_lines(self._path), open_container(self._path, self._limits) as container:
            video = video_stream(container, self._path, self._limits)
            step = max(1, round(1 / (info.rate * info.time_base)))
            for decoded in _decoded(container, video, self._path, damage):
                ticks = decoded.pts
                if last_ticks is not None and (ticks is None or ticks <= last_ticks):
                    ticks = last_ticks + (step if ticks is None else 1)  # times that stand still or run back
                ticks = last_ticks = ticks or 0
                seconds = float(ticks * info.time_base)
                start_seconds = seconds if number == 0 else start_seconds
                self._check_length(number + 1, seconds - start_seconds)
                self._check_like_first(decoded, number)
                luma = _upright(_luma_of(decoded, info), _turns(decoded))
                rgb = _upright(_rgb_of(decoded, info), _turns(decoded)) if colors else None
                yield Frame(number, luma, ticks, seconds, rgb=rgb)
                number += 1
        if number == 0:
            raise VideoError(f"{self._name}: no frame can be decoded; copy the video again")
        warnings = []
        if damage.packets:
            count = count_of(damage.packets, "damaged packet is", "damaged packets are")
            warnings.append(f"{self._name}: {count} skipped")
        if info.expected_frames is not None and number < LEAST_SHARE * info.expected_frames - 1:
            warnings.append(f"{self._name} is cut short: {number} of about {info.expected_frames} frames are there")
        self.warnings = tuple(warnings)

    def _check_length(self, frames: int, seconds: float, least_share: float = 1.0) -> None:
        """Check that there are not too many frames, up to a factor where their number is an estimate."""
        most, most_seconds = self._limits.max_frames, self._limits.max_seconds
        if most is not None and frames > most * least_share:
            raise VideoError(f"{self._name}: more than {most} frames; give a shorter video")
        if most_seconds is not None and seconds > most_seconds * least_share:
            raise VideoError(f"{self._name}: longer than {most_seconds / 60:g} minutes; give a shorter video")

    def _check_like_first(self, frame: VideoFrame, number: int) -> None:
        """Check a frame's size and depth, before anything is made of it."""
        info = self.info
        (width_px, height_px), bits = _upright_size(frame), _bits_of(frame)
        if (width_px, height_px, bits) != (info.width_px, info.height_px, info.bits):
            raise VideoError(
                f"{self._name}: frame {number} is {width_px} × {height_px} px of {bits} bits where the first is "
                f"{info.width_px} × {info.height_px} px of {info.bits} bits; cut the video there, and give the parts"
            )


@dataclass
class _Damage:
    """Number of packets that cannot be decoded."""

    packets: int = 0


def _decoded(container: InputContainer, video: VideoStream, path: Path, damage: _Damage) -> Iterator[VideoFrame]:
    """Decoded frames; packets that cannot be decoded are counted, and the others go on.

    Raises:
        VideoError: they are encrypted.
    """
    import av

    packets = packets_in_time(container, [video])
    damaged_in_a_row = 0
    while damaged_in_a_row < MAX_DAMAGED_PACKETS:
        packet, is_damaged = None, True
        with suppress(av.error.FFmpegError):  # of a file that is cut short: it ends there
            packet, is_damaged = next(packets, None), False
        if packet is not None and packet.has_sidedata("encryption_info"):
            raise encrypted(path)
        try:
            for frame in video.codec_context.decode(packet):  # None flushes what is held back
                damaged_in_a_row = 0
                yield frame
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            is_damaged = True
        damage.packets += is_damaged
        damaged_in_a_row += is_damaged
        if packet is None:
            return


def _info_of(container: InputContainer, video: VideoStream, path: Path, limits: VideoLimits) -> VideoInfo:
    """What the stream and its first frame say."""
    import av

    name = printable(str(path))
    start = list(islice(_decoded(container, video, path, _Damage()), LOOKED_AT_FRAMES))
    first = next(iter(start), None)
    if first is None:
        context = video.codec_context
        check_size(context.width, context.height, name, limits)  # as the decoder found it
        raise VideoError(
            f"{name}: no frame of up to {limits.max_pixels / 1e6:g} megapixels can be decoded; copy the video again"
        )
    bits = _bits_of(first)
    if bits > MAX_BITS:
        raise VideoError(f"{name}: its samples are floating-point numbers; convert it to 16 bits")
    width_px, height_px = _upright_size(first)
    check_size(width_px, height_px, name, limits)
    # Of many kinds of files, only the decoder knows it
    aspect = video.sample_aspect_ratio or video.codec_context.sample_aspect_ratio or None
    rates = (video.average_rate, video.guessed_rate, video.codec_context.framerate)
    rate = next((each for each in rates if each and each <= MOST_RATE), USUAL_RATE)
    time_base = video.time_base or 1 / rate
    seconds: float | None = None
    if video.duration:
        seconds = float(video.duration * time_base)
    elif container.duration:
        seconds = container.duration / av.time_base
    return VideoInfo(
        path,
        width_px,
        height_px,
        bits=bits,
        full_range=_is_full(first),
        time_base=time_base,
        rate=rate,
        aspect=1 / aspect if aspect and _turns(first) % 2 else aspect,
        field_order="" if _turns(first) else _field_order(start),
        primaries=int(first.color_primaries),
        transfer=int(first.color_trc),
        expected_frames=video.frames or (round(seconds * rate) if seconds else None),
    )


def _field_order(frames: Sequence[VideoFrame]) -> str:
    """Which field of the first interlaced frame comes first, "tff" or "bff"; "" where there is none."""
    import av
    from av.filter import Graph

    frame = next((frame for frame in frames if frame.interlaced_frame), None)
    if frame is None:
        return ""
    graph = Graph()  # of the two flags, PyAV has one
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1)
    )
    select, sink = graph.add("select", r"eq(interlace_type\,TOPFIRST)"), graph.add("buffersink")
    source.link_to(select)
    select.link_to(sink)
    graph.configure()
    graph.push(frame)
    try:
        graph.vpull()
    except av.error.BlockingIOError:
        return "bff"
    return "tff"


def _bits_of(frame: VideoFrame) -> int:
    """Bits of a sample of luma, as it is read."""
    bits = max(8, *(each.bits for each in frame.format.components))
    return 16 if frame.format.is_rgb and bits > 8 else bits


def _turns(frame: VideoFrame) -> int:
    """Quarter turns counterclockwise that bring a frame upright, 0..3."""
    return round(frame.rotation / 90) % 4


def _upright_size(frame: VideoFrame) -> tuple[int, int]:
    return (frame.height, frame.width) if _turns(frame) % 2 else (frame.width, frame.height)


def _is_full(frame: VideoFrame) -> bool:
    """Whether luma has the full range: what FFmpeg assumes of gray, RGB and yuvj, and what is said of others."""
    name = frame.format.name
    if frame.format.is_rgb or name.startswith(("yuvj", "pal", "mono")):
        return True
    if name.startswith(("gray", "ya")):
        return frame.color_range != LIMITED_RANGE
    return frame.color_range == FULL_RANGE


def _luma_of(frame: VideoFrame, info: VideoInfo) -> np.ndarray:
    """(H, W) code values: the video's own, or Rec.601 luma of RGB."""
    name, bits = frame.format.name, info.bits
    if PLANAR.fullmatch(name):
        return _first_plane(frame, bits)
    if frame.format.is_rgb or name.startswith(("pal", "mono")):
        return color.luma(_rgb_of(frame, info))
    # semi-planar and packed: the same luma, repacked
    depth = next(each for each in (8, 10, 12, 14, 16) if bits <= each)
    return _first_plane(frame.reformat(format="yuv444p" if depth == 8 else f"yuv444p{depth}le"), bits)


def _first_plane(frame: VideoFrame, bits: int) -> np.ndarray:
    plane = frame.planes[0]
    kind = np.dtype(np.uint8 if bits == 8 else np.uint16)
    rows = np.frombuffer(memoryview(plane), kind).reshape(plane.height, plane.line_size // kind.itemsize)
    return rows[:, : plane.width].copy()  # FFmpeg uses the memory again


def _rgb_of(frame: VideoFrame, info: VideoInfo) -> np.ndarray:
    """(H, W, 3) full range: uint8 0..255, or uint16 0..65535 where there are more than 8 bits."""
    return frame.to_ndarray(format="rgb24" if info.bits == 8 else "rgb48le")


def _upright(picture: np.ndarray, turns: int) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


class FrameFolder:
    """A folder of numbered frames, as scanners and editors exchange it; see `Video`.

    Frames keep the time of their numbers, however they count (1, 2 … or 10, 20 …): where some are missing, the one
    before is shown longer.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        """List the frames, and read the first.

        Raises:
            VideoError: there are none, or two have one number.
        """
        self.paths = _numbered(path)
        self.rate = rate
        self._ticks, self.warnings = _times_of_numbers(list(self.paths), printable(str(path)))
        first = self._photo(next(iter(self.paths.values())))
        self.info = VideoInfo(
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

    def index_of(self, number: int) -> int | None:
        return next((index for index, each in enumerate(self.paths) if each == number), None)

    def read(self, *, colors: bool = False) -> Iterator[Frame]:
        """Yield all frames by their numbers.

        Raises:
            VideoError: one cannot be read, or has another size or depth than the first.
        """
        info = self.info
        for ticks, (number, path) in zip(self._ticks, self.paths.items(), strict=True):
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


def _times_of_numbers(numbers: Sequence[int], name: str) -> tuple[list[int], tuple[str, ...]]:
    """Return when frames with growing numbers are shown, in frames, and lines on those that are missing."""
    steps = np.diff(numbers)
    usual = int(np.gcd.reduce(steps)) if len(steps) else 1
    lengths = steps // usual
    gaps = [(number, int(length)) for number, length in zip(numbers, lengths, strict=False) if length > 1]
    kept = np.where(lengths > LONGEST_GAP_FRAMES, 1, lengths)
    ticks = [0, *np.cumsum(kept).tolist()]
    if not gaps:
        return ticks, ()
    missing = sum(length - 1 for _, length in gaps)
    line = f"{name}: {count_of(missing, 'number is', 'numbers are')} missing, the first after {gaps[0][0]}"
    if max(lengths) > LONGEST_GAP_FRAMES:
        return ticks, (f"{line}; gaps of more than {LONGEST_GAP_FRAMES} frames are closed",)
    return ticks, (f"{line}; the frame before is shown in their time",)


def _numbered(folder: Path) -> dict[int, Path]:
    """The frames in a folder by number, in the order of their numbers."""
    name = printable(str(folder))
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise VideoError(f"{name}: cannot be read ({error.strerror}); check the path") from None
    found = by_number([path for path in files if path.suffix.lower() in IMAGE_SUFFIXES], name, VideoError)
    scans = [path for path in files if path.suffix.lower() in SCAN_SUFFIXES]
    if not found and scans:
        kind = scans[0].suffix[1:].upper()
        raise VideoError(
            f"{name}: {count_of(len(scans), f'{kind} frame')}, which are not read, as no program but yours knows their "
            "transfer curve; convert them to PNG of 16 bits first, such as with oiiotool or ffmpeg -pix_fmt rgb48be"
        )
    if not found:
        raise VideoError(f"{name}: no numbered picture in it; give frames such as 000001.png, or a video")
    return dict(sorted(found.items()))


def by_number(paths: Iterable[Path], folder: str, error: type[ChromaTuneError]) -> dict[int, Path]:
    """Return files by the number in their names, without those that have none.

    Of several numbers in a name, it is the last one by which all names differ: 7 in "a0007_1080p.png".

    Args:
        paths: of the files.
        folder: what messages call the folder that they are in.
        error: what is raised where two have one number.
    """
    numbered = [(path, [int(digits) for digits in NUMBER.findall(path.stem)]) for path in paths]
    numbered = [(path, numbers) for path, numbers in numbered if numbers]
    places = range(1, 1 + min((len(numbers) for _, numbers in numbered), default=0))  # counted from the end
    place = next((each for each in places if len({numbers[-each] for _, numbers in numbered}) == len(numbered)), 1)
    found: dict[int, Path] = {}
    for path, numbers in numbered:
        if (number := numbers[-place]) in found:
            raise error(f"{folder}: {found[number].name} and {path.name} have one number; keep one of them")
        found[number] = path
    return found
