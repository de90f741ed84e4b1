"""Any source of a photo ⇒ `Photo`, or a `PhotoError` of one line that names the source and says what to do."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from chromatune import color
from chromatune.errors import PhotoError, printable
from chromatune.images import decoding, metadata, pixels, profiles
from chromatune.images.photo import READABLE_FORMATS, Photo

MAX_PIXELS = 400_000_000  # a 20 000 px square; one RGB copy at 16 bits is 2.4 GB

Source = str | os.PathLike | bytes | bytearray | memoryview | Image.Image | np.ndarray | BinaryIO

SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    decoding.PNG_SIGNATURE: "PNG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"RIFF": "WebP",
}


def read_photo(source: Source, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Photo:
    """The photo at its full size and depth, upright, in sRGB.

    JPEG, PNG, TIFF, WebP, BMP and the first frame of a GIF are read, in every pixel mode Pillow has. 16-bit files
    stay 16-bit (except CMYK, which Pillow reads at 8). An image that Pillow opened has lost the low byte of 16-bit
    colour before it comes here; pass the file instead. Integer and float pictures: see `pixels.grey_from_numbers`.

    Args:
        source: a path, the bytes of a file, a file opened in binary mode, a Pillow image, or an array: (H, W) or
            (H, W, 1..4) of uint8, uint16, bool, or float in 0..1.
        name: what to call it in messages and in `Photo.name`; by default the file's name, else "photo".
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        PhotoError: there is no such photo, it is too large, damaged, or of a kind that cannot be read.
    """
    if isinstance(source, np.ndarray):
        with _one_line(name or "photo"):
            return _photo_from_samples(pixels.samples_from_array(source), name=name or "photo")
    if isinstance(source, Image.Image):
        label = name or _file_name(getattr(source, "filename", None))
        with _one_line(label), decoding.quiet_libraries():
            return _photo_from_image(source, None, label, max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        return _photo_from_file(io.BytesIO(source), name or "photo", name or "photo", max_pixels)
    if isinstance(source, str | os.PathLike):
        path = Path(os.fsdecode(source))
        label = name or str(path)
        with _one_line(label), _opened(path) as file:
            return _photo_from_file(decoding.as_seekable(file), label, name or path.name, max_pixels)
    if hasattr(source, "read"):
        label = name or _file_name(getattr(source, "name", None))
        with _one_line(label):
            data = source.read()
        if not isinstance(data, bytes):
            raise PhotoError(f"{printable(label)}: the file is open in text mode; open it with 'rb'")
        return _photo_from_file(io.BytesIO(data), label, label, max_pixels)
    accepted = "a path, bytes, a binary file, a PIL image or a NumPy array"
    raise PhotoError(f"{printable(name or 'photo')}: cannot read a {type(source).__name__}; give {accepted}")


def _photo_from_file(file: BinaryIO, label: str, name: str, max_pixels: int) -> Photo:
    with _one_line(label), decoding.quiet_libraries():
        start = file.read(12)
        if not start:
            raise PhotoError("the file is empty (0 bytes); copy or download it again")
        file.seek(0)
        try:
            image = decoding.open_image(file)
        except UnidentifiedImageError:
            raise PhotoError(_why_unidentified(start)) from None
        with image:
            return _photo_from_image(image, file, name, max_pixels)


def _photo_from_image(image: Image.Image, file: BinaryIO | None, name: str, max_pixels: int) -> Photo:
    """The photo of a Pillow image; `file` is what it was opened from, None if it was given as an image."""
    decoding.check_size(image, max_pixels)
    applied_orientation = metadata.tiff_orientation(image)
    image.load()
    icc_profile = image.info.get("icc_profile") or None
    deep = decoding.decode_16_bit_colour(image, file) if file is not None else None
    if deep is not None:
        samples, is_managed = pixels.samples_from_deep(deep, icc_profile, image.info.get("transparency"))
    else:
        bit_depth = decoding.png_bit_depth(file) if file is not None and image.format == "PNG" else 8
        samples, is_managed = pixels.samples_from_image(image, icc_profile, bit_depth)
    orientation = metadata.orientation_of(image)
    return _photo_from_samples(
        (metadata.upright(samples[0], orientation), _upright_or_none(samples[1], orientation)),
        name=name,
        format="JPEG" if image.format == "MPO" else image.format or "PNG",
        icc_profile=profiles.srgb_profile() if is_managed else None,
        exif=metadata.kept_exif(image, _upright_size(image, orientation), is_managed),
        dpi=metadata.dpi_of(image, max(orientation, applied_orientation)),  # one of them is 1
    )


def _photo_from_samples(
    samples: pixels.Samples,
    *,
    name: str,
    format: str = "PNG",
    icc_profile: bytes | None = None,
    exif: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> Photo:
    colour, alpha = samples
    rgb = None
    if colour.ndim == 2:
        grey = colour
    elif np.array_equal(colour[..., 0], colour[..., 1]) and np.array_equal(colour[..., 1], colour[..., 2]):
        grey = np.ascontiguousarray(colour[..., 0])  # a grey photo in an RGB file has no colours to compare with
    else:
        grey, rgb = color.luma(colour), colour
    return Photo(grey, alpha, icc_profile, exif, format, name, rgb, dpi)


def _upright_or_none(alpha: np.ndarray | None, orientation: int) -> np.ndarray | None:
    return None if alpha is None else metadata.upright(alpha, orientation)


def _upright_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    width_px, height_px = image.size
    return (height_px, width_px) if orientation in (5, 6, 7, 8) else (width_px, height_px)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise PhotoError("no such file; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        if os.path.isdir(path):
            raise PhotoError("is a folder; name the photos in it") from None
        if isinstance(error, PermissionError):
            raise PhotoError("no permission to read it; change the file's rights") from None
        raise PhotoError(f"cannot be opened ({getattr(error, 'strerror', None) or error}); check the path") from error
    with file:
        yield file


@contextmanager
def _one_line(label: str) -> Iterator[None]:
    """Every failure in the block as a `PhotoError` of one line that begins with the label."""
    try:
        yield
    except PhotoError as error:
        message = str(error)
        prefix = f"{printable(label)}: "
        raise PhotoError(message if message.startswith(prefix) else prefix + message) from error.__cause__
    except MemoryError as error:
        raise PhotoError(f"{printable(label)}: not enough memory for this picture; make it smaller") from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, IndexError and more on damaged files
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise PhotoError(
            f"{printable(label)}: damaged or cut short ({reason}); copy it again, or save it anew in an image editor"
        ) from error


def _why_unidentified(start: bytes) -> str:
    for signature, format_name in SIGNATURES.items():
        if start.startswith(signature):
            return f"a {format_name} with a damaged header, or of a rare kind; open it in an editor and save it as PNG"
    return f"not a picture in a known format; accepted: {READABLE_FORMATS}"


def _file_name(given: object) -> str:
    return os.path.basename(given) if isinstance(given, str) and given else "photo"
