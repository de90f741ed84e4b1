"""Chooses a model's defaults on photos it was not trained on: a table over sampling steps, chroma gain and power.

    python studies/defaults.py FOLDER --keys FILE [--model mini] [--steps 1 2 4] [--gains 1.0 1.2 1.4]
        [--powers 1.0 1.25] [--size 256]

FILE lists the photos, one path below FOLDER a line: give validation photos, never the test's. The model runs once a
photo and number of steps; recomposition is repeated for each gain and power (`color.vivid`). PSNR rewards dull colour
and colourfulness (CF, printed less the truth's) does not, so they are read together, and then pictures are looked at.
"""

from __future__ import annotations

import itertools

import numpy as np
from squares import make_parser, read_squares, succeeded, write_sheet

from chromatune import Colorizer, make_options
from chromatune.color import chroma_of, luma, recompose, vivid
from chromatune.evaluation.metrics import ciede2000, colorfulness, psnr


def main() -> None:
    """Prints one line for each number of steps, power and gain; writes a sheet of the first twenty photos."""
    parser = make_parser(__doc__, limit=160, sheet="input, every combination, truth")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--gains", type=float, nargs="+", default=[1.0, 1.2, 1.4])
    parser.add_argument("--powers", type=float, nargs="+", default=[1.0, 1.25])
    parser.add_argument("--size", type=int, help="side of the model's own pass; its own where not given")
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
        outputs = colorizer.model_outputs(greys, make_options(steps=steps, size_px=arguments.size))
        chromas = [chroma_of(output.rgb) for output in succeeded(outputs, f"{steps} steps", len(greys))]
        for power, gain in itertools.product(arguments.powers, arguments.gains):
            pairs = zip(greys, chromas, strict=True)
            results = [recompose(grey, vivid(chroma, gain, power)) for grey, chroma in pairs]
            gap = np.mean([colorfulness(result) for result in results]) - truth_cf
            decibels = np.mean([psnr(*pair) for pair in zip(results, truths, strict=True)])
            delta_e = np.mean([ciede2000(*pair) for pair in zip(results, truths, strict=True)])
            combination = f"{steps} steps, power {power:.2f}, gain {gain:.2f}"
            print(f"{combination}  {decibels:.2f} dB  CF {gap:+.1f}  CIEDE2000 {delta_e:.2f}", flush=True)
            rows.append(results[:20])
    if arguments.sheet:
        rows.append(truths[:20])
        shown = min(10, len(truths) // 2)  # the sheet has two halves of as many columns
        write_sheet(arguments.sheet, [row[i : i + shown] for i in (0, shown) for row in rows], scale=0.6)


if __name__ == "__main__":
    main()
