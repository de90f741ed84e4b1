"""The training loop and its loss, top to bottom: losses, the learner, the guard, the learning rate, EMA, the loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from chromatune.data import Split
from chromatune.errors import ChromaTuneError, MissingExtraError, OptionsError
from chromatune.pipeline import (
    Pipeline,
    Residuals,
    TextEmbedder,
    TrainingSet,
    alpha_sigma,
    decode,
    gray_pixels,
    predicted_latents,
    prediction_target,
    unet_arguments,
)
from chromatune.training.checkpoints import CheckpointWriter, TrainState, load_best, load_checkpoint, save_best
from chromatune.training.dataset import Batch, BatchSampler, LatentCache
from chromatune.training.initial_model import select_trainable
from chromatune.training.report import METRICS_FILE, MetricsLog, OnRow, read_metrics, tracking
from chromatune.training.settings import TrainSettings
from chromatune.training.validation import (
    Score,
    ValidationSet,
    colorize_photos,
    grid_path,
    measure_baselines,
    measure_losses,
    measure_results,
    measure_training_photos,
    selection_score,
    without_guidance,
    write_grid,
)

MOST_PROMPTS_KEPT = 4096  # embeddings of a frozen text encoder, so that it reads most prompts of a set once
SCALE_BATCHES = 8  # whose mean losses learned loss weights start from
SMALLEST_SCALE = 1e-8  # of a loss, whose logarithm is taken
LAB_SCALE = 25.0  # CIELAB errors are divided by this before they are squared: a wrong color then costs about one

# ---------------------------------------------------------------------------------------------------------------------
# Losses


def snr_weight(alpha: torch.Tensor, sigma: torch.Tensor, gamma: float | None, prediction_type: str) -> torch.Tensor:
    """Return the Min-SNR-γ weight of each sample's loss, the shape of `alpha`; ones where `gamma` is None.

    Hang et al., arXiv 2303.09556, section 3.4: min(SNR, γ)/SNR for epsilon, min(SNR, γ)/(SNR + 1) for v. At zero
    terminal SNR the latter is 0, and color would never be decided, so the v weight has γ/(γ + 1) as its floor there.
    """
    if gamma is None:
        return torch.ones_like(alpha)
    snr = (alpha / sigma).square()
    if prediction_type == "v_prediction":
        return torch.where(snr > 0, snr.clamp(max=gamma) / (snr + 1), torch.full_like(snr, gamma / (gamma + 1)))
    return snr.clamp(max=gamma) / snr.clamp(min=1e-12)


def noise_loss(prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the mean of each sample's weighted mean squared error; (B, 4, h, w) and (B, 1, 1, 1) -> scalar."""
    return ((prediction.float() - target.float()).square() * weight).mean()


