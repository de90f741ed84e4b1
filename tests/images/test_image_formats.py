"""Formats people have, damage people meet, and sizes a machine can hold."""

import io
import struct
import sys
import zlib
from typing import Any

import numpy as np
import pytest
import skimage.data
import tifffile
from PIL import Image

from chromatune.errors import MissingExtraError, PhotoError
from chromatune.images import IMAGE_SUFFIXES, MAX_PIXELS, count_pages, format_for, read_photo, suffix_for

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("format", ["JPEG2000", "AVIF", "PPM"])
def test_lossless_files_of_more_formats_give_their_pixels(format, mode, as_file):
    colors = np.random.default_rng(0).integers(0, 256, (40, 64, 4), dtype=np.uint8)
    samples = {"L": colors[..., 0], "RGB": colors[..., :3].copy(), "RGBA": colors}[mode]
    if format == "PPM" and mode == "RGBA":
        pytest.skip("a PPM has no alpha")
    options: dict[str, dict[str, Any]] = {
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
        "JPEG2000": {"irreversible": False},
    }
    photo = read_photo(as_file(Image.fromarray(samples), format, **options.get(format, {})))
    tolerance = 3 if format == "AVIF" else 0
    assert photo.format == format
    assert photo.max_value == 255
    drawn = photo.gray if mode == "L" else np.asarray(photo.rgb)
    assert np.abs(drawn.astype(int) - (samples if mode == "L" else samples[..., :3])).max() <= tolerance
    assert (photo.alpha is not None) == (mode == "RGBA")
    assert suffix_for(None, photo) == ".png"


@pytest.mark.parametrize("kind", ["codestream", "JP2"])
def test_jpeg_2000_with_and_without_a_container(kind, as_file, colors):
    data = as_file(Image.fromarray(colors), "JPEG2000", irreversible=False, no_jp2=kind == "codestream")
    assert data.startswith(b"\xff\x4f" if kind == "codestream" else b"\0\0\0\x0cjP")
    assert np.array_equal(np.asarray(read_photo(data).rgb), colors)


TIFF_COMPRESSIONS = ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd", "group3", "group4", "jpeg"]


@pytest.mark.parametrize("compression", TIFF_COMPRESSIONS)
def test_8_bit_tiffs_of_every_compression(compression, as_file, colors):
    is_fax = compression.startswith("group")
    image = Image.fromarray(colors)
    drawn = image.convert("1") if is_fax else image
    photo = read_photo(
        as_file(drawn, "TIFF", compression=compression, **({"quality": 100} if compression == "jpeg" else {}))
    )
    wanted = np.asarray(drawn.convert("RGB")).astype(int)
    seen = np.dstack([photo.gray] * 3) if photo.rgb is None else photo.rgb
    assert np.abs(seen - wanted).mean() <= (6 if compression == "jpeg" else 0)
    assert (photo.max_value, photo.warnings) == (255, ())


PNM = {
    "P1": (b"P1\n# hand\n3 2\n1 0 1\n0 1 0\n", [[0, 255, 0], [255, 0, 255]]),
    "P2": (b"P2\n3 2\n255\n0 90 255\n1 2 3\n", [[0, 90, 255], [1, 2, 3]]),
    "P3": (b"P3 3 1 255 0 0 0 90 90 90 255 255 255\n", [[0, 90, 255]]),
    "P4": (b"P4\n3 2\n\xa0\x40", [[0, 255, 0], [255, 0, 255]]),
    "P5": (b"P5\n3 1\n255\n\x00\x5a\xff", [[0, 90, 255]]),
    "P6": (b"P6\n2 1\n255\n\x5a\x5a\x5a\xff\xff\xff", [[90, 255]]),
    "Pf": (b"Pf\n2 1\n-1.0\n" + struct.pack("<2f", 0, 1), [[0, 65535]]),
}


@pytest.mark.parametrize("kind", PNM)
def test_every_kind_of_pnm(kind):
    data, gray = PNM[kind]
    assert read_photo(data).gray.tolist() == gray


