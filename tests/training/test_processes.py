"""Several processes through `accelerate launch`, on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline
from safetensors.torch import load_file

from chromatune.training.settings import presets


def launch(processes, photos, model, out, settings, ends=True):
    """Trains in processes of their own; training rows, and what the run says it is."""
    # accelerate's --cpu starts one process unless there is MPI; --multi_gpu starts them all, and gloo joins them.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["-m", "chromatune", "finetune", str(photos), "--model", str(model), "--out", str(out), "-q"]
    command += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode == 0) is ends, done.stderr[-6000:]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return rows, json.loads((out / "run.json").read_text())


def losses_of(rows):
    """The losses of updates and of validations, and all scores, in order."""
    return [value for row in rows for name, value in sorted(row.items()) if name not in ("step", "kind", "of", "lr")]


CHANGES = {"lr": 1e-4, "validate_every": 3, "log_every": 1, "lab_weight": 0, "validation": 0.3, "validation_photos": 3}


@pytest.mark.slow
@pytest.mark.parametrize("aspect", ["square", "buckets"])
def test_two_processes_train_like_one_with_twice_the_batch(
    drawn_photos, tiny_pipeline, tiny_settings, tmp_path, start, aspect
):
    """The draws are the same ones, so the curves differ by rounding alone."""
    changes = {"validate_every": 6, "log_every": 1, "lab_weight": 0, "aspect": aspect}
    changes |= {"size_px": 64} if aspect == "buckets" else {}
    two, facts = launch(2, drawn_photos, tiny_pipeline(), tmp_path / "two", tiny_settings | changes | {"batch": 2})
    _, rows = start("one", **(presets()["quick"] | tiny_settings | changes | {"batch": 4}))
    assert facts["ranks"] == 2
    losses = [[row["noise_loss"] for row in rows if row["kind"] == "train"] for rows in (rows, two)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    assert len(set(losses[0])) == 6


@pytest.mark.slow
def test_processes_train_and_validate_like_one_with_twice_the_batch(
    drawn_photos, tiny_pipeline, tiny_settings, tmp_path, start
):
    """Plain processes, and a U-Net that is split over two: the same losses and scores, and gathered, weights."""
    settings = presets()["quick"] | tiny_settings | CHANGES
    _, rows = start("one", **(settings | {"batch": 4}))
    one = load_file(tmp_path / "one" / "checkpoints" / "step-000006" / "state.safetensors")
    for name, more in (("ddp", {}), ("fsdp", {"sharding": "fsdp"})):
        out = tmp_path / name
        two, facts = launch(2, drawn_photos, tiny_pipeline(), out, tiny_settings | CHANGES | {"batch": 2} | more)
        assert facts["ranks"] == 2 and [row["step"] for row in two] == [row["step"] for row in rows]
        np.testing.assert_allclose(losses_of(two), losses_of(rows), rtol=1e-5, atol=1e-5)
        weights = load_file(out / "checkpoints" / "step-000006" / "state.safetensors")
        assert weights.keys() == one.keys()
        for key, tensor in one.items():
            torch.testing.assert_close(weights[key], tensor, rtol=0, atol=1e-5)
        stock = StableDiffusionInstructPix2PixPipeline.from_pretrained(out / "model", safety_checker=None)
        assert type(stock.unet).__name__ == "UNet2DConditionModel"


@pytest.mark.slow
@pytest.mark.parametrize("parts", ["unet", "lora"])
def test_a_run_goes_on_with_split_weights_and_as_one_process(
    drawn_photos, tiny_pipeline, tiny_settings, tmp_path, start, parts
):
    """Three updates as one process, two more split over two, the last one as one again; and never stopped."""
    settings = tiny_settings | CHANGES | {"lr_schedule": "constant", "checkpoint_every": 1, "parts": parts}
    settings = presets()["quick"] | settings
    _, rows = start("whole", **(settings | {"batch": 4}))
    start("cut", **(settings | {"batch": 4, "max_steps": 3}))
    split = {name: value for name, value in settings.items() if name not in ("description", "validation_steps")}
    split |= {"validation_steps": 1, "batch": 2, "max_steps": 5, "sharding": "fsdp"}
    launch(2, drawn_photos, tiny_pipeline(), tmp_path / "cut", split)
    _, last = start("cut", **(settings | {"batch": 4}))
    trained = [row for row in rows if row["kind"] == "train"]
    lines = (json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines())
    cut = [row for row in lines if row["kind"] == "train"]
    np.testing.assert_allclose(
        [row["noise_loss"] for row in cut], [row["noise_loss"] for row in trained], rtol=1e-5, atol=1e-5
    )
    assert [row["step"] for row in last] == [6, 6]
