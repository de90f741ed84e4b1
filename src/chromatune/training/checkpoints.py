"""What a run changes, and its checkpoints: complete or absent, whatever moment the process dies at.

out/checkpoints/step-000100/   state.safetensors (trained weights, their EMA, optimizer) and state.json; `keep` of them
out/checkpoints/best.safetensors   the trained weights that validated best, with their step
"""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor, distribute_tensor

from chromatune.errors import DataError, first_line
from chromatune.files import sync_folder, write_json
from chromatune.pipeline import read_header, read_json

STATE_FILE, NOTES_FILE, BEST_FILE = "state.safetensors", "state.json", "best.safetensors"
FORMAT = 2  # 1 was accelerate's own, with pickles; names in the files ("averages" for the EMA) are this format's
FORMER_PREFIX = "optimiser."  # of names of tensors that version 0.1 wrote
OPTIMIZER_STATE = ("step", "exp_avg", "exp_avg_sq")  # of AdamW, for each weight
OPTIMIZER_ENTRY = re.compile(r"optimizer\.(\d{1,7})\.\w{1,40}")
OPTIMIZER_TYPES = ("F32", "U8", "I64", "F64")
SCALER_STATE = {"scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"}  # of fp16 alone
COMPLETE = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class TrainState:
    """All that an update changes, in place: it is what a checkpoint holds."""

    weights: Mapping[str, torch.nn.Parameter]  # what is trained, by its name in the learner
    ema: EMAModel | None  # of the weights, in their order
    optimizer: Any  # as accelerate wraps it
    scaler: Any | None  # of gradients, with fp16 alone

    @property
    def ema_weights(self) -> list[torch.Tensor]:
        """The EMA of each weight; none where there is no EMA."""
        return self.ema.shadow_params if self.ema is not None else []

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the weights, their EMA and their optimizer state, named by index."""
        tensors: dict[str, torch.Tensor] = {f"weights.{index}": w for index, w in enumerate(self.weights.values())}
        tensors |= {f"averages.{index}": average for index, average in enumerate(self.ema_weights)}
        for index, weight in enumerate(self.weights.values()):
            for name, value in self.optimizer.state[weight].items():
                tensors[f"optimizer.{index}.{name}"] = value if isinstance(value, torch.Tensor) else _as_tensor(value)
        return tensors

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the weights, of their EMA and, for AdamW, of its state after an update."""
        shapes: dict[str, tuple[int, ...]] = {}
        for index, weight in enumerate(self.weights.values()):
            names = [f"weights.{index}"]
            names += [f"optimizer.{index}.{name}" for name in OPTIMIZER_STATE] if self.is_adamw else []
            names += [f"averages.{index}"] if self.ema is not None else []
            shapes |= {name: () if name.endswith(".step") else tuple(weight.shape) for name in names}
        return shapes

    @property
    def is_adamw(self) -> bool:
        """Whether the optimizer is torch's own, whose state is known before its first update."""
        return isinstance(getattr(self.optimizer, "optimizer", self.optimizer), torch.optim.AdamW)

    def notes(self) -> dict[str, Any]:
        """Return the rest of a checkpoint: its format, the EMA's number of updates, the scaler's state."""
        averaged = self.ema.optimization_step if self.ema is not None else 0
        scaler = self.scaler.state_dict() if self.scaler is not None else None
        return {"format": FORMAT, "averages": averaged, "scaler": scaler}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:
        """Put a checkpoint's tensors and notes in place."""
        of_optimizer: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors.items():
            kind, number, *rest = key.split(".", 2)
            if kind == "optimizer":
                of_optimizer.setdefault(int(number), {})[rest[0]] = tensor
        for index, weight in enumerate(self.weights.values()):
            weight.copy_(_laid_out(tensors[f"weights.{index}"], weight))
            saved = of_optimizer.get(index, {})
            self.optimizer.state[weight] = {name: _laid_out(tensor, weight) for name, tensor in saved.items()}
        for index, average in enumerate(self.ema_weights):
            average.copy_(_laid_out(tensors[f"averages.{index}"], average))
        if self.ema is not None:
            self.ema.optimization_step = notes["averages"]
        if self.scaler is not None and notes["scaler"]:
            self.scaler.load_state_dict(notes["scaler"])


