"""One training loop for all stages: background batches, checkpoints, resume, EMA, several processes, a log line.

A training ends after its steps, or when its time is up (`TimeLimit`).
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.distributed as dist
from diffusers.training_utils import EMAModel

from chromatune.files import atomic_write
from chromatune.pipeline import quiet_libraries

SAVE_SECONDS = 480.0
LOG_STEPS = 50
LOG_SECONDS = 20.0
UNTIMED_STEPS = 3  # compiling and choosing kernels: no measure of those that follow


def default_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class TimeLimit:
    """The time that a run has, from the start of its process to its last file.

    Attributes:
        seconds: in all.
        started: by `time.monotonic()`.
        reserve: seconds of them that are kept for what comes after the training.
    """

    def __init__(self, minutes: float, started: float) -> None:
        self.seconds, self.started, self.reserve = 60 * minutes, started, 0.0

    def left(self) -> float:
        """Seconds until the training must be over; below 0 when it is late."""
        return self.started + self.seconds - self.reserve - time.monotonic()


@dataclass(frozen=True)
class Machine:
    """What a training runs on.

    Attributes:
        device: of the weights.
        precision: of autocast; float32 means none.
        loaders: processes that make pairs; 0 for a thread.
        compiled: let torch.compile rewrite what is trained.
        save_seconds: between two checkpoints; None for `SAVE_SECONDS`.
        limit: ends the training in place of its number of steps.
    """

    device: torch.device = field(default_factory=default_device)
    precision: torch.dtype = torch.float32
    loaders: int = 0
    compiled: bool = False
    save_seconds: float | None = None
    limit: TimeLimit | None = None

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def freeze(self, *modules: Any) -> None:
        """Moves modules that are not trained here, on a GPU in float16: bfloat16 has too few digits for latents."""
        dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        with quiet_libraries():  # diffusers warns of modules to keep in float32; there are none
            for module in modules:
                module.requires_grad_(False).to(self.device, dtype)


class Companion(Protocol):
    """Something that is trained along by a loss of its own, and saved with the model."""

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimizer."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave."""


