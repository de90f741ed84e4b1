"""What cannot be read is a `PhotoError` of one line that names the photo; nothing is printed, nothing leaks."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from chromatune.errors import PhotoError
from chromatune.images import read_photo

pytestmark = pytest.mark.filterwarnings("error")


def refused(source, *parts, **options):
    """The message of the PhotoError, after checking that it is one line and says each part."""
    with pytest.raises(PhotoError) as caught:
        read_photo(source, **options)
    message = str(caught.value)
    assert message.isprintable(), message  # no line break
    assert len(message) < 600
    for part in parts:
        assert part in message
    return message


def tiff(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def files(as_file, colors, deep_colors):
    """A valid file of every kind, by name."""
    image = Image.fromarray(colors)
    exif = Image.Exif()
    exif[271] = "Leica"
    exif.get_ifd(34665)[36867] = "1957:10:04 19:28:34"
    return {
        "a.jpg": as_file(image, "JPEG", exif=exif),
        "a.png": as_file(image, "PNG", exif=exif),
        "a.tif": as_file(image, "TIFF"),
        "lzw.tif": as_file(image, "TIFF", compression="tiff_lzw"),
        "deep.tif": tiff(deep_colors, photometric="rgb", compression="zlib"),
        "float.tif": tiff(deep_colors / np.float32(65535), photometric="rgb", compression="zlib"),
        "inks.tif": tiff(np.dstack([deep_colors, deep_colors[..., :1]]), photometric="separated"),
        "lab.tif": tiff(deep_colors, photometric="cielab", compression="zlib", predictor=True),
        "alpha.tif": tiff(deep_colors[..., :2].copy(), photometric="minisblack", extrasamples=["unassalpha"]),
        "pages.tif": as_file(image, "TIFF", save_all=True, append_images=[image.resize((9, 7))] * 2),
        "a.webp": as_file(image, "WEBP", exif=exif),
        "a.jp2": as_file(image, "JPEG2000"),
        "a.avif": as_file(image, "AVIF"),
        "deep.ppm": b"P6\n31 23\n65535\n" + deep_colors.astype(">u2").tobytes(),
        "more.jpg": as_file(image, "MPO", save_all=True, append_images=[image]),
        "a.bmp": as_file(image, "BMP"),
        "a.gif": as_file(image, "GIF"),
    }


def silent(capfd):
    """Nothing was printed, by C libraries neither."""
    return capfd.readouterr() == ("", "")


def test_a_missing_file(tmp_path):
    refused(tmp_path / "gone.jpg", "gone.jpg: no such file", "check the path")


def test_a_folder(tmp_path):
    refused(tmp_path, f"{tmp_path}: is a folder")


def test_a_file_without_permission(tmp_path, files, monkeypatch):
    path = tmp_path / "secret.png"
    path.write_bytes(files["a.png"])
    path.chmod(0)
    if os.access(path, os.R_OK):  # an administrator may read it all the same

        def forbidden(*_, **__):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("chromatune.images.reading.open_regular", forbidden)
    refused(path, "secret.png: no permission")


def test_paths_no_system_accepts(tmp_path):
    refused("nul\0.jpg", "cannot be opened")
    refused(tmp_path / ("x" * 300), "cannot be opened")


def test_an_empty_file(tmp_path):
    path = tmp_path / "empty.jpg"
    path.touch()
    refused(path, "empty.jpg", "empty (0 bytes)")
    refused(b"", "photo: ", "0 bytes")
    refused(io.BytesIO(), "0 bytes")


def test_a_text_file_named_jpg(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("Dear diary,\nthis is no photo.\n")
    refused(path, "notes.jpg", "not a picture", "JPEG, PNG, TIFF, WebP, BMP, GIF")


def test_formats_we_do_not_open(as_file, colors):
    image = Image.fromarray(colors)
    for format in ("ICO", "TGA", "PDF", "QOI"):
        refused(as_file(image, format), "not a picture in a known format")


def test_a_known_format_of_a_rare_kind():
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((4, 5), np.complex64))
    refused(file.getvalue(), "TIFF", "unsupported kind", "64 bits", "16-bit RGB")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "lzw.tif", "deep.tif", "a.webp", "a.bmp", "a.gif"])
def test_a_truncated_file(name, files, tmp_path, capfd):
    path = tmp_path / name
    for part in (0.2, 0.5, 0.8):
        path.write_bytes(files[name][: int(len(files[name]) * part)])
        refused(path, f"{name}: ")
    assert silent(capfd)


@pytest.mark.parametrize("tries", [20, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    """a.jpg a.png a.tif lzw.tif deep.tif float.tif inks.tif lab.tif alpha.tif pages.tif a.webp a.bmp a.gif a.jp2 a.avif
    deep.ppm more.jpg""".split(),
)
def test_random_damage_is_read_or_refused_and_nothing_else(name, tries, files, capfd, caplog):
    messages = []
    random = np.random.default_rng(zlib.crc32(name.encode()))
    for _ in range(tries):
        damaged = np.frombuffer(files[name], np.uint8).copy()
        span = len(damaged) if random.random() < 0.5 else min(200, len(damaged))
        places = random.integers(0, span, random.integers(1, 8))
        damaged[places] = random.integers(0, 256, len(places))
        try:
            photo = read_photo(damaged.tobytes(), max_pixels=1_000_000)
        except PhotoError as error:
            messages.append(str(error))
        else:
            assert photo.gray.size > 0
    assert all(message.isprintable() and message.startswith("photo: ") for message in messages)
    assert caplog.records == []
    assert silent(capfd)


def bomb(width, height):
    """A small PNG whose header promises width x height black pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")]:
        data += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return data


