"""The training loop: from a source of photos and a model to a better model, a curve, and a folder diffusers opens."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.training_utils import EMAModel

from chromatune.bundle import Bundle, ModelInfo
from chromatune.data.prompt_sets import prompt_set
from chromatune.data.sources import PhotoItem, Source
from chromatune.data.splits import Split, split_source
from chromatune.diffusion import zero_terminal_snr_config
from chromatune.errors import ChromaTuneError, OptionsError
from chromatune.training import checkpoints, validation
from chromatune.training.latent_cache import LatentCache, open_cache, weights_digest
from chromatune.training.learner import Learner
from chromatune.training.pair_stream import PairStream
from chromatune.training.parts import select_parts
from chromatune.training.report import read_metrics
from chromatune.training.settings import TrainSettings
from chromatune.training.widening import TrainablePipeline, open_trainable

Report = Callable[[dict[str, Any]], None]


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
    is_main: bool  # of several processes, the one that writes


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Learning rate of update `step` (from 0): linear warm-up, then constant, or cosine to 2 % at the last update."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    if settings.lr_schedule == "constant":
        return settings.lr
    progress = (step - settings.warmup) / max(1, settings.max_steps - settings.warmup)
    return settings.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def train(
    source: Source, model: str, settings: TrainSettings, out: Path, *,
    score: validation.Score | None = None, report: Report = lambda row: None,
) -> Trained:  # fmt: skip
    """Fine-tunes `model` on the photos of `source`; the same call continues a run that was stopped.

    Args:
        source: the photos; a share of them (whole persons, where known) is held out.
        model: what `open_trainable` takes.
        settings: see `resolve_settings`.
        out: folder of the run: metrics, grids, checkpoints. The latent cache lies in `out/cache`, unless the
            variable CHROMATUNE_CACHE names a folder for all runs.
        score: metrics of a result, for validation; without it only losses are measured.
        report: told each row of `metrics.jsonl`, and `{"kind": "cache", "done": …, "of": …}` before.

    Raises:
        DataError: no usable photos, or the disk is full.
        OptionsError: `out` holds another run.
        ModelError: the model cannot be opened.
        ChromaTuneError: the loss is not a number; nothing was updated.
    """
    accelerator = Accelerator(
        mixed_precision=settings.precision,
        gradient_accumulation_steps=settings.accumulation,
        cpu=not torch.cuda.is_available(),
        log_with="tensorboard" if _has_tensorboard() else None,
        project_dir=out,
    )
    set_seed(settings.seed)  # only for what peft initialises: every draw of the loop has a generator of its own
    run = _Run(accelerator, source, model, settings, out, score, report)
    run.resume()
    run.loop()
    return run.finish()


class LossWatch:
    """Stops a run before the update where the loss is no number, without holding a GPU up.

    The loss is copied to the host right after the forward pass and read once the backward pass is queued behind it.
    """

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.host = torch.zeros((), pin_memory=self.on_gpu)
        self.copied = torch.cuda.Event() if self.on_gpu else None

    def copy(self, loss: torch.Tensor) -> None:
        """Starts the copy."""
        self.host.copy_(loss.detach(), non_blocking=True)
        if self.copied is not None:
            self.copied.record()

    def check(self, step: int) -> None:
        """Waits for the copy alone, and looks at it.

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


