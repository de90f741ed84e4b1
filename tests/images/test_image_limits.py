"""Small files that ask for much, and large ones that hold little: a line, before memory or minutes are spent."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pytest
from PIL import Image

from chromatune.errors import PhotoError
from chromatune.images import count_pixels, headers, read_photo, read_stream

Encode = Callable[..., bytes]
SPARSE_BYTES = 3_000_000_000
LIMITED = """
import resource, sys
from chromatune.errors import PhotoError
from chromatune.images import count_pages, read_photo
read_photo({good!r})  # loads what is loaded late
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + ({mb} << 20),) * 2)
for path in sys.argv[1:]:
    for read in (read_photo, count_pages):
        try:
            print(read(path))
        except PhotoError as error:
            assert str(error).isprintable() and "memory" not in str(error), error
"""


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*extra: bytes, size: tuple[int, int] = (8, 8)) -> bytes:
    header = chunk(b"IHDR", struct.pack(">2I5B", *size, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes((size[0] + 1) * size[1])))
    return headers.PNG_SIGNATURE + header + b"".join(extra) + pixels + chunk(b"IEND", b"")


def tiff(tags: list[tuple[int, int, int, int]], then: bytes = b"") -> bytes:
    """One directory of (code, type, count, value or offset)."""
    entries = b"".join(struct.pack("<HHLL", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(4) + then


def read_in_little_memory(paths: list[Path], good: Path, mb: int = 400) -> None:
    script = LIMITED.format(good=str(good), mb=mb)
    subprocess.run([sys.executable, "-c", script, *map(str, paths)], check=True, timeout=300)


@pytest.fixture
def good(tmp_path: Path, as_file: Encode, colors: np.ndarray) -> Path:
    path = tmp_path / "good.tif"
    path.write_bytes(as_file(Image.fromarray(colors), "TIFF", compression="tiff_lzw"))
    return path


def test_files_that_end_in_gigabytes_of_nothing(
    good: Path, tmp_path: Path, as_file: Encode, colors: np.ndarray
) -> None:
    image, paths = Image.fromarray(colors), []
    for format in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "AVIF", "JPEG2000", "TIFF", "PPM"):
        paths.append(tmp_path / f"{format}.jpg")
        paths[-1].write_bytes(as_file(image, format))
    beginnings = {
        "junk": b"\xff\xd8\xff\xff",
        "end": b"\xff\xd8\xff\xd9",
        "comment": b"P5 # ",
        "text": png()[:33] + struct.pack(">I4s", 2_000_000_000, b"tEXt") + b"a\0",
        "unknown": png()[:33] + struct.pack(">I4s", 2_000_000_000, b"abCd"),
        "box": headers.JPEG_2000_SIGNATURES[0] + b"\x87\n" + struct.pack(">I4s", 2_000_000_000, b"jp2h"),
        "riff": b"RIFF\xff\xff\xff\x7fWEBPVP8X" + bytes(16),
        "heif": b"\0\0\0\x18ftypavif" + bytes(16),
        "strip": tiff([(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 5), (262, 3, 1, 1),
                       (273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, 8), (279, 4, 1, 2_900_000_000)]),
    }  # fmt: skip
    for name, data in beginnings.items():
        paths.append(tmp_path / f"{name}.jpg")
        paths[-1].write_bytes(data)
    for path in paths:
        os.truncate(path, SPARSE_BYTES)
    read_in_little_memory(paths, good)


def test_small_files_that_ask_for_much(good: Path, tmp_path: Path, as_file: Encode) -> None:
    numbers = struct.pack("<1000000L", *range(1_000_000))
    files = {
        "frames.png": png(chunk(b"acTL", struct.pack(">2I", 2**31 - 1, 0))),
        "names.png": png(*(chunk(b"tEXt", b"%d\0" % number) for number in range(300_000))),
        "text.png": png(*[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(60 << 20)))] * 20),
        "profile.png": png(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(500 << 20)))),
        "canvas.webp": b"RIFF" + struct.pack("<I", 50) + b"WEBPVP8X\n\0\0\0" + bytes(4) + b"\xff\x3f\0" * 2 + bytes(32),
        "repeated.tif": tiff([(273, 4, 1_000_000, 48008)] * 4000, numbers),
        "tile.tif": tiff([(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1),
                          (322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 8), (325, 4, 1, 99)]),
        "frames.gif": b"GIF89a" + struct.pack("<2H3B", 8, 8, 0x80, 0, 0) + bytes(6)
        + (b"," + struct.pack("<4HB", 0, 0, 8, 8, 0) + b"\2\2\x84Q\0") * 200_000 + b";",
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    read_in_little_memory([tmp_path / name for name in files], good)


def test_a_small_canvas_before_large_boxes_of_jpeg_2000_counts_as_large(as_file: Encode, colors: np.ndarray) -> None:
    data = bytearray(as_file(Image.fromarray(colors), "JPEG2000"))
    start = data.index(headers.JPEG_2000_SIGNATURES[1])
    struct.pack_into(">2I", data, start + 8, 60_000, 60_000)
    with pytest.raises(PhotoError, match="60000 x 60000"):
        read_photo(bytes(data))


def test_sizes_by_the_header_are_those_of_the_picture(as_file: Encode, colors: np.ndarray) -> None:
    image = Image.fromarray(colors)
    kinds: list[tuple[str, dict[str, object]]] = [
        ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True}), ("WEBP", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}),
        ("AVIF", {}), ("JPEG2000", {}), ("JPEG2000", {"no_jp2": True}),
    ]  # fmt: skip
    for format, options in kinds:
        data = as_file(image, format, **options)
        assert headers.promised_size(io.BytesIO(data), data[:32]) == image.size, (format, options)
        assert count_pixels(data) == image.width * image.height


@pytest.mark.parametrize("count", [1, 2, 7])
def test_frames_of_a_gif_are_counted_as_pillow_counts_them(count: int, as_file: Encode) -> None:
    frames = [Image.fromarray(np.full((9, 7), 20 * number, np.uint8)) for number in range(count)]
    data = as_file(frames[0], "GIF", save_all=True, append_images=frames[1:], comment=b"x" * 700)
    assert headers.count_gif_frames(io.BytesIO(data)) == count
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == count


def test_progressive_jpegs_of_many_scans_are_refused(as_file: Encode, colors: np.ndarray) -> None:
    data = as_file(Image.fromarray(colors), "JPEG", progressive=True)
    assert read_photo(data).width_px == 53
    last = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(PhotoError, match="more than 100 scans"):
        read_photo(data[:-2] + last * 100 + data[-2:])


def test_pipes_and_devices_are_no_photos(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    for path in (tmp_path / "a.jpg", "/dev/zero"):
        with pytest.raises(PhotoError, match="pipe or a device"):
            read_photo(path)


class Endless(io.RawIOBase):
    """A stream that begins with some bytes and does not end."""

    def __init__(self, start: bytes) -> None:
        self.start, self.given = start, 0

    def read(self, size: int = -1, /) -> bytes:
        assert size > 0, "all of it is wanted"
        self.given += size
        data, self.start = self.start[:size], self.start[size:]
        return data.ljust(size, b"\0")


@pytest.mark.parametrize("format", [None, "JPEG", "PNG", "WEBP", "AVIF", "GIF"])
def test_a_stream_is_read_as_far_as_its_pixels_explain(format: str | None, as_file: Encode, colors: np.ndarray) -> None:
    start = as_file(Image.fromarray(colors), format) if format else b""
    for read in (read_stream, read_photo):
        stream = Endless(start)
        with pytest.raises(PhotoError, match=r"too much for its pixels") as caught:
            read(cast(BinaryIO, stream))
        assert str(caught.value).isprintable() and stream.given < 200 << 20
    if format:
        assert read_stream(io.BytesIO(start)) == start


def test_a_color_profile_of_many_megabytes_is_ignored(as_file: Encode, colors: np.ndarray) -> None:
    with Image.open(io.BytesIO(as_file(Image.fromarray(colors), "PNG"))) as image:
        data = as_file(image, "PNG", icc_profile=bytes(17 << 20))
    photo = read_photo(data)
    assert photo.warnings == ("its color profile is larger than 16 MB, and is ignored",)
    assert photo.icc_profile is None


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "GIF", "JPEG2000", "BMP", "PPM"])
def test_an_open_file_is_read_in_place_and_stays_open(
    format: str, tmp_path: Path, as_file: Encode, colors: np.ndarray
) -> None:
    path = tmp_path / "open.jpg"
    path.write_bytes(as_file(Image.fromarray(colors), format))
    wanted = read_photo(path)
    with path.open("rb") as file:
        for _ in range(2):
            photo = read_photo(file)
            assert (photo.gray == wanted.gray).all() and photo.name == "open.jpg"
            file.seek(0)


def test_the_padding_of_a_heic_does_not_count(colors: np.ndarray) -> None:
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(Image.fromarray(colors)).save(file, format="HEIF")
    data = file.getvalue()
    assert count_pixels(data) == 53 * 37 and read_photo(data, max_pixels=53 * 37).width_px == 53
    with pytest.raises(PhotoError, match="53 x 37"):
        read_photo(data, max_pixels=53 * 37 - 1)
