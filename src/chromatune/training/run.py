"""A run, from photos and a model to a better model: what it starts from, its folder, all that the loop works with."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs, set_seed
from diffusers.training_utils import EMAModel

from chromatune.data import (
    AUTO,
    DEFAULT_SET,
    OWN,
    SkippedPhoto,
    Source,
    Split,
    Stream,
    bucket_shapes,
    instructions_of,
    prompt_set,
    smallest_side_px,
    split_usable,
)
from chromatune.errors import ChromaTuneError, OptionsError, printable
from chromatune.files import atomic_write, discard_run_folder, lock_run_folder, write_json
from chromatune.options import StartStage, silent
from chromatune.pipeline import (
    ModelInfo,
    Pipeline,
    TrainingSet,
    knows,
    read_json,
    read_training_data,
    truncated_prompts_warning,
    zero_terminal_snr_config,
)
from chromatune.training.checkpoints import TrainState, disk_errors
from chromatune.training.dataset import BatchSampler
from chromatune.training.embeddings import open_text_cache
from chromatune.training.encoding import open_cache
from chromatune.training.initial_model import InitialModel, load_initial_model, weights_digest
from chromatune.training.latent_cache import LatentCache
from chromatune.training.learner import HALVES, Learner, make_optimizer
from chromatune.training.machines import find_share, gather_photos
from chromatune.training.measurements import OnRow
from chromatune.training.settings import ADDED_SETTINGS, FORMER_NAMES, MAY_CHANGE, TrainSettings, describe_changes
from chromatune.training.streaming import StreamedPhotos, StreamSampler, split_stream
from chromatune.training.training_loop import Run, TrainResult, training_loop
from chromatune.training.validation import Score, read_validation_set

SKIPPED_FILE = "skipped.jsonl"  # photos that are not trained with, and why
# Of processes for each other: one validates or writes gigabytes to a slow disk, and the others wait
LONGEST_WAIT = timedelta(hours=2)
STREAM_FOLDER = "stream"  # where a run is in a stream of photos
RUN_FILE = "run.json"  # what the run is, so that another one is not continued by mistake

OnWarning: TypeAlias = Callable[[str], None]  # called with one line
OnStart: TypeAlias = Callable[["Start"], None]


def train(
    source: Source | Stream, model: str, settings: TrainSettings, out: Path, *,
    score: Score | None = None, on_row: OnRow = lambda row: None, start_stage: StartStage = silent,
    on_warning: OnWarning = lambda line: None, on_start: OnStart = lambda start: None, cache_dir: Path | None = None,
    track: Sequence[str] | None = None, untouched: str | None = None, clock: Callable[[], float] = time.monotonic,
) -> TrainResult:  # fmt: skip
    """Fine-tune `model` on the photos of `source`; the same call continues a run that was stopped.

    It may go on with other values of `MAY_CHANGE`, on another number of processes too; what is then not exact is said.

    Args:
        source: the photos; a share of them (whole persons, where known) is held out. Of a stream, nothing is listed or
            kept.
        model: what `load_initial_model` takes.
        settings: see `resolve_settings`.
        out: folder of the run: metrics, grids, checkpoints. It is this process's alone while the call lasts.
        score: metrics of a result, for validation; without it only losses are measured.
        on_row: called with each row of `metrics.jsonl`.
        start_stage: shows how far the encoding of photos is.
        on_warning: called with a line on prompts that are cut off, before photos are encoded, and on each change with
            which a run goes on.
        on_start: called with what the run starts from, before photos are encoded.
        cache_dir: folder of the latent caches, that runs may share; `out/cache` by default.
        track: what measurements are handed to, of `TRACKERS`; by default TensorBoard where it is installed.
        untouched: a model that the held-out photos are colorized by as well, as it is, for the report to compare with.
        clock: seconds, by which checkpoints are due.

    Raises:
        DataError: no usable photos, or the disk is full.
        OptionsError: `out` holds another run, another process is working there, or the settings do not go with the
            model or the photos.
        ModelError: the model cannot be opened.
        ChromaTuneError: the loss is not a number; nothing was updated.
    """
    accelerator = Accelerator(
        mixed_precision=settings.precision,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)],
        gradient_accumulation_steps=settings.accumulation,
        cpu=not torch.cuda.is_available(),
        project_dir=out,
    )
    if accelerator.distributed_type not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        kind = accelerator.distributed_type.value
        raise OptionsError(
            f"accelerate is set to {kind}, whose weights no checkpoint holds; use plain processes, and sharding=fsdp "
            "to split a model over them"
        )
    if settings.tf32 and accelerator.device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    set_seed(settings.seed)  # only for what peft initializes: every draw of the loop has a generator of its own
    start = plan_run(source, model, settings)
    is_main = accelerator.is_main_process  # of several processes, the one that writes
    facts: dict[str, Any] = {}
    before: dict[str, Any] = {}
    if is_main:
        before = _update_facts(out / RUN_FILE)
        facts = {"model": model, "weights": weights_digest(start.pipeline.unet), "split": start.split.digest}
        if start.pipeline.photo_encoder is not None:
            facts["photo_encoder"] = weights_digest(start.pipeline.photo_encoder)
        facts |= {"ranks": accelerator.num_processes} | settings.model_dump()
    locked = lock_run_folder(out, RUN_FILE, facts, "a run", ignored=MAY_CHANGE) if is_main else nullcontext(False)
    with locked as is_new:
        try:
            if is_main:
                for line in describe_changes(before, facts):
                    on_warning(line)
                on_start(start)
                prompts = start.prompts
                if isinstance(prompts, Mapping):  # those of the photos that are not held out
                    prompts = [prompts[item.key] for item in start.split.train]
                if line := truncated_prompts_warning(start.pipeline.tokenizer, prompts):
                    on_warning(line)
            shown = start_stage if is_main else silent
            run = _build(accelerator, start, settings, out, cache_dir or out / "cache", shown)
        except ChromaTuneError:
            if is_new:  # a run that cannot begin leaves no folder behind
                discard_run_folder(out, RUN_FILE)
            raise
        return training_loop(run, score, on_row, track, untouched=untouched, clock=clock)


class Start(NamedTuple):
    """What a run starts from, known before its folder is touched."""

    model: str  # its name
    prompts: Sequence[str] | Mapping[str, str]  # the instructions to draw from, or each photo's own by its key
    split: Split
    skipped: tuple[SkippedPhoto, ...]  # photos that were to be held out, and cannot be used
    pipeline: Pipeline  # the initial model, with the run's schedule and defaults
    seen: tuple[TrainingSet, ...]  # photos that the initial model and its ancestors were trained on
    stream: Stream | None = None  # what is trained with; the split has but a few of its photos


def plan_run(source: Source | Stream, model: str, settings: TrainSettings) -> Start:
    """Choose the photos and open the model that a run starts from.

    Raises:
        OptionsError: the settings do not go with the model or the photos.
        ModelError: the model cannot be opened, or its list of the photos that it has seen is damaged.
    """
    if isinstance(source, Stream):
        return _plan_stream(source, model, settings)
    prompts = instructions_of(source, settings.prompts)
    items = source.items
    if settings.photos is not None and settings.photos < len(items):  # the same ones, whatever their order
        drawn = lambda item: hashlib.sha256(f"{settings.seed}/{item.key}".encode()).digest()  # noqa: E731
        items = tuple(sorted(items, key=drawn)[: settings.photos])
    pipeline = _initial_pipeline(model, settings, prompts)
    split, skipped = split_usable(items, settings.validation, settings.seed, smallest_side_px(pipeline.info.size_px))
    return Start(model, prompts, split, skipped, pipeline, read_training_data(model))


def _plan_stream(stream: Stream, model: str, settings: TrainSettings) -> Start:
    if settings.photos is not None:
        raise OptionsError("photos: of a stream, no number of photos can be chosen; give fewer shards")
    own = settings.prompts == OWN or (settings.prompts == AUTO and stream.has_prompts)
    if own and not stream.has_prompts:
        raise OptionsError(f"{printable(stream.name)} has no prompts of its own; give prompts=thirty, or a text file")
    given = () if own else prompt_set(DEFAULT_SET if settings.prompts == AUTO else settings.prompts)
    pipeline = _initial_pipeline(model, settings, given)
    split, of_photos = split_stream(stream, settings, smallest_side_px(pipeline.info.size_px))
    return Start(model, of_photos if own else given, split, (), pipeline, read_training_data(model), stream)


def _initial_pipeline(model: str, settings: TrainSettings, prompts: Sequence[str] | Mapping[str, str]) -> Pipeline:
    """Open the initial model, with the run's schedule and defaults."""
    initial = load_initial_model(model)
    if settings.parts == "lora" and initial.widened:
        raise OptionsError(f"{model} takes no photo yet (4 channels), and a LoRA cannot teach it to: use parts=unet")
    scheduler, info = run_scheduler(initial.pipeline, settings), run_info(initial, settings, prompts)
    return dataclasses.replace(initial.pipeline, info=info, scheduler=scheduler)


