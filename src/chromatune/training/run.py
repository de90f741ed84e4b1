"""A run, opened: the model, what of it is trained, photos as latents, the order of pairs, the optimizer; its folder."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from diffusers.training_utils import EMAModel

from chromatune.data import PhotoItem, SkippedPhoto, Source, Split, instructions_of, split_usable
from chromatune.errors import ChromaTuneError, OptionsError
from chromatune.files import atomic_write, discard_run_folder, lock_run_folder
from chromatune.options import StartStage, silent
from chromatune.pipeline import ModelInfo, zero_terminal_snr_config
from chromatune.training.checkpoints import writing
from chromatune.training.latent_cache import LatentCache, open_cache
from chromatune.training.learner import Learner
from chromatune.training.pair_stream import PairStream
from chromatune.training.parts import select_parts, weights_digest
from chromatune.training.settings import TrainSettings
from chromatune.training.unread_prompts import unread_warning
from chromatune.training.validation_set import ValidationSet, read_validation
from chromatune.training.widening import TrainablePipeline, open_trainable

SKIPPED_FILE = "skipped.jsonl"  # photos that are not trained with, and why
RUN_FILE = "run.json"  # what the run is, so that another one is not continued by mistake

OnWarning: TypeAlias = Callable[[str], None]  # takes one line on what the user asked for and will not get


class Start(NamedTuple):
    """What a run starts from, known before its folder is touched."""

    prompts: Sequence[str] | Mapping[str, str]  # the instructions to draw from, or each photo's own by its key
    split: Split
    passed_over: tuple[SkippedPhoto, ...]  # photos that were to be held out, and cannot be used
    pipeline: TrainablePipeline
    info: ModelInfo


@dataclass(frozen=True)
class Run:
    """All that the loop works with. Weights, averages and the optimizer's state change in place; nothing else does."""

    accelerator: Accelerator
    settings: TrainSettings
    out: Path
    split: Split
    pipeline: TrainablePipeline
    info: ModelInfo
    learner: Learner
    trained: list[torch.nn.Parameter]
    cache: LatentCache
    stream: PairStream
    held_out: ValidationSet
    seen: ValidationSet  # as many of the training photos
    model: Any  # the learner as accelerate wraps it
    optimizer: Any
    averages: EMAModel | None  # of `trained`


@contextmanager
def opened_run(
    source: Source,
    model: str,
    settings: TrainSettings,
    out: Path,
    cache_dir: Path,
    start_stage: StartStage,
    on_warning: OnWarning = lambda line: None,
) -> Iterator[Run]:
    """A run, its folder held by this process while the block lasts. One that cannot begin leaves no folder behind.

    Args:
        source: the photos.
        model: what `open_trainable` takes.
        settings: of the run.
        out: its folder.
        cache_dir: folder of all latent caches.
        start_stage: shows how far the encoding of photos is.
        on_warning: called before that, once, if some of the prompts are longer than the text encoder reads.

    Raises:
        DataError: no usable photos, or the disk is full.
        OptionsError: `out` holds another run or is in use, or the settings do not go with the model or the photos.
        ModelError: the model cannot be opened.
    """
    accelerator = Accelerator(
        mixed_precision=settings.precision,
        gradient_accumulation_steps=settings.accumulation,
        cpu=not torch.cuda.is_available(),
        log_with="tensorboard" if importlib.util.find_spec("tensorboard") else None,
        project_dir=out,
    )
    if accelerator.distributed_type not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        kind = accelerator.distributed_type.value
        raise OptionsError(f"accelerate is set to {kind}, whose split weights no checkpoint holds; use plain processes")
    set_seed(settings.seed)  # only for what peft initializes: every draw of the loop has a generator of its own
    start = plan_run(source, model, settings)
    is_main = accelerator.is_main_process  # of several processes, the one that writes
    facts = _facts(start, model, settings, accelerator.num_processes) if is_main else {}
    with lock_run_folder(out, RUN_FILE, facts, "a run") if is_main else nullcontext(False) as is_new:
        try:
            if is_main and (line := unread_warning(start.pipeline.tokenizer, _trained_prompts(start))):
                on_warning(line)
            run = _build(accelerator, start, settings, out, cache_dir, start_stage if is_main else silent)
        except ChromaTuneError:
            if is_new:
                discard_run_folder(out, RUN_FILE)
            raise
        yield run


def plan_run(source: Source, model: str, settings: TrainSettings) -> Start:
    """Photos and model that a run starts from.

    Raises:
        OptionsError: the settings do not go with the model or the photos.
        ModelError: the model cannot be opened.
    """
    prompts = instructions_of(source, settings.prompts)
    split, passed_over = split_usable(_chosen(source, settings), settings.validation, settings.seed)
    pipeline = open_trainable(model)
    if settings.parts == "lora" and pipeline.widened:
        raise OptionsError(f"{model} takes no photo yet (4 channels), and a LoRA cannot teach it to: use parts=unet")
    info = run_info(pipeline, settings, _multiple_px(pipeline))
    return Start(prompts, split, passed_over, with_schedule(pipeline, settings), info)


