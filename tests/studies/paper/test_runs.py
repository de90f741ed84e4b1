"""What is trained from what, with which settings, and when two trainings are one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chromatune import Colorizer, color
from chromatune.errors import OptionsError
from chromatune.pipeline import find_pipeline, read_pipeline_info, read_training_data
from studies.paper import declaration
from studies.paper.declaration import BudgetName, Experiment
from studies.paper.photos import open_roles
from studies.paper.runs import OpenedExperiment, apply_overrides, make_runs, preset_for

Open = Callable[..., OpenedExperiment]


@pytest.fixture
def opened(drawings, tmp_path) -> Open:
    """An experiment on drawings, before anything is trained."""

    def open_it(experiment: Experiment, budget: BudgetName = "full", overrides: tuple[str, ...] = (), **changes: Any):
        counts, settings = apply_overrides(experiment.budgets[budget], overrides)
        roles = open_roles(experiment, dict.fromkeys(experiment.roles, str(drawings)), counts)
        model = changes.pop("model", "mini-base")
        fields = {
            "experiment": experiment, "budget": counts, "roles": roles, "out": tmp_path / "out",
            "cache_dir": tmp_path / "cache", "model": model, "preset": preset_for(model), "overrides": settings,
            "results": (), "square_px": 64, "start_stage": lambda name, length: lambda: None,
            "on_warning": lambda line: None,
        }  # fmt: skip
        return OpenedExperiment(**(fields | changes))

    return open_it


def arm_of(experiment: Experiment, name: str) -> declaration.Arm:
    return next(arm for arm in experiment.arms if arm.name == name)


@pytest.mark.parametrize("name", ["unseen-photos", "peers", "domains", "lab-loss"])
def test_the_control_is_the_model_that_is_fine_tuned(opened, tiny_pipeline_dir, name):
    experiment = declaration.find(name)
    control = arm_of(experiment, "untrained")
    folders = []
    for model in ("mini-base", str(tiny_pipeline_dir)):
        at_work = opened(experiment, model=model)
        folders.append(at_work.model_of(control, 0))
        assert at_work.model_of(control, 4) == folders[-1]
    assert folders[0] != folders[1]


def test_nothing_but_the_training_tells_a_fine_tuned_model_from_its_control(opened):
    """Neither the size nor how vivid its colors are made, which `mini-base` has of its own."""
    experiment = declaration.find("peers")
    at_work = opened(experiment, "quick", ("max_steps=1", "lr=1e-12", "seeds=1", "size_px=64"))
    made = {name: at_work.model_of(arm_of(experiment, name), 0) for name in ("fine-tuned", "untrained")}
    at_work.out.mkdir()
    make_runs(at_work)
    info, control = (read_pipeline_info(find_pipeline(model)) for model in made.values())
    shown = ("size_px", "steps", "variant_steps", "guidance_scale", "image_guidance_scale", "vivid", "prompt")
    assert [getattr(info, name) for name in shown] == [getattr(control, name) for name in shown]
    assert control.vivid == 0 and control.size_px == 64
    gray = color.luma(next(iter(at_work.roles["photos"].test)).read())
    before, after = (Colorizer.load(made[name]).colorize(gray).rgb.astype(int) for name in ("untrained", "fine-tuned"))
    assert np.abs(after - before).max() <= 1


def test_the_control_steps_as_the_fine_tuned_models_do(opened):
    """With a scheduler that the settings ask for, before as after."""
    experiment = declaration.find("peers")
    at_work = opened(experiment, "quick", ("max_steps=1", "seeds=1", "size_px=64", "scheduler=euler-ancestral"))
    at_work.out.mkdir()
    make_runs(at_work)
    for name in ("fine-tuned", "untrained"):
        index = json.loads((Path(at_work.model_of(arm_of(experiment, name), 0)) / "model_index.json").read_text())
        assert index["scheduler"][1] == "EulerAncestralDiscreteScheduler", name


def test_the_control_and_the_fine_tuned_models_list_what_the_model_has_seen(opened):
    experiment = declaration.find("peers")
    at_work = opened(experiment, "quick", ("max_steps=1", "seeds=1", "size_px=64"))
    at_work.out.mkdir()
    make_runs(at_work)
    before, control = read_training_data(experiment.model), read_training_data(_made(at_work, "untrained"))
    assert before and control == before
    *ancestors, own = read_training_data(_made(at_work, "fine-tuned"))
    assert tuple(ancestors) == before and own.count > 0


def _made(at_work: OpenedExperiment, arm: str) -> str:
    return at_work.model_of(arm_of(at_work.experiment, arm), 0)


def test_where_nothing_is_trained_the_model_is_measured_as_it_is(opened, tiny_pipeline_dir):
    experiment = declaration.find("ambiguity")
    assert opened(experiment, model=str(tiny_pipeline_dir)).model_of(experiment.arms[0], 0) == str(tiny_pipeline_dir)


def test_no_arm_names_the_model_that_is_fine_tuned_by_default():
    for experiment in declaration.experiments().values():
        assert all(arm.model != experiment.model for arm in experiment.arms)


def test_rates_and_updates_are_relative_to_the_preset_of_the_model(opened, tiny_pipeline_dir):
    experiment = declaration.find("learning-rate")
    rates = {}
    for model in ("mini-base", str(tiny_pipeline_dir)):
        at_work = opened(experiment, model=model)
        found = [at_work.settings_of(arm_of(experiment, name), 3) for name in ("low", "middle", "high", "1e-6")]
        rates[model] = [settings.lr for settings in found]
        share = experiment.budgets["full"].updates
        of_preset = {"quick": 600, "paper": 300}[at_work.preset]
        assert {(s.max_steps, s.validate_every, s.seed, s.photos) for s in found} == {
            (of_preset * share, of_preset * share, 3, None)
        }
    assert rates["mini-base"] == pytest.approx([1e-4, 5e-4, 1e-3, 1e-6])
    assert rates[str(tiny_pipeline_dir)] == pytest.approx([1e-6, 5e-6, 1e-5, 1e-6])


def test_what_is_set_goes_before_all_else(opened):
    experiment = declaration.find("learning-rate")
    at_work = opened(experiment, overrides=("lr=3e-3", "max_steps=7", "gray=rec601", "seeds=2", "train_photos=5"))
    settings = at_work.settings_of(arm_of(experiment, "1e-6"), 1)
    assert (settings.lr, settings.max_steps, settings.gray, settings.seed) == (3e-3, 7, "rec601", 1)
    assert list(at_work.seeds) == [0, 1] and len(at_work.roles["photos"].train) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "'lr': give NAME=VALUE"),
        ("rate=2", "rate"),
        ("lr=-1", "lr=-1"),
        ("seeds=0", "seeds='0'"),
        ("test_photos=x", "test_photos='x'"),
        ("seed=3", "--set seed=3: an experiment decides it"),
        ("photos=3", "set train_photos"),
    ],
)
def test_what_cannot_be_set_is_one_line(text, message):
    budget = declaration.find("peers").budgets["full"]
    with pytest.raises(OptionsError, match=message) as error:
        apply_overrides(budget, [text])
    assert "\n" not in str(error.value)


def test_arms_that_train_the_same_are_trained_once_in_all_experiments(opened):
    folders = {}
    named = {
        "learning-rate": "middle", "prompt-diversity": "thirty prompts", "lab-loss": "noise alone",
        "unseen-photos": "trained on faces", "unseen-prompts": "fine-tuned", "domains": "faces only",
        "peers": "fine-tuned",
    }  # fmt: skip
    for name, arm in named.items():
        experiment = declaration.find(name)
        folders[name] = opened(experiment).training_folder(arm_of(experiment, arm), 2)
    assert len(set(folders.values())) == 1
    decoder, lab = declaration.find("unfreeze"), declaration.find("lab-loss")
    whole = opened(decoder).training_folder(arm_of(decoder, "U-Net"), 0)
    assert whole == opened(lab).training_folder(arm_of(lab, "fixed weight"), 0)


def test_whatever_trains_other_weights_is_another_training(opened, tiny_pipeline_dir, drawings, monkeypatch):
    experiment = declaration.find("peers")
    arm = arm_of(experiment, "fine-tuned")
    first = opened(experiment)
    others: list[Path] = [
        first.training_folder(arm, 1),
        opened(experiment, model=str(tiny_pipeline_dir), preset="quick").training_folder(arm, 0),
        opened(experiment, overrides=("ema=0.5",)).training_folder(arm, 0),
        opened(experiment, overrides=("train_photos=8",)).training_folder(arm, 0),
        opened(experiment, preset="best").training_folder(arm, 0),
    ]
    monkeypatch.setattr("studies.paper.runs.CODE", 2)
    others.append(first.training_folder(arm, 0))
    monkeypatch.undo()
    assert len({first.training_folder(arm, 0), *others}) == len(others) + 1
