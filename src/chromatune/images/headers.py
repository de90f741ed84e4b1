"""What a file's header promises, by its bytes alone: libraries read or allocate much before they say it.

Pillow takes a WebP or AVIF into memory to open it, reads a JPEG's junk and a PNM's comment byte by byte, and keeps each
text chunk of a PNG. So sizes are compared here first.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

from chromatune.errors import PhotoError

FILE_ALLOWANCE_BYTES = 128 << 20  # of any file, beside its pixels: text, profiles, previews, a phone's short video
MOST_BYTES_PER_PIXEL = 16  # of a file; 16-bit color with alpha, not compressed, has 8
HEADER_BYTES = 1 << 20  # in which a size must stand
MOST_SEGMENTS = 10_000  # of a JPEG before its pixels
MOST_JUNK_BYTES = 1 << 16  # between them
MOST_CHUNKS, MOST_OTHER_CHUNKS = 1_000_000, 10_000  # of a PNG: all, and those that are not pixels
MOST_TEXT_CHUNK_BYTES = 64 << 20  # of those, together, as they are stored
MOST_PICTURES = 10_000  # of one file
MOST_GIF_BLOCKS = 1_000_000  # of 255 bytes at most

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_2000_SIGNATURES = (b"\0\0\0\x0cjP  \r\n", b"\xff\x4f\xff\x51")  # in boxes, and a bare codestream
MOST_BOXES = 1000
PNG_PIXELS = (b"IDAT", b"fdAT", b"fcTL")
HEIC_PADDING_PX = 63  # whole blocks are coded
JPEG_START_OF_SCAN = 0xDA
JPEG_MARKERS_WITHOUT_LENGTH = {0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)}  # as Pillow has them
GIF_EXTENSION, GIF_PICTURE = 0x21, 0x2C
DAMAGED = "copy it again, or save it again in an image editor"


def largest_file_bytes(pixels: int) -> int:
    """Return how many bytes a file may have whose pictures have so many pixels together."""
    return FILE_ALLOWANCE_BYTES + MOST_BYTES_PER_PIXEL * pixels


def byte_count(file: BinaryIO) -> int:
    """Return the length of a seekable file; its position is the start afterwards."""
    count = file.seek(0, io.SEEK_END)
    file.seek(0)
    return count


def check_bytes(file: BinaryIO, pixels: int) -> None:
    """Check that a file is no longer than its pixels explain; its position is the start afterwards.

    Args:
        file: seekable.
        pixels: of all its pictures.

    Raises:
        PhotoError: it is longer.
    """
    count, limit = byte_count(file), largest_file_bytes(pixels)
    if count > limit:
        raise PhotoError(
            f"the file has {count / 1e6:,.0f} MB, too much for its {pixels / 1e6:.1f} million pixels: expected at most "
            f"{limit / 1e6:,.0f} MB; save it again in an image editor"
        )


def check_header(file: BinaryIO, start: bytes) -> None:
    """Check what a library would read for too long to find a picture's size.

    Args:
        file: seekable; its position is the start afterwards.
        start: its first bytes.

    Raises:
        PhotoError: the size is not where it must be.
    """
    if start.startswith(b"\xff\xd8\xff"):
        _check_jpeg(file)
    elif start[:1] == b"P" and start[1:2] in b"1234567Ff":
        _check_pnm(file)
    file.seek(0)


def is_read_at_once(start: bytes) -> bool:
    """Return whether a library takes a file that begins so into memory, in part or as a whole, to open it."""
    return start.startswith((PNG_SIGNATURE, b"RIFF", *JPEG_2000_SIGNATURES)) or start[4:8] == b"ftyp"


def promised_size(file: BinaryIO, start: bytes) -> tuple[int, int] | None:
    """Return width and height of a file that `is_read_at_once`; None for others, and where its header does not say it.

    Of a HEIC they are those of the coded picture, which may be up to `HEIC_PADDING_PX` longer.

    Args:
        file: seekable; its position is the start afterwards.
        start: its first bytes, at least 32.
    """
    if start.startswith(PNG_SIGNATURE) and len(start) >= 24:
        return struct.unpack_from(">2I", start, 16)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP" and len(start) >= 30:
        return _webp_size(start)
    if start.startswith(JPEG_2000_SIGNATURES):
        return _jpeg_2000_size(file)
    if start[4:8] != b"ftyp":
        return None
    file.seek(0)
    head = file.read(HEADER_BYTES)
    file.seek(0)
    sizes, position = [], head.find(b"ispe")  # ISO/IEC 23008-12, 6.5.3: a box for each size of its pictures
    while 0 <= position <= len(head) - 16:
        sizes.append(struct.unpack_from(">2I", head, position + 8))
        position = head.find(b"ispe", position + 4)
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def has_much_text(file: BinaryIO) -> bool:
    """Return whether a PNG has more chunks beside its pixels than are kept, or longer ones.

    Raises:
        PhotoError: it has too many chunks altogether.
    """
    others = length_of_others = 0
    for number, (kind, length, _) in enumerate(png_chunk_places(file)):
        if number >= MOST_CHUNKS:
            raise PhotoError(f"a PNG of more than {MOST_CHUNKS:,} chunks; {DAMAGED}")
        if kind not in PNG_PIXELS:
            others, length_of_others = others + 1, length_of_others + length
    file.seek(0)
    return others > MOST_OTHER_CHUNKS or length_of_others > MOST_TEXT_CHUNK_BYTES


def png_chunk_places(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, length and position of each chunk of a PNG up to its end."""
    position = len(PNG_SIGNATURE)
    while True:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        yield kind, length, position
        if kind == b"IEND":
            return
        position += 12 + length


