"""What FFmpeg does not write into containers: how a video was made, and the shape of Matroska's pixels."""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import asdict, fields
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from chromatune.errors import VideoError, printable
from chromatune.files import open_regular
from chromatune.images import COMPOSITE, Provenance, provenance_of
from chromatune.video.opening import open_container, require_av

BOX_SUFFIXES = (".mp4", ".m4v", ".mov")  # made of boxes
MOST_BOXES = 10_000  # outermost ones
LONGEST_XMP_BYTES = 1 << 20
TAG_PREFIX = "CHROMATUNE_"
XMP_UUID = uuid.UUID("be7acfcb-97a9-42e8-9c71-999491e3afac").bytes

# Matroska (RFC 9559)
SEGMENT, TRACKS, CLUSTER = 0x18538067, 0x1654AE6B, 0x1F43B675
CHECKSUM = bytes((0xBF, 0x84))  # the element CRC-32, of four bytes, little-endian
SHAPE_TAGS = {"stereo_mode": "mono"}  # of the picture's stream: FFmpeg then writes these two elements
NO_SHAPE = bytes.fromhex("53b88100 54b28104")  # StereoMode mono, DisplayUnit unknown
LARGEST_SIDE_PX = 0xFFFF  # of a DisplayWidth of two bytes


def video_provenance(path: Path) -> Provenance | None:
    """Return what a video's file says of how it was made; None where it says nothing.

    Raises:
        VideoError: it cannot be read.
    """
    name = printable(str(path))
    try:
        if path.suffix.lower() in BOX_SUFFIXES:
            with open_regular(path) as file:
                return provenance_of(_xmp_of_boxes(file))
        require_av()
        with open_container(path, None) as container:
            tags = {key.upper(): value for key, value in container.metadata.items()}
    except OSError as error:  # FFmpeg's are of this kind, too
        raise VideoError(f"{name}: cannot be read ({error.strerror})") from None
    found = {each.name: tags.get(TAG_PREFIX + each.name.upper(), "") for each in fields(Provenance)}
    return Provenance(**found) if any(found.values()) else None


def _xmp_of_boxes(file: BinaryIO) -> bytes | None:
    """Return the XMP packet among the outermost boxes of an MP4 or MOV (ISO 14496-12, 4.2)."""
    for _ in range(MOST_BOXES):
        start, header = file.tell(), file.read(16)
        if len(header) < 8:
            return None
        size, kind = struct.unpack(">I4s", header[:8])
        long = size == 1 and len(header) == 16
        if long:
            (size,) = struct.unpack(">Q", header[8:])
        if kind == b"uuid" and 24 <= size <= LONGEST_XMP_BYTES:
            file.seek(start + 8)
            content = file.read(size - 8)
            if content.startswith(XMP_UUID):
                return content.removeprefix(XMP_UUID)
        if size < (16 if long else 8):  # 0 is one up to the end
            return None
        file.seek(start + size)
    return None


def xmp_box(packet: bytes) -> bytes:
    """Return the box that holds an XMP packet at the end of an MP4 or MOV (XMP specification, part 3, 1.2.7)."""
    return struct.pack(">I4s", 24 + len(packet), b"uuid") + XMP_UUID + packet


def tags_of(provenance: Provenance) -> dict[str, str]:
    """Return a provenance as Matroska's tags."""
    tags = {TAG_PREFIX + name.upper(): value for name, value in asdict(provenance).items() if value}
    return {"DIGITAL_SOURCE_TYPE": COMPOSITE, **tags}


def write_matroska_shape(file: BinaryIO, width_px: int, aspect: Fraction) -> None:
    """Write the shape of the pixels into a Matroska file whose picture's stream had `SHAPE_TAGS`.

    PyAV does not hand it to FFmpeg's writer. Elements without meaning are replaced, byte for byte, by DisplayWidth
    and an empty Void; DisplayHeight is, if absent, the picture's height.

    Args:
        file: to read and write.
        width_px: of the picture.
        aspect: width of a pixel over its height.
    """
    shown_px = round(width_px * aspect)
    for identity, start, size in _elements(file):
        if identity != TRACKS:
            continue
        file.seek(start)
        tracks = file.read(size)
        if tracks.count(NO_SHAPE) != 1 or not 0 < shown_px <= LARGEST_SIDE_PX:
            return
        tracks = tracks.replace(NO_SHAPE, struct.pack(">HBHH", 0x54B0, 0x82, shown_px, 0xEC81) + b"\0")
        if tracks.startswith(CHECKSUM):
            tracks = CHECKSUM + struct.pack("<I", zlib.crc32(tracks[6:])) + tracks[6:]
        file.seek(start)
        file.write(tracks)
        return


def _elements(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Yield ID, start of the content, and size of the outermost elements of a Matroska file and of its segment."""
    file.seek(0)
    while (lead := file.read(1)) and lead[0]:
        identity = int.from_bytes(lead + file.read(8 - lead[0].bit_length()), "big")
        first = file.read(1)
        if not first or not first[0]:
            return
        length = 9 - first[0].bit_length()
        size = int.from_bytes(bytes([first[0] & (0xFF >> length)]) + file.read(length - 1), "big")
        start = file.tell()
        if identity == CLUSTER:
            return
        if identity != SEGMENT:
            yield identity, start, size
            file.seek(start + size)
