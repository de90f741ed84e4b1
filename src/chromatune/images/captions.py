"""What people wrote about a photo beside EXIF: XMP, IPTC, comments and text, from any file into any that holds it."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

XMP_KEYWORD = "XML:com.adobe.xmp"
IPTC_KEYWORD = "Raw profile type iptc"  # ImageMagick's and exiftool's place for it in a PNG
STALE_KEYWORD = re.compile(r"raw profile type", re.IGNORECASE)  # copies of EXIF and profiles, as they were
ENCODER_NOTES = (b"Created by OpenJPEG",)

PHOTOSHOP_START = b"Photoshop 3.0\0"
RESOURCE_START, RESOURCE_IPTC = b"8BIM", 0x0404
TAG_XMP, TAG_IPTC, TAG_PHOTOSHOP = 700, 33723, 34377
TAG_DESCRIPTION = 270
IPTC_MARKER = b"\x1c"  # begins every record

# PNG keywords (PNG specification, third edition, 11.3.3.2) and the EXIF and TIFF tags that say the same
TAGS_OF_KEYWORDS = {
    "Title": 269,
    "Description": TAG_DESCRIPTION,
    "Author": 315,
    "Copyright": 33432,
    "Software": 305,
}
LONGEST_JPEG_SEGMENT = 65_533
LONGEST_JPEG_XMP = LONGEST_JPEG_SEGMENT - 29

ORIENTATION_IN_XMP = (
    re.compile(rb"(tiff:Orientation\s*=\s*[\"'])\d(?=[\"'])"),
    re.compile(rb"(<tiff:Orientation>\s*)\d(?=\s*</)"),
)
PROFILE_IN_XMP = (
    re.compile(rb"(photoshop:ICCProfile\s*=\s*[\"'])[^\"'<>]*(?=[\"'])"),
    re.compile(rb"(<photoshop:ICCProfile>)[^<>]*(?=</)"),
)
SRGB_IN_XMP = b"sRGB IEC61966-2.1"


@dataclass(frozen=True)
class Captions:
    """What a file says about its photo beside EXIF.

    Attributes:
        xmp: the XMP packet, orientation 1, else None.
        iptc: records of the IPTC Information Interchange Model, else None.
        comment: the comment of a JPEG or GIF, as its bytes, else None.
        text: keywords and texts of a PNG.
    """

    xmp: bytes | None = None
    iptc: bytes | None = None
    comment: bytes | None = None
    text: tuple[tuple[str, str], ...] = ()


def captions_of(image: Any, tiff_page: Any, is_srgb: bool) -> Captions:
    """What a loaded image says.

    Args:
        image: as Pillow, or `tiff`, opened it.
        tiff_page: its directory as tifffile has it, None in other formats.
        is_srgb: its colors went through a profile and are sRGB now, whatever the packet says.
    """
    info, tags = image.info, getattr(image, "tag_v2", {})
    text = _text(image)
    xmp = text.pop(XMP_KEYWORD, None) or info.get("xmp") or tags.get(TAG_XMP)
    iptc = _iptc_of_png(text.pop(IPTC_KEYWORD, None)) or _iptc_of_resources(info.get("photoshop"))
    if iptc is None and tiff_page is not None:
        iptc = _iptc_of_tiff(tiff_page)
    return Captions(
        _upright_xmp(xmp, is_srgb),
        iptc,
        _comment(image),
        tuple((keyword, value) for keyword, value in text.items() if not STALE_KEYWORD.match(keyword)),
    )


def tags_beside(captions: Captions, *, with_lines: bool = True) -> dict[int, bytes]:
    """PNG texts as EXIF or TIFF tags; the comment and texts of other keywords are the description if there is none.

    Args:
        captions: of the photo.
        with_lines: the file has no other place for a comment.
    """
    known = ((TAGS_OF_KEYWORDS.get(keyword), _one_field(value)) for keyword, value in captions.text)
    tags = {tag: value for tag, value in known if tag is not None and value}
    lines = _other_lines(captions) if with_lines else b""
    return {TAG_DESCRIPTION: lines, **tags} if lines else tags


def jpeg_comment(captions: Captions) -> bytes:
    """The comment of a JPEG, with texts whose keyword has no EXIF tag; empty where there is none, or too much."""
    lines = _other_lines(captions)
    return lines if len(lines) <= LONGEST_JPEG_SEGMENT else b""


def _other_lines(captions: Captions) -> bytes:
    """The comment, and texts whose keyword has no tag, a line each."""
    lines = [captions.comment] if captions.comment else []
    lines += [f"{key}: {value}".encode() for key, value in captions.text if key not in TAGS_OF_KEYWORDS]
    return _one_field(b"\n".join(lines))


def jpeg_segments(captions: Captions) -> bytes:
    """The APP13 segment that holds IPTC in a JPEG; empty without."""
    if not captions.iptc:
        return b""
    content = PHOTOSHOP_START + _resource(captions.iptc)
    if len(content) > LONGEST_JPEG_SEGMENT:
        return b""
    return b"\xff\xed" + struct.pack(">H", len(content) + 2) + content


def png_chunks_of(captions: Captions) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of each chunk that holds them in a PNG."""
    if captions.xmp is not None:
        yield b"iTXt", XMP_KEYWORD.encode() + b"\0\0\0\0\0" + captions.xmp
    if captions.iptc is not None:
        yield b"zTXt", IPTC_KEYWORD.encode() + b"\0\0" + zlib.compress(_as_hex(_resource(captions.iptc)))
    if captions.comment is not None and not any(keyword == "Comment" for keyword, _ in captions.text):
        yield _png_text("Comment", _decoded(captions.comment))
    for keyword, value in captions.text:
        yield _png_text(keyword, value)


