"""What comes along with a video's frames ⇒ the new file, in time with its frames."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, cast

from chromatune.errors import VideoError, first_line, printable
from chromatune.video.tracks import (
    MATROSKA,
    MATROSKA_SUFFIX,
    Track,
    TrackPlan,
    TrackReader,
    add_to,
    copy_of,
    file_tags,
    lost_tags,
    plan_tracks,
    track_tags,
)

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.container.core import Chapter
    from av.packet import Packet
    from av.stream import AttachmentStream, Stream
    from av.subtitles.stream import SubtitleStream
    from av.video.stream import VideoStream

MAX_SOUND_AFTER_SECONDS = 60  # the last frame, where it is converted
MAX_JITTER_SECONDS = Fraction(1, 10)  # of the times of decoded sound, which is not heard
MAX_SILENCE_SECONDS = 1  # before converted sound, in the place of what its decoder swallows
COVER_SUFFIXES = {"mjpeg": "jpg", "png": "png"}


class TrackWriter:
    """What goes into a video's file beside its frames.

    Attributes:
        tags: of the new file; more may be added until its streams are.
        warnings: what is converted or left out, a line each.
    """

    def __init__(
        self,
        container: OutputContainer,
        reader: TrackReader | None,
        name: str,
        suffix: str,
        seconds: float | None = None,
    ) -> None:
        """Find out what can be copied and converted, and say the rest in `warnings`.

        Args:
            container: of the new file.
            reader: of the source, if it is a file.
            name: of the new file, for messages.
            suffix: of the same.
            seconds: length from the first frame on; None for all.
        """
        self._container, self._reader, self._name, self._suffix = container, reader, name, suffix
        self._seconds, self._end_seconds, self._last_seconds = seconds, math.inf, 0.0
        plan = plan_tracks(reader, container.format.name) if reader else TrackPlan()
        self.tags = file_tags(reader.container.metadata) if reader else {}
        if self.tags:
            plan.lost += [f"the tag {printable(key)}" for key in lost_tags(container.format.name, self.tags)]
        self.warnings = plan.warnings(reader.path, suffix) if reader else ()
        attached = [each for each in plan.tracks if each.stream.type == "attachment" or each.is_cover]
        self._attached = attached
        self._played = {each.stream.index: each for each in plan.tracks if each not in attached}
        self._streams: dict[int, Stream] = {}
        self._latest: dict[int, int] = {}  # times of the last packets that were copied, in ticks of the new file
        self._covers: list[Packet] = []
        self._packets = reader.packets([each.stream for each in self._played.values()]) if reader else iter(())
        self._converters: dict[int, SoundConverter] = {}
        self._next_packet: Packet | None = None

    def add_streams(self, film: VideoStream) -> None:
        """Add the streams, chapters and tags to the new file, and the film's own tags to its stream."""
        self._container.metadata.update(self.tags)
        if self._reader is None:
            return
        source = self._reader.film
        if source is not None:
            film.metadata.update(track_tags(source.metadata, self._container.format.name))
            film.disposition = source.disposition
        timecodes = [each.metadata.get("timecode") for each in self._reader.container.streams.data]
        if timecode := next((each for each in timecodes if each), None):
            film.metadata.setdefault("timecode", timecode)
        for index, track in self._played.items():
            stream = self._streams[index] = add_to(self._container, track)
            if track.encoder is not None and stream.type == "audio":
                self._converters[index] = SoundConverter(cast("AudioStream", track.stream), cast("AudioStream", stream))
        for track in self._attached:
            self._attach(track)
        self._container.set_chapters(self._chapters(source))
        self._next_packet = next(self._packets, None)

    def _attach(self, track: Track) -> None:
        """Add a file that is attached, or a cover."""
        stream, tags = track.stream, track.stream.metadata
        if stream.type == "attachment":
            attached = cast("AttachmentStream", stream)
            data, name, kind = attached.data, attached.name or "attachment", attached.mimetype
            self._container.add_attachment(name, kind or "application/octet-stream", data)
        elif self._container.format.name == MATROSKA:
            suffix = COVER_SUFFIXES.get(stream.name or "", "img")
            kind = tags.get("mimetype") or f"image/{suffix.replace('jpg', 'jpeg')}"
            for packet in track.first:
                self._container.add_attachment(tags.get("filename") or f"cover.{suffix}", kind, bytes(packet))
        else:
            copy = add_to(self._container, track)
            self._covers += [copy_of(packet, copy) for packet in track.first]

    def _chapters(self, film: VideoStream | None) -> list[Chapter]:
        """Chapters of the source, as far as the result goes."""
        chapters = cast("TrackReader", self._reader).container.chapters()
        if self._seconds is None:
            return chapters
        start = film.start_time * film.time_base if film is not None and film.start_time and film.time_base else 0
        found = []
        for chapter in chapters:
            end = int((self._seconds + float(start)) / (chapter["time_base"] or 1))
            if chapter["start"] < end:
                clipped = chapter.copy()
                clipped["end"] = min(chapter["end"], end)
                found.append(clipped)
        return found

    def write(self, seconds: float) -> None:
        """Write the packets up to the time of a frame.

        Raises:
            VideoError: the new file cannot hold them.
            OSError: it cannot be written.
        """
        if self._seconds is not None and self._end_seconds == math.inf:
            self._end_seconds = seconds + self._seconds
        for packet in self._covers:
            self._container.mux(packet)
        self._covers.clear()
        self._last_seconds = seconds
        self._write_until(min(seconds, self._end_seconds))

    def finish(self) -> None:
        """Write what is left.

        Raises:
            VideoError: the new file cannot hold it.
            OSError: it cannot be written.
        """
        self._write_until(self._end_seconds, is_end=True)
        for converter in self._converters.values():
            self._container.mux(converter.finish())

    def _write_until(self, seconds: float, *, is_end: bool = False) -> None:
        import av

        try:
            while (packet := self._next_packet) is not None:
                at_seconds = float((packet.dts or 0) * packet.time_base)
                if at_seconds > seconds:
                    break
                track = self._played[packet.stream.index]
                if is_end and track.encoder is not None and at_seconds > self._last_seconds + MAX_SOUND_AFTER_SECONDS:
                    break  # silence of days may be a few bytes
                self._write_packet(packet, track)
                self._next_packet = next(self._packets, None)
        except (av.error.ArgumentError, av.error.InvalidDataError) as error:
            reason = printable(error.strerror or first_line(error))
            way = "" if self._suffix == MATROSKA_SUFFIX else f"give a name ending in {MATROSKA_SUFFIX}, or "
            raise VideoError(
                f"{self._name}: its sound does not fit into it ({reason}); {way}convert the sound first"
            ) from error

    def _write_packet(self, packet: Packet, track: Track) -> None:
        import av

        stream = self._streams[packet.stream.index]
        if track.encoder is None:
            if stream.type == "audio":
                self._let_time_grow(packet, stream)
            packet.stream = stream
            self._container.mux(packet)
            return
        try:
            if stream.type == "subtitle":
                made = _text_of(packet, cast("SubtitleStream", track.stream), cast("SubtitleStream", stream))
            else:
                made = self._converters[packet.stream.index].packets_of(packet)
        except (av.error.FFmpegError, ValueError):
            return  # a damaged one
        self._container.mux(made)

    def _let_time_grow(self, packet: Packet, stream: Stream) -> None:
        """Move a packet of sound that begins no later than the one before, as in damaged recordings, just behind it."""
        if packet.dts is None or not stream.time_base:
            return
        index, ticks = packet.stream.index, round(packet.dts * packet.time_base / stream.time_base)
        latest = self._latest.get(index)
        if latest is not None and ticks <= latest:
            duration = round((packet.duration or 0) * packet.time_base / stream.time_base)
            ticks = latest + 1
            packet.pts = packet.dts = ticks
            packet.duration, packet.time_base = duration, stream.time_base
        self._latest[index] = ticks


