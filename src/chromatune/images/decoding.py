"""A picture file ⇒ its pixels, with the libraries silenced: 8 bits by Pillow, 16-bit color by OpenCV.

A JPEG may lack its end. Pillow has no mode for 16-bit color and keeps the high byte alone, so OpenCV decodes PNG, PNM,
JPEG 2000 and AVIF of more than 8 bits a second time, and pillow-heif HEIC. OpenCV has misread gray with alpha (its
issue 12185) and returns half pictures of damaged files; its samples are therefore compared with Pillow's high bytes:
where the two disagree, the photo is refused. TIFF has a reader of its own, `tiff`.
"""

from __future__ import annotations

import ctypes
import io
import logging
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageFile, PngImagePlugin, _imaging

from chromatune.errors import PhotoError
from chromatune.images import headers
from chromatune.images.headers import PNG_SIGNATURE
from chromatune.images.opening import open_image

LONGEST_TEXT_BYTES = 64 << 20  # of all text in a PNG; Pillow's own limit is 1 MiB a chunk, and archives exceed it

OPENCV_LOG = getattr(cv2.utils, "logging", cv2)  # OpenCV 5 has it there, OpenCV 4 at the top
OPENCV_LOG_SILENT = 0

LARGEST_MISSING_SHARE = 0.1  # of a JPEG's rows; with more gone it is no longer the photo
JPEG_MARKERS_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
JPEG_START_OF_SCAN, JPEG_FRAMES_OF_PROGRESSIVE = 0xDA, (0xC2, 0xC6, 0xCA, 0xCE)

MOST_SCANS = 100  # of a progressive JPEG, each a pass over the whole picture; ten are usual

PNG_CHUNKS_WITH_MEANING = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"sRGB", b"pHYs", b"eXIf"}
PNG_GRAY_WITH_ALPHA = 4  # color type
PNM_HEADER = re.compile(rb"P[36](?:\s|#[^\r\n]*[\r\n])+(\d+)(?:\s|#[^\r\n]*[\r\n])+(\d+)(?:\s|#[^\r\n]*[\r\n])+(\d+)\s")
JPEG_2000_SIZES = b"\xff\x4f\xff\x51"  # start of codestream, then the segment of sizes (ITU T.800, A.5.1)
AVIF_CONFIGURATION = b"av1C"

PIECE_BYTES = 1 << 20
BLOCK_ROWS = 256  # bounds what is computed beside a large scan
LARGEST_DIFFERENCE = {"AVIF": 4}  # of 255, between the decoders' high bytes; AVIF is converted from YUV at each depth

_GLOBALS_LOCK = threading.RLock()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Decode without Pillow's warnings, log and limits (ours are checked instead), and without the libraries' logs.

    All of them are globals of the process, so one decode runs at a time; each is restored afterwards. libtiff inside
    Pillow prints through handlers, which are removed meanwhile where its library can be reached (in Pillow's wheels for
    Linux and macOS).
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


