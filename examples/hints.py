"""Colour by hand: what a few strokes do to a photo, as a sheet.

    python examples/hints.py sheet.png                       # two photos of scikit-image: 0, 3 and 10 strokes
    python examples/hints.py sheet.png PHOTOS STROKES.json   # your own: {"name.jpg": {"marks": [...]}, ...}

`marks` are what `Hints.to_json` writes. Columns: the grey photo with the strokes, and the results.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
from demo import labelled, save, shipped_photo

from chromatune import Colorizer, Hints, Photo, Retouch
from chromatune.color import luma
from chromatune.hints import Stroke

STROKES = {  # points, radius in pixels, colour; the first three say the most
    "astronaut.png": [
        ([(160, 330), (150, 430)], 8, "#d2622a"),
        ([(330, 330), (360, 430)], 8, "#d2622a"),
        ([(215, 110), (240, 150)], 6, "#c98f70"),
        ([(180, 60), (165, 130)], 5, "#5a3a26"),
        ([(110, 40), (120, 90)], 8, "#b4b2b0"),
        ([(330, 60), (340, 160)], 8, "#b4b2b0"),
        ([(490, 60), (495, 180)], 8, "#b4b2b0"),
        ([(10, 20), (55, 60)], 8, "#24305a"),
        ([(245, 440), (250, 490)], 6, "#d8d8d8"),
        ([(430, 400), (450, 430)], 6, "#303030"),
    ],
    "coffee.png": [
        ([(230, 190), (330, 190)], 8, "#b08a6a"),
        ([(150, 250), (190, 300)], 8, "#a02828"),
        ([(40, 40), (40, 360)], 10, "#8a5a2c"),
        ([(480, 60), (570, 120)], 10, "#8a5a2c"),
        ([(420, 260), (450, 300)], 6, "#a02828"),
        ([(300, 330), (360, 340)], 6, "#a02828"),
        ([(560, 330), (590, 380)], 8, "#8a5a2c"),
        ([(200, 60), (210, 110)], 5, "#f0f0f0"),
        ([(110, 200), (118, 230)], 5, "#a02828"),
        ([(300, 20), (360, 20)], 8, "#6b4423"),
    ],
}


def hints_of(strokes: list[tuple[list[tuple[int, int]], int, str]]) -> Hints:
    """Strokes as hints."""
    hints = Hints()
    for points, radius_px, colour in strokes:
        hints = hints.stroke(points, radius_px, colour)
    return hints


def with_strokes(grey: np.ndarray, hints: Hints) -> np.ndarray:
    """The grey photo, (H, W, 3) uint8, with the strokes drawn over it."""
    shown = np.repeat(grey[..., None], 3, axis=2)
    for mark in hints.marks:
        if isinstance(mark, Stroke):
            points = np.rint(mark.points).astype(np.int32)[:, None]
            radius_px = mark.radius_px or min(grey.shape) / 50
            cv2.polylines(shown, [points], False, mark.colour, max(1, round(2 * radius_px)), cv2.LINE_AA)
    return shown


def built_in() -> tuple[dict[str, np.ndarray], dict[str, list[Hints]]]:
    """scikit-image's photos, grey, each with 0, 3 and 10 strokes."""
    greys = {name: luma(shipped_photo(name)) for name in STROKES}
    return greys, {name: [hints_of(strokes[:count]) for count in (0, 3, 10)] for name, strokes in STROKES.items()}


def given(folder: Path, strokes: Path) -> tuple[dict[str, np.ndarray], dict[str, list[Hints]]]:
    """Photos of a folder, grey, each without its hints and with them."""
    marks = json.loads(strokes.read_text(encoding="utf-8"))
    greys = {}
    for name in marks:
        picture = cv2.imread(str(folder / name), cv2.IMREAD_COLOR)
        if picture is None:
            raise SystemExit(f"{folder / name}: cannot be read; give the folder that {strokes} is about")
        greys[name] = luma(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    return greys, {name: [Hints(), Hints.from_json(each)] for name, each in marks.items()}


def main() -> None:
    """Colorizes each photo once, and with each set of hints; writes the sheet."""
    if len(sys.argv) not in (2, 4):
        raise SystemExit(__doc__)
    greys, variants = built_in() if len(sys.argv) == 2 else given(Path(sys.argv[2]), Path(sys.argv[3]))
    colorizer = Colorizer.load("mini")
    columns: dict[str, list[np.ndarray]] = {}
    for name, grey in greys.items():
        for output in colorizer.model_outputs([Photo(grey, name=name)]):
            if isinstance(output, Exception):
                raise SystemExit(str(output))
            retouch = Retouch(colorizer, output)
            columns.setdefault("strokes", []).append(with_strokes(grey, variants[name][-1]))
            for hints in variants[name]:
                columns.setdefault(f"{len(hints.marks)} strokes", []).append(retouch.finish(hints).rgb)
    save(Path(sys.argv[1]), labelled(columns))
    print(sys.argv[1])


if __name__ == "__main__":
    main()
