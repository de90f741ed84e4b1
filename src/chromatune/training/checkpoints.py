"""Checkpoints of a run: complete or absent, whatever moment the process dies at.

out/checkpoints/step-000100/   accelerate's state of model, optimiser and every process, plus the averaged weights
out/checkpoints/best.safetensors   the trained weights that validated best, with their step
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from chromatune.errors import DataError
from chromatune.files import sync_folder

if TYPE_CHECKING:
    from accelerate import Accelerator

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


def load_latest(accelerator: Accelerator, out: Path) -> int:
    """Puts the last complete checkpoint's state in place; how many updates it has behind it, 0 where there is none."""
    found = latest(out)
    if found is None:
        return 0
    step, folder = found
    accelerator.load_state(str(folder))
    return step


def save_checkpoint(accelerator: Accelerator, out: Path, step: int) -> None:
    """The state after `step` updates, in place of older ones; to be called by every process.

    Raises:
        DataError: it cannot be written; the one before it stands.
    """
    final = out / "checkpoints" / f"step-{step:06d}"
    temporary = final.with_suffix(".tmp")
    with writing(final):
        accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        finish_checkpoint(temporary, final)
    accelerator.wait_for_everyone()


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


def load_best(out: Path) -> tuple[dict[str, torch.Tensor], int] | None:
    """The weights `save_best` kept and their step, or None."""
    path = out / "checkpoints" / "best.safetensors"
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a file, not a dict
        return weights, int(file.metadata()["step"])
