"""All that comes along with a video's frames: sound, subtitles, covers, attachments, timecode, chapters and tags.

Packets are copied where the new file can hold them, which FFmpeg is asked by writing the first ones into memory. Other
sound is converted to FLAC, ALAC or AAC, other text to subtitles that fit; what is left is named before any work.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

from chromatune.errors import PhotoError, printable
from chromatune.images import read_photo
from chromatune.video.opening import errors_as_lines, film_stream, is_known, open_container, packets_in_time

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.subtitles.stream import SubtitleStream
    from av.video.stream import VideoStream

SAMPLE_RATES = (8000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000)  # of AAC, to the next of which sound is converted
LEAST_RATE, MAX_RATE, MAX_CHANNELS = 1000, 768_000, 8  # of sound that is converted
DEEP_FORMATS = {"flac": "s32", "alac": "s32p"}  # of samples, in FFmpeg's words
AAC_BITS_A_CHANNEL = 96_000  # a second
USUAL_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
LOSSY_ENCODER = "aac"  # for sound: each container holds it, and each player plays it
LOSSLESS_ENCODERS = {"matroska": "flac", "mov": "alac"}
TEXT_ENCODERS = ("subrip", "mov_text")
QUICKTIME_LANGUAGES = {  # of ISO 639-2's two codes the one that MOV's list has
    "cze": "ces", "deu": "ger", "ell": "gre", "fre": "fra", "isl": "ice", "nld": "dut", "rum": "ron", "slo": "slk",
    "sqi": "alb", "zho": "chi",
}  # fmt: skip
MAX_TRIED_BYTES = 16 << 20  # at a file's start, from which the packets are taken that a container is tried with
KIND_NAMES = {"audio": "sound", "video": "picture", "subtitle": "subtitles", "data": "data", "attachment": "attachment"}
MATROSKA, MATROSKA_SUFFIX = "matroska", ".mkv"
# Tags that say how a file is made, or what its packets take, and not what it shows
TECHNICAL_TAGS = (
    "encoder major_brand minor_version compatible_brands duration handler_name vendor_id stereo_mode rotate filename "
    "mimetype bps number_of_frames number_of_bytes"
).split()
TECHNICAL_PREFIXES = ("bps-", "number_of_", "duration-", "_statistics_")


@dataclass(frozen=True, eq=False)
class Track:
    """A stream that comes along.

    Attributes:
        stream: of the source.
        encoder: FFmpeg's name of what it is converted with; None where its packets are copied.
        first: its first packet, or none.
    """

    stream: Stream
    encoder: str | None = None
    first: tuple[Packet, ...] = ()

    @property
    def is_cover(self) -> bool:
        """Whether it is a picture of the whole, and no film."""
        from av.stream import Disposition

        return self.stream.type == "video" and bool(self.stream.disposition & Disposition.attached_pic)


@dataclass(eq=False)
class TrackPlan:
    """What comes along, and what is said of the rest.

    Attributes:
        tracks: the streams, in order.
        converted: names of those that are converted, each with what it becomes.
        lost: names of what is left out.
    """

    tracks: list[Track] = field(default_factory=list)
    converted: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def warnings(self, source: Path, suffix: str) -> tuple[str, ...]:
        """Return what is converted and left out, a line each."""
        name, lines = printable(str(source)), []
        if self.converted:
            lines.append(f"{name}: converted, as {suffix} does not hold it: {', '.join(self.converted)}")
        if self.lost:
            other = "" if suffix == MATROSKA_SUFFIX else f", though {MATROSKA_SUFFIX} may"
            lines.append(f"{name}: left out, as {suffix} does not hold it{other}: {', '.join(self.lost)}")
        return tuple(lines)


class TrackReader:
    """The streams of a video's file besides the film, and their packets in the file's order."""

    def __init__(self, path: Path) -> None:
        """Open the file; `close` closes it.

        Raises:
            VideoError: it cannot be opened.
        """
        self.path = path
        with errors_as_lines(path):
            self.container: InputContainer = open_container(path, None)
            self.film = film_stream(self.container)
            self.streams = [stream for stream in self.container.streams if stream is not self.film]

    def packets(self, streams: list[Stream]) -> Iterator[Packet]:
        """Yield packets of streams, each with a time, which grows in each stream."""
        import av

        read: dict[int, int] = {}  # time of each stream's last packet
        yielded: dict[int, int] = {}
        with suppress(av.error.FFmpegError):  # the warnings of its frames say that the file is cut short
            for packet in packets_in_time(self.container, streams) if streams else ():
                index = packet.stream.index
                if packet.dts is None or packet.dts < read.get(index, packet.dts):
                    continue  # an empty one stands at the end; times that run back fit into no file
                read[index] = packet.dts
                packet.dts = max(packet.dts, yielded.get(index, packet.dts - 1) + 1)  # several may have one time
                packet.pts = packet.dts if packet.pts is None else max(packet.pts, packet.dts)
                yielded[index] = packet.dts
                yield packet

    def close(self) -> None:
        """Close the file."""
        self.container.close()


def plan_tracks(reader: TrackReader, form: str) -> TrackPlan:
    """Return how the streams of a file go into a container, which is tried with the first packets of each.

    Args:
        reader: of the file.
        form: FFmpeg's name of the container.
    """
    plan, first = TrackPlan(), _first_packets(reader.path)
    numbers = Counter[str]()
    for stream in reader.streams:
        numbers[stream.type] += 1
        name = _name(stream, numbers[stream.type])
        if _is_told_otherwise(stream, reader.container):
            continue
        track, encoder = Track(stream, None, tuple(first[stream.index])), None
        if stream.type == "attachment" or track.is_cover:
            held = form == MATROSKA or (track.is_cover and bool(track.first) and _is_held(form, track))
        elif stream.type == "video":
            plan.lost.append(name)  # another film: it would stay gray
            continue
        else:
            held, encoder = _way(form, track)
        if not held:
            plan.lost.append(name)
            continue
        plan.tracks.append(replace(track, encoder=encoder))
        if stream.type != "attachment" and not track.is_cover:
            lost = lost_tags(form, track_tags(stream.metadata, form), of_track=True)
            plan.lost += [f"the {printable(key.lower())} of {name}" for key in lost]
        if encoder is not None:
            plan.converted.append(f"{name} to {encoder}")
    return plan


def _way(form: str, track: Track) -> tuple[bool, str | None]:
    """Whether a container holds a stream, and the encoder by which it does; None where packets are copied."""
    stream = track.stream
    if _is_held(form, track):
        return True, None
    if not is_known(stream) or stream.type not in ("audio", "subtitle"):
        return False, None
    if stream.type == "subtitle":
        encoders = list(TEXT_ENCODERS) if stream.codec_context.codec.text_sub else []
    else:
        context = cast("AudioStream", stream).codec_context
        rate, channels = context.sample_rate, context.layout.nb_channels
        if not (0 < channels <= MAX_CHANNELS and LEAST_RATE <= rate <= MAX_RATE):
            return False, None
        context.open(strict=False)  # only then is it known how many bits its samples have
        is_lossless = context.codec.lossless or context.name.startswith("pcm_")
        # Matroska gets what is lossless in any case: nothing is lost twice, and its AAC would begin before its picture
        encoders = [LOSSLESS_ENCODERS[form]] if form == MATROSKA or (is_lossless and form in LOSSLESS_ENCODERS) else []
        encoders.append(LOSSY_ENCODER)
    encoder = next((each for each in encoders if _is_held(form, Track(stream, each))), None)
    return encoder is not None, encoder


def _is_held(form: str, track: Track) -> bool:
    """Whether a container holds a stream: whether FFmpeg writes its head, and its first packet where it is copied."""
    import av

    file = io.BytesIO()
    try:
        with av.open(file, "w", format=form) as trial:
            stream = add_to(trial, track)
            trial.start_encoding()
            for packet in track.first if track.encoder is None else ():
                trial.mux(copy_of(packet, stream))
        if track.is_cover:  # which some containers leave out without a word
            with av.open(io.BytesIO(file.getvalue())) as read:
                return bool(read.streams.video)
    except (
        PhotoError, av.error.FFmpegError, OSError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError
    ):  # fmt: skip
        return False
    return True


def copy_of(packet: Packet, stream: Stream) -> Packet:
    """A packet once more, for another stream; one without a time comes at the start."""
    import av

    copy = av.Packet(bytes(packet))
    copy.pts, copy.dts = packet.pts or 0, packet.dts or 0
    copy.duration, copy.time_base, copy.is_keyframe = packet.duration, packet.time_base, packet.is_keyframe
    copy.stream = stream
    return copy


def _first_packets(path: Path) -> dict[int, list[Packet]]:
    """A packet or none of each stream, from the file's start."""
    import av

    with errors_as_lines(path), open_container(path, None) as container:
        streams = [each for each in container.streams if is_known(each) or each.type == "data"]
        found: dict[int, list[Packet]] = {each.index: [] for each in container.streams}
        read_bytes = 0
        with suppress(av.error.FFmpegError):
            for packet in container.demux(streams):
                packets = found[packet.stream.index]
                if not packets and packet.size:
                    packets.append(packet)
                read_bytes += packet.size
                if read_bytes > MAX_TRIED_BYTES or all(found[each.index] for each in streams):
                    break
        return found


