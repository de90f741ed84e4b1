"""Whole experiments: with a tiny pipeline, interrupted and gone on with; and all nine at quick budget (slow)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest
from PIL import Image

from chromatune.data import content_of, open_source
from chromatune.errors import DataError, OptionsError
from chromatune.pipeline import TrainingSet, write_training_data
from chromatune.training import train
from studies.paper import declaration, runs
from studies.paper import experiment as whole
from studies.paper.declaration import Row
from studies.paper.findings import SHOWN_PX, Findings, write_findings
from studies.paper.photos import open_roles


class Killed(Exception):
    """Stands for a SIGKILL."""


@pytest.fixture
def run(experiment, drawings, tiny_pipeline_dir, tmp_path):
    def start(**changes: Any) -> Findings:
        fields: dict[str, Any] = {"data": {"": str(drawings)}, "model": str(tiny_pipeline_dir), "preset": "quick"}
        fields["square_px"] = 64
        declared = changes.pop("declared", experiment)
        return whole.run_experiment(declared, "quick", out=tmp_path / "out", **(fields | changes))

    return start


@pytest.mark.slow
def test_killed_and_run_again_and_what_comes_out(run, experiment, drawings, tmp_path, monkeypatch):
    """Killed in the second of two fine-tuning runs: the first is not trained again, nor anything once all is done."""
    monkeypatch.setenv("CHROMATUNE_CACHE", str(tmp_path / "of the command line alone"))
    started = []

    def counted(source, model, settings, out, **others):
        started.append(out.name)
        if len(started) == 2:
            raise Killed
        return train(source, model, settings, out, **others)

    monkeypatch.setattr(runs, "train", counted)
    with pytest.raises(Killed):
        run(cache_dir=tmp_path / "shared")
    findings = run(cache_dir=tmp_path / "shared")
    assert started[0] != started[1] and started[1:] == started[1:2] * 2
    again = run(cache_dir=tmp_path / "shared")
    assert started[0] != started[1] and started[1:] == started[1:2] * 2
    assert again.judged == findings.judged
    assert {path.name for path in (tmp_path / "shared" / "trainings").iterdir()} == set(started)
    assert not (tmp_path / "out" / "cache").exists()
    assert not (tmp_path / "of the command line alone").exists()
    tested = set((tmp_path / "out" / "tests" / "unseen.txt").read_text().split())
    roles = open_roles(experiment, {"photos": str(drawings)}, experiment.budgets["quick"])
    trained = {item.key for item in roles["photos"].train}
    assert len(trained) == 12 and len(tested) == 3 and not tested & trained
    assert findings.judged[0].verdict == "does not hold"
    rows = findings.scores.rows
    assert {str(row) for row in rows} == {
        "truth/unseen", "gray/unseen", "tuned/unseen", "mean/unseen",
        "truth/asked twice", "gray/asked twice", "tuned/asked twice",
    }  # fmt: skip
    assert rows[Row("tuned", "unseen")]["psnr"].shape == (2, 3)
    assert rows[Row("mean", "unseen")]["luma_drift_max"].max() <= 1
    report = write_findings(findings, "python -m studies.paper run small")
    text = report.read_text()
    assert "Does it run?" in text and "**does not hold**" in text and str(tmp_path) not in text.split("## Verdicts")[1]
    assert (report.parent / "plot.png").stat().st_size > 1000
    numbers = json.loads((report.parent / "results.json").read_text())
    assert numbers["verdicts"][0]["margin"] == 50
    assert set(numbers["rows"]) == {str(row) for row in rows}
    page = (report.parent / "report.html").read_text()
    assert "data:image/png;base64," in page and "data:image/jpeg;base64," in page and 'src="plot' not in page
    lead, rest = page.split('<p class="lead">')[1].split("</p>", 1)
    assert lead.startswith(
        "Claims: 1 of 1 does not hold. The main one, “tuned is 50 dB better than the mean”, does not hold"
    )
    titles = ("Verdicts", "Pictures", "Means and their 95 % intervals", "Numbers", "Declaration")
    assert [title for _, title in sorted((rest.index(f"<h2>{title}"), title) for title in titles)] == list(titles)
    with Image.open(report.parent / "pictures.jpg") as pictures:
        assert pictures.format == "JPEG" and pictures.height > SHOWN_PX


@pytest.fixture
def begun(run, monkeypatch, tmp_path):
    """The folder of an experiment that was killed before its first run."""
    with monkeypatch.context() as patched:
        patched.setattr(whole, "make_runs", lambda opened: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run()
    return tmp_path / "out"


def assert_one_line(error: pytest.ExceptionInfo, start: str) -> None:
    assert str(error.value).startswith(start) and "give another --out" in str(error.value)
    assert "\n" not in str(error.value)


def test_other_facts_are_another_experiment(run, begun):
    with pytest.raises(OptionsError) as error:
        run(square_px=32)
    assert_one_line(error, f"{begun} holds an experiment with square_px=64, and now it is 32")


def test_a_torn_note_of_what_is_run_is_one_line(run, begun):
    note = begun / "experiment.json"
    note.write_bytes(note.read_bytes()[:100])
    with pytest.raises(DataError) as error:
        run()
    assert_one_line(error, f"{note} is damaged")


def test_a_second_process_in_the_folder_is_one_line(run, begun):
    hold = "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{hold}; input()", str(begun / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(OptionsError) as error:
            run()
        other.communicate("\n")
    assert_one_line(error, f"{begun} is in use")


def test_the_folder_is_held_while_runs_are_made(run, monkeypatch, tmp_path):
    """The claim's lock is not let go before the work: from within a run, the folder is in use."""

    def second(opened):
        monkeypatch.undo()
        run()

    monkeypatch.setattr(whole, "make_runs", second)
    with pytest.raises(OptionsError, match="is in use"):
        run()


