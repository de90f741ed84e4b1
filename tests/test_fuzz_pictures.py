"""Photos, painted layers and hints from strangers, at random but seeded, in a process of little memory and few files.

Each is a result or one line; that memory and descriptors stay bounded, the limits of the process assert. Slow:
`make slow` runs it. `python tests/test_fuzz_pictures.py DOOR` runs one door alone.
"""

from __future__ import annotations

import io
import json
import resource
import struct
import subprocess
import sys
import zlib
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, features

from chromatune.errors import ChromaTuneError
from chromatune.hints import Hints, draw
from chromatune.images import Photo, count_pages, count_pixels, read_photo

pytestmark = pytest.mark.slow

TRIES = 1500
MOST_MIB, MOST_FILES = 700, 64
MAX_PIXELS = 4_000_000  # of which reading takes up to 40 bytes each
SIZES = (0, 1, 2, 255, 256, 4096, 16_383, 65_535, 2**24, 2**31 - 1, 2**32 - 1)
PHOTO = Photo(np.full((80, 120), 120, np.uint8), name="gray.png")
STRANGE: list[Any] = [
    None, True, -1, 0.5, 2**63, 10**400, 1e300, "", "x" * 5000, "\x1b[31m\r\n", [], {}, [[]] * 20_000,
    [[1, 1]] * 50_000, [[[[[[[[[[[[]]]]]]]]]]]], {"a": {"b": {}}}, "#gggggg", "NaN",
]  # fmt: skip


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def wholes() -> list[bytes]:
    """Good files of many kinds."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (24, 31, 4), np.uint8), "RGBA")
    exif = Image.Exif()
    exif[271], exif[272] = "Leica", "M" * 300
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("RGB", "JPEG", {"exif": exif}), ("L", "JPEG", {"progressive": True}), ("CMYK", "JPEG", {}),
        ("RGBA", "PNG", {"exif": exif}), ("P", "PNG", {"transparency": 3}), ("RGB", "GIF", {}), ("RGB", "BMP", {}),
        ("RGBA", "WEBP", {"lossless": True}), ("RGB", "WEBP", {"exif": exif}), ("RGB", "JPEG2000", {}),
        ("RGBA", "TIFF", {"compression": "tiff_lzw"}), ("RGB", "TIFF", {"compression": "jpeg"}), ("RGB", "PPM", {}),
    ]  # fmt: skip
    files = [encoded(small.convert(mode), format, **options) for mode, format, options in kinds]
    if features.check("avif"):
        files.append(encoded(small, "AVIF"))
    frames = [small.convert("P").rotate(10 * number) for number in range(4)]
    files += [encoded(frames[0], kind, save_all=True, append_images=frames[1:]) for kind in ("GIF", "PNG", "TIFF")]
    for options in ({"compression": "zlib", "predictor": True}, {"tile": (16, 16)}, {"photometric": "separated"}):
        file = io.BytesIO()
        tifffile.imwrite(file, rng.integers(0, 65536, (40, 30, 4), np.uint16), **options)
        files.append(file.getvalue())
    return files


def spoiled(data: bytes, rng: np.random.Generator) -> bytes:
    """Numbers set to sizes that are too large, pieces repeated, cut out or cut off, noise."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(min(len(changed), 400 if rng.random() < 0.7 else len(changed)) or 1))
        match int(rng.integers(6)):
            case 0 | 1:
                kind = ("<H", ">H", "<L", ">L")[int(rng.integers(4))]
                value = SIZES[int(rng.integers(len(SIZES)))] & (0xFFFF if kind[1] == "H" else 0xFFFFFFFF)
                changed[place : place + struct.calcsize(kind)] = struct.pack(kind, value)
            case 2:
                changed[place : place + 1] = rng.bytes(1)
            case 3:
                changed[place:place] = changed[place : place + int(rng.integers(1, 4000))] * int(rng.integers(1, 40))
            case 4:
                del changed[place : place + int(rng.integers(1, 40))]
            case _:
                changed += bytes(int(rng.integers(1, 5_000_000))) if rng.random() < 0.2 else rng.bytes(9)
    if changed.startswith(b"\x89PNG") and rng.random() < 0.8:
        return with_checksums(bytes(changed))
    return bytes(changed)


