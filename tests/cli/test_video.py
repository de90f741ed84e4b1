"""`chromatune video`: what it prints, and a line for each thing that is wrong."""

from __future__ import annotations

import functools
import io
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromatune.cli import main

av = pytest.importorskip("av")
Capture = pytest.CaptureFixture[str]


@functools.cache
def clip(count: int, cut: int | None) -> bytes:
    rng, (width, height) = np.random.default_rng(0), (64, 48)
    pictures = [np.kron(rng.integers(40, 215, (8, 16)).astype(np.uint8), np.ones((8, 8), np.uint8)) for _ in "ab"]
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(count):
            view = pictures[cut is not None and number >= cut][:height, number % 64 : number % 64 + width]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(view), format="gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file.getvalue()


def write(path: str, count: int = 12, cut: int | None = None) -> str:
    Path(path).write_bytes(clip(count, cut))
    return path


@pytest.fixture(autouse=True)
def unhashed_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """No megabytes of weights are hashed for a model that is not run."""
    monkeypatch.setattr("chromatune.video.run.weights_hash", lambda model: "0")


def test_a_video_is_colored_and_its_path_printed(engine, folder: Path, capsys: Capture) -> None:
    assert main(["video", write("a.mp4", cut=6), "b.mp4", "--seed", "9", "--shots", "shots.txt"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "b.mp4\n" and printed.err == "note: 12 frames in 2 shots\n"
    assert Path("shots.txt").read_text().splitlines()[1:] == ["0", "6"]
    Path("shots.txt").write_text("0\n4\n")
    assert main(["video", "a.mp4", "b.mp4", "--shots", "shots.txt", "--overwrite", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "") and Path("shots.txt").read_text() == "0\n4\n"


def test_hints_come_as_points_and_as_layers(engine, folder: Path, capsys: Capture) -> None:
    write("a.mp4", cut=6)
    rgba = np.zeros((48, 64, 4), np.uint8)
    rgba[10:30, 10:30] = 160, 30, 30, 255
    Path("layers").mkdir()
    Image.fromarray(rgba).save("layers/frame_0008.png")
    command = ["video", "a.mp4", "out", "--hints-dir", "layers", "--hint", "2:20,20,8=#2040c0"]
    assert main(command) == 0
    first, second = (np.asarray(Image.open(f"out/{number:06d}.png").convert("RGB")).astype(int) for number in (2, 8))
    assert first[20, 20, 2] - first[20, 20, 0] > 40 and second[20, 20, 0] - second[20, 20, 2] > 40
    assert main([*command[:3], "--hint", "2:20,20,8=#20c040"]) == 0
    assert "2 shots, 0 of them" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a.mp4", "b.mp4", "--hint", "5,5=red"], "accepted is FRAME:X,Y=COLOR"),
        (["a.mp4", "b.mp4", "--hint", f"{'9' * 5000}:5,5=red"], "accepted is FRAME:X,Y=COLOR"),
        (["a.mp4", "b.mp4", "--hint", f"{'9' * 20}:5,5=red"], "the frames are 0 to 11"),
        (["a.mp4", "b.mp4", "--hint", "3:5=red"], "accepted is X,Y=COLOR"),
        (["a.mp4", "b.mp4", "--hint", "99:5,5=red"], "the frames are 0 to 11"),
        (["a.mp4", "b", "--codec", "ffv1"], "is a folder of frames; leave it out"),
        (["a.mp4", "b.mp4", "--no-recompose"], "a video needs the photo's own luminance"),
        (["a.mp4", "b.mp4", "--invert"], "a video cannot be inverted; leave out --invert"),
        (["a.mp4", "b.mp4", "--variant", "2"], "a video has no variants; leave out --variant"),
        (["a.mp4", "b.mp4", "--hints-dir", "none"], "give a folder of painted layers"),
        (["a.mp4", "b.mp4", "--model", "unknown"], "unknown"),
        (["text.mp4", "b.mp4"], "no video"),
    ],
)
def test_what_is_wrong_is_one_line(engine, folder: Path, capsys: Capture, words: list[str], told: str) -> None:
    write("a.mp4")
    Path("text.mp4").write_text("text\n" * 99)
    assert main(["video", *words]) in (1, 2)
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and told in printed.err
    assert not Path("b.mp4").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(engine, folder: Path, capsys: Capture) -> None:
    resource = pytest.importorskip("resource")
    write("a.mp4", 16)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert main(["video", "a.mp4", "first.mp4", "-q", "--cache", "kept"]) == 0  # what is in the cache is no question
    size = Path("first.mp4").stat().st_size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
        assert main(["video", "a.mp4", "b.mp4", "--cache", "kept"]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and "b.mp4: cannot be written" in printed.err
    assert sorted(path.name for path in folder.iterdir()) == ["a.mp4", "first.mp4", "kept"]


@pytest.mark.slow
def test_killed_five_times_it_ends_with_the_same_frames(folder: Path) -> None:
    write("a.mp4", 120, cut=50)
    command = [sys.executable, "-m", "chromatune", "video", "a.mp4"]
    subprocess.run([*command, "once.mkv", "--codec", "ffv1", "-q"], check=True, timeout=300)
    cache = folder / "out.mkv.chroma"

    def has_written(pid: int) -> bool:
        with suppress(FileNotFoundError):  # it has its own name by now
            return any(path.stat().st_size for path in folder.glob(f".out.mkv.*-{pid}-*"))
        return True

    states: list[Callable[[int], bool]] = [  # in which it is killed
        lambda pid: True,
        lambda pid: any(cache.glob("shots-*")),
        lambda pid: any(cache.glob("shot-*.npz")),
        lambda pid: len(list(cache.glob("shot-*.npz"))) == 2,
        has_written,
    ]
    for is_reached in states:
        process = subprocess.Popen([*command, "out.mkv", "--codec", "ffv1", "-q"])
        while process.poll() is None and not is_reached(process.pid):
            time.sleep(0.002)
        process.kill()
        process.wait()
    finished = Path("out.mkv").exists()
    subprocess.run([*command, "out.mkv", "--codec", "ffv1", "-q", *["--overwrite"] * finished], check=True, timeout=300)
    once, again = ([frame.to_ndarray() for frame in av.open(name).decode(video=0)] for name in ("once.mkv", "out.mkv"))
    assert len(once) == len(again) == 120
    assert all(np.array_equal(one, other) for one, other in zip(once, again, strict=True))
