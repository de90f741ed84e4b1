"""What a photo knows about itself: orientation, EXIF and resolution; and its captions: XMP, IPTC, comments and text.

Each is read from any file, and goes into any file that holds it.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags, Image

TAG_ORIENTATION, TAG_EXIF_IFD, TAG_GPS_IFD = 274, int(ExifTags.IFD.Exif), int(ExifTags.IFD.GPSInfo)
TAG_MAKER_NOTE, TAG_COLOR_SPACE, TAG_INTEROPERABILITY = 37500, 40961, 40965
TAG_PIXEL_WIDTH, TAG_PIXEL_HEIGHT = 40962, 40963
COLOR_SPACE_SRGB = 1

TAG_X_RESOLUTION, TAG_Y_RESOLUTION, TAG_RESOLUTION_UNIT = 282, 283, 296
DPI_OF_UNIT = {2: 1.0, 3: 2.54}  # inch and centimeter; 1 says that only the ratio is known

# Document name, description, make, model, page name, software, date, artist, host, rating, copyright, and Windows'
# title, comment, author, keywords and subject. All else in the first directory is about the old file's pixels, or its
# thumbnail.
TAGS_FOR_RESULTS = (269, 270, 271, 272, 285, 305, 306, 315, 316, 18246, 33432, 40091, 40092, 40093, 40094, 40095)

LONGEST_EXIF_BYTES = 65_000  # a JPEG holds EXIF in one segment of 64 KiB

# What Pillow raises on damaged blocks; the photo is read without them
BROKEN_EXIF = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    EOFError,
    struct.error,
)

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

Tags = dict[int, Any]


def orientation_of(image: Any) -> int:
    """Return the EXIF orientation 1..8 still to be applied to a loaded image; Pillow applies a TIFF's by itself."""
    value = _read_exif(image).get(TAG_ORIENTATION)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def tiff_orientation(image: Any) -> int:
    """Return the orientation 1..8 that Pillow will apply by itself when it loads this image: a TIFF's, else 1."""
    value = getattr(image, "tag_v2", {}).get(TAG_ORIENTATION)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Return (H, W) or (H, W, C) samples as the camera saw them, contiguous; width and height swap for 5 to 8."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return np.ascontiguousarray(samples)


def exif_for_results(image: Any, size_px: tuple[int, int], is_srgb: bool) -> bytes | None:
    """Return the EXIF block for results of this image: orientation 1, no thumbnail, sizes true; None if it had none.

    Args:
        image: the loaded source.
        size_px: width and height of the upright photo.
        is_srgb: the colors went through a profile and are sRGB now, whatever the block said.
    """
    tags = _read_exif(image)
    details: Tags = tags.get(TAG_EXIF_IFD, {})
    details.pop(TAG_INTEROPERABILITY, None)  # names Adobe RGB at times
    for tag, side_px in zip((TAG_PIXEL_WIDTH, TAG_PIXEL_HEIGHT), size_px, strict=True):
        if tag in details:
            details[tag] = side_px
    if is_srgb and TAG_COLOR_SPACE in details:
        details[TAG_COLOR_SPACE] = COLOR_SPACE_SRGB
    chosen: Tags = {tag: tags[tag] for tag in (*TAGS_FOR_RESULTS, TAG_EXIF_IFD, TAG_GPS_IFD) if tags.get(tag)}
    if not chosen:
        return None
    chosen[TAG_ORIENTATION] = 1
    block = _pack(chosen)
    if block is None or len(block) > LONGEST_EXIF_BYTES:
        details.pop(TAG_MAKER_NOTE, None)
        block = _pack(chosen)
    return block if block is not None and len(block) <= LONGEST_EXIF_BYTES else None


def tags_of_exif(block: bytes) -> Tags:
    """Return the tags of an EXIF block, sub-directories as dicts, ready to be written into a TIFF's directory."""
    exif = Image.Exif()
    exif.load(block)
    return _as_dict(exif)


def dpi_of(image: Any, orientation: int) -> tuple[float, float] | None:
    """Return the horizontal and vertical resolution of the upright photo, if the file itself says something sensible.

    Pillow makes resolutions up: 1 for a TIFF without, 72 for a JPEG with EXIF and without. So both are read here.
    """
    if image.format == "TIFF":
        dpi = _dpi_of_tags(getattr(image, "tag_v2", {}))
    elif image.format in ("JPEG", "MPO") and image.info.get("jfif_unit") not in (1, 2):
        dpi = _dpi_of_tags(_read_exif(image))
    else:
        dpi = _sensible(image.info.get("dpi")) or _dpi_of_tags(_read_exif(image))
    return dpi if dpi is None or orientation not in (5, 6, 7, 8) else dpi[::-1]


def with_tags(block: bytes | None, additions: Tags) -> bytes | None:
    """Return the EXIF block with those tags added that it does not have; the block itself if they cannot be packed."""
    tags = tags_of_exif(block) if block else {}
    new = {tag: value for tag, value in additions.items() if not tags.get(tag)}
    if not new:
        return block
    packed = _pack({tag: value for tag, value in (tags | new).items() if value})
    return packed if packed is not None and len(packed) <= LONGEST_EXIF_BYTES else block


