"""Chooses a model's defaults on photos it was not trained on: a table over sampling steps and vividness.

    python -m studies.defaults FOLDER --keys FILE [--model mini] [--steps 1 2 4] [--vivid 0 1 2] [--size 256]

FILE lists the photos, one path below FOLDER a line: give validation photos, never the test's. The model runs once a
photo and number of steps; recomposition is repeated for each amount (`color.vivid`). PSNR rewards dull color
and colorfulness (CF, printed less the truth's) does not, so they are read together, and then pictures are looked at.
"Skin" is CIEDE2000 over the skin of the faces that are found.
"""

from __future__ import annotations

import numpy as np

from chromatune import Colorizer, make_options
from chromatune.color import chroma_of, luma, recompose, vivid
from chromatune.evaluation import colorfulness, delta_e_2000, face_finder, lab_of, psnr, skin_distance
from studies.squares import make_parser, read_squares, succeeded, write_sheet


def main() -> None:
    """Prints one line for each number of steps and vividness; writes a sheet of the first twenty photos."""
    parser = make_parser(__doc__, limit=160, sheet="input, every combination, truth")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--vivid", type=float, nargs="+", default=[0.0, 1.0, 2.0])
    parser.add_argument("--size", type=int, help="side of the model's own pass; its own where not given")
    arguments = parser.parse_args()
    truths = read_squares(arguments)
    grays, labs = [luma(truth) for truth in truths], [lab_of(truth) for truth in truths]
    find_face = face_finder()
    faces = [find_face(gray) for gray in grays]
    truth_cf = np.mean([colorfulness(truth) for truth in truths])
    colorizer = Colorizer.load(arguments.model, device="cpu")
    passthrough = [np.repeat(gray[..., None], 3, axis=2) for gray in grays]
    print(f"{len(truths)} photos, CF of the truth {truth_cf:.1f}")
    print(f"gray              {np.mean([psnr(*pair) for pair in zip(passthrough, truths, strict=True)]):.2f} dB")
    rows = [passthrough[:20]]
    for steps in arguments.steps:
        outputs = colorizer.model_outputs(grays, make_options(steps=steps, size_px=arguments.size))
        chromas = [chroma_of(output.rgb) for output in succeeded(outputs, f"{steps} steps", len(grays))]
        for amount in arguments.vivid:
            pairs = zip(grays, chromas, strict=True)
            results = [recompose(gray, vivid(chroma, amount)) for gray, chroma in pairs]
            gap = np.mean([colorfulness(result) for result in results]) - truth_cf
            decibels = np.mean([psnr(*pair) for pair in zip(results, truths, strict=True)])
            distances = [delta_e_2000(lab_of(result), lab) for result, lab in zip(results, labs, strict=True)]
            of_skin = [skin_distance(each, face) for each, face in zip(distances, faces, strict=True) if face]
            combination = f"{steps} steps, vivid {amount:.2f}"
            measured = f"{decibels:.2f} dB  CF {gap:+.1f}  CIEDE2000 {np.mean(distances):.2f}"
            measured += f", skin {np.mean(of_skin):.2f}" if of_skin else ""
            print(f"{combination}  {measured}", flush=True)
            rows.append(results[:20])
    if arguments.sheet:
        rows.append(truths[:20])
        shown = min(10, len(truths) // 2)  # the sheet has two halves of as many columns
        write_sheet(arguments.sheet, [row[i : i + shown] for i in (0, shown) for row in rows], scale=0.6)


if __name__ == "__main__":
    main()
