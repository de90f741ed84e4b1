"""Nothing leaves this machine: ONNX Runtime's own reports are off, whatever it is that colorizes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import numpy as np
from chromatune import Colorizer
Colorizer.load("mini", runtime="onnx").colorize(np.full((64, 64), 99, np.uint8))
"""


def test_colorizing_leaves_no_files_of_telemetry(tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    # It is silent where it thinks that it is tested, too
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ORT_", "CI", "GITHUB", "XDG_"))}
    environment = kept | {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [*home.rglob("*"), *temporary.rglob("*")] == []
