"""Measures through time: zero where nothing changes, and what was put in where something does."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from chromatune.cli import main
from chromatune.errors import OptionsError
from chromatune.evaluation import videos
from chromatune.evaluation.settings import is_video_source


def test_warp_error_is_what_chroma_changes_along_the_motion() -> None:
    rng = np.random.default_rng(0)
    before = (0.1 * rng.standard_normal((40, 60, 2))).astype(np.float32)
    flow = np.zeros((40, 60, 2), np.float32)
    flow[..., 0] = 3
    moved = np.roll(before, -3, axis=1)
    believed = np.zeros((40, 60), bool)
    believed[:, :57] = True
    assert videos.warp_error(moved, before, flow, believed) == pytest.approx(0, abs=1e-4)
    moved[..., 0] += np.float32(0.02)
    assert videos.warp_error(moved, before, flow, believed) == pytest.approx(255 * 0.02, rel=1e-3)
    moved[:, 57:] = 5
    assert videos.warp_error(moved, before, flow, believed) == pytest.approx(255 * 0.02, rel=1e-3)


def test_divergence_is_scipys() -> None:
    rng = np.random.default_rng(1)
    first, second = (
        videos.channel_histograms(rng.integers(0, top, (30, 40, 3)).astype(np.uint8)) for top in (200, 256)
    )
    expected = np.mean([jensenshannon(one, other) ** 2 for one, other in zip(first, second, strict=True)])
    assert videos.histogram_divergence(first, second) == pytest.approx(expected)
    assert videos.histogram_divergence(first, first) == 0


def test_pairs_across_a_cut_are_skipped() -> None:
    score = videos.TimeScore()
    red, blue = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)
    red[..., 0], blue[..., 2] = 200, 200
    still = np.zeros((8, 8, 2), np.float32), np.ones((8, 8), bool)
    for index in range(12):
        score.add(red if index < 6 else blue, red, None if index in (0, 6) else still, index in (0, 6))
    means = score.means()
    assert means["warp"] == means["flicker"] == means["cdc"] == 0
    assert len(score.warp) == 10 and [len(each) for each in score.divergence.values()] == [10, 8, 4]


def test_a_video_is_told_from_photos(tmp_path: Path) -> None:
    (tmp_path / "odd.mp4").mkdir()
    assert is_video_source("a/film.MKV") and is_video_source("film:frames")
    assert not is_video_source("photos") and not is_video_source(str(tmp_path / "odd.mp4"))


def test_a_video_is_measured_frame_by_frame_and_through_time(
    engine, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    av = pytest.importorskip("av")
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(40, 215, (8, 12, 3)).astype(np.uint8), np.ones((8, 8, 1), np.uint8))
    with av.open("film.mkv", "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for number in range(10):
            view = np.ascontiguousarray(picture[:48, number : number + 64])
            frame = av.VideoFrame.from_ndarray(view, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    assert main(["evaluate", "film.mkv", "--model", "mini", "--seed", "5", "-o", "report"]) == 0
    assert "mini, through time" in capsys.readouterr().out
    summary = json.loads(Path("report/video.json").read_text())
    rows = {row["name"]: row for row in summary["rows"]}
    assert list(rows) == ["truth", "gray", "mini, frame by frame", "mini, through time"]
    assert (summary["frames"], summary["shots"]) == (10, 1)
    assert rows["gray"]["warp"] < 1e-6 < 0.01 < rows["truth"]["warp"] and rows["truth"]["delta_cf"] == 0
    one, other = rows["mini, frame by frame"], rows["mini, through time"]
    assert one["psnr"] == pytest.approx(other["psnr"], abs=0.2)  # this model says the same of all frames
    assert Path("report/video.jpg").stat().st_size > 1000


@pytest.mark.parametrize(
    "words",
    ["--steps 999", "--prompt x", "--limit 4", "--hints 3", "--size 128", "--batch-size 2"],
)
def test_options_of_photos_are_refused_for_a_video(
    words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("film.mkv").write_bytes(b"not read")
    assert main(["evaluate", "film.mkv", "--model", "mini", *words.split()]) == 2
    flag = words.split()[0]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith(f"error: {flag} ") and "film.mkv is a video; leave it out" in said


def test_a_video_needs_a_model_and_color(engine, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="give --model, or a finished film"):
        videos.evaluate_video("film.mkv", [], tmp_path)
