"""`python -m studies.paper` as it is typed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from studies.paper.__main__ import main, make_run_settings, public_command, sources_by_role


def test_list_names_question_and_roles(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "unseen-photos: Does a model" in out and "--data others=SOURCE" in out


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("run color", "no experiment 'color'; accepted: ambiguity"),
        ("run peers --budget full", "peers needs photos for 'photos'; give --data photos=SOURCE"),
        ("run peers --data faces=x", "peers has no role 'faces'"),
        ("run peers --data photos=x --data photos=y", "--data: a role is given twice"),
        ("run peers --budget endless", "--budget 'endless': input should be 'quick' or 'full'"),
        ("run peers --size 8", "--size 8: input should be greater than or equal to 32"),
        ("run peers --results x", "--results 'x': accepted is NAME=DIR"),
    ],
)
def test_wrong_usage_is_one_line(typed, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(typed.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


@pytest.fixture
def runs(monkeypatch):
    """What an experiment is run with; nothing is trained."""
    asked = []

    def run_experiment(experiment, budget, data, out, **more):
        claim = SimpleNamespace(text="tuned is better")
        asked.append((experiment.name, budget, data, out, more))
        more["start_stage"]("training", 1)()
        more["on_warning"]("a prompt is cut off")
        return SimpleNamespace(judged=[SimpleNamespace(verdict="holds", claim=claim, value=1.25, low=1, high=1.5)])

    monkeypatch.setattr("studies.paper.experiment.run_experiment", run_experiment)
    monkeypatch.setattr("studies.paper.findings.write_findings", lambda outcome, typed: Path(typed))
    return asked


def test_run_prints_verdicts_and_the_report(capsys, tmp_path, monkeypatch, runs):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHROMATUNE_CACHE", "latents")
    typed = "run peers --data photos=lfw:/home/me/faces --results x=theirs --model m --size 64 --out out"
    typed += " --preset paper --set lr=1e-4 --set seeds=2"
    assert main(typed.split()) == 0
    public = (
        "python -m studies.paper run peers --data photos=lfw:faces --model m --preset paper --set lr=1e-4 --set seeds=2"
        " --budget quick --results x=theirs --size 64"
    )
    printed = capsys.readouterr()
    assert printed.out.splitlines() == ["holds: tuned is better (1.25, 1 … 1.5)", public]
    assert printed.err == "warning: a prompt is cut off\n"
    ((name, budget, data, out, more),) = runs
    assert (name, budget, data, out) == ("peers", "quick", {"photos": "lfw:/home/me/faces"}, Path("out"))
    del more["start_stage"], more["on_warning"]
    assert more == {
        "model": "m", "preset": "paper", "overrides": ("lr=1e-4", "seeds=2"), "results": (("x", "theirs"),),
        "square_px": 64, "cache_dir": Path("latents"),
    }  # fmt: skip


def test_the_folder_bears_the_experiments_name(tmp_path, monkeypatch, runs):
    monkeypatch.delenv("CHROMATUNE_CACHE", raising=False)
    assert main(["run", "peers", "--data", "x"]) == 0
    assert runs[0][3] == Path("experiment-peers")
    assert runs[0][4]["cache_dir"] is None


def test_role_and_source(tmp_path):
    assert sources_by_role(["faces=lfw:x"], {"faces"}) == {"faces": "lfw:x"}
    assert sources_by_role(["x"], {"faces"}) == {"": "x"}
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert sources_by_role([str(odd)], {"faces"}) == {"": str(odd)}


def test_the_command_in_the_report_names_no_folder_of_the_machine():
    settings = make_run_settings(name="peers", data=("lfw:/home/me/faces",), budget="full")
    typed = public_command(settings, {"": "lfw:/home/me/faces"})
    assert typed == "python -m studies.paper run peers --data lfw:faces --budget full"


def test_without_photos_the_quick_budget_takes_examples_that_are_not_in_the_command(
    capsys, tmp_path, monkeypatch, runs
):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "unseen-photos", "--budget", "quick"]) == 0
    examples = Path("experiment-unseen-photos") / "examples"
    assert runs[0][2] == {"faces": str(examples), "others": str(examples)} and len(list(examples.iterdir())) == 24
    assert "python -m studies.paper run unseen-photos --budget quick" in capsys.readouterr().out
