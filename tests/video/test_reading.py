"""Videos as they are read, and as they are written again: luma, times, shape and sound stay."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from chromatune.errors import OptionsError, VideoError
from chromatune.video import open_video
from chromatune.video.held_frames import HeldFrames
from chromatune.video.writing import choose_codec, open_writer

GREEN = np.full((6, 8, 2), -0.08, np.float32)


def rewritten(video: Path, out: Path, codec: str | None = None) -> Path:
    opened = open_video(video)
    with open_writer(out, opened.info, codec=codec) as writer:
        for frame in opened.read():
            writer.write(frame, "", writer.make(frame, GREEN))
        writer.finish()
    return out


@pytest.fixture(scope="module")
def frames(studio) -> list[np.ndarray]:
    return studio.aged(studio.pan(studio.texture(1), 8), 0)


@pytest.mark.parametrize(
    ("codec", "fmt", "bits", "full"),
    [
        ("ffv1", "yuv422p10le", 10, False),
        ("ffv1", "gray16le", 16, True),
        ("ffv1", "bgr0", 8, True),
        ("libx264", "nv12", 8, False),
        pytest.param("ffv1", "gray", 8, True, marks=pytest.mark.slow),
        pytest.param("libx264", "yuv420p", 8, False, marks=pytest.mark.slow),
    ],
)
def test_ffv1_keeps_every_sample_of_luma(studio, frames, tmp_path: Path, codec, fmt, bits, full) -> None:
    video = studio.write(tmp_path / "film.mkv", frames, codec=codec, fmt=fmt)
    opened = open_video(video)
    assert (opened.info.bits, opened.info.full_range) == (bits, full)
    back = open_video(rewritten(video, tmp_path / "out.mkv", "ffv1"))
    assert (back.info.bits, back.info.full_range) == (bits, full)
    for one, other in zip(opened.read(), back.read(colors=True), strict=True):
        assert np.array_equal(one.luma, other.luma)
        assert other.rgb is not None
        red, green, _ = other.rgb.reshape(-1, 3).mean(axis=0)
        assert green > 1.1 * red


def test_ten_bits_stay_ten_bits_in_h264(studio, frames, tmp_path: Path) -> None:
    video = studio.write(tmp_path / "film.mkv", frames, codec="ffv1", fmt="yuv420p10le")
    with av.open(str(rewritten(video, tmp_path / "out.mp4"))) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p10le"


def test_times_of_a_variable_rate_stay(studio, frames, tmp_path: Path) -> None:
    ticks = [0, 1, 2, 5, 6, 11, 12, 20]
    video = studio.write(tmp_path / "film.mp4", frames, ticks=ticks)
    back = list(open_video(rewritten(video, tmp_path / "out.mp4")).read())
    assert [round(frame.seconds * 25) for frame in back] == ticks


def test_sound_is_copied_packet_by_packet(studio, frames, tmp_path: Path) -> None:
    video = studio.write(tmp_path / "film.mp4", frames, sound="aac")
    assert studio.packets(rewritten(video, tmp_path / "out.mkv")) == studio.packets(video)


def test_sound_that_a_container_does_not_hold_is_converted(studio, frames, tmp_path: Path) -> None:
    video = studio.write(tmp_path / "film.avi", frames, sound="adpcm_ms")
    rewritten(video, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        (stream,) = container.streams.audio
        assert stream.codec_context.name == "aac" and stream.codec_context.sample_rate == 48_000
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert abs(len(heard) / 48_000 - len(frames) / 25) < 0.1 and 0.1 < heard.std() < 0.4


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_sound_of_old_cameras_is_copied_into_mp4(studio, frames, tmp_path: Path, suffix: str) -> None:
    """These containers do not say which channels there are; MP4 does."""
    video = studio.write(tmp_path / f"film{suffix}", frames, sound="pcm_s16le")
    with av.open(str(rewritten(video, tmp_path / "out.mp4"))) as container:
        assert container.streams.audio[0].codec_context.name == "pcm_s16le"
    assert b"".join(studio.packets(tmp_path / "out.mp4")) == b"".join(studio.packets(video))


def test_sound_that_does_not_fit_is_not_blamed_on_the_disk(studio, frames, tmp_path: Path, monkeypatch) -> None:
    video = studio.write(tmp_path / "film.mp4", frames, sound="aac")

    def refused(self, packet, track):
        raise av.error.ArgumentError(22, "Invalid argument")

    monkeypatch.setattr("chromatune.video.track_writing.TrackWriter._write_packet", refused)
    with pytest.raises(VideoError, match=r"its sound does not fit into it .*; give a name ending in \.mkv"):
        rewritten(video, tmp_path / "out.mp4")


def test_names_of_protocols_are_names_of_results(studio, frames, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    studio.write(tmp_path / "film.mp4", frames)
    for name in ("http:x.mp4", "Reel:1.mkv"):
        rewritten(Path("film.mp4"), Path(name))
        assert Path(name).stat().st_size > 1000


@pytest.mark.parametrize("width", [320, 352, 640])
def test_h264_is_the_same_each_time(studio, tmp_path: Path, width: int) -> None:
    """The tree of libx264 varies with its memory, in rows of some lengths."""
    blocks = np.random.default_rng(5).integers(40, 215, (30, width // 8 + 5), np.uint8)
    blocks = np.kron(blocks, np.ones((8, 8), np.uint8))
    moving = [np.ascontiguousarray(blocks[:, index : index + width]) for index in range(40)]
    video = studio.write(tmp_path / "film.mkv", moving, codec="ffv1", fmt="gray")
    assert len({rewritten(video, tmp_path / f"{run}.mp4").read_bytes() for run in range(6)}) == 1


@pytest.mark.parametrize(
    ("rotation", "turns"),
    [(90, 1), (180, 2), pytest.param(-90, 3, marks=pytest.mark.slow)],
)
def test_a_rotated_video_is_upright(studio, frames, tmp_path: Path, rotation: int, turns: int) -> None:
    flat = list(open_video(studio.write(tmp_path / "flat.mp4", frames)).read())
    video = studio.write(tmp_path / "film.mp4", frames, rotation=rotation, aspect=Fraction(4, 3))
    opened = open_video(video)
    assert np.array_equal(next(iter(opened.read())).luma, np.rot90(flat[0].luma, turns))
    back = open_video(rewritten(video, tmp_path / "out.mp4")).info
    expected = Fraction(4, 3) if turns == 2 else Fraction(3, 4)
    assert back.aspect == expected and (back.width_px, back.height_px) == (opened.info.width_px, opened.info.height_px)


def test_an_odd_side_is_exact_in_ffv1_and_grows_by_one_in_h264(studio, tmp_path: Path) -> None:
    odd = studio.aged(studio.pan(studio.texture(1), 4, (71, 95)), 0)
    video = studio.write(tmp_path / "film.mkv", odd, codec="ffv1", fmt="gray")
    exact = next(iter(open_video(rewritten(video, tmp_path / "exact.mkv", "ffv1")).read()))
    assert np.array_equal(exact.luma, odd[0])
    info = open_video(rewritten(video, tmp_path / "out.mp4")).info
    assert (info.width_px, info.height_px) == (96, 72)


def test_fields_keep_their_order(studio, frames, tmp_path: Path) -> None:
    video = studio.write(tmp_path / "film.mp4", frames, fields="tff")
    first = open_video(video).info
    assert first.field_order in ("tff", "bff")
    assert open_video(rewritten(video, tmp_path / "out.mp4")).info.field_order == first.field_order


def test_full_range_stays(studio, frames, tmp_path: Path) -> None:
    video = studio.write(tmp_path / "film.mp4", frames, full_range=True)
    assert open_video(video).info.full_range
    assert open_video(rewritten(video, tmp_path / "out.mp4")).info.full_range


def test_a_truncated_video_gives_what_is_there(studio, frames, tmp_path: Path) -> None:
    video = studio.write(tmp_path / "film.mp4", frames * 4)
    whole = video.read_bytes()
    (tmp_path / "headless.mp4").write_bytes(whole[: len(whole) // 2])  # an MP4's index stands at its end
    with pytest.raises(VideoError, match="no video, or damaged"):
        open_video(tmp_path / "headless.mp4")
    matroska = studio.write(tmp_path / "film.mkv", frames * 4)
    (tmp_path / "short.mkv").write_bytes(matroska.read_bytes()[: matroska.stat().st_size // 2])
    short = open_video(tmp_path / "short.mkv")
    assert 8 <= len(list(short.read())) < 32


def test_what_is_no_video_is_one_line(studio, frames, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video at all\n" * 50)
    (tmp_path / "empty.mp4").write_bytes(b"")
    sound = tmp_path / "song.m4a"
    studio.write(tmp_path / "film.mp4", frames, sound="aac")
    with av.open(str(tmp_path / "film.mp4")) as source, av.open(str(sound), "w", format="mp4") as target:
        copy = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    (tmp_path / "nothing").mkdir()
    for name, words in {
        "text.mp4": "no video",
        "empty.mp4": "no video",
        "song.m4a": "sound alone, no frames",
        "nothing": "no numbered picture",
        "absent.mp4": "no such file",
    }.items():
        with pytest.raises(VideoError, match=words) as caught:
            open_video(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_codec_that_does_not_fit_is_told() -> None:
    with pytest.raises(OptionsError, match="ffv1 needs a name that ends in"):
        choose_codec(Path("x.mp4"), "ffv1")
    with pytest.raises(OptionsError, match="accepted are h264, h265, ffv1, prores"):
        choose_codec(Path("x.mp4"), "divx")
    with pytest.raises(OptionsError, match="accepted are .mp4"):
        choose_codec(Path("x.jpg"), None)


def test_a_folder_is_read_by_its_numbers(frame_folder: Path) -> None:
    video = open_video(frame_folder, rate=Fraction(24))
    frames = list(video.read())
    assert [frame.number for frame in frames] == list(range(101, 113))
    assert video.index_of(103) == 2 and video.index_of(1) is None
    assert frames[6].seconds == 0.25
    cv2.imwrite(str(frame_folder / "again_00104.png"), np.zeros((72, 96), np.uint8))
    with pytest.raises(VideoError, match="have one number"):
        open_video(frame_folder)
    (frame_folder / "again_00104.png").rename(frame_folder / "scan_00200.png")
    cv2.imwrite(str(frame_folder / "scan_00201.png"), np.zeros((70, 96), np.uint8))
    with pytest.raises(VideoError, match=r"scan_00201\.png is 96 × 70 px of 8 bits, where the first frame is 96 × 72"):
        list(open_video(frame_folder).read())


def test_a_rate_that_no_film_has_is_not_believed(studio, tmp_path: Path) -> None:
    frame = studio.aged(studio.pan(studio.texture(1), 1), 0)
    still = studio.write(tmp_path / "still.mkv", frame, codec="mpeg2video")
    film = tmp_path / "still.vob"  # as on a DVD: FFmpeg guesses 90,000 frames a second
    with av.open(str(still)) as source, av.open(str(film), "w", format="vob") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    assert open_video(film).info.rate == 25 and len(list(open_video(film).read())) == 1


def test_frames_that_fit_into_memory_are_decoded_once(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, readings = open_video(video), 0
    read = type(opened).read

    def counted(self, **colors):
        nonlocal readings
        readings += 1
        return read(self, **colors)

    monkeypatch.setattr(type(opened), "read", counted)
    frames = HeldFrames(opened)
    once, again = ([frame.luma for frame in frames] for _ in range(2))
    assert readings == 1 and len(once) == 20 and all(one is other for one, other in zip(once, again, strict=True))
    monkeypatch.setattr("chromatune.video.held_frames.MOST_HELD_BYTES", 3 * once[0].nbytes)
    frames = HeldFrames(opened)
    assert [len(list(frames)) for _ in range(2)] == [20, 20] and readings == 3
    assert len(list(HeldFrames(opened, seconds=0.1))) == 3  # and no more than fit are held


@pytest.mark.parametrize(
    "pattern",
    ["a{:04d}_1080p", "{:04d}_2k", "reel2-{:03d} v2", "f{}", "scan.{:05d}", "{:03d}-0", "2024-01-02_{:06d}_x4"],
)
def test_the_number_that_varies_is_the_frame_s(tmp_path: Path, pattern: str) -> None:
    for number in range(8, 13):
        cv2.imwrite(str(tmp_path / f"{pattern.format(number)}.png"), np.full((8, 8), 10 * number, np.uint8))
    frames = list(open_video(tmp_path).read())
    assert [frame.number for frame in frames] == list(range(8, 13))
    assert [int(frame.luma[0, 0]) for frame in frames] == [80, 90, 100, 110, 120]


@pytest.mark.parametrize(
    ("numbers", "seconds", "said"),
    [
        (
            [1, 2, 5, 6],
            [0, 1, 4, 5],
            "2 numbers are missing, the first after 2; the frame before is shown in their time",
        ),
        ([10, 20, 30, 50], [0, 1, 2, 4], "1 number is missing, the first after 30"),
        ([7], [0], ""),
        ([1, 2, 5000, 5001], [0, 1, 2, 3], "gaps of more than 250 frames are closed"),
    ],
)
def test_numbers_that_are_missing_keep_their_time_and_have_a_line(tmp_path: Path, numbers, seconds, said: str) -> None:
    for number in numbers:
        cv2.imwrite(str(tmp_path / f"{number:06d}.png"), np.full((8, 8), 99, np.uint8))
    video = open_video(tmp_path, rate=Fraction(1))
    assert [frame.seconds for frame in video.read()] == seconds
    assert [frame.number for frame in video.read()] == numbers
    assert len(video.warnings) == bool(said) and all(said in line for line in video.warnings)


@pytest.mark.parametrize("suffix", ["dpx", "exr"])
def test_frames_of_film_scanners_are_named_with_the_way(tmp_path: Path, suffix: str) -> None:
    for number in range(3):
        (tmp_path / f"{number:06d}.{suffix}").write_bytes(b"SDPX")
    with pytest.raises(VideoError, match=f"3 {suffix.upper()} frames, .* convert them to PNG of 16 bits first"):
        open_video(tmp_path)


@pytest.mark.parametrize(
    ("codec", "suffix"), [("h264", ".mp4"), ("h265", ".mp4"), ("h265", ".mkv"), ("prores", ".mov")]
)
def test_ten_bits_go_in_and_come_out(studio, tmp_path: Path, codec: str, suffix: str) -> None:
    ramp = np.tile(np.linspace(0, 65535, 96).astype(np.uint16), (64, 1))
    video = studio.write(tmp_path / "film.mkv", [ramp] * 3, codec="ffv1", fmt="yuv422p10le")
    back = open_video(rewritten(video, tmp_path / f"out{suffix}", codec))
    assert back.info.bits == 10
    one, other = (next(iter(each.read())).luma.astype(int) for each in (open_video(video), back))
    assert abs(one - other).mean() < 4  # of 1023: less than a step of 8 bits
