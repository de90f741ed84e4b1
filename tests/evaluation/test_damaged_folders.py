"""An evaluation's folder with damaged files: the same call goes on, or says in one line what to do."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from chromatune.errors import DataError, OptionsError
from chromatune.evaluation.evaluation import PROTOCOL_FILE, ROWS_FILE, SUMMARY_FILE, TIMINGS_FILE, evaluate
from chromatune.evaluation.perceptual import FeatureFile
from chromatune.files import lines
from chromatune.files.regular import append_regular

Spoil = Callable[[Path], object]
GRAY = {"method": "gray", "hints": 0, "raw": False, "subset": "held-out", "key": "x"}


@pytest.fixture
def again(settings, whole, evaluated) -> Callable[[Spoil], Path]:
    """Spoils the folder of an evaluation that ended, evaluates again: the folder."""

    def call(spoil: Spoil) -> Path:
        spoil(evaluated)
        evaluate(settings(), evaluated)
        assert (evaluated / SUMMARY_FILE).read_bytes() == (whole / SUMMARY_FILE).read_bytes()
        return evaluated

    return call


def changed(name: str, **values: Any) -> Spoil:
    """Changes fields of the file's second line; `...` takes one away."""

    def spoil(out: Path) -> None:
        lines = (out / name).read_text().splitlines()
        line = json.loads(lines[1]) | values
        lines[1] = json.dumps({key: value for key, value in line.items() if value is not ...})
        (out / name).write_text("\n".join(lines) + "\n")

    return spoil


def second_line(name: str, text: str) -> Spoil:
    def spoil(out: Path) -> None:
        lines = (out / name).read_text().splitlines()
        (out / name).write_text("\n".join([lines[0], text, *lines[2:]]) + "\n")

    return spoil


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        (ROWS_FILE, changed(ROWS_FILE, psnr=...)),
        (ROWS_FILE, changed(ROWS_FILE, psnr="high")),
        (ROWS_FILE, changed(ROWS_FILE, cf_field=None)),
        (ROWS_FILE, changed(ROWS_FILE, ssim=[1.0])),
        (ROWS_FILE, changed(ROWS_FILE, mae=float("nan"))),
        (ROWS_FILE, changed(ROWS_FILE, mae=float("inf"))),
        (ROWS_FILE, changed(ROWS_FILE, mae=10**400)),
        (ROWS_FILE, changed(ROWS_FILE, mae=True)),
        (ROWS_FILE, changed(ROWS_FILE, luma_drift_max=...)),
        (ROWS_FILE, changed(ROWS_FILE, skin_ciede2000="none")),
        (ROWS_FILE, changed(ROWS_FILE, skin_ciede2000=...)),
        (ROWS_FILE, changed(ROWS_FILE, failed=7)),
        (ROWS_FILE, changed(ROWS_FILE, method=["gray"])),
        (ROWS_FILE, changed(ROWS_FILE, hints=None)),
        (ROWS_FILE, changed(ROWS_FILE, raw=0)),
        (ROWS_FILE, changed(ROWS_FILE, key={})),
        (ROWS_FILE, changed(ROWS_FILE, key=...)),
        (ROWS_FILE, second_line(ROWS_FILE, "[" * 200_000)),
        (ROWS_FILE, second_line(ROWS_FILE, "[]")),
        (ROWS_FILE, second_line(ROWS_FILE, "\x00")),
        (TIMINGS_FILE, changed(TIMINGS_FILE, seconds=...)),
        (TIMINGS_FILE, changed(TIMINGS_FILE, seconds="1")),
        (TIMINGS_FILE, changed(TIMINGS_FILE, seconds=[1])),
        (TIMINGS_FILE, changed(TIMINGS_FILE, seconds=float("nan"))),
        (TIMINGS_FILE, changed(TIMINGS_FILE, method=[1])),
        (TIMINGS_FILE, changed(TIMINGS_FILE, hints=...)),
        (TIMINGS_FILE, second_line(TIMINGS_FILE, "7")),
        (PROTOCOL_FILE, lambda out: (out / PROTOCOL_FILE).write_text("[]")),
        (PROTOCOL_FILE, lambda out: (out / PROTOCOL_FILE).write_text("{")),
        (PROTOCOL_FILE, lambda out: (out / PROTOCOL_FILE).write_text("[" * 200_000)),
        (PROTOCOL_FILE, lambda out: (out / PROTOCOL_FILE).write_bytes(b"\xff\xfe")),
    ],
)
def test_damage_is_one_line_that_names_the_file(again, name, spoil):
    with pytest.raises(DataError) as caught:
        again(spoil)
    line = str(caught.value)
    assert name in line and "another --out" in line and line.isprintable()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda out: (out / ROWS_FILE).unlink(),
        pytest.param(lambda out: (out / ROWS_FILE).write_bytes(b""), marks=pytest.mark.slow),
        lambda out: (out / ROWS_FILE).write_bytes((out / ROWS_FILE).read_bytes()[:-9]),
        lambda out: (out / TIMINGS_FILE).write_bytes((out / TIMINGS_FILE).read_bytes()[:-9]),
        pytest.param(lambda out: (out / TIMINGS_FILE).unlink(), marks=pytest.mark.slow),
        pytest.param(lambda out: (out / SUMMARY_FILE).write_text("["), marks=pytest.mark.slow),
    ],
)
def test_what_is_lost_is_measured_again(again, spoil):
    again(spoil)


