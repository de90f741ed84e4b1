"""What a run takes of memory and disk, by a pass over shapes alone: no weight is read, and nothing is computed."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from chromatune.pipeline import EditFiles, Pipeline, Tokens, find_trainable, shapes_of_parts
from chromatune.training.dataset import Batch
from chromatune.training.initial_model import CHANNELS, InitialModel, initial_info, widen_conv_in
from chromatune.training.learner import HALVES, Learner
from chromatune.training.run import run_info, run_scheduler
from chromatune.training.settings import TrainSettings

TOKENS = 77  # of a prompt
BLOCK = 256  # values of 8 bits that share a scale of 32
SMALLEST_OF_8_BITS = 4096  # values of a weight, whose moments have 8 bits; those of smaller ones have 32


@dataclass(frozen=True)
class RunCost:
    """Bytes that a run takes in one process: in the memory of its device, of the host beside it, and on the disk."""

    trained: int  # weights
    frozen: int
    gradients: int
    optimizer: int
    ema: int  # on the device; 0 where it is in the host's memory
    activations: int  # what a pass has beside the gradients, at its peak
    host: int  # EMA in the host's memory
    checkpoints: int  # on the disk, with the best weights and the one that is being written
    result: int  # on the disk
    cache: int  # on the disk, for one photo

    @property
    def memory(self) -> int:
        """The peak of an update."""
        return self.trained + self.frozen + self.gradients + self.optimizer + self.ema + self.activations


def cost_of(model: str, settings: TrainSettings) -> RunCost:
    """Return what fine-tuning `model` takes, with a CPU's kernels; what a GPU's driver keeps comes on top there.

    Args:
        model: what `load_initial_model` takes.
        settings: of the run.

    Raises:
        ModelError: the model is unknown, or its settings cannot be read.
        MissingExtraError: a LoRA without peft.
    """
    learner = _learner_of(model, settings)
    size_px = learner.pipeline.info.size_px
    with FakeTensorMode(allow_non_fake_inputs=True):
        trained = _take_memory(learner)
        weights = _bytes(trained)
        everything = _bytes([*learner.parameters(), *learner.buffers()])
        live = LiveBytes()
        with live:
            for _ in range(2 if settings.accumulation > 1 else 1):  # a second pass has the gradients of the first
                batch = batch_of(learner, settings, size_px)
                with torch.autocast("cpu", dtype=HALVES.get(settings.precision), enabled=settings.precision != "no"):
                    loss = learner(batch)["loss"]
                loss.backward()
                del loss, batch
        gradients = _bytes([weight.grad for weight in trained if weight.grad is not None])
        optimizer = sum(_optimizer_bytes(weight, settings.optimizer) for weight in trained)
    ema = weights if settings.ema > 0 else 0
    latent = 2 * (size_px // learner.pipeline.vae_factor) ** 2
    grays = size_px**2 if learner.photo_encoder is not None else 0
    moments = 4 if type(learner.vae).__name__ == "AutoencoderTiny" else 8
    checkpoint = weights + optimizer + ema
    return RunCost(
        trained=weights,
        frozen=everything - weights,
        gradients=gradients,
        optimizer=optimizer,
        ema=0 if settings.ema_on_cpu else ema,
        activations=max(0, live.peak - gradients),
        host=ema if settings.ema_on_cpu else 0,
        checkpoints=checkpoint * (settings.keep + 1) + weights,
        result=weights if settings.parts == "lora" else everything,
        cache=settings.cache_variants * (latent * (4 + moments) + grays),
    )


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that operations make while it is entered, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._count, made)
        return made

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return

        def gone(_: Any) -> None:
            self.now -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def _learner_of(model: str, settings: TrainSettings) -> Learner:
    """Return the learner of a run, as large as it is there, with weights that are none."""
    files = find_trainable(model)
    parts = shapes_of_parts(files)
    if parts["unet"].config.in_channels != CHANNELS:
        widen_conv_in(parts["unet"])
    pipeline = Pipeline(info=initial_info(files), tokenizer=None, **parts)
    info = run_info(InitialModel(pipeline, files.defaults), settings)
    pipeline = Pipeline(**(vars(pipeline) | {"info": info, "scheduler": run_scheduler(pipeline, settings)}))
    learner = Learner(pipeline, settings)
    if settings.gradient_checkpointing:
        learner.checkpoint_gradients()
    if settings.frozen_precision != "no":
        learner.halve_frozen(HALVES[settings.frozen_precision])
    if not any(weight.requires_grad for weight in learner.text_encoder.parameters()):
        width = learner.unet.config.cross_attention_dim
        rows = TOKENS + isinstance(files, EditFiles)
        # Read once, and kept
        setattr(learner.embedder, "embed", lambda tokens: torch.zeros(len(tokens.ids), rows, width))  # noqa: B010
    return learner


def _take_memory(learner: Learner) -> list[torch.nn.Parameter]:
    """Give weights without numbers the places that they have on a CPU; return those that are trained."""
    trained = []
    for module in learner.modules():
        for name, weight in module.named_parameters(recurse=False):
            placed = torch.empty(weight.shape, dtype=weight.dtype)
            if weight.ndim == 4:
                placed = placed.contiguous(memory_format=torch.channels_last)
            parameter = torch.nn.Parameter(placed, requires_grad=weight.requires_grad)
            setattr(module, name, parameter)
            trained += [parameter] if weight.requires_grad else []
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                setattr(module, name, torch.zeros(buffer.shape, dtype=buffer.dtype))
    return trained


def batch_of(learner: Learner, settings: TrainSettings, size_px: int) -> Batch:
    """Return a batch of a run's shapes, all zeros."""
    side = size_px // learner.pipeline.vae_factor
    latents = torch.zeros(settings.batch, 4, side, side)
    decoded = min(settings.batch, settings.lab_photos)
    length = TOKENS * (2 if hasattr(learner.text_encoder, "second") else 1)
    ids = torch.zeros(1, length, dtype=torch.int64)
    return Batch(
        latents=latents,
        condition=latents.clone(),
        noise=latents.clone(),
        timesteps=torch.zeros(settings.batch, dtype=torch.int64),
        tokens=Tokens(ids, torch.ones_like(ids)),
        prompt_of=torch.zeros(settings.batch, dtype=torch.int64),
        has_photo=torch.ones(settings.batch, dtype=torch.bool),
        truth=torch.zeros(decoded, 3, size_px, size_px) if settings.lab_weight > 0 else None,
        grays=torch.zeros(settings.batch, size_px, size_px, dtype=torch.uint8),
    )


def _optimizer_bytes(weight: torch.Tensor, optimizer: str) -> int:
    """Return the size of a weight's state: two moments, or what stands for them."""
    count = weight.numel()
    if optimizer == "adamw8bit" and count >= SMALLEST_OF_8_BITS:
        return 2 * count + 2 * 4 * -(-count // BLOCK)
    if optimizer == "adafactor":
        rows, columns = (*weight.shape[-2:], 0, 0)[:2] if weight.ndim >= 2 else (count, 1)
        return 4 * count if weight.ndim < 2 else 4 * (count // max(1, columns) + count // max(1, rows))
    return 8 * count


def _bytes(tensors: Any) -> int:
    return sum({id(tensor.untyped_storage()): tensor.untyped_storage().nbytes() for tensor in tensors}.values())