def _png_text(keyword: str, value: str) -> tuple[bytes, bytes]:
    name = keyword.encode("latin-1", "replace")[:79] or b"Comment"
    value = value.replace("\0", " ")
    try:
        return b"tEXt", name + b"\0" + value.encode("latin-1")
    except UnicodeEncodeError:
        return b"iTXt", name + b"\0\0\0\0\0" + value.encode("utf-8", "replace")


def _text(image: Any) -> dict[str, str]:
    """Texts of a PNG by keyword; a file that holds a text twice keeps the last, as Pillow reads it."""
    return {str(key): str(value) for key, value in getattr(image, "text", {}).items()} if image.format == "PNG" else {}


def _comment(image: Any) -> bytes | None:
    if image.format in ("JPEG", "MPO"):
        comments = [content for name, content in getattr(image, "applist", ()) if name == "COM"]
        comment: Any = b"\n".join(comments)
    else:
        comment = image.info.get("comment", b"") if image.format in ("GIF", "JPEG2000") else b""
    if isinstance(comment, str):
        comment = comment.encode()
    return comment if isinstance(comment, bytes) and comment and not comment.startswith(ENCODER_NOTES) else None


def _upright_xmp(given: Any, is_srgb: bool) -> bytes | None:
    """The packet with what is no longer true put right; None if it is none."""
    xmp = given.encode() if isinstance(given, str) else given
    if not isinstance(xmp, bytes) or b"RDF" not in xmp:
        return None
    for pattern in ORIENTATION_IN_XMP:
        xmp = pattern.sub(rb"\g<1>1", xmp)
    for pattern in PROFILE_IN_XMP if is_srgb else ():
        xmp = pattern.sub(rb"\g<1>" + SRGB_IN_XMP, xmp)
    return xmp.rstrip(b"\0")


def _iptc_of_resources(resources: Any) -> bytes | None:
    content = resources.get(RESOURCE_IPTC) if isinstance(resources, dict) else None
    return content if isinstance(content, bytes) and content else None


def _iptc_of_tiff(page: Any) -> bytes | None:
    """The tag's bytes as they lie in the file: many writers call them 32-bit numbers, of which Pillow reads one."""
    file = page.parent.filehandle
    for tag in (TAG_IPTC, TAG_PHOTOSHOP):
        if tag in page.tags:
            file.seek(page.tags[tag].valueoffset)
            value = file.read(page.tags[tag].valuebytecount)
            if tag == TAG_PHOTOSHOP:
                return _iptc_of_block(value)
            if value[:1] != IPTC_MARKER and value[3:4] == IPTC_MARKER:
                value = np.frombuffer(value[: len(value) // 4 * 4], ">u4").astype("<u4").tobytes()
            if value[:1] == IPTC_MARKER:
                return value
    return None


def _iptc_of_block(block: bytes) -> bytes | None:
    """The IPTC resource among Photoshop's image resources (8BIM, number, padded name, size, content)."""
    position = 0
    while block[position : position + 4] == RESOURCE_START and position + 12 <= len(block):
        number = struct.unpack_from(">H", block, position + 4)[0]
        start = position + 6 + (block[position + 6] + 2) // 2 * 2
        if start + 4 > len(block):
            return None
        size = struct.unpack_from(">L", block, start)[0]
        if number == RESOURCE_IPTC:
            return block[start + 4 : start + 4 + size] or None
        position = start + 4 + (size + 1) // 2 * 2
    return None


def _resource(iptc: bytes) -> bytes:
    return RESOURCE_START + struct.pack(">HHL", RESOURCE_IPTC, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)


def _as_hex(block: bytes) -> bytes:
    digits = block.hex().encode()
    rows = [digits[start : start + 72] for start in range(0, len(digits), 72)]
    return b"\niptc\n%8d\n" % len(block) + b"\n".join(rows) + b"\n"


def _iptc_of_png(text: str | None) -> bytes | None:
    try:
        block = bytes.fromhex("".join((text or "").split()[2:]))
    except ValueError:
        return None
    return _iptc_of_block(block) if block.startswith(RESOURCE_START) else block or None


def _one_field(value: str | bytes) -> bytes:
    """Text as an ASCII tag or JPEG comment holds it: no null character but the last."""
    return (value.encode() if isinstance(value, str) else value).replace(b"\0", b" ").strip()


def _decoded(comment: bytes) -> str:
    try:
        return comment.decode().rstrip("\0")
    except UnicodeDecodeError:
        return comment.decode("latin-1").rstrip("\0")