@lru_cache(maxsize=1)
def _libtiff() -> Any:
    """The libtiff that Pillow has loaded, or None where it cannot be reached: it then prints its messages."""
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
    if image.info.get("progressive") and file is not None and headers.count_scans(file, MOST_SCANS) > MOST_SCANS:
        raise PhotoError(f"a progressive JPEG of more than {MOST_SCANS} scans; save it again in an image editor")
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
        raise PhotoError(
            f"incomplete file: {missing or 'its end'} is missing; copy it again, or leave out --strict (strict)"
        )
    if missing is None:
        raise PhotoError("incomplete file, with too little left to show; copy or download it again")
    ImageFile.LOAD_TRUNCATED_IMAGES, before = True, ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        whole = open_image(io.BytesIO(data))
        whole.load()
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
    return whole, f"incomplete file: {missing} is missing; copy it again if you can"


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
    """Return whether a JPEG is progressive, and whether the last bit of all its luma coefficients has at least begun.

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


def decode_deep(image: Image.Image, file: BinaryIO) -> np.ndarray | None:
    """Decode color samples of more than 8 bits, scaled to 16; None for a picture that Pillow holds whole.

    Args:
        image: a PNG, PNM, JPEG 2000, AVIF or HEIC as Pillow loaded it.
        file: the same file, seekable.

    Returns:
        (H, W, 2) gray and alpha, (H, W, 3) RGB or (H, W, 4) RGBA, uint16; alpha not premultiplied.

    Raises:
        PhotoError: it has more than 8 bits, and they cannot be read with certainty.
    """
    if image.format == "HEIF":
        return _decode_heif(image, file)
    if image.format not in ("PNG", "PPM", "JPEG2000", "AVIF") or image.mode not in ("RGB", "RGBA", "L", "LA"):
        return None
    white = _white(image, file)
    if white <= 255:
        return None
    file.seek(0)
    data = file.read()
    decoded = cv2.imdecode(np.frombuffer(strip_png(data) if image.format == "PNG" else data, np.uint8), -1)
    deep = None if decoded is None else _agreed(decoded, image, white)
    if deep is None:
        bits = int(white).bit_length()
        raise PhotoError(f"{image.format} files of {bits} bits are not supported; save it as a 16-bit PNG or TIFF")
    if image.format == "PNG" and data[25] == PNG_GRAY_WITH_ALPHA:
        return np.ascontiguousarray(deep[..., [0, 3]])
    return deep


def _white(image: Image.Image, file: BinaryIO) -> int:
    """The largest value of a sample that the file can hold."""
    if image.format == "PNG":
        return 2 ** png_bit_depth(file) - 1
    file.seek(0)
    if image.format == "PPM":
        found = PNM_HEADER.match(file.read(4096))
        return int(found[3]) if found else 255
    data = file.read()
    if image.format == "JPEG2000":
        start = data.find(JPEG_2000_SIZES)
        return 255 if start < 0 else 2 ** ((data[start + 42] & 127) + 1) - 1
    start = data.find(AVIF_CONFIGURATION)
    flags = data[start + 6] if 0 <= start < len(data) - 6 else 0  # AV1-ISOBMFF, 2.3.3
    return 4095 if flags & 32 else 1023 if flags & 64 else 255


def _agreed(decoded: np.ndarray, image: Image.Image, white: int) -> np.ndarray | None:
    """OpenCV's samples in Pillow's order, at 16 bits, if both saw the same picture."""
    high_bytes = np.asarray(image)
    if decoded.dtype != np.uint16 or int(decoded.max(initial=0)) > white:
        return None
    if decoded.ndim == 2 and high_bytes.ndim == 3:
        return None
    if high_bytes.ndim == 2:  # 10-bit gray comes as three equal channels
        deep = decoded if decoded.ndim == 2 else decoded[..., 0]
        high_bytes, deep = high_bytes[..., None], deep[..., None]
    elif decoded.shape[2] < high_bytes.shape[2] or high_bytes.shape[2] == 2:
        return None
    else:
        deep = decoded[..., [2, 1, 0, 3][: high_bytes.shape[2]]]  # BGRA ⇒ RGBA
    if deep.shape != high_bytes.shape:
        return None
    agreed = np.empty(deep.shape, np.uint16)
    for top in range(0, len(deep), BLOCK_ROWS):
        rows = slice(top, top + BLOCK_ROWS)
        block = deep[rows]
        if white != 65535:
            block = ((block.astype(np.uint32) * 65535 + white // 2) // white).astype(np.uint16)
        agreed[rows] = block
        # Pillow rounds JPEG 2000, and lets what is nearly white overflow to 0
        from_opencv = (block.astype(np.uint32) + (128 if image.format == "JPEG2000" else 0)) >> 8
        difference = cv2.absdiff(from_opencv.astype(np.uint8), np.ascontiguousarray(high_bytes[rows])).max(initial=0)
        if difference > LARGEST_DIFFERENCE.get(image.format or "", 1):
            return None
    return np.repeat(agreed, 3, axis=2) if high_bytes.shape[2] == 1 else agreed


def _decode_heif(image: Image.Image, file: BinaryIO) -> np.ndarray | None:
    """A HEIC picture of 10 or 12 bits, through `pillow-heif`, which puts them at the top of 16."""
    bits = int(image.info.get("bit_depth", 8))
    if bits <= 8:
        return None
    import pillow_heif

    file.seek(0)
    pictures = pillow_heif.open_heif(file, convert_hdr_to_8bit=False)
    raw = np.asarray(pictures[image.tell() if len(pictures) > 1 else 0])
    if raw.dtype != np.uint16 or raw.shape[:2] != (image.height, image.width):
        raise PhotoError(f"files of {bits} bits are not supported; save it as a 16-bit TIFF")
    white = 2**bits - 1
    deep = (((raw >> (16 - bits)).astype(np.uint32) * 65535 + white // 2) // white).astype(np.uint16)
    return np.repeat(deep[..., None], 3, axis=2) if deep.ndim == 2 else np.ascontiguousarray(deep)


def png_bit_depth(file: BinaryIO) -> int:
    """Return the bits per sample in the header of a PNG file."""
    file.seek(24)
    return file.read(1)[0]


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield each chunk of a PNG file as (type, the whole chunk with length and checksum)."""
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, data[position : position + 12 + length]
        position += 12 + length


def strip_png(data: bytes) -> bytes:
    """Return the PNG file without what is not pixels, for libpng, which prints its complaints to stderr.

    Other chunks go, and pixel data beyond the end of the stream or of the picture is cut off.
    """
    chunks = list(png_chunks(data))
    head = b"".join(chunk for kind, chunk in chunks if kind in (b"IHDR", b"PLTE"))
    stream = b"".join(chunk[8:-4] for kind, chunk in chunks if kind == b"IDAT")
    width_px, height_px, bits, color_type, _, _, is_interlaced = struct.unpack_from(">2I5B", data, 16)
    channels = {2: 3, 4: 2, 6: 4}.get(color_type, 1)
    size = height_px * (1 + (width_px * bits * channels + 7) // 8)  # of all lines with their filter types
    if not is_interlaced and _has_more_than(stream, size):
        stream = zlib.compress(zlib.decompressobj().decompress(stream, size), 1)
    return PNG_SIGNATURE + head + png_chunk(b"IDAT", stream) + png_chunk(b"IEND", b"")


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _has_more_than(stream: bytes, size: int) -> bool:
    """Return whether anything follows the first `size` bytes of a zlib stream, in it or after it."""
    decompressor, length, rest = zlib.decompressobj(), 0, stream
    while rest and not decompressor.eof and length <= size:
        length += len(decompressor.decompress(rest, PIECE_BYTES))
        rest = decompressor.unconsumed_tail
    return length > size or bool(decompressor.unused_data)


def without_text(file: BinaryIO) -> BinaryIO:
    """Return a PNG without its text and profile, in memory."""
    pieces = [PNG_SIGNATURE]
    for kind, length, position in headers.png_chunk_places(file):
        if kind in PNG_CHUNKS_WITH_MEANING and (kind == b"IDAT" or length <= PIECE_BYTES):
            file.seek(position)
            pieces.append(file.read(12 + length))
    return io.BytesIO(b"".join(pieces))
