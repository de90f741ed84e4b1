"""Whole experiments: with a tiny pipeline, interrupted and gone on with; and all nine at quick budget (slow)."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from chromatune.errors import OptionsError
from chromatune.experiments import declaration, running
from chromatune.experiments.report import SHOWN_PX, write_report


class Killed(Exception):
    """Stands for a SIGKILL."""


@pytest.fixture
def run(experiment, drawings, tiny_bundle_dir, tmp_path):
    def start(**changes):
        fields = {"data": {"": str(drawings)}, "model": str(tiny_bundle_dir), "square_px": 64} | changes
        return running.run_experiment(experiment, "quick", out=tmp_path / "out", **fields)

    return start


def test_a_killed_experiment_repeats_no_finished_run(run, monkeypatch):
    """Killed in the second of two fine-tuning runs: the first is not trained again, nor anything once all is done."""
    started = []
    train = running.train

    def counted(source, model, settings, out, **others):
        started.append(out.name)
        if len(started) == 2:
            raise Killed
        return train(source, model, settings, out, **others)

    monkeypatch.setattr(running, "train", counted)
    with pytest.raises(Killed):
        run()
    outcome = run()
    assert started == ["tuned-0", "tuned-1", "tuned-1"]
    again = run()
    assert started == ["tuned-0", "tuned-1", "tuned-1"]
    assert again.judged == outcome.judged


def test_what_comes_out(run, experiment, drawings, tmp_path):
    outcome = run()
    tested = set((tmp_path / "out" / "tests" / "unseen.txt").read_text().split())
    roles = running.open_roles(experiment, {"photos": str(drawings)}, experiment.budgets["quick"])
    trained = {item.key for item in roles["photos"].train}
    assert len(trained) == 12 and len(tested) == 3 and not tested & trained
    assert outcome.judged[0].verdict == "does not hold"
    rows = outcome.resampler.rows
    assert set(rows) == {
        "truth/unseen", "grey/unseen", "tuned/unseen", "mean/unseen",
        "truth/asked twice", "grey/asked twice", "tuned/asked twice",
    }  # fmt: skip
    assert rows["tuned/unseen"]["psnr"].shape == (2, 3)
    assert rows["mean/unseen"]["luma_drift_max"].max() <= 1
    report = write_report(outcome, "chromatune experiment run small")
    text = report.read_text()
    assert "Does it run?" in text and "**does not hold**" in text and str(tmp_path) not in text.split("## Verdicts")[1]
    assert (report.parent / "plot.png").stat().st_size > 1000
    numbers = json.loads((report.parent / "results.json").read_text())
    assert numbers["verdicts"][0]["margin"] == 50
    page = (report.parent / "report.html").read_text()
    assert "data:image/png;base64," in page and "data:image/jpeg;base64," in page and 'src="plot' not in page
    with Image.open(report.parent / "pictures.jpg") as pictures:
        assert pictures.format == "JPEG" and pictures.height > SHOWN_PX


def test_other_facts_are_another_experiment(run):
    run()
    with pytest.raises(OptionsError, match="holds an experiment with another square_px; give another --out"):
        run(square_px=32)


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
    outcome = running.run_experiment(experiment, "quick", data, tmp_path / "out", square_px=64)
    assert len(outcome.judged) == len(experiment.claims)
    assert set(experiment.rows) <= set(outcome.resampler.rows)
    assert write_report(outcome, f"chromatune experiment run {name}").exists()