def _dpi_of_tags(tags: Any) -> tuple[float, float] | None:
    """Resolution from EXIF or TIFF tags; the unit is the inch unless another is given (TIFF 6.0, section 8)."""
    factor = DPI_OF_UNIT.get(tags.get(TAG_RESOLUTION_UNIT, 2))
    horizontal = tags.get(TAG_X_RESOLUTION)
    dpi = _sensible((horizontal, tags.get(TAG_Y_RESOLUTION, horizontal)))
    return None if factor is None or dpi is None else (dpi[0] * factor, dpi[1] * factor)


def _sensible(given: Any) -> tuple[float, float] | None:
    try:
        horizontal, vertical = (float(value) for value in given)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    known = all(math.isfinite(value) and 0 < value < 1e6 for value in (horizontal, vertical))
    return (horizontal, vertical) if known else None


def _read_exif(image: Any) -> Tags:
    try:
        return _as_dict(image.getexif())
    except BROKEN_EXIF:
        return {}


def _as_dict(exif: Image.Exif) -> Tags:
    tags = {tag: _latin_1(value) for tag, value in exif.items()}
    for directory in (TAG_EXIF_IFD, TAG_GPS_IFD):
        tags[directory] = _directory(exif, directory)
    return tags


def _directory(exif: Image.Exif, tag: int) -> Tags:
    """A sub-directory, empty if damaged: the camera's name in the first one is good all the same."""
    given = exif.get(tag)
    try:
        entries = given if isinstance(given, dict) else exif.get_ifd(tag)
    except BROKEN_EXIF:
        return {}
    return {key: _latin_1(value) for key, value in entries.items()}


def _latin_1(value: Any) -> Any:
    """Text as the bytes it was read from: Pillow decodes it as Latin-1, and would write "?" for other than ASCII."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("latin-1", "replace")
    return value


def _pack(tags: Tags) -> bytes | None:
    exif = Image.Exif()
    exif.update(tags)
    try:
        return exif.tobytes()
    except BROKEN_EXIF:  # values of a type that their tag does not have
        return None


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
    """Return the captions of a loaded image.

    Args:
        image: as Pillow, or `tiff`, opened it.
        tiff_page: its directory as tifffile has it, None in other formats.
        is_srgb: its colors went through a profile and are sRGB now, whatever the packet says.
    """
    info, tags = image.info, getattr(image, "tag_v2", {})
    # Pillow keeps the last of several texts with one keyword
    text = {str(key): str(value) for key, value in image.text.items()} if image.format == "PNG" else {}
    xmp = text.pop(XMP_KEYWORD, None) or info.get("xmp") or tags.get(TAG_XMP)
    iptc = _iptc_of_png(text.pop(IPTC_KEYWORD, None))
    if not iptc and isinstance(resources := info.get("photoshop"), dict):
        content = resources.get(RESOURCE_IPTC)
        iptc = content if isinstance(content, bytes) and content else None
    if iptc is None and tiff_page is not None:
        iptc = _iptc_of_tiff(tiff_page)
    return Captions(
        _upright_xmp(xmp, is_srgb),
        iptc,
        _comment(image),
        tuple((keyword, value) for keyword, value in text.items() if not STALE_KEYWORD.match(keyword)),
    )


def tags_beside(captions: Captions, *, with_lines: bool = True) -> dict[int, bytes]:
    """Return PNG texts as EXIF or TIFF tags; comment and texts of other keywords become a missing description.

    Args:
        captions: of the photo.
        with_lines: the file has no other place for a comment.
    """
    known = ((TAGS_OF_KEYWORDS.get(keyword), _one_field(value)) for keyword, value in captions.text)
    tags = {tag: value for tag, value in known if tag is not None and value}
    lines = _other_lines(captions) if with_lines else b""
    return {TAG_DESCRIPTION: lines, **tags} if lines else tags


def jpeg_comment(captions: Captions) -> bytes:
    """Return the comment of a JPEG, with texts whose keyword has no EXIF tag; empty if there is none, or too much."""
    lines = _other_lines(captions)
    return lines if len(lines) <= LONGEST_JPEG_SEGMENT else b""


def _other_lines(captions: Captions) -> bytes:
    """The comment, and texts whose keyword has no tag, a line each."""
    lines = [captions.comment] if captions.comment else []
    lines += [f"{key}: {value}".encode() for key, value in captions.text if key not in TAGS_OF_KEYWORDS]
    return _one_field(b"\n".join(lines))


def jpeg_segments(captions: Captions) -> bytes:
    """Return the APP13 segment that holds IPTC in a JPEG; empty without."""
    if not captions.iptc:
        return b""
    content = PHOTOSHOP_START + _resource(captions.iptc)
    if len(content) > LONGEST_JPEG_SEGMENT:
        return b""
    return b"\xff\xed" + struct.pack(">H", len(content) + 2) + content


def png_chunks_of(captions: Captions) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, content) of each chunk that holds them in a PNG."""
    if captions.xmp is not None:
        yield b"iTXt", XMP_KEYWORD.encode() + b"\0\0\0\0\0" + captions.xmp
    if captions.iptc is not None:
        block = _resource(captions.iptc)
        digits = block.hex().encode()
        rows = [digits[start : start + 72] for start in range(0, len(digits), 72)]
        as_hex = b"\niptc\n%8d\n" % len(block) + b"\n".join(rows) + b"\n"
        yield b"zTXt", IPTC_KEYWORD.encode() + b"\0\0" + zlib.compress(as_hex)
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