def test_a_decompression_bomb_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    refused(bomb(60_000, 60_000), "60000 x 60000 = 3600.0 million pixels", "150.0 million", "--max-megapixels")
    refused(bomb(2**31 - 1, 2**31 - 1), "million pixels")


def test_the_pixel_limit_is_ours_and_not_pillows(as_file, colors, monkeypatch):
    data = as_file(Image.fromarray(colors), "PNG")
    refused(data, "53 x 37", max_pixels=53 * 37 - 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_photo(data, max_pixels=53 * 37).gray.shape == (37, 53)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 5), np.uint8),
        np.zeros((5, 0, 3), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((2, 5, 5, 3), np.uint8),
        np.zeros((5, 5, 5), np.uint8),
        np.zeros((5, 5, 0), np.uint8),
        np.zeros((5, 5), np.int64),
        np.zeros((5, 5), np.int8),
        np.zeros((5, 5), np.uint32),
        np.zeros((5, 5), np.complex64),
        np.full((5, 5), "x"),
        np.full((5, 5), None),
        np.full((5, 5), 1.01),
        np.full((5, 5), -0.01),
        np.full((5, 5), np.nan),
        np.full((5, 5), np.inf, np.float32),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_that_are_no_photos(array):
    refused(array, "photo: ", "accepted: (H, W)")


def test_numbers_that_are_not_finite():
    for value in (np.nan, np.inf, -np.inf):
        refused(Image.fromarray(np.array([[0, value]], np.float32)), "NaN or infinite")


def test_other_sources(tmp_path):
    refused(None, "NoneType")
    refused([[1, 2], [3, 4]], "list")
    refused(Image.new("L", (0, 5)), "no pixels")
    path = tmp_path / "text.png"
    path.write_text("x")
    with path.open() as file:
        refused(file, "text.png", "'rb'")


def test_names_cannot_break_the_line(tmp_path):
    refused(tmp_path / "two\nlines.jpg", "two\\nlines.jpg")
    refused(b"", name="bell\a")


def test_a_damaged_exif_block_does_not_cost_the_photo(colors, as_file):
    image = Image.fromarray(colors)
    for block in (
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        b"Exif\0\0garbage",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
    ):
        data = as_file(image, "PNG", exif=block)
        assert np.array_equal(np.asarray(read_photo(data).rgb), colors)
