"""Pages of a TIFF, and the samples that Pillow cannot hold: more than 8 bits of color, alpha beside gray, floats, Lab.

tifffile knows the directories, tiles, predictors and sample formats. What it needs another package to decompress goes
through Pillow's libtiff as a picture of bytes.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from PIL import Image, TiffImagePlugin

from chromatune.errors import PhotoError
from chromatune.images import headers

if TYPE_CHECKING:
    import tifffile

TAG_OLD_SUBFILE_TYPE, OLD_REDUCED = 255, 2
TAG_SAMPLE_FORMAT, TAG_ICC_PROFILE = 339, 34675
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK, CIELAB, ICCLAB = 0, 1, 2, 5, 8, 9
COLOR_CHANNELS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, CMYK: 4, CIELAB: 3, ICCLAB: 3}
ALPHA_PREMULTIPLIED, ALPHA_STRAIGHT = 1, 2
UNCOMPRESSED, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD = 1, 5, 8, 32946, 32773, 34925, 50000
COMPRESSIONS_OF_BYTES = (LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD)
TAG_STRIP_OFFSETS, TYPE_LONG = 273, 4

MOST_PAGES = headers.MOST_PICTURES
MOST_TAGS = 500_000  # of all directories
MOST_TAG_BYTES = 32 << 20  # of those values that are read with the directories: each may name the same megabytes
MOST_TAGS_OF_PAGE = 4096  # tifffile reads no directory of more
# Those values: bits, description, strips, software, tiles, subdirectories, ..., by tifffile's `TIFF.TAG_LOAD`
TAGS_READ = frozenset(
    (258, 270, 273, 277, 279, 282, 283, 305, 324, 325, 330, 338, 339, 347, 513, 514, 530, 33628, 42113, 50838, 50839)
)
TAG_SUBDIRECTORIES = 330
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
MOST_EXTRA_CHANNELS = 8  # a small file may promise 65,000, and memory is counted by pixels
LARGEST_TILE_PIXELS = 1 << 24
LONGEST_VALUE = 40  # characters of a tag in a message
# What tifffile raises on damaged directories
BROKEN_TIFF = (ValueError, LookupError, TypeError, ArithmeticError, OSError, struct.error, AttributeError)


@dataclass
class RareTiff:
    """A page that Pillow does not open, with those attributes of a Pillow image that the reader uses."""

    page: tifffile.TiffPage
    file: BinaryIO
    tag_v2: TiffImagePlugin.ImageFileDirectory_v2
    info: dict[Any, Any]
    format: str = "TIFF"
    mode: str = "TIFF"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored, in pixels."""
        return int(self.page.imagewidth), int(self.page.imagelength)

    def getexif(self) -> Image.Exif:
        """The directory as EXIF tags."""
        exif = Image.Exif()
        if self.page.parent.is_bigtiff:  # Pillow's EXIF reader knows 32-bit offsets alone
            exif.update(dict(self.tag_v2))
            return exif
        self.file.seek(0)
        exif.load_from_fp(self.file)
        return exif


@dataclass(frozen=True)
class Samples:
    """What a page holds, as stored: color channels and alpha apart, orientation not applied.

    Attributes:
        color: (H, W, C) of the file's own type, C = 1, 3 or 4.
        alpha: (H, W) of the same type, or None.
        is_premultiplied: colors were multiplied by alpha.
        photometric: what the channels mean, TIFF 6.0 section 8.
    """

    color: np.ndarray
    alpha: np.ndarray | None
    is_premultiplied: bool
    photometric: int


@contextmanager
def open_pages(file: BinaryIO) -> Iterator[list[tifffile.TiffPage]]:
    """Yield all directories of a TIFF in file order, SubIFDs after their parent; none where the first is damaged."""
    import tifffile  # imported late: it takes a tenth of a second that other formats save

    _check_directories(file)
    log = logging.getLogger("tifffile")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    file.seek(0)
    try:
        try:
            reader = tifffile.TiffFile(file)
        except BROKEN_TIFF:
            yield []
            return
        with reader:
            yield _all_pages(reader)
    finally:
        log.setLevel(level)
        file.seek(0)


