"""Does a word move the color it names? Each attribute and hue on held-out photos, against the plain instruction.

    python -m studies.text_control FOLDER --keys FILE [--model mini] [--limit 100] [--sheet FILE.png]

FILE lists the photos, one path below FOLDER a line. A word is right on a photo when what it names is more than in the
result without it, same seed: mean CIELAB b* for warm (less for cool), mean chroma for vivid (less for muted), and for a
hue the mean (a*, b*) along that hue's angle. The last column is the largest change of luma over all photos: 0 if only
color obeys. Prints one line a word.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from chromatune import Colorizer, make_options, prompts
from chromatune.color import luma
from chromatune.evaluation import lab_of
from studies.squares import colorized, make_parser, read_squares, write_sheet

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
    attributes: dict[str, Measure] = {
        "warm": lambda lab: float(lab[..., 2].mean()),
        "cool": lambda lab: -float(lab[..., 2].mean()),
        "vivid": chroma,
        "muted": lambda lab: -chroma(lab),
    }
    hues = {name: (prompts.HUE_FORMS[0].format(name), along(prompts.HUE_DEGREES[name])) for name in prompts.NAMED_HUES}
    return {word: (prompts.ATTRIBUTE_FORMS[0].format(word), measure) for word, measure in attributes.items()} | hues


def main() -> None:
    """Colorizes every photo plainly and with each word; compares photo by photo."""
    parser = make_parser(__doc__, limit=100, sheet="eight photos, one row a word")
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    grays = [luma(square) for square in read_squares(arguments)]
    colorizer = Colorizer.load(arguments.model, device="cpu")

    def asked(addition: str, name: str) -> list[np.ndarray]:
        options = make_options(prompt=prompts.DEFAULT_PROMPT + addition, steps=arguments.steps)
        return colorized(colorizer, grays, options, name)

    plain = asked("", "plain")
    rows, labs = [plain[:8]], [lab_of(picture) for picture in plain]
    print(f"{len(grays)} photos, {arguments.model}\nword     right  mean change  luma changed by at most")
    for word, (addition, measure) in words().items():
        results = asked(addition, word)
        gains = [measure(lab_of(result)) - measure(lab) for result, lab in zip(results, labs, strict=True)]
        drift = max(int(cv2.absdiff(luma(r), g).max()) for r, g in zip(results, grays, strict=True))
        print(f"{word:8} {np.mean(np.array(gains) > 0):5.0%}  {np.mean(gains):+11.2f}  {drift}", flush=True)
        rows.append(results[:8])
    if arguments.sheet:
        write_sheet(arguments.sheet, rows, scale=0.5)


if __name__ == "__main__":
    main()
