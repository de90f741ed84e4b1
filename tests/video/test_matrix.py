"""Containers × codecs of pictures × codecs of sound: each is written right, or refused in a line before any work.

What FFmpeg writes itself is asked of it: what it does not put together is no combination. All of it is slow; a sample
of it, and the table in docs/video.md, are not.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest

from chromatune.errors import VideoError
from chromatune.video import open_video
from chromatune.video.writing import open_writer

CONTAINERS = {"matroska": "mkv", "mpegts": "ts", "vob": "mpg", "asf": "wmv"}  # and suffixes
CONTAINERS |= {each: each for each in ("mp4", "mov", "avi", "flv")}
PICTURES = "mpeg4 libx264 mpeg2video mjpeg ffv1 prores_ks wmv2 flv".split()
SOUNDS = "aac libmp3lame mp2 ac3 pcm_s16le pcm_u8 pcm_mulaw flac wmav2 adpcm_ms".split()
RESULTS = [("mp4", "h264"), ("mkv", "ffv1"), ("mov", "prores")]
SAMPLE = [
    line.split()
    for line in (
        "mp4 libx264 aac", "mov prores_ks pcm_s16le", "matroska ffv1 flac", "avi mjpeg pcm_u8", "mpegts mpeg2video aac",
        "vob mpeg2video ac3", "asf wmv2 wmav2", "flv flv libmp3lame", "avi mpeg4 wmav2", "asf mpeg4 flac",
    )
]  # fmt: skip
TABLE_SOUNDS = {
    "AAC": "matroska aac", "MP3": "matroska libmp3lame", "MP2": "matroska mp2", "AC-3": "matroska ac3",
    "Opus": "matroska libopus", "FLAC": "matroska flac", "ALAC": "mov alac",
    "PCM, 16 bits": "avi pcm_s16le", "PCM, 24 bits": "avi pcm_s24le", "PCM, 8 bits": "avi pcm_u8",
    "µ-law": "avi pcm_mulaw", "ADPCM": "avi adpcm_ms", "WMA": "asf wmav2",
}  # fmt: skip
FRAMES, RATE = 6, 25
RATES = {"libopus": 48_000, "pcm_mulaw": 8000}  # of sound, where it takes no other
GREEN = np.full((4, 6, 2), -0.08, np.float32)
PAGE = Path(__file__).parents[2] / "docs" / "video.md"


def made_film(folder: Path, container: str, picture: str, sound: str) -> Path | None:
    """A film of six frames; None where FFmpeg does not put these together, or does not read them again."""
    path = folder / f"{container}-{picture}-{sound}.{CONTAINERS[container]}"
    rng, sound_rate = np.random.default_rng(0), RATES.get(sound, 44_100)
    try:
        with av.open(str(path), "w", format=container) as out:
            film = cast("av.VideoStream", out.add_stream(picture, rate=RATE, width=96, height=64))
            kind = av.Codec(picture, "w").video_formats
            film.pix_fmt = next((each.name for each in kind or () if each.name in ("yuv420p", "yuvj420p")), None) or (
                kind[0].name if kind else "yuv420p"
            )
            track = cast("av.AudioStream", out.add_stream(sound, rate=sound_rate))
            track.codec_context.layout = "mono"
            if sound in ("wmav2", "mp2", "ac3"):
                track.codec_context.bit_rate = 64_000
            for index in range(FRAMES):
                view = rng.integers(40, 200, (8, 12), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
                frame = av.VideoFrame.from_ndarray(view, format="gray").reformat(format=film.pix_fmt)
                frame.pts, frame.time_base = index, Fraction(1, RATE)
                out.mux(film.encode(frame))
                count = sound_rate // RATE
                wave = 0.3 * np.sin(np.arange(index * count, (index + 1) * count) / 20)
                tone = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], format="fltp", layout="mono")
                tone.sample_rate, tone.pts, tone.time_base = sound_rate, index * count, Fraction(1, sound_rate)
                out.mux(track.encode(tone))
            for stream in (film, track):
                out.mux(stream.encode(None))
        with av.open(str(path)) as back:  # some containers take what they cannot name
            frames, sounds = list(back.decode(video=0)), sound_packets(path)
    except (AttributeError, IndexError, ValueError, av.error.FFmpegError):
        return None
    return path if frames and sounds else None


def sound_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def check_result(source: Path, out: Path, codec: str) -> str:
    """What became of a film: "copied" or "converted" sound, or "refused"; raises where it is not right."""
    video = open_video(source)
    frames = list(video.read())
    with open_writer(out, video.info, codec=codec) as writer:
        warnings = " ".join(writer.warnings)
        for frame in frames:
            writer.write(frame, "", writer.make(frame, GREEN))
        writer.finish()
    back = list(open_video(out).read())
    assert len(back) == len(frames) >= FRAMES - 1  # the first of MPEG-2 may be missing
    starts = [[each.seconds - every[0].seconds for each in every] for every in (frames, back)]
    assert starts[0] == pytest.approx(starts[1], abs=0.0011)
    if codec == "ffv1":
        assert all(np.array_equal(one.luma, other.luma) for one, other in zip(frames, back, strict=True))
    with av.open(str(out)) as container:
        assert len(container.streams.audio) == 1
        heard = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])
    assert len(heard) and heard.std() > 0
    if "converted" in warnings:
        return "converted"
    given, copied = sound_packets(source), sound_packets(out)
    if "pcm" not in source.name:  # which is cut into other packets
        given = [
            one[-len(other) :] for one, other in zip(given, copied, strict=True)
        ]  # AAC loses its headers of streams
    assert hashlib.sha256(b"".join(given)).digest() == hashlib.sha256(b"".join(copied)).digest()
    return "copied"


def check_all(folder: Path, container: str, picture: str, sound: str) -> list[str]:
    source = made_film(folder, container, picture, sound)
    if source is None:
        return []
    found = []
    for suffix, codec in RESULTS:
        out = folder / f"out.{suffix}"
        line = ""
        try:
            found.append(check_result(source, out, codec))
        except VideoError as error:
            line = str(error)
            found.append(f"refused: {line}")
        assert line.isprintable() and bool(line) != out.exists(), (source.name, suffix)
        out.unlink(missing_ok=True)
    source.unlink()
    return found


@pytest.mark.parametrize(("container", "picture", "sound"), SAMPLE)
def test_a_film_is_written_right(tmp_path: Path, container: str, picture: str, sound: str) -> None:
    found = check_all(tmp_path, container, picture, sound)
    assert len(found) == len(RESULTS) and not [each for each in found if each.startswith("refused")]


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
def test_each_film_is_written_right_or_refused(tmp_path: Path, container: str) -> None:
    done = 0
    refused: list[str] = []
    for picture in PICTURES:
        for sound in SOUNDS:
            found = check_all(tmp_path, container, picture, sound)
            done += len(found)
            refused += [each for each in found if each.startswith("refused")]
    print(f"{container}: {done} results, {len(refused)} refused", *sorted(set(refused)), sep="\n")
    assert done >= 9 and not refused


def what_becomes(source: Path, folder: Path) -> list[str]:
    """What becomes of the sound of a film in each kind of result."""
    found, info = [], open_video(source).info
    for suffix, codec in RESULTS:
        with suppress(KeyboardInterrupt), open_writer(folder / f"out.{suffix}", info, codec=codec) as writer:
            (line, *_) = [*writer.warnings, ""]
            found.append(f"becomes {line.rpartition(' to ')[2].upper()}" if "converted" in line else "copied")
            raise KeyboardInterrupt
    return found


def test_the_table_of_sound_is_what_ffmpeg_does(tmp_path: Path) -> None:
    rows = []
    for name, kind in TABLE_SOUNDS.items():
        container, sound = kind.split()
        source = made_film(tmp_path, container, "mpeg4", sound)
        assert source is not None, name
        rows.append(f"| {' | '.join([name, *what_becomes(source, tmp_path)])} |")
    text = PAGE.read_text("utf-8")
    assert [row for row in rows if row not in text] == [], "\n".join(rows)
