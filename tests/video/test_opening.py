"""Files of strangers: what FFmpeg may open, and how much of it; each failure is one line."""

from __future__ import annotations

import os
import struct
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from chromatune.errors import VideoError
from chromatune.video import VideoLimits, open_video, video_provenance
from chromatune.video.opening import MAX_INDEX_ENTRIES, MAX_STREAMS

SMALL = VideoLimits(100_000)


@pytest.fixture(scope="module")
def frames(studio) -> list[np.ndarray]:
    """Eight frames of 172,800 pixels."""
    return studio.aged(studio.pan(studio.texture(1, 500, 640), 8, (360, 480)), 0)


def line_of(path: Path, limits: VideoLimits | None = None) -> str:
    """Why a file is not read to its end."""
    with pytest.raises(VideoError) as caught:
        list(open_video(path, limits=limits or VideoLimits()).read())
    line = str(caught.value)
    assert line.isprintable()
    return line


@pytest.mark.parametrize("name", ["http:x.mp4", "Reel1:begin.mp4", "concat:a|b.mp4", "pipe:0", "file:x.mp4", "-x.mp4"])
def test_names_of_protocols_are_names_of_files(video: Path, tmp_path: Path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(video.read_bytes())
    assert len(list(open_video(name).read())) == 20


@pytest.mark.parametrize("name", ["http:x.mkv", "concat:a|b.mkv"])
def test_names_of_protocols_are_names_where_provenance_is_read(tmp_path: Path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VideoError, match="no such file"):
        video_provenance(Path(name))
    Path("list.mkv").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfilm.mp4\n#EXT-X-ENDLIST\n")
    with pytest.raises(VideoError, match="no video"):
        video_provenance(Path("list.mkv"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.ffconcat", "ffconcat version 1.0\nfile list.ffconcat\n"),
        ("other.ffconcat", "ffconcat version 1.0\nfile film.mp4\n"),
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfilm.mp4\n#EXT-X-ENDLIST\n"),
        ("list.mpd", '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>'),
        ("list.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 33\n"),
        ("gray.pfm", "Pf\n16 16\n-1.0\n" + "\0" * 1024),
        ("one.pgm", "P5\n1 1\n255\n\0"),
    ],
)
def test_what_names_other_files_or_is_a_picture_is_no_video(video: Path, tmp_path: Path, name, content) -> None:
    (tmp_path / "film.mp4").write_bytes(video.read_bytes())
    (tmp_path / name).write_text(content)
    assert f"{name}: no video" in line_of(tmp_path / name)


def test_a_pipe_is_no_video(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "film.mp4")
    assert "a pipe, socket or device" in line_of(tmp_path / "film.mp4")


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.avi", "x.flv", "x.ts", "x.h264", "x.mpg"])
def test_frames_that_are_too_large_are_known_by_the_header(studio, frames, tmp_path: Path, monkeypatch, name) -> None:
    codec = "mpeg2video" if name == "x.mpg" else "libx264"
    path = studio.write(tmp_path / name, frames, codec=codec)
    assert len(list(open_video(path, limits=VideoLimits(480 * 360)).read())) == 8
    monkeypatch.setattr("chromatune.video.reading._decoded", None)
    assert "more than 0.1 megapixels (480 × 360 px)" in line_of(path, SMALL)


@pytest.mark.parametrize("name", ["x.mov", "x.avi", "x.nut"])
def test_a_header_that_lies_about_the_size_does_not_help(studio, frames, tmp_path: Path, name: str) -> None:
    with av.open(str(studio.write(tmp_path / "large.mov", frames[:1], codec="png", fmt="gray"))) as large:
        packet = next(large.demux(video=0))
        with av.open(str(tmp_path / name), "w") as small:
            stream = small.add_stream("png", rate=25, width=8, height=8, pix_fmt="gray")
            small.start_encoding()
            packet.stream = stream
            small.mux(packet)
    assert "no frame of up to 0.1 megapixels" in line_of(tmp_path / name, SMALL)


def test_frames_that_become_larger_are_not_decoded(studio, frames, tmp_path: Path) -> None:
    small, large = tmp_path / "small.h264", studio.write(tmp_path / "large.h264", frames)
    studio.write(small, [np.ascontiguousarray(frame[:180, :240]) for frame in frames])
    small.write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(VideoError, match="480 × 360 px of 8 bits where the first is 240 × 180 px of 8 bits"):
        list(open_video(small).read())
    opened = open_video(small, limits=SMALL)
    assert {frame.luma.shape for frame in opened.read()} == {(180, 240)}
    assert any("damaged" in warning for warning in opened.warnings)


def test_videos_are_not_longer_than_the_limits(studio, frames, tmp_path: Path) -> None:
    for name in ("x.mp4", "x.h264"):  # the latter says nothing of its length
        path = studio.write(tmp_path / name, frames)
        assert "more than 5 frames" in line_of(path, VideoLimits(max_frames=5))
        assert "longer than 0.002 minutes" in line_of(path, VideoLimits(max_seconds=0.12))
    taken = open_video(tmp_path / "x.h264", limits=VideoLimits(max_frames=5)).read()
    assert [next(taken).number for _ in range(5)] == [0, 1, 2, 3, 4]


def test_an_index_is_not_longer_than_the_limit(studio, frames, tmp_path: Path) -> None:
    path = studio.write(tmp_path / "x.mp4", frames)
    data = bytearray(path.read_bytes())
    struct.pack_into(">II", data, data.index(b"stsz") + 8, 1, MAX_INDEX_ENTRIES + 1)  # samples of a byte each
    path.write_bytes(data)
    assert f"announces more than {MAX_INDEX_ENTRIES} samples" in line_of(path)


@pytest.mark.skipif(sys.platform != "linux", reason="FFmpeg's library is not reached everywhere")
def test_no_allocation_is_larger_than_frames_need(video: Path) -> None:
    try:
        open_video(video, limits=VideoLimits(10_000))
        with pytest.raises(MemoryError):
            av.VideoFrame(9000, 9000, "gray").make_writable()
    finally:
        open_video(video)
    av.VideoFrame(9000, 9000, "gray")


def test_there_are_not_more_tracks_than_the_limit(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "x.nut"), "w") as container:
        picture = container.add_stream("mpeg4", rate=25, width=16, height=16)
        for _ in range(MAX_STREAMS):
            container.add_stream("mp2", rate=44_100)
        container.mux(picture.encode(av.VideoFrame(16, 16, "yuv420p")))
        container.mux(picture.encode(None))
    assert f"more than {MAX_STREAMS} tracks" in line_of(tmp_path / "x.nut")