def with_checksums(png: bytes) -> bytes:
    """The same chunks, with the checksums that they should have: else a changed PNG ends there."""
    out, position = [png[:8]], 8
    while position + 12 <= len(png):
        length = struct.unpack_from(">I", png, position)[0]
        body = png[position + 4 : position + 8 + length]
        out += [struct.pack(">I", length), body, struct.pack(">I", zlib.crc32(body))]
        position += 12 + length
    return b"".join(out)


def hints_json(rng: np.random.Generator) -> bytes:
    """Hints with strange values, many marks, or damage to the text itself."""
    layer = Image.fromarray(rng.integers(0, 256, (8, 12, 4), np.uint8), "RGBA")
    png = b64encode(spoiled(encoded(layer, "PNG"), rng) if rng.random() < 0.5 else encoded(layer, "PNG")).decode()
    marks: list[Any] = [
        {"points": [[5, 5], [40.5, 30]], "radius_px": 4, "color": "#a03020"},
        {"points": [[1, 1]], "color": [1, 2, 3]},
        {"png": png, "width_px": 12, "height_px": 8, "name": "l.png"},
    ]
    marks *= (1, 2, 40, 5000)[int(rng.integers(4))] if len(png) < 3000 else 1
    if rng.random() < 0.7:
        mark = dict(marks[int(rng.integers(len(marks)))])
        mark[list(mark)[int(rng.integers(len(mark)))]] = STRANGE[int(rng.integers(len(STRANGE)))]
        marks.insert(int(rng.integers(len(marks))), mark)
    given: Any = {"marks": marks} if rng.random() < 0.9 else {"marks": STRANGE[int(rng.integers(len(STRANGE)))]}
    data = json.dumps(given).encode()
    return spoiled(data, rng) if rng.random() < 0.3 else data


def read_any(data: bytes) -> None:
    for read in (count_pixels, count_pages, partial(read_photo, max_pixels=MAX_PIXELS)):
        is_line(partial(read, data))


def is_line(work: Callable[[], object]) -> None:
    """Check that work gives a result or one of our errors of one line, and does not run out of memory."""
    try:
        work()
    except ChromaTuneError as error:
        line = str(error)
        assert line.isprintable() and 0 < len(line) < 1000, line[:1000]
        assert "not enough memory" not in line, line


def run_door(door: str) -> None:
    """Try a door's inputs."""
    rng, good = np.random.default_rng(sum(door.encode())), wholes()
    for data in good:
        read_photo(data)  # what is loaded late is loaded
    draw(Hints().point(5, 5, "red"), PHOTO, (80, 120))
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_AS, (used + (MOST_MIB << 20),) * 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_FILES, MOST_FILES))
    for number in range(TRIES):
        data = hints_json(rng) if door == "hints" else spoiled(good[int(rng.integers(len(good)))], rng)
        try:
            if door == "photos":
                read_any(data)
            elif door == "layers":
                is_line(lambda data=data: Hints.from_layer(data, max_pixels=MAX_PIXELS))  # type: ignore[misc]
            else:
                is_line(lambda data=data: draw(Hints.from_json(data), PHOTO, (80, 120)))  # type: ignore[misc]
        except Exception as error:
            raise AssertionError(f"{door}, number {number}: {type(error).__name__}") from error


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space")
@pytest.mark.parametrize("door", ["photos", "layers", "hints"])
def test_whatever_comes_is_a_result_or_a_line(door: str) -> None:
    done = subprocess.run([sys.executable, __file__, door], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


if __name__ == "__main__":
    run_door(sys.argv[1])