def run_info(
    initial: InitialModel, settings: TrainSettings, prompts: Sequence[str] | Mapping[str, str] = ()
) -> ModelInfo:
    """Return how the run samples: the model's own defaults, and no guidance where nothing was dropped in training.

    Its list of taught words stays if `prompts`, which it is trained with, have no others.
    """
    own, given, multiple_px = initial.pipeline.info, initial.defaults, initial.pipeline.multiple_px
    size_px = settings.size_px or round(own.size_px * settings.size_scale)
    size_px = max(multiple_px, round(size_px / multiple_px) * multiple_px)
    unguided = settings.dropout == 0
    texts = prompts.values() if isinstance(prompts, Mapping) else prompts
    words = own.words if own.words is not None and all(knows(own.words, text) for text in set(texts)) else None

    def scale(name: str) -> float:
        """Guidance by the settings, else the model's own, else none where nothing was dropped."""
        chosen: float | None = getattr(settings, name)
        if chosen is not None:
            return chosen
        return 1.0 if unguided and name not in given else float(getattr(own, name))

    return dataclasses.replace(
        own,
        description=f"{own.name} fine-tuned to colorize",
        size_px=size_px,
        steps=settings.sampling_steps or own.steps,
        guidance_scale=scale("guidance_scale"),
        image_guidance_scale=scale("image_guidance_scale"),
        words=words,
        vivid=0.0,  # the model's own was chosen with the weights that the training replaces
    )


