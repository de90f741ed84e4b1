"""One training loop for all stages: background batches, checkpoints, resume, EMA, several processes, a log line."""

from __future__ import annotations

import io
import json
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from diffusers.training_utils import EMAModel

from chromatune.files import atomic_write

SAVE_SECONDS = 480.0
LOG_STEPS = 50


def start_ranks() -> None:
    """Joins the other processes where `torchrun` started several; alone, does nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")


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


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step in this process: nothing to save, and processes never share noise."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 64 + rank())


def default_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prefetch(batches: Iterator[Any], depth: int = 4) -> Iterator[Any]:
    """The same batches, made ahead in a thread; its error is raised here."""
    ready: queue.Queue[Any] = queue.Queue(depth)

    def fill() -> None:
        try:
            for item in batches:
                ready.put(item)
        except Exception as error:  # noqa: BLE001 - it is raised where the batches are used
            ready.put(error)

    threading.Thread(target=fill, daemon=True).start()
    while True:
        item = ready.get()
        if isinstance(item, Exception):
            raise item
        yield item


def learning_rate(step: int, steps: int, warmup: int, peak: float, decay: int | None = None) -> float:
    """Linear warm-up, constant at the peak, then cosine to 2 % of it over the last `decay` steps (None: all others).

    A training is ended early, or given more time, by another `steps`: what came before the decay was the same.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    decay = max(1, steps - warmup if decay is None else decay)
    progress = max(0.0, 1 - (steps - step) / decay)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


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


def train(
    name: str,
    model: torch.nn.Module,
    batches: Callable[[int], Iterator[Any]],
    loss_of: Callable[[Any, torch.Generator], tuple[torch.Tensor, dict[str, float]]],
    settings: dict[str, Any],
    work: Path,
    preview: Callable[[int], None] | None = None,
    lr_shares: dict[str, float] | None = None,
) -> torch.nn.Module:
    """Trains `model` for `settings["steps"]` steps and leaves it with its averaged (EMA) weights.

    `batches(k)` starts the stream at step k; `loss_of(batch, generator)` gives the loss and what to log.
    Parameters whose names start with a key of `lr_shares` have that share of the learning rate.
    A checkpoint in `work/name.pt` is continued; a finished one is only loaded.
    """
    steps, device = settings["steps"], default_device()
    model.to(device).train()
    groups = _groups(model, lr_shares or {})
    optimizer = torch.optim.AdamW(groups, lr=settings["lr"], betas=(0.9, 0.99), weight_decay=1e-2)
    ema = EMAModel(model.parameters(), decay=settings.get("ema", 0.999), use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    checkpoint, step = work / f"{name}.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load_state_dict(state["ema"])
        step = state["step"]
    ema.to(device)

    def save() -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema.state_dict()}
        save_atomic({**state, "step": step}, checkpoint)

    stream = prefetch(batches(step))
    sums: dict[str, float] = {}  # of each logged value since the last line
    last_save, last_log, since = time.time(), time.time(), 0
    while step < steps:
        lr = learning_rate(step, steps, settings["warmup"], settings["lr"], settings.get("decay"))
        for group in optimizer.param_groups:
            group["lr"] = lr * group["share"]
        loss, logged = loss_of(next(stream), step_generator(settings["seed"], step))
        if not torch.isfinite(loss):
            raise SystemExit(
                f"{name}: loss is {loss.item()} at step {step}; the checkpoint before it is kept, lower lr"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        ema.step(model.parameters())
        step += 1
        since += 1
        for key, value in logged.items():
            sums[key] = sums.get(key, 0.0) + value
        if rank() == 0 and (step % LOG_STEPS == 0 or step == steps):
            seconds = time.time() - last_log
            row = {"step": step, "of": steps, "steps_per_s": round(since / seconds, 3), "lr": round(lr, 7)}
            row |= {key: round(value / since, 5) for key, value in sums.items()}
            with (work / f"{name}.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            print(f"{name} {json.dumps(row)}  left {(steps - step) * seconds / since / 60:.1f} min", flush=True)
            last_log, sums, since = time.time(), {}, 0
        if rank() == 0 and (time.time() - last_save > SAVE_SECONDS or step == steps):
            save()
            if preview is not None:
                ema.store(model.parameters())
                ema.copy_to(model.parameters())
                model.eval()
                preview(step)
                model.train()
                ema.restore(model.parameters())
            last_save = time.time()
    wait_for_all()
    ema.copy_to(model.parameters())
    return model.eval()
