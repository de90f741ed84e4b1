"""The training loop and its loss, top to bottom: losses, the learner, the guard, the learning rate, EMA, the loop."""

from __future__ import annotations

import dataclasses
import math
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
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

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
    text_arguments,
    unet_arguments,
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
from chromatune.training.dataset import Batch, BatchSampler
from chromatune.training.initial_model import load_initial_model, select_trainable
from chromatune.training.latent_cache import LatentCache
from chromatune.training.report import METRICS_FILE, MetricsLog, OnRow, read_metrics, tracking
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
    selection_score,
    without_guidance,
    write_grid,
)

MOST_PROMPTS_KEPT = 4096  # embeddings of a frozen text encoder, so that it reads most prompts of a set once
SCALE_BATCHES = 8  # whose mean losses learned loss weights start from
SMALLEST_SCALE = 1e-8  # of a loss, whose logarithm is taken
HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}  # types by the names that settings have for them
SHARDED = ("BasicTransformerBlock", "ResnetBlock2D")  # blocks of a U-Net that are split each by itself
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
        self._trainable = select_trainable(pipeline, settings.parts, settings.lora_rank, settings.adapter)
        self.unet, self.text_encoder = pipeline.unet, pipeline.text_encoder
        self.vae, self.photo_encoder = pipeline.vae, pipeline.photo_encoder
        self.prediction_type: str = pipeline.scheduler.config.prediction_type
        self.register_buffer("alphas_cumprod", pipeline.scheduler.alphas_cumprod.float(), persistent=False)
        learned = settings.lab_weighting == "learned" and settings.lab_weight > 0
        self.log_variances = nn.Parameter(torch.zeros(2)) if learned else None
        if self.log_variances is not None:
            self._trainable.append(self.log_variances)
        self.embedder = TextEmbedder(pipeline.tokenizer, pipeline.text_encoder, most_kept=MOST_PROMPTS_KEPT)

    def checkpoint_gradients(self) -> None:
        """Have activations computed again for the backward pass: of the U-Net, and the VAE's decoder where it has one.

        At 512 px the decoder's are several times the U-Net's.
        """
        self.unet.enable_gradient_checkpointing()
        if self.settings.lab_weight > 0:
            self.vae.enable_gradient_checkpointing()

    @torch.no_grad()
    def halve_frozen(self, dtype: torch.dtype) -> None:
        """Give what is not trained another type, but for the encoders of photos, whose latents are the targets."""
        parts = (self.unet, self.vae.decoder, getattr(self.vae, "post_quant_conv", None), self.text_encoder)
        for part in filter(None, parts):
            for weight in part.parameters():
                if not weight.requires_grad:
                    weight.data = weight.data.to(dtype)

    def shard(self, device: torch.device) -> None:
        """Split the U-Net over the processes, block by block; each is gathered for its own pass alone.

        Its weights are other objects from here on.
        """
        names = list(self.trainable())
        self.unet.to(memory_format=torch.contiguous_format)  # no others are split
        mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
        for module in [each for each in self.unet.modules() if type(each).__name__ in SHARDED]:
            fully_shard(module, mesh=mesh)
        # Else what is left beside its blocks would stay gathered after a pass without gradients, whatever is put in it
        fully_shard(self.unet, mesh=mesh, reshard_after_forward=True)
        known = dict(self.named_parameters())
        self._trainable = [known[name] for name in names]

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
            drawn = prediction[:count].float()
            estimate = predicted_latents(kind, drawn, noisy[:count], safe, sigma, has_signal=True)
            losses["lab_loss"] = lab_loss(decode(self.vae, estimate), truth, weight)
        lab, lab_weight = losses.get("lab_loss"), self.settings.lab_weight
        losses["loss"] = combined_loss(losses["noise_loss"], lab, lab_weight, self.log_variances)
        return losses

    def predict(self, noisy: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the U-Net's prediction, (B, 4, h, w), with the condition as channels 4 to 7."""
        embeds = self.embedder.embed(batch.tokens) if batch.embeds is None else batch.embeds
        embeds = embeds[batch.prompt_of]
        residuals: Residuals | None = None
        if self.photo_encoder is not None:  # frozen
            if batch.grays is None:
                raise ValueError("the photo encoder needs the photos: the batch is without grays")
            shown = batch.has_photo.view(-1, 1, 1, 1)  # zeros where a photo is dropped
            residuals = tuple(residual * shown for residual in self.photo_encoder(gray_pixels(batch.grays)))
        channels = torch.cat([noisy, batch.condition], dim=1)
        sides = (self.pipeline.vae_factor * side for side in noisy.shape[2:])
        arguments = text_arguments(self.unet, embeds, *sides) | unet_arguments(residuals)
        return self.unet(channels, batch.timesteps, **arguments).sample


# ---------------------------------------------------------------------------------------------------------------------
# Around an update


def make_optimizer(learner: Learner, settings: TrainSettings) -> torch.optim.Optimizer:
    """Return an optimizer over what is trained: the networks first, then learned loss weights at a rate of their own.

    The networks' rate is far too low for two scalars that must move by the ratio of the losses, and weight decay would
    pull them to one. Their rate stays constant.

    Raises:
        MissingExtraError: `adamw8bit` without bitsandbytes.
    """
    trainable = learner.trainable().values()
    loss_weights = [weight for weight in trainable if weight is learner.log_variances]
    networks = [weight for weight in trainable if weight is not learner.log_variances]
    groups: list[dict[str, Any]] = [{"params": networks, "lr": settings.lr, "weight_decay": settings.weight_decay}]
    if loss_weights:
        groups.append({"params": loss_weights, "lr": settings.loss_weights_lr, "weight_decay": 0.0})
    betas = (settings.beta1, settings.beta2)
    if settings.optimizer == "adafactor":  # torch's own takes its rate as a share of each weight's size
        from transformers.optimization import Adafactor

        return Adafactor(groups, lr=settings.lr, scale_parameter=False, relative_step=False)
    if settings.optimizer == "adamw8bit":
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError:
            raise MissingExtraError("AdamW of 8 bits", "lowmem") from None
        return AdamW8bit(groups, betas=betas)
    return torch.optim.AdamW(groups, betas=betas, fused=learner.alphas_cumprod.device.type in ("cpu", "cuda"))


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


def training_loop(run: Run, score: Score | None, on_row: OnRow, trackers: Sequence[str] | None = None) -> TrainResult:
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
        measured, recomposed = measure_results(raw, run.held_out, score, baselines)
        row |= measured
        if raw_unguided is not None:
            measured, _ = measure_results(raw_unguided, run.held_out, score, baselines)
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
