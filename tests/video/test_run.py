"""Videos from end to end by a model pass without a model: frames, hints, cuts, resuming, and refusals."""

from __future__ import annotations

import functools
import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from chromatune.color import luma
from chromatune.colorizer import Colorizer
from chromatune.errors import OptionsError, PhotoError, VideoError
from chromatune.hints import Hints
from chromatune.options import make_options
from chromatune.video import ShotColorizer, VideoOptions, VideoResult, VideoRun, colorize_video, open_video

BLUE = make_options(seed=10)
RED = Hints().point(48, 36, "#c02020", 12)


def color(path: Path, **changes: Any) -> VideoResult:
    return colorize_video(open_video(path), replace(VideoOptions(Path("unused"), colorize_options=BLUE), **changes))


def rgb_of(path: Path) -> list[np.ndarray]:
    frames = [frame.rgb for frame in open_video(path).read(colors=True)]
    return [rgb.astype(int) for rgb in frames if rgb is not None]


def redness(rgb: np.ndarray) -> float:
    return float((rgb[..., 0] - rgb[..., 2]).mean())


def are_equal(some: Iterable[np.ndarray], others: Iterable[np.ndarray]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(some, others, strict=True))


@functools.cache
def colored_once(video: Path) -> VideoResult:
    return color(video, out=video.with_name("plain.mkv"), codec="ffv1")


@pytest.fixture
def plain(engine, video: Path) -> VideoResult:
    """The video in color without hints, made once: nothing changes it."""
    return colored_once(video)


@pytest.fixture
def plain_cache(plain: VideoResult, tmp_path: Path) -> Path:
    """A copy of its cache."""
    return Path(shutil.copytree(f"{plain.out}.chroma", tmp_path / "cache"))


def test_a_video_comes_out_with_its_frames_shots_and_luma(plain: VideoResult, video: Path, studio) -> None:
    assert [shot.start for shot in plain.shots] == [0, 10] and plain.frames == 20 and plain.colored_shots == 2
    given, found = list(open_video(video).read()), list(open_video(plain.out).read())
    assert are_equal((frame.luma for frame in given), (frame.luma for frame in found))
    starts = [[round(1000 * (frame.seconds - frames[0].seconds)) for frame in frames] for frames in (given, found)]
    assert starts[0] == starts[1]
    assert studio.packets(plain.out) == studio.packets(video)
    assert all(redness(rgb) < -20 for rgb in rgb_of(plain.out))


def test_a_hint_colors_its_shot_and_no_other(plain: VideoResult, plain_cache: Path, video: Path, tmp_path) -> None:
    result = color(video, out=tmp_path / "hinted.mkv", codec="ffv1", hints={2: RED}, cache=plain_cache)
    assert result.colored_shots == 1
    hinted = rgb_of(result.out)
    for index in (2, 5, 9):
        x = round(48 - 1.5 * (index - 2))
        assert redness(hinted[index][30:42, x - 6 : x + 6]) > 60
    assert are_equal(rgb_of(plain.out)[10:], hinted[10:])


