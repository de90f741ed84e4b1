"""Every format, mode, depth and array that `read_photo` accepts gives the picture that was drawn."""

import io
import struct
import threading
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from chromatune.color import luma as package_luma
from chromatune.errors import PhotoError
from chromatune.images import IMAGE_SUFFIXES, Photo, read_photo

pytestmark = pytest.mark.filterwarnings("error")


def luma(rgb):
    """Rec.601 in floating point: the oracle."""
    return rgb.astype(np.float64) @ [0.299, 0.587, 0.114]


def tiff(array, **options):
    """A TIFF written by tifffile, an implementation of its own."""
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def png(array, color_type, *extra_chunks):
    """A 16-bit PNG written by hand: gray 0, RGB 2, gray and alpha 4, RGBA 6."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = array.shape[:2]
    rows = np.ascontiguousarray(array.astype(">u2").reshape(height, -1)).view(np.uint8)
    lines = np.pad(rows, ((0, 0), (1, 0))).tobytes()  # filter type 0 before each line
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *(chunk(*extra) for extra in extra_chunks)]
    chunks += [chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@given(
    hnp.arrays(st.sampled_from([np.uint8, np.uint16]), hnp.array_shapes(min_dims=2, max_dims=2).map(lambda s: (*s, 3)))
)
@settings(max_examples=60, deadline=None, database=None)
def test_gray_is_rec_601_luma_rounded(rgb):
    assert np.abs(package_luma(rgb) - luma(rgb)).max() <= 0.5 + 1e-9
    assert package_luma(rgb).dtype == rgb.dtype


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "WEBP"])
def test_lossless_formats_give_the_drawn_pixels(format, colors, as_file):
    photo = read_photo(as_file(Image.fromarray(colors), format, **({"lossless": True} if format == "WEBP" else {})))
    assert np.array_equal(np.asarray(photo.rgb), colors)
    assert np.array_equal(photo.gray, package_luma(colors))
    assert (photo.format, photo.alpha, photo.exif, photo.icc_profile) == (format, None, None, None)
    assert (photo.height_px, photo.width_px, photo.max_value) == (37, 53, 255)


class Pipe(io.BytesIO):
    """Bytes that can be read once, from start to end."""

    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize("source", ["path", "string", "bytes", "bytearray", "file", "pipe", "image", "array"])
def test_every_kind_of_source_gives_the_same_photo(source, colors, as_file, tmp_path):
    data = as_file(Image.fromarray(colors), "PNG")
    path = tmp_path / "a photo.png"
    path.write_bytes(data)
    pipe = Pipe(data)
    given = {
        "path": path,
        "string": str(path),
        "bytes": data,
        "bytearray": bytearray(data),
        "file": io.BytesIO(data),
        "pipe": pipe,
        "image": Image.fromarray(colors),
        "array": colors,
    }[source]
    photo = read_photo(given)
    assert np.array_equal(np.asarray(photo.rgb), colors)
    assert photo.name == ("a photo.png" if source in ("path", "string") else "photo")
    assert read_photo(given if source not in ("file", "pipe") else data, name="grandmother").name == "grandmother"


def test_jpeg_is_close_and_keeps_its_format(as_file):
    smooth = np.tile(np.arange(64, dtype=np.uint8)[:, None, None] * 3, (1, 64, 3)) + np.array([0, 20, 60], np.uint8)
    photo = read_photo(as_file(Image.fromarray(smooth), "JPEG", quality=98, subsampling=0))
    assert photo.format == "JPEG"
    assert np.abs(np.asarray(photo.rgb).astype(int) - smooth).max() <= 4


def test_a_jpeg_with_several_pictures_is_its_first(colors, as_file):
    first = Image.fromarray(np.full((16, 16, 3), 90, np.uint8))
    data = as_file(first, "MPO", save_all=True, append_images=[Image.fromarray(colors)])
    photo = read_photo(data)
    assert (photo.format, photo.gray.shape, int(photo.gray[5, 5])) == ("JPEG", (16, 16), 90)


@pytest.mark.parametrize("format", ["GIF", "WEBP"])
def test_an_animation_is_its_first_frame(format, as_file):
    frames = [Image.new("RGB", (20, 10), color) for color in ("#404040", "red", "blue")]
    photo = read_photo(as_file(frames[0], format, save_all=True, append_images=frames[1:], lossless=True))
    assert photo.rgb is None
    assert (photo.gray == 0x40).all()


def test_every_image_mode_gives_its_colors(colors):
    image = Image.fromarray(colors)
    gray = np.asarray(image.convert("L"))
    cmyk = Image.fromarray(255 - np.dstack([colors, np.full(gray.shape, 255, np.uint8)]), "CMYK")
    expected = {
        "1": (Image.fromarray(gray > 99), (gray > 99) * 255.0),
        "L": (Image.fromarray(gray), gray),
        "P": (image.quantize(64), None),
        "RGB": (image, luma(colors)),
        "RGBX": (image.convert("RGBX"), luma(colors)),
        "CMYK": (cmyk, luma(colors)),
        "YCbCr": (image.convert("YCbCr"), None),
        "HSV": (image.convert("HSV"), None),
    }
    for mode, (drawn, gray_wanted) in expected.items():
        photo = read_photo(drawn)
        wanted = luma(np.asarray(drawn.convert("RGB"))) if gray_wanted is None else gray_wanted
        assert drawn.mode == mode
        assert np.abs(photo.gray - wanted).max() <= 0.5 + 1e-9, mode
        assert (photo.rgb is None) == (mode in "1L"), mode
        assert photo.alpha is None


def test_lab_is_converted_and_neutral_lab_is_neutral():
    photo = read_photo(Image.merge("LAB", [Image.linear_gradient("L"), *[Image.new("L", (256, 256), 128)] * 2]))
    assert photo.gray[0, 0] == 0
    assert photo.gray[255, 0] == 255
    assert abs(int(photo.gray[137, 0]) - 128) <= 2  # L* 53.6 is sRGB 128


@pytest.mark.parametrize("mode", ["LA", "La", "RGBA", "RGBa", "PA"])
def test_alpha_is_kept_apart(mode, colors):
    alpha = np.full((37, 53), 255, np.uint8)
    alpha[:9], alpha[9:12] = 0, 128
    image = Image.fromarray(np.dstack([colors, alpha]))
    drawn = image.convert("LA") if mode in ("LA", "La", "PA") else image
    drawn = drawn.convert(mode)
    if mode == "PA":
        drawn.putalpha(Image.fromarray(alpha))  # Pillow's conversion makes it opaque
    photo = read_photo(drawn)
    assert drawn.mode == mode
    assert np.array_equal(np.asarray(photo.alpha), alpha)
    assert np.asarray(photo.alpha).dtype == photo.gray.dtype
    assert np.abs(photo.gray[12:] - luma(colors[12:])).max() <= 1  # below alpha 0, a premultiplied mode knows nothing


def test_a_palette_with_transparency_is_kept_apart(as_file, colors):
    quantized = Image.fromarray(colors).quantize(16)
    index = int(np.asarray(quantized)[5, 5])
    for format in ("PNG", "GIF"):
        photo = read_photo(as_file(quantized, format, transparency=index))
        assert np.array_equal(photo.alpha == 0, np.asarray(quantized) == index), format
    indices = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8), "P")
    indices.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, 9])
    several = read_photo(as_file(indices, "PNG", transparency=bytes([0, 99, 200])))
    assert np.asarray(several.alpha).tolist() == [[0, 99, 200, 255]]
    assert np.asarray(several.rgb)[0, 1].tolist() == [255, 0, 0]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_gray_of_a_png_is_kept_apart(bits):
    white = 2**bits - 1
    levels = np.arange(min(white, 8) + 1)
    if bits == 16:
        data = png(levels[None], 0, (b"tRNS", struct.pack(">H", 1)))
    else:
        packed = np.packbits([(level >> shift) & 1 for level in levels for shift in range(bits - 1, -1, -1)])
        template = png(np.zeros((1, len(levels)), np.uint16), 0, (b"tRNS", struct.pack(">H", 1)))
        header = template[16:24] + bytes([bits, 0, 0, 0, 0])
        body = zlib.compress(b"\0" + packed.tobytes())
        data = b"\x89PNG\r\n\x1a\n"
        for kind, content in [(b"IHDR", header), (b"tRNS", b"\0\1"), (b"IDAT", body), (b"IEND", b"")]:
            data += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    photo = read_photo(data)
    assert np.array_equal(photo.gray[0], levels * (photo.max_value // white))
    assert np.array_equal(np.asarray(photo.alpha)[0] == 0, levels == 1)


def test_a_transparent_color_of_a_png_is_kept_apart(colors, deep_colors, as_file):
    photo = read_photo(as_file(Image.fromarray(colors), "PNG", transparency=tuple(colors[3, 4].tolist())))
    assert np.array_equal(photo.alpha == 0, (colors == colors[3, 4]).all(axis=2))
    deep = read_photo(png(deep_colors, 2, (b"tRNS", deep_colors[3, 4].astype(">u2").tobytes())))
    assert np.array_equal(deep.alpha == 0, (deep_colors == deep_colors[3, 4]).all(axis=2))
    assert np.array_equal(np.asarray(deep.rgb), deep_colors)


RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: png(RAMP, 0), id="png"),
        pytest.param(lambda: tiff(RAMP), id="tiff"),
        pytest.param(lambda: tiff(RAMP, byteorder=">"), id="tiff big-endian"),
        pytest.param(lambda: tiff(RAMP, compression="zlib", predictor=True), id="tiff deflated"),
        pytest.param(lambda: tiff(65535 - RAMP, photometric="miniswhite"), id="tiff white is zero"),
        pytest.param(lambda: RAMP, id="array"),
        pytest.param(lambda: RAMP.astype(">u2"), id="array big-endian"),
        pytest.param(lambda: Image.fromarray(RAMP), id="I;16"),
        pytest.param(lambda: Image.fromarray(RAMP.astype(np.int32)), id="I"),
        pytest.param(lambda: Image.fromarray(RAMP.astype(np.float32) / 65535), id="F"),
        pytest.param(lambda: tiff(RAMP.astype(np.uint32)), id="tiff 32 bits"),
        pytest.param(lambda: tiff(RAMP.astype(np.float32)), id="tiff float"),
    ],
)
def test_a_16_bit_gray_ramp_is_not_clipped(data):
    photo = read_photo(data())
    assert photo.gray.dtype == np.uint16
    assert np.array_equal(photo.gray, RAMP)
    assert photo.rgb is None
    assert photo.max_value == 65535


@pytest.mark.parametrize(
    "encode",
    [
        pytest.param(lambda rgb: png(rgb, 2), id="png"),
        pytest.param(
            lambda rgb: png(rgb, 2, (b"gAMA", struct.pack(">I", 100000)), (b"sRGB", b"\0")), id="png with gamma"
        ),
        pytest.param(lambda rgb: tiff(rgb, photometric="rgb"), id="tiff"),
        pytest.param(lambda rgb: tiff(rgb, photometric="rgb", byteorder=">"), id="tiff big-endian"),
        pytest.param(lambda rgb: tiff(rgb, photometric="rgb", compression="zlib", predictor=True), id="tiff deflated"),
        pytest.param(lambda rgb: tiff(rgb, photometric="rgb", tile=(16, 16)), id="tiff tiled"),
        pytest.param(lambda rgb: tiff(rgb, photometric="rgb", bigtiff=True), id="tiff 64-bit offsets"),
    ],
)
def test_16_bit_color_keeps_every_bit(encode, deep_colors):
    photo = read_photo(encode(deep_colors))
    assert np.asarray(photo.rgb).dtype == np.uint16
    assert np.array_equal(np.asarray(photo.rgb), deep_colors)
    assert np.abs(photo.gray - luma(deep_colors)).max() <= 0.5 + 1e-6


def test_16_bit_alpha_keeps_every_bit(deep_colors):
    alpha = deep_colors[..., 0][::-1]
    rgba = np.dstack([deep_colors, alpha])
    for data in (png(rgba, 6), tiff(rgba, photometric="rgb", extrasamples=["unassalpha"])):
        photo = read_photo(data)
        assert np.array_equal(np.asarray(photo.rgb), deep_colors)
        assert np.array_equal(np.asarray(photo.alpha), alpha)
    gray_alpha = read_photo(png(np.dstack([deep_colors[..., 1], alpha]), 4))
    assert np.array_equal(gray_alpha.gray, deep_colors[..., 1])
    assert np.array_equal(np.asarray(gray_alpha.alpha), alpha)
    assert gray_alpha.rgb is None


def test_premultiplied_16_bit_alpha_is_divided_out(deep_colors):
    alpha = np.full(deep_colors.shape[:2], 32768, np.uint16)
    drawn = np.dstack([deep_colors // 2, alpha])
    photo = read_photo(tiff(drawn, photometric="rgb", extrasamples=["assocalpha"]))
    assert np.abs(np.asarray(photo.rgb).astype(int) - deep_colors).max() <= 2
    assert np.array_equal(np.asarray(photo.alpha), alpha)


@pytest.mark.parametrize("compression", [None, "zlib", "lzma"])
def test_separate_16_bit_planes_keep_every_bit(compression, deep_colors):
    planes = np.moveaxis(deep_colors, 2, 0).copy()
    data = tiff(planes, photometric="rgb", planarconfig="separate", compression=compression)
    assert np.array_equal(np.asarray(read_photo(data).rgb), deep_colors)


@pytest.mark.parametrize("wrong", ["mirrored", "8 bits", "nothing"])
def test_a_wrong_16_bit_decoder_is_not_believed(wrong, deep_colors, monkeypatch):
    given = {"mirrored": deep_colors[:, ::-1].copy(), "8 bits": np.uint8(deep_colors >> 8), "nothing": None}[wrong]
    monkeypatch.setattr(cv2, "imdecode", lambda *_: given)
    with pytest.raises(PhotoError, match="files of 16 bits are not supported"):
        read_photo(png(deep_colors, 2))


def test_odd_extras_of_16_bit_files_print_nothing(deep_colors, capfd):
    broken_profile = (b"iCCP", b"x\0\0" + zlib.compress(b"no profile"))
    assert np.array_equal(np.asarray(read_photo(png(deep_colors, 2, broken_profile)).rgb), deep_colors)
    unknown_tag = [(65000, 3, 1, 7, True)]
    assert np.array_equal(
        np.asarray(read_photo(tiff(deep_colors, photometric="rgb", extratags=unknown_tag)).rgb), deep_colors
    )
    assert capfd.readouterr() == ("", "")


def test_12_bit_scans_fill_the_range():
    values = np.array([[0, 2048, 4095, 1]])
    packed = np.packbits(((values.ravel()[:, None] >> np.arange(11, -1, -1)) & 1).astype(np.uint8)).tobytes()
    entries = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, len(packed))]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, 4, 1, v) for tag, v in entries)
    data = struct.pack("<2sHI", b"II", 42, 8 + len(packed)) + packed + directory + b"\0" * 4
    assert read_photo(data).gray.tolist() == [[0, round(2048 / 4095 * 65535), 65535, 16]]


def test_numbers_without_a_written_white_are_judged_by_their_range():
    def read(values):
        return read_photo(Image.fromarray(np.array([values]))).gray[0]

    assert read(np.array([0, 100, 255], np.int32)).tolist() == [0, 100, 255]
    assert read(np.array([0, 100, 255], np.int32)).dtype == np.uint8
    assert read(np.array([0, 100, 256], np.int32)).tolist() == [0, 100, 256]
    assert read(np.array([-100, 0, 100], np.int32)).tolist() == [0, 32768, 65535]
    assert read(np.array([0, 2**30, 2**31 - 1], np.int32)).tolist() == [0, 32768, 65535]
    assert read(np.array([0, 0.5, 1], np.float32)).tolist() == [0, 32768, 65535]
    assert read(np.array([0, 127.5, 255], np.float32)).tolist() == [0, 32768, 65535]
    assert read(np.array([0, 300.4, 65535], np.float32)).tolist() == [0, 300, 65535]
    assert read(np.array([-1, 0, 1], np.float32)).tolist() == [0, 32768, 65535]
    assert read(np.array([-5, -5], np.float32)).tolist() == [0, 0]
    unsigned = read_photo(tiff(np.array([[0, 2**31, 2**32 - 1]], np.uint32)))
    assert unsigned.gray.tolist() == [[0, 32768, 65535]]


@given(
    hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=3, max_side=4)),
    st.sampled_from([np.uint8, np.uint16, np.bool_, np.float16, np.float32, np.float64]),
)
@settings(max_examples=40, deadline=None, database=None)
def test_arrays_of_every_accepted_shape_and_type(samples, dtype):
    array = (samples / 65535).astype(dtype) if np.issubdtype(dtype, np.floating) else samples.astype(dtype)
    photo = read_photo(array)
    channels = array.shape[2] if array.ndim == 3 else 1
    white = {"u": 1, "b": photo.max_value, "f": photo.max_value}[array.dtype.kind]
    samples = np.rint(array.reshape(*array.shape[:2], channels).astype(np.float64) * white)
    assert photo.gray.dtype == (np.uint16 if array.dtype.kind == "f" or array.dtype == np.uint16 else np.uint8)
    wanted = samples[..., 0] if channels < 3 else luma(samples[..., :3])
    assert np.abs(photo.gray - wanted).max() <= 0.5 + 1e-6
    assert (photo.alpha is not None) == (channels in (2, 4))
    if photo.alpha is not None:
        assert np.array_equal(photo.alpha, samples[..., -1])


def test_neutral_rgb_has_no_colors_and_a_photo_is_the_readers_own():
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert read_photo(np.dstack([gray] * 3)).rgb is None
    photo = read_photo(gray)
    gray[0, 0] = 99
    assert photo.gray[0, 0] == 0
    with pytest.raises(AttributeError):
        setattr(photo, "gray", gray)  # noqa: B010 - a type checker sees the plain assignment


def test_suffixes_are_lower_case():
    assert {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif"} <= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)


def test_threads_read_side_by_side_and_leave_pillow_as_it_was(colors, as_file):
    data = as_file(Image.fromarray(colors), "PNG")
    limit = Image.MAX_IMAGE_PIXELS
    photos: list[Photo] = []
    threads = [threading.Thread(target=lambda: photos.append(read_photo(data))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(np.asarray(photo.rgb), colors) for photo in photos)
    assert (len(photos), Image.MAX_IMAGE_PIXELS) == (8, limit)
