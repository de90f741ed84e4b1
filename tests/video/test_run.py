"""Films from end to end by a model pass without a model: frames, hints, cuts, resuming, and refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from chromatune.colorizer import Colorizer
from chromatune.errors import OptionsError, PhotoError, VideoError
from chromatune.hints import Hints
from chromatune.options import make_options
from chromatune.video import VideoOptions, colorize_video, open_video, run

BLUE = make_options(seed=10)
RED = Hints().point(48, 36, "#c02020", 12)


def color(path: Path, wishes: VideoOptions | None = None, **changes):
    return colorize_video(open_video(path), replace(wishes or VideoOptions(Path("unused"), options=BLUE), **changes))


def rgb_of(path: Path) -> list[np.ndarray]:
    return [frame.rgb.astype(int) for frame in open_video(path).read(colors=True)]


def redness(rgb: np.ndarray) -> float:
    return float((rgb[..., 0] - rgb[..., 2]).mean())


def test_a_video_comes_out_with_its_frames_shots_and_luma(engine, video: Path, tmp_path: Path, studio) -> None:
    result = color(video, out=tmp_path / "out.mkv", codec="ffv1")
    assert [shot.start for shot in result.shots] == [0, 14] and result.frames == 28 and result.made == 2
    given, found = list(open_video(video).read()), list(open_video(tmp_path / "out.mkv").read())
    assert all(np.array_equal(one.luma, other.luma) for one, other in zip(given, found, strict=True))
    starts = [[round(1000 * (frame.seconds - frames[0].seconds)) for frame in frames] for frames in (given, found)]
    assert starts[0] == starts[1]
    assert studio.packets(tmp_path / "out.mkv") == studio.packets(video)
    assert all(redness(rgb) < -20 for rgb in rgb_of(tmp_path / "out.mkv"))


def test_frames_of_a_folder_keep_name_depth_and_luma_to_the_bit(engine, frame_folder: Path, tmp_path: Path) -> None:
    from chromatune.color import luma

    color(frame_folder, out=tmp_path / "colored")
    names = sorted(path.name for path in frame_folder.iterdir())
    assert sorted(path.name for path in (tmp_path / "colored").iterdir()) == names
    for name in names:
        given = cv2.imread(str(frame_folder / name), cv2.IMREAD_GRAYSCALE)
        found = cv2.imread(str(tmp_path / "colored" / name))[..., ::-1]
        assert np.array_equal(luma(np.ascontiguousarray(found)), given)


def test_a_hint_colors_its_shot_and_no_other(engine, video: Path, tmp_path: Path) -> None:
    color(video, out=tmp_path / "plain.mkv", codec="ffv1")
    result = color(
        video, out=tmp_path / "hinted.mkv", codec="ffv1", hints={2: RED}, cache=tmp_path / "plain.mkv.chroma"
    )
    assert result.made == 1
    plain, hinted = rgb_of(tmp_path / "plain.mkv"), rgb_of(tmp_path / "hinted.mkv")
    for index in (2, 8, 13):
        x = round(48 - 1.5 * (index - 2))
        assert redness(hinted[index][30:42, x - 6 : x + 6]) > 60
    for index in range(14, 28):
        assert np.array_equal(plain[index], hinted[index])


def test_interrupted_and_gone_on_with_ends_the_same(
    engine, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    color(video, out=tmp_path / "once.mkv", codec="ffv1")
    whole = run.ShotColorizer.shade
    calls: list[int] = []

    def cut_off(self, grays, count, hints, before=None):
        calls.append(count)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, grays, count, hints, before)

    monkeypatch.setattr(run.ShotColorizer, "shade", cut_off)
    with pytest.raises(KeyboardInterrupt):
        color(video, out=tmp_path / "twice.mkv", codec="ffv1")
    assert not (tmp_path / "twice.mkv").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]
    assert color(video, out=tmp_path / "twice.mkv", codec="ffv1").made == 1
    assert all(
        np.array_equal(one, other)
        for one, other in zip(rgb_of(tmp_path / "once.mkv"), rgb_of(tmp_path / "twice.mkv"), strict=True)
    )


def test_a_folder_goes_on_and_makes_a_hinted_shot_again_alone(engine, frame_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "colored"
    color(frame_folder, out=out)
    times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / "scan_00105.png").unlink()
    color(frame_folder, out=out)
    again = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert [name for name in times if times[name] != again[name]] == ["scan_00105.png"]
    color(frame_folder, out=out, hints={111: RED})
    hinted = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert sorted(name for name in again if again[name] != hinted[name]) == [
        f"scan_{number:05d}.png" for number in range(109, 117)
    ]


def test_parts_of_a_very_long_shot_go_on_with_each_other(
    engine, studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = studio.write(tmp_path / "film.mp4", studio.aged(studio.pan(studio.texture(1), 40, step=0.5), 0))
    monkeypatch.setattr(run, "MOST_SHOT_FRAMES", 20)
    passes: list[None] = []

    def change_of_mind(self, output) -> np.ndarray:
        passes.append(None)
        return np.full((32, 40, 2), 0.06 if len(passes) <= 2 else 0.12, np.float32)  # two keys for each part

    monkeypatch.setattr(Colorizer, "chroma", change_of_mind)
    result = color(video, out=tmp_path / "out.mkv", codec="ffv1")
    assert len(result.shots) == 1 and len(list((tmp_path / "out.mkv.chroma").glob("*.npz"))) == 2
    means = [redness(rgb) for rgb in rgb_of(tmp_path / "out.mkv")]
    assert abs(means[20] - means[19]) < 1 < 2 < abs(means[39] - means[0])  # 5 at once without


def test_a_video_whose_grays_are_not_held_is_read_again_to_the_same_end(
    engine, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    color(video, out=tmp_path / "held.mkv", codec="ffv1")
    monkeypatch.setattr(run, "MOST_HELD_BYTES", 1000)
    color(video, out=tmp_path / "again.mkv", codec="ffv1")
    held, again = (rgb_of(tmp_path / name) for name in ("held.mkv", "again.mkv"))
    assert len(held) == 28 and all(np.array_equal(one, other) for one, other in zip(held, again, strict=True))


def test_a_preview_ends_early_with_its_sound(engine, video: Path, tmp_path: Path, studio) -> None:
    result = color(video, out=tmp_path / "out.mp4", preview_seconds=0.4)
    assert result.frames == 10 and len(list(open_video(tmp_path / "out.mp4").read())) == 10
    assert 0 < len(studio.packets(tmp_path / "out.mp4")) < len(studio.packets(video))


def test_refusals_are_one_line_and_leave_nothing(engine, video: Path, frame_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "there.mp4").write_bytes(b"mine")
    before, outside = sorted(path.name for path in tmp_path.iterdir()), Hints().point(500, 5, "red")
    cases = [
        (video, {"out": video}, VideoError, "is the film itself"),
        (frame_folder, {"out": frame_folder}, VideoError, "is the film itself"),
        (video, {"out": tmp_path / "there.mp4"}, VideoError, "exists; give another name, or --overwrite"),
        (video, {"out": tmp_path / "no" / "x.mp4"}, VideoError, "its folder does not exist"),
        (video, {"out": tmp_path / "x.gif"}, OptionsError, "accepted are .mp4"),
        (
            video,
            {"out": tmp_path / "x.mp4", "hints": {3: outside}},
            PhotoError,
            "frame 3: the hint",
        ),
        (frame_folder, {"out": tmp_path / "x", "hints": {3: RED}}, OptionsError, "no frame has that number"),
        (video, {"out": tmp_path / "y.mp4", "hints": {300: RED}}, OptionsError, "there are 28 frames"),
    ]
    for source, changes, kind, words in cases:
        with pytest.raises(kind, match=words) as caught:
            color(source, **changes)
        assert "\n" not in str(caught.value)
    left = {path.name for path in tmp_path.iterdir()} - set(before)
    assert left <= {"x", "x.chroma", "y.mp4.chroma"} and (tmp_path / "there.mp4").read_bytes() == b"mine"


def test_frames_of_others_are_not_replaced(engine, frame_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "colored").mkdir()
    (tmp_path / "colored" / "scan_00103.png").write_bytes(b"mine")
    with pytest.raises(VideoError, match="exists; give another folder, or --overwrite"):
        color(frame_folder, out=tmp_path / "colored")
    assert (tmp_path / "colored" / "scan_00103.png").read_bytes() == b"mine"
    color(frame_folder, out=tmp_path / "colored", overwrite=True)
    assert (tmp_path / "colored" / "scan_00103.png").read_bytes() != b"mine"


def test_a_damaged_cache_is_told(engine, video: Path, tmp_path: Path) -> None:
    color(video, out=tmp_path / "a.mp4")
    kept = next((tmp_path / "a.mp4.chroma").glob("*.npz"))
    kept.write_bytes(kept.read_bytes()[:100])
    with pytest.raises(VideoError, match="is damaged; delete it, and run again"):
        color(video, out=tmp_path / "a.mp4", overwrite=True)
