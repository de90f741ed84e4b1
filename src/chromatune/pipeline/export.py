"""A model ⇒ a folder that ONNX Runtime runs without torch and the stock pipeline still opens, checked against torch."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chromatune.errors import ModelError, printable
from chromatune.options import ColorizeOptions, StartStage, silent
from chromatune.pipeline import Pipeline, load_pipeline
from chromatune.pipeline.loading import quiet_libraries
from chromatune.pipeline.names import ModelInfo, find_model
from chromatune.pipeline.onnx_backend import OnnxBackend
from chromatune.pipeline.onnx_export import add_onnx_parts
from chromatune.pipeline.onnx_files import GRAPHS, load_onnx_pipeline
from chromatune.pipeline.runtimes import onnx_problem, scheduler_problem
from chromatune.pipeline.saving import CARD_FILE, save_pipeline
from chromatune.pipeline.torch_backend import TorchBackend

TRIAL_STEPS = 2
MOST_APART = 4 / 255  # of sRGB 0..1; half precision alone moves it by a tenth of that
DEFAULTS = (
    "description", "size_px", "steps", "variant_steps", "guidance_scale", "image_guidance_scale", "prompt",
    "vivid",
)  # fmt: skip


def export_onnx(model: str, out: Path, *, start_stage: StartStage = silent) -> float:
    """Writes a model in half precision with ONNX graphs beside its weights; LoRAs are merged into it.

    Args:
        model: see `load_pipeline`.
        out: the folder; a model that is there is replaced when the new one is complete and on the disk.
        start_stage: is told of the graphs.

    Returns:
        The largest difference between torch with the model as it is and ONNX Runtime with what was written, of sRGB
        0..1 before recomposition, in a short trial.

    Raises:
        ModelError: the model cannot be opened, has a scheduler that takes torch, or came out another one; or the folder
            holds something that is not a model, or cannot be written.
        MissingExtraError: onnx or onnxscript is not installed.
    """
    files = find_model(model)
    title = printable(files.path.name if Path(model).expanduser().is_dir() else model)
    if problem := scheduler_problem(files):  # before minutes are spent on what would not run
        raise ModelError(f"{model} {problem}; export it with a DDIM or Euler scheduler")
    pipeline = load_pipeline(model, device="cpu")
    card = files.path / CARD_FILE
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else f"# {title}\n"
    defaults = defaults_of(pipeline.info)
    if pipeline.info.description == str(files.path):  # it has none of its own, and where it lay says nothing elsewhere
        defaults["description"] = title
    apart = 0.0

    def complete(folder: Path) -> None:
        nonlocal apart
        write_graphs(folder, start_stage)
        if problem := onnx_problem(find_model(str(folder))):
            raise ModelError(f"{model} {problem}, and is not written")
        apart = largest_difference(pipeline, folder)
        if not apart <= MOST_APART:
            raise ModelError(
                f"{model} came out {255 * apart:.1f} levels of 255 from what torch gives, and is not written"
            )

    with quiet_libraries():
        save_pipeline(_halved(pipeline), out, card=text, defaults=defaults, complete=complete)
    return apart


def write_graphs(folder: Path, start_stage: StartStage = silent) -> None:
    """Adds ONNX graphs to a pipeline folder that nobody else reads yet.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
    """
    pipeline = load_pipeline(str(folder), device="cpu")
    graphs = len(GRAPHS) + (pipeline.photo_encoder is not None)
    add_onnx_parts(pipeline, folder, start_stage("exporting", graphs))


def largest_difference(pipeline: Pipeline, folder: Path) -> float:
    """Between torch and ONNX Runtime with the graphs in a folder, of sRGB 0..1, over a short trial of another shape."""
    by_torch = TorchBackend(pipeline)
    by_onnx = OnnxBackend(load_onnx_pipeline(find_model(str(folder))))
    side = by_torch.multiple_px * max(2, 128 // by_torch.multiple_px)
    down, across = np.mgrid[0 : side + by_torch.multiple_px, 0:side].astype(np.float32) / side
    grays = (0.5 + 0.3 * np.sin(20 * down * across) + 0.2 * np.cos(13 * across))[None].astype(np.float32)
    options = [pipeline.info.resolve(ColorizeOptions(steps=TRIAL_STEPS))]
    return float(np.abs(by_torch(grays, options) - by_onnx(grays, options)).max())


def defaults_of(info: ModelInfo) -> dict[str, Any]:
    """What `chromatune.json` says of a model."""
    return {name: getattr(info, name) for name in DEFAULTS}


def _halved(pipeline: Pipeline) -> Pipeline:
    """A copy with the weights that are stored in half precision in it: all but the text encoder's."""

    def half(part: Any) -> Any:
        return copy.deepcopy(part).to(torch.float16, memory_format=torch.contiguous_format)

    seen = pipeline.photo_encoder
    return replace(
        pipeline, vae=half(pipeline.vae), unet=half(pipeline.unet), photo_encoder=None if seen is None else half(seen)
    )
