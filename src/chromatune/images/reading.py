"""Any source of a photo ⇒ `Photo`, or a `PhotoError` of one line that names the source and says what to do."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np
from PIL import Image

from chromatune.color import OwnColor, find_own_color, looks_negative, luma
from chromatune.errors import NotAPictureError, PhotoError, printable
from chromatune.files import open_regular
from chromatune.images import decoding, headers, metadata, opening, pixels, tiff
from chromatune.images.metadata import Captions
from chromatune.images.opening import HeicExtraError
from chromatune.images.photo_files import shown

# A4 at 1200 dpi has 139 million. Colorizing takes 33 bytes a pixel (8-bit gray) to 56 (16-bit color): 5 to 8 GB here,
# which a file of 2 MB can ask for as well.
MAX_PIXELS = 150_000_000
MOST_PROFILE_BYTES = 16 << 20  # of a color profile; those of printers have 3 MB

Result = TypeVar("Result")
Source = str | os.PathLike | bytes | bytearray | memoryview | Image.Image | np.ndarray | BinaryIO


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo, upright and in sRGB coding; the luma of every result is compared with `gray`.

    Attributes:
        gray: (H, W) uint8 or uint16, Rec.601 luma of the sRGB-coded picture, at full size.
        alpha: (H, W) of gray's dtype, full = opaque; None where the source had no transparency.
        icc_profile: sRGB profile to embed in a result if the source carried a usable profile, else None.
        exif: EXIF block to write (date, camera, place; orientation 1; no thumbnail), else None.
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

    @cached_property
    def own_color(self) -> OwnColor | None:
        """Local color of the source, of at most 512 pixels a side; None where every pixel is neutral or of one tone."""
        return None if self.rgb is None else find_own_color(self.rgb)

    @property
    def in_color(self) -> bool:
        """Whether the source is plainly in color, and no scan of a gray or toned print; see `OwnColor.in_color`."""
        return self.own_color is not None and self.own_color.in_color

    @cached_property
    def looks_negative(self) -> bool:
        """Whether it is probably a scan of a negative, see `color.looks_negative`."""
        return looks_negative(self.gray, self.rgb)


def inverted(photo: Photo) -> Photo:
    """Return a negative as a positive, without its own colors, which are the film's: luma of white less the luma."""
    return replace(photo, gray=photo.max_value - photo.gray, rgb=None)


def read_photo(
    source: Source,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    page: int | None = None,
    strict: bool = False,
) -> Photo:
    """Read the photo at its full size and depth, upright, in sRGB. `docs/files.md` has a table of formats.

    Files of more than 8 bits become 16-bit or are refused by name, but for CMYK with a profile, which says so in
    `Photo.warnings`. An image that Pillow opened has lost the low byte of 16-bit color before it comes here; pass the
    file instead. Integer and float pictures: see `pixels.scaled_from_numbers`.

    Args:
        source: a path, the bytes of a file, a file opened in binary mode, a Pillow image, or an array: (H, W) or
            (H, W, 1..4) of uint8, uint16, bool, or float in 0..1.
        name: what to call it in messages and in `Photo.name`; by default the file's name, else "photo".
        max_pixels: larger pictures are refused before they are decoded.
        page: number of the picture in a file of several, from 1; by default the largest page of a TIFF that is no
            smaller copy of another one, and the first or primary picture elsewhere.
        strict: refuse a JPEG that lacks its end, instead of reading it with a warning.

    Raises:
        PhotoError: there is no such photo or page, it is too large, damaged, or of a kind that cannot be read.
        MissingExtraError: a HEIC photo, and the extra `heic` is not installed; it is a `PhotoError` too.
    """
    if isinstance(source, np.ndarray):
        with _one_line(name or "photo"):
            opening.check_page(page, 1)
            color, alpha = pixels.samples_from_array(source)
            gray, rgb = _gray_and_colors(color)
            return Photo(gray, alpha, name=name or "photo", rgb=rgb)
    if isinstance(source, Image.Image):
        label = name or _file_name(getattr(source, "filename", None))
        with _one_line(label), decoding.quiet_libraries():
            if page is not None:
                numbers = opening.frame_numbers(source)
                opening.check_page(page, len(numbers))
                source.seek(numbers[page - 1])
            return _photo_from_picture(opening.Picture(source, None), label, max_pixels, strict)
    with _as_file(source, name, max_pixels) as (file, label, called), _one_line(label), decoding.quiet_libraries():
        read = partial(_photo_from_picture, name=called, max_pixels=max_pixels, strict=strict)
        photo, has_all_text = _use_picture(file, page, read, max_pixels)
        skipped = () if has_all_text else ("its text is longer than 64 MB, and was skipped",)
        return replace(photo, warnings=(*photo.warnings, *skipped))