class _Run:
    """State of one call of `train`."""

    def __init__(
        self, accelerator: Accelerator, source: Source, model: str, settings: TrainSettings, out: Path,
        score: validation.Score | None, report: Report,
    ) -> None:  # fmt: skip
        self.accelerator, self.settings, self.out, self.score = accelerator, settings, out, score
        self.report = report if accelerator.is_main_process else lambda row: None
        self.anchors: dict[str, float] | None = None
        self.prompts = _prompts_of(source, settings)
        self.split = split_source(_chosen(source, settings), settings.validation, settings.seed)
        self.pipeline = open_trainable(model)
        if settings.parts == "lora" and self.pipeline.widened:
            raise OptionsError(
                f"{model} takes no photo yet (4 channels), and a LoRA cannot teach it to: use parts=unet"
            )
        self.info = run_info(self.pipeline, settings, _multiple_px(self.pipeline))
        self.pipeline = with_schedule(self.pipeline, settings)
        claimed = False
        if accelerator.is_main_process:
            facts = {"model": model, "weights": weights_digest(self.pipeline.unet), "split": self.split.digest}
            if self.pipeline.photo_encoder is not None:
                facts["photo_encoder"] = weights_digest(self.pipeline.photo_encoder)
            claimed = checkpoints.claim_run(out, facts | {"ranks": accelerator.num_processes} | settings.model_dump())
        try:
            self._build()
        except ChromaTuneError:
            if claimed:
                checkpoints.release_run(out)
            raise

    def _build(self) -> None:
        settings, parts = self.settings, self.pipeline
        encoder = parts.photo_encoder
        networks = (parts.unet, parts.vae, parts.text_encoder)
        self.trained = select_parts(settings.parts, *networks, settings.lora_rank, encoder)
        if settings.gradient_checkpointing:
            parts.unet.enable_gradient_checkpointing()
        kind = parts.scheduler.config.prediction_type
        alphas_cumprod = parts.scheduler.alphas_cumprod
        learner = Learner(
            parts.unet, parts.tokenizer, parts.text_encoder, parts.vae, alphas_cumprod, kind, settings, encoder
        )
        if self.accelerator.device.type == "cpu":
            for part in filter(None, (learner.unet, learner.vae, encoder)):
                part.to(memory_format=torch.channels_last)
        if learner.log_variances is not None:
            self.trained.append(learner.log_variances)
        learner.to(self.accelerator.device)
        self.learner = learner
        with self.accelerator.main_process_first():
            self.cache = self._open_cache(self.split.train)
        scaling, last = parts.vae.config.scaling_factor, len(learner.alphas_cumprod)
        self.stream = PairStream(self.cache, self.prompts, parts.tokenizer, scaling, last, settings)
        held_out, count, size_px = self.split.validation, settings.validation_photos, self.info.size_px
        self.held_out = validation.read_validation(held_out, count, size_px, learner)
        self.seen = validation.read_validation(self.cache.items, len(self.held_out.latents), size_px, learner)
        optimiser = torch.optim.AdamW(
            self.trained,
            lr=settings.lr,
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
            fused=self.accelerator.device.type in ("cpu", "cuda"),
        )
        self.model, self.optimiser = self.accelerator.prepare(learner, optimiser)
        self.ema = EMAModel(self.trained, decay=settings.ema) if settings.ema > 0 else None
        self.watch = LossWatch(self.accelerator.device)
        if self.ema is not None:
            self.ema.to(self.accelerator.device)
            self.accelerator.register_for_checkpointing(self.ema)

    def _open_cache(self, items: tuple[PhotoItem, ...]) -> LatentCache:
        root = Path(os.environ.get("CHROMATUNE_CACHE") or self.out / "cache")
        tell = lambda done, total: self.report({"kind": "cache", "done": done, "of": total})  # noqa: E731
        with_greys = self.learner.photo_encoder is not None
        return open_cache(root, items, self.learner.vae, self.info.size_px, self.settings, tell, with_greys)

    def resume(self) -> None:
        """Loads the last complete checkpoint, or starts at 0 with a validation of the untouched model."""
        found = checkpoints.latest(self.out)
        self.step = 0
        if found is not None:
            self.step, folder = found
            self.accelerator.load_state(str(folder))
        self.logged = self.step
        self.accelerator.wait_for_everyone()
        self.accelerator.init_trackers("tensorboard")
        if self.accelerator.is_main_process:
            # With no checkpoint the run begins anew, its first validation included.
            self.log = checkpoints.MetricsLog(self.out, self.step if found else -1, self.report)
            rows = read_metrics(self.out / "metrics.jsonl")
            validated = [row for row in rows if row["kind"] == "validation"]
            self.best_value = max((self._value(row) for row in validated if row["step"] > 0), default=-math.inf)
            if found is None:
                self._validate()
        self.accelerator.wait_for_everyone()

    def loop(self) -> None:
        """Updates until `max_steps`: batch, losses, update, averages; then log, validate, checkpoint."""
        settings, accelerator = self.settings, self.accelerator
        sums: dict[str, Any] = {}
        with ThreadPoolExecutor(1) as thread:
            number = self.step * settings.accumulation
            ahead = thread.submit if makes_batches_ahead(accelerator.device) else _at_once
            waiting = ahead(self._batch, number)
            self.model.train()
            while self.step < settings.max_steps:
                for group in self.optimiser.param_groups:
                    group["lr"] = learning_rate(self.step, settings)
                for _ in range(settings.accumulation):
                    batch = waiting.result().to(accelerator.device)
                    number += 1
                    waiting = ahead(self._batch, number)
                    with accelerator.accumulate(self.model):
                        losses = self.model(batch)
                        self.watch.copy(losses["loss"])
                        accelerator.backward(losses["loss"])
                        self.watch.check(self.step)
                        if accelerator.sync_gradients:
                            accelerator.clip_grad_norm_(self.trained, settings.max_grad_norm)
                        self.optimiser.step()
                        self.optimiser.zero_grad(set_to_none=True)
                    for name, value in losses.items():
                        sums[name] = sums.get(name, 0.0) + value.detach()
                if self.ema is not None:
                    self.ema.step(self.trained)
                self.step += 1
                self._after_update(sums)

    def _batch(self, number: int) -> Any:
        return self.stream.batch(number, self.accelerator.process_index, self.accelerator.num_processes)

    def _after_update(self, sums: dict[str, torch.Tensor]) -> None:
        settings, last = self.settings, self.step == self.settings.max_steps
        saves = last or self.step % settings.checkpoint_every == 0
        # A checkpoint has a log row too, so that after a resume the sums start from zero again.
        if saves or self.step % settings.log_every == 0:
            passes = (self.step - self.logged) * settings.accumulation
            means = self.accelerator.reduce(torch.stack(list(sums.values())) / passes, "mean")  # over the processes
            row: dict[str, Any] = dict(zip(sums, means.tolist(), strict=True))
            sums.clear()
            self.logged = self.step
            if self.learner.log_variances is not None:
                weights = (-self.learner.log_variances.detach()).exp().tolist()
                row |= {"weight_noise": weights[0], "weight_lab": weights[1] * settings.lab_weight}
            row["lr"] = learning_rate(self.step - 1, settings)
            if self.accelerator.is_main_process:
                self.log.add({"step": self.step, "kind": "train", "of": settings.max_steps} | row)
            self.accelerator.log({f"train/{name}": value for name, value in row.items()}, step=self.step)
        if self.step % settings.validate_every == 0 or last:
            if self.accelerator.is_main_process:
                self._validate()
            self.accelerator.wait_for_everyone()
        if saves:
            self._checkpoint()

    def _checkpoint(self) -> None:
        final = checkpoints.checkpoint_path(self.out, self.step)
        temporary = final.with_suffix(".tmp")
        with checkpoints.writing(final):
            self.accelerator.save_state(str(temporary))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            checkpoints.finish_checkpoint(temporary, final)
        self.accelerator.wait_for_everyone()

    def _validate(self) -> None:
        """One validation row and a grid, with the averaged weights."""
        self._swap_averages()
        self.learner.eval()
        tokens = self.stream.tokens.rows(torch.arange(1))
        row: dict[str, Any] = {"step": self.step, "kind": "validation"}
        row |= validation.measure_losses(self.learner, self.held_out, tokens)
        row |= {f"train_{k}": v for k, v in validation.measure_losses(self.learner, self.seen, tokens).items()}
        steps = self.settings.validation_steps or self.info.steps
        raw = validation.colorize(self._bundle(), self.held_out, steps)
        recomposed = None
        if self.score is not None:
            if self.anchors is None:
                self.anchors = validation.measure_anchors(self.held_out, self.score)
            measured, recomposed = validation.measure_results(raw, self.held_out, self.score, self.anchors)
            row |= measured
        validation.write_grid(self.out / "grids" / f"step-{self.step:06d}.png", self.held_out, raw, recomposed)
        if self.step > 0 and self._value(row) > self.best_value:
            self.best_value = self._value(row)
            named = {name: p for name, p in self.learner.named_parameters() if p.requires_grad}
            checkpoints.save_best(self.out, named, self.step)
        self._swap_averages()
        self.learner.train()
        self.log.add(row)
        self.accelerator.log({f"validation/{k}": v for k, v in row.items() if isinstance(v, float)}, step=self.step)

    def _swap_averages(self) -> None:
        """Exchanges the trained weights and their averages in place: a third copy of a large model is gigabytes."""
        if self.ema is not None:
            for parameter, average in zip(self.trained, self.ema.shadow_params, strict=True):
                parameter.data, average.data = average.data, parameter.data

    def _value(self, row: dict[str, Any]) -> float:
        """What the best weights have most of."""
        name = self.settings.best_by if self.settings.best_by in row else "noise_loss"
        return float(row[name]) if name == "psnr" else -float(row[name])

    def _bundle(self) -> Bundle:
        parts = self.pipeline
        models = (parts.tokenizer, parts.text_encoder, parts.vae, parts.unet, parts.scheduler, parts.photo_encoder)
        return Bundle(self.info, *models)

    def finish(self) -> Trained:
        """The run's result, with the best weights in place."""
        best = checkpoints.load_best(self.out)
        best_step = self.step
        if best is not None:
            weights, best_step = best
            named = dict(self.learner.named_parameters())
            with torch.no_grad():
                for name, tensor in weights.items():
                    named[name].copy_(tensor)
        self.accelerator.end_training()
        parts = self.pipeline
        for part in filter(None, (parts.unet, parts.vae, parts.text_encoder, parts.photo_encoder)):
            part.to("cpu").eval().requires_grad_(False)
        return Trained(
            self.pipeline, self.info, self.settings, self.out, self.step, best_step, self.split, self.cache,
            self.accelerator.is_main_process,
        )  # fmt: skip


