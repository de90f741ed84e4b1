"""A picture file, opened and decoded by Pillow: quietly, under a pixel limit; a JPEG may lack its end."""

from __future__ import annotations

import ctypes
import io
import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageFile, PngImagePlugin, _imaging

from chromatune.errors import PhotoError
from chromatune.images import identification

# A JPEG of several pictures is opened as its first one, and calls itself MPO
OPENED_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000", "AVIF", "PPM")
LONGEST_TEXT_BYTES = 64 << 20  # of all text in a PNG; Pillow's own limit is 1 MiB a chunk, and archives exceed it

OPENCV_LOG = getattr(cv2.utils, "logging", cv2)  # OpenCV 5 has it there, OpenCV 4 at the top
OPENCV_LOG_SILENT = 0

LARGEST_MISSING_SHARE = 0.1  # of a JPEG's rows; with more gone it is no longer the photo
JPEG_MARKERS_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
JPEG_START_OF_SCAN, JPEG_FRAMES_OF_PROGRESSIVE = 0xDA, (0xC2, 0xC6, 0xCA, 0xCE)

_GLOBALS_LOCK = threading.RLock()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Decode without Pillow's warnings, log and limits (ours are checked instead), and without the libraries' logs.

    All of them are globals of the process, so one decode runs at a time; each is put back afterwards. libtiff inside
    Pillow prints through a handler, which is taken away meanwhile where its library can be reached (it is in Pillow's
    wheels for Linux and macOS).
    """
    pillow_log = logging.getLogger("PIL")
    with _GLOBALS_LOCK, warnings.catch_warnings(), _quiet_libtiff():
        warnings.simplefilter("ignore")
        pillow_limit, pillow_level = Image.MAX_IMAGE_PIXELS, pillow_log.level
        text_limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
        opencv_level = OPENCV_LOG.getLogLevel()
        Image.MAX_IMAGE_PIXELS = None
        PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = LONGEST_TEXT_BYTES
        pillow_log.setLevel(logging.CRITICAL)
        OPENCV_LOG.setLogLevel(OPENCV_LOG_SILENT)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = pillow_limit
            PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = text_limits
            pillow_log.setLevel(pillow_level)
            OPENCV_LOG.setLogLevel(opencv_level)


def open_image(file: BinaryIO) -> Image.Image:
    """The file's header as a Pillow image, nothing decoded yet; only formats of `OPENED_FORMATS` are tried."""
    return Image.open(file, formats=OPENED_FORMATS)


def open_heif(file: BinaryIO) -> Image.Image:
    """The header of a HEIC photo as a Pillow image.

    Raises:
        HeicExtraError: `pillow-heif` is not installed; the message has no label yet.
    """
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise identification.HeicExtraError("photo") from None
    return HeifImageFile(file)


def check_size(size_px: tuple[int, int], max_pixels: int) -> None:
    """Refuse a picture, given its width and height, before its pixels are decoded.

    Raises:
        PhotoError: the picture has no pixels, or more than `max_pixels`.
    """
    width_px, height_px = size_px
    if width_px < 1 or height_px < 1:
        raise PhotoError(f"the picture has no pixels ({width_px} x {height_px}); choose another file")
    if width_px * height_px > max_pixels:
        raise PhotoError(
            f"{width_px} x {height_px} = {width_px * height_px / 1e6:.1f} million pixels, and the limit is "
            f"{max_pixels / 1e6:.1f} million; make it smaller, or raise --max-megapixels (max_pixels)"
        )


def load(image: Image.Image, file: BinaryIO | None, strict: bool) -> tuple[Image.Image, str | None]:
    """The image with its pixels decoded, and a warning of one line if its end is missing.

    Only a JPEG may lack its end: its rows, or refinements, are stored from coarse to fine and from top to bottom, so
    that all before the cut is right. Other damage is an error.

    Args:
        image: opened from the file, not decoded yet.
        file: what it was opened from; None for an image that the caller opened.
        strict: a cut JPEG is an error too.

    Raises:
        PhotoError: too much of a JPEG is missing, or some of it and `strict` is on.
        OSError, SyntaxError, ...: what Pillow raises on other damage.
    """
    try:
        image.load()
        return image, None
    except OSError as error:
        if image.format != "JPEG" or file is None or "truncated" not in str(error):
            raise
    file.seek(0)
    data = file.read()
    missing = _missing_of_jpeg(image, data)
    if strict:
        raise PhotoError(f"cut short: {missing or 'its end'} is missing; copy it again, or leave out --strict (strict)")
    if missing is None:
        raise PhotoError("cut short: too much of it is missing; copy or download it again")
    ImageFile.LOAD_TRUNCATED_IMAGES, before = True, ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        whole = open_image(io.BytesIO(data))
        whole.load()
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
    return whole, f"cut short: {missing} is missing; copy it again if you can"


