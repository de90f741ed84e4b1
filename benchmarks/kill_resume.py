"""SIGKILL at random moments, then resume: the result must equal an uninterrupted run's, bit for bit.

    python benchmarks/kill_resume.py [--kills 10] [--steps 40] [--model mini-base]

Photos are drawn. Kills fall anywhere between the start of a process and what is about its end: while photos are
encoded, between updates, in the middle of a checkpoint.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from safetensors.torch import load_file


def draw_photos(folder: Path, count: int = 24) -> None:
    """Coloured discs on coloured ground."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        image = np.full((96, 112, 3), rng.integers(0, 256, 3), np.uint8)
        for _ in range(8):
            centre, color = rng.integers(0, 100, 2), rng.integers(0, 256, 3)
            cv2.circle(image, tuple(map(int, centre)), int(rng.integers(8, 30)), tuple(map(int, color)), -1)
        cv2.imwrite(str(folder / f"{index:02d}.png"), image)


def main() -> None:
    """Runs once undisturbed, once with kills, and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--model", default="mini-base")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        draw_photos(work / "photos")
        command = [
            sys.executable,
            "-m",
            "chromatune",
            "finetune",
            str(work / "photos"),
            "--model",
            arguments.model,
            "-q",
        ]
        command += ["--max-steps", str(arguments.steps), "--set", "size_px=64", "--set", "batch=4", "--set"]
        command += [
            "checkpoint_every=5",
            "--set",
            "validate_every=10",
            "--set",
            "validation_photos=2",
            "--set",
            "log_every=1",
        ]
        startup, whole_seconds = timed_run(command, work / "whole")
        killed, number = 0, 0
        while killed < arguments.kills:
            process = subprocess.Popen(
                [*command, "--out", str(work / f"cut-{number}")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            # Most of a short run is start-up, which writes nothing: kills fall from a little before its end.
            moment = chance.uniform(0.7 * startup, startup + (whole_seconds - startup) / 4)
            try:
                process.wait(timeout=moment)
                number += 1  # it finished before the kill: on with another run
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
                done = sorted(path.name for path in (work / f"cut-{number}" / "checkpoints").glob("*"))
                print(f"kill {killed} after {moment:.1f} s: {', '.join(done) or 'no checkpoint yet'}", flush=True)
        for index in range(number + 1):
            subprocess.run([*command, "--out", str(work / f"cut-{index}")], check=True, capture_output=True)
        report(work, killed, number + 1)


def timed_run(command: list[str], out: Path) -> tuple[float, float]:
    """Seconds until the first measurement of an undisturbed run, and until its end."""
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    startup = None
    while process.poll() is None:
        if startup is None and (out / "metrics.jsonl").exists():
            startup = time.perf_counter() - start
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"the undisturbed run ended with {process.returncode}")
    return startup or 0.0, time.perf_counter() - start


def report(work: Path, killed: int, runs: int) -> None:
    """Compares models and metrics; exits with 1 where they differ."""
    place = "model/unet/diffusion_pytorch_model.safetensors"
    whole, log = load_file(work / "whole" / place), (work / "whole" / "metrics.jsonl").read_text()
    same, logged = True, True
    for index in range(runs):
        cut = load_file(work / f"cut-{index}" / place)
        same &= whole.keys() == cut.keys() and all(bool((tensor == cut[key]).all()) for key, tensor in whole.items())
        logged &= (work / f"cut-{index}" / "metrics.jsonl").read_text() == log
    said = {True: "equal", False: "DIFFER"}
    print(f"{killed} kills in {runs} runs; weights {said[same]}, metrics {said[logged]}")
    raise SystemExit(0 if same and logged else 1)


if __name__ == "__main__":
    main()
