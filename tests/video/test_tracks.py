"""What comes along with a video's frames: sound, subtitles, chapters, tags, timecode, the shape of pixels, fields."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition

from chromatune.video import open_video, tracks
from chromatune.video.writing import CODECS, open_writer

GREEN = np.full((6, 8, 2), -0.08, np.float32)
COUNT, RATE = 25, 25
PAIRS = [(codec, suffix) for codec, each in CODECS.items() for suffix in each.containers]
FIELD_ORDERS = {"tff": 2, "bff": 3}
TAGS = {"title": "Harbour 1931", "artist": "A. Person", "comment": "reel 2"}
CHAPTERS = [("Ships", 0, 400), ("Market", 400, 1000)]


def rewritten(video: Path, out: Path, codec: str | None = None, seconds: float | None = None) -> tuple[str, ...]:
    """What is warned of, before any frame is read."""
    opened = open_video(video)
    with open_writer(out, opened.info, codec=codec, preview_seconds=seconds) as writer:
        warnings = writer.warnings
        for frame in opened.read():
            if seconds is None or frame.seconds < seconds:
                writer.write(frame, "", writer.make(frame, GREEN))
        writer.finish()
    return warnings


def tone(index: int, rate: int) -> av.AudioFrame:
    """A frame's length of a tone."""
    count = rate // RATE
    wave = 0.3 * np.sin(np.arange(index * count, (index + 1) * count) / 20)
    found = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], format="fltp", layout="mono")
    found.sample_rate, found.pts, found.time_base = rate, index * count, Fraction(1, rate)
    return found


