"""More than 8 bits stay more than 8 bits, or are refused by name, whatever the kind of file."""

import io
import struct

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from chromatune.errors import PhotoError
from chromatune.images import read_photo

pytestmark = pytest.mark.filterwarnings("error")

ORIENTATION = 274


def tiff(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def lzw(array, photometric, extra=(), predictor=1, order="<", compression=("tiff_lzw", 5)):
    """A TIFF of LZW strips, whose bytes Pillow's libtiff has packed: tifffile writes no LZW by itself."""
    height, width, channels = array.shape
    stored = array.copy()
    if predictor == 2:
        stored[:, 1:] -= array[:, :-1]
    raw = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    packed = io.BytesIO()
    Image.frombytes("L", (len(raw) // height, height), raw).save(packed, "TIFF", compression=compression[0])
    packed.seek(0)
    with tifffile.TiffFile(packed) as file:
        page = file.pages.first
        strips = [
            packed.getvalue()[at : at + size] for at, size in zip(page.dataoffsets, page.databytecounts, strict=True)
        ]
        rows = page.rowsperstrip
    body, position, offsets = b"", 8, []
    for strip in strips:
        offsets.append(position + len(body))
        body += strip
    entries = [
        (256, [width]),
        (257, [height]),
        (258, [array.dtype.itemsize * 8] * channels),
        (259, [compression[1]]),
        (262, [photometric]),
        (273, offsets),
        (277, [channels]),
        (278, [rows]),
        (279, [len(strip) for strip in strips]),
        (317, [predictor]),
    ]
    entries += [(338, list(extra))] if extra else []
    directory_at = 8 + len(body)
    values_at = directory_at + 2 + 12 * len(entries) + 4
    directory, values = struct.pack(order + "H", len(entries)), b""
    for tag, numbers in entries:
        packed_numbers = struct.pack(f"{order}{len(numbers)}L", *numbers)
        if len(numbers) == 1:
            directory += struct.pack(order + "HHL", tag, 4, 1) + packed_numbers
        else:
            directory += struct.pack(order + "HHLL", tag, 4, len(numbers), values_at + len(values))
            values += packed_numbers
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(order + "L", directory_at) + body + directory + b"\0" * 4 + values


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_tiffs_with_lzw_keep_every_bit(channels, predictor, order, deep_colors):
    samples = np.dstack([deep_colors, deep_colors[::-1, :, 0]])[..., -channels:]
    extra = () if channels == 3 else (2,)
    photo = read_photo(lzw(samples, 1 if channels == 2 else 2, extra, predictor, order))
    assert np.array_equal(
        photo.gray if channels == 2 else np.asarray(photo.rgb), samples[..., 0] if channels == 2 else samples[..., :3]
    )
    assert (photo.alpha is None) if channels == 3 else np.array_equal(np.asarray(photo.alpha), samples[..., -1])


@pytest.mark.parametrize(
    "compression", [("packbits", 32773), ("zstd", 50000), ("lzma", 34925), ("tiff_adobe_deflate", 8)]
)
def test_16_bit_tiffs_of_other_compressions_keep_every_bit(compression, deep_colors):
    assert np.array_equal(np.asarray(read_photo(lzw(deep_colors, 2, compression=compression)).rgb), deep_colors)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_color_of_10_to_14_bits_is_refused_by_name(bits, deep_colors):
    data = tiff(deep_colors, photometric="rgb").replace(struct.pack("<3H", 16, 16, 16), struct.pack("<3H", *[bits] * 3))
    with pytest.raises(PhotoError, match=f"unsupported kind .{bits} bits"):
        read_photo(data)


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}, {"tile": (16, 16)}, {"byteorder": ">"}],
    ids=str,
)
@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha"])
def test_16_bit_gray_with_alpha(extra, options, deep_colors):
    alpha = np.full(deep_colors.shape[:2], 32768, np.uint16)
    gray = deep_colors[..., 0] // 2
    photo = read_photo(tiff(np.dstack([gray, alpha]), photometric="minisblack", extrasamples=[extra], **options))
    assert photo.gray.dtype == np.asarray(photo.alpha).dtype == np.uint16
    wanted = gray if extra == "unassalpha" else gray * (65535 / 32768)
    assert np.abs(photo.gray - wanted).max() <= 1
    assert np.array_equal(np.asarray(photo.alpha), alpha)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"planarconfig": "separate"}], ids=str)