def png_bit_depth(file: BinaryIO) -> int:
    """Bits per sample in the header of a PNG file."""
    file.seek(24)
    return file.read(1)[0]


def as_seekable(file: BinaryIO) -> BinaryIO:
    """The file itself if it can seek, else its whole content in memory (a pipe, standard input)."""
    seekable = getattr(file, "seekable", None)
    if seekable is not None and seekable():
        return file
    return io.BytesIO(file.read())


@lru_cache(maxsize=1)
def _libtiff() -> Any:
    """The libtiff that Pillow has loaded, or None where it cannot be reached: then it prints what it has to say."""
    with suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(_imaging.__file__)
        library.TIFFSetErrorHandler.argtypes = library.TIFFSetWarningHandler.argtypes = [ctypes.c_void_p]
        library.TIFFSetErrorHandler.restype = library.TIFFSetWarningHandler.restype = ctypes.c_void_p
        return library
    return None


@contextmanager
def _quiet_libtiff() -> Iterator[None]:
    library = _libtiff()
    if library is None:
        yield
        return
    handlers = library.TIFFSetErrorHandler(None), library.TIFFSetWarningHandler(None)
    try:
        yield
    finally:
        library.TIFFSetErrorHandler(handlers[0])
        library.TIFFSetWarningHandler(handlers[1])


def _missing_of_jpeg(image: Any, data: bytes) -> str | None:
    """What a cut JPEG lacks, in words; None if that is too much.

    Args:
        image: after Pillow gave up on it: rows that were not decoded are black.
        data: the file.
    """
    is_progressive, finished = _luma_of_scans(data)
    if is_progressive:
        return "some of its finest detail" if finished else None
    image.tile = []  # no more to come: else Pillow would try again
    samples = np.asarray(image)
    rows: np.ndarray = np.atleast_1d(samples.reshape(samples.shape[0], -1).any(axis=1))
    decoded = len(rows) - int(np.argmax(rows[::-1])) if rows.any() else 0
    missing = len(rows) - decoded
    if missing > LARGEST_MISSING_SHARE * len(rows):
        return None
    return f"the lowest part (about {max(missing, 1)} of {len(rows)} rows)"


def _luma_of_scans(data: bytes) -> tuple[bool, bool]:
    """Whether a JPEG is progressive, and whether the last bit of all its luma coefficients has at least begun.

    A progressive JPEG sends the coefficients 0 to 63 of each component in several scans, in the last of them down to
    bit 0 (ITU T.81, annex G.1.1.1); what comes after is chroma.
    """
    is_progressive, luma, begun = False, None, set[int]()
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF or data[position + 1] in (0x00, 0xFF, *JPEG_MARKERS_WITHOUT_LENGTH):
            following = data.find(b"\xff", position + 1)  # entropy-coded bytes
            if following < 0:
                break
            position = following
            continue
        marker, length = data[position + 1], struct.unpack_from(">H", data, position + 2)[0]
        segment = data[position + 4 : position + 2 + length]
        if marker in JPEG_FRAMES_OF_PROGRESSIVE and len(segment) > 6:
            is_progressive, luma = True, segment[6]
        elif marker == JPEG_START_OF_SCAN and segment and len(segment) >= 4 + 2 * segment[0]:
            components = segment[1 : 1 + 2 * segment[0] : 2]
            first, last, bits = segment[-3:]
            if luma is not None and luma in components and bits & 15 == 0:
                begun.update(range(first, last + 1))
        position += 2 + length
    return is_progressive, begun >= set(range(64))
