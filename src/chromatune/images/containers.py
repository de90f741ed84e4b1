"""Which picture of a file is the photo: pages of a TIFF, frames of an animation, pictures of a JPEG or HEIC."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image, UnidentifiedImageError

from chromatune.errors import PhotoError
from chromatune.images import decoding, identification, tiff

if TYPE_CHECKING:
    import tifffile

MPO_THUMBNAIL = "Large Thumbnail"  # how Pillow's names of such pictures begin (CIPA DC-007, 5.2.3.3.1)
TAG_MPO_ENTRIES = 0xB002


@dataclass
class Picture:
    """One picture of a file, opened and not decoded yet.

    Attributes:
        image: its header.
        file: what it was opened from; in a TIFF, its directory is the first one there.
        tiff_page: its directory, if the file is a TIFF that could be read so far.
        page: its number, from 1.
        pages: how many pictures the file holds.
    """

    image: Image.Image | tiff.RareTiff
    file: BinaryIO
    tiff_page: tifffile.TiffPage | None = None
    page: int = 1
    pages: int = 1

    @property
    def warning(self) -> str | None:
        """One line, if there are pictures that are left unread."""
        if self.pages == 1:
            return None
        return f"holds {self.pages} pictures, and number {self.page} is read; name another one with --page (page=)"


@contextmanager
def open_picture(file: BinaryIO, page: int | None = None) -> Iterator[Picture]:
    """The photo among the pictures of a file.

    Args:
        file: seekable, at its start.
        page: number of the picture, from 1; by default the largest page of a TIFF that is no smaller copy of another
            one (the first of equals), and the first or primary picture elsewhere.

    Raises:
        PhotoError: it is no picture of a known kind, or has no such page.
    """
    start = file.read(identification.START_BYTES)
    file.seek(0)
    if not start:
        raise PhotoError("the file is empty (0 bytes); copy or download it again")
    kind = identification.camera_raw_kind(start)
    if kind is not None:
        raise identification.refuse_camera_raw(kind)
    with ExitStack() as stack:
        if identification.is_tiff(start):
            pages = stack.enter_context(tiff.opened(file))
            tiff.refuse_camera_raws(pages)
            if pages:
                yield _tiff_picture(file, pages, page, stack)
                return
        try:
            image = decoding.open_heif(file) if identification.is_heif(start) else decoding.open_image(file)
        except UnidentifiedImageError:
            raise identification.refuse_unidentified(start) from None
        yield _chosen(Picture(stack.enter_context(image), file), page)


def frame_numbers(image: Image.Image) -> list[int]:
    """Index of each picture that is one of its own: all frames but the thumbnails of a JPEG."""
    indices = range(getattr(image, "n_frames", 1))
    entries = (getattr(image, "mpinfo", None) or {}).get(TAG_MPO_ENTRIES, ())
    if image.format != "MPO" or len(entries) != len(indices):
        return list(indices)
    kinds = [str(entry["Attribute"]["MPType"]) for entry in entries]
    return [index for index in indices if index == 0 or not kinds[index].startswith(MPO_THUMBNAIL)]


def check_page(page: int | None, count: int) -> None:
    """Nothing, for a page that is there, or None.

    Raises:
        PhotoError: there is no such page.
    """
    if page is not None and not 1 <= page <= count:
        there = "the only picture is number 1" if count == 1 else f"the pictures are numbers 1 to {count}"
        raise PhotoError(f"has no page {str(page)[:20]}; {there}")


def _chosen(picture: Picture, page: int | None) -> Picture:
    image: Any = picture.image
    numbers = frame_numbers(image)
    check_page(page, len(numbers))
    picture.pages = len(numbers)
    at_first = image.tell() if len(numbers) > 1 else 0  # a HEIC opens at its primary picture, all others at the first
    index = at_first if page is None else numbers[page - 1]
    if index != at_first:
        image.seek(index)
    picture.page = numbers.index(index) + 1 if index in numbers else 1
    return picture


def _tiff_picture(file: BinaryIO, pages: list[tifffile.TiffPage], page: int | None, stack: ExitStack) -> Picture:
    full = tiff.full_pages(pages)
    check_page(page, len(full))
    sizes = [int(candidate.imagewidth) * int(candidate.imagelength) for candidate in full]
    number = sizes.index(max(sizes)) + 1 if page is None else page
    chosen = full[number - 1]
    own = tiff.starting_at(file, chosen.offset)
    try:
        image: Image.Image | tiff.RareTiff = stack.enter_context(decoding.open_image(own))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, struct.error):
        image = tiff.as_rare(chosen, own)
    return Picture(image, own, chosen, number, len(full))
