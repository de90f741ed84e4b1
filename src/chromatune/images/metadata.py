"""What a photo knows about itself: orientation, EXIF to carry on, resolution. Captions have a module of their own."""

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

TAG_X_RESOLUTION, TAG_Y_RESOLUTION, TAG_RESOLUTION_UNIT = 282, 283, 296
DPI_OF_UNIT = {2: 1.0, 3: 2.54}  # inch and centimeter; 1 says that only the ratio is known

# Document name, description, make, model, page name, software, date, artist, host, rating, copyright, and Windows'
# title, comment, author, keywords and subject. All else in the first directory is about the old file's pixels, or its
# thumbnail.
KEPT_TAGS = (269, 270, 271, 272, 285, 305, 306, 315, 316, 18246, 33432, 40091, 40092, 40093, 40094, 40095)

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


def orientation_of(image: Any) -> int:
    """EXIF orientation 1..8 still to be applied to a loaded image; Pillow applies that of a TIFF by itself."""
    value = _read_exif(image).get(TAG_ORIENTATION)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def tiff_orientation(image: Any) -> int:
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


def kept_exif(image: Any, size_px: tuple[int, int], is_srgb: bool) -> bytes | None:
    """The EXIF block for results of this image: orientation 1, no thumbnail, sizes true; None if it had none.

    Args:
        image: the loaded source.
        size_px: width and height of the upright photo.
        is_srgb: the colors went through a profile and are sRGB now, whatever the block said.
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


def dpi_of(image: Any, orientation: int) -> tuple[float, float] | None:
    """Horizontal and vertical resolution of the upright photo, if the file itself says something sensible.

    Pillow makes resolutions up: 1 for a TIFF without, 72 for a JPEG with EXIF and without. So both are asked here.
    """
    if image.format == "TIFF":
        dpi = _dpi_of_tags(getattr(image, "tag_v2", {}))
    elif image.format in ("JPEG", "MPO") and not _has_jfif_dpi(image):
        dpi = _dpi_of_tags(_read_exif(image))
    else:
        dpi = _sensible(image.info.get("dpi")) or _dpi_of_tags(_read_exif(image))
    return dpi if dpi is None or orientation not in (5, 6, 7, 8) else dpi[::-1]


def with_tags(block: bytes | None, additions: Tags) -> bytes | None:
    """The EXIF block with those tags added that it does not have; the block as it was if they cannot be packed."""
    tags = tags_of_exif(block) if block else {}
    new = {tag: value for tag, value in additions.items() if not tags.get(tag)}
    if not new:
        return block
    packed = _pack({tag: value for tag, value in (tags | new).items() if value})
    return packed if packed is not None and len(packed) <= LONGEST_EXIF_BYTES else block


def resolution_tags(dpi: tuple[float, float]) -> Tags:
    """Resolution as EXIF and TIFF tags."""
    return {TAG_X_RESOLUTION: dpi[0], TAG_Y_RESOLUTION: dpi[1], TAG_RESOLUTION_UNIT: 2}


def _has_jfif_dpi(image: Any) -> bool:
    return image.info.get("jfif_unit") in (1, 2)


def _dpi_of_tags(tags: Any) -> tuple[float, float] | None:
    """Resolution from EXIF or TIFF tags; the unit is the inch unless another is given (TIFF 6.0, section 8)."""
    factor = DPI_OF_UNIT.get(tags.get(TAG_RESOLUTION_UNIT, 2))
    horizontal = tags.get(TAG_X_RESOLUTION)
    dpi = _sensible((horizontal, tags.get(TAG_Y_RESOLUTION, horizontal)))
    return None if factor is None or dpi is None else (dpi[0] * factor, dpi[1] * factor)


def _sensible(given: Any) -> tuple[float, float] | None:
    try:
        horizontal, vertical = (float(value) for value in given)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    known = all(math.isfinite(value) and 0 < value < 1e6 for value in (horizontal, vertical))
    return (horizontal, vertical) if known else None


def _read_exif(image: Any) -> Tags:
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
