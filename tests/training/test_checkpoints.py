"""Checkpoints run no code when they are read, and damaged ones are one line."""

from __future__ import annotations

import errno
import itertools
import json
import os
import pickle
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from chromatune.data import open_source
from chromatune.errors import DataError, OptionsError
from chromatune.training import checkpoints
from chromatune.training.dataset import BatchSampler
from chromatune.training.measurements import read_metrics
from chromatune.training.run import train
from chromatune.training.saving import save_result
from chromatune.training.settings import TrainSettings, describe_changes

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
        noted(pairs=-1),
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


def trained(half_done, tmp_path, drawn_photos, model, settings, **given):
    """Goes on with a copy of the run under other settings; its result, and what it warned of."""
    folder = tmp_path / "copy"
    said: list[str] = []
    shutil.copytree(half_done, folder, dirs_exist_ok=True)
    settings = TrainSettings(**(settings | {"log_every": 1} | given))
    return train(open_source(drawn_photos), str(model), settings, folder, on_warning=said.append), said


def test_a_run_goes_on_with_more_updates_and_other_intervals(
    half_done, drawn_photos, tiny_pipeline_dir, tiny_settings, tmp_path
):
    more = {"max_steps": 8, "log_every": 2, "validate_every": 4, "checkpoint_every": 2, "keep": 2}
    result, said = trained(half_done, tmp_path, drawn_photos, tiny_pipeline_dir, tiny_settings, **more)
    rows = read_metrics(result.out / "metrics.jsonl")
    assert result.steps == 8 and len(said) == 2
    assert [row["step"] for row in rows if row["kind"] == "validation"] == [0, 3, 4, 8]
    assert {path.name for path in (result.out / "checkpoints").glob("step-*")} == {"step-000006", "step-000008"}
    with pytest.raises(OptionsError, match="is at update 8 already, and max_steps is 7: give 8 or more"):
        train(
            open_source(drawn_photos),
            str(tiny_pipeline_dir),
            TrainSettings(**(tiny_settings | more | {"max_steps": 7})),
            result.out,
        )


@pytest.mark.parametrize("noted_pairs", [True, False])
def test_other_batches_go_on_behind_the_pairs_that_were_drawn(
    half_done, drawn_photos, tiny_pipeline_dir, tiny_settings, tmp_path, monkeypatch, noted_pairs
):
    """Guards that no pair of an epoch comes twice, or never, when a run goes on with other batches."""
    positions: list[int] = []
    draw = BatchSampler.draw

    def recorded(self, position, *chosen):
        positions.append(position)
        return draw(self, position, *chosen)

    monkeypatch.setattr(BatchSampler, "draw", recorded)
    if not noted_pairs:  # a version before
        folder = tmp_path / "old"
        shutil.copytree(half_done, folder)
        notes = folder / "checkpoints" / "step-000003" / checkpoints.NOTES_FILE
        notes.write_text(json.dumps({k: v for k, v in json.loads(notes.read_text()).items() if k != "pairs"}))
        half_done = folder
    result, said = trained(half_done, tmp_path, drawn_photos, tiny_pipeline_dir, tiny_settings, batch=3, accumulation=2)
    first = 6 if noted_pairs else 18  # three updates of two pairs, or of six
    assert sorted(set(positions))[: 3 * 6] == list(range(first, first + 3 * 6))
    assert result.steps == 6 and "6 pairs from here on, 2 before" in said[0]


def test_checkpoints_in_the_background_are_the_same(
    half_done, drawn_photos, tiny_pipeline_dir, tiny_settings, tmp_path, monkeypatch
):
    """They are of the moment of the checkpoint, though weights move on while they are written."""
    written = save_file
    moved = threading.Event()

    def late(tensors, path, **named):
        if path.parent.name == "step-000004.tmp":
            assert moved.wait(60)
        written(tensors, path, **named)

    def row(row):
        if row["step"] == 5:
            moved.set()

    monkeypatch.setattr(checkpoints, "save_file", late)
    states = []
    for background in (False, True):
        moved.clear()
        folder = tmp_path / f"{background}"
        shutil.copytree(half_done, folder)
        settings = TrainSettings(**(tiny_settings | {
            "log_every": 1, "checkpoint_every": 4, "keep": 3, "background_checkpoints": background}))  # fmt: skip
        if not background:
            moved.set()
        train(open_source(drawn_photos), str(tiny_pipeline_dir), settings, folder, on_row=row)
        states.append([load_file(folder / "checkpoints" / name / checkpoints.STATE_FILE)
                       for name in ("step-000004", "step-000006")])  # fmt: skip
    for ours, theirs in zip(*states, strict=True):
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_checkpoint_that_cannot_be_written_in_the_background_ends_the_run(
    half_done, drawn_photos, tiny_pipeline_dir, tiny_settings, tmp_path, monkeypatch
):
    written = save_file

    def full(tensors, path, **named):
        if path.parent.suffix == ".tmp":
            raise OSError(errno.ENOSPC, "No space left on device")
        written(tensors, path, **named)

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(DataError, match="step-000004: cannot be written .the disk is full"):
        trained(half_done, tmp_path, drawn_photos, tiny_pipeline_dir, tiny_settings,
                background_checkpoints=True, checkpoint_every=4, validate_every=6)  # fmt: skip
    assert checkpoints.latest_checkpoint(tmp_path / "copy") is not None


def test_what_weights_share_in_an_optimizer_is_kept_for_each(tmp_path):
    """As the tables of AdamW of 8 bits; safetensors holds no memory twice."""
    weights = {name: torch.nn.Parameter(torch.ones(2)) for name in "ab"}
    optimizer, table = torch.optim.SGD(weights.values(), lr=1.0), torch.arange(3.0)
    for weight in weights.values():
        optimizer.state[weight] = {"step": 4, "table": table}
    state = checkpoints.TrainState(weights, None, optimizer, None)
    with checkpoints.CheckpointWriter(tmp_path) as writer:
        writer.save(state, 1, 2)
    optimizer.state.clear()
    assert checkpoints.load_checkpoint(tmp_path, state) == (1, 2)
    for weight in weights.values():
        assert optimizer.state[weight]["step"] == 4 and torch.equal(optimizer.state[weight]["table"], table)


def test_the_first_checkpoint_comes_after_five_minutes_of_slow_updates(start, tmp_path):
    """By the clock, long before `checkpoint_every` updates are done; and a checkpoint starts the time anew."""
    times = itertools.count(0.0, 100.0)  # seconds: a look at the clock before each update and after each checkpoint
    _, rows = start(max_steps=9, checkpoint_every=1000, log_every=1000, validate_every=1000, clock=lambda: next(times))
    assert [row["step"] for row in rows if row["kind"] == "train"] == [2, 5, 8, 9]
    assert (tmp_path / "run" / "checkpoints" / "step-000009").is_dir()
    changed = describe_changes({"checkpoint_minutes": 5.0}, {"checkpoint_minutes": 1.0})
    assert changed == ["checkpoint_minutes=1.0 (was 5.0): exact, no update depends on them"]