def bmp(bits, compression, body, *, palette=b"", masks=b"", size=40, height=2, width=2):
    """A BMP with a Windows header of 40 bytes, or an OS/2 one of 12."""
    if size == 12:
        header = struct.pack("<LHHHH", 12, width, height, 1, bits)
    else:
        header = struct.pack("<LllHHLLllLL", size, width, height, 1, bits, compression, len(body), 0, 0, 0, 0)
        header += masks.ljust(size - 40, b"\0") if size > 40 else masks
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<LHHL", start + len(body), 0, 0, start) + header + palette + body


BLACK_AND_WHITE = b"\0\0\0\0\xff\xff\xff\0"
GRAYS = b"".join(bytes([value] * 3 + [0]) for value in range(256))
MASKS_565 = struct.pack("<3L", 0xF800, 0x07E0, 0x001F)
MASKS_ALPHA = struct.pack("<4L", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
# Rows are stored from the bottom: wanted is [[0, 255], [255, 0]]
BMPS = {
    "1 bit": bmp(1, 0, b"\x80\0\0\0\x40\0\0\0", palette=BLACK_AND_WHITE),
    "4 bits": bmp(4, 0, b"\x10\0\0\0\x01\0\0\0", palette=BLACK_AND_WHITE.ljust(64, b"\0")),
    "8 bits": bmp(8, 0, b"\xff\0\0\0\0\xff\0\0", palette=GRAYS),
    "8 bits, run lengths": bmp(8, 1, b"\1\xff\1\0\0\0\1\0\1\xff\0\1", palette=GRAYS),
    "4 bits, run lengths": bmp(4, 2, b"\2\x10\0\0\2\x01\0\1", palette=BLACK_AND_WHITE.ljust(64, b"\0")),
    "16 bits, 555": bmp(16, 0, struct.pack("<4H", 0x7FFF, 0, 0, 0x7FFF)),
    "16 bits, 565": bmp(16, 3, struct.pack("<4H", 0xFFFF, 0, 0, 0xFFFF), masks=MASKS_565),
    "24 bits": bmp(24, 0, b"\xff\xff\xff\0\0\0\0\0" + b"\0\0\0\xff\xff\xff\0\0"),
    "24 bits, top down": bmp(24, 0, b"\0\0\0\xff\xff\xff\0\0" + b"\xff\xff\xff\0\0\0\0\0", height=-2),
    "32 bits": bmp(32, 0, b"\xff\xff\xff\0\0\0\0\0\0\0\0\0\xff\xff\xff\0"),
    "32 bits with alpha": bmp(
        32, 3, b"\xff\xff\xff\x80\0\0\0\x80\0\0\0\x80\xff\xff\xff\x80", masks=MASKS_ALPHA, size=56
    ),
    "OS/2": bmp(8, 0, b"\xff\0\0\0\0\xff\0\0", palette=b"".join(bytes([v] * 3) for v in range(256)), size=12),
    "version 5": bmp(24, 0, b"\xff\xff\xff\0\0\0\0\0" + b"\0\0\0\xff\xff\xff\0\0", size=124),
}


@pytest.mark.parametrize("kind", BMPS)
def test_every_kind_of_bmp(kind):
    photo = read_photo(BMPS[kind])
    assert photo.gray.tolist() == [[0, 255], [255, 0]]
    assert (photo.alpha is not None) == (kind == "32 bits with alpha")
    assert photo.format == "BMP"


def heic(image, **options):
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(image).save(file, quality=-1, chroma=444, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_heic(mode):
    levels = np.tile(np.arange(64, dtype=np.uint8)[None] * 4, (32, 1))
    image = Image.merge(mode, [Image.fromarray(levels)] * len(mode))
    exif = Image.Exif()
    exif[271] = "Apple"
    photo = read_photo(heic(image, exif=exif.tobytes()))
    assert photo.format == "HEIF"
    assert np.abs(photo.gray.astype(int) - levels).max() <= 2
    assert (photo.alpha is not None) == (mode == "RGBA")
    assert b"Apple" in (photo.exif or b"")


HEIC_STARTS = [
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic",
    b"\0\0\0\x18ftyphevc\0\0\0\0heichevc",
]


@pytest.mark.parametrize("start", HEIC_STARTS)
def test_heic_without_its_extra_is_one_line_that_names_it(start, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "phone.heic"
    path.write_bytes(start + bytes(200))
    for call in (read_photo, count_pages):
        with pytest.raises(MissingExtraError) as caught:
            call(path)
        assert isinstance(caught.value, PhotoError)  # a batch goes on
        assert str(caught.value) == f"{path}: reading HEIC needs the extra 'heic': pip install 'chromatune[heic]'"


def test_a_damaged_heic_is_one_line():
    pytest.importorskip("pillow_heif")
    for start in HEIC_STARTS:
        with pytest.raises(PhotoError, match="^photo: "):
            read_photo(start + bytes(200))


def test_suffixes_of_what_is_read():
    suffixes = {".jp2", ".j2k", ".avif", ".heic", ".heif", ".pgm", ".ppm", ".pbm", ".pnm", ".dib"}
    assert suffixes <= IMAGE_SUFFIXES
    assert {format_for(suffix) for suffix in suffixes} == {"JPEG2000", "AVIF", "HEIF", "PPM", "BMP"}


NAMED = {
    "PAM": b"P7\nWIDTH 2\nHEIGHT 2\n",
    "color PFM": b"PF\n2 2\n-1.0\n" + bytes(48),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
    "AVIF": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(100),
}


@pytest.mark.parametrize("name", NAMED)
def test_rare_or_damaged_kinds_are_named(name):
    with pytest.raises(PhotoError, match=f"an? {name}|damaged"):
        read_photo(NAMED[name])


@pytest.fixture(scope="module")
def photo_jpegs():
    """The same real photo as a JPEG, by kind."""
    image = Image.fromarray(skimage.data.astronaut())
    kinds: dict[str, dict[str, Any]] = {
        "baseline": {},
        "gray": {},
        "not subsampled": {"subsampling": 0},
        "restart markers": {"restart_marker_rows": 1},
        "progressive": {"progressive": True},
        "progressive gray": {"progressive": True},
    }
    files = {}
    for kind, options in kinds.items():
        file = io.BytesIO()
        (image.convert("L") if "gray" in kind else image).save(file, "JPEG", quality=90, **options)
        files[kind] = file.getvalue()
    return files


KINDS = ["baseline", "gray", "not subsampled", "restart markers", "progressive", "progressive gray"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", [3, pytest.param(200, marks=pytest.mark.slow), 2000])
def test_a_jpeg_that_lacks_its_end_is_read_with_a_warning(lost, kind, photo_jpegs):
    whole = read_photo(photo_jpegs[kind])
    data = photo_jpegs[kind][:-lost]
    photo = read_photo(data)
    assert len(photo.warnings) == 1
    assert photo.warnings[0].startswith("incomplete file: ")
    assert "copy it again" in photo.warnings[0]
    upper = slice(0, int(0.85 * 512))
    assert np.abs(photo.gray[upper].astype(int) - whole.gray[upper]).max() <= (0 if "prog" not in kind else 40)
    with pytest.raises(PhotoError, match=r"^photo: incomplete file: .*--strict") as caught:
        read_photo(data, strict=True)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.1, pytest.param(0.3, marks=pytest.mark.slow), 0.5])
def test_a_jpeg_that_lacks_much_is_refused(share, kind, photo_jpegs):
    data = photo_jpegs[kind]
    with pytest.raises(PhotoError, match="^photo: (incomplete|damaged)"):
        read_photo(data[: int(share * len(data))])


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_jpeg_has_no_warning_and_passes_strict(kind, photo_jpegs):
    assert read_photo(photo_jpegs[kind], strict=True).warnings == ()
    assert read_photo(photo_jpegs[kind] + b"\0" * 100, strict=True).warnings == ()


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "GIF", "JPEG2000", "AVIF"])
def test_other_formats_that_lack_their_end_are_refused(format, as_file):
    data = as_file(Image.fromarray(skimage.data.astronaut()[:200, 100:350]), format)
    with pytest.raises(PhotoError, match="damaged"):
        read_photo(data[: len(data) * 9 // 10])


def gamma_png(samples, *chunks, **options):
    file = io.BytesIO()
    Image.fromarray(samples).save(file, "PNG", **options)
    data = file.getvalue()
    extra = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    return data[:33] + extra + data[33:]


def gama(value):
    return b"gAMA", struct.pack(">I", round(value * 100_000))


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize(
    "gamma", [1.0, 1 / 1.8, *(pytest.param(gamma, marks=pytest.mark.slow) for gamma in (1 / 3, 2.0))]
)
@pytest.mark.parametrize("kind", ["gray", "color", "palette", "16-bit gray", "16-bit color"])
def test_the_gamma_of_a_png_is_honored(kind, gamma):
    linear = (np.arange(256) / 255) ** (1 / gamma)
    wanted = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    if kind == "16-bit color":
        import cv2

        deep = np.dstack([RAMP, RAMP.T, RAMP[::-1]]).astype(np.uint16) * 257
        data = cv2.imencode(".png", deep[..., ::-1])[1].tobytes()
        chunk = gamma_png(RAMP, gama(gamma))[33:49]
        photo = read_photo(data[:33] + chunk + data[33:])
    else:
        image: dict[str, np.ndarray] = {
            "gray": RAMP,
            "color": np.dstack([RAMP] * 3),
            "palette": RAMP,
            "16-bit gray": RAMP.astype(np.uint16) * 257,
        }
        samples = image[kind]
        if kind == "palette":
            file = io.BytesIO()
            Image.fromarray(samples).convert("P").save(file, "PNG")
            data = file.getvalue()
            photo = read_photo(data[:33] + gamma_png(RAMP, gama(gamma))[33:49] + data[33:])
        else:
            photo = read_photo(gamma_png(samples, gama(gamma)))
    red = photo.gray if photo.rgb is None else photo.rgb[..., 0]
    assert np.abs(red.ravel() / (photo.max_value / 255) - wanted).max() <= 0.51  # gAMA has five digits
    assert photo.icc_profile is None


@pytest.mark.parametrize("value", [0.45455, 0.44, 0.47, 0.0, 40.0])
def test_a_gamma_that_is_nearly_srgb_or_senseless_changes_nothing(value):
    assert np.array_equal(read_photo(gamma_png(RAMP, gama(value))).gray, RAMP)


def test_a_gamma_beside_a_profile_or_the_srgb_chunk_is_ignored():
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(read_photo(gamma_png(RAMP, gama(1), (b"sRGB", b"\0"))).gray, RAMP)
    assert np.array_equal(read_photo(gamma_png(RAMP, gama(1), icc_profile=profile)).gray, RAMP)
    colors = np.dstack([RAMP] * 3)
    assert np.array_equal(read_photo(gamma_png(colors, gama(1), icc_profile=profile)).gray, RAMP)


def test_alpha_has_no_gamma():
    photo = read_photo(gamma_png(np.dstack([RAMP, RAMP, RAMP, RAMP]), gama(1)))
    assert np.array_equal(np.asarray(photo.alpha), RAMP)


def small_file_of_a_huge_picture(format, pixels):
    width, height = 20_000, pixels // 20_000 + 1
    file = io.BytesIO()
    if format == "TIFF":
        tifffile.imwrite(file, shape=(height, width), dtype=np.uint8, compression="zlib", rowsperstrip=height)
        return file.getvalue()
    if format == "float TIFF":
        file.write(small_file_of_a_huge_picture("TIFF", pixels))
        return file.getvalue().replace(struct.pack("<HH", 258, 3), struct.pack("<HH", 258, 3))
    if format == "PPM":
        return b"P6\n%d %d\n255\n" % (width, height)
    if format == "BMP":
        return b"BM" + struct.pack("<LHHLLllHHLLllLL", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")]:
        data += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return data


@pytest.mark.parametrize("format", ["PNG", "PPM", "BMP"])
def test_the_limit_is_said_with_the_option_that_raises_it(format):
    data = small_file_of_a_huge_picture(format, MAX_PIXELS)
    with pytest.raises(PhotoError) as caught:
        read_photo(data)
    message = str(caught.value)
    assert f"the limit is {MAX_PIXELS / 1e6:.1f} million" in message
    assert "--max-megapixels" in message
    assert "max_pixels" in message


def test_the_limit_holds_for_the_chosen_page(as_file):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(np.zeros((40, 60), np.float32), photometric="minisblack", metadata=None)
        writer.write(np.zeros((4, 6, 3), np.float32), photometric="rgb", metadata=None)
    with pytest.raises(PhotoError, match="60 x 40"):
        read_photo(file.getvalue(), max_pixels=1000)
    assert read_photo(file.getvalue(), max_pixels=1000, page=2).gray.shape == (4, 6)
