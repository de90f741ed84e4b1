"""What a photo is once read, and what each file format can hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chromatune.images.captions import Captions
from chromatune.images.photo_files import FORMAT_OF_SUFFIX

READABLE_FORMATS = "JPEG, PNG, TIFF, WebP, BMP, GIF, JPEG 2000, AVIF, HEIC, PNM"

FORMATS_WITH_16_BITS = frozenset({"PNG", "TIFF"})
FORMATS_WITH_ALPHA = frozenset({"PNG", "TIFF", "WEBP"})
LONGEST_SIDE_PX = {"JPEG": 65_500, "WEBP": 16_383}  # what libjpeg and libwebp accept
WRITABLE_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP")  # a GIF's 256 colors hold no result


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo, upright and in sRGB coding; the luma of every result is compared with `gray`.

    Attributes:
        gray: (H, W) uint8 or uint16, Rec.601 luma of the sRGB-coded picture, at full size.
        alpha: (H, W) of gray's dtype, full = opaque; None where the source had no transparency.
        icc_profile: sRGB profile to embed in a result if the source carried a usable profile, else None.
        exif: EXIF block to write (date, camera, place kept; orientation 1; no thumbnail), else None.
        format: Pillow's name for the source's format; "PNG" for arrays and images that came from no file.
        name: file name for messages, "photo" if unknown.
        rgb: (H, W, 3) of gray's dtype, the source's own colors; None where every pixel is neutral.
        dpi: horizontal and vertical resolution, pixels per inch, else None.
        captions: XMP, IPTC, comment and text that the source carried.
        warnings: what the user should know about how the file was read, a line each.
    """

    gray: np.ndarray
    alpha: np.ndarray | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None
    format: str = "PNG"
    name: str = "photo"
    rgb: np.ndarray | None = None
    dpi: tuple[float, float] | None = None
    captions: Captions = Captions()
    warnings: tuple[str, ...] = ()

    @property
    def height_px(self) -> int:
        """Height of the upright photo, in pixels."""
        return int(self.gray.shape[0])

    @property
    def width_px(self) -> int:
        """Width of the upright photo, in pixels."""
        return int(self.gray.shape[1])

    @property
    def max_value(self) -> int:
        """White: 255 for an 8-bit photo, 65535 for a 16-bit one."""
        return int(np.iinfo(self.gray.dtype).max)


def suffix_for(suffix: str | None, photo: Photo) -> str:
    """Suffix a result of `photo` should have: `suffix` itself, or ".png" where that format cannot hold the result.

    Args:
        suffix: the wanted suffix, such as ".jpg" (kept as it is written); None means the photo's own format.
        photo: the source of the result; its depth, transparency and size decide.
    """
    if suffix is None:
        wanted = next((s for s, name in FORMAT_OF_SUFFIX.items() if name == photo.format), ".png")
    else:
        wanted = suffix
    format_name = FORMAT_OF_SUFFIX.get(wanted.lower())
    holds = (
        format_name in WRITABLE_FORMATS
        and (photo.alpha is None or format_name in FORMATS_WITH_ALPHA)
        and (photo.max_value == 255 or format_name in FORMATS_WITH_16_BITS)
        and max(photo.gray.shape) <= LONGEST_SIDE_PX.get(format_name, 2**31)
    )
    return wanted if holds else ".png"


def to_depth(samples: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """The same samples as uint8 or uint16: 0 and white map to 0 and white, all between to the nearest."""
    if samples.dtype == dtype:
        return samples
    if dtype == np.uint16:
        return samples.astype(np.uint16) * 257
    # (v + 128) // 257 is round(v / 257) for every 16-bit v, and v + 128 may not overflow
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