def test_packets_that_cannot_be_decoded_have_an_end(studio, frames, tmp_path: Path, monkeypatch) -> None:
    path = studio.write(tmp_path / "x.nut", frames, codec="png", fmt="gray")
    data = path.read_bytes()
    with av.open(str(path)) as container:
        last = [bytes(packet) for packet in container.demux(video=0) if packet.size][4:]
    for packet in last:
        data = data.replace(packet, bytes(len(packet)))
    path.write_bytes(data)
    monkeypatch.setattr("chromatune.video.reading.MAX_DAMAGED_PACKETS", 2)
    opened = open_video(path)
    assert len(list(opened.read())) == 4
    assert opened.warnings[0].endswith("2 damaged packets are skipped")


@pytest.mark.parametrize(
    "error",
    [
        av.error.UnknownError(1, "strange"), av.error.ProtocolNotFoundError(1, "strange"), OverflowError("strange"),
        ValueError("strange\nindeed"), MemoryError(), RuntimeError("strange"), AttributeError("strange"),
        UnicodeDecodeError("ascii", b"x", 0, 1, "strange"), IndexError("strange"), ZeroDivisionError("strange"),
    ],
)  # fmt: skip
def test_whatever_a_library_raises_is_one_line(video: Path, monkeypatch, error: Exception) -> None:
    def fail(*_):
        raise error

    monkeypatch.setattr("chromatune.video.reading._info_of", fail)
    with pytest.raises(VideoError) as caught:
        open_video(video)
    assert str(caught.value).startswith(str(video)) and str(caught.value).isprintable()


@pytest.mark.parametrize("suffix", [".wmv", ".mp4"])
def test_encrypted_pictures_are_refused(tmp_path: Path, suffix: str) -> None:
    key = "0123456789abcdef" * 2
    scheme = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    options = {} if suffix == ".wmv" else scheme
    with av.open(str(tmp_path / f"film{suffix}"), "w", options=options) as out:
        if suffix == ".wmv":
            out.metadata["ASF_Protection_Type"] = "DRM"
        film = out.add_stream("wmv2" if suffix == ".wmv" else "libx264", rate=25, width=96, height=64)
        film.pix_fmt = "yuv420p"
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((96, 96), 90 + index, np.uint8), format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(film.encode(frame))
        out.mux(film.encode(None))
    with pytest.raises(VideoError, match=rf"film\{suffix}: its pictures are encrypted \(DRM\); give a copy without"):
        open_video(tmp_path / f"film{suffix}")
