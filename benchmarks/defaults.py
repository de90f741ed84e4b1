"""Chooses a model's defaults on photos it was not trained on: a table over sampling steps and chroma gain.

    python benchmarks/defaults.py FOLDER --keys FILE [--model mini] [--steps 1 2 4] [--gains 1.0 1.1 1.2 1.3]

FILE lists the photos, one path below FOLDER a line: give validation photos, never the test's. The model runs once a
photo and number of steps; recomposition is repeated for each gain. PSNR rewards dull colour and ΔCF does not, so
the two are read together, and then the pictures are looked at.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track
from squares import add_arguments, read_squares

from chromatune import Colorizer, make_options
from chromatune.color import chroma_of, luma, recompose
from chromatune.evaluation.metrics import ciede2000, colorfulness, psnr


def main() -> None:
    """Prints one line for each number of steps and gain; writes a sheet of the first twenty photos."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, limit=160)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--gains", type=float, nargs="+", default=[1.0, 1.1, 1.2, 1.3])
    parser.add_argument("--sheet", type=Path, help="PNG: input, each number of steps at the first gain, truth")
    arguments = parser.parse_args()
    truths = read_squares(arguments)
    greys = [luma(truth) for truth in truths]
    truth_cf = np.mean([colorfulness(truth) for truth in truths])
    colorizer = Colorizer.load(arguments.model, device="cpu")
    passthrough = [np.repeat(grey[..., None], 3, axis=2) for grey in greys]
    print(f"{len(truths)} photos, CF of the truth {truth_cf:.1f}")
    print(f"grey              {np.mean([psnr(*pair) for pair in zip(passthrough, truths, strict=True)]):.2f} dB")
    rows = [passthrough[:20]]
    for steps in arguments.steps:
        outputs = colorizer.model_outputs(greys, make_options(steps=steps))
        small = [output.rgb for output in track(outputs, f"{steps} steps", total=len(greys))]
        for gain in arguments.gains:
            results = [recompose(g, chroma_of(rgb), strength=gain) for g, rgb in zip(greys, small, strict=True)]
            gap = abs(np.mean([colorfulness(result) for result in results]) - truth_cf)
            decibels = np.mean([psnr(*pair) for pair in zip(results, truths, strict=True)])
            delta_e = np.mean([ciede2000(*pair) for pair in zip(results[:60], truths[:60], strict=True)])
            print(
                f"{steps} steps, gain {gain:.2f}  {decibels:.2f} dB  ΔCF {gap:.1f}  CIEDE2000 {delta_e:.2f}", flush=True
            )
            if gain == arguments.gains[0]:
                rows.append(results[:20])
    if arguments.sheet:
        rows.append(truths[:20])
        halves = [np.concatenate([np.concatenate(row[i : i + 10], axis=1) for row in rows]) for i in (0, 10)]
        cv2.imwrite(str(arguments.sheet), cv2.resize(np.concatenate(halves), None, fx=0.6, fy=0.6)[..., ::-1])


if __name__ == "__main__":
    main()