def sampling_scheduler(pipeline: Pipeline, settings: TrainSettings) -> Any:
    """Return a scheduler that steps as the settings ask, for what the model predicts as it is."""
    from diffusers import EulerAncestralDiscreteScheduler

    own = pipeline.scheduler
    if settings.scheduler == "model" or type(own) is EulerAncestralDiscreteScheduler:
        return own
    return EulerAncestralDiscreteScheduler.from_config(own.config)


def run_scheduler(pipeline: Pipeline, settings: TrainSettings) -> Any:
    """Return the scheduler that the settings ask for: the pipeline's own where it is that.

    Raises:
        OptionsError: noise is to be predicted where there is no signal.
    """
    from diffusers import DDIMScheduler

    own, prediction_type = sampling_scheduler(pipeline, settings), settings.prediction_type
    if settings.zero_terminal_snr:
        return DDIMScheduler(**zero_terminal_snr_config())
    if prediction_type == "model" or prediction_type == own.config.prediction_type:
        return own
    if own.config.get("rescale_betas_zero_snr") and prediction_type == "epsilon":
        name = pipeline.info.name
        raise OptionsError(f"{name} has zero terminal SNR, where noise cannot be predicted: use v_prediction")
    return type(own).from_config(own.config, prediction_type=prediction_type)


def _update_facts(path: Path) -> dict[str, Any]:
    """Give an older version's settings in a run's file their present names, and add newer ones that do nothing there.

    So that the run resumes; where a newer setting would change it, locking the folder names it.

    Returns:
        What the file says, empty without one.
    """
    try:
        facts = read_json(path)
        present = {FORMER_NAMES.get(name, name): value for name, value in facts.items()}
        for name, changes_nothing in ADDED_SETTINGS.items():
            if name not in present and changes_nothing(present):
                present[name] = TrainSettings.model_fields[name].default
        if present != facts:
            write_json(path, present)
        return present
    except (ValueError, OSError):
        return {}  # missing, damaged or not to be written: locking the folder says so


