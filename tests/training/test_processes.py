"""Several processes through `accelerate launch`, on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from chromatune.training.settings import presets


def launch(processes, photos, model, out, settings):
    """Trains in processes of their own; training rows, and what the run says it is."""
    # accelerate's --cpu starts one process unless there is MPI; --multi_gpu starts them all, and gloo joins them.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["-m", "chromatune", "finetune", str(photos), "--model", str(model), "--out", str(out), "-q"]
    command += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == "train"], json.loads((out / "run.json").read_text())


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
    one = [row for row in rows if row["kind"] == "train"]
    assert facts["ranks"] == 2
    losses = [[row["noise_loss"] for row in rows] for rows in (one, two)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    assert len(set(losses[0])) == 6
