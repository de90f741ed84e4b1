"""The training loop, top to bottom: the guard, the learning rate, EMA, the loop, its validations."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch.distributed.tensor import DTensor

from chromatune.data import Split
from chromatune.errors import ChromaTuneError, OptionsError
from chromatune.pipeline import (
    Pipeline,
    TrainingSet,
)
from chromatune.training.checkpoints import (
    CheckpointWriter,
    TrainState,
    load_best,
    load_checkpoint,
    put_weights,
    save_best,
    whole,
)
from chromatune.training.comparison import read_scores, write_scores
from chromatune.training.dataset import BatchSampler
from chromatune.training.initial_model import load_initial_model, select_trainable
from chromatune.training.latent_cache import LatentCache
from chromatune.training.learner import Learner
from chromatune.training.measurements import METRICS_FILE, MetricsLog, OnRow, read_metrics, tracking
from chromatune.training.settings import TrainSettings
from chromatune.training.streaming import StreamedPhotos, StreamSampler
from chromatune.training.validation import (
    Score,
    ValidationSet,
    colorize_photos,
    grid_path,
    measure_baselines,
    measure_losses,
    measure_results,
    measure_training_photos,
    score_untouched,
    selection_score,
    without_guidance,
    write_grid,
)

SCALE_BATCHES = 8  # whose mean losses learned loss weights start from
SMALLEST_SCALE = 1e-8  # of a loss, whose logarithm is taken

# ---------------------------------------------------------------------------------------------------------------------
# Around an update


@torch.no_grad()
def start_loss_weights(run: Run) -> None:
    """Set learned loss weights, if there are any, to the inverse of the initial model's losses on the first batches."""
    log_variances, accelerator = run.learner.log_variances, run.accelerator
    if log_variances is None:
        return
    ranks = (accelerator.process_index, accelerator.num_processes)
    scales = torch.zeros_like(log_variances)
    for number in range(SCALE_BATCHES):
        losses = run.learner(run.sampler.batch(number, *ranks).to(accelerator.device))
        scales += torch.stack([losses["noise_loss"], run.settings.lab_weight * losses["lab_loss"]]) / SCALE_BATCHES
    log_variances.copy_(accelerator.reduce(scales, "mean").clamp(min=SMALLEST_SCALE).log())
    for weight, average in zip(run.state.weights.values(), run.state.ema_weights, strict=False):
        if weight is log_variances:
            average.copy_(log_variances)


class FiniteLossGuard:
    """Stops a run before the update where the loss is not finite, without making a GPU wait.

    The loss is copied to the host right after the forward pass and read once the backward pass is queued behind it.
    """

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.host = torch.zeros((), pin_memory=self.on_gpu)
        self.copied = torch.cuda.Event() if self.on_gpu else None

    def copy(self, loss: torch.Tensor) -> None:
        """Start the copy."""
        self.host.copy_(loss.detach(), non_blocking=True)
        if self.copied is not None:
            self.copied.record()

    def check(self, step: int) -> None:
        """Wait for the copy alone, and check its value.

        Raises:
            ChromaTuneError: the loss is infinite or not a number.
        """
        if self.copied is not None:
            self.copied.synchronize()
        loss = float(self.host)
        if not math.isfinite(loss):
            raise ChromaTuneError(
                f"the loss is {loss} at step {step}; nothing was updated and the last checkpoint is good: lower lr, "
                "or train with precision=no"
            )


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Return the rate of update `step` (from 0): linear warm-up, then constant, or cosine to 2 % at the last update."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    if settings.lr_schedule == "constant":
        return settings.lr
    progress = (step - settings.warmup) / max(1, settings.max_steps - settings.warmup)
    return settings.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


@contextmanager
def ema_weights(learner: Learner, state: TrainState) -> Iterator[None]:
    """Put the EMA in place of the trained weights while the block runs, without dropout."""
    _swap_ema(state)
    learner.eval()
    try:
        yield
    finally:
        _swap_ema(state)
        learner.train()


@torch.no_grad()
def _swap_ema(state: TrainState) -> None:
    """Exchange the trained weights and their EMA in place, one after the other: a third copy of all is gigabytes."""
    for parameter, average in zip(state.weights.values(), state.ema_weights, strict=False):
        trained = parameter.detach().clone()
        parameter.copy_(average)
        average.copy_(trained)