def _as_tensor(number: float) -> torch.Tensor:
    """Return a number of an optimizer's state as a tensor of 64 bits, which none of its own tensors has."""
    return torch.tensor(number, dtype=torch.int64 if isinstance(number, int) else torch.float64)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor as a whole; one that is split over processes is gathered, which all of them must ask for."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _laid_out(saved: torch.Tensor, weight: torch.Tensor) -> Any:
    """Return what was saved of a weight, where, split and as the weight lies; numbers as they were.

    A fused update walks through memory, so what belongs to a weight must lie there as the weight does.
    """
    if saved.dtype in (torch.int64, torch.float64) and not saved.shape:
        return saved.item()
    if saved.shape == weight.shape and isinstance(weight, DTensor):
        own = saved.to(weight.device)
        return distribute_tensor(own, weight.device_mesh, weight.placements, src_data_rank=None)
    if saved.shape == weight.shape:
        return torch.empty_like(weight, dtype=saved.dtype).copy_(saved)
    return saved.to(weight.device)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a failed write into one line: what could not be written, and that earlier checkpoints stand.

    Raises:
        DataError: the disk is full, or the folder cannot be written to.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch's writer says no more than that fewer bytes arrived than it gave
        full = getattr(error, "errno", None) == errno.ENOSPC
        full = full or any(text in str(error) for text in ("No space left", "inline_container"))
        if isinstance(error, OSError) or full:
            reason = "the disk is full" if full else str(error)
            raise DataError(
                f"{path}: cannot be written ({reason}); earlier checkpoints are intact: make room and run again"
            ) from error
        raise


class CheckpointWriter:
    """Writes a run's checkpoints. All processes call it, as weights may be split over them; the first one writes.

    In the background, the state is copied to the host's memory, and written while training goes on, one checkpoint
    after the other. A failure is raised at the next one, or at the end.
    """

    def __init__(self, out: Path, *, keep: int = 1, background: bool = False, writes: bool = True) -> None:
        self.out, self.keep, self.background, self.writes = out, keep, background, writes
        self._thread, self._writing = ThreadPoolExecutor(1), Future[None]()
        self._writing.set_result(None)

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if kind is None:
                self._writing.result()
        finally:
            self._thread.shutdown()

    def save(self, state: TrainState, step: int, pairs: int) -> None:
        """Write the state after `step` updates, which took `pairs` pairs.

        It is safetensors and JSON: what is read back runs no code. Only what changes is in it. Every draw of the loop
        has a generator of its own, so there are no others to keep.

        Raises:
            DataError: it cannot be written, or the one before could not be; earlier ones stand.
        """
        self._writing.result()
        tensors, notes = _on_cpu(state.tensors()), state.notes() | {"pairs": pairs}
        if not self.writes:
            return
        if self.background:
            own = {name: tensor.clone() for name, tensor in tensors.items()}  # where it is computed, too
            self._writing = self._thread.submit(_write_checkpoint, self.out, own, notes, step, self.keep)
        else:
            _write_checkpoint(self.out, tensors, notes, step, self.keep)


def _write_checkpoint(
    out: Path, tensors: dict[str, torch.Tensor], notes: Mapping[str, Any], step: int, keep: int
) -> None:
    final = out / "checkpoints" / f"step-{step:06d}"
    temporary = final.with_suffix(".tmp")
    with disk_errors(final):
        temporary.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary / STATE_FILE)
        write_json(temporary / NOTES_FILE, notes)
    finish_checkpoint(temporary, final, keep)


def finish_checkpoint(temporary: Path, final: Path, keep: int) -> None:
    """Give a fully written checkpoint its name, then drop all but the newest `keep`."""
    with disk_errors(final):
        sync_folder(temporary)
        os.replace(temporary, final)
    for _, path in _complete(final.parent)[:-keep]:
        shutil.rmtree(path, ignore_errors=True)


def _complete(folder: Path) -> list[tuple[int, Path]]:
    """Return step and folder of each complete checkpoint, the newest last."""
    return sorted((int(match[1]), path) for path in folder.glob("step-*") if (match := COMPLETE.fullmatch(path.name)))


