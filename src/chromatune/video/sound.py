"""The sound of a video's file: packets as they are, or converted where the new file cannot hold them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from chromatune.errors import VideoError, first_line, printable
from chromatune.video.opening import errors_as_lines, open_container

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet

SAMPLE_RATES = (8000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000)  # of AAC, to the next of which sound is converted
LEAST_RATE, MAX_RATE, MAX_CHANNELS = 1000, 768_000, 8  # of sound that is converted
MAX_SOUND_AFTER_SECONDS = 60  # the last frame, where it is converted
USUAL_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


class Sound:
    """The sound of a video's file: streams as templates, and packets as they are, in the file's order."""

    def __init__(self, path: Path) -> None:
        """Open the file; `close` closes it.

        Raises:
            VideoError: it cannot be opened, or its sound is of an unknown kind.
        """
        with errors_as_lines(path):
            self._container = open_container(path, None)
            self.streams: list[AudioStream] = list(self._container.streams.audio)
        if any(each.codec_context is None for each in self.streams):
            self.close()
            raise VideoError(f"{printable(str(path))}: its sound is of an unknown kind; convert it, or leave it out")

    def packets(self) -> Iterator[Packet]:
        """Yield packets of all streams, each with a time, which grows in each stream."""
        import av

        latest: dict[int, int] = {}
        with suppress(av.error.FFmpegError):  # the warnings of its frames say that the file is cut short
            for packet in self._container.demux(self.streams) if self.streams else ():
                index = packet.stream.index
                if packet.dts is None or packet.dts < latest.get(index, packet.dts):
                    continue  # an empty one stands at the end; times that run back fit into no file
                latest[index] = packet.dts
                yield packet

    def close(self) -> None:
        """Close the file."""
        self._container.close()


class SoundWriter:
    """The sound of a video's file: packets are copied where the new file can hold them, else converted to AAC."""

    def __init__(self, container: OutputContainer, sound: Sound | None, name: str, convert: bool) -> None:
        """Check what can be copied.

        Args:
            container: of the new file.
            sound: of the source, if it is a file.
            name: of the new file, for messages.
            convert: convert what cannot be copied.

        Raises:
            VideoError: it cannot be copied, and not be converted.
        """
        self._container, self._sound, self._name = container, sound, name
        self._is_copied: dict[int, bool] = {}
        for each in sound.streams if sound else ():
            kind = each.codec_context.codec.canonical_name
            self._is_copied[each.index] = kind in container.supported_codecs
            if self._is_copied[each.index]:
                continue
            if not convert:
                raise VideoError(
                    f"{name}: sound of the kind {kind} cannot be copied into it; give a name ending in .mkv"
                )
            rate, channels = each.codec_context.sample_rate, each.codec_context.layout.nb_channels
            if not (0 < channels <= MAX_CHANNELS and LEAST_RATE <= rate <= MAX_RATE):
                raise VideoError(
                    f"{name}: its sound has {rate} samples a second in {channels} channels; convert it to AAC first"
                )
        self._streams: dict[int, AudioStream] = {}
        self._packets = sound.packets() if sound else iter(())
        self._next_packet = next(self._packets, None)

    def add_streams(self) -> None:
        """Add the streams to the new file."""
        for each in self._sound.streams if self._sound else ():
            rate, channels = each.codec_context.sample_rate, each.codec_context.layout.nb_channels
            if not self._is_copied[each.index]:
                nearest = min(SAMPLE_RATES, key=lambda usual: (usual < rate, abs(usual - rate)))
                stream = self._container.add_stream("aac", rate=nearest)
                stream.codec_context.layout = "mono" if channels == 1 else "stereo"
            else:
                stream = self._container.add_stream_from_template(each)
                if self._container.format.name == "mp4" and each.codec_context.layout.name.endswith(" channels"):
                    # Old containers say how many channels there are, and not which: MP4 needs that
                    stream.codec_context.layout = USUAL_LAYOUTS.get(channels, each.codec_context.layout.name)
            self._streams[each.index] = stream

    def write(self, seconds: float | None, end_seconds: float | None = None) -> None:
        """Write the packets up to a time, and at the end, what is held back.

        Args:
            seconds: the time; None for all of them.
            end_seconds: time of the last frame, at the end.

        Raises:
            VideoError: the new file cannot hold them.
            OSError: it cannot be written.
        """
        import av

        try:
            while self._next_packet is not None:
                packet = self._next_packet
                at_seconds = float((packet.dts or 0) * packet.time_base)
                if seconds is not None and at_seconds > seconds:
                    break
                is_copied = self._is_copied[packet.stream.index]
                if end_seconds is not None and not is_copied and at_seconds > end_seconds + MAX_SOUND_AFTER_SECONDS:
                    break  # silence of days may be a few bytes
                self._write_packet(packet, is_copied)
                self._next_packet = next(self._packets, None)
            if end_seconds is not None:
                for index, stream in self._streams.items():
                    if not self._is_copied[index]:
                        self._container.mux(stream.encode(None))
        except (av.error.ArgumentError, av.error.InvalidDataError) as error:
            reason = printable(error.strerror or first_line(error))
            raise VideoError(
                f"{self._name}: its sound does not fit into it ({reason}); give a name ending in .mkv, or convert the "
                "sound first"
            ) from error

    def _write_packet(self, packet: Packet, is_copied: bool) -> None:
        import av

        stream = self._streams[packet.stream.index]
        if is_copied:
            packet.stream = stream
            self._container.mux(packet)
            return
        try:
            frames = list(cast("AudioStream", packet.stream).decode(packet))
        except av.error.FFmpegError:
            return  # a damaged one
        for frame in frames:
            self._container.mux(stream.encode(frame))