def count_gif_frames(file: BinaryIO) -> int:
    """Return the number of pictures in a GIF, counted up to one beyond `MOST_PICTURES` (GIF89a, appendix A)."""
    file.seek(10)
    frames = blocks = 0
    position = 13 + _gif_palette_bytes(file.read(1))
    while frames <= MOST_PICTURES and blocks <= MOST_GIF_BLOCKS:
        file.seek(position)
        head = file.read(10)
        if not head or head[0] not in (GIF_EXTENSION, GIF_PICTURE):
            break
        if head[0] == GIF_PICTURE:
            frames += 1
            position += 11 + _gif_palette_bytes(head[9:10])  # up to the size of the first code
        else:
            position += 2
        file.seek(position)
        while (length := (file.read(1) or b"\0")[0]) and blocks <= MOST_GIF_BLOCKS:
            blocks += 1
            position += 1 + length
            file.seek(position)
        position += 1
    file.seek(0)
    return frames


def count_scans(file: BinaryIO, most: int) -> int:
    """Return the number of scans in a JPEG, those of its thumbnails included; no more than just above `most`."""
    file.seek(0)
    count, last = 0, b""
    while count <= most and (piece := file.read(HEADER_BYTES)):
        count += (last + piece).count(b"\xff\xda")
        last = piece[-1:]
    file.seek(0)
    return count


def _gif_palette_bytes(flags: bytes) -> int:
    packed = flags[0] if flags else 0
    return 3 * 2 ** ((packed & 7) + 1) if packed & 128 else 0


def _webp_size(start: bytes) -> tuple[int, int] | None:
    """Width and height in the first 30 bytes (RFC 9649, 2.5 to 2.7)."""
    kind = start[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(start[24:27], "little"), 1 + int.from_bytes(start[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(start[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<2H", start, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg_2000_size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height in the codestream itself (ITU T.800, A.5.1): its box may say another size."""
    size, position = None, 0
    for _ in range(MOST_BOXES):
        file.seek(position)
        head = file.read(16)
        if position == 0 and head.startswith(JPEG_2000_SIGNATURES[1]):
            position = -8  # as if a box began before it
            head = b"\0\0\0\0jp2c"
        length, kind = struct.unpack_from(">I4s", head.ljust(8, b"\0"))
        if kind == b"jp2c":
            file.seek(position + (16 if length == 1 else 8))
            sizes = file.read(24)
            if sizes.startswith(JPEG_2000_SIGNATURES[1]) and len(sizes) == 24:
                right, bottom, left, top = struct.unpack_from(">4I", sizes, 8)
                size = max(0, right - left), max(0, bottom - top)
            break
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        if length < 8:
            break
        position += length
    file.seek(0)
    return size


def _check_jpeg(file: BinaryIO) -> None:
    position, junk = 2, 0
    for _ in range(MOST_SEGMENTS):
        file.seek(position)
        head = file.read(4)
        if len(head) < 4:
            return
        if head[0] != 0xFF or head[1] in (0x00, 0xFF):
            rest = head[1:] + file.read(MOST_JUNK_BYTES)
            skipped = 1 + rest.find(b"\xff") if b"\xff" in rest else len(rest) + 1
            junk, position = junk + skipped, position + skipped
            if junk > MOST_JUNK_BYTES:
                break
        elif head[1] == JPEG_START_OF_SCAN:
            return
        else:
            position += 2 + (0 if head[1] in JPEG_MARKERS_WITHOUT_LENGTH else max(2, int.from_bytes(head[2:], "big")))
    raise PhotoError(f"a JPEG whose size is not found: too much comes before it; {DAMAGED}")


def _check_pnm(file: BinaryIO) -> None:
    """Check that the header's three or four words end within the first bytes."""
    file.seek(0)
    head = file.read(MOST_JUNK_BYTES)
    words = [word for line in head.splitlines() for word in line.partition(b"#")[0].split()]
    if len(head) == MOST_JUNK_BYTES and len(words) < 4:
        raise PhotoError(f"a PNM whose size is not found: too much comes before it; {DAMAGED}")