@pytest.mark.parametrize(
    "stranger",
    [
        {"key": "gone.png"},
        {"hints": 3},
        pytest.param({"method": "another"}, marks=pytest.mark.slow),
        pytest.param({"subset": "elsewhere"}, marks=pytest.mark.slow),
    ],
)
def test_lines_of_what_is_not_measured_do_not_count(again, stranger):
    """A photo that has another name now has the same content, and would be counted twice."""

    def spoil(out: Path) -> None:
        line = json.loads((out / ROWS_FILE).read_text().splitlines()[0])
        with (out / ROWS_FILE).open("a") as file:
            file.write(json.dumps(line | stranger) + "\n")
            file.write(json.dumps(GRAY | stranger | {"failed": "x"}) + "\n")

    again(spoil)


def test_scores_without_their_protocol_are_refused(again):
    with pytest.raises(OptionsError, match="scores of an unknown evaluation; give another --out"):
        again(lambda out: (out / PROTOCOL_FILE).unlink())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_damaged_features_are_one_line(tmp_path, value):
    path = tmp_path / "features.bin"
    with FeatureFile(path, 3) as file:
        file.append({("gray", "a"): np.arange(3.0), ("gray", "b"): np.array([0, value, 1])})
    with (
        FeatureFile(path, 3) as file,
        pytest.raises(DataError, match=r"features\.bin: features are damaged; delete the file"),
    ):
        list(file.batches([("gray", "a"), ("gray", "b")]))


@pytest.mark.parametrize("keep", [0, 1, 32, 44 + 31, 2 * 44 - 1])
def test_cut_features_are_made_again(tmp_path, keep):
    path, names = tmp_path / "features.bin", [("gray", "a"), ("gray", "b")]
    values = {name: np.full(3, float(number)) for number, name in enumerate(names)}
    with FeatureFile(path, 3) as file:
        file.append(values)
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    with FeatureFile(path, 3) as file:
        assert [name in file for name in names] == [keep >= 44, False]
        file.append(values)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("name", [ROWS_FILE, pytest.param(TIMINGS_FILE, marks=pytest.mark.slow), SUMMARY_FILE])
def test_a_full_disk_is_one_line_and_the_same_call_goes_on(settings, whole, tmp_path, monkeypatch, name):
    """Nothing that a full disk says names a file."""
    full = OSError(errno.ENOSPC, "No space left on device")

    class Full(io.BytesIO):
        def flush(self):
            raise full

        close = flush

    out, fsync = tmp_path / "out", os.fsync
    with monkeypatch.context() as patched:
        if name == SUMMARY_FILE:
            notes = []

            def fsync_once(file: int) -> None:
                notes.append(file)
                if len(notes) > 1:
                    raise full
                fsync(file)

            patched.setattr(os, "fsync", fsync_once)
        else:

            def append(path: Path) -> BinaryIO:
                file = append_regular(path)
                if path.name != name:
                    return file
                file.close()
                return Full()

            patched.setattr(lines, "append_regular", append)
        with pytest.raises(DataError, match=rf"{name}: cannot be written \(No space left on device\); make room"):
            evaluate(settings(), out)
    evaluate(settings(), out)
    assert (out / SUMMARY_FILE).read_bytes() == (whole / SUMMARY_FILE).read_bytes()
