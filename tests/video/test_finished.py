"""Colors of a finished film, and of finished stills, on the video that they were made from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from chromatune.cli import main
from chromatune.color import chroma_of, fit_gamut, luma, recompose
from chromatune.errors import OptionsError, PhotoError, VideoError
from chromatune.hints import Hints
from chromatune.images import Photo
from chromatune.options import make_options
from chromatune.video import Still, Timecode, VideoOptions, VideoResult, colorize_video, open_video, read_stills

CUT, COUNT = 40, 80
SIZE = (96, 128)


def things(studio, seed: int) -> np.ndarray:
    """A picture with colored things, (H, W, 3) uint8."""
    gray = studio.texture(seed, 200, 320)
    hue = studio.texture(seed + 50, 200, 320) / 255
    chroma = np.dstack([0.5 * (hue - 0.5), 0.4 * (0.5 - hue)]).astype(np.float32)
    return recompose(gray.astype(np.uint8), fit_gamut(chroma, gray / np.float32(255)))


@pytest.fixture(scope="module")
def truth(studio) -> list[np.ndarray]:
    """Two shots in motion, in color."""
    shots = [studio.pan(things(studio, seed), CUT, SIZE, step=1) for seed in (1, 2)]
    return [frame for shot in shots for frame in shot]


@pytest.fixture(scope="module")
def gray(truth: list[np.ndarray], studio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in gray, with a little grain."""
    grays = studio.aged([luma(frame) for frame in truth], 0, grain=2, flicker=0)
    return studio.write(tmp_path_factory.mktemp("finished") / "gray.mkv", grays, codec="ffv1", fmt="gray", sound="flac")


@pytest.fixture(scope="module")
def flickering(truth: list[np.ndarray], studio, gray: Path) -> Path:
    """A film in color whose chroma changes from frame to frame, which lacks frames, and begins later."""
    rng = np.random.default_rng(0)
    frames = []
    for index in sorted({*range(6, COUNT)} - {20, 21, 50}):
        level = luma(truth[index]) / np.float32(255)
        chroma = chroma_of(truth[index] / np.float32(255)) * (1 + 0.2 * rng.standard_normal())
        chroma = fit_gamut((chroma + 0.015 * rng.standard_normal(2)).astype(np.float32), level)
        frames.append(recompose(luma(truth[index]), chroma))
    return studio.write(gray.with_name("flickering.mkv"), frames, codec="ffv1", fmt="bgr0")


def color(video: Path, out: Path, **changes: object) -> VideoResult:
    return colorize_video(open_video(video), replace(VideoOptions(out, None, codec="ffv1"), **changes))  # type: ignore[arg-type]


def rgb_of(path: Path) -> list[np.ndarray]:
    return [frame.rgb for frame in open_video(path).read(colors=True) if frame.rgb is not None]