def test_float_color_of_0_to_1_becomes_16_bit(options, dtype):
    rgb = np.random.default_rng(0).random((20, 30, 3)).astype(dtype)
    rgb[0, 0], rgb[0, 1] = 0, 1
    stored = np.moveaxis(rgb, 2, 0).copy() if options.get("planarconfig") else rgb
    photo = read_photo(tiff(stored, photometric="rgb", **options))
    assert np.asarray(photo.rgb).dtype == np.uint16
    assert np.array_equal(np.asarray(photo.rgb), np.rint(rgb.astype(np.float64) * 65535))


def test_float_color_with_alpha():
    rgba = np.random.default_rng(0).random((20, 30, 4)).astype(np.float32)
    rgba[0, 0], rgba[0, 1] = 0, 1
    photo = read_photo(tiff(rgba, photometric="rgb", extrasamples=["unassalpha"]))
    assert np.array_equal(np.asarray(photo.alpha), np.rint(rgba[..., 3].astype(np.float64) * 65535))


def test_float_color_that_is_not_finite_is_refused():
    with pytest.raises(PhotoError, match="NaN or infinite"):
        read_photo(tiff(np.full((4, 5, 3), np.nan, np.float32), photometric="rgb"))


def test_32_bit_integer_color_is_judged_by_its_range():
    rgb = np.random.default_rng(0).integers(0, 2**32, (20, 30, 3), dtype=np.uint32)
    rgb[0, 0], rgb[0, 1] = 0, 2**32 - 1
    assert np.array_equal(np.asarray(read_photo(tiff(rgb, photometric="rgb")).rgb), np.rint(rgb / (2**32 - 1) * 65535))


LAB_COLORS = [(0, 0, 0), (100, 0, 0), (53.585, 0, 0), (50, 40, -30), (70, -30, 30), (30, 10, 20), (60, 20, -40)]


def lab_samples(photometric, dtype):
    """LAB_COLORS as TIFF 6.0 (CIELAB) or the ICC (ICCLAB) store them."""
    lab = np.array([LAB_COLORS])
    if dtype == np.uint8:
        white, unit = 255, 1
    else:
        white, unit = (65535 if photometric == "cielab" else 65280), 256
    offset = 0 if photometric == "cielab" else 128
    lightness = np.rint(lab[..., :1] / 100 * white)
    chroma = np.rint((lab[..., 1:] + offset) * unit).astype(np.int64) % (256 * unit)
    return np.concatenate([lightness, chroma], axis=-1).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("photometric", ["cielab", "icclab"])
def test_lab_gives_its_colors(photometric, dtype):
    photo = read_photo(tiff(lab_samples(photometric, dtype), photometric=photometric))
    wanted = lab_d50(np.array([LAB_COLORS]))
    assert np.asarray(photo.rgb).dtype == dtype
    tolerance = (3 if dtype == np.uint8 else 0.1) / 255
    assert np.abs(np.asarray(photo.rgb) / photo.max_value - wanted).max() <= tolerance
    assert photo.gray[0, 0] == 0
    assert photo.gray[0, 1] >= photo.max_value * 0.998


