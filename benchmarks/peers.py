"""`mini` against DDColor-T on the same photo, with the same threads, in one run; as Markdown.

    python benchmarks/peers.py CHECKOUT [--rounds 7]

CHECKOUT is DDColor's repository (github.com/piddnad/DDColor); its own code runs, with random weights, which take as
long as trained ones. Both go from a decoded photo of 1 MP to a full-size result: DDColor by its pipeline at its usual
512 px, `mini` by `Colorizer`, as it comes and at 512 px.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from speed import photo_of, seconds_of

from chromatune import Colorizer, make_options

DDCOLOR_SIDE_PX = 512


def ddcolor_pipeline(checkout: Path) -> Callable[[np.ndarray], np.ndarray]:
    """DDColor-T as its own pipeline calls it: (H, W, 3) uint8 BGR -> the same."""
    sys.path.insert(0, str(checkout))
    if importlib.util.find_spec("torchvision") is None:  # DDColor's tools for training import one function of it
        sys.modules["torchvision"] = sys.modules["torchvision.utils"] = ModuleType("torchvision.utils")
        sys.modules["torchvision.utils"].make_grid = None  # type: ignore[attr-defined]
    ddcolor: Any = importlib.import_module("ddcolor")
    model = ddcolor.DDColor(
        encoder_name="convnext-t", decoder_name="MultiScaleColorDecoder", input_size=[DDCOLOR_SIDE_PX] * 2,
        num_output_channels=2, last_norm="Spectral", do_normalize=False, num_queries=100, num_scales=3, dec_layers=9,
    )  # fmt: skip
    process: Callable[[np.ndarray], np.ndarray] = ddcolor.ColorizationPipeline(model, device="cpu").process
    return process


def measure_ddcolor(checkout: Path, rounds: int = 7) -> list[str]:
    """Rows of a table: seconds of both, and how many times as fast `mini` is."""
    import torch

    from chromatune.pipeline import threads

    torch.set_num_threads(threads())
    process, mini = ddcolor_pipeline(checkout), Colorizer.load("mini", device="cpu")
    gray = photo_of(1)
    bgr = cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)
    options = {"as it comes": make_options(), f"--size {DDCOLOR_SIDE_PX}": make_options(size_px=DDCOLOR_SIDE_PX)}
    figures: dict[str, list[float]] = {"DDColor-T": [], **{name: [] for name in options}}
    process(bgr)
    for each in options.values():
        mini.colorize(gray, each)
    for _ in range(rounds):
        figures["DDColor-T"].append(seconds_of(lambda: process(bgr)))
        for name, each in options.items():  # several: one is so short that a disturbance would decide
            repeats = [seconds_of(partial(mini.colorize, gray, each)) for _ in range(5)]
            figures[name].append(statistics.median(repeats))
    lines = ["| a photo of 1 MP, once loaded | seconds | times as fast as DDColor-T |", "| --- | ---: | ---: |"]
    for name, seconds in figures.items():
        ratios = [theirs / ours for theirs, ours in zip(figures["DDColor-T"], seconds, strict=True)]
        shown = (
            ""
            if name == "DDColor-T"
            else f"**{statistics.median(ratios):.1f}** ({min(ratios):.1f} … {max(ratios):.1f})"
        )
        lines.append(
            f"| {name if name == 'DDColor-T' else f'mini, {name}'} | {statistics.median(seconds):.3f} | {shown} |"
        )
    return lines


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    print("\n".join(measure_ddcolor(arguments.checkout, arguments.rounds)))


if __name__ == "__main__":
    main()