@torch.no_grad()
def update_ema(state: TrainState) -> None:
    """Move the EMA toward the weights after an update, as `EMAModel.step` does, but in one pass over the memory."""
    if (ema := state.ema) is None:
        return
    ema.optimization_step += 1
    share = 1 - ema.get_decay(ema.optimization_step)
    for parameter, average in zip(state.weights.values(), state.ema_weights, strict=True):
        average, own = (each.to_local() if isinstance(each, DTensor) else each for each in (average, parameter))
        average.lerp_(own.detach().to(average.device), share)


def prefetches_batches(device: torch.device) -> bool:
    """Return whether a thread makes the next batch during an update.

    Not on a CPU: its cores are busy, and a second thread's OpenMP team takes them from the first.
    """
    return device.type != "cpu"


def _run_inline(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    done: Future[Any] = Future()
    done.set_result(function(*arguments))
    return done


# ---------------------------------------------------------------------------------------------------------------------
# The loop


@dataclass(frozen=True)
class Run:
    """All that the loop works with; what changes is in `state`."""

    accelerator: Accelerator
    settings: TrainSettings
    model: str  # name of the initial one
    out: Path
    split: Split
    seen: tuple[TrainingSet, ...]  # photos that the initial model and its ancestors were trained on
    cache: LatentCache | StreamedPhotos
    sampler: BatchSampler | StreamSampler
    held_out: ValidationSet
    training: ValidationSet  # as many of the training photos
    learner: Learner
    wrapped: Any  # the learner as accelerate wraps it: gradients are joined over processes
    state: TrainState

    @property
    def is_sharded(self) -> bool:
        """Whether the U-Net is split over processes."""
        return self.settings.sharding == "fsdp" and self.accelerator.num_processes > 1


@dataclass(frozen=True)
class TrainResult:
    """A finished run in memory; `chromatune.training.saving` writes it to disk."""

    pipeline: Pipeline  # with the best weights
    settings: TrainSettings
    out: Path
    steps: int
    best_step: int
    split: Split
    seen: tuple[TrainingSet, ...]  # photos that the initial model and its ancestors were trained on
    cache: LatentCache | StreamedPhotos
    own_prompts: bool  # whether each photo was trained with an instruction of its own
    is_main: bool  # of several processes, the one that writes


def training_loop(
    run: Run, score: Score | None, on_row: OnRow, trackers: Sequence[str] | None = None, *,
    untouched: str | None = None, clock: Callable[[], float] = time.monotonic,
) -> TrainResult:  # fmt: skip
    """Train from the last checkpoint, or the beginning, to `max_steps`; for the arguments see `train`."""
    settings, accelerator, learner, state = run.settings, run.accelerator, run.learner, run.state
    is_main = accelerator.is_main_process
    writer = CheckpointWriter(run.out, keep=settings.keep, background=settings.background_checkpoints, writes=is_main)
    tracked = tracking(accelerator, run.out, trackers, settings.model_dump())
    with ThreadPoolExecutor(1) as thread, tracked as track, writer:
        step = first = _resume(run)
        if step == 0:
            start_loss_weights(run)
        accelerator.wait_for_everyone()
        log, best, baselines = None, -math.inf, {}
        if is_main:
            log = MetricsLog(run.out, first or -1, on_row)  # with no checkpoint the run begins anew, at its validation
            best = _best_so_far(run.out, settings)
            baselines = measure_baselines(run.held_out, score) if score and step < settings.max_steps else {}
            if score and untouched is not None and untouched not in read_scores(run.out):
                write_scores(run.out, untouched, score_untouched(untouched, run.held_out, score))
        guard = FiniteLossGuard(accelerator.device)
        submit = thread.submit if prefetches_batches(accelerator.device) else _run_inline
        ranks = (accelerator.process_index, accelerator.num_processes)
        number = step * settings.accumulation  # of the batch that is waited for
        waiting = submit(run.sampler.batch, number, *ranks)
        sums: dict[str, Any] = {}  # of the losses since the last row
        logged = step
        networks = state.optimizer.param_groups[0]  # learned loss weights keep their own rate, and are not clipped
        saved_at = clock()
        run.wrapped.train()
        while True:
            done = step == settings.max_steps
            moved = step > first  # a run that goes on has its checkpoint's row, validation and state already
            is_late = _agreed(clock() - saved_at >= 60 * settings.checkpoint_minutes, ranks[1])
            saves = moved and (done or step % settings.checkpoint_every == 0 or is_late)

            # Status. A checkpoint has a row too, so that after a resume the sums start from zero again.
            if saves or (moved and step % settings.log_every == 0):
                row = _train_row(run, step, sums, passes=(step - logged) * settings.accumulation)
                sums, logged = {}, step
                if log is not None:
                    pairs = step * _pairs_per_update(run) + run.sampler.offset
                    log.add({"step": step, "kind": "train", "of": settings.max_steps, "pairs": pairs} | row)
                track({f"train/{name}": value for name, value in row.items()}, step)

            # Validation, of the untouched model too.
            if step == 0 or (moved and (done or step % settings.validate_every == 0)):
                with ema_weights(learner, state):
                    row = validate(run, step, score, baselines)
                    reached = selection_score(row, settings.best_by) if step > 0 and is_main else -math.inf
                    (is_best,) = broadcast_object_list([reached > best])
                    best = max(best, reached) if is_best else best
                    if is_best:
                        save_best(run.out, state, step, writes=is_main)
                if log is not None:
                    log.add(row)
                    figures = {f"validation/{name}": value for name, value in row.items() if isinstance(value, float)}
                    track(figures, step)
                accelerator.wait_for_everyone()

            # Checkpoint.
            if saves:
                writer.save(state, step, run.sampler.offset + step * _pairs_per_update(run))
                accelerator.wait_for_everyone()
                saved_at = clock()

            if done:
                break

            # Step: batches, losses, gradients, update, EMA.
            networks["lr"] = learning_rate(step, settings)
            for _ in range(settings.accumulation):
                batch = waiting.result().to(accelerator.device)
                number += 1
                waiting = submit(run.sampler.batch, number, *ranks)
                with accelerator.accumulate(run.wrapped):
                    losses = run.wrapped(batch)
                    guard.copy(losses["loss"])
                    accelerator.backward(losses["loss"])
                    guard.check(step)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(networks["params"], settings.max_grad_norm)
                    state.optimizer.step()
                    state.optimizer.zero_grad(set_to_none=True)
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value.detach()
            update_ema(state)
            step += 1
        return _with_best_weights(run, step)


def _agreed(of_first: bool, ranks: int) -> bool:
    """Return what the first of several processes says, in all of them."""
    return bool(of_first) if ranks == 1 else bool(broadcast_object_list([of_first])[0])


def _pairs_per_update(run: Run) -> int:
    return run.accelerator.num_processes * run.settings.batch * run.settings.accumulation


def _resume(run: Run) -> int:
    """Put the last checkpoint in place, and the sampler behind the pairs that it took; return its step.

    Raises:
        DataError: the checkpoint is damaged.
        OptionsError: it is further than the run is to go.
    """
    step, pairs = load_checkpoint(run.out, run.state)
    if step > run.settings.max_steps:
        raise OptionsError(
            f"{run.out} is at update {step} already, and max_steps is {run.settings.max_steps}: give {step} or more"
        )
    run.sampler.offset = 0 if pairs is None else pairs - step * _pairs_per_update(run)
    return step


def validate(run: Run, step: int, score: Score | None, baselines: Mapping[str, float]) -> dict[str, Any]:
    """Measure the weights as they are, after `step` updates, each process a share of the photos.

    Returns:
        A row of `metrics.jsonl`, in the first process, which writes the grid too; in the others it is empty.

    Raises:
        DataError: the disk is full.
    """
    settings, pipeline = run.settings, run.learner.pipeline
    row: dict[str, Any] = {"step": step, "kind": "validation"}
    with run.accelerator.autocast():
        for prefix, photos in (("", run.held_out), ("train_", run.training)):
            row |= {f"{prefix}{name}": loss for name, loss in _mean_losses(run, photos).items()}
        raw = _colorize_together(run, pipeline, run.held_out)
        # Guidance extrapolates from passes without prompt or photo, which a run that drops neither never trains
        unguided = without_guidance(pipeline) if score is not None and settings.dropout == 0 else None
        raw_unguided = _colorize_together(run, unguided, run.held_out) if unguided is not None else None
        raw_training = _colorize_together(run, pipeline, run.training) if score is not None else None
    if not run.accelerator.is_main_process:
        return {}
    recomposed = None
    if score is not None and raw_training is not None:
        measured, recomposed, psnrs = measure_results(raw, run.held_out, score, baselines)
        write_scores(run.out, str(step), psnrs)
        row |= measured
        if raw_unguided is not None:
            measured, _, _ = measure_results(raw_unguided, run.held_out, score, baselines)
            row |= {f"unguided_{name}": value for name, value in measured.items() if name != "psnr_gray"}
        of_training = measure_training_photos(raw_training, run.training, score)
        row |= {f"train_{name}": value for name, value in of_training.items()}
    write_grid(grid_path(run.out, step), run.held_out, raw, recomposed)
    return row


def _mean_losses(run: Run, photos: ValidationSet) -> dict[str, float]:
    """Return the means of the losses on photos, of which each process measures a share."""
    tokens, timesteps = run.sampler.tokens.rows(torch.arange(1)), len(run.learner.alphas_cumprod)
    share = photos.share(run.accelerator.process_index, run.accelerator.num_processes)
    losses = measure_losses(run.learner, share, tokens, timesteps, with_truth=run.settings.lab_weight > 0)
    return {name: float(np.mean(_gathered(run, share, each.tolist()))) for name, each in losses.items()}


def _colorize_together(run: Run, pipeline: Pipeline, photos: ValidationSet) -> np.ndarray:
    """Return what `colorize_photos` does, of which each process samples a share."""
    share = photos.share(run.accelerator.process_index, run.accelerator.num_processes)
    raw = colorize_photos(pipeline, share, run.settings.validation_steps or pipeline.info.steps)
    return np.stack(_gathered(run, share, list(raw)))


def _gathered(run: Run, share: ValidationSet, own: list[Any]) -> list[Any]:
    """Return what all processes have of their shares' photos, in the order of the photos."""
    if run.accelerator.num_processes == 1:
        return own
    return list(gather_object(own if share.counts else []))


def _best_so_far(out: Path, settings: TrainSettings) -> float:
    """Return the score of the best weights so far. A NaN is never best, and after one in `max` nothing would be."""
    validated = [row for row in read_metrics(out / METRICS_FILE) if row["kind"] == "validation" and row["step"] > 0]
    scores = [selection_score(row, settings.best_by) for row in validated if "noise_loss" in row]
    return max((each for each in scores if not math.isnan(each)), default=-math.inf)


def _train_row(run: Run, step: int, sums: dict[str, torch.Tensor], passes: int) -> dict[str, Any]:
    """Return mean losses since the last row, over all processes; learned loss weights; the last learning rate."""
    means = run.accelerator.reduce(torch.stack(list(sums.values())) / passes, "mean")
    row: dict[str, Any] = dict(zip(sums, means.tolist(), strict=True))
    if run.learner.log_variances is not None:
        weights = (-run.learner.log_variances.detach()).exp().tolist()
        row |= {"weight_noise": weights[0], "weight_lab": weights[1] * run.settings.lab_weight}
        row["lr_loss_weights"] = run.settings.loss_weights_lr
    return row | {"lr": learning_rate(step - 1, run.settings)}


def _with_best_weights(run: Run, step: int) -> TrainResult:
    """Return the run's result, with the best weights in place."""
    weights, best_step = load_best(run.out, run.state) or ({}, step)
    put_weights(run.state, weights)
    pipeline = run.learner.pipeline
    if run.is_sharded:
        pipeline = dataclasses.replace(pipeline, unet=_whole_unet(run))
    if run.settings.frozen_precision != "no":
        _restore_frozen(run)
    for module in filter(None, (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.photo_encoder)):
        module.to("cpu").eval().requires_grad_(False)
    return TrainResult(
        pipeline=pipeline,
        settings=run.settings,
        out=run.out,
        steps=step,
        best_step=best_step,
        split=run.split,
        seen=run.seen,
        cache=run.cache,
        own_prompts=run.sampler.own_prompt is not None,
        is_main=run.accelerator.is_main_process,
    )


def _whole_unet(run: Run) -> Any:
    """Return a U-Net of its own class with the weights that are split over processes, gathered on the CPU."""
    gathered = {name: whole(tensor).cpu() for name, tensor in run.learner.unet.state_dict().items()}
    initial = load_initial_model(run.model).pipeline
    settings = run.settings
    select_trainable(initial, settings.parts, settings.lora_rank, settings.adapter)  # a LoRA has its layers then
    initial.unet.load_state_dict(gathered)
    return initial.unet


@torch.no_grad()
def _restore_frozen(run: Run) -> None:
    """Give the weights that were not trained the numbers of the initial model again."""
    initial = load_initial_model(run.model).pipeline
    for part in ("unet", "vae", "text_encoder"):
        own = getattr(initial, part).state_dict()
        for name, weight in getattr(run.learner, part).named_parameters():
            known = own.get(name.replace(".base_layer.", "."))
            if known is not None and not weight.requires_grad:
                weight.data = known
