"""A training that is killed again and again while it runs ends as one that was not."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

KILLS = 5
STEPS = 60
LONGEST_SECONDS = 240  # of one process
POLL_SECONDS = 0.005


def quiet_environment() -> dict[str, str]:
    """One thread, and a latent cache of the run's own, so that a kill can fall while it is made."""
    return {name: value for name, value in os.environ.items() if name != "CHROMATUNE_CACHE"} | {"OMP_NUM_THREADS": "1"}


def rows_in(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def run_until_killed(command: list[str], log: Path, rows: int, delay_seconds: float) -> bool:
    """Kills the process a little after its log has so many rows; False if it ended before."""
    deadline = time.monotonic() + LONGEST_SECONDS
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(command, env=quiet_environment(), stdout=nowhere, stderr=nowhere) as process:
        while process.poll() is None and rows_in(log) < rows and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        time.sleep(delay_seconds)
        killed = process.poll() is None
        process.kill()
    return killed


@pytest.fixture(scope="module")
def shards(drawn_photos, tmp_path_factory) -> str:
    """Three tar files of four drawn photos each."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(3):
        with tarfile.open(folder / f"drawn-{shard}.tar", "w") as tar:
            for number in range(shard * 4, shard * 4 + 4):
                tar.add(drawn_photos / f"{number:02d}.png", f"{number:02d}.png")
    return str(folder / "drawn-{0..2}.tar")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_killed_at_random_moments_equals_uninterrupted(
    drawn_photos, shards, tiny_pipeline, tiny_settings, tmp_path, kind
):
    """SIGKILL while photos are encoded, between updates, in the middle of a checkpoint: same weights, same log.

    From a stream, each photo is trained with once an epoch, too.
    """
    settings = tiny_settings | {"max_steps": STEPS, "log_every": 1, "validate_every": 20, "checkpoint_every": 2}
    settings |= {"shuffle_buffer": 5, "validation": 0.2} if kind == "shards" else {}
    source = shards if kind == "shards" else str(drawn_photos)
    command = [sys.executable, "-m", "chromatune", "finetune", source, "--model", str(tiny_pipeline()), "-q"]
    command += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]

    def finish(out: Path) -> None:
        words, environment = [*command, "--out", str(out)], quiet_environment()
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=LONGEST_SECONDS)
        assert done.returncode == 0, done.stderr[-2000:]

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(whole)
    chance = random.Random(0)
    total = rows_in(whole / "metrics.jsonl")
    # The first falls before there is a log: into start-up, or while photos are encoded.
    moments = [0, *sorted(chance.sample(range(2, total - 10), KILLS - 1))]
    killed = []
    for rows in moments:
        delay = chance.uniform(0.0, 0.1) if rows else chance.uniform(2.0, 4.0)
        killed.append(run_until_killed([*command, "--out", str(cut)], cut / "metrics.jsonl", rows, delay))
    finish(cut)
    assert sum(killed) >= KILLS - 1, "the processes ended before they were killed"
    weights = "model/unet/diffusion_pytorch_model.safetensors"
    assert (cut / weights).read_bytes() == (whole / weights).read_bytes()
    assert (cut / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    if kind == "shards":
        width, batch = 6, int(str(settings["batch"]))  # of a hash, bytes
        seen = [(out / "stream" / "seen-0-of-1.bin").read_bytes() for out in (whole, cut)]
        assert seen[0] == seen[1] and len(seen[0]) == width * batch * (STEPS + 1)
        photos = [seen[0][first : first + width] for first in range(0, width * batch * STEPS, width)]
        usable = len(set(photos))
        assert 6 <= usable < 12, "some are held out"
        epochs = [photos[first : first + usable] for first in range(0, len(photos) - usable, usable)]
        assert all(len(set(epoch)) == usable for epoch in epochs)