def test_a_warning_of_several_trainings_is_told_once(run, monkeypatch):
    told: list[str] = []

    def warned(source, model, settings, out, *, on_warning, **others):
        on_warning("a prompt is cut off")
        on_warning("a prompt is cut off")
        raise Killed

    monkeypatch.setattr(runs, "train", warned)
    with pytest.raises(Killed):
        run(on_warning=told.append)
    assert told == ["a prompt is cut off"]


def test_test_photos_that_the_model_was_trained_on_are_told_before_the_work(
    run, experiment, monkeypatch, drawings, tiny_pipeline_dir, tmp_path
):
    """Not those of a test on what is trained on; each test's photos are hashed once, when they are chosen."""
    trained = experiment.tests[0].model_copy(update={"name": "trained", "half": "train"})
    changed = experiment.model_copy(update={"tests": (*experiment.tests, trained)})
    model, items = shutil.copytree(tiny_pipeline_dir, tmp_path / "model"), open_source(drawings).items
    contents = [content_of(item.read()) for item in items if item.key != "broken.jpg"]
    write_training_data(model, [TrainingSet.of("drawn", contents)])
    monkeypatch.setattr(whole, "make_runs", lambda opened: (_ for _ in ()).throw(Killed))
    monkeypatch.setattr(runs, "content_of", lambda rgb_u8: pytest.fail("hashed again"))
    for _ in range(2):
        lines: list[str] = []
        with pytest.raises(Killed):
            run(model=str(model), on_warning=lines.append, declared=changed)
        assert [line.split(": ")[0] for line in lines] == ["test 'unseen'", "test 'asked twice'"]
        assert all("was trained on 3 of the 3 photos measured (drawn: 3)" in line for line in lines)


def test_roles_must_match(run, drawings):
    with pytest.raises(OptionsError, match=r"small needs photos for 'photos'; give --data photos=SOURCE \(drawings\)"):
        run(data={})
    with pytest.raises(OptionsError, match="small has no role 'faces'"):
        run(data={"photos": str(drawings), "faces": str(drawings)})


@pytest.mark.slow
@pytest.mark.parametrize("name", list(declaration.experiments()))
def test_quick_budget_of_every_experiment(name, drawings, tmp_path):
    experiment = declaration.find(name)
    data = dict.fromkeys(experiment.roles, str(drawings))
    findings = whole.run_experiment(experiment, "quick", data, tmp_path / "out", square_px=64)
    assert len(findings.judged) == len(experiment.claims)
    assert set(experiment.rows) <= set(findings.scores.rows)
    assert write_findings(findings, f"python -m studies.paper run {name}").exists()
