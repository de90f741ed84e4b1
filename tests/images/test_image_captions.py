"""What a file says is kept in every format that can hold it, and what it does not say is not made up."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from chromatune.images import Captions, Photo, count_pages, count_pixels, decoding, encode_photo, read_photo

pytestmark = pytest.mark.filterwarnings("error")

WRITTEN = ["JPEG", "PNG", "TIFF", "WEBP"]
DESCRIPTION, DOCUMENT_NAME, PAGE_NAME, ARTIST, COPYRIGHT, SOFTWARE = 270, 269, 285, 315, 33432, 305
XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>'
    b"<rdf:Description dc:title='Gro\xc3\x9fmutter'/></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
)
IPTC = b"\x1c\x02\x78\x00\x0cWedding 1931\x1c\x02\x5a\x00\x06Berlin"


def again(photo, format):
    """The photo written in a format and read again."""
    return read_photo(encode_photo(np.dstack([photo.gray] * 3), photo, format))


def png_with(*chunks):
    file = io.BytesIO()
    Image.new("L", (6, 5), 90).save(file, "PNG")
    data = file.getvalue()
    extra = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    return data[:33] + extra + data[33:]


def tiff_with(*tags, **options):
    file = io.BytesIO()
    array = np.full((5, 6), 90, np.uint8)
    tifffile.imwrite(file, array, photometric="minisblack", metadata=None, software=False, extratags=tags, **options)
    return file.getvalue()


def ascii_tag(tag, text):
    return (tag, 2, len(text.encode()) + 1, text.encode(), True)


def jpeg_with(*segments, **options):
    file = io.BytesIO()
    Image.new("L", (16, 16), 90).save(file, "JPEG", **options)
    data = file.getvalue()
    extra = b"".join(
        bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content for marker, content in segments
    )
    return data[:2] + extra + data[2:]


def photoshop(iptc):
    other = b"8BIM\x03\xed\0\0\0\0\0\x10" + bytes(16)
    padded = iptc + b"\0" * (len(iptc) % 2)
    return b"Photoshop 3.0\0" + other + b"8BIM\x04\x04\0\0" + struct.pack(">L", len(iptc)) + padded


def iptc_png_text(iptc):
    block = photoshop(iptc)[14:].hex().encode()
    return b"Raw profile type iptc\0\0" + zlib.compress(b"\niptc\n%8d\n" % (len(block) // 2) + block)


WITH_XMP = {
    "JPEG": lambda: jpeg_with((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)),
    "PNG": lambda: png_with((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
    "TIFF": lambda: tiff_with((700, 1, len(XMP), XMP, True)),
    "float TIFF": lambda: float_tiff((700, 1, len(XMP), XMP, True)),
    "WEBP": lambda: saved("WEBP", xmp=XMP, lossless=True),
    "AVIF": lambda: saved("AVIF", xmp=XMP),
}
WITH_IPTC = {
    "JPEG": lambda: jpeg_with((0xED, photoshop(IPTC))),
    "PNG": lambda: png_with((b"zTXt", iptc_png_text(IPTC))),
    "TIFF": lambda: tiff_with((33723, 7, len(IPTC), IPTC, True)),
    "TIFF, as numbers": lambda: tiff_with((33723, 4, 9, struct.unpack("<9L", IPTC.ljust(36, b"\0")), True)),
    "TIFF, as swapped numbers": lambda: tiff_with(
        (33723, 4, 9, struct.unpack("<9L", IPTC.ljust(36, b"\0")), True), byteorder=">"
    ),
    "TIFF, Photoshop": lambda: tiff_with((34377, 1, len(photoshop(IPTC)) - 14, photoshop(IPTC)[14:], True)),
    "float TIFF": lambda: float_tiff((33723, 7, len(IPTC), IPTC, True)),
}


def saved(format, **options):
    file = io.BytesIO()
    Image.new("RGB", (32, 16), (90, 90, 90)).save(file, format, **options)
    return file.getvalue()


def float_tiff(*tags):
    file = io.BytesIO()
    rgb = np.full((5, 6, 3), 0.25, np.float32)
    tifffile.imwrite(file, rgb, photometric="rgb", metadata=None, software=False, extratags=tags)
    return file.getvalue()


@pytest.mark.parametrize("target", WRITTEN)
@pytest.mark.parametrize("source", WITH_XMP)
def test_xmp_is_kept(source, target):
    photo = read_photo(WITH_XMP[source]())
    assert photo.captions.xmp == XMP
    assert again(photo, target).captions.xmp == XMP


@pytest.mark.parametrize("target", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("source", WITH_IPTC)
def test_iptc_is_kept(source, target):
    photo = read_photo(WITH_IPTC[source]())
    assert (photo.captions.iptc or b"").rstrip(b"\0") == IPTC
    assert again(photo, target).captions.iptc.rstrip(b"\0") == IPTC
    assert again(photo, "WEBP").captions.iptc is None  # has no place for it


@pytest.mark.parametrize(
    "form", [b'tiff:Orientation="6"', b"tiff:Orientation = '8'", b"<tiff:Orientation>3</tiff:Orientation>"]
)
def test_xmp_of_an_upright_result_does_not_turn_it(form):
    packet = XMP.replace(b"dc:title", form + b" dc:title")
    kept = read_photo(png_with((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet))).captions.xmp
    assert kept is not None
    assert kept == packet.replace(b"6", b"1", 1).replace(b"'8'", b"'1'").replace(b">3<", b">1<") or b"1" in kept
    assert not any(old in kept for old in (b'"6"', b"'8'", b">3<"))


def test_what_is_no_xmp_is_skipped():
    assert read_photo(png_with((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0nothing"))).captions.xmp is None


@pytest.mark.parametrize(
    "comment", [b"Grandmother, 1931", "Großmutter, 1931".encode(), b"Gro\xdfmutter", b"two\nlines"]
)
def test_a_jpeg_comment_is_kept(comment):
    photo = read_photo(jpeg_with((0xFE, comment)))
    assert photo.captions.comment == comment
    assert again(photo, "JPEG").captions.comment == comment
    text = comment.decode("utf-8" if b"\xc3" in comment else "latin-1")
    assert dict(again(photo, "PNG").captions.text)["Comment"] == text
    for format in ("TIFF", "WEBP"):
        assert raw_tag(again(photo, format), DESCRIPTION) == comment


def raw_tag(photo, tag):
    exif = Image.Exif()
    exif.load(photo.exif)
    value = exif[tag]
    return value if isinstance(value, bytes) else value.encode("latin-1")


def test_all_comments_of_a_jpeg_are_kept():
    photo = read_photo(jpeg_with((0xFE, b"first"), (0xFE, b"second")))
    assert photo.captions.comment == b"first\nsecond"


def test_a_gif_comment_is_kept(as_file):
    photo = read_photo(as_file(Image.new("L", (6, 5), 90), "GIF", comment=b"Grandmother"))
    assert dict(again(photo, "PNG").captions.text) == {"Comment": "Grandmother"}


TEXTS = {"Title": "Wedding", "Description": "Großmutter 写真", "Author": "Atelier Löwe", "Inventory": "1931/001"}


def png_with_texts(texts):
    info = PngImagePlugin.PngInfo()
    for index, (keyword, text) in enumerate(texts.items()):
        if text.isascii():
            info.add_text(keyword, text, zip=index % 2 == 0)
        else:
            info.add_itxt(keyword, text, zip=index % 2 == 0)
    return saved("PNG", pnginfo=info)


def test_png_text_is_kept():
    photo = read_photo(png_with_texts(TEXTS))
    assert dict(photo.captions.text) == TEXTS
    assert dict(again(photo, "PNG").captions.text) == TEXTS


@pytest.mark.parametrize("target", ["JPEG", "TIFF", "WEBP"])
def test_png_text_becomes_tags_elsewhere(target):
    back = again(read_photo(png_with_texts(TEXTS)), target)
    assert raw_tag(back, DOCUMENT_NAME) == b"Wedding"
    assert raw_tag(back, DESCRIPTION).decode() == TEXTS["Description"]
    assert raw_tag(back, ARTIST).decode() == TEXTS["Author"]
    if target == "JPEG":
        assert back.captions.comment == b"Inventory: 1931/001"


@pytest.mark.parametrize("target", ["TIFF", "WEBP"])
def test_png_text_without_a_tag_is_the_description_where_there_is_none(target):
    back = again(read_photo(png_with_texts({"Inventory": "1931/001", "Album": "3"})), target)
    assert raw_tag(back, DESCRIPTION) == b"Inventory: 1931/001\nAlbum: 3"


TIFF_TAGS = {
    DOCUMENT_NAME: "Album 3",
    PAGE_NAME: "Leaf 12",
    DESCRIPTION: "Großmutter",
    ARTIST: "Löwe",
    COPYRIGHT: "none",
}


@pytest.mark.parametrize("target", WRITTEN)
@pytest.mark.parametrize("make", [tiff_with, float_tiff])
def test_tiff_texts_are_kept(make, target):
    photo = read_photo(make(*(ascii_tag(tag, text) for tag, text in TIFF_TAGS.items())))
    for tag, text in TIFF_TAGS.items():
        assert raw_tag(photo, tag).decode() == text
        assert raw_tag(again(photo, target), tag).decode() == text


def test_a_tag_that_the_photo_has_is_not_replaced_by_text():
    photo = read_photo(tiff_with(ascii_tag(DESCRIPTION, "its own")))
    photo = Photo(photo.gray, exif=photo.exif, captions=Captions(comment=b"other", text=(("Title", "new"),)))
    back = again(photo, "TIFF")
    assert raw_tag(back, DESCRIPTION) == b"its own"
    assert raw_tag(back, DOCUMENT_NAME) == b"new"


@pytest.mark.parametrize("target", WRITTEN)
def test_captions_too_long_for_a_format_do_not_cost_the_result(target):
    huge = XMP.replace(b"Gro", b"x" * 70_000)
    captions = Captions(huge, IPTC * 4000, b"c" * 70_000, (("Title", "t" * 70_000),))
    back = again(Photo(np.full((5, 6), 90, np.uint8), captions=captions), target)
    assert back.captions.xmp == (None if target == "JPEG" else huge)


@pytest.mark.parametrize("size", [1_100_000, pytest.param(5_000_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"iTXt, zipped"])
def test_png_text_over_a_megabyte_is_read(kind, size):
    text = b"x" * size
    content = {
        b"tEXt": b"Long\0" + text,
        b"zTXt": b"Long\0\0" + zlib.compress(text),
        b"iTXt": b"Long\0\0\0\0\0" + text,
        b"iTXt, zipped": b"Long\0\1\0\0\0" + zlib.compress(text),
    }[kind]
    photo = read_photo(png_with((kind[:4], content)))
    assert (photo.gray == 90).all()
    assert dict(photo.captions.text) == {"Long": text.decode()}
    assert photo.warnings == ()


@pytest.mark.parametrize("limit_mb", [2, pytest.param(64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_png_text_without_end_is_skipped_and_the_photo_read(kind, limit_mb, monkeypatch):
    assert decoding.LONGEST_TEXT_BYTES == 64 << 20  # as the warning says
    monkeypatch.setattr(decoding, "LONGEST_TEXT_BYTES", limit_mb << 20)
    bomb = b"Long\0\0" + zlib.compress(bytes((limit_mb << 20) * 11 // 10))
    png = png_with((kind, bomb))
    photo = read_photo(png)
    assert (photo.gray == 90).all()
    assert len(photo.warnings) == 1
    assert "skipped" in photo.warnings[0]
    assert (count_pages(png), count_pixels(png)) == (1, photo.gray.size)


def exif_with(**tags):
    exif = Image.Exif()
    exif[271] = "Leica"
    exif.update({int(tag[1:]): value for tag, value in tags.items()})
    return exif


NO_RESOLUTION = {
    "TIFF": lambda: without_resolution(tiff_with()),
    "TIFF, ratio alone": lambda: tiff_with(resolution=(2, 1), resolutionunit=1),
    "float TIFF": lambda: without_resolution(float_tiff()),
    "JPEG": lambda: saved("JPEG"),
    "JPEG with EXIF": lambda: saved("JPEG", exif=exif_with()),
    "PNG": lambda: saved("PNG"),
    "PNG with EXIF": lambda: saved("PNG", exif=exif_with()),
    "WEBP with EXIF": lambda: saved("WEBP", exif=exif_with()),
    "BMP": lambda: saved("BMP")[:38] + bytes(8) + saved("BMP")[46:],
    "GIF": lambda: saved("GIF"),
    "AVIF": lambda: saved("AVIF"),
    "JPEG2000": lambda: saved("JPEG2000"),
}


def without_resolution(data):
    """The TIFF with its resolution tags given numbers that mean nothing: tifffile always writes some."""
    for tag in (282, 283, 296):
        data = data.replace(
            struct.pack("<HH", tag, 3 if tag == 296 else 5), struct.pack("<HH", 65000 + tag, 3 if tag == 296 else 5)
        )
    return data


@pytest.mark.parametrize("source", NO_RESOLUTION)
def test_a_resolution_is_not_made_up(source):
    photo = read_photo(NO_RESOLUTION[source]())
    assert photo.dpi is None
    for target in (*WRITTEN, "BMP"):
        assert again(photo, target).dpi is None or target == "BMP"
    with tifffile.TiffFile(io.BytesIO(encode_photo(np.dstack([photo.gray] * 3), photo, "TIFF"))) as file:
        assert not {282, 283, 296} & set(file.pages.first.tags.keys())


RESOLUTION = {
    "TIFF": lambda: tiff_with(resolution=(300, 600), resolutionunit=2),
    "TIFF, centimeters": lambda: tiff_with(resolution=(300 / 2.54, 600 / 2.54), resolutionunit=3),
    "float TIFF": lambda: resolved_float_tiff(),
    "JPEG, EXIF alone": lambda: saved("JPEG", exif=exif_with(_282=300.0, _283=600.0, _296=2)),
    "PNG": lambda: saved("PNG", dpi=(300, 600)),
    "PNG, EXIF alone": lambda: saved("PNG", exif=exif_with(_282=300.0, _283=600.0, _296=2)),
    "WEBP, EXIF alone": lambda: saved("WEBP", exif=exif_with(_282=300.0, _283=600.0, _296=2)),
    "AVIF, EXIF alone": lambda: saved("AVIF", exif=exif_with(_282=300.0, _283=600.0)),
    "BMP": lambda: saved("BMP", dpi=(300, 600)),
}


def resolved_float_tiff():
    file = io.BytesIO()
    tifffile.imwrite(
        file, np.full((5, 6, 3), 0.25, np.float32), photometric="rgb", resolution=(300, 600), resolutionunit=2
    )
    return file.getvalue()


@pytest.mark.parametrize("target", [*WRITTEN, "BMP"])
@pytest.mark.parametrize("source", RESOLUTION)
def test_a_resolution_that_the_file_gives_is_kept(source, target):
    photo = read_photo(RESOLUTION[source]())
    assert photo.dpi == pytest.approx((300, 600), abs=0.1)
    assert again(photo, target).dpi == pytest.approx((300, 600), abs=0.1)
