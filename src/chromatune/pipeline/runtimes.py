"""The library that runs a model: ONNX Runtime where the model has graphs for it, torch on a GPU and for all others."""

from __future__ import annotations

import ctypes.util
import sys
from pathlib import Path
from typing import Literal, get_args

from chromatune.errors import MissingExtraError, ModelError, OptionsError, shown
from chromatune.pipeline import checks
from chromatune.pipeline.backend import Backend
from chromatune.pipeline.colorizer_files import ColorizerFiles
from chromatune.pipeline.edit_files import EditFiles
from chromatune.pipeline.model_files import ModelFiles, has_torch
from chromatune.pipeline.model_kinds import BlendFiles, Files, find_model
from chromatune.pipeline.onnx_backend import PROVIDERS, OnnxBackend, graphs_of, load_onnx_pipeline, threads
from chromatune.pipeline.onnx_checks import GRAPH_FILE
from chromatune.pipeline.schedules import make_schedule
from chromatune.pipeline.truncation import TOKENIZER_FILE

Runtime = Literal["onnx", "torch"]
MOST_WORKERS = 8


def load_backend(model: str, *, device: str | None = None, runtime: str | None = None, workers: int = 1) -> Backend:
    """Load the backend of a model: a pipeline, a LoRA, an edit model, or anyone's colorizer.

    Args:
        model: see `model_kinds.find_model`.
        device: for torch `cpu`, `cuda`, `cuda:1`, `mps`; for ONNX Runtime a name of `onnx_backend.PROVIDERS`; None for
            the best there is.
        runtime: "onnx" or "torch"; None for the one that is faster here, see `choose_runtime`.
        workers: threads that will call it at the same time. Torch takes one call after the other.

    Raises:
        ModelError: see `chromatune.pipeline.load_pipeline` and `choose_runtime`.
        MissingExtraError: it takes torch, which is not installed.
        OptionsError: there is no such runtime.
    """
    files = find_model(model)
    return _load(files, device, runtime, workers)


def _load(files: Files, device: str | None, runtime: str | None, workers: int) -> Backend:
    if isinstance(files, BlendFiles):
        from chromatune.pipeline.blend import BlendedBackend

        first, second = (_load(each, device, runtime, workers) for each in (files.first, files.second))
        return BlendedBackend(files.name, first, second, files.share)
    if isinstance(files, ColorizerFiles):
        return _load_colorizer(files, device, runtime, workers)
    if isinstance(files, EditFiles):
        return _load_edit_model(files, device, runtime)
    if choose_runtime(files, device, runtime) == "onnx":
        return OnnxBackend(load_onnx_pipeline(files, device=device or "cpu", workers=workers))
    from chromatune.pipeline.loading import load_pipeline
    from chromatune.pipeline.torch_backend import TorchBackend  # it imports torch

    return TorchBackend(load_pipeline(files.name, device=device))


def _load_colorizer(files: ColorizerFiles, device: str | None, runtime: str | None, workers: int) -> Backend:
    if runtime not in (None, *get_args(Runtime)):
        raise OptionsError(f"runtime {shown(runtime)}: accepted are {' and '.join(get_args(Runtime))}", "runtime")
    if files.is_checkpoint:
        if runtime == "onnx":
            raise OptionsError(
                f"{files.name} is a checkpoint, which only torch can run; leave out --runtime", "runtime"
            )
        from chromatune.pipeline.ddcolor_checkpoint import load_checkpoint_backend

        return load_checkpoint_backend(files, device=device)
    if runtime == "torch":
        raise OptionsError(f"{files.name} is an ONNX graph, which torch cannot run; leave out --runtime", "runtime")
    from chromatune.pipeline.colorizer_backend import load_graph_backend

    return load_graph_backend(files, device=device or "cpu", workers=workers)


def _load_edit_model(files: EditFiles, device: str | None, runtime: str | None) -> Backend:
    if runtime not in (None, *get_args(Runtime)):
        raise OptionsError(f"runtime {shown(runtime)}: accepted are {' and '.join(get_args(Runtime))}", "runtime")
    if runtime == "onnx":
        raise OptionsError(f"{files.name} is an edit model, which only torch can run; leave out --runtime", "runtime")
    from chromatune.pipeline.edit_backend import load_edit_backend

    return load_edit_backend(files, device=device)


def usual_workers() -> int:
    """Return the default number of photos computed at the same time: one a core, up to 8, as each takes memory."""
    return max(1, min(threads(), MOST_WORKERS))


def choose_runtime(files: ModelFiles, device: str | None = None, runtime: str | None = None) -> Runtime:
    """Choose the runtime of a model.

    Args:
        files: see `find_model`.
        device: where to compute; None for the best there is.
        runtime: the one that must be used, or None.

    Raises:
        OptionsError: there is no such runtime.
        ModelError: ONNX Runtime must be used, or is the only one that knows the device, and the model has no graphs.
        MissingExtraError: it takes torch, which is not installed.
    """
    if runtime not in (None, *get_args(Runtime)):
        raise OptionsError(f"runtime {shown(runtime)}: accepted are {' and '.join(get_args(Runtime))}", "runtime")
    lacking = onnx_problem(files)
    if runtime == "onnx" or (runtime is None and device in PROVIDERS.keys() - {"cpu", "cuda"}):
        if lacking:
            raise ModelError(
                f"{files.name} {lacking}, and does not run on ONNX Runtime; "
                f"`chromatune export {files.name} --to onnx OUT` makes a model that does, or leave out --runtime"
            )
        return "onnx"
    if runtime is None and not lacking and not _torch_is_better(device):
        return "onnx"
    if not has_torch():
        what = f"{files.name} {lacking}, and running it" if lacking else f"running {files.name} by torch"
        raise MissingExtraError(what, "torch")
    return "torch"


def onnx_problem(files: ModelFiles) -> str:
    """Return why ONNX Runtime cannot run a model, to be read after its name; empty if it can."""
    if files.loras:
        return "is a LoRA"
    if not all((files.pipeline_folder / part / GRAPH_FILE).is_file() for part in graphs_of(files)):
        return "has no ONNX parts"
    # torch's libraries read the older files, too
    if not (files.pipeline_folder / "tokenizer" / TOKENIZER_FILE).is_file():
        return f"has no {TOKENIZER_FILE}"
    return scheduler_problem(files)


def scheduler_problem(files: ModelFiles) -> str:
    """Return why a model is not sampled without torch, to be read after its name; empty if it is."""
    scheduler = checks.part_class(files.name, files.index, "scheduler")[1]
    try:
        config = checks.read_json(files.pipeline_folder / "scheduler" / "scheduler_config.json")
        checks.SchedulerConfig.model_validate(config)
        known = make_schedule(scheduler, config, 1) is not None
    except (ArithmeticError, LookupError, TypeError, ValueError):  # reported in full when the model is opened
        return ""
    return "" if known else f"has a {scheduler} with settings that take torch"


def _torch_is_better(device: str | None) -> bool:
    """Return whether a model that both could run is faster by torch: on a GPU."""
    if not has_torch() or device == "cpu":
        return False
    if device is not None:
        return True
    if not _may_have_gpu():  # loading torch takes seconds
        return False
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _may_have_gpu() -> bool:
    """Return whether a GPU's driver is there."""
    if sys.platform == "darwin":
        return True
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, Windows' subsystem for Linux
    return any(Path(name).exists() for name in drivers) or (
        sys.platform == "win32" and ctypes.util.find_library("nvcuda") is not None
    )
