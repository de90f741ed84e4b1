"""Colour by hand: two photos with no stroke, with three and with ten, beside the truth.

    python examples/strokes.py strokes.png

The strokes are those of somebody who knows the scene: a colour, a short line, a radius. All else follows the photo.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from demo import labelled, save, shipped_photo

from chromatune import Colorizer, Hints
from chromatune.color import luma

FEW, MANY = 3, 10
RADIUS_PX = 4
Strokes = tuple[tuple[str, tuple[tuple[int, int], ...]], ...]  # colour and points, the most telling first

STROKES: dict[str, Strokes] = {
    "astronaut.png": (
        ("#d8552c", ((60, 330), (110, 440), (190, 470))),  # the suit
        ("#8a1a28", ((30, 140), (75, 200))),  # a red stripe
        ("#2c2060", ((8, 60), (40, 95))),  # the flag's field
        ("#d8552c", ((295, 270), (330, 300), (270, 420))),
        ("#8a1a28", ((8, 250), (30, 310))),
        ("#8a1a28", ((10, 430), (30, 480))),
        ("#a8835a", ((180, 60), (230, 40), (275, 70))),  # hair
        ("#8a5a1c", ((415, 20), (412, 110))),  # the tank
        ("#5a3f8c", ((150, 365), (195, 400))),  # the badge
        ("#bcb4ae", ((100, 40), (340, 60), (480, 230))),  # the wall
    ),
    "coffee.png": (
        ("#b8401c", ((120, 190), (130, 290), (200, 350))),  # the saucer
        ("#a86a38", ((40, 330), (90, 380))),  # the table
        ("#b0501c", ((240, 130), (330, 150))),  # the coffee
        ("#c23c18", ((200, 190), (260, 240), (330, 220))),  # the cup
        ("#c24a20", ((420, 200), (440, 280), (360, 340))),
        ("#a86a38", ((500, 60), (560, 200), (560, 360))),
        ("#e0d0c0", ((190, 40), (300, 15), (385, 60))),  # the rim
        ("#c8b8a8", ((340, 300), (380, 290))),  # the spoon
        ("#2a1c10", ((20, 20), (80, 60))),
        ("#c23c18", ((215, 260), (240, 300))),
    ),
}


def hints_of(strokes: Strokes) -> Hints:
    """The strokes as hints."""
    hints = Hints()
    for colour, points in strokes:
        hints = hints.stroke(points, RADIUS_PX, colour)
    return hints


def drawn(grey: np.ndarray, strokes: Strokes) -> np.ndarray:
    """The grey photo with the strokes on it, (H, W, 3) uint8."""
    canvas = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    for colour, points in strokes:
        rgb = tuple(bytes.fromhex(colour[1:]))
        cv2.polylines(canvas, [np.array(points, np.int32)], False, rgb, 2 * RADIUS_PX, cv2.LINE_AA)
    return canvas


def make_sheet() -> np.ndarray:
    """The sheet, (H, W, 3) uint8."""
    colorizer = Colorizer.load("mini", device="cpu")
    columns: dict[str, list[np.ndarray]] = {}
    for name, strokes in STROKES.items():
        truth = shipped_photo(name)
        grey = luma(truth)
        row = {f"{MANY} strokes": drawn(grey, strokes)}
        for count in (0, FEW, MANY):
            row[f"{count or 'no'} strokes: result"] = colorizer.colorize(grey, hints=hints_of(strokes[:count])).rgb
        for title, picture in (row | {"truth": truth}).items():
            columns.setdefault(title, []).append(picture)
    return labelled(columns)


if __name__ == "__main__":
    save(Path(sys.argv[1] if len(sys.argv) > 1 else "strokes.png"), make_sheet())
