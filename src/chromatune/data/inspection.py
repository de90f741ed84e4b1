"""What a source holds: every photo is opened once, and what cannot be trained with is counted and named."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from chromatune.color import luma
from chromatune.data.items import PhotoItem, Source
from chromatune.data.splits import BROKEN, MIN_SIDE_PX, MONOCHROME, TOO_SMALL, SkippedPhoto, read_usable, split_source
from chromatune.errors import DataError, PhotoError, printable
from chromatune.images import Photo, write_photo

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
EXAMPLES = 3
VALIDATION_SHARE = 0.1

SHEET_PHOTOS, SHEET_COLUMNS, TILE_PX, GAP_PX = 48, 8, 128, 4
SHEET_GRAY = 128  # neutral, so that no color looks other than it is


@dataclass(frozen=True)
class SkippedGroup:
    """Photos that are skipped for one reason.

    Attributes:
        count: how many.
        examples: keys of the first few; empty where the source itself skipped them.
        messages: why, for each of the examples, where there is more to say than the reason.
    """

    count: int
    examples: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """What a source holds.

    Attributes:
        name: of the source.
        kind: of the source.
        photos: items in the source.
        opened: how many of them were looked at.
        usable: those that can be trained with, in the source's order.
        persons: distinct people among the source's items; 0 if it does not say who is on them.
        short_side_px: quantiles at `QUANTILES` of the shorter side of all readable photos, pixels; empty if none is.
        long_side_px: the same of the longer side.
        skipped: reason ⇒ photos, of the source's own listing and of this inspection.
        split_digest: of `split_source` with a tenth of the items for validation; None if they cannot be split.
    """

    name: str
    kind: str
    photos: int
    opened: int
    usable: tuple[PhotoItem, ...]
    persons: int
    short_side_px: tuple[int, ...]
    long_side_px: tuple[int, ...]
    skipped: Mapping[str, SkippedGroup]
    split_digest: str | None


def inspect_source(
    source: Source,
    *,
    limit: int | None = None,
    size_px: int = MIN_SIDE_PX,
    on_photo: Callable[[PhotoItem], None] = lambda item: None,
) -> Inspection:
    """Count photos, sizes, and the photos skipped and why; a photo that cannot be read is counted, never fatal.

    Args:
        source: what to look at.
        limit: open this many photos, evenly spread over the source; None opens all.
        size_px: a photo whose shorter side has fewer pixels is too small; by default what training skips at any size.
        on_photo: called after each photo.
    """
    items = _spread(source.items, limit)
    usable: list[PhotoItem] = []
    sizes_px: list[tuple[int, int]] = []  # short and long side
    found: dict[str, list[tuple[str, str]]] = {BROKEN: [], TOO_SMALL: [], MONOCHROME: []}  # key and message
    for item in items:
        result = read_usable(item, size_px)
        size = result.size_px if isinstance(result, SkippedPhoto) else result.shape[:2]
        if size is not None:
            sizes_px.append((min(size), max(size)))
        if isinstance(result, SkippedPhoto):
            found[result.reason].append((item.key, result.detail))
        else:
            usable.append(item)
        on_photo(item)
    try:
        digest = split_source(source.items, VALIDATION_SHARE).digest
    except DataError:  # one photo, or one person
        digest = None
    short_px, long_px = _quantiles(sizes_px)
    return Inspection(
        name=source.name,
        kind=source.kind,
        photos=len(source.items),
        opened=len(items),
        usable=tuple(usable),
        persons=len({item.person for item in source.items} - {None}),
        short_side_px=short_px,
        long_side_px=long_px,
        skipped=_skipped(source.skipped, found),
        split_digest=digest,
    )


def write_contact_sheet(path: str | os.PathLike, items: Sequence[PhotoItem], *, tile_px: int = TILE_PX) -> int:
    """Write a sheet of up to 48 photos, evenly spread and uncropped, in the order given; return how many there are.

    The file, a PNG, appears under its name only once it is complete; an older one is replaced.

    Args:
        path: where to, ending in .png.
        items: photos; those that cannot be read are skipped.
        tile_px: longest side of each on the sheet.

    Raises:
        DataError: no photo can be read.
        PhotoError: the sheet cannot be written.
    """
    tiles = []
    for item in _spread(items, SHEET_PHOTOS):
        try:
            tiles.append(_tile(item.read(), tile_px))
        except PhotoError:  # the inspection has reported it
            continue
    if not tiles:
        raise DataError(f"{printable(os.fspath(path))}: no photo to show; give a source with photos that can be read")
    columns = min(SHEET_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    step_px = tile_px + GAP_PX
    sheet = np.full((rows * step_px + GAP_PX, columns * step_px + GAP_PX, 3), SHEET_GRAY, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = GAP_PX + index // columns * step_px, GAP_PX + index % columns * step_px
        sheet[top : top + tile_px, left : left + tile_px] = tile
    write_photo(path, sheet, Photo(luma(sheet)), overwrite=True)
    return len(tiles)


def _tile(rgb_u8: np.ndarray, tile_px: int) -> np.ndarray:
    """The whole photo in the middle of a neutral square, (tile_px, tile_px, 3) uint8."""
    height, width = rgb_u8.shape[:2]
    scale = tile_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(rgb_u8, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    tile = np.full((tile_px, tile_px, 3), SHEET_GRAY, np.uint8)
    top, left = (tile_px - size[1]) // 2, (tile_px - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = small
    return tile


def _spread(items: Sequence[PhotoItem], limit: int | None) -> list[PhotoItem]:
    """At most `limit` items, evenly spread: the first ones of a sorted source are often of one person."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[index * len(items) // limit] for index in range(limit)]


def _quantiles(sizes_px: list[tuple[int, int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if not sizes_px:
        return (), ()
    values = np.quantile(np.asarray(sizes_px), QUANTILES, axis=0, method="nearest")  # (quantiles, 2)
    return tuple(int(value) for value in values[:, 0]), tuple(int(value) for value in values[:, 1])


def _skipped(by_source: Mapping[str, int], found: dict[str, list[tuple[str, str]]]) -> dict[str, SkippedGroup]:
    skipped = {reason: SkippedGroup(count) for reason, count in by_source.items()}
    for reason, photos in found.items():
        if photos:
            examples = photos[:EXAMPLES]
            messages = tuple(message for _, message in examples if message)
            skipped[reason] = SkippedGroup(len(photos), tuple(key for key, _ in examples), messages)
    return skipped
