"""A file ⇒ the picture of it that is the photo, opened and not decoded yet; or an error that names the file's kind.

The first bytes say what a file is. It may hold several pictures: pages of a TIFF, frames of an animation, pictures of a
JPEG or HEIC.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image, UnidentifiedImageError

from chromatune.errors import MissingExtraError, NotAPictureError, PhotoError
from chromatune.images import headers, tiff
from chromatune.images.headers import PNG_SIGNATURE
from chromatune.images.photo_files import READABLE_FORMATS

if TYPE_CHECKING:
    import tifffile

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two with 64-bit offsets
START_BYTES = 32  # as many as the tests below look at

SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    PNG_SIGNATURE: "PNG",
    **dict.fromkeys(TIFF_SIGNATURES, "TIFF"),
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"RIFF": "WebP",
    b"\0\0\0\x0cjP  \r\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"P7\n": "PAM",
    b"PF\n": "color PFM",
    **{b"P%d" % number: "PNM" for number in range(1, 7)},
}
PNM_START = re.compile(rb"P[1-6fF]\s+[#\d]")
BMP_HEADER_BYTES = {12, 16, 40, 52, 56, 64, 108, 124}  # of its versions
SUFFIX_OF_KIND = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "GIF": ".gif", "JPEG 2000": ".jp2"}
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
AVIF_BRANDS = {b"avif", b"avis"}

CAMERA_RAWS = {
    b"FUJIFILMCCD-RAW": "RAF",
    b"IIRO": "ORF",
    b"IIRS": "ORF",
    b"MMOR": "ORF",
    b"IIU\0": "RW2",
    b"FOVb": "X3F",
    b"\0MRM": "MRW",
    b"II\x1a\0\0\0HEAPCCDR": "CRW",
}
# Raw files that are TIFFs inside, by what the first directory says of the maker
CAMERA_RAWS_OF_MAKERS = {
    "NIKON": "NEF",
    "SONY": "ARW",
    "CANON": "CR2",
    "PENTAX": "PEF",
    "RICOH": "PEF",
    "SAMSUNG": "SRW",
    "HASSELBLAD": "3FR",
    "PHASE ONE": "IIQ",
    "LEAF": "IIQ",
    "EASTMAN KODAK": "DCR",
    "KODAK": "DCR",
    "SEIKO EPSON": "ERF",
}

TAG_MAKE, TAG_DNG_VERSION = 271, 50706
PHOTOMETRIC_CFA, PHOTOMETRIC_LINEAR_RAW = 32803, 34892  # of sensor data in a TIFF

# A JPEG of several pictures is opened as its first one, and calls itself MPO
OPENED_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000", "AVIF", "PPM")
MPO_THUMBNAIL = "Large Thumbnail"  # how Pillow's names of such pictures begin (CIPA DC-007, 5.2.3.3.1)
TAG_MPO_ENTRIES = 0xB002


class HeicExtraError(PhotoError, MissingExtraError):
    """Reading HEIC without `pillow-heif`; a `PhotoError` too, so that a batch continues with the next photo."""

    def __init__(self, label: str) -> None:
        MissingExtraError.__init__(self, f"{label}: reading HEIC", "heic")


@dataclass
class Picture:
    """One picture of a file, opened and not decoded yet.

    Attributes:
        image: its header.
        file: what it was opened from, None for an image of the caller; in a TIFF, its directory is the first one there.
        tiff_page: its directory, if the file is a TIFF that could be read so far.
        page: its number, from 1.
        pages: how many pictures the file holds.
    """

    image: Image.Image | tiff.RareTiff
    file: BinaryIO | None
    tiff_page: tifffile.TiffPage | None = None
    page: int = 1
    pages: int = 1

    @property
    def warning(self) -> str | None:
        """One line, if other pictures of the file are not read."""
        if self.pages == 1:
            return None
        return f"holds {self.pages} pictures, and number {self.page} is read; name another one with --page (page=)"


@contextmanager
def open_picture(file: BinaryIO, page: int | None = None, max_pixels: int | None = None) -> Iterator[Picture]:
    """Open the photo among the pictures of a file, if it is no longer than they explain.

    Args:
        file: seekable, at its start.
        page: number of the picture, from 1; by default the largest page of a TIFF that is no smaller copy of another
            one (the first of equals), and the first or primary picture elsewhere.
        max_pixels: larger pictures are refused; those whose header says it, before a library opens them.

    Raises:
        PhotoError: it is no picture of a known kind, has no such page, or is too large.
    """
    start = file.read(START_BYTES)
    file.seek(0)
    if not start:
        raise PhotoError("the file is empty (0 bytes); copy or download it again")
    kind = camera_raw_kind(start)
    if kind is not None:
        raise camera_raw_error(kind)
    check_promised_size(file, start, max_pixels)
    with ExitStack() as stack:
        if start.startswith(TIFF_SIGNATURES):
            pages = stack.enter_context(tiff.open_pages(file))
            refuse_camera_raws(pages)
            if pages:
                yield _tiff_picture(file, pages, page, max_pixels, stack)
                return
        try:
            image = open_heif(file) if is_heif(start) else open_image(file)
        except UnidentifiedImageError:
            raise unidentified_error(start) from None
        picture = _chosen(Picture(stack.enter_context(image), file), page)
        if max_pixels is not None:
            check_size(picture.image.size, max_pixels)
        headers.check_bytes(file, picture.image.size[0] * picture.image.size[1] * picture.pages)
        yield picture


def check_promised_size(file: BinaryIO, start: bytes, max_pixels: int | None) -> tuple[int, int] | None:
    """Return the size that a file's header promises, where that can be known, once it is checked.

    Args:
        file: seekable; its position is the start afterwards.
        start: its first bytes.
        max_pixels: larger pictures are refused.

    Raises:
        PhotoError: the picture is too large, the file is longer than it explains, or has no size where it must be.
    """
    headers.check_header(file, start)
    size = headers.promised_size(file, start)
    if size is not None and max_pixels is not None:
        padding = headers.HEIC_PADDING_PX if is_heif(start) and min(size) > headers.HEIC_PADDING_PX else 0
        check_size((size[0] - padding, size[1] - padding), max_pixels)
    if headers.is_read_at_once(start):
        headers.check_bytes(file, 0 if size is None else size[0] * size[1])
    return size


def frame_numbers(image: Image.Image, file: BinaryIO | None = None) -> Sequence[int]:
    """Return the index of each picture that is one of its own: all frames but the thumbnails of a JPEG.

    Args:
        image: opened.
        file: what it was opened from, if it is known: Pillow reads a GIF byte by byte to count its frames.

    Raises:
        PhotoError: there are too many.
    """
    if image.format == "GIF" and file is not None:
        count = max(1, headers.count_gif_frames(file))
    else:
        count = getattr(image, "n_frames", 1)
    if count > headers.MOST_PICTURES:
        raise PhotoError(f"holds more than {headers.MOST_PICTURES:,} pictures; save the photo as a file of its own")
    indices = range(count)
    entries = (getattr(image, "mpinfo", None) or {}).get(TAG_MPO_ENTRIES, ())
    if image.format != "MPO" or len(entries) != len(indices):
        return indices
    kinds = [str(entry["Attribute"]["MPType"]) for entry in entries]
    return [index for index in indices if index == 0 or not kinds[index].startswith(MPO_THUMBNAIL)]


def check_page(page: int | None, count: int) -> None:
    """Raise PhotoError for a page number that the file does not have; None always passes."""
    if page is not None and not 1 <= page <= count:
        there = "the only picture is number 1" if count == 1 else f"the pictures are numbers 1 to {count}"
        raise PhotoError(f"has no page {str(page)[:20]}; {there}")


def check_size(size_px: tuple[int, int], max_pixels: int) -> None:
    """Raise PhotoError for a width and height of no pixels, or of more than `max_pixels`."""
    width_px, height_px = size_px
    if width_px < 1 or height_px < 1:
        raise PhotoError(f"the picture has no pixels ({width_px} x {height_px}); choose another file")
    if width_px * height_px > max_pixels:
        raise PhotoError(
            f"{width_px} x {height_px} = {width_px * height_px / 1e6:.1f} million pixels, and the limit is "
            f"{max_pixels / 1e6:.1f} million; make it smaller, or raise --max-megapixels (max_pixels)"
        )


def open_image(file: BinaryIO) -> Image.Image:
    """Open the file's header as a Pillow image, nothing decoded yet; only formats of `OPENED_FORMATS` are tried."""
    return Image.open(file, formats=OPENED_FORMATS)


