"""The memory that `chromatune finetune --dry-run` prints beside the peak that updates really have, on a CPU.

    python benchmarks/finetune_memory.py
    python benchmarks/finetune_memory.py --model FOLDER --set batch=1 --set optimizer=adafactor --set precision=bf16

Each setting runs in a process of its own: imports and one small update first, then the model is loaded, and some
updates are made of numbers that say nothing. What is measured is the peak of the process's resident memory above that
before the model was loaded.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SETTINGS = (
    ["batch=32"],
    ["batch=32", "gradient_checkpointing=true", "ema=0"],
    ["batch=32", "lab_weight=1", "lab_photos=8", "parts=lora"],
    ["batch=32", "lab_weight=1", "lab_photos=8", "gradient_checkpointing=true", "optimizer=adafactor"],
)


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, or VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def updates(model: str, settings: Any, count: int) -> None:
    """A run's updates, without its photos."""
    import torch
    from diffusers.training_utils import EMAModel

    from chromatune.training import load_initial_model
    from chromatune.training.checkpoints import TrainState
    from chromatune.training.learner import HALVES, Learner, make_optimizer
    from chromatune.training.memory import batch_of
    from chromatune.training.run import run_info, run_scheduler
    from chromatune.training.training_loop import update_ema

    initial = load_initial_model(model)
    info, scheduler = run_info(initial, settings), run_scheduler(initial.pipeline, settings)
    pipeline = type(initial.pipeline)(**(vars(initial.pipeline) | {"info": info, "scheduler": scheduler}))
    learner = Learner(pipeline, settings)
    if settings.gradient_checkpointing:
        learner.checkpoint_gradients()
    for module in filter(None, (learner.unet, learner.vae, learner.photo_encoder)):
        module.to(memory_format=torch.channels_last)
    if settings.frozen_precision != "no":
        learner.halve_frozen(HALVES[settings.frozen_precision])
    weights = learner.trainable()
    optimizer = make_optimizer(learner, settings)
    ema = EMAModel(list(weights.values()), decay=settings.ema) if settings.ema else None
    state = TrainState(weights, ema, optimizer, None)
    for _ in range(count):
        for _ in range(settings.accumulation):
            batch = batch_of(learner, settings, info.size_px)
            with torch.autocast("cpu", HALVES.get(settings.precision), settings.precision != "no"):
                loss = learner(batch)["loss"]
            loss.backward()
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        update_ema(state)


def measure(model: str, overrides: list[str], count: int) -> None:
    """Prints the two figures as a line of JSON."""
    from chromatune.training import resolve_settings
    from chromatune.training.memory import cost_of

    settings = resolve_settings("quick", None, overrides)
    small = settings.model_copy(update={"batch": 1, "lab_photos": 1, "accumulation": 1})
    updates("mini-base", small, 1)
    expected = cost_of(model, settings).memory
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    updates(model, settings, count)
    print(json.dumps({"expected": expected, "measured": resident("VmHWM") - before}))


def main() -> None:
    """Parses the command line, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini-base")
    parser.add_argument("--set", action="append", dest="overrides", metavar="KEY=VALUE", help="one setting alone")
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        measure(arguments.model, arguments.overrides or [], arguments.updates)
        return
    print("| settings | by --dry-run, MB | measured, MB | ratio |\n| --- | ---: | ---: | ---: |")
    # Blocks of freed memory go back to the system, so that what is resident is what is used
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    for overrides in [arguments.overrides] if arguments.overrides else SETTINGS:
        command = [sys.executable, __file__, "--here", "--model", arguments.model]
        command += ["--updates", str(arguments.updates)]
        command += [word for each in overrides for word in ("--set", each)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        found = json.loads(done.stdout.splitlines()[-1])
        megabytes = [found[name] / 1e6 for name in ("expected", "measured")]
        ratio = megabytes[0] / megabytes[1]
        print(f"| {' '.join(overrides)} | {megabytes[0]:,.0f} | {megabytes[1]:,.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
