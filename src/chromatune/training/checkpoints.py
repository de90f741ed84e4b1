"""Checkpoints of a run: complete or absent, whatever moment the process dies at.

out/run.json            what the run is, so that another one is not continued by mistake
out/checkpoints/step-000100/   accelerate's state of model, optimiser and every process, plus the averaged weights
out/checkpoints/best.safetensors   the trained weights that validated best, with their step
out/metrics.jsonl       one JSON object a line
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from chromatune.errors import DataError, OptionsError
from chromatune.files import sync_folder, write_whole
from chromatune.training.report import read_metrics

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


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON so that the file is the old one or the new one, never a part."""
    with writing(path):
        write_whole(path, json.dumps(value, indent=1).encode())


def claim_run(out: Path, facts: Mapping[str, Any]) -> bool:
    """Marks `out` as this run's folder, or finds that it is already; whether it was marked now.

    Raises:
        OptionsError: it holds another run; the first difference is named.
    """
    path = out / "run.json"
    with writing(path):
        out.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_json(path, facts)
        return True
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give another --out") from None
    wanted = json.loads(json.dumps(facts))
    for name in sorted(known.keys() | wanted.keys()):
        if known.get(name) != wanted.get(name):
            was, now = known.get(name), wanted.get(name)
            raise OptionsError(
                f"{out} holds a run with {name} = {was!r}, not {now!r}; give another --out, or the same settings"
            )
    return False


def release_run(out: Path) -> None:
    """Takes the mark back from a run that never began; folders that are empty then go too."""
    (out / "run.json").unlink(missing_ok=True)
    for folder in (out / "cache", out):
        with suppress(OSError):
            folder.rmdir()


def latest(out: Path) -> tuple[int, Path] | None:
    """Step and folder of the last complete checkpoint, or None; half-written ones are cleared away."""
    folder = out / "checkpoints"
    for leftover in folder.glob("*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    found = [(int(match[1]), path) for path in folder.glob("step-*") if (match := COMPLETE.fullmatch(path.name))]
    return max(found, default=None)


def checkpoint_path(out: Path, step: int) -> Path:
    """Where the checkpoint after `step` updates stands once it is complete."""
    return out / "checkpoints" / f"step-{step:06d}"


def finish_checkpoint(temporary: Path, final: Path) -> None:
    """Gives a fully written checkpoint its name, then drops older ones."""
    with writing(final):
        sync_folder(temporary)
        os.replace(temporary, final)
    for path in final.parent.glob("step-*"):
        if COMPLETE.fullmatch(path.name) and path != final:
            shutil.rmtree(path, ignore_errors=True)


def save_best(out: Path, weights: Mapping[str, torch.Tensor], step: int) -> None:
    """Keeps the trained weights that validated best."""
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


class MetricsLog:
    """`metrics.jsonl`: rows are appended as they come, and those beyond a resumed step are dropped."""

    def __init__(self, out: Path, step: int, report: Callable[[dict[str, Any]], None]) -> None:
        self.path, self.report = out / "metrics.jsonl", report
        rows = read_metrics(self.path) if self.path.exists() else []
        kept = [json.dumps(row) + "\n" for row in rows if row["step"] <= step]
        with writing(self.path):
            write_whole(self.path, "".join(kept).encode())

    def add(self, row: dict[str, Any]) -> None:
        """Appends one row, and reports it."""
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.report(row)