def test_interrupted_and_gone_on_with_ends_the_same(
    plain: VideoResult, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colorize_shot = ShotColorizer.colorize_shot
    counts: list[int] = []

    def interrupted(self, grays, count, *given, **options):
        counts.append(count)
        if len(counts) == 2:
            raise KeyboardInterrupt
        return colorize_shot(self, grays, count, *given, **options)

    monkeypatch.setattr(ShotColorizer, "colorize_shot", interrupted)
    with pytest.raises(KeyboardInterrupt):
        color(video, out=tmp_path / "twice.mkv", codec="ffv1")
    assert [path.name for path in tmp_path.iterdir()] == ["twice.mkv.chroma"]
    # What did not fit into memory is read again, to the same end
    monkeypatch.setattr("chromatune.video.held_frames.MOST_HELD_BYTES", 1000)
    assert color(video, out=tmp_path / "twice.mkv", codec="ffv1").colored_shots == 1
    assert are_equal(rgb_of(plain.out), rgb_of(tmp_path / "twice.mkv"))


@pytest.mark.parametrize(
    ("room", "expected", "readings"),
    [(10**6, 20, 2), (20_000, 20, 3), (20_000, None, 3)],
    ids=["kept", "no room", "no room for all"],
)
def test_a_long_video_is_decoded_twice_where_small_frames_fit_on_the_disk(
    plain: VideoResult, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room, expected, readings
) -> None:
    opened, counted = open_video(video), list[None]()
    monkeypatch.setattr(opened, "info", replace(opened.info, expected_frames=expected))
    read = type(opened).read

    def counting(self, **colors):
        counted.append(None)
        return read(self, **colors)

    monkeypatch.setattr(type(opened), "read", counting)
    monkeypatch.setattr("chromatune.video.held_frames.MOST_HELD_BYTES", 30_000)
    monkeypatch.setattr("chromatune.video.held_frames.MOST_SMALL_BYTES", room)
    options = VideoOptions(tmp_path / "long.mkv", colorize_options=BLUE, codec="ffv1")
    result = colorize_video(opened, options)
    assert len(counted) == readings
    assert {path.suffix for path in (tmp_path / "long.mkv.chroma").iterdir()} == {".npz", ".txt"}
    monkeypatch.undo()
    assert are_equal(rgb_of(plain.out), rgb_of(result.out))


def damaged_caches() -> dict[str, Any]:
    """Ways to damage the arrays of a shot: a function of its file's bytes and of its arrays, which gives either."""

    def other(**changes: Any) -> Any:
        return lambda data, arrays: arrays | {name: change(arrays[name]) for name, change in changes.items()}

    return {
        "cut": lambda data, arrays: data[:100],
        "empty": lambda data, arrays: b"",
        "text": lambda data, arrays: b"no arrays at all\n" * 20,
        "flipped": lambda data, arrays: data[:400] + bytes([data[400] ^ 255]) + data[401:],
        "missing": lambda data, arrays: {name: array for name, array in arrays.items() if name != "lumas"},
        "objects": other(offsets=lambda array: array.astype(object)),
        "numbers": other(chromas=lambda array: array * np.nan),
        "text type": other(chromas=lambda array: array.astype("U5")),
        "frames": other(exposures=lambda array: array[:3]),
        "offsets": other(offsets=lambda array: array + 1000),
        "order": other(offsets=lambda array: array * 0 - 1),
        "shape": other(chromas=lambda array: array[..., 0]),
        "grid": other(lumas=lambda array: array[:, :0]),
        "keyframes": other(keyframe_exposures=lambda array: np.append(array, 0.0)),
    }


@pytest.mark.parametrize("how", damaged_caches())
def test_a_cache_that_is_damaged_is_reported(plain_cache: Path, video: Path, tmp_path: Path, how: str) -> None:
    file = next(plain_cache.glob("*.npz"))
    with np.load(file) as arrays:
        damaged = damaged_caches()[how](file.read_bytes(), dict(arrays))
    if isinstance(damaged, bytes):
        file.write_bytes(damaged)
    else:
        np.savez_compressed(file, **damaged)
    with pytest.raises(VideoError, match="is damaged; delete it, and run again"):
        color(video, out=tmp_path / "a.mp4", cache=plain_cache)
    assert not (tmp_path / "a.mp4").exists()


def test_a_cache_of_gigabytes_of_nothing_is_not_unpacked(plain_cache: Path, video: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("chromatune.video.chroma_cache.MAX_CACHED_BYTES", 10_000)
    monkeypatch.setattr("numpy.load", None)
    with pytest.raises(VideoError, match="is damaged; delete it, and run again"):
        color(video, out=tmp_path / "a.mp4", cache=plain_cache)


@pytest.mark.parametrize(
    "lines",
    ["", "0\nend 3\n", "0\n10\nend 20\n", "0\n10\nend 999999\n", "-5\n3\nend 12\n", "\0\xff\n", "end 9" * 9999],
)
def test_shots_that_are_damaged_are_found_again(plain_cache: Path, video: Path, tmp_path: Path, lines: str) -> None:
    next(plain_cache.glob("shots-*.txt")).write_text(lines, encoding="latin-1")
    result = color(video, out=tmp_path / "a.mkv", codec="ffv1", cache=plain_cache)
    assert (result.frames, result.colored_shots) == (20, 0) and len(rgb_of(result.out)) == 20


def test_shots_of_more_frames_than_any_video_has_are_found_again(plain_cache: Path, video: Path, tmp_path) -> None:
    lines = ["0", "10", "end 99999999999999"]
    text = "\n".join([*lines, hashlib.sha256("\n".join(lines).encode()).hexdigest()])
    next(plain_cache.glob("shots-*.txt")).write_text(text)
    assert color(video, out=tmp_path / "a.mkv", codec="ffv1", cache=plain_cache).frames == 20


def test_another_number_of_frames_than_the_shots_have_is_told(
    engine, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for count in (19, 21):
        monkeypatch.setattr(VideoRun, "_cached_shots", lambda self, count=count: ([0, 10], count))
        with pytest.raises(VideoError, match=f"does not have the {count} frames"):
            color(video, out=tmp_path / "a.mp4")
        assert not (tmp_path / "a.mp4").exists()


def test_a_hint_before_the_first_frame_is_told(engine, video: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="a hint is on frame -1, and no frame has that number"):
        color(video, out=tmp_path / "a.mp4", hints={-1: RED})


def test_a_folder_goes_on_and_makes_a_hinted_shot_again_alone(engine, frame_folder: Path, tmp_path: Path) -> None:
    out = frame_folder / "colored"  # a folder among the frames is no part of the video

    def times() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in out.iterdir()}

    color(frame_folder, out=out)
    names = sorted(path.name for path in frame_folder.iterdir() if path.suffix == ".png")
    assert sorted(times()) == names
    for name in names:
        given, found = cv2.imread(str(frame_folder / name), cv2.IMREAD_GRAYSCALE), cv2.imread(str(out / name))
        assert given is not None and found is not None
        assert np.array_equal(luma(np.ascontiguousarray(found[..., ::-1])), given)
    once = times()
    (out / "scan_00105.png").unlink()
    assert color(frame_folder, out=out).colored_shots == 0
    again = times()
    assert [name for name in once if once[name] != again[name]] == ["scan_00105.png"]
    color(frame_folder, out=out, hints={109: RED})
    hinted = times()
    assert sorted(name for name in again if again[name] != hinted[name]) == [
        f"scan_{number:05d}.png" for number in range(107, 113)
    ]


def test_segments_of_a_very_long_shot_go_on_with_each_other(
    engine, studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = studio.write(tmp_path / "film.mp4", studio.aged(studio.pan(studio.texture(1), 32, step=0.5), 0))
    monkeypatch.setattr("chromatune.video.run.MOST_SEGMENT_FRAMES", 16)
    passes: list[None] = []

    def change_of_mind(self, output) -> np.ndarray:
        passes.append(None)
        return np.full((32, 40, 2), 0.06 if len(passes) <= 2 else 0.12, np.float32)  # two keyframes for each segment

    monkeypatch.setattr(Colorizer, "chroma", change_of_mind)
    result = color(video, out=tmp_path / "out.mkv", codec="ffv1")
    assert len(result.shots) == 1 and len(list((tmp_path / "out.mkv.chroma").glob("*.npz"))) == 2
    means = [redness(rgb) for rgb in rgb_of(tmp_path / "out.mkv")]
    assert abs(means[16] - means[15]) < 1 < 2 < abs(means[31] - means[0])  # 5 at once without


def test_a_preview_is_decoded_once_and_ends_early_with_its_sound(
    engine, video: Path, tmp_path: Path, studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_video(video)
    readings: list[None] = []
    read = type(opened).read

    def counted(self, **colors):
        readings.append(None)
        return read(self, **colors)

    monkeypatch.setattr(type(opened), "read", counted)
    result = color(video, out=tmp_path / "out.mp4", preview_seconds=0.4)
    for file in (tmp_path / "out.mp4.chroma").glob("*.npz"):
        file.unlink()
    color(video, out=tmp_path / "again.mp4", preview_seconds=0.4, cache=tmp_path / "out.mp4.chroma")
    assert len(readings) == 2  # also where the shots were known
    assert result.frames == 10 and len(list(open_video(tmp_path / "out.mp4").read())) == 10
    assert 0 < len(studio.packets(tmp_path / "out.mp4")) < len(studio.packets(video))


def test_a_video_that_is_cut_short_says_so_each_time(engine, studio, tmp_path: Path) -> None:
    video = studio.write(tmp_path / "film.mkv", studio.aged(studio.pan(studio.texture(1), 16), 0))
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    for _ in range(2):
        (warning,) = color(video, out=tmp_path / "out.mp4", overwrite=True).warnings
        assert "film.mkv is cut short" in warning


def test_refusals_are_one_line_and_leave_nothing(engine, video: Path, frame_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "there.mp4").write_bytes(b"mine")
    before, outside = sorted(path.name for path in tmp_path.iterdir()), Hints().point(500, 5, "red")
    cases: list[tuple[Path, dict[str, Any], type[Exception], str]] = [
        (video, {"out": video}, VideoError, "is the video itself"),
        (frame_folder, {"out": frame_folder}, VideoError, "is the video itself"),
        (video, {"out": tmp_path / "there.mp4"}, VideoError, "exists; give another name, or --overwrite"),
        (video, {"out": tmp_path / "no" / "x.mp4"}, VideoError, "its folder does not exist"),
        (video, {"out": tmp_path / "x.gif"}, OptionsError, "accepted are .mp4"),
        (video, {"out": tmp_path / "x.mp4", "hints": {3: outside}}, PhotoError, "frame 3: the hint"),
        (frame_folder, {"out": tmp_path / "x", "hints": {3: RED}}, OptionsError, "no frame has that number"),
        (video, {"out": tmp_path / "y.mp4", "hints": {300: RED}}, OptionsError, "the frames are 0 to 19"),
    ]
    for source, changes, kind, words in cases:
        with pytest.raises(kind, match=words) as caught:
            color(source, **changes)
        assert "\n" not in str(caught.value)
    left = {path.name for path in tmp_path.iterdir()} - set(before)
    assert left <= {"x", "x.chroma", "y.mp4.chroma"} and (tmp_path / "there.mp4").read_bytes() == b"mine"


def test_frames_of_others_are_not_replaced(engine, frame_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "colored").mkdir()
    mine = tmp_path / "colored" / "scan_00103.png"
    mine.write_bytes(b"mine")
    with pytest.raises(VideoError, match="exists; give another folder, or --overwrite"):
        color(frame_folder, out=tmp_path / "colored")
    assert mine.read_bytes() == b"mine"
    color(frame_folder, out=tmp_path / "colored", overwrite=True)
    assert mine.read_bytes() != b"mine"
