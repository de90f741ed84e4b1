"""Chooses a model's defaults on photos it was not trained on: a table over sampling steps and vividness.

    python studies/defaults.py FOLDER --keys FILE [--model mini] [--steps 1 2 4] [--vivid 0 1 2] [--size 256]

FILE lists the photos, one path below FOLDER a line: give validation photos, never the test's. The model runs once a
photo and number of steps; recomposition is repeated for each amount (`color.vivid`). PSNR rewards dull colour
and colourfulness (CF, printed less the truth's) does not, so they are read together, and then pictures are looked at.
"Skin" is CIEDE2000 where the truth has skin's hue, which it has everywhere on a face and here and there on all else.
"""

from __future__ import annotations

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab
from squares import make_parser, read_squares, succeeded, write_sheet

from chromatune import Colorizer, make_options
from chromatune.color import chroma_of, luma, recompose, vivid
from chromatune.evaluation.metrics import ciede2000, colorfulness, psnr

SKIN_HUE, SKIN_SPREAD = 127.5, 22.5  # degrees of (Cb, Cr): skin of every tone, and wood and sand
SKIN_CHROMA = 0.03  # duller pixels have no hue to speak of
LEAST_SKIN = 0.02  # of the pixels


def main() -> None:
    """Prints one line for each number of steps and vividness; writes a sheet of the first twenty photos."""
    parser = make_parser(__doc__, limit=160, sheet="input, every combination, truth")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--vivid", type=float, nargs="+", default=[0.0, 1.0, 2.0])
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
        for amount in arguments.vivid:
            pairs = zip(greys, chromas, strict=True)
            results = [recompose(grey, vivid(chroma, amount)) for grey, chroma in pairs]
            gap = np.mean([colorfulness(result) for result in results]) - truth_cf
            decibels = np.mean([psnr(*pair) for pair in zip(results, truths, strict=True)])
            delta_e = np.mean([ciede2000(*pair) for pair in zip(results, truths, strict=True)])
            of_skin = np.nanmean([skin_error(*pair) for pair in zip(results, truths, strict=True)])
            combination = f"{steps} steps, vivid {amount:.2f}"
            measured = f"{decibels:.2f} dB  CF {gap:+.1f}  CIEDE2000 {delta_e:.2f}, skin {of_skin:.2f}"
            print(f"{combination}  {measured}", flush=True)
            rows.append(results[:20])
    if arguments.sheet:
        rows.append(truths[:20])
        shown = min(10, len(truths) // 2)  # the sheet has two halves of as many columns
        write_sheet(arguments.sheet, [row[i : i + shown] for i in (0, shown) for row in rows], scale=0.6)


def skin_error(result: np.ndarray, truth: np.ndarray) -> float:
    """Mean CIEDE2000 over the truth's pixels of skin's hue, (H, W, 3) uint8 each; NaN where they are few."""
    chroma = chroma_of(truth.astype(np.float32) / 255)
    hue = np.degrees(np.arctan2(chroma[..., 1], chroma[..., 0]))
    skin = (np.abs(hue - SKIN_HUE) < SKIN_SPREAD) & (np.linalg.norm(chroma, axis=2) > SKIN_CHROMA)
    if skin.mean() < LEAST_SKIN:
        return np.nan
    return float(deltaE_ciede2000(rgb2lab(result[skin][None]), rgb2lab(truth[skin][None])).mean())


if __name__ == "__main__":
    main()
