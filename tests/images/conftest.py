"""Pictures and profiles for the tests of `chromatune.images`, drawn here: no file is downloaded or kept."""

import io
import struct

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def as_file():
    """A function: a Pillow image ⇒ the bytes of a file of the given format."""

    def encode(image: Image.Image, format: str, **options) -> bytes:
        file = io.BytesIO()
        image.save(file, format, **options)
        return file.getvalue()

    return encode


@pytest.fixture(scope="session")
def colors():
    """(37, 53, 3) uint8: smooth, colorful, with pure black and white, no symmetry."""
    rows, columns = np.mgrid[0:37, 0:53]
    picture = np.stack([rows * 6, columns * 4, (rows * 5 + columns * 3) % 256], axis=-1).astype(np.uint8)
    picture[0, 0], picture[36, 52] = 0, 255
    picture.flags.writeable = False  # all tests share it
    return picture


@pytest.fixture(scope="session")
def deep_colors():
    """(23, 31, 3) uint16 noise over the whole range, both ends included."""
    picture = np.random.default_rng(0).integers(0, 65536, (23, 31, 3), dtype=np.uint16)
    picture[0, 0], picture[0, 1] = 0, 65535
    picture.flags.writeable = False  # all tests share it
    return picture


@pytest.fixture(scope="session")
def make_profile():
    """A function: color space, connection space and tags ⇒ the bytes of an ICC v2 profile."""

    def pack(space: bytes, connection: bytes, tags: dict[bytes, bytes], device: bytes = b"mntr") -> bytes:
        table, body = struct.pack(">I", len(tags)), b""
        start = 128 + 4 + 12 * len(tags)
        for name, content in tags.items():
            table += struct.pack(">4sII", name, start + len(body), len(content))
            body += content + b"\0" * (-len(content) % 4)
        header = struct.pack(">I4sI4s4s4s", start + len(body), b"test", 0x02400000, device, space, connection)
        header += b"\0" * 12 + b"acsp" + b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061)
        return header.ljust(128, b"\0") + table + body

    return pack


@pytest.fixture(scope="session")
def xyz():
    """A function: three numbers ⇒ an ICC tag of type XYZ."""
    return lambda *values: b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


@pytest.fixture(scope="session")
def gamma_curve():
    """A function: an exponent ⇒ an ICC tag of type curve."""
    return lambda gamma: b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