def _name(stream: Stream, number: int) -> str:
    """What a user calls a stream."""
    facts = dict.fromkeys((stream.metadata.get("filename"), getattr(stream, "name", None), stream.language))
    known = ", ".join(printable(fact) for fact in facts if fact) or "unknown"
    return f"{KIND_NAMES.get(stream.type, 'data')} {number} ({known})"


def _is_told_otherwise(stream: Stream, container: InputContainer) -> bool:
    """Whether a stream of data is that of the timecode or of the names of chapters, which FFmpeg writes anew."""
    if stream.type != "data":
        return False
    return "timecode" in {key.lower() for key in stream.metadata} or (
        bool(container.chapters()) and stream.name == "bin_data"
    )


def file_tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """Tags that say what is shown."""
    return {
        key: value
        for key, value in metadata.items()
        if value and key.lower() not in TECHNICAL_TAGS and not key.lower().startswith(TECHNICAL_PREFIXES)
    }


def track_tags(metadata: Mapping[str, str], form: str) -> dict[str, str]:
    """Tags of a track as a container calls them: its title is the handler's name in those of boxes."""
    tags = file_tags(metadata)
    title = tags.pop("title", metadata.get("handler_name", ""))
    if title and "handler" not in title.lower():  # FFmpeg's own names of tracks
        tags["title" if form == MATROSKA else "handler_name"] = title
    if form == "mov" and (language := metadata.get("language")):
        tags["language"] = QUICKTIME_LANGUAGES.get(language, language)
    return tags