class SoundConverter:
    """Sound that is decoded and encoded; its rate and channels may change on the way."""

    def __init__(self, source: AudioStream, stream: AudioStream) -> None:
        """Convert nothing yet; both streams are open.

        Args:
            source: of the packets.
            stream: of the new file.
        """
        self._source, self._stream = source, stream
        self._kind: tuple[str, str, int] | None = None  # of the frames decoded last
        self._resampler: AudioResampler | None = None
        self._start: Fraction | None = None  # seconds, of the first packet
        self._next_seconds: Fraction | None = None

    def packets_of(self, packet: Packet) -> list[Packet]:
        """Return the packets of the new file that a packet gives.

        Raises:
            av.error.FFmpegError, ValueError: it is damaged.
        """
        if self._start is None and packet.pts is not None:
            self._start = packet.pts * packet.time_base
        found: list[Packet] = []
        for frame in self._source.decode(packet):
            for each in self._in_time(frame):
                found += [made for sound in self._resampled(each) for made in self._stream.encode(sound)]
        return found

    def _in_time(self, frame: AudioFrame) -> list[AudioFrame]:
        """The frame at a time that follows the last one's, after silence where the first packets gave nothing.

        Times of a container's own clock are not exact; encoders want them to be.
        """
        start, frames = self._start or Fraction(), [frame]
        seconds = start if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base
        if self._next_seconds is None and 0 < seconds - start <= MAX_SILENCE_SECONDS:
            frames.insert(0, _silence_like(frame, round((seconds - start) * frame.sample_rate)))
            seconds = start
        if self._next_seconds is not None:
            if seconds < self._next_seconds - MAX_JITTER_SECONDS:
                return []
            if seconds < self._next_seconds + MAX_JITTER_SECONDS:
                seconds = self._next_seconds
        for each in frames:
            each.pts, each.time_base = round(seconds * each.sample_rate), Fraction(1, each.sample_rate)
            seconds += Fraction(each.samples, each.sample_rate)
        self._next_seconds = seconds
        return frames

    def finish(self) -> list[Packet]:
        """Return the last packets."""
        left = self._resampler.resample(None) if self._resampler is not None else []
        return [made for frame in (*left, None) for made in self._stream.encode(frame)]

    def _resampled(self, frame: AudioFrame) -> list[AudioFrame]:
        from av import AudioResampler

        kind = frame.format.name, frame.layout.name, frame.sample_rate
        found: list[AudioFrame] = []
        if kind != self._kind:
            found += self._resampler.resample(None) if self._resampler is not None else []
            context, self._kind = self._stream.codec_context, kind
            self._resampler = AudioResampler(context.format, context.layout, context.sample_rate)
        return found + cast("AudioResampler", self._resampler).resample(frame)


def _silence_like(frame: AudioFrame, samples: int) -> AudioFrame:
    """As many silent samples, of the frame's kind."""
    from av import AudioFrame

    silence = AudioFrame(frame.format, frame.layout, max(1, samples))
    silence.sample_rate = frame.sample_rate
    for plane in silence.planes:
        plane.update(bytes([128 if frame.format.name.startswith("u8") else 0]) * plane.buffer_size)
    return silence


def _text_of(packet: Packet, source: SubtitleStream, stream: SubtitleStream) -> list[Packet]:
    """A packet of text, converted; none of an empty one."""
    subtitle = source.codec_context.decode2(packet)
    if subtitle is None:
        return []
    converted = stream.codec_context.encode_subtitle(subtitle)
    converted.pts, converted.dts, converted.duration = packet.pts, packet.dts, packet.duration
    converted.time_base, converted.stream = packet.time_base, stream
    return [converted]
