"""Aspect buckets: the few sizes that photos of any shape are trained at, and which of them is a photo's own.

A photo is cut, never squashed, and loses at most a tenth of its area. So neighboring buckets differ little in their
aspect ratios, and a photo that is far longer than the longest bucket has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from chromatune.errors import OptionsError

Shape = tuple[int, int]  # height and width, pixels

MOST_LOST = 0.1  # of a photo's area, where a window of its bucket's aspect ratio is cut out
LONGEST_RATIO = 4  # of a bucket's longer side to its shorter one
# Between two buckets with this ratio of ratios a photo loses 0.094; the rest is for windows of whole pixels
WIDEST_GAP = 1.218
STEPS_PX = (64, 32, 16, 8)  # sides are multiples of the largest of these that leaves no gap
AREA_RATIOS = (1.25, 1.5, 2.0)  # of a bucket's area to the model's, or the other way round; the first that leaves none


def bucket_shapes(size_px: int, multiple_px: int = 8) -> tuple[Shape, ...]:
    """Return the buckets around a model's area, from the widest to the tallest: (height, width) in pixels.

    Sides are multiples of 64 for a model of 384 px and more; of fewer pixels, or with areas up to twice the model's,
    below it, where multiples of 64 are too coarse.

    Args:
        size_px: side of the model's square, whose area the buckets have about.
        multiple_px: what sides must be multiples of for the model's networks.

    Raises:
        OptionsError: the model is so small that no such buckets exist.
    """
    for area_ratio in AREA_RATIOS:
        for step_px in STEPS_PX:
            if step_px % multiple_px == 0 and (shapes := _covering(size_px, step_px, area_ratio)):
                return shapes
    if multiple_px > STEPS_PX[0] and (shapes := _covering(size_px, multiple_px, AREA_RATIOS[-1])):
        return shapes
    raise OptionsError(
        f"no aspect buckets around {size_px} x {size_px} px with sides in multiples of {multiple_px}: give a larger "
        "size_px, or aspect=square"
    )


def _covering(size_px: int, step_px: int, area_ratio: float) -> tuple[Shape, ...]:
    """Return as few shapes as leave no gap from 1:4 to 4:1, square among them; none where there is one."""
    area = (size_px / step_px) ** 2
    nearest: dict[Fraction, Shape] = {}  # ratio of width to height, from 1 ⇒ the shape of about the model's area
    longest = int((area * area_ratio * LONGEST_RATIO) ** 0.5)
    for height in range(1, longest + 1):
        for width in range(height, min(longest, height * LONGEST_RATIO) + 1):
            if not area / area_ratio <= height * width <= area * area_ratio:
                continue
            known = nearest.get(Fraction(width, height))
            if known is None or abs(height * width - area) < abs(known[0] * known[1] - area):
                nearest[Fraction(width, height)] = height, width
    ratios = sorted(nearest)
    if not ratios or ratios[0] != 1 or ratios[-1] != LONGEST_RATIO:
        return ()
    chosen = [ratios[0]]
    while chosen[-1] != ratios[-1]:
        within = [ratio for ratio in ratios if chosen[-1] < ratio <= chosen[-1] * WIDEST_GAP]
        if not within:
            return ()
        chosen.append(within[-1])
    wide = [(nearest[ratio][0] * step_px, nearest[ratio][1] * step_px) for ratio in reversed(chosen)]
    return (*wide, *((width, height) for height, width in reversed(wide[:-1])))


def largest_window(height: int, width: int, shape: Shape) -> Shape:
    """Return the largest part of a photo with a shape's aspect ratio, to the pixel: its height and width.

    Args:
        height: of the photo, pixels.
        width: of the photo, pixels.
        shape: height and width that the part will be resized to.
    """
    scale = min(height / shape[0], width / shape[1])
    return min(height, max(1, round(shape[0] * scale))), min(width, max(1, round(shape[1] * scale)))


def bucket_of(height: int, width: int, shapes: Sequence[Shape]) -> int | None:
    """Return the index of the shape that keeps most of a photo; None where each would lose more than a tenth.

    Args:
        height: of the photo, pixels.
        width: of the photo, pixels.
        shapes: what `bucket_shapes` returned.
    """

    def kept(index: int) -> float:
        rows, columns = largest_window(height, width, shapes[index])
        return rows * columns / (height * width)

    best = max(range(len(shapes)), key=kept)
    return best if kept(best) >= 1 - MOST_LOST else None
