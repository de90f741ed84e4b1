"""Checkpoints of a run: complete or absent, whatever moment the process dies at.

out/checkpoints/step-000100/   state.safetensors (trained weights, averages, optimizer) and state.json
out/checkpoints/best.safetensors   the trained weights that validated best, with their step
"""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from chromatune.errors import DataError, first_line
from chromatune.files import sync_folder, write_json
from chromatune.pipeline import read_header, read_json

if TYPE_CHECKING:
    from chromatune.training.run import Run

STATE_FILE, NOTES_FILE = "state.safetensors", "state.json"
FORMAT = 2  # 1 was accelerate's own, with pickles
OPTIMIZER_STATE = ("step", "exp_avg", "exp_avg_sq")  # of AdamW, for each weight
SCALER_STATE = {"scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"}  # of fp16 alone
COMPLETE = re.compile(r"step-(\d{6,})")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failed write into one line: what could not be written, and that earlier checkpoints stand.

    Raises:
        DataError: the disk is full, or the folder cannot be written to.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch's writer says no more than that fewer bytes arrived than it gave
        full = getattr(error, "errno", None) == errno.ENOSPC
        full = full or any(said in str(error) for said in ("No space left", "inline_container"))
        if isinstance(error, OSError) or full:
            reason = "the disk is full" if full else str(error)
            raise DataError(
                f"{path}: cannot be written ({reason}); earlier checkpoints are intact: make room and run again"
            ) from error
        raise


def latest(out: Path) -> tuple[int, Path] | None:
    """Step and folder of the last complete checkpoint, or None; half-written ones are cleared away."""
    folder = out / "checkpoints"
    for leftover in folder.glob("*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    found = [(int(match[1]), path) for path in folder.glob("step-*") if (match := COMPLETE.fullmatch(path.name))]
    return max(found, default=None)


def load_latest(run: Run) -> int:
    """Puts the last complete checkpoint's state in place; how many updates it has behind it, 0 where there is none.

    Raises:
        DataError: the checkpoint is damaged, or of another version; nothing was put in place.
    """
    found = latest(run.out)
    if found is None:
        return 0
    step, folder = found
    load_best(run)  # needed at the end: damage shows now, not after hours
    try:
        tensors, notes = _read_state(folder, _expected_shapes(run))
    except ValueError as error:
        raise DataError(
            f"{folder}: the checkpoint {error}; delete {folder.parent} to begin anew, or give another --out"
        ) from None
    with torch.no_grad():
        for index, parameter in enumerate(run.trained):
            parameter.copy_(tensors[f"weights.{index}"])
        for index, average in enumerate(run.averages.shadow_params if run.averages else ()):
            average.copy_(tensors[f"averages.{index}"])
    _load_optimizer(run, tensors)
    if run.averages is not None:
        run.averages.optimization_step = notes["averages"]
    if run.accelerator.scaler is not None and notes["scaler"]:
        run.accelerator.scaler.load_state_dict(notes["scaler"])
    return step


def save_checkpoint(run: Run, step: int) -> None:
    """The state after `step` updates, in place of older ones; to be called by every process.

    It is safetensors and JSON: what is read back runs no code. Only what changes is in it. All processes have the same
    state, and every draw of the loop has a generator of its own, so the first process's is everybody's.

    Raises:
        DataError: it cannot be written; the one before it stands.
    """
    if run.accelerator.is_main_process:
        final = run.out / "checkpoints" / f"step-{step:06d}"
        temporary = final.with_suffix(".tmp")
        with writing(final):
            temporary.mkdir(parents=True, exist_ok=True)
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _state_of(run).items()}
            save_file(tensors, temporary / STATE_FILE)
            scaler = run.accelerator.scaler
            averaged = run.averages.optimization_step if run.averages else 0
            notes = {"format": FORMAT, "averages": averaged, "scaler": scaler.state_dict() if scaler else None}
            write_json(temporary / NOTES_FILE, notes)
        finish_checkpoint(temporary, final)
    run.accelerator.wait_for_everyone()