def _check_directories(file: BinaryIO) -> None:
    """Check, before anything reads them, that all directories together are of a bearable length.

    Raises:
        PhotoError: they are not.
    """
    file.seek(0)
    start = file.read(16)
    order, is_big = "<" if start[:2] == b"II" else ">", start[2:4] in (b"+\0", b"\0+")
    count_bytes, entry, offset_kind = (8, order + "HHQQ", "Q") if is_big else (2, order + "HHLL", "L")
    size, offset_bytes = struct.calcsize(entry), struct.calcsize(order + offset_kind)
    waiting, seen, tags, loaded = [start[8:16] if is_big else start[4:8]], set[int](), 0, 0
    while waiting and len(seen) <= MOST_PAGES:
        where = waiting.pop()
        offset = struct.unpack(order + offset_kind, where)[0] if len(where) == offset_bytes else 0
        if not offset or offset in seen:
            continue
        seen.add(offset)
        file.seek(offset)
        count = int.from_bytes(file.read(count_bytes), "little" if order == "<" else "big")
        if count > MOST_TAGS_OF_PAGE:
            continue
        data = file.read(count * size)
        waiting.append(file.read(offset_bytes))
        tags += count
        for code, kind, number, value in struct.iter_unpack(entry, data[: len(data) // size * size]):
            length = number * TYPE_BYTES.get(kind, 0)
            if code in TAGS_READ and length > offset_bytes:
                loaded += length
            if tags > MOST_TAGS or loaded > MOST_TAG_BYTES:
                raise PhotoError(f"damaged: the directories of the TIFF are too long; {headers.DAMAGED}")
            if code == TAG_SUBDIRECTORIES and number <= MOST_PAGES:
                file.seek(value)
                values = struct.pack(order + offset_kind, value) if length <= offset_bytes else file.read(length)
                waiting += [values[at : at + offset_bytes] for at in range(0, len(values), offset_bytes)]


def _all_pages(reader: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The directories up to the first damage or repetition: a chain may lead back to its start."""
    pages: dict[int, Any] = {}
    with suppress(*BROKEN_TIFF):
        for page in reader.pages:
            for one in (page, *islice(page.pages or (), MOST_PAGES)):
                if one.offset in pages or len(pages) == MOST_PAGES:
                    return list(pages.values())
                pages[one.offset] = one
    return list(pages.values())


def full_pages(pages: list[tifffile.TiffPage]) -> list[tifffile.TiffPage]:
    """Return the pages that are pictures of their own, no smaller copies of others and no masks; all if none is."""
    full = [
        page
        for page in pages
        if not (page.is_reduced or page.is_mask or page.tags.valueof(TAG_OLD_SUBFILE_TYPE) == OLD_REDUCED)
    ]
    return full or list(pages)


def starting_at(file: BinaryIO, offset: int) -> BinaryIO:
    """Return the same TIFF with the directory at `offset` first, which is the one that every library opens."""
    file.seek(0)
    start = file.read(16)
    order = "<" if start[:2] == b"II" else ">"
    position, kind = (8, "Q") if start[2:4] in (b"+\0", b"\0+") else (4, "L")
    if struct.unpack_from(order + kind, start, position)[0] == offset:
        file.seek(0)
        return file
    return cast(BinaryIO, _WithStart(file, start[:position] + struct.pack(order + kind, offset)))


class _WithStart(io.BufferedIOBase):
    """A file with other first bytes: nothing is copied."""

    def __init__(self, file: BinaryIO, start: bytes) -> None:
        self._file, self._start = file, start
        file.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:  # for libtiff, which is told the directory's offset beside it
        return self._file.fileno()

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        position = self._file.tell()
        data = self._file.read(-1 if size is None else size)
        start = self._start[position : position + len(data)]
        return start + data[len(start) :] if start else data


def size_factor(page: tifffile.TiffPage) -> int:
    """Return how many times a page's pixels count: many channels of floats take the memory of many pixels."""
    bits = int(page.samplesperpixel) * int(np.max(page.bitspersample))
    return max(1, bits // (8 * headers.MOST_BYTES_PER_PIXEL))


def check_storage(page: tifffile.TiffPage) -> None:
    """Check that a page's strips or tiles are no longer than its pixels explain.

    Raises:
        PhotoError: they are.
    """
    pixels = int(page.imagewidth) * int(page.imagelength)
    limit = headers.largest_file_bytes(pixels * size_factor(page))
    if sum(page.databytecounts) > 2 * limit:
        raise PhotoError(f"damaged: the TIFF has more data than its pixels explain; {headers.DAMAGED}")
    if page.is_tiled and page.tilewidth * page.tilelength > max(LARGEST_TILE_PIXELS, pixels):
        raise PhotoError(f"damaged: tiles of {page.tilewidth} x {page.tilelength} pixels; copy it again")


def as_rare(page: tifffile.TiffPage, file: BinaryIO) -> RareTiff:
    """Read the header of a page that Pillow does not open.

    Args:
        page: the directory.
        file: begins with that directory, see `starting_at`.

    Raises:
        PhotoError: pages of its kind are not supported.
    """
    _check(page)
    file.seek(0)
    directory = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if page.parent.is_bigtiff else 8))
    file.seek(page.offset)
    directory.load(file)
    profile = page.tags.valueof(TAG_ICC_PROFILE)
    return RareTiff(page, file, directory, {} if profile is None else {"icc_profile": bytes(profile)})


def is_deep_color(page: tifffile.TiffPage) -> bool:
    """Return whether a page has more than 8 bits of color, which Pillow would cut to 8; of gray it has 16-bit modes."""
    return bool(page.bitspersample > 8 and page.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO))


def read_samples(page: tifffile.TiffPage, file: BinaryIO) -> Samples:
    """Read all samples of a page at their full depth.

    Raises:
        PhotoError: pages of its kind are not supported.
        ValueError, OSError: the page is damaged.
    """
    _check(page)
    compression = int(page.compression)
    page.compression = UNCOMPRESSED  # tifffile undoes predictor, byte order and tiling; see _decompressed
    planes, _, height_px, width_px, channels = page.shaped
    stored = np.zeros((planes, height_px, width_px, channels), np.dtype(page.dtype))
    for index, (offset, size) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        file.seek(offset)
        data = file.read(size)
        _, _, shape = page.decode(None, index)
        if compression != UNCOMPRESSED:
            data = _decompressed(data, compression, shape[1], shape[2] * shape[3] * stored.itemsize)
        segment, (plane, _, top, left, _), _ = page.decode(data, index)
        if segment is None:
            continue
        rows, columns = min(segment.shape[1], height_px - top), min(segment.shape[2], width_px - left)
        stored[plane, top : top + rows, left : left + columns] = segment[0, :rows, :columns]
    samples = stored[0] if planes == 1 else np.moveaxis(stored[..., 0], 0, 2)
    count = COLOR_CHANNELS[page.photometric]
    extra = tuple(page.extrasamples)
    if not extra and page.photometric == RGB and samples.shape[2] == 4:
        extra = (ALPHA_STRAIGHT,)  # as Pillow reads files that leave the tag out
    kinds = [kind in (ALPHA_PREMULTIPLIED, ALPHA_STRAIGHT) for kind in extra[: samples.shape[2] - count]]
    alpha = samples[..., count + kinds.index(True)] if True in kinds else None
    is_premultiplied = alpha is not None and extra[kinds.index(True)] == ALPHA_PREMULTIPLIED
    return Samples(samples[..., :count], alpha, is_premultiplied, int(page.photometric))


def _check(page: tifffile.TiffPage) -> None:
    """Refuse by name what would be read wrongly, or not at all."""
    kind = None
    sample_format = page.tags.valueof(TAG_SAMPLE_FORMAT)
    if page.photometric not in COLOR_CHANNELS:
        kind = f"photometric {_name(page.photometric)}, {_name(page.bitspersample)} bits"
    elif page.dtype is None or page.bitspersample not in (8, 16, 32, 64) or np.dtype(page.dtype).kind not in "uif":
        kind = f"{_name(page.bitspersample)} bits of sample format {_name(sample_format)}"
    elif page.compression not in (UNCOMPRESSED, *COMPRESSIONS_OF_BYTES) or page.fillorder != 1:
        kind = f"{page.bitspersample} bits, compression {_name(page.compression)}"
    if kind is not None:
        advice = "open it in an editor and save it as an uncompressed 16-bit RGB or gray TIFF"
        raise PhotoError(f"a TIFF of an unsupported kind ({kind}); {advice}")
    if page.samplesperpixel > COLOR_CHANNELS[page.photometric] + MOST_EXTRA_CHANNELS:
        raise PhotoError(f"a TIFF of {page.samplesperpixel} channels; save it with its colors alone")
    if page.samplesperpixel < COLOR_CHANNELS[page.photometric]:
        raise PhotoError("damaged: the TIFF has fewer channels than its colors need; copy it again")
    if page.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) and page.samplesperpixel > 2:
        raise PhotoError(f"a gray TIFF of {page.samplesperpixel} channels; save the one that is the photo as a TIFF")
    if len(page.dataoffsets) != len(page.databytecounts):
        raise PhotoError("damaged: the TIFF's strips do not fit together; copy it again")


def _name(value: Any) -> str:
    """A tag's value for a message: its name in tifffile, else the value, cut if it is damaged and long."""
    return ascii(getattr(value, "name", value))[:LONGEST_VALUE].strip("'")


def _decompressed(data: bytes, compression: int, rows: int, row_bytes: int) -> bytes:
    """The bytes of one strip or tile, through a TIFF that says they are 8-bit gray pixels."""
    directory = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    directory[256], directory[257], directory[258] = row_bytes, rows, 8
    directory[259], directory[262] = compression, BLACK_IS_ZERO
    directory.tagtype[TAG_STRIP_OFFSETS] = TYPE_LONG
    directory[TAG_STRIP_OFFSETS] = 0  # Pillow adds the directory's end
    directory[277], directory[278], directory[279] = 1, rows, len(data)
    file = io.BytesIO()
    directory.save(file)
    file.write(data)
    file.seek(0)
    with Image.open(file, formats=("TIFF",)) as image:
        return image.tobytes()