def makes_batches_ahead(device: torch.device) -> bool:
    """Whether a thread makes the next batch during an update.

    Not on a CPU: its cores are busy, and a second thread's OpenMP team takes them from the first.
    """
    return device.type != "cpu"


def _at_once(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    done: Future[Any] = Future()
    done.set_result(function(*arguments))
    return done


def run_info(pipeline: TrainablePipeline, settings: TrainSettings, multiple_px: int) -> ModelInfo:
    """How the run samples: the model's own defaults, and no guidance where nothing was ever dropped in training."""
    own, told = pipeline.info, pipeline.defaults
    size_px = settings.size_px or round(own.size_px * settings.size_scale)
    size_px = max(multiple_px, round(size_px / multiple_px) * multiple_px)
    unguided = settings.dropout == 0
    return dataclasses.replace(
        own,
        description=f"{own.name} fine-tuned to colorize",
        size_px=size_px,
        guidance_scale=1.0 if unguided and "guidance_scale" not in told else own.guidance_scale,
        image_guidance_scale=1.0 if unguided and "image_guidance_scale" not in told else own.image_guidance_scale,
        chroma_gain=1.0,  # chosen with the weights that the training replaces
        chroma_power=1.0,
    )


def with_schedule(pipeline: TrainablePipeline, settings: TrainSettings) -> TrainablePipeline:
    """The pipeline with the schedule that the settings ask for; the same object's parts otherwise."""
    from diffusers import DDIMScheduler

    old = pipeline.scheduler
    if settings.zero_terminal_snr:
        return dataclasses.replace(pipeline, scheduler=DDIMScheduler(**zero_terminal_snr_config()))
    wanted = settings.prediction_type
    if wanted == "model" or wanted == old.config.prediction_type:
        return pipeline
    if old.config.get("rescale_betas_zero_snr") and wanted == "epsilon":
        name = pipeline.info.name
        raise OptionsError(f"{name} has zero terminal SNR, where noise cannot be predicted: use v_prediction")
    return dataclasses.replace(pipeline, scheduler=type(old).from_config(old.config, prediction_type=wanted))


def _multiple_px(pipeline: TrainablePipeline) -> int:
    levels = len(pipeline.vae.config.block_out_channels) - 1 + len(pipeline.unet.config.block_out_channels) - 1
    return 2**levels


def _chosen(source: Source, settings: TrainSettings) -> tuple[PhotoItem, ...]:
    """At most `settings.photos` of the source's photos, whichever their order."""
    if settings.photos is None or settings.photos >= len(source.items):
        return source.items
    import hashlib

    place = lambda item: hashlib.sha256(f"{settings.seed}/{item.key}".encode()).digest()  # noqa: E731
    return tuple(sorted(source.items, key=place)[: settings.photos])


def _prompts_of(source: Source, settings: TrainSettings) -> Sequence[str] | Mapping[str, str]:
    """The instructions to draw from, or each photo's own."""
    if settings.prompts != "source":
        return prompt_set(settings.prompts)
    if source.prompts is None:
        raise OptionsError(f"{source.name} has no prompts of its own; give prompts=thirty, or a text file")
    return source.prompts


def _has_tensorboard() -> bool:
    import importlib.util

    return importlib.util.find_spec("tensorboard") is not None
