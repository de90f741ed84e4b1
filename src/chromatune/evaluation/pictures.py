"""Pictures for the report: the worst, median and best photos of each row, as strips of input, result and truth.

Results are not kept while they are scored; those few are made again, and are the same pixels.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from chromatune.errors import PhotoError
from chromatune.evaluation import scoring
from chromatune.evaluation.protocol import HELD_OUT, ChosenPhoto
from chromatune.evaluation.rows import GREY, Method, Record
from chromatune.evaluation.running import Workplace, results_of

RANKED_BY = "ciede2000"
EXAMPLES = 3  # of each kind
KINDS = ("worst", "median", "best")
GAP_PX = 4
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Example:
    """A photo of a row to be shown.

    Attributes:
        row: name of the row.
        kind: one of `KINDS`.
        key: the photo.
        value: its `RANKED_BY`.
        picture: data URI of the strip; empty until drawn.
    """

    row: str
    kind: str
    key: str
    value: float
    picture: str = ""


def choose_examples(records: Sequence[Record], methods: Sequence[Method]) -> list[Example]:
    """Worst, median and best held-out photos of each row but grey, by CIEDE2000; few photos are shown once each."""
    examples = []
    for row in (row for method in methods for row in method.rows if row != GREY):
        scored = [r for r in records if r["row"] == row and r["part"] == HELD_OUT and "failed" not in r]
        ranked = sorted(scored, key=lambda record: (-record[RANKED_BY], record["key"]))
        middle = max(EXAMPLES, (len(ranked) - EXAMPLES) // 2)
        starts = (0, middle, max(middle + EXAMPLES, len(ranked) - EXAMPLES))
        for kind, start in zip(KINDS, starts, strict=True):
            chosen = ranked[start : start + EXAMPLES]
            examples += [Example(row, kind, record["key"], record[RANKED_BY]) for record in chosen]
    return examples


def draw_examples(
    examples: Sequence[Example],
    methods: Sequence[Method],
    photos: Sequence[ChosenPhoto],
    place: Workplace,
    start_stage: Callable[[str, int], Callable[[], None]],
) -> list[Example]:
    """The same examples with their pictures."""
    advance = start_stage("drawing pictures", len({(e.row, e.key) for e in examples}))
    strips: dict[tuple[str, str], str] = {}
    for method in methods:
        wanted = {(example.row, example.key) for example in examples if example.row in method.rows}
        keys = {key for _, key in wanted}
        shown = [photo for photo in photos if photo.part == HELD_OUT and photo.key in keys]
        for target, results, _ in results_of(method, shown, place):
            if isinstance(results, PhotoError):  # it could be scored, and its file has gone since
                continue
            for row, result in zip(method.rows, results, strict=True):
                if (row, target.photo.key) in wanted:
                    strips[row, target.photo.key] = strip([scoring.as_grey(target), result, target.truth])
                    advance()
    return [
        Example(example.row, example.kind, example.key, example.value, strips.get((example.row, example.key), ""))
        for example in examples
    ]


def strip(squares: Sequence[np.ndarray]) -> str:
    """Squares side by side, (S, S, 3) uint8 sRGB each, as the data URI of a JPEG."""
    gap = np.full((squares[0].shape[0], GAP_PX, 3), 255, np.uint8)
    joined = np.concatenate([piece for square in squares for piece in (square, gap)][:-1], axis=1)
    # BGR is what OpenCV writes
    _, data = cv2.imencode(".jpg", joined[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data_uri(data.tobytes(), "jpeg")


def data_uri(data: bytes, kind: str) -> str:
    """An image's bytes for the `src` of an HTML image; `kind` is "png" or "jpeg"."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
