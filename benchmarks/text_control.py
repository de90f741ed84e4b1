"""Does a word move the colour it names? Each attribute and hue on held-out photos, against the plain instruction.

    python benchmarks/text_control.py FOLDER --keys FILE [--model mini] [--limit 100] [--sheet FILE.png]

FILE lists the photos, one path below FOLDER a line. A word is right on a photo when what it names is more than in the
result without it, same seed: mean CIELAB b* for warm (less for cool), mean chroma for vivid (less for muted), and for a
hue the mean (a*, b*) along that hue's angle. The last column is the largest change of luma over all photos: 0 if only
colour obeys. Prints one line a word.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track
from squares import add_arguments, read_squares

from chromatune import ChromaTuneError, Colorizer, make_options, prompts
from chromatune.color import luma
from chromatune.evaluation.metrics import lab_of

Measure = Callable[[np.ndarray], float]


def along(degrees: float) -> Measure:
    """Mean (a*, b*) of a (H, W, 3) CIELAB picture, along a hue angle."""
    a, b = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return lambda lab: float((lab[..., 1] * a + lab[..., 2] * b).mean())


def chroma(lab: np.ndarray) -> float:
    """Mean chroma of a (H, W, 3) CIELAB picture."""
    return float(np.hypot(lab[..., 1], lab[..., 2]).mean())


def words() -> dict[str, tuple[str, Measure]]:
    """Word ⇒ what is said after the instruction, and what is to be more."""
    said: dict[str, tuple[str, Measure]] = {
        "warm": ("warm", lambda lab: float(lab[..., 2].mean())),
        "cool": ("cool", lambda lab: -float(lab[..., 2].mean())),
        "vivid": ("vivid", chroma),
        "muted": ("muted", lambda lab: -chroma(lab)),
    }
    said = {word: (prompts.ATTRIBUTE_FORMS[0].format(text), measure) for word, (text, measure) in said.items()}
    return said | {
        name: (prompts.HUE_FORMS[0].format(name), along(prompts.HUE_DEGREES[name])) for name in prompts.NAMED_HUES
    }


def main() -> None:
    """Colorizes every photo plainly and with each word; compares photo by photo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, limit=100)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sheet", type=Path, help="PNG: eight photos, one row a word")
    arguments = parser.parse_args()
    greys = [luma(square) for square in read_squares(arguments)]
    colorizer = Colorizer.load(arguments.model, device="cpu")

    def colorized(said: str, name: str) -> list[np.ndarray]:
        options = make_options(prompt=prompts.DEFAULT_PROMPT + said, steps=arguments.steps)
        results = colorizer.colorize_many(greys, options)
        return [
            result.rgb for result in track(results, name, total=len(greys)) if not isinstance(result, ChromaTuneError)
        ]

    plain = colorized("", "plain")
    rows, labs = [plain[:8]], [lab_of(picture) for picture in plain]
    print(f"{len(greys)} photos, {arguments.model}\nword     right  mean change  luma changed by at most")
    for word, (said, measure) in words().items():
        results = colorized(said, word)
        gains = [measure(lab_of(result)) - measure(lab) for result, lab in zip(results, labs, strict=True)]
        drift = max(int(cv2.absdiff(luma(r), g).max()) for r, g in zip(results, greys, strict=True))
        print(f"{word:8} {np.mean(np.array(gains) > 0):5.0%}  {np.mean(gains):+11.2f}  {drift}", flush=True)
        rows.append(results[:8])
    if arguments.sheet:
        sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows])
        cv2.imwrite(
            str(arguments.sheet), cv2.resize(sheet, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)[..., ::-1]
        )


if __name__ == "__main__":
    main()
