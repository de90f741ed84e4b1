"""What reaches a terminal: no control character raw, no character it cannot show, no message without an end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromatune.cli import main

HOSTILE = ["\x1b[31mred", "bell\x07", "cr\rlf\nx", "csi\x9b2J", "bidi\u202egpj"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_files_reach_no_terminal_raw(engine, put, capsys, name):
    put(f"{name}.png")
    put("plain.png")
    Path(f"{name}-folder").mkdir()
    Path("broken.jpg").write_bytes(b"no photo")
    photos = [f"{name}.png", f"{name}-folder", f"{name}-gone.png", "broken.jpg"]
    assert main(["colorize", *photos]) == 1
    assert main(["colorize", *photos]) == 1  # exists
    assert main(["colorize", f"{name}.png", "-o", "plain.png"]) == 1  # exists, as a file
    assert main(["colorize", "plain.png", "--model", f"{name}-folder"]) in (0, 1)
    assert main(["evaluate", f"{name}-gone", "--model", "mini"]) in (1, 2)
    captured = capsys.readouterr()
    for line in (captured.out + captured.err).splitlines():
        assert line.isprintable(), repr(line)
    assert all(line.startswith(("error: ", "note: ", "warning: ")) for line in captured.err.split("\n") if line)


@pytest.mark.parametrize(
    "words",
    [["--prompt", "x" * 1_000_000], ["--model", "y" * 1_000_000], ["--device", "z" * 100_000], ["-o", "o" * 100_000],
     ["--steps", "9" * 4000], ["--page", "p" * 100_000]],
)  # fmt: skip
def test_what_a_user_gave_is_cut_in_messages(put, capsys, words):
    put("a.png")
    assert main(["colorize", "a.png", *words]) in (1, 2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and len(error) < 1100


def run(words: list[str], folder: Path, encoding: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "chromatune", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding=encoding, timeout=300)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
def test_a_terminal_that_cannot_show_a_character_ends_nothing(tmp_path, encoding, tiny_pipeline_dir):
    """A name in Japanese, one that is no text at all, and the tables' Δ."""
    rng = np.random.default_rng(0)
    for name in ("祖母.png", "b.png", os.fsdecode(b"\xff\xfe.png")):
        squares = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1)))
        Image.fromarray(squares.astype(np.uint8)).save(tmp_path / name)
    names = sorted(os.listdir(tmp_path))
    model = ["--model", str(tiny_pipeline_dir)]
    done = run(["colorize", *names, *model, "-o", "out"], tmp_path, encoding)
    said = "note: 3 photos are in color already and their own colors are not used, the first: b.png\n"
    assert (done.returncode, done.stderr) == (0, said) and len(done.stdout.splitlines()) == 3
    assert sorted(os.listdir(tmp_path / "out")) == names
    missing = run(["colorize", "祖父.png", *model], tmp_path, encoding)
    assert missing.returncode == 1 and missing.stderr.startswith("error: ") and missing.stderr.count("\n") == 1
    assert run(["models"], tmp_path, encoding).returncode == 0
    if encoding == "cp1252":
        measured = run(["evaluate", ".", *model, "--size", "64", "--out", "結果"], tmp_path, encoding)
        assert measured.returncode == 0 and "CF field" in measured.stdout, measured.stderr
        assert "Traceback" not in measured.stderr