def lab_loss(rgb: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the weighted squared CIELAB error in units of `LAB_SCALE`: (B, 3, H, W) sRGB 0..1 twice -> scalar.

    The paper's LAB error subtracts bytes, which wrap modulo 256; this one never leaves floats. Values beyond the
    gamut are clamped a little inside it, where CIELAB has a gradient, and pulled back by a term of their own.

    Raises:
        MissingExtraError: kornia is not installed.
    """
    try:
        from kornia.color import rgb_to_lab
    except ImportError:
        raise MissingExtraError("the LAB loss", "train") from None
    with torch.autocast(rgb.device.type, enabled=False):  # in bfloat16, a* would be off by more than two units
        rgb, truth = rgb.float(), truth.float()
        inside = rgb.clamp(1e-3, 1.0)
        error = (rgb_to_lab(inside) - rgb_to_lab(truth.clamp(1e-3, 1.0))) / LAB_SCALE
        outside = (rgb - rgb.clamp(0.0, 1.0)).square().mean(dim=1, keepdim=True)
        return ((error.square().sum(dim=1, keepdim=True) + outside) * weight).mean()


def combined_loss(
    noise: torch.Tensor, lab: torch.Tensor | None, lab_weight: float, log_variances: torch.Tensor | None
) -> torch.Tensor:
    """Return one scalar of the two losses: `noise + lab_weight · lab`, or weighed by learned uncertainties.

    Kendall et al., arXiv 1705.07115, equation 10: the sum of exp(-s_i) L_i + s_i with s_i = log σ_i², (2,) learned.
    """
    if lab is None:
        return noise
    if log_variances is None:
        return noise + lab_weight * lab
    precision = (-log_variances).exp()
    return precision[0] * noise + precision[1] * lab_weight * lab + log_variances.sum()


class Learner(nn.Module):
    """The owner of a run's weights: a pipeline's networks under one module. A batch in, its losses out."""

    alphas_cumprod: torch.Tensor  # (T,) float32

    def __init__(self, pipeline: Pipeline, settings: TrainSettings) -> None:
        """Freeze the pipeline's networks in place, all but what `settings.parts` names."""
        super().__init__()
        self.pipeline, self.settings = pipeline, settings
        self._trainable = select_trainable(pipeline, settings.parts, settings.lora_rank)
        self.unet, self.text_encoder = pipeline.unet, pipeline.text_encoder
        self.vae, self.photo_encoder = pipeline.vae, pipeline.photo_encoder
        self.prediction_type: str = pipeline.scheduler.config.prediction_type
        self.register_buffer("alphas_cumprod", pipeline.scheduler.alphas_cumprod.float(), persistent=False)
        learned = settings.lab_weighting == "learned" and settings.lab_weight > 0
        self.log_variances = nn.Parameter(torch.zeros(2)) if learned else None
        if self.log_variances is not None:
            self._trainable.append(self.log_variances)
        self._embedder = TextEmbedder(pipeline.tokenizer, pipeline.text_encoder, most_kept=MOST_PROMPTS_KEPT)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return what is trained by its name, in the order of `select_trainable`, learned loss weights last."""
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        return {names[id(parameter)]: parameter for parameter in self._trainable}

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return `loss` to minimize, and its parts `noise_loss` and (where trained) `lab_loss`, all scalars."""
        kind, truth = self.prediction_type, batch.truth
        alpha, sigma = alpha_sigma(self.alphas_cumprod, batch.timesteps)
        target = prediction_target(kind, batch.latents, batch.noise, alpha, sigma)
        noisy = alpha * batch.latents + sigma * batch.noise
        prediction = self.predict(noisy, batch)
        weight = snr_weight(alpha, sigma, self.settings.min_snr_gamma, kind)
        losses = {"noise_loss": noise_loss(prediction, target, weight)}
        if truth is not None:  # of the first pairs: their estimates are decoded
            count = len(truth)
            alpha, sigma = alpha[:count], sigma[:count]
            # From epsilon, the estimate divides by alpha, so near pure noise its error is all amplification: alpha²
            # weighs that down. A v-prediction's estimate is bounded, and counts in full.
            safe = alpha.clamp(min=1e-3) if kind == "epsilon" else alpha
            weight = alpha.square() if kind == "epsilon" else torch.ones_like(alpha)
            estimate = predicted_latents(kind, prediction[:count].float(), noisy[:count], safe, sigma)
            losses["lab_loss"] = lab_loss(decode(self.vae, estimate), truth, weight)
        lab, lab_weight = losses.get("lab_loss"), self.settings.lab_weight
        losses["loss"] = combined_loss(losses["noise_loss"], lab, lab_weight, self.log_variances)
        return losses

    def predict(self, noisy: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the U-Net's prediction, (B, 4, h, w), with the condition as channels 4 to 7."""
        embeds = self._embedder.embed(batch.tokens)[batch.prompt_of]
        residuals: Residuals | None = None
        if self.photo_encoder is not None:  # frozen
            if batch.grays is None:
                raise ValueError("the photo encoder needs the photos: the batch is without grays")
            shown = batch.has_photo.view(-1, 1, 1, 1)  # zeros where a photo is dropped
            residuals = tuple(residual * shown for residual in self.photo_encoder(gray_pixels(batch.grays)))
        channels = torch.cat([noisy, batch.condition], dim=1)
        return self.unet(channels, batch.timesteps, embeds, **unet_arguments(residuals)).sample


# ---------------------------------------------------------------------------------------------------------------------
# Around an update


def make_optimizer(learner: Learner, settings: TrainSettings) -> torch.optim.Optimizer:
    """Return AdamW over what is trained: the networks first, then learned loss weights at a rate of their own.

    The networks' rate is far too low for two scalars that must move by the ratio of the losses, and weight decay would
    pull them to one. Their rate stays constant.
    """
    trainable = learner.trainable().values()
    loss_weights = [weight for weight in trainable if weight is learner.log_variances]
    networks = [weight for weight in trainable if weight is not learner.log_variances]
    groups: list[dict[str, Any]] = [{"params": networks, "lr": settings.lr, "weight_decay": settings.weight_decay}]
    if loss_weights:
        groups.append({"params": loss_weights, "lr": settings.loss_weights_lr, "weight_decay": 0.0})
    fused = learner.alphas_cumprod.device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, betas=(settings.beta1, settings.beta2), fused=fused)


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


def _swap_ema(state: TrainState) -> None:
    """Exchange the trained weights and their EMA in place: a third copy of a large model is gigabytes."""
    if state.ema is not None:
        for parameter, average in zip(state.weights.values(), state.ema_weights, strict=True):
            parameter.data, average.data = average.data, parameter.data


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
    out: Path
    split: Split
    seen: tuple[TrainingSet, ...]  # photos that the initial model and its ancestors were trained on
    cache: LatentCache
    sampler: BatchSampler
    held_out: ValidationSet
    training: ValidationSet  # as many of the training photos
    learner: Learner
    wrapped: Any  # the learner as accelerate wraps it: gradients are joined over processes
    state: TrainState


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
    cache: LatentCache
    own_prompts: bool  # whether each photo was trained with an instruction of its own
    is_main: bool  # of several processes, the one that writes


def training_loop(run: Run, score: Score | None, on_row: OnRow) -> TrainResult:
    """Train from the last checkpoint, or the beginning, to `max_steps`; for the arguments see `train`."""
    settings, accelerator, learner, state = run.settings, run.accelerator, run.learner, run.state
    writer = CheckpointWriter(run.out, keep=settings.keep, background=settings.background_checkpoints)
    with ThreadPoolExecutor(1) as thread, tracking(accelerator, run.out) as track, writer:
        step = first = _resume(run)
        if step == 0:
            start_loss_weights(run)
        accelerator.wait_for_everyone()
        log, best, baselines = None, -math.inf, {}
        if accelerator.is_main_process:
            log = MetricsLog(run.out, first or -1, on_row)  # with no checkpoint the run begins anew, at its validation
            best = _best_so_far(run.out, settings)
            baselines = measure_baselines(run.held_out, score) if score and step < settings.max_steps else {}
        guard = FiniteLossGuard(accelerator.device)
        submit = thread.submit if prefetches_batches(accelerator.device) else _run_inline
        ranks = (accelerator.process_index, accelerator.num_processes)
        number = step * settings.accumulation  # of the batch that is waited for
        waiting = submit(run.sampler.batch, number, *ranks)
        sums: dict[str, Any] = {}  # of the losses since the last row
        logged = step
        networks = state.optimizer.param_groups[0]  # learned loss weights keep their own rate, and are not clipped
        run.wrapped.train()
        while True:
            done = step == settings.max_steps
            moved = step > first  # a run that goes on has its checkpoint's row, validation and state already
            saves = moved and (done or step % settings.checkpoint_every == 0)

            # Status. A checkpoint has a row too, so that after a resume the sums start from zero again.
            if saves or (moved and step % settings.log_every == 0):
                row = _train_row(run, step, sums, passes=(step - logged) * settings.accumulation)
                sums, logged = {}, step
                if log is not None:
                    log.add({"step": step, "kind": "train", "of": settings.max_steps} | row)
                track({f"train/{name}": value for name, value in row.items()}, step)

            # Validation, of the untouched model too.
            if step == 0 or (moved and (done or step % settings.validate_every == 0)):
                if log is not None:
                    with ema_weights(learner, state):
                        row = validate(run, step, score, baselines)
                        if step > 0 and selection_score(row, settings.best_by) > best:
                            best = selection_score(row, settings.best_by)
                            save_best(run.out, state, step)
                    log.add(row)
                    figures = {f"validation/{name}": value for name, value in row.items() if isinstance(value, float)}
                    track(figures, step)
                accelerator.wait_for_everyone()

            # Checkpoint.
            if saves:
                if accelerator.is_main_process:
                    writer.save(state, step, run.sampler.offset + step * _pairs_per_update(run))
                accelerator.wait_for_everyone()

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
            if state.ema is not None:
                state.ema.step(state.weights.values())
            step += 1
        return _with_best_weights(run, step)


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
    """Measure the weights as they are, after `step` updates; return a row of `metrics.jsonl`, and write the grid.

    Raises:
        DataError: the disk is full.
    """
    learner, settings, pipeline = run.learner, run.settings, run.learner.pipeline
    row: dict[str, Any] = {"step": step, "kind": "validation"}
    tokens, timesteps = run.sampler.tokens.rows(torch.arange(1)), len(learner.alphas_cumprod)
    for prefix, photos in (("", run.held_out), ("train_", run.training)):
        losses = measure_losses(learner, photos, tokens, timesteps, with_truth=settings.lab_weight > 0)
        row |= {f"{prefix}{name}": loss for name, loss in losses.items()}
    steps = settings.validation_steps or pipeline.info.steps
    raw = colorize_photos(pipeline, run.held_out, steps)
    recomposed = None
    if score is not None:
        measured, recomposed = measure_results(raw, run.held_out, score, baselines)
        row |= measured
        # Guidance extrapolates from passes without prompt or photo, which a run that drops neither never trains
        unguided = without_guidance(pipeline) if settings.dropout == 0 else None
        if unguided is not None:
            raw_unguided = colorize_photos(unguided, run.held_out, steps)
            measured, _ = measure_results(raw_unguided, run.held_out, score, baselines)
            row |= {f"unguided_{name}": value for name, value in measured.items() if name != "psnr_gray"}
        of_training = measure_training_photos(colorize_photos(pipeline, run.training, steps), run.training, score)
        row |= {f"train_{name}": value for name, value in of_training.items()}
    write_grid(grid_path(run.out, step), run.held_out, raw, recomposed)
    return row


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
    with torch.no_grad():
        for name, tensor in weights.items():
            run.state.weights[name].copy_(tensor)
    pipeline = run.learner.pipeline
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
