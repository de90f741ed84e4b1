"""The command line as a process of its own: what it loads, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

STARTS = [  # code, and libraries that it must not load: image libraries, too, but where they are needed
    "import chromatune; chromatune.__version__; dir(chromatune)",
    "import chromatune; chromatune.PhotoError; chromatune.make_options(steps=3)",
    "from chromatune.cli import main; assert main(['--help']) == 0",
    "from chromatune.cli import main; assert main(['colorize', '--help']) == 0",
    "from chromatune.cli import main; assert main(['colorize', 'x.png', '--steps', '0']) == 2",
]
LISTING = "from chromatune.cli import main; assert main(['models']) == 0"
SLOW_TO_LOAD = ("torch", "diffusers", "transformers", "cv2", "numpy", "PIL")


def test_neither_start_nor_help_loads_model_or_image_libraries() -> None:
    """One process does one after the other: what one loads, the later ones have loaded."""
    code = f"""
import sys
for code in {STARTS!r}:
    exec(code)
    loaded = [name for name in {SLOW_TO_LOAD!r} if name in sys.modules]
    assert not loaded, (code, loaded)
exec({LISTING!r})
loaded = [name for name in {SLOW_TO_LOAD[:3]!r} if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_python_dash_m_and_its_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chromatune", "colorize", "gone.jpg"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "error: gone.jpg: no such file; check the path\n"


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chromatune", "colorize", "--help"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=120)
    assert errors == b""


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_streams_end_nothing_and_fall_into_no_file(put: Callable[..., Path], folder: Path, closed) -> None:
    put("photos/a.png")
    Path("photos/b.png").write_bytes(b"none")
    words = [sys.executable, "-m", "chromatune", "batch", "photos", "out"]
    code = f"import os, sys; [os.close(each) for each in {closed}]; os.execv(sys.executable, {words})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stdout == (b"" if 1 in closed else b"out/summary.html\n")
    assert (b"error: photos/b.png" in done.stderr) is (2 not in closed)
    assert b"Traceback" not in done.stderr
    written = [path for path in Path("out").rglob("*") if path.is_file()]
    assert Path("out/a.png") in written
    said = (b"error: photos", b"colorizing")  # on a stream
    assert not any(each in path.read_bytes() for path in written for each in said)


def test_a_picture_is_not_written_to_a_closed_stream(put: Callable[..., Path], folder: Path) -> None:
    put("a.png")
    words = [sys.executable, "-m", "chromatune", "colorize", "a.png", "-o", "-"]
    code = f"import os, sys; os.close(1); os.execv(sys.executable, {words})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: standard output is closed; send it to a file or a program, or give -o FILE\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_messages_that_nobody_takes_end_no_run(put: Callable[..., Path], folder: Path) -> None:
    put("photos/a.png")
    Path("photos/b.png").write_bytes(b"none")
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "chromatune", "batch", "photos", "out"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stdout == b"out/summary.html\n"
