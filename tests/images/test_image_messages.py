"""What reaches the terminal: no word of the libraries, no empty reason, no raw name, nothing endless."""

import struct
import zlib

import numpy as np
import pytest
import skimage.data
from PIL import Image

from chromatune.errors import PhotoError
from chromatune.images import format_for, read_photo, write_photo

pytestmark = pytest.mark.filterwarnings("error")

LIBTIFF_COMPLAINTS = ["tiff_lzw", "tiff_adobe_deflate", "group4", "jpeg", "packbits"]


@pytest.mark.parametrize("compression", LIBTIFF_COMPLAINTS)
def test_libtiff_says_nothing_about_damage(compression, as_file, capfd):
    gray = Image.fromarray(skimage.data.camera()[:200, :200])
    data = as_file(gray.convert("1") if compression == "group4" else gray, "TIFF", compression=compression)
    random = np.random.default_rng(0)
    for _ in range(25):
        damaged = np.frombuffer(data, np.uint8).copy()
        damaged[random.integers(0, len(data), 20)] = random.integers(0, 256, 20)
        try:
            read_photo(damaged.tobytes(), max_pixels=1_000_000)
        except PhotoError as error:
            message = str(error)
            assert message.isprintable()
            assert "AssertionError" not in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["more than the picture needs", "two streams", "one chunk a byte"])
def test_libpng_says_nothing_about_odd_pixels(kind, deep_colors, capfd):
    rows = np.pad(deep_colors.astype(">u2").reshape(23, -1).view(np.uint8).reshape(23, -1), ((0, 0), (1, 0))).tobytes()
    header = struct.pack(">IIBBBBB", 31, 23, 16, 2, 0, 0, 0)
    stream = zlib.compress(rows + (b"\0" * 500 if kind == "more than the picture needs" else b""))
    stream += zlib.compress(b"more") if kind == "two streams" else b""
    parts = [stream[at : at + 1] for at in range(len(stream))] if kind == "one chunk a byte" else [stream]
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in [(b"IHDR", header), *((b"IDAT", part) for part in parts), (b"IEND", b"")]:
        data += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    assert np.array_equal(np.asarray(read_photo(data).rgb), deep_colors)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "error", [AssertionError(), AssertionError("x y"), KeyError(256), IndexError("index"), OSError()]
)
def test_a_reason_that_says_nothing_is_left_out(error, monkeypatch, as_file, colors):
    data = as_file(Image.fromarray(colors), "PNG")

    def fail(self):
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(PhotoError) as caught:
        read_photo(data)
    assert str(caught.value) == ("photo: damaged or incomplete; copy it again, or save it again in an image editor")


NASTY = ["\x1b[2J.png", "bell\a.png", "a\rb.png", "two\nlines.png", "c1\x9b2J.png", "bidi\u202egnp.png"]


@pytest.mark.parametrize("name", NASTY)
def test_nothing_of_a_name_reaches_the_terminal_raw(name, tmp_path, as_file, colors):
    path = tmp_path / name
    photo = read_photo(colors)
    for call in (
        lambda: read_photo(path),
        lambda: read_photo(b"", name=name),
        lambda: write_photo(tmp_path / name / name, colors, photo),
        lambda: write_photo(path.with_suffix(".psd"), colors, photo),
    ):
        with pytest.raises(PhotoError) as caught:
            call()
        assert str(caught.value).isprintable()


def test_what_the_user_gave_is_cut_in_messages(colors):
    for call in (
        lambda: read_photo(b"", name="x" * 1_000_000),
        lambda: read_photo("y" * 1_000_000),
        lambda: format_for("." + "z" * 1_000_000),
        lambda: write_photo("w" * 1_000_000 + ".png", colors, read_photo(colors)),
    ):
        with pytest.raises(PhotoError) as caught:
            call()
        assert len(str(caught.value)) < 1000