def lab_d50(lab):
    """sRGB 0..1 of CIELAB under D50, Bradford-adapted, written anew: the oracle."""
    f = np.stack([(lab[..., 0] + 16) / 116] * 3, -1) + np.stack(
        [lab[..., 1] / 500, 0 * lab[..., 1], -lab[..., 2] / 200], -1
    )
    xyz = np.where(f > 24 / 116, f**3, (f - 16 / 116) / 7.787) * [0.9642, 1.0, 0.8249]
    to_rgb = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = np.clip(xyz @ np.array(to_rgb).T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("alpha", [None, "unassalpha", "unspecified"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_cmyk_with_and_without_alpha(dtype, alpha, deep_colors):
    inks = np.dstack([deep_colors, deep_colors[::-1, :, 1]])
    inks = inks if dtype == np.uint16 else (inks >> 8).astype(np.uint8)
    white = np.iinfo(dtype).max
    samples = inks if alpha is None else np.dstack([inks, inks[:, ::-1, 0]])
    photo = read_photo(tiff(samples, photometric="separated", extrasamples=[alpha] if alpha else None))
    light = 1 - inks / white
    assert np.asarray(photo.rgb).dtype == dtype
    assert np.abs(np.asarray(photo.rgb) / white - light[..., :3] * light[..., 3:]).max() <= 1.01 / white
    assert (photo.alpha is None) if alpha != "unassalpha" else np.array_equal(np.asarray(photo.alpha), samples[..., 4])


def test_16_bit_cmyk_with_a_profile_says_that_it_is_read_at_8_bits(make_profile, xyz):
    identity = bytes(range(256))
    corners = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    lab = np.stack([255 - 60 * corners.sum(axis=1), *[np.full(16, 128)] * 2], axis=1)
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(np.eye(3, dtype=int) * 65536).ravel())
    table += identity * 4 + lab.clip(0).astype(np.uint8).tobytes() + identity * 3
    profile = make_profile(b"CMYK", b"Lab ", {b"A2B0": table, b"wtpt": xyz(0.9642, 1.0, 0.8249)}, b"prtr")
    inks = np.zeros((4, 5, 4), np.uint16)
    extra = [(34675, 7, len(profile), profile, True)]
    photo = read_photo(tiff(inks, photometric="separated", extratags=extra))
    assert (photo.gray >= 253).all()
    assert any("8 bits" in warning for warning in photo.warnings)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_holds_for_samples_that_pillow_does_not_read(orientation, deep_colors, as_file):
    plain = as_file(Image.fromarray(np.uint8(deep_colors >> 8)), "TIFF", exif={ORIENTATION: orientation})
    wanted = np.asarray(read_photo(plain).rgb)
    for data in (
        tiff(deep_colors, photometric="rgb", extratags=[(ORIENTATION, 3, 1, orientation, True)]),
        tiff(deep_colors / np.float32(65535), photometric="rgb", extratags=[(ORIENTATION, 3, 1, orientation, True)]),
        tiff(deep_colors, photometric="rgb", bigtiff=True, extratags=[(ORIENTATION, 3, 1, orientation, True)]),
    ):
        photo = read_photo(data)
        assert np.asarray(photo.rgb).dtype == np.uint16
        assert np.array_equal(np.asarray(photo.rgb) >> 8, wanted)


def test_what_cannot_be_read_at_its_depth_is_refused_by_name(deep_colors):
    complex_numbers = tiff(np.zeros((4, 5), np.complex64))
    palette = tiff(deep_colors[..., 0], photometric="palette", colormap=np.zeros((3, 65536), np.uint16))
    several = tiff(np.zeros((4, 5, 3), np.uint16), photometric="minisblack", planarconfig="contig")
    subsampled = tiff(deep_colors, photometric="ycbcr")
    for data, name in (
        (complex_numbers, "64 bits"),
        (palette, "PALETTE"),
        (several, "3 channels"),
        (subsampled, "YCBCR"),
    ):
        with pytest.raises(PhotoError) as caught:
            read_photo(data)
        assert name in str(caught.value)
        assert "16-bit RGB" in str(caught.value) or "save the one" in str(caught.value)


def test_a_small_tiff_cannot_ask_for_much_memory(deep_colors):
    many = tiff(np.zeros((4, 5, 300), np.uint16), photometric="rgb", planarconfig="contig", compression="zlib")
    with pytest.raises(PhotoError, match="300 channels"):
        read_photo(many)
    tiled = tiff(deep_colors, photometric="rgb", tile=(16, 16), compression="zlib")
    for tag in (322, 323):
        tiled = tiled.replace(struct.pack("<HHLL", tag, 4, 1, 16), struct.pack("<HHLL", tag, 4, 1, 1 << 16))
        tiled = tiled.replace(struct.pack("<HHLHH", tag, 3, 1, 16, 0), struct.pack("<HHLL", tag, 4, 1, 1 << 16))
    with pytest.raises(PhotoError, match="tiles of 65536 x 65536"):
        read_photo(tiled)


def ppm(samples, white, comment=b""):
    kind = b"P5" if samples.ndim == 2 else b"P6"
    size = b"%d %d" % (samples.shape[1], samples.shape[0])
    stored = samples.astype(">u2" if white > 255 else np.uint8)
    return kind + b"\n" + comment + size + b"\n%d\n" % white + stored.tobytes()


@pytest.mark.parametrize("white", [65535, 1023, 4095, 256])
@pytest.mark.parametrize("comment", [b"", b"# made by hand\n"])
def test_pnm_of_more_than_8_bits(comment, white, deep_colors):
    colors = (deep_colors.astype(np.uint32) * white // 65535).astype(np.uint16)
    colors[0, 0] = white
    wanted = np.rint(colors.astype(float) * 65535 / white)
    photo = read_photo(ppm(colors, white, comment))
    assert np.asarray(photo.rgb).dtype == np.uint16
    assert np.abs(photo.rgb - wanted).max() <= 1
    gray = read_photo(ppm(colors[..., 0], white, comment))
    assert gray.gray.dtype == np.uint16
    assert np.abs(gray.gray - wanted[..., 0]).max() <= 1


def test_a_dark_16_bit_pgm_stays_dark():
    assert read_photo(ppm(np.full((4, 5), 200, np.uint16), 65535)).gray.tolist() == [[200] * 5] * 4


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_jpeg_2000(channels):
    deep_colors = np.random.default_rng(0).integers(0, 65536, (40, 64, 3), dtype=np.uint16)
    rgba = np.dstack([deep_colors, deep_colors[..., :1]])
    stored = {1: rgba[..., 0], 3: rgba[..., 2::-1], 4: rgba[..., [2, 1, 0, 3]]}[channels]
    data = cv2.imencode(".jp2", stored, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])[1].tobytes()
    photo = read_photo(data)
    assert photo.gray.dtype == np.uint16
    assert photo.format == "JPEG2000"
    assert np.array_equal(
        photo.gray if channels == 1 else np.asarray(photo.rgb), rgba[..., 0] if channels == 1 else deep_colors
    )
    assert (photo.alpha is not None) == (channels == 4)


AVIF_DEPTH = [cv2.IMWRITE_AVIF_DEPTH, 10, cv2.IMWRITE_AVIF_QUALITY, 100] if hasattr(cv2, "IMWRITE_AVIF_DEPTH") else []


@pytest.mark.skipif(not AVIF_DEPTH or not cv2.haveImageWriter("a.avif"), reason="this OpenCV has no AVIF")
@pytest.mark.parametrize("bits", [10, 12])
def test_avif_of_more_than_8_bits(bits, deep_colors):
    levels = deep_colors >> (16 - bits)
    options = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, 100]
    photo = read_photo(cv2.imencode(".avif", levels[..., ::-1], options)[1].tobytes())
    assert np.asarray(photo.rgb).dtype == np.uint16
    assert np.abs(photo.rgb - levels / (2**bits - 1) * 65535).max() <= 1


def test_jpeg_2000_whose_depth_opencv_cannot_read_is_refused(monkeypatch):
    data = cv2.imencode(".jp2", np.zeros((64, 64, 3), np.uint16))[1].tobytes()
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    with pytest.raises(PhotoError, match="JPEG2000 files of 16 bits are not supported"):
        read_photo(data)


def test_avif_whose_depth_opencv_cannot_read_is_refused(deep_colors, monkeypatch):
    if not cv2.haveImageWriter("a.avif"):
        pytest.skip("this OpenCV has no AVIF")
    data = cv2.imencode(".avif", deep_colors >> 6, AVIF_DEPTH)[1].tobytes()
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    with pytest.raises(PhotoError, match="files of 10 bits are not supported"):
        read_photo(data)


@pytest.mark.parametrize("bits", [10, 12])
def test_heic_of_more_than_8_bits(bits):
    heif = pytest.importorskip("pillow_heif")
    ramp = np.tile(np.arange(64, dtype=np.uint16)[None, :, None] * 1040, (32, 1, 3))
    file = io.BytesIO()
    heif.options.SAVE_HDR_TO_12_BIT = bits == 12
    try:
        heif.from_bytes("RGB;16", (64, 32), ramp.tobytes()).save(file, quality=-1, chroma=444)
    finally:
        heif.options.SAVE_HDR_TO_12_BIT = False
    photo = read_photo(file.getvalue())
    assert photo.gray.dtype == np.uint16
    assert np.abs(photo.gray.astype(int) - ramp[..., 0]).max() <= 65535 * 1.5 / 2**bits + 65535 / 2**bits