def mean_chroma(frames: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([chroma_of(frame / np.float32(255)).mean(axis=(0, 1)) for frame in frames])


def error(frames: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> float:
    """Mean distance of chroma, in levels."""
    return float(
        np.mean(
            [
                255 * np.abs(chroma_of(one / np.float32(255)) - chroma_of(other / np.float32(255))).mean()
                for one, other in zip(frames, truth, strict=True)
            ]
        )
    )


def test_a_finished_film_gives_its_colors_without_its_flicker(
    gray: Path, flickering: Path, truth: list[np.ndarray], tmp_path: Path, studio
) -> None:
    result = color(gray, tmp_path / "out.mkv", colors=open_video(flickering))
    assert result.frames == COUNT and result.warnings == ()
    found = rgb_of(result.out)
    lumas = zip(open_video(result.out).read(), open_video(gray).read(), strict=True)
    assert all(np.array_equal(frame.luma, own.luma) for frame, own in lumas)
    assert studio.packets(result.out) == studio.packets(gray)
    changes = np.abs(np.diff(mean_chroma(found), axis=0)).mean()
    assert changes < np.abs(np.diff(mean_chroma(rgb_of(flickering)), axis=0)).mean() / 4
    gray_error = error([np.repeat(luma(frame)[..., None], 3, axis=2) for frame in truth], truth)
    assert error(found, truth) < 0.25 * gray_error


def test_a_run_goes_on_with_the_same_film_only(gray: Path, flickering: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    assert color(gray, out, colors=open_video(flickering)).colored_shots == 2
    assert color(gray, out, colors=open_video(flickering), overwrite=True).colored_shots == 0
    other = tmp_path / "other.mkv"
    other.write_bytes(flickering.read_bytes())
    assert color(gray, out, colors=open_video(other), overwrite=True).colored_shots == 2


def test_another_film_is_refused(gray: Path, tmp_path: Path, studio) -> None:
    frames = studio.pan(things(studio, 7), 50, SIZE)
    other = studio.write(tmp_path / "other.mkv", frames, codec="ffv1", fmt="bgr0")
    for _ in range(2):  # and what was found of it is not taken the next time
        with pytest.raises(VideoError, match=r"other\.mkv does not show this video: no shot is like one of it"):
            color(gray, tmp_path / "out.mkv", colors=open_video(other))
    assert not (tmp_path / "out.mkv").exists()


def test_words_without_a_model_are_said_to_be_left_out(gray: Path, flickering: Path, tmp_path: Path) -> None:
    options = make_options(prompt="warm colors")
    (line,) = color(gray, tmp_path / "a.mkv", colors=open_video(flickering), colorize_options=options).warnings
    assert "no model is used, so" in line and "--model names one" in line


def test_a_gray_film_is_refused(gray: Path, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"gray\.mkv is gray, or of one tint, and gives no colors"):
        color(gray, tmp_path / "out.mkv", colors=open_video(gray))
    assert not list((tmp_path / "out.mkv.chroma").glob("*.npz"))


def test_what_the_film_lacks_is_said_and_left_to_a_model(
    engine, gray: Path, truth: list[np.ndarray], tmp_path: Path, studio
) -> None:
    first = studio.write(tmp_path / "first.mkv", truth[:CUT], codec="ffv1", fmt="bgr0")
    result = color(gray, tmp_path / "out.mkv", colors=open_video(first))
    (line,) = result.warnings
    assert "first.mkv has no colors for 50% of it" in line and "--model names one for them" in line
    assert np.abs(mean_chroma(rgb_of(result.out)[CUT:])).max() < 0.01
    blue = make_options(seed=10)
    result = color(gray, tmp_path / "both.mkv", colors=open_video(first), model="mini", colorize_options=blue)
    assert (mean_chroma(rgb_of(result.out)[CUT:])[:, 0] > 0.05).all()
    assert error(rgb_of(result.out)[:CUT], truth[:CUT]) < 6


def test_hints_are_on_top_of_a_finished_film(gray: Path, flickering: Path, tmp_path: Path) -> None:
    hints = {10: Hints().point(64, 48, "#d01010", 20)}
    plain = rgb_of(color(gray, tmp_path / "plain.mkv", colors=open_video(flickering)).out)
    found = rgb_of(color(gray, tmp_path / "hinted.mkv", colors=open_video(flickering), hints=hints).out)
    patch = np.s_[44:52, 60:68, 0]
    redder = [(one[patch].astype(int) - other[patch]).mean() for one, other in zip(found, plain, strict=True)]
    assert redder[10] > 20 and np.abs(redder[CUT:]).max() == 0


def stills(truth: Sequence[np.ndarray], *places: int | Timecode) -> dict[int | Timecode, Still]:
    index = {place: place if isinstance(place, int) else round(25 * place.seconds) + place.frames for place in places}
    return {place: Still(Photo(luma(truth[at]), rgb=truth[at], name=f"{at}.png")) for place, at in index.items()}


def test_stills_color_their_shots(engine, gray: Path, truth: list[np.ndarray], tmp_path: Path) -> None:
    plain = rgb_of(color(gray, tmp_path / "plain.mkv", model="mini").out)
    given = stills(truth, 12, Timecode(2, 12))
    found = rgb_of(color(gray, tmp_path / "out.mkv", model="mini", stills=given).out)
    for shot in (slice(0, CUT), slice(CUT, COUNT)):
        assert error(found[shot], truth[shot]) < 0.4 * error(plain[shot], truth[shot])


def test_a_still_colors_a_later_shot_of_the_same_scene(engine, truth: list[np.ndarray], tmp_path: Path, studio) -> None:
    frames = [*truth, *truth[20:CUT]]
    grays = studio.aged([luma(frame) for frame in frames], 0, grain=2, flicker=0)
    film = studio.write(tmp_path / "film.mkv", grays, codec="ffv1", fmt="gray")
    starts = [0, CUT, COUNT]
    plain = rgb_of(color(film, tmp_path / "plain.mkv", model="mini", starts=starts).out)
    result = color(film, tmp_path / "out.mkv", model="mini", stills=stills(frames, 12), starts=starts)
    found = rgb_of(result.out)
    assert error(found[COUNT:], frames[COUNT:]) < 0.4 * error(plain[COUNT:], frames[COUNT:])
    assert np.abs(found[60].astype(int) - plain[60]).max() <= 1  # the shot between shows something else
    assert result.warnings == ()


def test_a_still_of_something_else_is_named_and_left_out(
    engine, gray: Path, truth: list[np.ndarray], tmp_path: Path
) -> None:
    wrong = {12: Still(Photo(luma(truth[70]), rgb=truth[70], name="12.png"))}
    result = color(gray, tmp_path / "out.mkv", model="mini", stills=wrong)
    assert result.warnings == ("12.png shows something else than its frame, and is left out",)


def test_names_of_stills_are_numbers_or_timecodes(tmp_path: Path, truth: list[np.ndarray]) -> None:
    names = {
        "120.png": 120,
        "film_00-01-23-12.png": Timecode(83, 12),
        "00.00.07.500.png": Timecode(7.5),
        "1h02m03s.png": Timecode(3723),
        "frame_000007.png": 7,
    }
    for name in names:
        cv2.imwrite(str(tmp_path / name), truth[0][..., ::-1])
    found = read_stills(tmp_path)
    assert {still.photo.name: place for place, still in found.items()} == {
        str(tmp_path / name): place for name, place in names.items()
    }


def test_a_folder_without_usable_stills_is_refused(tmp_path: Path, truth: list[np.ndarray], monkeypatch) -> None:
    with pytest.raises(OptionsError, match="cannot be read"):
        read_stills(tmp_path / "nowhere")
    with pytest.raises(OptionsError, match="no still in it"):
        read_stills(tmp_path)
    cv2.imwrite(str(tmp_path / "5.png"), luma(truth[0]))
    with pytest.raises(PhotoError, match=r"5\.png: is gray; give a picture in color"):
        read_stills(tmp_path)
    cv2.imwrite(str(tmp_path / "00-00-01-02.png"), truth[0])
    cv2.imwrite(str(tmp_path / "00.00.01.02.png"), truth[0])
    with pytest.raises(OptionsError, match="have the same timecode"):
        read_stills(tmp_path)
    monkeypatch.setattr("chromatune.video.stills.MOST_STILLS", 2)
    with pytest.raises(OptionsError, match="3 pictures; at most 2 stills"):
        read_stills(tmp_path)


@pytest.mark.parametrize("place", [COUNT, Timecode(3.5), Timecode(0, 900)])
def test_a_still_of_no_frame_is_refused(engine, gray: Path, truth: list[np.ndarray], tmp_path: Path, place) -> None:
    still = Still(Photo(luma(truth[0]), rgb=truth[0], name="a.png"))
    with pytest.raises(OptionsError, match="no such frame|the frames are 0 to 79"):
        color(gray, tmp_path / "out.mkv", model="mini", stills={place: still})


@pytest.mark.parametrize("words", [["--like", "a.png"], ["--stills", "dir"], ["--blend", "mini:0.5"]])
def test_what_needs_a_model_is_refused_without_one(
    words: list[str], gray: Path, flickering: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["video", str(gray), str(tmp_path / "o.mkv"), "--colors", str(flickering), *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "need a model beside --colors" in said


def test_a_finished_film_is_measured_beside_its_colors_on_the_video(
    gray: Path, flickering: Path, truth: list[np.ndarray], tmp_path: Path, studio
) -> None:
    film = studio.write(tmp_path / "truth.mkv", truth, codec="ffv1", fmt="bgr0")
    assert main(["evaluate", str(film), "--results", f"other={flickering}", "-o", str(tmp_path / "report")]) == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "report" / "video.json").read_text())["rows"]}
    assert list(rows) == ["truth", "gray", "other", "other, on the video"]
    assert rows["other, on the video"]["psnr"] > rows["other"]["psnr"]
    assert rows["other, on the video"]["flicker"] < rows["other"]["flicker"] / 3
