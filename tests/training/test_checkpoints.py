"""Checkpoints run no code when they are read, and damaged ones are one line."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from chromatune.data import open_source
from chromatune.errors import DataError
from chromatune.training import checkpoints
from chromatune.training.report import read_metrics
from chromatune.training.run import train
from chromatune.training.saving import save_result
from chromatune.training.settings import TrainSettings

# What accelerate wrote, and what it, torch and diffusers look for
PICKLES = (
    "optimizer.bin", "custom_checkpoint_0.pkl", "random_states_0.pkl", "scheduler.bin", "sampler.bin", "scaler.pt",
    "pytorch_model.bin", "model.pt", "state.pkl", "state.pt",
)  # fmt: skip


class Bomb:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return (os.system, (f"{sys.executable} -c \"open('ran', 'w')\"",))


@pytest.fixture(scope="module")
def half_done(drawn_photos, tiny_pipeline_dir, tiny_settings, tmp_path_factory) -> Path:
    """A run of six updates, stopped after three; its weights were validated once."""
    folder = tmp_path_factory.mktemp("half") / "run"

    class Stopped(Exception):
        pass

    def stop(row):
        if row["kind"] == "train" and row["step"] == 4:
            raise Stopped

    settings = TrainSettings(**(tiny_settings | {"log_every": 1}))
    with pytest.raises(Stopped):
        train(open_source(drawn_photos), str(tiny_pipeline_dir), settings, folder, on_row=stop)
    return folder


@pytest.fixture
def go_on(half_done, drawn_photos, tiny_pipeline_dir, tiny_settings, tmp_path, monkeypatch) -> Callable:
    """Copies the run, spoils the copy, and goes on with it."""
    monkeypatch.chdir(tmp_path)

    def start(spoil: Callable[[Path], object] = lambda folder: None):
        folder = tmp_path / "copy"
        shutil.copytree(half_done, folder)
        spoil(folder / "checkpoints")
        settings = TrainSettings(**(tiny_settings | {"log_every": 1}))
        return train(open_source(drawn_photos), str(tiny_pipeline_dir), settings, folder)

    return start


def state(folder: Path) -> Path:
    return folder / "step-000003" / checkpoints.STATE_FILE


def test_a_checkpoint_holds_no_pickle(half_done):
    files = {path.name for path in (half_done / "checkpoints").rglob("*") if path.is_file()}
    assert files == {checkpoints.STATE_FILE, checkpoints.NOTES_FILE, "best.safetensors"}


def test_pickles_in_a_run_folder_are_never_read(go_on):
    def plant(folder: Path) -> None:
        for where in (folder, folder / "step-000003"):
            for name in PICKLES:
                (where / name).write_bytes(pickle.dumps(Bomb()))

    assert go_on(plant).steps == 6
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "best.safetensors"])
def test_a_pickle_under_the_name_of_a_state_is_refused(go_on, name):
    def plant(folder: Path) -> None:
        target = folder / name if name.startswith("best") else folder / "step-000003" / name
        target.write_bytes(pickle.dumps(Bomb()))

    with pytest.raises(DataError, match="damaged") as caught:
        go_on(plant)
    assert "\n" not in str(caught.value) and not Path("ran").exists()


def test_a_checkpoint_of_an_older_version_is_refused_in_one_line(go_on):
    def age(folder: Path) -> None:
        state(folder).unlink()
        (folder / "step-000003" / "optimizer.bin").write_bytes(pickle.dumps(Bomb()))

    with pytest.raises(DataError, match="was written by another version.*delete .*checkpoints to begin anew"):
        go_on(age)
    assert not Path("ran").exists()


def test_a_checkpoint_of_version_0_1_is_read(go_on):
    """Its names are British."""

    def age(folder: Path) -> None:
        tensors = load_file(state(folder))
        save_file({name.replace("optimizer.", "optimiser."): t for name, t in tensors.items()}, state(folder))

    assert go_on(age).steps == 6


def reshaped(folder: Path) -> None:
    tensors = load_file(state(folder))
    save_file(tensors | {"weights.0": torch.zeros(2, 2)}, state(folder))


def lacking(folder: Path) -> None:
    tensors = load_file(state(folder))
    tensors.pop("optimizer.1.exp_avg")
    save_file(tensors, state(folder))


def of_another_type(folder: Path) -> None:
    tensors = load_file(state(folder))
    save_file(tensors | {"optimizer.0.step": torch.ones((), dtype=torch.int64)}, state(folder))


SCALER = {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 0}


def noted(**changes: object) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        path = folder / "step-000003" / checkpoints.NOTES_FILE
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: state(folder).write_bytes(state(folder).read_bytes()[:-100]),
        lambda folder: (folder / "step-000003" / "state.json").write_text("["),
        reshaped,
        lacking,
        of_another_type,
        noted(format=99),
        noted(averages=-10),
        noted(scaler=SCALER | {"scale": float("nan")}),
        lambda folder: save_file({"unet.a": torch.zeros(1)}, folder / "best.safetensors", metadata={"step": "3"}),
        *(
            pytest.param(spoil, marks=pytest.mark.slow)
            for spoil in (
                lambda folder: state(folder).write_bytes(b""),
                lambda folder: (folder / "step-000003" / "state.json").write_text("[1]"),
                noted(averages="many"),
                noted(averages=True),
                noted(scaler=[1]),
                noted(scaler={"scale": 2.0}),
                noted(scaler=SCALER | {"scale": 0}),
                noted(scaler=SCALER | {"growth_interval": "x"}),
                lambda folder: (folder / "best.safetensors").write_bytes(b"x" * 50),
                lambda folder: save_file({"unet.a": torch.zeros(1)}, folder / "best.safetensors"),
            )
        ),
    ],
)
def test_a_damaged_checkpoint_is_one_line(go_on, spoil):
    with pytest.raises(DataError) as caught:
        go_on(spoil)
    line = str(caught.value)
    assert "\n" not in line and "to begin anew" in line


@pytest.mark.parametrize(
    "strange",
    [
        '{"step": 2, "kind": "validation"}',
        '{"step": 2, "kind": "validation", "noise_loss": NaN}',
        *(
            pytest.param(line, marks=pytest.mark.slow)  # not even read: see tests of read_metrics
            for line in (
                "[" * 200_000,
                '{"step": 1e999, "kind": "validation"}',
                '{"step": 2, "kind": "validation", "noise_loss": "low"}',
            )
        ),
    ],
)
def test_strange_rows_of_measurements_are_no_best_ones(go_on, strange):
    """What validated best must stay known, whatever else stands among the measurements."""

    def spoil(folder: Path) -> None:
        path = folder.parent / "metrics.jsonl"
        path.write_text(f"{strange}\n{path.read_text()}{strange}\n")

    trained = go_on(spoil)
    validated = [row for row in read_metrics(trained.out / "metrics.jsonl") if row["kind"] == "validation"]
    losses = {row["step"]: row.get("noise_loss", float("nan")) for row in validated if row["step"] > 0}
    assert trained.best_step == min((step for step in losses if losses[step] > 0), key=losses.__getitem__)
    save_result(trained, "photos", "quick")


def test_a_scaler_goes_on_where_it_was(go_on):
    assert go_on(noted(scaler=SCALER)).steps == 6  # on a CPU it is not used
