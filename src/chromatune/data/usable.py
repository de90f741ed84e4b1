"""Which photos can be trained with: one rule for looking at a source, for training and for validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chromatune.data.items import PhotoItem
from chromatune.data.pairs import is_monochrome
from chromatune.data.splits import Split, split_source
from chromatune.errors import DataError, PhotoError, printable

BROKEN, TOO_SMALL, MONOCHROME = "broken", "too small", "gray or sepia"  # reasons
MIN_SIDE_PX = 16  # two cells of an autoencoder's latents: whatever is smaller is an icon or a tracking pixel


@dataclass(frozen=True)
class SkippedPhoto:
    """A photo that cannot be trained with.

    Attributes:
        key: of the photo in its source.
        reason: one of `BROKEN`, `TOO_SMALL`, `MONOCHROME`.
        detail: one line with more to say than the reason; "" where there is none.
        size_px: its height and width; None where it cannot be read.
    """

    key: str
    reason: str
    detail: str = ""
    size_px: tuple[int, int] | None = None


def why_unusable(rgb_u8: np.ndarray, min_side_px: int = MIN_SIDE_PX) -> str | None:
    """The reason why a photo cannot be trained with; None for one that can.

    Args:
        rgb_u8: (H, W, 3) uint8 sRGB.
        min_side_px: pixels that its shorter side must have.
    """
    if min(rgb_u8.shape[:2]) < min_side_px:
        return TOO_SMALL
    return MONOCHROME if is_monochrome(rgb_u8) else None


def read_usable(item: PhotoItem, min_side_px: int = MIN_SIDE_PX) -> np.ndarray | SkippedPhoto:
    """The photo, (H, W, 3) uint8 sRGB, or why it cannot be trained with."""
    try:
        rgb_u8 = item.read()
    except PhotoError as error:
        return SkippedPhoto(item.key, BROKEN, str(error))
    reason = why_unusable(rgb_u8, min_side_px)
    if reason is None:
        return rgb_u8
    height, width = rgb_u8.shape[:2]
    detail = f"{printable(item.key)}: {width} x {height} px" if reason == TOO_SMALL else ""
    return SkippedPhoto(item.key, reason, detail, (height, width))


def split_usable(
    items: Sequence[PhotoItem], validation: float | int, seed: int = 0, min_side_px: int = MIN_SIDE_PX
) -> tuple[Split, tuple[SkippedPhoto, ...]]:
    """The split of `split_source` with a usable photo to validate on, and what was passed over to find it.

    As long as one photo of the validation half can be used, the split is that of `split_source`: photos are opened up
    to the first such one, and nothing is passed over. Else that half is left out and the others are split again.

    Args:
        items: the photos, in any order.
        validation: share or number of photos to validate on, as for `split_source`.
        seed: another one gives another split.
        min_side_px: pixels that a photo's shorter side must have.

    Raises:
        DataError: the photos cannot be split, or none that could be held out is usable.
    """
    split = split_source(items, validation, seed)
    skipped: list[SkippedPhoto] = []
    while True:
        unusable: list[SkippedPhoto] = []
        for item in split.validation:
            result = read_usable(item, min_side_px)
            if not isinstance(result, SkippedPhoto):
                return split, tuple(skipped)
            unusable.append(result)
        skipped += unusable
        keys = {photo.key for photo in skipped}
        others = [item for item in items if item.key not in keys]
        try:
            split = split_source(others, validation, seed)
        except DataError as error:
            counts = Counter(photo.reason for photo in skipped)
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
            raise DataError(f"no usable photo to validate on ({reasons}); give more color photos") from error