def count_pages(source: Source, *, name: str | None = None) -> int:
    """Count the pictures in a source that `read_photo(source, page=N)` reads, 1 for most.

    Smaller copies of another page, masks and a JPEG's thumbnails are not counted; the frames of an animation are.

    Args:
        source: as for `read_photo`.
        name: what to call it in messages.

    Raises:
        PhotoError: the file cannot be opened.
        MissingExtraError: as for `read_photo`.
    """
    if isinstance(source, np.ndarray):
        return 1
    if isinstance(source, Image.Image):
        return len(opening.frame_numbers(source))
    with _as_file(source, name) as (file, label, _), _one_line(label), decoding.quiet_libraries():
        return _use_picture(file, None, lambda picture: picture.pages)[0]


def count_pixels(source: Source, *, name: str | None = None, max_pixels: int | None = None) -> int:
    """Count the pixels that `read_photo(source)` will decode, by the file's header alone.

    Args:
        source: as for `read_photo`; a file opened in binary mode must be seekable, and is not read to its end.
        name: what to call it in messages.
        max_pixels: larger pictures are refused.

    Raises:
        PhotoError: the file cannot be opened, is no picture, or is too large.
        MissingExtraError: as for `read_photo`.
    """
    if isinstance(source, np.ndarray):
        return int(source.shape[0] * source.shape[1])
    if isinstance(source, Image.Image):
        return source.width * source.height
    opened: AbstractContextManager[tuple[BinaryIO, str, str]] = _as_file(source, name)
    if hasattr(source, "seekable") and source.seekable():  # else all of it would be read for its header
        opened = nullcontext((cast(BinaryIO, source), name or "photo", ""))
    with opened as (file, label, _), _one_line(label), decoding.quiet_libraries():
        start = file.read(opening.START_BYTES)
        size = opening.check_promised_size(file, start, None)
        if size is not None and opening.is_heif(start) and size[0] * size[1] <= MAX_PIXELS:
            size = None  # it may be padded
        # Where it is known, no library is asked, which would already allocate the picture
        width_px, height_px = size or _use_picture(file, None, lambda picture: picture.image.size)[0]
        if max_pixels is not None:
            opening.check_size((width_px, height_px), max_pixels)
        return int(width_px * height_px)


def read_stream(stream: BinaryIO, *, max_pixels: int = MAX_PIXELS, name: str = "photo") -> bytes:
    """Return what a stream holds, such as standard input: no more than the size in its header explains.

    Args:
        stream: opened in binary mode; it need not be seekable.
        max_pixels: what the size is taken to be where the header's place is further behind.
        name: what to call it in messages.

    Raises:
        PhotoError: it cannot be read, or is longer.
    """
    with _one_line(name):
        data = stream.read(headers.HEADER_BYTES)
        if not isinstance(data, bytes):
            raise PhotoError("the file is open in text mode; open it with 'rb'")
        pieces, length = [data], len(data)
        most = headers.largest_file_bytes(_pixels_of_start(data, max_pixels)) if length else 0
        while data and length <= most:
            data = stream.read(headers.HEADER_BYTES)
            pieces.append(data)
            length += len(data)
        if length > most:
            raise PhotoError(
                f"more than {most / 1e6:,.0f} MB, too much for its pixels; save it again in an image editor"
            )
        return b"".join(pieces)


def _pixels_of_start(data: bytes, max_pixels: int) -> int:
    """Pixels by the header in the first bytes of a file; the most there may be where it is not among them."""
    if data.startswith(opening.TIFF_SIGNATURES):
        return max_pixels
    with decoding.quiet_libraries(), suppress(Exception):
        size = opening.check_promised_size(io.BytesIO(data), data[: opening.START_BYTES], None)
        if size is None and not headers.is_read_at_once(data):
            with opening.open_image(io.BytesIO(data)) as image:
                size = image.size
        return min(max_pixels, size[0] * size[1]) if size else 0
    return 0


@contextmanager
def _as_file(source: Any, name: str | None, max_pixels: int = MAX_PIXELS) -> Iterator[tuple[BinaryIO, str, str]]:
    """Yield a seekable file of the source, what to call it in messages, and the photo's name."""
    if isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source), name or "photo", name or "photo"
    elif isinstance(source, str | os.PathLike):
        path = Path(os.fsdecode(source))
        label = name or str(path)
        with _one_line(label), _opened(path) as file:
            yield file, label, name or path.name
    elif hasattr(source, "read"):
        label = name or _file_name(getattr(source, "name", None))
        if isinstance(source, io.BufferedReader) and source.seekable() and source.tell() == 0:
            yield cast(BinaryIO, source), label, label  # a file of the disk, which need not be in memory
            return
        yield io.BytesIO(read_stream(source, max_pixels=max_pixels, name=label)), label, label
    else:
        accepted = "a path, bytes, a binary file, a PIL image or a NumPy array"
        raise PhotoError(f"{shown(name or 'photo')}: cannot read a {type(source).__name__}; give {accepted}")


def _use_picture(
    file: BinaryIO, page: int | None, use: Callable[[opening.Picture], Result], max_pixels: int | None = None
) -> tuple[Result, bool]:
    """The result of `use` on a file's photo, and whether its text was read: a PNG with too much is opened without."""
    file.seek(0)
    is_png = file.read(len(headers.PNG_SIGNATURE)) == headers.PNG_SIGNATURE
    if not (is_png and headers.has_much_text(file)):
        file.seek(0)
        try:
            with opening.open_picture(file, page, max_pixels) as picture:
                return use(picture), True
        except ValueError as error:
            if "text" not in str(error).lower():  # Pillow's two complaints about too much text in a PNG
                raise
    with opening.open_picture(decoding.without_text(file), page, max_pixels) as picture:
        return use(picture), False