def lost_tags(form: str, tags: Mapping[str, str], *, of_track: bool = False) -> list[str]:
    """Names of tags that a container does not hold, of a track or the file: FFmpeg writes and reads them."""
    import av

    if not tags:
        return []
    file = io.BytesIO()
    with av.open(file, "w", format=form) as trial:
        stream = trial.add_stream("mpeg4", rate=25, width=16, height=16)
        (stream if of_track else trial).metadata.update(tags)
        trial.mux([*stream.encode(av.VideoFrame(16, 16, "yuv420p")), *stream.encode(None)])
    with av.open(io.BytesIO(file.getvalue()), metadata_errors="replace") as read:
        kept = {key.lower() for key in (read.streams[0] if of_track else read).metadata}
    return [key for key in tags if key.lower() not in kept]


def add_to(container: OutputContainer, track: Track) -> Stream:
    """Add a stream to a container, with its tags."""
    if track.encoder is None:
        added = _add_copy(container, track)
    else:
        added = _add_encoder(container, track.stream, track.encoder)
    added.metadata.update(track_tags(track.stream.metadata, container.format.name))
    added.disposition = track.stream.disposition
    return added


def _add_copy(container: OutputContainer, track: Track) -> Stream:
    """Add a stream whose packets are copied."""
    stream = track.stream
    if stream.type in ("audio", "video", "subtitle") and not is_known(stream):
        raise ValueError("of an unknown kind")
    copy = container.add_stream_from_template(stream, opaque=True)
    if track.is_cover:
        photo = read_photo(bytes(track.first[0]))
        video = cast("VideoStream", copy)
        video.width, video.height = photo.width_px, photo.height_px
    if stream.type == "audio" and container.format.name == "mp4":
        layout = cast("AudioStream", stream).codec_context.layout
        if layout.name.endswith(" channels"):
            # Old containers say how many channels there are, and not which: MP4 needs that
            cast("AudioStream", copy).codec_context.layout = USUAL_LAYOUTS.get(layout.nb_channels, layout.name)
    return copy


def _add_encoder(container: OutputContainer, source: Stream, encoder: str) -> Stream:
    """Add a stream that is converted."""
    source.codec_context.open(strict=False)
    if source.type == "subtitle":
        stream = container.add_stream(encoder)
        stream.time_base = stream.codec_context.time_base = source.time_base or Fraction(1, 1000)
        header = cast("SubtitleStream", source).codec_context.subtitle_header
        cast("SubtitleStream", stream).codec_context.subtitle_header = header
        return stream
    context = cast("AudioStream", source).codec_context
    rate, channels = context.sample_rate, context.layout.nb_channels
    if encoder == LOSSY_ENCODER:
        rate = min(SAMPLE_RATES, key=lambda usual: (usual < rate, abs(usual - rate)))
    sound = cast("AudioStream", container.add_stream(encoder, rate=rate))
    sound.codec_context.layout = USUAL_LAYOUTS[channels]
    if encoder == LOSSY_ENCODER:
        sound.codec_context.bit_rate = AAC_BITS_A_CHANNEL * channels
    elif getattr(context.format, "bytes", 0) > 2:
        sound.codec_context.format = DEEP_FORMATS[encoder]  # of which both keep 24 bits
    return sound