def open_heif(file: BinaryIO) -> Image.Image:
    """Open the header of a HEIC photo as a Pillow image; without `pillow-heif` an error that has no label yet."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise HeicExtraError("photo") from None
    return HeifImageFile(file)


def is_heif(start: bytes) -> bool:
    """Return whether a file begins like a HEIC photo; AVIF, in the same container, is not one."""
    if start[4:8] != b"ftyp":
        return False
    brands = {start[8:12], *(start[at : at + 4] for at in range(16, len(start) - 3, 4))}
    return start[8:12] in HEIF_BRANDS and not brands & AVIF_BRANDS


def suffix_of_content(start: bytes) -> str:
    """Return the suffix that a picture which begins so should have; "" for what does not look like a picture.

    Args:
        start: its first bytes, `START_BYTES` of them.
    """
    if camera_raw_kind(start):
        return ""
    if start[:4] == b"RIFF":
        return ".webp" if start[8:12] == b"WEBP" else ""
    if start[4:8] == b"ftyp":
        return ".heic" if is_heif(start) else ".avif" if start[8:12] in AVIF_BRANDS else ""
    if start[:2] == b"BM":
        size = int.from_bytes(start[14:18], "little")
        return ".bmp" if start[6:10] == bytes(4) and size in BMP_HEADER_BYTES else ""
    if start[:1] == b"P":
        return ".pnm" if PNM_START.match(start) else ""
    kind = next((name for signature, name in SIGNATURES.items() if start.startswith(signature)), "")
    return SUFFIX_OF_KIND.get(kind, "")


def camera_raw_kind(start: bytes) -> str | None:
    """Return the kind of camera raw file that begins so, such as "CR3"; None for what is none, or a TIFF inside."""
    if start[4:12] == b"ftypcrx ":
        return "CR3"
    if start[:4] == b"II*\0" and start[8:10] == b"CR":
        return "CR2"
    return next((kind for signature, kind in CAMERA_RAWS.items() if start.startswith(signature)), None)


def camera_raw_error(kind: str) -> PhotoError:
    """Return the error for a camera raw file."""
    return PhotoError(f"is a camera raw file ({kind}): develop it to TIFF first")


def unidentified_error(start: bytes) -> PhotoError:
    """Return the error for a file that no reader takes."""
    if is_heif(start) or start[4:8] == b"ftyp":
        known = "HEIC" if is_heif(start) else "AVIF" if start[8:12] in AVIF_BRANDS else None
    else:
        known = next((name for signature, name in SIGNATURES.items() if start.startswith(signature)), None)
    if known is not None:
        article = "an" if known == "AVIF" else "a"
        return PhotoError(
            f"{article} {known} with a damaged header, or of an unsupported kind; save it as PNG in an editor"
        )
    return NotAPictureError(f"not a picture in a known format; accepted: {READABLE_FORMATS}")


def refuse_camera_raws(pages: list[tifffile.TiffPage]) -> None:
    """Raise PhotoError for a TIFF with a directory of sensor data: the pictures beside it are thumbnails."""
    is_dng = any(TAG_DNG_VERSION in page.tags for page in pages)
    if is_dng or any(page.photometric in (PHOTOMETRIC_CFA, PHOTOMETRIC_LINEAR_RAW) for page in pages):
        makers = (str(page.tags[TAG_MAKE].value) for page in pages if TAG_MAKE in page.tags)
        maker = next(makers, "").upper()
        known = (kind for name, kind in CAMERA_RAWS_OF_MAKERS.items() if maker.startswith(name))
        raise camera_raw_error("DNG" if is_dng else next(known, "TIFF with sensor data"))


def _chosen(picture: Picture, page: int | None) -> Picture:
    image: Any = picture.image
    numbers = frame_numbers(image, picture.file)
    picture.pages = len(numbers)
    check_page(page, picture.pages)
    at_first = image.tell() if len(numbers) > 1 else 0  # a HEIC opens at its primary picture, all others at the first
    index = at_first if page is None else numbers[page - 1]
    if index != at_first:
        image.seek(index)
    picture.page = numbers.index(index) + 1 if index in numbers else 1
    return picture


def _tiff_picture(
    file: BinaryIO, pages: list[tifffile.TiffPage], page: int | None, max_pixels: int | None, stack: ExitStack
) -> Picture:
    full = tiff.full_pages(pages)
    check_page(page, len(full))
    sizes = [int(candidate.imagewidth) * int(candidate.imagelength) for candidate in full]
    number = sizes.index(max(sizes)) + 1 if page is None else page
    chosen = full[number - 1]
    if max_pixels is not None:
        check_size((int(chosen.imagewidth), int(chosen.imagelength)), max_pixels // tiff.size_factor(chosen))
    tiff.check_storage(chosen)
    own = tiff.starting_at(file, chosen.offset)
    try:
        image: Image.Image | tiff.RareTiff = stack.enter_context(open_image(own))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, struct.error):
        image = tiff.as_rare(chosen, own)
    return Picture(image, own, chosen, number, len(full))
