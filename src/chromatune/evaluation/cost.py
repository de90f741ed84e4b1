"""What a method costs: parameters, U-Net evaluations and FLOPs of one photo, its seconds, and memory at the peak."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from chromatune.colorizer import Colorizer
from chromatune.options import ColorizeOptions
from chromatune.pipeline import has_torch

REPEATABLE = ("parameters", "unet_evaluations", "gflops")  # the same on every machine

Cost = dict[str, float | None]  # those, "seconds" and "memory_mib"; None where unknown


def count_work(colorizer: Colorizer, options: ColorizeOptions, size_px: int) -> Cost:
    """Work that one square photo of `size_px` takes.

    Returns:
        parameters: of U-Net, VAE, text encoder and, where there is one, photo encoder.
        unet_evaluations: photos that passed the U-Net: steps times guidance branches.
        gflops: multiplications and additions of matrix products, convolutions and attention, in 1e9, prompt included.
        All None where torch, which counts them, is not installed.
    """
    if not has_torch():
        return dict.fromkeys(REPEATABLE)
    from torch.utils.flop_counter import FlopCounterMode

    from chromatune.pipeline import TorchBackend, load_pipeline

    evaluations = 0
    opened = colorizer.backend
    # Another runtime does the same work, and only torch counts it
    pipeline = (
        opened.pipeline if isinstance(opened, TorchBackend) else load_pipeline(str(colorizer.info.path), device="cpu")
    )

    def count(_: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        nonlocal evaluations
        evaluations += len(inputs[0] if inputs else named["sample"])

    hook = pipeline.unet.register_forward_pre_hook(count, with_kwargs=True)
    fresh = Colorizer(TorchBackend(pipeline))  # its prompt is not embedded yet
    try:
        with FlopCounterMode(display=False) as flops:
            fresh.colorize(np.full((size_px, size_px), 128, np.uint8), options)
    finally:
        hook.remove()
    parts = filter(None, (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.photo_encoder))
    return {
        "parameters": sum(parameter.numel() for part in parts for parameter in part.parameters()),
        "unet_evaluations": evaluations,
        "gflops": flops.get_total_flops() / 1e9,
    }


def median_seconds(timings: Iterable[dict[str, Any]], method: str) -> float | None:
    """Median wall seconds of the model's pass over the photos of one method; None without a timing."""
    seconds = [timing["seconds"] for timing in timings if timing["method"] == method]
    return statistics.median(seconds) if seconds else None


def peak_memory_mib(colorizer: Colorizer) -> float | None:
    """Largest memory so far, in MiB: allocated on a GPU, else resident in this process; None where unknown."""
    device = getattr(getattr(colorizer.backend, "bundle", None), "device", None)
    if getattr(device, "type", None) == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes on macOS, KiB on Linux