def open_photos(
    accelerator: Accelerator, start: Start, settings: TrainSettings, out: Path, cache_dir: Path,
    start_stage: StartStage,
) -> tuple[LatentCache | StreamedPhotos, BatchSampler | StreamSampler]:  # fmt: skip
    """Encode what is missing of the photos and prompts, each process its share, and return what draws batches of them.

    No process waits at a barrier for another one's encoding, which may take hours.
    """
    pipeline, prompts = start.pipeline, start.prompts
    size_px, vae, with_grays = pipeline.info.size_px, pipeline.vae, pipeline.photo_encoder is not None
    share = find_share(accelerator, cache_dir)
    shapes = bucket_shapes(size_px, pipeline.multiple_px) if settings.aspect == "buckets" else ((size_px, size_px),)
    timesteps = len(pipeline.scheduler.alphas_cumprod)
    on_the_fly = {"vae": vae, "vae_factor": pipeline.vae_factor, "with_grays": with_grays}
    photos: LatentCache | StreamedPhotos
    sampler: BatchSampler | StreamSampler
    if start.stream is not None:
        photos = StreamedPhotos(out / STREAM_FOLDER)
        sampler = StreamSampler(
            start.stream, prompts, pipeline.tokenizer, settings,
            size_px=size_px, shapes=shapes, num_train_timesteps=timesteps, photos=photos, **on_the_fly,
        )  # fmt: skip
    else:
        photos = open_cache(
            cache_dir, share.photos(start.split.train), vae, size_px, settings, start_stage, with_grays,
            shapes=shapes, rank=share.rank, ranks=share.ranks,
        )  # fmt: skip
        if share.machines > 1:
            elsewhere, skipped = gather_photos(share, photos.seen, photos.skipped)
            skipped = {reason: [*keys, *skipped[reason]] for reason, keys in photos.skipped.items()}
            photos = dataclasses.replace(photos, elsewhere=tuple(elsewhere), skipped=skipped)
        scaling = vae.config.scaling_factor
        sampler = BatchSampler(photos, prompts, pipeline.tokenizer, scaling, timesteps, settings, **on_the_fly)
        sampler.share = share.within
    frozen = not any(parameter.requires_grad for parameter in pipeline.text_encoder.parameters())
    known = start.stream is None or sampler.own_prompt is None  # all prompts, before the stream is read
    if frozen and known and settings.cache == "on":
        tokens, encoder = sampler.tokens, pipeline.text_encoder
        sampler.texts = open_text_cache(cache_dir, tokens, encoder, rank=share.rank, ranks=share.ranks)
    return photos, sampler


def _build(
    accelerator: Accelerator, start: Start, settings: TrainSettings, out: Path, cache_dir: Path, start_stage: StartStage
) -> Run:
    pipeline, device, size_px = start.pipeline, accelerator.device, start.pipeline.info.size_px
    learner = Learner(pipeline, settings)
    if settings.gradient_checkpointing:
        learner.checkpoint_gradients()
    if settings.compile:
        learner.unet.compile()
    # bitsandbytes walks through memory as if all weights were contiguous, and makes them so at its first update
    if device.type == "cpu" and settings.optimizer != "adamw8bit":
        for module in filter(None, (learner.unet, learner.vae, learner.photo_encoder)):
            module.to(memory_format=torch.channels_last)
    learner.to(device)
    cache, sampler = open_photos(accelerator, start, settings, out, cache_dir, start_stage)
    if accelerator.is_main_process:
        skipped = [{"key": photo.key, "reason": photo.reason} for photo in start.skipped]
        skipped += [{"key": key, "reason": reason} for reason, keys in cache.skipped.items() for key in keys]
        with disk_errors(out / SKIPPED_FILE):
            atomic_write(out / SKIPPED_FILE, "".join(json.dumps(row) + "\n" for row in skipped).encode())
    held_out = read_validation_set(start.split.validation, settings.validation_photos, size_px, learner.vae)
    training = read_validation_set(start.split.train, len(held_out.latents), size_px, learner.vae)
    if settings.frozen_precision != "no":
        learner.halve_frozen(HALVES[settings.frozen_precision])
    wrapped: Any = learner
    if settings.sharding == "fsdp" and accelerator.num_processes > 1:
        learner.shard(device)
        optimizer = accelerator.prepare(make_optimizer(learner, settings))
    else:
        wrapped, optimizer = accelerator.prepare(learner, make_optimizer(learner, settings))
    weights = learner.trainable()
    ema = EMAModel(list(weights.values()), decay=settings.ema) if settings.ema > 0 else None
    if ema is not None:
        ema.to("cpu" if settings.ema_on_cpu else device)
    return Run(
        accelerator=accelerator,
        settings=settings,
        out=out,
        split=start.split,
        seen=start.seen,
        cache=cache,
        sampler=sampler,
        held_out=held_out,
        training=training,
        learner=learner,
        wrapped=wrapped,
        model=start.model,
        state=TrainState(weights, ema, optimizer, accelerator.scaler),
    )
