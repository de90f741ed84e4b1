"""Which picture of a file of several is the photo, and that nothing is left out without a word."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from chromatune.errors import PhotoError
from chromatune.images import count_pages, count_pixels, read_photo

pytestmark = pytest.mark.filterwarnings("error")


def level(value, width=30, height=20):
    return np.full((height, width), value, np.uint8)


def tiff(*pages, bigtiff=False, byteorder="<"):
    """A TIFF of (array, options of `tifffile.TiffWriter.write`)."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file, bigtiff=bigtiff, byteorder=byteorder) as writer:
        for array, options in pages:
            writer.write(array, **{"photometric": "minisblack", "metadata": None, **options})
    return file.getvalue()


def as_mask(data):
    """The TIFF with its smaller copies called masks, which tifffile writes in black and white alone."""
    return data.replace(struct.pack("<HHLL", 254, 4, 1, 1), struct.pack("<HHLL", 254, 4, 1, 4))


REDUCED, PAGE = {"subfiletype": 1}, {"subfiletype": 2}
CONTAINERS = {
    "thumbnail first": (tiff((level(1, 8, 5), REDUCED), (level(2), {})), 2, 1),
    "thumbnail first, not marked": (tiff((level(1, 8, 5), {}), (level(2), {})), 2, 2),
    "thumbnail last": (tiff((level(2), {}), (level(1, 8, 5), REDUCED)), 2, 1),
    "pyramid": (tiff((level(2), {}), *((level(1, 30 // n, 20 // n), REDUCED) for n in (2, 4))), 2, 1),
    "photo in a SubIFD": (tiff((level(1, 8, 5), {"subifds": 1, **REDUCED}), (level(2), {})), 2, 1),
    "thumbnail in a SubIFD": (tiff((level(2), {"subifds": 1}), (level(1, 8, 5), REDUCED)), 2, 1),
    "mask of the same size": (as_mask(tiff((level(2), {}), (level(1), REDUCED))), 2, 1),
    "three scans": (tiff((level(2), PAGE), (level(3), PAGE), (level(4), PAGE)), 2, 3),
    "the second is larger": (tiff((level(1), PAGE), (level(2, 60, 40), PAGE)), 2, 2),
    "all marked as reduced": (tiff((level(1, 8, 5), REDUCED), (level(2), REDUCED)), 2, 2),
}
ORDERS: dict[str, dict[str, Any]] = {"little": {}, "big": {"byteorder": ">"}, "64 bits": {"bigtiff": True}}


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_photo_of_a_tiff_is_its_largest_full_page(name, tmp_path):
    data, gray, pages = CONTAINERS[name]
    path = tmp_path / "scan.tif"
    path.write_bytes(data)
    for source in (data, path, io.BytesIO(data)):
        photo = read_photo(source)
        assert (photo.gray == gray).all()
        assert count_pages(source if not isinstance(source, io.BytesIO) else data) == pages
        told = any(f"{pages} pictures" in warning and "page" in warning for warning in photo.warnings)
        assert told == (pages > 1)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["gray", "color", "16 bits", "16-bit color", "float", "compressed"])
def test_every_page_is_read_by_number(kind, order):
    drawn = [np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8) for seed in range(3)]
    options: dict[str, Any] = {"photometric": "rgb"}
    if kind in ("gray", "16 bits"):
        drawn, options = [page[..., 0] for page in drawn], {}
    if kind == "compressed":
        options["compression"] = "zlib"
    stored: list[np.ndarray] = [page.astype(np.uint16) * 257 for page in drawn] if "16" in kind else [*drawn]
    stored = [page.astype(np.float32) / 255 for page in drawn] if kind == "float" else stored
    data = tiff(*((page, options) for page in stored), **ORDERS[order])
    assert count_pages(data) == 3
    for number, page in enumerate(drawn, 1):
        photo = read_photo(data, page=number)
        samples = photo.gray if photo.rgb is None else photo.rgb
        assert photo.max_value == (65535 if "16" in kind or kind == "float" else 255)
        assert np.array_equal(np.rint(samples / (photo.max_value / 255)), page)


@pytest.mark.parametrize("page", [0, -1, 4, 10**30])
def test_a_page_that_is_not_there(page, as_file, colors):
    data = tiff(*((level(value), PAGE) for value in range(3)))
    with pytest.raises(PhotoError, match=r"^photo: has no page .*numbers 1 to 3$"):
        read_photo(data, page=page)
    for single in (as_file(Image.fromarray(colors), "PNG"), Image.fromarray(colors), colors):
        with pytest.raises(PhotoError, match="the only picture is number 1"):
            read_photo(single, page=page)
        assert np.array_equal(np.asarray(read_photo(single, page=1).rgb), colors)
        assert count_pages(single) == 1


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "AVIF", "MPO", "TIFF"])
def test_animations_and_other_containers(format, as_file):
    frames = [Image.new("RGB", (32, 16), (value,) * 3) for value in (40, 120, 200)]
    options = {} if format in ("GIF", "MPO", "TIFF", "AVIF") else {"lossless": True}
    data = as_file(frames[0], format, save_all=True, append_images=frames[1:], **options)
    photo = read_photo(data)
    assert abs(int(photo.gray[5, 5]) - 40) <= 2
    assert any("3 pictures" in warning and "number 1 is read" in warning for warning in photo.warnings)
    assert count_pages(data) == 3
    for number, value in enumerate((40, 120, 200), 1):
        chosen = read_photo(data, page=number)
        assert abs(int(chosen.gray[5, 5]) - value) <= 2
    with Image.open(io.BytesIO(data)) as image:
        assert abs(int(read_photo(image, page=2).gray[5, 5]) - 120) <= 2
        assert count_pages(image) == 3


def test_a_jpegs_own_thumbnail_is_no_page(as_file, colors):
    data = bytearray(as_file(Image.fromarray(colors), "MPO", save_all=True, append_images=[Image.new("RGB", (16, 12))]))
    for kind in (0x010001, 0x010002):
        place = data.index(struct.pack("<L", 0x030000)) + 16  # the second entry's attributes
        data[place : place + 4] = struct.pack("<L", kind)
        assert count_pages(bytes(data)) == 1
        assert read_photo(bytes(data)).warnings == ()


def test_a_heic_of_several_pictures():
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    container = heif.from_pillow(Image.new("RGB", (64, 32), (40,) * 3))
    for value in (120, 200):
        container.add_from_pillow(Image.new("RGB", (64, 32), (value,) * 3))
    container.save(file, quality=-1, primary_index=1)
    data = file.getvalue()
    photo = read_photo(data)
    assert count_pages(data) == 3
    assert abs(int(photo.gray[5, 5]) - 120) <= 2  # the primary one
    assert any("number 2 is read" in warning for warning in photo.warnings)
    assert abs(int(read_photo(data, page=3).gray[5, 5]) - 200) <= 2
    assert read_photo(data, page=3).format == "HEIF"


def raw(make, **options):
    """A TIFF as cameras write them: a thumbnail, and sensor data in a SubIFD."""
    sensor = np.zeros((40, 60, 3) if options.get("photometric") == 34892 else (40, 60), np.uint16)
    tags = [(271, 2, len(make) + 1, make, True), *options.get("tags", ())]
    return tiff(
        (np.zeros((5, 8, 3), np.uint8), {"photometric": "rgb", "subifds": 1, **REDUCED, "extratags": tags}),
        (sensor, {"photometric": options.get("photometric", 32803)}),
    )


DNG_VERSION = (50706, 1, 4, (1, 4, 0, 0), True)
CAMERA_RAWS = {
    "NEF": raw("NIKON CORPORATION"),
    "ARW": raw("SONY"),
    "PEF": raw("PENTAX"),
    "DNG": raw("Leica", tags=[DNG_VERSION]),
    "TIFF with sensor data": raw("Nobody"),
    "CR2": b"II*\0\x10\0\0\0CR\2\0" + bytes(200),
    "CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(200),
    "RAF": b"FUJIFILMCCD-RAW 0201" + bytes(200),
    "ORF": b"IIRO\x08\0\0\0" + bytes(200),
    "RW2": b"IIU\0\x18\0\0\0" + bytes(200),
}
CAMERA_RAWS["DNG, linear"] = raw("VueScan", photometric=34892, tags=[DNG_VERSION])


@pytest.mark.parametrize("name", CAMERA_RAWS)
def test_a_camera_raw_file_is_told_by_name(name, tmp_path):
    path = tmp_path / "old.tif"
    path.write_bytes(CAMERA_RAWS[name])
    kind = name.split(",")[0]
    for call in (read_photo, count_pages):
        with pytest.raises(PhotoError) as caught:
            call(path)
        assert str(caught.value) == f"{path}: is a camera raw file ({kind}): develop it to TIFF first"


@pytest.mark.parametrize("damage", ["endless", "far away", "cut", "endless SubIFDs"])
def test_damaged_directories_are_read_or_refused(damage):
    if damage == "endless SubIFDs":
        tag = (330, 4, 2, (8, 8), True)  # the first directory is its own child, twice
        data = tiff((level(7), {"extratags": [tag]}))
        assert (read_photo(data.replace(struct.pack("<LL", 8, 8), data[4:8] * 2)).gray == 7).all()
        return
    data = bytearray(tiff(*((level(value), PAGE) for value in (7, 8))))
    first = struct.unpack_from("<L", data, 4)[0]
    count = struct.unpack_from("<H", data, first)[0]
    link = first + 2 + 12 * count
    if damage == "cut":
        del data[struct.unpack_from("<L", data, link)[0] + 6 :]
    else:
        struct.pack_into("<L", data, link, first if damage == "endless" else 2**31)
    assert (read_photo(bytes(data)).gray == 7).all()


def test_pixels_are_counted_by_the_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 50)).astype(np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])  # it cannot be decoded
    with pytest.raises(PhotoError):
        read_photo(path)
    with path.open("rb") as file:
        assert [count_pixels(each) for each in (path, data, file, np.zeros((3, 4)))] == [1500, 1500, 1500, 12]
    path.write_bytes(b"none")
    with pytest.raises(PhotoError, match="called so: not a picture"):
        count_pixels(path, name="called so")
