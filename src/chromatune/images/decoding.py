"""A picture file, decoded at its full depth: Pillow opens and judges it, OpenCV keeps the low byte of 16-bit colour."""

from __future__ import annotations

import io
import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from chromatune.errors import PhotoError

# A JPEG of several pictures is opened as its first one, and calls itself MPO
OPENED_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_CHUNKS_OF_PIXELS = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}

TAG_BITS_PER_SAMPLE = 258
TAG_PLANAR_CONFIGURATION, PLANES_SEPARATE = 284, 2
TAG_EXTRA_SAMPLES, EXTRA_SAMPLE_PREMULTIPLIED = 338, 1

OPENCV_LOG = getattr(cv2.utils, "logging", cv2)  # OpenCV 5 has it there, OpenCV 4 at the top
OPENCV_LOG_SILENT = 0

_GLOBALS_LOCK = threading.RLock()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Decode without Pillow's warnings, log and pixel limit (ours is checked instead), and without OpenCV's log.

    All of them are globals of the process, so one decode runs at a time; each is put back afterwards. What libtiff,
    inside Pillow, writes to stderr about a damaged TIFF cannot be held back.
    """
    pillow_log = logging.getLogger("PIL")
    with _GLOBALS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pillow_limit, pillow_level = Image.MAX_IMAGE_PIXELS, pillow_log.level
        opencv_level = OPENCV_LOG.getLogLevel()
        Image.MAX_IMAGE_PIXELS = None
        pillow_log.setLevel(logging.CRITICAL)
        OPENCV_LOG.setLogLevel(OPENCV_LOG_SILENT)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = pillow_limit
            pillow_log.setLevel(pillow_level)
            OPENCV_LOG.setLogLevel(opencv_level)


def open_image(file: BinaryIO) -> Image.Image:
    """The file's header as a Pillow image, nothing decoded yet; only formats of `OPENED_FORMATS` are tried."""
    return Image.open(file, formats=OPENED_FORMATS)


def check_size(image: Image.Image, max_pixels: int) -> None:
    """Refuse a picture before its pixels are decoded.

    Raises:
        PhotoError: the picture has no pixels, or more than `max_pixels`.
    """
    width_px, height_px = image.size
    if width_px < 1 or height_px < 1:
        raise PhotoError(f"the picture has no pixels ({width_px} x {height_px}); choose another file")
    if width_px * height_px > max_pixels:
        raise PhotoError(
            f"{width_px} x {height_px} = {width_px * height_px / 1e6:.1f} million pixels, and the limit is "
            f"{max_pixels / 1e6:.1f} million; make it smaller, or raise max_pixels"
        )


def decode_16_bit_colour(image: Image.Image, file: BinaryIO) -> np.ndarray | None:
    """16-bit colour samples that Pillow would cut to 8 bits, else None.

    Pillow has no mode for 16-bit colour and keeps the high byte alone, so OpenCV decodes those files a second time.
    OpenCV has misread grey with alpha (its issue 12185) and returns half pictures of damaged files; Pillow's high
    bytes, decoded before, are therefore the referee: where the two disagree, Pillow's 8 bits are used.

    Args:
        image: the file as Pillow loaded it.
        file: the same file, seekable.

    Returns:
        (H, W, 2) grey and alpha, (H, W, 3) RGB or (H, W, 4) RGBA, uint16; alpha not premultiplied.

    Raises:
        PhotoError: an uncompressed TIFF of separate colour planes, which neither library reads.
    """
    if image.mode not in ("RGB", "RGBA") or _bits_per_sample(image, file) != 16:
        return None
    if image.format == "TIFF" and image.info.get("compression") == "raw" and _has_separate_planes(image):
        raise PhotoError("a 16-bit TIFF with separate colour planes cannot be read; save it with interleaved channels")
    file.seek(0)
    data = file.read()
    if image.format == "PNG":
        data = strip_png(data)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    high_bytes = np.asarray(image)
    channels = high_bytes.shape[2]
    if decoded is None or decoded.dtype != np.uint16 or decoded.ndim != 3:
        return None
    if decoded.shape[:2] != high_bytes.shape[:2] or decoded.shape[2] < channels:
        return None
    deep: np.ndarray = np.ascontiguousarray(decoded[..., [2, 1, 0, 3][:channels]])  # BGRA ⇒ RGBA
    premultiplied = channels == 4 and _is_premultiplied(image)
    judged = slice(3, None) if premultiplied else slice(None)  # Pillow has already divided its colours by alpha
    if _largest_difference(deep[..., judged], high_bytes[..., judged]) > 1:
        return None
    if premultiplied:
        return _unpremultiply(deep)
    if image.format == "PNG" and data[25] == 4:  # colour type: grey with alpha
        return np.ascontiguousarray(deep[..., [0, 3]])
    return deep


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each chunk of a PNG file as (type, the whole chunk with length and checksum)."""
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, data[position : position + 12 + length]
        position += 12 + length


def strip_png(data: bytes) -> bytes:
    """The PNG file without what is not pixels: libpng prints its complaints about those chunks to stderr."""
    return PNG_SIGNATURE + b"".join(chunk for kind, chunk in png_chunks(data) if kind in PNG_CHUNKS_OF_PIXELS)


def png_bit_depth(file: BinaryIO) -> int:
    """Bits per sample in the header of a PNG file."""
    file.seek(24)
    return file.read(1)[0]


def _bits_per_sample(image: Image.Image, file: BinaryIO) -> int:
    if image.format == "PNG":
        return png_bit_depth(file)
    if image.format == "TIFF":
        return max(image.tag_v2.get(TAG_BITS_PER_SAMPLE, (1,)))  # type: ignore[attr-defined]
    return 8


def _has_separate_planes(image: Image.Image) -> bool:
    """Pillow reads such 16-bit planes as 8-bit noise, and OpenCV mixes them up; compressed ones Pillow reads well."""
    return image.tag_v2.get(TAG_PLANAR_CONFIGURATION) == PLANES_SEPARATE  # type: ignore[attr-defined]


def _is_premultiplied(image: Image.Image) -> bool:
    if image.format != "TIFF":
        return False
    extra_samples = image.tag_v2.get(TAG_EXTRA_SAMPLES, ())  # type: ignore[attr-defined]
    return bool(extra_samples) and extra_samples[0] == EXTRA_SAMPLE_PREMULTIPLIED


def _largest_difference(deep: np.ndarray, high_bytes: np.ndarray) -> int:
    return int(cv2.absdiff((deep >> 8).astype(np.uint8), np.ascontiguousarray(high_bytes)).max(initial=0))


def _unpremultiply(rgba: np.ndarray) -> np.ndarray:
    """Colours divided by alpha; fully transparent pixels stay black. (H, W, 4) uint16 both ways."""
    alpha = rgba[..., 3:].astype(np.float32)
    colours = rgba[..., :3] * (65535.0 / np.maximum(alpha, 1.0))
    return np.concatenate([np.clip(np.rint(colours), 0, 65535).astype(np.uint16), rgba[..., 3:]], axis=2)


def as_seekable(file: BinaryIO) -> BinaryIO:
    """The file itself if it can seek, else its whole content in memory (a pipe, standard input)."""
    seekable = getattr(file, "seekable", None)
    if seekable is not None and seekable():
        return file
    return io.BytesIO(file.read())
