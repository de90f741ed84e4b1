"""The command line as a process of its own: what it loads, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SLOW_TO_LOAD = ("torch", "diffusers", "transformers", "cv2", "numpy", "PIL")
LOADED_BY = """
import sys
{code}
print([name for name in {names} if name in sys.modules])
"""


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import chromatune; chromatune.__version__; dir(chromatune)",
        "import chromatune; chromatune.PhotoError; chromatune.make_options(steps=3)",
        "from chromatune.cli import main; assert main(['--help']) == 0",
        "from chromatune.cli import main; assert main(['colorize', '--help']) == 0",
        "from chromatune.cli import main; assert main(['colorize', 'x.png', '--steps', '0']) == 2",
    ],
)
def test_the_face_loads_neither_model_nor_image_libraries(code: str) -> None:
    output = run_python(LOADED_BY.format(code=code, names=SLOW_TO_LOAD))
    assert output.splitlines()[-1] == "[]"


def test_listing_models_loads_no_torch() -> None:
    code = "from chromatune.cli import main; assert main(['models']) == 0"
    output = run_python(LOADED_BY.format(code=code, names=("torch", "diffusers", "transformers")))
    assert output.splitlines()[-1] == "[]"


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
