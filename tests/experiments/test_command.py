"""`chromatune experiment` as it is typed."""

from __future__ import annotations

import pytest

from chromatune.cli import main
from chromatune.cli.experiment_command import _role_and_source, _typed
from chromatune.experiments import declaration


def test_list_names_question_and_roles(capsys):
    assert main(["experiment", "list"]) == 0
    out = capsys.readouterr().out
    assert "unseen-photos: Does a model" in out and "--data other-faces=SOURCE" in out


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("experiment run colour", "no experiment 'colour'; accepted: ambiguity"),
        ("experiment run peers", "peers needs photos for 'photos'; give --data photos=SOURCE"),
        ("experiment run peers --data faces=x", "peers has no role 'faces'"),
        ("experiment run peers --data photos=x --data photos=y", "--data: one role twice"),
    ],
)
def test_wrong_usage_is_one_line(typed, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(typed.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_run_prints_verdicts_and_the_report(capsys, tmp_path, monkeypatch, experiment, drawings, tiny_bundle_dir):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(declaration, "find", lambda name: experiment)
    monkeypatch.setenv("CHROMATUNE_CACHE", str(tmp_path / "latents of all runs"))
    typed = f"experiment run small --data {drawings} --model {tiny_bundle_dir} --size 64 --out out"
    assert main(typed.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "out/report.md"
    assert lines[0].startswith("does not hold: tuned is 50 dB better than the mean (")
    assert list((tmp_path / "latents of all runs").iterdir()) and not (tmp_path / "out" / "cache").exists()


def test_role_and_source(tmp_path):
    assert _role_and_source("faces=lfw:x", {"faces"}) == ("faces", "lfw:x")
    assert _role_and_source("x", {"faces"}) == ("", "x")
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert _role_and_source(str(odd), {"faces"}) == ("", str(odd))


def test_the_command_in_the_report_names_no_folder_of_the_machine():
    typed = _typed("peers", [("", "lfw:/home/me/faces")], None, "full", None, 256)
    assert typed == "chromatune experiment run peers --data lfw:faces --budget full"
