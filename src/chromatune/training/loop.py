"""The training loop: from a source of photos and a model to a better model, a curve, and a folder diffusers opens."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from chromatune.data import Source, Split
from chromatune.options import StartStage, silent
from chromatune.pipeline import ModelInfo
from chromatune.training.checkpoints import load_best, load_latest, save_best, save_checkpoint
from chromatune.training.latent_cache import LatentCache
from chromatune.training.loss_watch import LossWatch
from chromatune.training.metrics_log import METRICS_FILE, MetricsLog, OnRow, read_metrics
from chromatune.training.run import OnWarning, Run, opened_run
from chromatune.training.settings import TrainSettings
from chromatune.training.trackers import tracking
from chromatune.training.validation import Score, averaged_weights, measure_anchors, merit, validate
from chromatune.training.widening import TrainablePipeline


@dataclass(frozen=True)
class Trained:
    """What a finished run leaves in memory; `chromatune.training.outcome` writes it down."""

    pipeline: TrainablePipeline  # with the best weights
    info: ModelInfo
    settings: TrainSettings
    out: Path
    steps: int
    best_step: int
    split: Split
    cache: LatentCache
    own_prompts: bool  # whether each photo was trained with an instruction of its own
    is_main: bool  # of several processes, the one that writes


def train(
    source: Source, model: str, settings: TrainSettings, out: Path, *,
    score: Score | None = None, on_row: OnRow = lambda row: None, start_stage: StartStage = silent,
    on_warning: OnWarning = lambda line: None, cache_dir: Path | None = None,
) -> Trained:  # fmt: skip
    """Fine-tunes `model` on the photos of `source`; the same call continues a run that was stopped.

    Args:
        source: the photos; a share of them (whole persons, where known) is held out.
        model: what `open_trainable` takes.
        settings: see `resolve_settings`.
        out: folder of the run: metrics, grids, checkpoints. It is this process's alone while the call lasts.
        score: metrics of a result, for validation; without it only losses are measured.
        on_row: called with each row of `metrics.jsonl`.
        start_stage: shows how far the encoding of photos is.
        on_warning: called with a line on prompts that are cut off, before photos are encoded.
        cache_dir: folder of the latent caches, that runs may share; `out/cache` by default.

    Raises:
        DataError: no usable photos, or the disk is full.
        OptionsError: `out` holds another run, another process is working there, or the settings do not go with the
            model or the photos.
        ModelError: the model cannot be opened.
        ChromaTuneError: the loss is not a number; nothing was updated.
    """
    with (
        opened_run(source, model, settings, out, cache_dir or out / "cache", start_stage, on_warning) as run,
        ThreadPoolExecutor(1) as thread,
        tracking(run.accelerator, out) as track,
    ):
        accelerator, optimizer = run.accelerator, run.optimizer
        step = first = load_latest(run)
        accelerator.wait_for_everyone()
        log, best, anchors = None, -math.inf, {}
        if accelerator.is_main_process:
            log = MetricsLog(out, first or -1, on_row)  # with no checkpoint the run begins anew, at its validation
            best = _best_so_far(out, settings)
            anchors = measure_anchors(run.held_out, score) if score and step < settings.max_steps else {}
        watch = LossWatch(accelerator.device)
        ahead = thread.submit if makes_batches_ahead(accelerator.device) else _at_once
        ranks = (accelerator.process_index, accelerator.num_processes)
        number = step * settings.accumulation  # of the batch that is waited for
        waiting = ahead(run.stream.batch, number, *ranks)
        sums: dict[str, Any] = {}  # of the losses since the last row
        logged = step
        run.model.train()
        while True:
            done = step == settings.max_steps
            moved = step > first  # a run that goes on has its checkpoint's row, validation and state already
            saves = moved and (done or step % settings.checkpoint_every == 0)

            # Log. A checkpoint has a row too, so that after a resume the sums start from zero again.
            if saves or (moved and step % settings.log_every == 0):
                row = _train_row(run, step, sums, passes=(step - logged) * settings.accumulation)
                sums, logged = {}, step
                if log is not None:
                    log.add({"step": step, "kind": "train", "of": settings.max_steps} | row)
                track({f"train/{name}": value for name, value in row.items()}, step)

            # Validate, the untouched model too.
            if step == 0 or (moved and (done or step % settings.validate_every == 0)):
                if log is not None:
                    with averaged_weights(run):
                        row = validate(run, step, score, anchors)
                        if step > 0 and merit(row, settings.best_by) > best:
                            best = merit(row, settings.best_by)
                            weights = {name: p for name, p in run.learner.named_parameters() if p.requires_grad}
                            save_best(out, weights, step)
                    log.add(row)
                    figures = {f"validation/{name}": value for name, value in row.items() if isinstance(value, float)}
                    track(figures, step)
                accelerator.wait_for_everyone()

            if saves:
                save_checkpoint(run, step)
            if done:
                break

            # Step: batches, losses, gradients, update, averages.
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, settings)
            for _ in range(settings.accumulation):
                batch = waiting.result().to(accelerator.device)
                number += 1
                waiting = ahead(run.stream.batch, number, *ranks)
                with accelerator.accumulate(run.model):
                    losses = run.model(batch)
                    watch.copy(losses["loss"])
                    accelerator.backward(losses["loss"])
                    watch.check(step)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(run.trained, settings.max_grad_norm)
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value.detach()
            if run.averages is not None:
                run.averages.step(run.trained)
            step += 1
        return _with_best_weights(run, step)


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Learning rate of update `step` (from 0): linear warm-up, then constant, or cosine to 2 % at the last update."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    if settings.lr_schedule == "constant":
        return settings.lr
    progress = (step - settings.warmup) / max(1, settings.max_steps - settings.warmup)
    return settings.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def makes_batches_ahead(device: torch.device) -> bool:
    """Whether a thread makes the next batch during an update.

    Not on a CPU: its cores are busy, and a second thread's OpenMP team takes them from the first.
    """
    return device.type != "cpu"


def _at_once(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    done: Future[Any] = Future()
    done.set_result(function(*arguments))
    return done


def _best_so_far(out: Path, settings: TrainSettings) -> float:
    """The merit of the best weights so far. A NaN is never best, and after one in `max` nothing would be."""
    validated = [row for row in read_metrics(out / METRICS_FILE) if row["kind"] == "validation" and row["step"] > 0]
    merits = [merit(row, settings.best_by) for row in validated if "noise_loss" in row]
    return max((each for each in merits if not math.isnan(each)), default=-math.inf)


def _train_row(run: Run, step: int, sums: dict[str, torch.Tensor], passes: int) -> dict[str, Any]:
    """Mean losses of the passes since the last row, over all processes; learnt weights; the last learning rate."""
    means = run.accelerator.reduce(torch.stack(list(sums.values())) / passes, "mean")
    row: dict[str, Any] = dict(zip(sums, means.tolist(), strict=True))
    if run.learner.log_variances is not None:
        weights = (-run.learner.log_variances.detach()).exp().tolist()
        row |= {"weight_noise": weights[0], "weight_lab": weights[1] * run.settings.lab_weight}
    return row | {"lr": learning_rate(step - 1, run.settings)}


def _with_best_weights(run: Run, step: int) -> Trained:
    """The run's result, with the best weights in place."""
    best = load_best(run)
    best_step = step
    if best is not None:
        weights, best_step = best
        named = dict(run.learner.named_parameters())
        with torch.no_grad():
            for name, tensor in weights.items():
                named[name].copy_(tensor)
    parts, own_prompts = run.pipeline, run.stream.own_prompt is not None
    for module in filter(None, (parts.unet, parts.vae, parts.text_encoder, parts.photo_encoder)):
        module.to("cpu").eval().requires_grad_(False)
    return Trained(
        parts, run.info, run.settings, run.out, step, best_step, run.split, run.cache, own_prompts,
        run.accelerator.is_main_process,
    )  # fmt: skip
