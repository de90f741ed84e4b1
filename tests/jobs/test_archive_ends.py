"""No photo of an archive is lost, whatever ends its run: a kill, a full disk, a destination that is taken away."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chromatune.cli import main

Put = Callable[..., Path]
Capture = pytest.CaptureFixture[str]
LONGEST_SECONDS = 300
KILLS = 5


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def mount_again(disk: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(disk)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux does")
def test_a_full_disk_stops_and_goes_on(engine, drawing, folder: Path, small_disk: Path, capsys: Capture, tree) -> None:
    shapes = [(150, 200)]
    drawing.draw_archive(Path("photos"), 30, shapes=shapes)
    out = str(small_disk / "out")
    assert main(["batch", "photos", out, "-q"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {out}")
    assert "No space left" in last or "full" in last
    assert last.endswith("of 30 photos done; run the same command to resume")
    assert not list(small_disk.rglob("*.part"))
    mount_again(small_disk, "size=40m")
    main(["batch", "photos", out, "-q"])
    main(["batch", "photos", "whole", "-q"])
    assert tree(out) == tree("whole")


@pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux does")
def test_a_read_only_destination_is_one_line(engine, put: Put, small_disk: Path, capsys: Capture) -> None:
    put("photos/a.png")
    out = str(small_disk / "out")
    mount_again(small_disk, "ro")
    assert main(["batch", "photos", out]) == 1
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "cannot be written (Read-only file system)" in errors


def start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "chromatune", "batch", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def results_in(folder: Path) -> int:
    return sum(1 for path in folder.rglob("scan-*") if path.is_file())


@pytest.mark.slow
def test_killed_five_times_equals_uninterrupted(drawing, folder: Path, tree) -> None:
    """SIGKILL while the model loads and between photos, results and rows: same files, each good photo once."""
    broken = drawing.draw_archive(Path("photos"), 300, shapes=[(120, 160), (200, 150), (480, 640)])
    whole = start("photos", "whole", "-q")
    whole.communicate(timeout=LONGEST_SECONDS)
    assert whole.returncode == 1
    chance, killed = random.Random(0), 0
    for wanted in sorted(chance.sample(range(250), KILLS)):
        process = start("photos", "cut", "-q")
        deadline = time.monotonic() + LONGEST_SECONDS
        while process.poll() is None and results_in(Path("cut")) < wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.2))
        killed += process.poll() is None
        process.kill()
        process.communicate()
    last = start("photos", "cut", "-q")
    last.communicate(timeout=LONGEST_SECONDS)
    assert killed == KILLS
    # what a kill leaves beside a result is cleared an hour later
    assert {k: v for k, v in tree("cut").items() if not k.endswith(".part")} == tree("whole")
    failed = [json.loads(line)["photo"] for line in Path("cut/failures.jsonl").read_text().splitlines()]
    assert set(failed) <= set(broken)
    assert results_in(Path("cut")) == 300 - len(failed)


@pytest.mark.slow
def test_watching_takes_what_arrives_and_ends_with_ctrl_c(put: Put) -> None:
    put("photos/a.png")
    process = start("photos", "out", "--watch")
    deadline = time.monotonic() + LONGEST_SECONDS
    while not Path("out/a.png").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    put("photos/later/b.png")
    while not Path("out/later/b.png").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=LONGEST_SECONDS)
    assert process.returncode == 0, errors
    assert output == "out/summary.html\n"
    assert errors.startswith("note: watching photos; Ctrl-C stops it\n")