def _state_of(run: Run) -> dict[str, torch.Tensor]:
    """All that an update changes: trained weights, their averages, and what the optimizer knows of them, by index."""
    tensors: dict[str, torch.Tensor] = {f"weights.{index}": weights for index, weights in enumerate(run.trained)}
    for index, average in enumerate(run.averages.shadow_params if run.averages else ()):
        tensors[f"averages.{index}"] = average
    for index, known in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": known[name] for name in OPTIMIZER_STATE}
    return tensors


def _expected_shapes(run: Run) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for index, parameter in enumerate(run.trained):
        names = [f"weights.{index}", *(f"optimizer.{index}.{name}" for name in OPTIMIZER_STATE)]
        names += [f"averages.{index}"] if run.averages else []
        shapes |= {name: () if name.endswith(".step") else tuple(parameter.shape) for name in names}
    return shapes


def _read_state(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A checkpoint's tensors, of exactly these names and shapes, and its notes.

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
    if notes.get("format") != FORMAT or type(averages) is not int or averages < 0:
        raise ValueError("was written by another version, or its notes are damaged")
    if scaler and not _is_scaler(scaler):
        raise ValueError("is damaged: its notes make no sense")
    stored = {name: [e.get("dtype"), e.get("shape")] for name, e in header.items() if name != "__metadata__"}
    if stored != {name: ["F32", list(shape)] for name, shape in shapes.items()}:
        raise ValueError("is damaged, or of a run with other weights")
    try:
        return load_file(folder / STATE_FILE), notes
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise ValueError(f"is damaged ({first_line(error)})") from None


def _is_scaler(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() != SCALER_STATE:
        return False
    numbers = all(isinstance(number, int | float) and math.isfinite(number) for number in value.values())
    return numbers and all(number > 0 for name, number in value.items() if name != "_growth_tracker")


def _load_optimizer(run: Run, tensors: Mapping[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for index, parameter in enumerate(run.trained):
        known = {name: tensors[f"optimizer.{index}.{name}"] for name in OPTIMIZER_STATE}
        # A fused update walks through memory, so what belongs to a weight must lie there as the weight does.
        laid_out = {name: torch.empty_like(parameter).copy_(known[name]) for name in OPTIMIZER_STATE if name != "step"}
        state[index] = laid_out | {"step": known["step"]}
    run.optimizer.load_state_dict({"state": state, "param_groups": run.optimizer.state_dict()["param_groups"]})


def finish_checkpoint(temporary: Path, final: Path) -> None:
    """Gives a fully written checkpoint its name, then drops older ones."""
    with writing(final):
        sync_folder(temporary)
        os.replace(temporary, final)
    for path in final.parent.glob("step-*"):
        if COMPLETE.fullmatch(path.name) and path != final:
            shutil.rmtree(path, ignore_errors=True)


def save_best(out: Path, weights: Mapping[str, torch.Tensor], step: int) -> None:
    """Keeps the trained weights that validated best.

    Raises:
        DataError: they cannot be written; those before them stand.
    """
    path = out / "checkpoints" / "best.safetensors"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        save_file(tensors, path.with_suffix(".part"), metadata={"step": str(step)})
        os.replace(path.with_suffix(".part"), path)


def load_best(run: Run) -> tuple[dict[str, torch.Tensor], int] | None:
    """The trained weights that `save_best` kept, by their names in the learner, and their step; None if there are none.

    Raises:
        DataError: they are damaged, or of another run.
    """
    path = run.out / "checkpoints" / "best.safetensors"
    if not path.exists():
        return None
    wanted = {name: weight.shape for name, weight in run.learner.named_parameters() if weight.requires_grad}
    try:
        step = int(read_header(path)["__metadata__"]["step"])
        weights = load_file(path)
        if {name: tensor.shape for name, tensor in weights.items()} != wanted:
            raise ValueError("they are of a run with other weights")
        return weights, step
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(
            f"{path}: the best weights are damaged ({first_line(error)}); delete {path.parent} to begin anew"
        ) from None