def latest_checkpoint(out: Path) -> tuple[int, Path] | None:
    """Return step and folder of the last complete checkpoint, or None; half-written ones are cleared away."""
    folder = out / "checkpoints"
    for leftover in folder.glob("*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    return max(_complete(folder), default=None)


class Progress(NamedTuple):
    """How far a run is."""

    step: int = 0  # updates
    pairs: int | None = 0  # that they took; None: a version before this one did not note it


def load_checkpoint(out: Path, state: TrainState) -> Progress:
    """Put the last complete checkpoint's state in place; return how far it is.

    Raises:
        DataError: the checkpoint is damaged, or of another version; nothing was put in place.
    """
    found = latest_checkpoint(out)
    if found is None:
        return Progress()
    step, folder = found
    load_best(out, state)  # needed at the end: damage shows now, not after hours
    try:
        tensors, notes = _read_checkpoint(folder, state.shapes())
    except ValueError as error:
        before = f"delete {folder} to go on from the one before, " if len(_complete(folder.parent)) > 1 else ""
        raise DataError(
            f"{folder}: the checkpoint {error}; {before}delete {folder.parent} to begin anew, or give another --out"
        ) from None
    state.load(tensors, notes)
    return Progress(step, notes.get("pairs"))


def _read_checkpoint(
    folder: Path, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a checkpoint's tensors, of exactly these names and shapes, and its notes.

    Raises:
        ValueError: it is damaged, or of another version; the text goes on from "the checkpoint".
    """
    if not (folder / STATE_FILE).is_file() or not (folder / NOTES_FILE).is_file():
        raise ValueError("was written by another version, whose files are not read")
    try:
        notes = read_json(folder / NOTES_FILE)
        header = read_header(folder / STATE_FILE)
    except ValueError as error:
        raise ValueError(f"is damaged: a file of it {error}") from None
    scaler, averages = notes.get("scaler"), notes.get("averages")
    if "pairs" in notes and (type(notes["pairs"]) is not int or not 0 <= notes["pairs"] < 1 << 53):
        raise ValueError("is damaged: its notes make no sense")
    if notes.get("format") != FORMAT or type(averages) is not int or averages < 0:
        raise ValueError("was written by another version, or its notes are damaged")
    if scaler and not _is_scaler(scaler):
        raise ValueError("is damaged: its notes make no sense")
    header.pop("__metadata__", None)
    stored = {n.replace(FORMER_PREFIX, "optimizer."): [e.get("dtype"), e.get("shape")] for n, e in header.items()}
    wanted = {name: ["F32", list(shape)] for name, shape in shapes.items()}
    # Other optimizers make their state at their first update, of names and types of their own
    free = stored.keys() - wanted.keys() if not any(name.startswith("optimizer.") for name in wanted) else set()
    count = sum(name.startswith("weights.") for name in wanted)
    if {name: stored[name] for name in stored.keys() - free} != wanted or not all(
        (match := OPTIMIZER_ENTRY.fullmatch(name)) and int(match[1]) < count and stored[name][0] in OPTIMIZER_TYPES
        for name in free
    ):
        raise ValueError("is damaged, or of a run with other weights")
    try:
        tensors = load_file(folder / STATE_FILE)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise ValueError(f"is damaged ({first_line(error)})") from None
    return {name.replace(FORMER_PREFIX, "optimizer."): tensor for name, tensor in tensors.items()}, notes


def _is_scaler(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() != SCALER_STATE:
        return False
    numbers = all(isinstance(number, int | float) and math.isfinite(number) for number in value.values())
    return numbers and all(number > 0 for name, number in value.items() if name != "_growth_tracker")


def save_best(out: Path, state: TrainState, step: int, *, writes: bool = True) -> None:
    """Write the trained weights that validated best so far. All processes call it; the one that `writes` does.

    Raises:
        DataError: they cannot be written; those before them stand.
    """
    path, weights = out / "checkpoints" / BEST_FILE, _on_cpu(state.weights)
    if not writes:
        return
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(weights, path.with_suffix(".part"), metadata={"step": str(step)})
        os.replace(path.with_suffix(".part"), path)


def load_best(out: Path, state: TrainState) -> tuple[dict[str, torch.Tensor], int] | None:
    """Read the weights that `save_best` wrote, by name, and their step; None if there are none.

    Raises:
        DataError: they are damaged, or of another run.
    """
    path = out / "checkpoints" / BEST_FILE
    if not path.exists():
        return None
    try:
        step = int(read_header(path)["__metadata__"]["step"])
        weights = load_file(path)
        if {name: w.shape for name, w in weights.items()} != {name: w.shape for name, w in state.weights.items()}:
            raise ValueError("they are of a run with other weights")
        return weights, step
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(
            f"{path}: the best weights are damaged ({first_line(error)}); delete {path.parent} to begin anew"
        ) from None


def _on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return whole tensors on the CPU, no two of which share memory: safetensors holds each by itself."""
    found: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        own = whole(tensor.detach()).cpu().contiguous()
        if own.data_ptr() in places:  # such as the table of values that all moments of 8 bits have
            own = own.clone()
        places.add(own.data_ptr())
        found[name] = own
    return found


@torch.no_grad()
def put_weights(state: TrainState, weights: Mapping[str, torch.Tensor]) -> None:
    """Put whole weights in the places of those that are trained, by name."""
    for name, tensor in weights.items():
        state.weights[name].copy_(_laid_out(tensor, state.weights[name]))
