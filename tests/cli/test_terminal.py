"""What reaches a terminal: no control character raw, no character it cannot show, no message without an end."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromatune.cli import main
from chromatune.cli.terminal import print_table

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


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
def test_a_terminal_that_cannot_show_a_character_ends_nothing(engine, folder, monkeypatch, encoding):
    """A name in Japanese, one that is no text at all, and the tables' Δ."""
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)

    def written(name: str) -> str:
        streams[name].flush()
        buffer = streams[name].buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode(encoding)

    rng = np.random.default_rng(0)
    Path("in").mkdir()
    for name in ("祖母.png", "b.png", os.fsdecode(b"\xff\xfe.png")):
        squares = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1)))
        Image.fromarray(squares.astype(np.uint8)).save(Path("in", name))
    photos = sorted(str(path) for path in Path("in").iterdir())
    assert main(["colorize", *photos, "-o", "out"]) == 0
    assert written("stderr") == (
        "note: 3 photos are in color already and their own colors are not used, the first: in/b.png\n"
    )
    assert len(written("stdout").splitlines()) == 3
    assert sorted(os.listdir("out")) == sorted(os.listdir("in"))
    assert main(["colorize", "祖父.png"]) == 1
    assert written("stderr").splitlines()[-1].startswith("error: ") and written("stderr").count("\n") == 2
    assert main(["models"]) == 0
    print_table([("ΔCF field", "祖母")])
    assert "CF field" in written("stdout")


def test_the_encoding_of_the_process_is_the_terminals(tmp_path):
    command = [sys.executable, "-m", "chromatune", "colorize", "祖父.png"]
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="cp1252", timeout=300)
    assert (done.returncode, done.stderr) == (1, "error: \\u7956\\u7236.png: no such file; check the path\n")