def _trained_prompts(start: Start) -> Iterable[str]:
    """The instructions that may be trained with; of a data set's own, those of the photos that are not held out."""
    prompts = start.prompts
    return (prompts[item.key] for item in start.split.train) if isinstance(prompts, Mapping) else prompts


def _facts(start: Start, model: str, settings: TrainSettings, ranks: int) -> dict[str, Any]:
    facts: dict[str, Any] = {"model": model, "weights": weights_digest(start.pipeline.unet)}
    facts["split"] = start.split.digest
    if start.pipeline.photo_encoder is not None:
        facts["photo_encoder"] = weights_digest(start.pipeline.photo_encoder)
    return facts | {"ranks": ranks} | settings.model_dump()


def _build(
    accelerator: Accelerator, start: Start, settings: TrainSettings, out: Path, cache_dir: Path, start_stage: StartStage
) -> Run:
    parts, info, device = start.pipeline, start.info, accelerator.device
    encoder = parts.photo_encoder
    trained = select_parts(settings.parts, parts.unet, parts.vae, parts.text_encoder, settings.lora_rank, encoder)
    if settings.gradient_checkpointing:
        parts.unet.enable_gradient_checkpointing()
    kind, alphas_cumprod = parts.scheduler.config.prediction_type, parts.scheduler.alphas_cumprod
    learner = Learner(
        parts.unet, parts.tokenizer, parts.text_encoder, parts.vae, alphas_cumprod, kind, settings, encoder
    )
    if device.type == "cpu":
        for module in filter(None, (learner.unet, learner.vae, encoder)):
            module.to(memory_format=torch.channels_last)
    if learner.log_variances is not None:
        trained.append(learner.log_variances)
    learner.to(device)
    with accelerator.main_process_first():
        cache = open_cache(
            cache_dir, start.split.train, learner.vae, info.size_px, settings, start_stage, encoder is not None
        )
    if accelerator.is_main_process:
        with writing(out / SKIPPED_FILE):
            atomic_write(out / SKIPPED_FILE, _left_out_lines(start.passed_over, cache.left_out))
    scaling, timesteps = parts.vae.config.scaling_factor, len(learner.alphas_cumprod)
    stream = PairStream(cache, start.prompts, parts.tokenizer, scaling, timesteps, settings)
    held_out = read_validation(start.split.validation, settings.validation_photos, info.size_px, learner)
    seen = read_validation(cache.items, len(held_out.latents), info.size_px, learner)
    model, optimizer = accelerator.prepare(learner, _optimizer(trained, settings, device))
    averages = EMAModel(trained, decay=settings.ema) if settings.ema > 0 else None
    if averages is not None:
        averages.to(device)
    return Run(
        accelerator, settings, out, start.split, parts, info, learner, trained, cache, stream, held_out, seen,
        model, optimizer, averages,
    )  # fmt: skip


def _left_out_lines(passed_over: Sequence[SkippedPhoto], of_cache: Mapping[str, Sequence[str]]) -> bytes:
    """A JSON line for each photo that is not trained with, and why."""
    rows = [{"key": photo.key, "reason": photo.reason} for photo in passed_over]
    rows += [{"key": key, "reason": reason} for reason, keys in of_cache.items() for key in keys]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _optimizer(
    trained: list[torch.nn.Parameter], settings: TrainSettings, device: torch.device
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        trained,
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )


def run_info(pipeline: TrainablePipeline, settings: TrainSettings, multiple_px: int) -> ModelInfo:
    """How the run samples: the model's own defaults, and no guidance where nothing was ever dropped in training."""
    own, given = pipeline.info, pipeline.defaults
    size_px = settings.size_px or round(own.size_px * settings.size_scale)
    size_px = max(multiple_px, round(size_px / multiple_px) * multiple_px)
    unguided = settings.dropout == 0
    return dataclasses.replace(
        own,
        description=f"{own.name} fine-tuned to colorize",
        size_px=size_px,
        guidance_scale=1.0 if unguided and "guidance_scale" not in given else own.guidance_scale,
        image_guidance_scale=1.0 if unguided and "image_guidance_scale" not in given else own.image_guidance_scale,
        vivid=0.0,  # the model's own was chosen with the weights that the training replaces
    )


def with_schedule(pipeline: TrainablePipeline, settings: TrainSettings) -> TrainablePipeline:
    """The pipeline with the schedule that the settings ask for; the same object's parts otherwise.

    Raises:
        OptionsError: noise is to be predicted where there is no signal.
    """
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
    drawn = lambda item: hashlib.sha256(f"{settings.seed}/{item.key}".encode()).digest()  # noqa: E731
    return tuple(sorted(source.items, key=drawn)[: settings.photos])