def pictures(count: int = COUNT, size: tuple[int, int] = (64, 96), seed: int = 0) -> Iterator[av.VideoFrame]:
    noise = np.random.default_rng(seed).integers(30, 220, (size[0] // 8, size[1] // 8 + count), np.uint8)
    for index in range(count):
        view = np.kron(noise[:, index : index + size[1] // 8], np.ones((8, 8), np.uint8))
        frame = av.VideoFrame.from_ndarray(view, format="gray").reformat(format="yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, RATE)
        yield frame


def film_with_all(path: Path, sounds: Sequence[str] = ("flac", "aac"), rate: int = 48_000) -> Path:
    """A second of film with sounds, subtitles, chapters and tags, and in Matroska an attachment and a cover."""
    is_matroska = path.suffix == ".mkv"
    with av.open(str(path), "w") as out:
        out.metadata.update(TAGS)
        out.set_chapters(
            [
                {"id": number, "start": start, "end": end, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
                for number, (title, start, end) in enumerate(CHAPTERS)
            ]
        )
        film = out.add_stream("mpeg4", rate=RATE, width=96, height=64)
        if path.suffix == ".mov":
            film.metadata["timecode"] = "10:00:00:05"
        tracks = [cast("av.AudioStream", out.add_stream(sound, rate=rate)) for sound in sounds]
        for track, language in zip(tracks, ("fra", "eng"), strict=False):
            track.codec_context.layout = "mono"
            track.metadata["language"] = language
            track.disposition = Disposition.default if language == "eng" else Disposition(0)
        text = out.add_mux_stream("subrip" if is_matroska else "mov_text")
        text.metadata["language"] = "ita"
        text.time_base = Fraction(1, 1000)
        if is_matroska:
            out.add_attachment("font.ttf", "application/x-truetype-font", b"a font" * 50)
            out.add_attachment(
                "cover.png", "image/png", cv2.imencode(".png", np.zeros((300, 400), np.uint8))[1].tobytes()
            )
        for index, frame in enumerate(pictures()):
            out.mux(film.encode(frame))
            for track in tracks:
                out.mux(track.encode(tone(index, rate)))
        said = b"Intertitle"
        packet = av.Packet(said if is_matroska else len(said).to_bytes(2, "big") + said)
        packet.stream, packet.time_base = text, Fraction(1, 1000)
        packet.pts = packet.dts = 200
        packet.duration = 500
        out.mux(packet)
        for stream in (film, *tracks):
            out.mux(cast(Any, stream).encode(None))
    return path


def hashes(path: Path, index: int) -> list[str]:
    """Hashes of the packets of a stream."""
    with av.open(str(path)) as container:
        packets = container.demux(container.streams[index])
        return [hashlib.sha256(bytes(packet)).hexdigest() for packet in packets if packet.size]


def texts(path: Path) -> list[tuple[str, float, float]]:
    """Text, start and length in seconds of the subtitles of a file."""
    found = []
    with av.open(str(path)) as container:
        for packet in container.demux(subtitles=0):
            for each in packet.decode() if packet.size > 2 and packet.pts is not None else ():
                start, length = (packet.pts or 0) * packet.time_base, (packet.duration or 0) * packet.time_base
                found.append((cast(Any, each).dialogue.decode(), float(start), float(length)))
    return found


def samples(path: Path, number: int = 0) -> np.ndarray:
    """Samples of a sound, 0..1."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("fltp", "mono")
        pieces = [made for frame in container.decode(audio=number) for made in resampler.resample(frame)]
    return np.concatenate([piece.to_ndarray()[0] for piece in pieces])


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
def test_all_of_a_film_comes_along(tmp_path: Path, suffix: str) -> None:
    source, out = film_with_all(tmp_path / f"in{suffix}", ("aac", "aac")), tmp_path / f"out{suffix}"
    assert open_video(source).info.width_px == 96  # and not that of the cover
    assert rewritten(source, out) == ()
    with av.open(str(out)) as made:
        assert {key: value for key, value in made.metadata.items() if key.lower() in TAGS} == {
            key if suffix != ".mkv" or key == "title" else key.upper(): value for key, value in TAGS.items()
        }
        assert [
            (each["metadata"]["title"], float(each["start"] * (each["time_base"] or 0))) for each in made.chapters()
        ] == [(title, start / 1000) for title, start, _ in CHAPTERS]
        assert [each.language for each in made.streams.audio] == ["fra", "eng"]
        defaults = [bool(each.disposition & Disposition.default) for each in made.streams.audio]
        assert defaults == [False, True]
        assert [each.language for each in made.streams.subtitles] == ["ita"]
        if suffix == ".mov":
            assert made.streams.video[0].metadata["timecode"] == "10:00:00:05"
        if suffix == ".mkv":
            assert [(each.name, each.data) for each in made.streams.attachments] == [("font.ttf", b"a font" * 50)]
            assert hashes(out, made.streams.video[1].index) == hashes(source, 5)
    for index in (1, 2):
        assert hashes(out, index) == hashes(source, index)
    assert texts(out) == [("Intertitle", 0.2, 0.5)]


@pytest.mark.parametrize(
    ("suffix", "becomes"),
    [
        (".mp4", "sound 1 (pcm_u8, fra) to aac, subtitles 1 (srt, ita) to mov_text"),
        (".mov", "sound 2 (flac, eng) to alac"),
    ],
)
def test_what_a_container_does_not_hold_is_converted_or_named(tmp_path: Path, suffix: str, becomes: str) -> None:
    source, out = film_with_all(tmp_path / "in.mkv", ("pcm_u8", "flac")), tmp_path / f"out{suffix}"
    converted, lost = rewritten(source, out)
    assert f"in.mkv: converted, as {suffix} does not hold it: " in converted and becomes in converted
    assert f"left out, as {suffix} does not hold it, though .mkv may: " in lost and "attachment 1 (font.ttf)" in lost
    assert texts(out) == [("Intertitle", 0.2, 0.5)]
    for number in (0, 1):
        one, other = samples(source, number), samples(out, number)
        if suffix == ".mov" or number == 1:  # the other one is AAC
            assert np.array_equal(one, other[: len(one)])
        else:
            assert len(one) == pytest.approx(len(other), abs=2048) and one.std() == pytest.approx(other.std(), rel=0.05)


def test_no_suffix_is_advised_that_was_given(tmp_path: Path) -> None:
    source = film_with_all(tmp_path / "in.mov", ("pcm_mulaw",), rate=8000)
    (line,) = rewritten(source, tmp_path / "out.mkv")
    assert "converted, as .mkv does not hold it: sound 1 (pcm_mulaw" in line and "though .mkv" not in line


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(
    ("sound", "source", "rate"),
    [("wmav2", ".asf", 44_100), ("pcm_mulaw", ".avi", 8000), ("pcm_u8", ".avi", 11_025), ("adpcm_ms", ".avi", 22_050)],
)
def test_old_sound_fits_into_each_container(tmp_path: Path, sound: str, source: str, rate: int, suffix: str) -> None:
    path = tmp_path / f"in{source}"
    with av.open(str(path), "w") as out:
        film = out.add_stream("mpeg4", rate=RATE, width=96, height=64)
        track = cast("av.AudioStream", out.add_stream(sound, rate=rate))
        track.codec_context.layout = "mono"
        if sound == "wmav2":
            track.codec_context.bit_rate = 64_000
        for index, frame in enumerate(pictures()):
            out.mux(film.encode(frame))
            out.mux(track.encode(tone(index, rate)))
        for stream in (film, track):
            out.mux(stream.encode(None))
    rewritten(path, tmp_path / f"out{suffix}")
    one, other = samples(path), samples(tmp_path / f"out{suffix}")
    assert abs(len(one) / rate - len(other) / rate) < 0.1 and abs(one.std() - other.std()) < 0.02


def test_sound_of_an_unknown_kind_is_named_and_left_out(studio, tmp_path: Path) -> None:
    frames = studio.aged(studio.pan(studio.texture(1), 8), 0)
    video = studio.write(tmp_path / "film.mkv", frames, sound="pcm_s16le")
    video.write_bytes(video.read_bytes().replace(b"A_PCM/INT/LIT", b"A_XYZ/INT/LIT"))
    for name in ("out.mp4", "out.mkv"):
        (line,) = rewritten(video, tmp_path / name)
        assert "left out" in line and "sound 1 (unknown)" in line
        assert len(list(open_video(tmp_path / name).read())) == 8


def test_a_preview_has_the_chapters_of_its_length(tmp_path: Path) -> None:
    source, out = film_with_all(tmp_path / "in.mkv"), tmp_path / "out.mkv"
    rewritten(source, out, seconds=0.2)
    with av.open(str(out)) as made:
        (chapter,) = made.chapters()
        assert chapter["metadata"]["title"] == "Ships" and float(chapter["end"] * (chapter["time_base"] or 0)) == 0.2
    assert len(hashes(out, 1)) < len(hashes(source, 1)) / 2


@pytest.mark.parametrize(("codec", "suffix"), PAIRS)
def test_the_shape_of_pixels_stays(studio, tmp_path: Path, codec: str, suffix: str) -> None:
    frames = studio.aged(studio.pan(studio.texture(1), 3, (72, 90)), 0)
    video = studio.write(tmp_path / "film.mp4", frames, aspect=Fraction(16, 15))
    rewritten(video, tmp_path / f"out{suffix}", codec)
    with av.open(str(tmp_path / f"out{suffix}")) as made:
        assert made.streams.video[0].sample_aspect_ratio == Fraction(16, 15)
        assert len(list(made.decode(video=0))) == 3
    if suffix == ".mkv":  # also where a player does not look into the stream
        data = (tmp_path / "out.mkv").read_bytes()
        assert data.count(bytes.fromhex("54b0820060")) == 1  # DisplayWidth 96


@pytest.mark.parametrize("order", FIELD_ORDERS)
@pytest.mark.parametrize(("codec", "suffix"), [(codec, suffix) for codec, suffix in PAIRS if CODECS[codec].fields])
def test_the_order_of_fields_stays(studio, tmp_path: Path, codec: str, suffix: str, order: str) -> None:
    frames = studio.aged(studio.pan(studio.texture(1), 3), 0)
    video = studio.write(tmp_path / "film.mp4", frames, fields=order)
    assert open_video(video).info.field_order == order
    rewritten(video, tmp_path / f"out{suffix}", codec)
    assert open_video(tmp_path / f"out{suffix}").info.field_order == order
    with av.open(str(tmp_path / f"out{suffix}")) as made:
        if suffix == ".mkv" or codec != "h264":  # FFmpeg looks into the stream, and mistakes its order there
            assert made.streams.video[0].codec_context.field_order == FIELD_ORDERS[order]


def test_dv_has_its_lower_field_first(tmp_path: Path) -> None:
    video = tmp_path / "film.avi"
    with av.open(str(video), "w") as out:
        stream = out.add_stream("dvvideo", rate=RATE, width=720, height=576)
        from av.codec.context import Flags

        stream.codec_context.flags |= Flags.interlaced_dct
        for frame in pictures(3, (576, 720)):
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert open_video(video).info.field_order == "bff"


def part_of_a_film(path: Path, seed: int, count: int = COUNT) -> bytes:
    """A recording of 25 frames of MPEG-2 with sound."""
    with av.open(str(path), "w", format="mpegts" if path.suffix == ".ts" else "vob") as out:
        film = out.add_stream("mpeg2video", rate=RATE, width=96, height=64)
        sound = out.add_stream("mp2", rate=48_000)
        sound.codec_context.layout = "mono"
        for index, frame in enumerate(pictures(count, seed=seed)):
            out.mux(film.encode(frame))
            out.mux(sound.encode(tone(index, 48_000)))
        for stream in (film, sound):
            out.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".ts", ".vob"])
def test_parts_whose_times_begin_again_follow_each_other(tmp_path: Path, suffix: str) -> None:
    parts = [part_of_a_film(tmp_path / f"{seed}{suffix}", seed, 2 * COUNT) for seed in (1, 2, 3)]
    joined = tmp_path / f"film{suffix}"
    joined.write_bytes(b"".join(parts))
    frames = list(open_video(joined).read())
    steps = np.diff([frame.seconds for frame in frames])
    assert len(frames) >= 148 and frames[-1].seconds - frames[0].seconds == pytest.approx(6, abs=0.3)
    assert np.count_nonzero(abs(steps - 1 / RATE) > 0.001) <= 2 and steps.max() < 0.2
    rewritten(joined, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as made:
        times = [float(packet.pts * packet.time_base) for packet in made.demux(audio=0) if packet.pts is not None]
    assert times[-1] - times[0] == pytest.approx(6, abs=0.3) and np.diff(times).max() < 0.2
    assert abs(times[0] - next(iter(open_video(tmp_path / "out.mkv").read())).seconds) < 0.1


def test_an_ordinary_film_has_its_own_times(tmp_path: Path) -> None:
    part_of_a_film(tmp_path / "film.ts", 1)
    with av.open(str(tmp_path / "film.ts")) as container:
        times = sorted(float(packet.pts * packet.time_base) for packet in container.demux(video=0) if packet.pts)
    assert [frame.seconds for frame in open_video(tmp_path / "film.ts").read()] == pytest.approx(times)


@pytest.mark.parametrize(
    ("dispositions", "width"),
    [
        ((Disposition(0), Disposition(0)), 192),
        ((Disposition.default, Disposition(0)), 96),
        ((Disposition.default, Disposition.default), 192),
    ],
)
def test_which_stream_is_the_film(tmp_path: Path, dispositions: tuple[Disposition, Disposition], width: int) -> None:
    """The default one, else the largest."""
    path, widths = tmp_path / "film.mkv", (96, 192)
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("mpeg4", rate=RATE, width=each, height=64) for each in widths]
        for stream, disposition in zip(streams, dispositions, strict=True):
            stream.disposition = disposition
        for frames in zip(*(pictures(3, (64, each)) for each in widths), strict=True):
            for stream, frame in zip(streams, frames, strict=True):
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
    assert open_video(path).info.width_px == width
    assert {frame.luma.shape for frame in open_video(path).read()} == {(64, width)}
    if width == 192:
        (line,) = rewritten(path, tmp_path / "out.mkv")
        assert "left out" in line and "picture 1 (mpeg4)" in line


def test_sound_whose_times_stand_still_is_copied(tmp_path: Path) -> None:
    video, previous = tmp_path / "video.ts", 0
    with av.open(str(video), "w") as out:
        film = out.add_stream("mpeg2video", rate=RATE, width=96, height=64)
        sound = out.add_stream("mp2", rate=48_000)
        sound.codec_context.layout = "mono"
        for index, frame in enumerate(pictures()):
            out.mux(film.encode(frame))
            for packet in sound.encode(tone(index, 48_000)):
                # A few at one time, as in a recording that lost some: less than a sample between them
                previous = max(index // 5 * 5 * 3600, previous + 1)
                packet.time_base, packet.dts, packet.pts = Fraction(1, 90_000), previous, previous
                out.mux(packet)
        out.mux(film.encode(None))
    rewritten(video, tmp_path / "out.mp4")
    assert len(hashes(video, 1)) > 20 and hashes(tmp_path / "out.mp4", 1) == hashes(video, 1)


def test_sound_that_ffmpeg_does_not_copy_yet_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(container, track):
        if track.encoder is None:
            raise av.error.PatchWelcomeError(1163346256, "Not yet implemented in FFmpeg, patches welcome")
        return add_to(container, track)

    add_to = tracks.add_to
    monkeypatch.setattr(tracks, "add_to", refusing)
    video = film_with_all(tmp_path / "given.mov", ("aac",))
    assert any("sound 1 (aac, fra) to flac" in each for each in rewritten(video, tmp_path / "out.mkv"))
