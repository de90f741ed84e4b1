"""One measured part of full_size.py, in a process of its own.

    python benchmarks/full_size_part.py make|chromatune|official|colorize|stock|result JSON

Imports what its part needs, waits for a line with the time (seconds since 1970) when it must have ended, and prints its
figures as one line of JSON. Both trainings run as they come, by their own command lines: a hook that torch calls after
each update counts and times them, and ends the process, so that nothing is saved. The GPU is waited for at both ends of
the measured stretch only.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import runpy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from finetune_speed import make_model
from torch.optim.optimizer import register_optimizer_step_post_hook

Job = dict[str, Any]  # see full_size.py, which writes it
MOST_ROUNDS = 20
HEAVY = {
    "make": ("diffusers", "transformers"),
    "chromatune": ("chromatune.training", "chromatune.evaluation", "kornia.color"),
    "official": ("diffusers", "transformers", "accelerate", "datasets"),
    "colorize": ("chromatune", "diffusers", "transformers"),
    "stock": ("diffusers", "transformers"),
    "result": ("chromatune.training", "chromatune.evaluation"),
}


def peak_gib() -> float:
    """Peak so far: what torch took of the GPU, or the process's resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class UpdateClock:
    """An optimizer's hook: times the updates after the first few, prints the figures and ends the process."""

    def __init__(self, job: Job, deadline: float, leave: Callable[[int], object] = os._exit) -> None:
        self.job, self.deadline, self.leave = job, deadline, leave
        self.born = self.start = time.perf_counter()
        self.first_update, self.updates = 0.0, -job["warm_up"]  # counted from the end of the warm-up

    def __call__(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Count an update."""
        self.updates += 1
        if not self.first_update:
            self.first_update = time.perf_counter() - self.born
        if self.updates == 0:
            synchronize()
            self.start = time.perf_counter()
        if self.updates < 1:
            return
        late = time.perf_counter() - self.start >= self.job["seconds"] or time.time() >= self.deadline
        if late or self.updates == self.job["updates"]:
            synchronize()
            print(json.dumps(self.figures(time.perf_counter() - self.start, optimizer)), flush=True)
            self.leave(0)  # nothing is saved

    def figures(self, seconds: float, optimizer: torch.optim.Optimizer) -> Job:
        """What is reported of `seconds` of training."""
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        return {
            "samples_per_second": self.updates * self.job["batch"] / seconds,
            "updates": self.updates,
            "first_update_seconds": self.first_update,
            "peak_gib": peak_gib(),
            "weights": "/".join(sorted({str(weight.dtype).removeprefix("torch.") for weight in weights})),
            "millions": sum(weight.numel() for weight in weights) / 1e6,
        }


def run_chromatune(job: Job, deadline: float) -> Job:
    """`chromatune finetune`, until the clock ends it."""
    register_optimizer_step_post_hook(UpdateClock(job, deadline))
    _finetune(job["arguments"])
    raise SystemExit("the training ended before it was measured")


def _finetune(arguments: list[str]) -> None:
    from chromatune.cli import main

    if code := main(arguments):
        raise SystemExit(code)


def run_official(job: Job, deadline: float) -> Job:
    """diffusers' script, until the clock ends it."""
    register_optimizer_step_post_hook(UpdateClock(job, deadline))
    sys.path.insert(0, str(Path(job["script"]).parent))
    sys.argv = [job["script"], *job["arguments"]]
    runpy.run_path(job["script"], run_name="__main__")
    raise SystemExit("the training ended before it was measured")


class Sampling:
    """Times a sampler on one photo, and counts how often its U-Net is evaluated."""

    def __init__(self, unet: torch.nn.Module, job: Job, deadline: float) -> None:
        self.job, self.deadline, self.evaluations = job, deadline, 0
        unet.register_forward_pre_hook(self._count)

    def _count(self, unet: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.evaluations += len(inputs[0])  # the branches of guidance go through it as one batch

    def measure(self, title: str, sample: Callable[[], object]) -> Job:
        """Figures of `sample`: the median of calls that go on for a while, at least one."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        times: list[float] = []
        begin, self.evaluations = time.perf_counter(), 0
        while len(times) < MOST_ROUNDS:
            start = time.perf_counter()
            sample()
            synchronize()
            times.append(time.perf_counter() - start)
            if time.perf_counter() - begin >= self.job["seconds"] or time.time() >= self.deadline:
                break
        figures = {"seconds": statistics.median(times), "evaluations": self.evaluations // len(times)}
        return {"title": title, "peak_gib": peak_gib()} | figures


def run_stock(job: Job, deadline: float) -> Job:
    """The stock pipeline with both guidances, at the settings that it has by default for InstructPix2Pix."""
    import diffusers
    from PIL import Image

    gpu = torch.cuda.is_available()
    pipeline = diffusers.StableDiffusionInstructPix2PixPipeline.from_pretrained(
        job["model"], torch_dtype=torch.float16 if gpu else torch.float32, safety_checker=None
    ).to("cuda" if gpu else "cpu")
    pipeline.set_progress_bar_config(disable=True)
    image = Image.open(job["photo"]).convert("RGB")
    sampling = Sampling(pipeline.unet, job, deadline)

    def sample(steps: int) -> object:
        guidance = {"guidance_scale": 7.0, "image_guidance_scale": 1.5}
        return pipeline("colorize the photo", image=image, num_inference_steps=steps, **guidance).images[0]

    sample(1)
    return {"rows": [sampling.measure("stock pipeline", lambda: sample(job["steps"]))]}


def run_colorize(job: Job, deadline: float) -> Job:
    """`chromatune`'s colorize: as the model's own settings have it, with as many evaluations, and without guidance."""
    from chromatune import Colorizer, make_options
    from chromatune.images import read_photo

    colorizer = Colorizer.load(job["model"], device="cuda" if torch.cuda.is_available() else "cpu", runtime="torch")
    photo, size, steps = read_photo(job["photo"]), job["size_px"], job["steps"]
    unet: torch.nn.Module = colorizer.backend.pipeline.unet  # type: ignore[attr-defined]
    sampling = Sampling(unet, job, deadline)
    rows: list[Job] = []

    def measure(title: str, **settings: Any) -> None:
        if not rows or time.time() < deadline:
            options = make_options(size_px=size, **settings)
            rows.append(sampling.measure(f"chromatune, {title}", lambda: colorizer.colorize(photo, options)))

    colorizer.colorize(photo, make_options(size_px=size, steps=1))
    both = {"guidance_scale": 7.0, "image_guidance_scale": 1.5}
    measure("both guidances", steps=steps, **both)
    own = colorizer.info.resolve(make_options(size_px=size))
    if (own.steps, own.guidance_scale, own.image_guidance_scale) != (steps, *both.values()):
        measure("as the command runs this model")
    else:
        rows[0]["title"] += " (as the command runs this model)"
    measure("no guidance", steps=steps, guidance_scale=1.0, image_guidance_scale=1.0)
    return {"rows": rows}


def run_make(job: Job, deadline: float) -> Job:
    """The models, and what they were made on; half precision takes half the time to write."""
    gpu = torch.cuda.is_available()
    if job["device"] == "cuda" and not gpu:
        raise SystemExit("torch finds no GPU here; give --device cpu")
    start = time.perf_counter()
    for name, channels in (("model", 4), ("editor", 8)):
        folder = Path(job["work"]) / name
        make_model(folder, job["full"], channels=channels, dtype=torch.float16, device=job["device"])
    name = torch.cuda.get_device_name() if gpu else f"{torch.get_num_threads()} CPU threads"
    return {"device": name, "seconds": time.perf_counter() - start}


def run_result(job: Job, deadline: float) -> Job:
    """A training to its end, saved and opened by the stock pipeline."""
    start = time.perf_counter()
    _finetune(job["arguments"])
    seconds, peak = time.perf_counter() - start, peak_gib()
    import diffusers

    pipeline = diffusers.StableDiffusionInstructPix2PixPipeline.from_pretrained(job["result"], safety_checker=None)
    millions = sum(parameter.numel() for parameter in pipeline.unet.parameters()) / 1e6
    channels = pipeline.unet.config.in_channels
    return {"seconds": seconds, "peak_gib": peak, "millions": millions, "channels": channels}


PARTS: dict[str, Callable[[Job, float], Job]] = {
    "make": run_make,
    "chromatune": run_chromatune,
    "official": run_official,
    "colorize": run_colorize,
    "stock": run_stock,
    "result": run_result,
}


def main() -> None:
    """Imports, waits for the start, runs the part."""
    part, job = sys.argv[1], json.loads(sys.argv[2])
    for module in HEAVY[part]:
        importlib.import_module(module)
    if line := sys.stdin.readline():  # nothing where full_size.py has ended
        print(json.dumps(PARTS[part](job, float(line))), flush=True)


if __name__ == "__main__":
    main()
