"""What every model pass offers, and which maker opens a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from chromatune.options import ResolvedOptions
from chromatune.pipeline.names import ModelInfo, find_model
from chromatune.pipeline.onnx_files import load_onnx_pipeline, threads
from chromatune.pipeline.runtimes import choose_runtime

MOST_WORKERS = 8


def usual_workers() -> int:
    """Photos computed at the same time, unless a number is asked for: one a core, up to 8, as each takes memory."""
    return max(1, min(threads(), MOST_WORKERS))


class Backend(Protocol):
    """A loaded model as one callable, for several threads; NumPy arrays in, NumPy arrays out."""

    @property
    def runtime(self) -> str:
        """The library that computes: "onnx" or "torch"."""

    @property
    def info(self) -> ModelInfo:
        """The model's name and defaults."""

    @property
    def multiple_px(self) -> int:
        """Sides of the grays must be multiples of this."""

    @property
    def batches(self) -> bool:
        """Whether several photos in one call are faster than one by one, and no photo's pixels depend on the others.

        A CPU's matrix kernels round differently at another batch size, and one level of 255 is not the same pixels.
        """

    @property
    def concurrent(self) -> bool:
        """Whether threads that call it at the same time gain by it; else one call waits for the other."""

    def warnings_of(self, options: ResolvedOptions) -> tuple[str, ...]:
        """What of the options this model does not follow, a line each; usually none."""

    def features(self, grays: np.ndarray) -> dict[int, np.ndarray] | None:
        """What the photo encoder sees: stride in pixels ⇒ (B, C, h / stride, w / stride) float32; None without one.

        Args:
            grays: (B, h, w) float32, luma 0..1; sides are multiples of 32.
        """

    def __call__(self, grays: np.ndarray, options: Sequence[ResolvedOptions]) -> np.ndarray:
        """The model's own RGB, (B, h, w, 3) float32 sRGB 0..1.

        Args:
            grays: (B, h, w) float32, luma 0..1.
            options: of each photo; all but the seeds are the same.

        Raises:
            ModelError: the model gives values that are not numbers.
        """


def load_backend(model: str, *, device: str | None = None, runtime: str | None = None, workers: int = 1) -> Backend:
    """The model pass of `mini`, `mini-base`, a pipeline folder, a LoRA folder, or a hub name.

    Args:
        model: see `chromatune.pipeline.load_pipeline`.
        device: for torch `cpu`, `cuda`, `cuda:1`, `mps`; for ONNX Runtime a name of `onnx_files.PROVIDERS`; None for
            the best there is.
        runtime: "onnx" or "torch"; None for the one that is faster here, see `choose_runtime`.
        workers: threads that will call it at the same time. Torch takes one call after the other.

    Raises:
        ModelError: see `chromatune.pipeline.load_pipeline` and `choose_runtime`.
        MissingExtraError: it takes torch, which is not installed.
        OptionsError: there is no such runtime.
    """
    files = find_model(model)
    if choose_runtime(files, device, runtime) == "onnx":
        from chromatune.pipeline.onnx_backend import OnnxBackend

        return OnnxBackend(load_onnx_pipeline(files, device=device or "cpu", workers=workers))
    from chromatune.pipeline import load_pipeline
    from chromatune.pipeline.torch_backend import TorchBackend  # it imports torch

    return TorchBackend(load_pipeline(model, device=device))