def start_ranks() -> None:
    """Joins the other processes where `torchrun` started several; alone, does nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


def rank() -> int:
    """This process's number, 0 when alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share_of(batch: int) -> int:
    """How many of a batch's `batch` members this process makes."""
    return max(1, batch // ranks())


def wait_for_all() -> None:
    """Returns when every process has come here."""
    if dist.is_initialized():
        dist.barrier()


def average_gradients(model: torch.nn.Module) -> None:
    """Replaces each gradient by its mean over the processes, in one message."""
    if ranks() == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= ranks()
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()


def said_by_first(*values: float) -> tuple[float, ...]:
    """What the first process says, in all of them: clocks differ, and all must end at the same step."""
    if ranks() == 1:
        return values
    said = torch.tensor(values, dtype=torch.float64)
    dist.broadcast(said, 0)
    return tuple(said.tolist())


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step in this process: nothing to save, and processes never share noise."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 64 + rank())


def draw_noise(shape: torch.Size, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """Standard normal numbers, float32, drawn where they are needed: a GPU has its own, other ones than a CPU's."""
    if device.type == "cpu":
        return torch.randn(shape, generator=generator)
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device)


def prefetch(batches: Iterator[Any], depth: int = 4) -> Generator[Any]:
    """The same batches, made ahead in a thread; its error is raised here. Closed, it ends the thread and `batches`."""
    ready: queue.Queue[Any] = queue.Queue(depth)
    closed = threading.Event()

    def put(item: Any) -> None:
        while not closed.is_set():
            with contextlib.suppress(queue.Full):
                return ready.put(item, timeout=0.2)

    def fill() -> None:
        try:
            with contextlib.closing(cast(Generator[Any], batches)):
                for item in batches:
                    put(item)
                    if closed.is_set():
                        break
        except Exception as error:  # noqa: BLE001 - it is raised where the batches are used
            put(error)

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        closed.set()
        thread.join()


def learning_rate(step: int, steps: float, warmup: int, peak: float, decay: float | None = None) -> float:
    """Linear warm-up, constant at the peak, then cosine to 2 % of it over the last `decay` steps (None: all others).

    A training is ended early, or given more time, by another `steps`: what came before the decay was the same.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    decay = max(1, steps - warmup if decay is None else decay)
    progress = max(0.0, 1 - (steps - step) / decay)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def planned_end(
    step: int, settings: dict[str, Any], limit: TimeLimit | None, step_seconds: float | None
) -> tuple[float, float]:
    """The step at which a training ends, and the steps of its decay, as they look at step `step`.

    With a limit both follow from the time left and `step_seconds`, the mean so far (None: not known yet, so far off).
    The decay then takes `settings["decay_share"]` of the whole time.
    """
    if limit is None:
        return settings["steps"], settings.get("decay", settings["steps"] - settings["warmup"])
    left = limit.left()
    if left <= 0 or (step_seconds is not None and left < step_seconds):
        return step, 1
    if step_seconds is None:
        return math.inf, 1
    return step + left / step_seconds, max(1, settings["decay_share"] * limit.seconds / step_seconds)


def save_atomic(state: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint so that a kill at any moment leaves the old one or the new one."""
    file = io.BytesIO()
    torch.save(state, file)
    atomic_write(path, file.getvalue())


def _groups(model: torch.nn.Module, lr_shares: dict[str, float]) -> list[dict[str, Any]]:
    """The optimizer's groups: one for each share of the learning rate, 1 where no name is given."""
    by_share: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        share = next((share for start, share in lr_shares.items() if name.startswith(start)), 1.0)
        by_share.setdefault(share, []).append(parameter)
    return [{"params": parameters, "share": share} for share, parameters in by_share.items()]


class Pace:
    """Times steps, and keeps a GPU's queue one step long, so that waiting for a batch is told from waiting for the GPU.

    Attributes:
        waited: seconds for batches since `start_row`.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.waited, self.row_began, self.done = 0.0, time.monotonic(), 0
        self._last: torch.cuda.Event | None = None
        self._timed_from: float | None = None

    def next_of(self, stream: Iterator[Any]) -> Any:
        """The next batch."""
        if self._last is not None:
            self._last.synchronize()
        began = time.monotonic()
        batch = next(stream)
        self.waited += time.monotonic() - began
        return batch

    def step_done(self) -> None:
        """A step was given to the device."""
        if self.cuda:
            self._last = torch.cuda.Event()
            self._last.record()
        self.done += 1
        if self.done == UNTIMED_STEPS:
            self._timed_from = time.monotonic()

    def step_seconds(self) -> float | None:
        """Mean of a step; None before there is one to measure."""
        if self._timed_from is None or self.done == UNTIMED_STEPS:
            return None
        return (time.monotonic() - self._timed_from) / (self.done - UNTIMED_STEPS)

    def start_row(self) -> tuple[float, float]:
        """Seconds since the last row of the log, and seconds waited in them; starts the next."""
        now = time.monotonic()
        row = now - self.row_began, self.waited
        self.row_began, self.waited = now, 0.0
        return row


def train(
    name: str,
    model: torch.nn.Module,
    batches: Callable[[int], Iterator[Any]],
    loss_of: Callable[[Any, torch.Generator], tuple[torch.Tensor, dict[str, Any]]],
    settings: dict[str, Any],
    work: Path,
    preview: Callable[[int], None] | None = None,
    lr_shares: dict[str, float] | None = None,
    machine: Machine | None = None,
    companion: Companion | None = None,
) -> torch.nn.Module:
    """Trains `model` to its end (`planned_end`) and leaves it with its averaged (EMA) weights.

    `batches(k)` starts the stream at step k; `loss_of(batch, generator)` gives the loss and what to log, numbers or
    tensors. Parameters whose names start with a key of `lr_shares` have that share of the learning rate.
    A checkpoint in `work/name.pt` is continued; a finished one is only loaded.
    """
    machine = machine or Machine()
    device, limit = machine.device, machine.limit
    model.to(device).train()
    cuda = device.type == "cuda"
    optimizer = torch.optim.AdamW(
        _groups(model, lr_shares or {}), lr=settings["lr"], betas=(0.9, 0.99), weight_decay=1e-2, fused=cuda or None
    )
    decay = settings.get("ema", 0.999)
    ema = EMAModel(model.parameters(), decay=decay, use_ema_warmup=True, inv_gamma=1.0, power=0.75, foreach=cuda)
    checkpoint, step, ended = work / f"{name}.pt", 0, False
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load_state_dict(state["ema"])
        if companion is not None and "companion" in state:
            companion.load_state_dict(state["companion"])
        step, ended = state["step"], state.get("time_was_up", False)
    ema.to(device)

    def save() -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema.state_dict()}
        if companion is not None:
            state["companion"] = companion.state_dict()
        save_atomic({**state, "step": step, "time_was_up": ended and limit is not None}, checkpoint)

    pace = Pace(device)
    sums: dict[str, Any] = {}  # of each logged value since the last line
    finite = torch.ones((), dtype=torch.bool, device=device)
    save_seconds = SAVE_SECONDS if machine.save_seconds is None else machine.save_seconds
    last_save, since, waited, began = time.monotonic(), 0, 0.0, time.monotonic()
    end, decay_steps = said_by_first(*planned_end(step, settings, limit, None))
    ended = ended or step >= end
    stream = prefetch(batches(step)) if not ended else None
    while stream is not None and not ended:
        lr = learning_rate(step, end, settings["warmup"], settings["lr"], decay_steps)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["share"]
        loss, logged = loss_of(pace.next_of(stream), step_generator(settings["seed"], step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        ema.step(model.parameters())
        pace.step_done()
        step, since = step + 1, since + 1
        finite &= torch.isfinite(loss.detach())
        for key, value in logged.items():
            sums[key] = sums.get(key, 0.0) + value
        end, decay_steps = said_by_first(*planned_end(step, settings, limit, pace.step_seconds()))
        ended = step >= end
        row_due = ended or step % LOG_STEPS == 0 or time.monotonic() - pace.row_began > LOG_SECONDS
        save_due = ended or time.monotonic() - last_save > save_seconds
        if (not cuda or row_due or save_due) and not finite:  # on a GPU asking waits for it
            raise SystemExit(f"{name}: the loss is not finite by step {step}; the checkpoint is kept, lower lr")
        if rank() == 0 and row_due:
            seconds, row_waited = pace.start_row()
            waited += row_waited
            row: dict[str, Any] = {
                "step": step,
                "of": round(end) if math.isfinite(end) else None,
                "steps_per_s": round(since / seconds, 3),
                "lr": round(lr, 7),
            }
            row["pairs_per_s"] = round(since * settings["batch"] / seconds, 1)
            row["loader_wait"] = round(row_waited / seconds, 3)
            row |= {key: round(float(value) / since, 5) for key, value in sums.items()}
            with (work / f"{name}.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            print(f"{name} {json.dumps(row)}  left {(end - step) * seconds / since / 60:.1f} min", flush=True)
            sums, since = {}, 0
        if rank() == 0 and save_due:
            save()
            if preview is not None:
                ema.store(model.parameters())
                ema.copy_to(model.parameters())
                model.eval()
                preview(step)
                model.train()
                ema.restore(model.parameters())
            last_save = time.monotonic()
    if stream is not None:
        stream.close()
    if rank() == 0 and pace.done:
        seconds = max(1e-9, time.monotonic() - began)
        rate = pace.done * settings["batch"] / seconds
        print(f"{name}: {pace.done} steps, {rate:.0f} pairs/s, {waited / seconds:.0%} of the time waiting for pairs")
    wait_for_all()
    ema.copy_to(model.parameters())
    return model.eval()
