"""What a photo knows about itself: orientation, EXIF to carry on, resolution."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
from PIL import ExifTags, Image

TAG_ORIENTATION, TAG_EXIF_IFD, TAG_GPS_IFD = 274, int(ExifTags.IFD.Exif), int(ExifTags.IFD.GPSInfo)
TAG_MAKER_NOTE, TAG_COLOR_SPACE, TAG_INTEROPERABILITY = 37500, 40961, 40965
TAG_PIXEL_WIDTH, TAG_PIXEL_HEIGHT = 40962, 40963
COLOR_SPACE_SRGB = 1

# Description, make, model, software, date, artist, host, rating, copyright, and Windows' title, comment, author,
# keywords and subject. All else in the first directory is about the old file's pixels, or its thumbnail.
KEPT_TAGS = (270, 271, 272, 305, 306, 315, 316, 18246, 33432, 40091, 40092, 40093, 40094, 40095)

LONGEST_EXIF_BYTES = 65_000  # a JPEG keeps EXIF in one segment of 64 KiB

# what Pillow raises on damaged blocks; no block is worth the photo
BROKEN_EXIF = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    EOFError,
    struct.error,
)

Tags = dict[int, Any]


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation 1..8 still to be applied to a loaded image; Pillow applies that of a TIFF by itself."""
    value = _read_exif(image).get(TAG_ORIENTATION)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def tiff_orientation(image: Image.Image) -> int:
    """Orientation 1..8 that Pillow will apply by itself when it loads this image: a TIFF's, else 1."""
    value = getattr(image, "tag_v2", {}).get(TAG_ORIENTATION)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W) or (H, W, C) samples as the camera saw them, contiguous; width and height swap for 5 to 8."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return np.ascontiguousarray(samples)


def kept_exif(image: Image.Image, size_px: tuple[int, int], is_srgb: bool) -> bytes | None:
    """The EXIF block for results of this image: orientation 1, no thumbnail, sizes true; None if it had none.

    Args:
        image: the loaded source.
        size_px: width and height of the upright photo.
        is_srgb: the colours went through a profile and are sRGB now, whatever the block said.
    """
    tags = _read_exif(image)
    details: Tags = tags.get(TAG_EXIF_IFD, {})
    details.pop(TAG_INTEROPERABILITY, None)  # names Adobe RGB at times
    for tag, side_px in zip((TAG_PIXEL_WIDTH, TAG_PIXEL_HEIGHT), size_px, strict=True):
        if tag in details:
            details[tag] = side_px
    if is_srgb and TAG_COLOR_SPACE in details:
        details[TAG_COLOR_SPACE] = COLOR_SPACE_SRGB
    kept: Tags = {tag: tags[tag] for tag in (*KEPT_TAGS, TAG_EXIF_IFD, TAG_GPS_IFD) if tags.get(tag)}
    if not kept:
        return None
    kept[TAG_ORIENTATION] = 1
    block = _pack(kept)
    if block is None or len(block) > LONGEST_EXIF_BYTES:
        details.pop(TAG_MAKER_NOTE, None)
        block = _pack(kept)
    return block if block is not None and len(block) <= LONGEST_EXIF_BYTES else None


def tags_of_exif(block: bytes) -> Tags:
    """Tags of an EXIF block, sub-directories as dicts, ready to be written into a TIFF's directory."""
    exif = Image.Exif()
    exif.load(block)
    return _as_dict(exif)


def dpi_of(image: Image.Image, orientation: int) -> tuple[float, float] | None:
    """Horizontal and vertical resolution of the upright photo, if the file says something sensible."""
    try:
        horizontal, vertical = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    if not all(math.isfinite(value) and 0 < value < 1e6 for value in (horizontal, vertical)):
        return None
    return (vertical, horizontal) if orientation in (5, 6, 7, 8) else (horizontal, vertical)


def _read_exif(image: Image.Image) -> Tags:
    try:
        return _as_dict(image.getexif())
    except BROKEN_EXIF:
        return {}


def _as_dict(exif: Image.Exif) -> Tags:
    tags = {tag: _latin_1(value) for tag, value in exif.items()}
    for directory in (TAG_EXIF_IFD, TAG_GPS_IFD):
        tags[directory] = _directory(exif, directory)
    return tags


def _directory(exif: Image.Exif, tag: int) -> Tags:
    """A sub-directory, empty if damaged: the camera's name in the first one is good all the same."""
    given = exif.get(tag)
    try:
        entries = given if isinstance(given, dict) else exif.get_ifd(tag)
    except BROKEN_EXIF:
        return {}
    return {key: _latin_1(value) for key, value in entries.items()}


def _latin_1(value: Any) -> Any:
    """Text as the bytes it was read from: Pillow decodes it as Latin-1, and would write "?" for other than ASCII."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("latin-1", "replace")
    return value


def _pack(tags: Tags) -> bytes | None:
    exif = Image.Exif()
    exif.update(tags)
    try:
        return exif.tobytes()
    except BROKEN_EXIF:  # values of a type that their tag does not have
        return None