def _photo_from_picture(picture: opening.Picture, name: str, max_pixels: int, strict: bool) -> Photo:
    image: Any = picture.image
    file, page = picture.file, picture.tiff_page
    opening.check_size(image.size, max_pixels)
    warnings = [picture.warning]
    profile = image.info.get("icc_profile") or None
    if profile is not None and len(profile) > MOST_PROFILE_BYTES:
        profile = None
        warnings.append(f"its color profile is larger than {MOST_PROFILE_BYTES >> 20} MB, and is ignored")
    applied_orientation = 1
    if page is not None and file is not None and (isinstance(image, tiff.RareTiff) or tiff.is_deep_color(page)):
        stored = tiff.read_samples(page, file)
        samples, is_managed = pixels.samples_from_tiff(stored, profile)
        if stored.color.dtype == np.uint16 and samples[0].dtype == np.uint8:
            warnings.append("its 16-bit inks are read at 8 bits, because their profile can be applied at no more")
    else:
        applied_orientation = metadata.tiff_orientation(image)
        image, cut = decoding.load(image, file, strict)
        warnings.append(cut)
        deep_color = decoding.decode_deep(image, file) if file is not None else None
        if deep_color is not None:
            samples, is_managed = pixels.samples_from_deep(deep_color, profile, image.info.get("transparency"))
        else:
            bit_depth = decoding.png_bit_depth(file) if file is not None and image.format == "PNG" else 8
            samples, is_managed = pixels.samples_from_image(image, profile, bit_depth)
    if profile is not None and not is_managed:
        warnings.append("its color profile is damaged, or for another kind of picture, and is ignored")
    color, alpha = samples
    gamma = image.info.get("gamma") if image.format == "PNG" else None
    if gamma and profile is None and "srgb" not in image.info:
        color = pixels.gamma_to_srgb(color, float(gamma))
    orientation = metadata.orientation_of(image)
    gray, rgb = _gray_and_colors(metadata.upright(color, orientation))
    return Photo(
        gray,
        None if alpha is None else metadata.upright(alpha, orientation),
        icc_profile=pixels.srgb_profile() if is_managed else None,
        exif=metadata.exif_for_results(image, (gray.shape[1], gray.shape[0]), is_managed),
        format="JPEG" if image.format == "MPO" else image.format or "PNG",
        name=name,
        rgb=rgb,
        dpi=metadata.dpi_of(image, max(orientation, applied_orientation)),  # one of them is 1
        captions=metadata.captions_of(image, page, is_managed),
        warnings=tuple(warning for warning in warnings if warning is not None),
    )


def _gray_and_colors(color: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """`Photo.gray` and `Photo.rgb` of (H, W) or (H, W, 3) samples."""
    if color.ndim == 2:
        return color, None
    if np.array_equal(color[..., 0], color[..., 1]) and np.array_equal(color[..., 1], color[..., 2]):
        return np.ascontiguousarray(color[..., 0]), None  # a gray photo in an RGB file has no colors to compare with
    return luma(color), color


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = open_regular(path)
    except FileNotFoundError:
        raise PhotoError("no such file; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        if os.path.isdir(path):
            raise PhotoError("is a folder; name the photos in it") from None
        if isinstance(error, PermissionError):
            raise PhotoError("no permission to read it; change the file's rights") from None
        if getattr(error, "errno", None) == errno.EINVAL and path.exists() and not path.is_file():
            raise PhotoError("is a pipe or a device, not a file; pipe it into standard input, and give -") from None
        raise PhotoError(f"cannot be opened ({getattr(error, 'strerror', None) or error}); check the path") from error
    with file:
        yield file


@contextmanager
def _one_line(label: str) -> Iterator[None]:
    """Raise every failure in the block as a `PhotoError` of one line that begins with the label."""
    label = shown(label)
    try:
        yield
    except HeicExtraError:
        raise HeicExtraError(label) from None
    except PhotoError as error:
        message = str(error)
        kind = NotAPictureError if isinstance(error, NotAPictureError) else PhotoError
        raise kind(message if message.startswith(f"{label}: ") else f"{label}: {message}") from error.__cause__
    except MemoryError as error:
        raise PhotoError(f"{label}: not enough memory for this picture; make it smaller") from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, IndexError and more on damaged files
        raise PhotoError(
            f"{label}: damaged or incomplete{_reason(error)}; copy it again, or save it again in an image editor"
        ) from error


def _reason(error: Exception) -> str:
    """What a library says of a damaged file, in brackets, where it says more than a number or a word."""
    words = str(error).split()
    return f" ({printable(' '.join(words)[:120])})" if len(words) > 1 and not isinstance(error, AssertionError) else ""


def _file_name(given: object) -> str:
    return os.path.basename(given) if isinstance(given, str) and given else "photo"
