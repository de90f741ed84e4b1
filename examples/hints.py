"""Color by hand: what a few strokes do to a photo, as a sheet.

    python examples/hints.py sheet.png                       # two photos of scikit-image: 0, 3 and 10 strokes
    python examples/hints.py sheet.png PHOTOS STROKES.json   # your own: {"name.jpg": {"marks": [...]}, ...}

`marks` are what `Hints.to_json` writes. Columns: the gray photo with the strokes, and the results.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
from demo import labeled, save, shipped_photo

from chromatune import Colorizer, Editor, Hints, Photo, make_options
from chromatune.color import luma
from chromatune.hints import Stroke

Strokes = tuple[tuple[str, tuple[tuple[int, int], ...]], ...]  # color and points, the most telling first

RADIUS_PX = 4
REACH = 0.4  # few strokes on one thing: the rest stays as it was
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
    """Strokes as hints."""
    hints = Hints()
    for color, points in strokes:
        hints = hints.stroke(points, RADIUS_PX, color)
    return hints


def with_strokes(gray: np.ndarray, hints: Hints) -> np.ndarray:
    """The gray photo, (H, W, 3) uint8, with the strokes drawn over it."""
    shown = np.repeat(gray[..., None], 3, axis=2)
    for mark in hints.marks:
        if isinstance(mark, Stroke):
            points = np.rint(mark.points).astype(np.int32)[:, None]
            radius_px = mark.radius_px or min(gray.shape) / 50
            cv2.polylines(shown, [points], False, mark.color, max(1, round(2 * radius_px)), cv2.LINE_AA)
    return shown


def built_in() -> tuple[dict[str, np.ndarray], dict[str, list[Hints]]]:
    """scikit-image's photos, gray, each with 0, 3 and 10 strokes."""
    grays = {name: luma(shipped_photo(name)) for name in STROKES}
    return grays, {name: [hints_of(strokes[:count]) for count in (0, 3, 10)] for name, strokes in STROKES.items()}


def given(folder: Path, strokes: Path) -> tuple[dict[str, np.ndarray], dict[str, list[Hints]]]:
    """Photos of a folder, gray, each without its hints and with them."""
    marks = json.loads(strokes.read_text(encoding="utf-8"))
    grays = {}
    for name in marks:
        picture = cv2.imread(str(folder / name), cv2.IMREAD_COLOR)
        if picture is None:
            raise SystemExit(f"{folder / name}: cannot be read; give the folder that {strokes} is about")
        grays[name] = luma(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    return grays, {name: [Hints(), Hints.from_json(each)] for name, each in marks.items()}


def main() -> None:
    """Colorizes each photo once, and with each set of hints; writes the sheet."""
    if len(sys.argv) not in (2, 4):
        raise SystemExit(__doc__)
    grays, variants = built_in() if len(sys.argv) == 2 else given(Path(sys.argv[2]), Path(sys.argv[3]))
    colorizer = Colorizer.load("mini")
    columns: dict[str, list[np.ndarray]] = {}
    for name, gray in grays.items():
        for output in colorizer.model_outputs([Photo(gray, name=name)], make_options(hint_reach=REACH)):
            if isinstance(output, Exception):
                raise SystemExit(str(output))
            editor = Editor(colorizer, output)
            columns.setdefault("strokes", []).append(with_strokes(gray, variants[name][-1]))
            for hints in variants[name]:
                columns.setdefault(f"{len(hints.marks)} strokes", []).append(editor.finish(hints).rgb)
    if len(sys.argv) == 2:
        columns["truth"] = [shipped_photo(name) for name in grays]
    save(Path(sys.argv[1]), labeled(columns))
    print(sys.argv[1])


if __name__ == "__main__":
    main()
