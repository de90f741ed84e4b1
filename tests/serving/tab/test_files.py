"""Photos as the tab reads and writes them, in Chromium's worker, against `read_photo`, Pillow, OpenCV and exiftool."""

from __future__ import annotations

import base64
import functools
import http.server
import io
import json
import struct
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage
import tifffile
from PIL import Image, ImageCms

from chromatune.errors import PhotoError
from chromatune.hints import Layer
from chromatune.images import read_photo
from chromatune.serving.site import bundle

WORKER = """
import * as files from "./files.js";
const packed = (value) => {
  if (ArrayBuffer.isView(value)) {
    const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    let text = "";
    for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
    return { kind: value.constructor.name, data: btoa(text) };
  }
  if (Array.isArray(value) || value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, packed(each)]));
};
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
let photo = null;
const calls = {
  async read(data, name, most) { return (photo = await files.readPhoto(bytesOf(data), name, most)); },
  async write(data, provenance) {
    const bytes = bytesOf(data);
    return files.writePhoto(photo.maxValue === 255 ? bytes : new Uint16Array(bytes.buffer), photo, provenance);
  },
  async screen(data, width, height, alpha) {
    const blob = await files.screenImage(bytesOf(data), width, height, alpha && bytesOf(alpha));
    return { type: blob.type, bytes: new Uint8Array(await blob.arrayBuffer()) };
  },
  layer: (text, name) => files.decodeLayer(text, name),
  async large(width, height) {
    const rgb = new Uint8Array(3 * width * height).map((_, i) => (i * 7) >> 5);
    const start = performance.now();
    const written = await files.writePhoto(rgb, { width, height, maxValue: 255, format: "PNG" });
    const between = performance.now();
    const again = await files.readPhoto(written.bytes, "large.png", 1e9);
    const same = again.rgb.every((value, i) => value === rgb[i]);
    return { same, write: between - start, read: performance.now() - between, length: written.bytes.length };
  },
};
onmessage = async ({ data: [call, args] }) => {
  try {
    postMessage({ result: packed(await calls[call](...args)) });
  } catch (error) {
    postMessage({ error: error.message, status: error.status, stack: error.stack });
  }
};
"""
PAGE = """<script>const worker = new Worker("worker.js", { type: "module" });
window.call = (...given) => new Promise((done) => {
  worker.onmessage = ({ data }) => done(data);
  worker.postMessage(given);
});</script>"""


class Tab:
    """The tab's modules in a worker of a browser."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def call(self, name: str, *args: object) -> Any:
        given = [base64.b64encode(arg).decode() if isinstance(arg, bytes) else arg for arg in args]
        answer = self.page.evaluate("([name, args]) => call(name, args)", [name, given])
        if "error" in answer:
            if "status" not in answer:  # no `Refusal`
                raise AssertionError(answer["stack"])
            assert answer["status"] in (400, 415) and "\n" not in answer["error"]
            raise Refused(answer["status"], answer["error"])
        return unpacked(answer["result"])

    def read(self, data: bytes, name: str = "x", most: float = 1e8) -> Any:
        return self.call("read", data, name, most)


class Refused(Exception):
    """A file that the tab refuses: status and line."""


def unpacked(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"kind", "data"}:
        kinds = {"Uint8Array": np.uint8, "Uint16Array": np.uint16, "Float32Array": np.float32}
        return np.frombuffer(base64.b64decode(value["data"]), kinds[value["kind"]])
    return {key: unpacked(each) for key, each in value.items()} if isinstance(value, dict) else value


@pytest.fixture(scope="module")
def tab(tmp_path_factory, libraries, chromium) -> Iterator[Tab]:
    folder = tmp_path_factory.mktemp("tab")
    (libraries / "files_entry.js").write_text(WORKER)
    (folder / "index.html").write_text(PAGE)
    bundle(libraries, "files_entry.js", folder / "worker.js")
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = chromium.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        yield Tab(page)
        page.close()
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server of a folder that logs nothing."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


def by_python(data: bytes, **options: Any) -> Any:
    return read_photo(data, **options)


def file_of(image: Any, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format, **options)
    return file.getvalue()


def by_opencv(samples: np.ndarray) -> bytes:
    order = [2, 1, 0, 3][: samples.shape[2]] if samples.ndim == 3 else slice(None)
    return cv2.imencode(".png", samples[..., order] if samples.ndim == 3 else samples)[1].tobytes()


def make_png(
    samples: np.ndarray, color_type: int, bits: int, *, interlaced: bool = False, chunks: bytes = b""
) -> bytes:
    """A PNG of any kind: (H, W, C) samples, all filters in turn."""
    height, width, channels = samples.shape
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    raw = b""
    for x, y, across, down in passes if interlaced else [(0, 0, 1, 1)]:
        part = samples[y::down, x::across]
        if not part.size:
            continue
        rows = [pack_row(row.reshape(-1), bits) for row in part]
        away, before = max(1, bits * channels // 8), np.zeros(len(rows[0]), int)
        for number, row in enumerate(rows):
            raw += bytes([number % 5]) + filtered(row.astype(int), before, away, number % 5)
            before = row.astype(int)
    head = struct.pack(">2I5B", width, height, bits, color_type, 0, 0, interlaced)
    body = chunk(b"IHDR", head) + chunks + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def pack_row(row: np.ndarray, bits: int) -> np.ndarray:
    if bits == 16:
        return np.frombuffer(row.astype(">u2").tobytes(), np.uint8)
    if bits == 8:
        return row.astype(np.uint8)
    each = (row[:, None] >> np.arange(bits)[::-1]) & 1
    return np.packbits(each.astype(np.uint8).reshape(-1))


def filtered(row: np.ndarray, above: np.ndarray, away: int, kind: int) -> bytes:
    left, corner = (np.concatenate([np.zeros(away, int), each])[: len(row)] for each in (row, above))
    guess = left + above - corner
    to_left, to_above, to_corner = abs(guess - left), abs(guess - above), abs(guess - corner)
    nearest = np.where(
        (to_left <= to_above) & (to_left <= to_corner), left, np.where(to_above <= to_corner, above, corner)
    )
    return ((row - [0, left, above, (left + above) // 2, nearest][kind]) & 255).astype(np.uint8).tobytes()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def assert_same(found: Any, expected: Any, within: int = 0) -> None:
    """Whether the tab's photo is Python's."""
    assert (found["width"], found["height"]) == (expected.width_px, expected.height_px)
    assert (found["maxValue"], found["format"]) == (expected.max_value, expected.format)
    shape = expected.gray.shape
    for name, channels in (("gray", ()), ("rgb", (3,)), ("alpha", ())):
        wanted = getattr(expected, name)
        assert (found[name] is None) == (wanted is None), name
        if wanted is not None:
            difference = np.abs(found[name].reshape(*shape, *channels).astype(int) - wanted.astype(int))
            assert difference.max() <= within, (name, difference.max())
    assert (found["dpi"] is None) == (expected.dpi is None)
    if expected.dpi is not None:
        np.testing.assert_allclose(found["dpi"], expected.dpi, rtol=1e-3)
    assert (found["icc"] is None) == (expected.icc_profile is None)


PHOTO = skimage.data.astronaut()[40:103, 100:177]  # 63 x 77
GRAY = PHOTO.mean(axis=2).astype(np.uint8)
DEEP = PHOTO.astype(np.uint16) * 257 + np.arange(77, dtype=np.uint16)[:, None] % 200
RNG = np.random.default_rng(1)
ALPHA = RNG.integers(0, 256, GRAY.shape, np.uint8)
RGBA, DEEP_RGBA = np.dstack([PHOTO, ALPHA]), np.dstack([DEEP, ALPHA.astype(np.uint16) * 257])


def pngs() -> Iterator[tuple[str, bytes]]:
    """One of each kind, interlaced and not, with a transparent color and without."""
    kinds = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
    palette = RNG.integers(0, 256, (256, 3), np.uint8)
    for color_type, depths in kinds.items():
        for bits in depths:
            channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]
            samples = (DEEP_RGBA[..., [0, 3]] if color_type == 4 else DEEP_RGBA)[..., :channels] >> (16 - bits)
            chunks = chunk(b"PLTE", palette[: 2**bits].tobytes()) if color_type == 3 else b""
            keys = {0: struct.pack(">H", samples[5, 5, 0]), 2: samples[5, 5].astype(">u2").tobytes()}
            keys[3] = bytes([0, 128, 255])[: 2**bits]
            for interlaced in (False, True):
                name = f"type {color_type}, {bits} bits{', interlaced' * interlaced}"
                yield name, make_png(samples, color_type, bits, interlaced=interlaced, chunks=chunks)
                if color_type in keys:
                    with_key = chunks + chunk(b"tRNS", keys[color_type])
                    yield f"{name}, tRNS", make_png(samples, color_type, bits, interlaced=interlaced, chunks=with_key)
    for width in range(1, 10):
        small = DEEP_RGBA[:width, : 10 - width, :3] >> 8
        yield f"{width} px high", make_png(small, 2, 8, interlaced=True)
    yield "neutral", file_of(np.repeat(GRAY[..., None], 3, axis=2), "PNG", dpi=(300, 150))
    yield "gamma", make_png(PHOTO, 2, 8, chunks=chunk(b"gAMA", struct.pack(">I", 100000)))
    yield "by OpenCV", by_opencv(DEEP)


def test_every_kind_of_png_is_read_exactly(tab):
    assert_all_same(tab, pngs())


def assert_all_same(tab: Tab, files: Iterator[tuple[str, bytes]]) -> None:
    different = []
    for name, data in files:
        try:
            assert_same(tab.read(data), by_python(data))
        except (AssertionError, Refused) as error:
            different.append(f"{name}: {str(error)[:300]}")
    assert different == []


@pytest.mark.parametrize("options", [{}, {"subsampling": 0, "quality": 95}, {"progressive": True}, {"dpi": (300, 200)}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_are_read_exactly(tab, mode, options):
    data = file_of(Image.fromarray(PHOTO).convert(mode), "JPEG", **options)
    assert_same(tab.read(data), by_python(data))


@pytest.mark.parametrize(("samples", "format", "options"), [
    (PHOTO, "WEBP", {"lossless": True}), (RGBA, "WEBP", {"lossless": True, "exact": True}),
    (GRAY, "WEBP", {"lossless": True}), (PHOTO, "WEBP", {"quality": 90}), (PHOTO, "BMP", {}), (GRAY, "BMP", {}),
    (GRAY, "GIF", {}), (PHOTO, "AVIF", {"quality": 90}),
])  # fmt: skip
def test_what_else_the_browser_decodes_is_read_exactly(tab, samples, format, options):
    data = file_of(samples, format, **options)
    assert_same(tab.read(data), by_python(data))


def tiffs() -> Iterator[tuple[str, bytes]]:
    """Depths, compressions, predictors, strips, tiles, planes and byte orders."""
    for kind in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        for name, image in (
            ("RGB", PHOTO),
            ("gray", GRAY),
            ("RGBA", RGBA),
            ("1 bit", Image.fromarray(GRAY).convert("1")),
        ):
            yield f"{name}, {kind}", file_of(image, "TIFF", compression=kind, dpi=(300, 300))
        yield f"palette, {kind}", file_of(Image.fromarray(PHOTO).quantize(50), "TIFF", compression=kind)
    layouts: list[dict[str, Any]] = [{}, {"rowsperstrip": 7}, {"tile": (16, 32)}, {"planarconfig": "separate"}]
    for order in "<>":
        for compression in (None, "zlib"):
            for predictor in (None, True) if compression == "zlib" else (None,):
                for samples in (DEEP, DEEP[..., 0], PHOTO, GRAY):
                    for layout in layouts:
                        if layout.get("planarconfig") and samples.ndim == 2:
                            continue
                        shaped = np.moveaxis(samples, -1, 0) if layout.get("planarconfig") else samples
                        file = io.BytesIO()
                        options: dict[str, Any] = {
                            "compression": compression,
                            "predictor": predictor,
                            "byteorder": order,
                            **layout,
                        }
                        photometric = "rgb" if samples.ndim == 3 else "minisblack"
                        tifffile.imwrite(file, shaped, photometric=photometric, metadata=None, **options)
                        yield f"{samples.dtype} {samples.shape} {options}", file.getvalue()
    for samples in (DEEP, DEEP[..., 0], skimage.data.astronaut(), skimage.data.camera()):
        for number in (1, 2):
            asked = [cv2.IMWRITE_TIFF_COMPRESSION, 5, cv2.IMWRITE_TIFF_PREDICTOR, number]
            yield f"LZW {samples.dtype} {number}", cv2.imencode(".tif", samples, asked)[1].tobytes()
    for samples, extra in ((DEEP_RGBA, "unassalpha"), (RGBA, "assocalpha")):
        file = io.BytesIO()
        tifffile.imwrite(file, samples, photometric="rgb", extrasamples=[extra], metadata=None)
        yield extra, file.getvalue()
    file = io.BytesIO()
    tifffile.imwrite(file, DEEP[..., 0], photometric="miniswhite", metadata=None)
    yield "white is zero", file.getvalue()


def test_tiffs_are_read_exactly(tab):
    assert_all_same(tab, tiffs())


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_stand_upright(tab, format, orientation):
    exif = Image.Exif()
    exif[274], exif[271], exif[282], exif[283], exif[296] = orientation, "Maker", 300.0, 150.0, 2
    exif.get_ifd(34665).update({36867: "1999:01:02 03:04:05", 40962: 77, 40963: 63, 40961: 1})
    exif.get_ifd(34853).update({1: "N", 2: (48.0, 8.0, 0.0)})
    data = file_of(PHOTO, format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    found, expected = tab.read(data), by_python(data)
    assert_same(found, expected)
    kept = Image.Exif()
    kept.load(b"Exif\0\0" + found["exif"].tobytes())
    own = Image.Exif()
    own.load(expected.exif)
    for directory in (34665, 34853):
        assert kept.get_ifd(directory) == own.get_ifd(directory)
        assert own.get_ifd(directory) or format == "TIFF"  # Pillow writes none
    assert {tag: value for tag, value in kept.items() if tag not in (34665, 34853)} == {274: 1, 271: "Maker"}


def profile_of(gamma: float) -> bytes:
    """A profile of curves and a matrix: sRGB's colors with other curves."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", profile, 128)[0]
    for index in range(count):
        name, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        if name.endswith(b"TRC"):
            curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
            profile[offset : offset + size] = curve.ljust(size, b"\0")
    return bytes(profile)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("profile", [SRGB, profile_of(1.8), profile_of(1.0), b"no profile at all", bytes(200)])
def test_profiles_are_applied_as_python_does(tab, profile):
    for data in (
        file_of(PHOTO, "PNG", icc_profile=profile), file_of(PHOTO, "JPEG", icc_profile=profile, quality=95),
        file_of(PHOTO, "TIFF", icc_profile=profile), file_of(GRAY, "PNG", icc_profile=profile),
    ):  # fmt: skip
        found, expected = tab.read(data), by_python(data)
        assert_same(found, expected, within=1)
        assert bool(found["warnings"]) == bool(expected.warnings)
        if found["icc"] is not None:
            own = ImageCms.ImageCmsProfile(io.BytesIO(found["icc"].tobytes()))
            probe = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8))
            turned = ImageCms.profileToProfile(probe, own, ImageCms.createProfile("sRGB"))
            assert np.abs(np.asarray(turned).astype(int) - np.asarray(probe)).max() <= 1
    deep = make_png(DEEP, 2, 16, chunks=chunk(b"iCCP", b"x\0\0" + zlib.compress(profile)))
    assert_same(tab.read(deep), by_python(deep), within=1)


def test_a_jpeg_that_lacks_its_end_is_read_with_a_warning(tab):
    whole = file_of(skimage.data.astronaut(), "JPEG", quality=90)
    cut = whole[: int(len(whole) * 0.97)]
    found, expected = tab.read(cut, "old.jpg"), by_python(cut, name="old.jpg")
    assert_same(found, expected)
    assert "incomplete file: the lowest part" in found["warnings"][0] and "is missing" in expected.warnings[0]
    with pytest.raises(Refused, match="x: incomplete file, with too little left to show"):
        tab.read(whole[: len(whole) // 2])


def bombs() -> dict[str, bytes]:
    """Files that ask for much more than they have."""
    endless = zlib.compress(bytes(300 << 20), 9)
    small = by_opencv(PHOTO)
    profile = small[:33] + chunk(b"iCCP", b"x\0\0" + endless) + small[33:]
    text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + endless)
    pixels = small[:33] + chunk(b"IDAT", endless) + chunk(b"IEND", b"")
    return {"profile": profile, "text": small[:33] + text + small[33:], "pixels": pixels}


def test_what_a_file_promises_is_bounded(tab):
    made = bombs()
    assert tab.read(made["profile"])["warnings"] and by_python(made["profile"]).warnings
    assert tab.read(made["text"])["xmp"] is None
    assert tab.read(made["pixels"])["width"] == 77  # as much as the picture has
    for kind, size in {"PNG": 16, "JPEG": 0}.items():
        data = bytearray(file_of(PHOTO, kind))
        place = size or data.index(b"\xff\xc0") + 5
        data[place : place + 8 if size else place + 4] = (
            b"\x7f\xff\xff\xff\x7f\xff\xff\xff" if size else b"\xff\xff\xff\xff"
        )
        with pytest.raises(Refused, match=r"400.*x: \d+ x \d+ = .* million pixels, and the limit is"):
            tab.read(bytes(data))
    with pytest.raises(Refused, match="77 x 63 = 0.0 million pixels"):
        tab.read(file_of(PHOTO, "TIFF"), most=100)


def test_what_is_no_photo_is_refused_in_one_line(tab):
    truth = by_opencv(PHOTO)
    for data in (
        b"",
        b"hello",
        b"GIF8",
        b"BM",
        b"RIFF1234WEBP",
        truth[:40],
        truth[: len(truth) // 2],
        b"II*\0\x08\0\0\0",
    ):
        with pytest.raises(PhotoError):
            by_python(data)
        with pytest.raises(Refused) as caught:
            tab.read(data, "my.png")
        status, line = caught.value.args
        assert line.startswith("my.png: ") and "\n" not in line
        assert status == (415 if data in (b"", b"hello") else 400), line
    lab = file_of(Image.fromarray(PHOTO).convert("LAB"), "TIFF")
    for data in (lab, file_of(PHOTO, "JPEG2000"), file_of(PHOTO, "PPM"), file_of(PHOTO, "TIFF", compression="jpeg")):
        with pytest.raises(
            Refused, match="415.*cannot be read in the browser; use the installed program, or save it as"
        ):
            tab.read(data)


def test_damage_anywhere_is_a_photo_or_one_line(tab):
    tiff = cv2.imencode(".tif", DEEP, [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes()
    exif = Image.Exif()
    exif[271], exif[274] = "Maker", 6
    files = [by_opencv(DEEP), tiff, file_of(PHOTO, "TIFF", compression="packbits"), file_of(PHOTO, "TIFF")]
    files += [file_of(PHOTO, "JPEG", exif=exif, icc_profile=profile_of(1.8)), file_of(RGBA, "WEBP", exif=exif)]
    for data in files:
        for _ in range(25):
            broken = bytearray(data)
            for place in RNG.integers(0, min(len(data), int(RNG.choice([400, len(data)]))), 3):
                broken[place] = RNG.integers(0, 256)
            with suppress(Refused):  # any other failure is none
                tab.read(bytes(broken), most=1e6)


def exiftool(data: bytes, folder: Path) -> Any:
    (folder / "file").write_bytes(data)
    done = subprocess.run(
        ["exiftool", "-j", "-n", "-G1", "-validate", "-all", folder / "file"], capture_output=True, check=True
    )
    return json.loads(done.stdout)[0]


def tagged(format: str, samples: np.ndarray, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[271], exif[306], exif[274] = "Maker", "1999:01:02 03:04:05", 6
    exif.get_ifd(34665)[36867] = "1998:01:02 03:04:05"
    return file_of(samples, format, exif=exif, dpi=(300, 200), icc_profile=SRGB, **options)


XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" photoshop:City="Köln"/></rdf:RDF></x:xmpmeta>'
    '<?xpacket end="w"?>'
)


@pytest.mark.parametrize(("data", "suffix"), [
    (lambda: tagged("JPEG", PHOTO), ".jpg"), (lambda: tagged("PNG", PHOTO), ".png"),
    (lambda: tagged("PNG", RGBA), ".png"), (lambda: tagged("TIFF", PHOTO), ".png"),
    (lambda: by_opencv(DEEP), ".png"), (lambda: by_opencv(DEEP_RGBA), ".png"),
])  # fmt: skip
def test_results_keep_pixels_and_what_the_photo_says(tab, tmp_path, data: Callable[[], bytes], suffix):
    photo = tab.read(data())
    shape = (photo["height"], photo["width"], 3)
    rgb = photo["rgb"].reshape(shape)[..., [2, 0, 1]]  # other colors
    written = tab.call("write", rgb.tobytes(), XMP)
    assert written["suffix"] == suffix and bool(written["warnings"]) == (photo["format"] == "TIFF")
    result = written["bytes"].tobytes()
    again = by_python(result)
    if suffix == ".jpg":
        assert np.abs(again.rgb.astype(int) - rgb).mean() < 6
    else:
        np.testing.assert_array_equal(again.rgb, rgb)
        assert again.rgb.dtype == rgb.dtype
        order = [2, 1, 0, 3] if photo["alpha"] is not None else [2, 1, 0]
        decoded: Any = cv2.imdecode(np.frombuffer(result, np.uint8), cv2.IMREAD_UNCHANGED)
        samples = decoded[..., order]
        np.testing.assert_array_equal(samples[..., :3], rgb)
        if photo["alpha"] is not None:
            np.testing.assert_array_equal(samples[..., 3].reshape(-1), photo["alpha"])
    told = exiftool(result, tmp_path)
    assert told["XMP-photoshop:City"] == "Köln" and not told.get("ExifTool:Error")
    if photo["exif"] is not None:
        assert told["IFD0:Make"] == "Maker" and told["IFD0:Orientation"] == 1
        assert photo["format"] == "TIFF" or told["ExifIFD:DateTimeOriginal"] == "1998:01:02 03:04:05"
        assert told["ICC_Profile:ProfileDescription"] == "sRGB"
        np.testing.assert_allclose(again.dpi, (200, 300), rtol=1e-3)
    assert told["ExifTool:Validate"].split()[0] == "0", told


def test_pictures_for_the_screen(tab):
    jpeg = tab.call("screen", PHOTO.tobytes(), 77, 63, None)
    assert jpeg["type"] == "image/jpeg"
    assert np.abs(np.asarray(Image.open(io.BytesIO(jpeg["bytes"].tobytes()))).astype(int) - PHOTO).mean() < 6
    png = tab.call("screen", PHOTO.tobytes(), 77, 63, ALPHA.tobytes())
    assert png["type"] == "image/png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png["bytes"].tobytes()))), RGBA)


def test_layers_are_pythons(tab):
    for samples in (RGBA, np.dstack([GRAY, GRAY, GRAY, ALPHA])):
        text = base64.b64encode(file_of(samples, "PNG")).decode()
        found = tab.call("layer", text, "sky")
        expected = Layer(png=text.encode(), width_px=77, height_px=63).rgba
        np.testing.assert_array_equal(found["rgba"].reshape(expected.shape), expected)
    with pytest.raises(Refused, match="sky has no transparency"):
        tab.call("layer", base64.b64encode(file_of(PHOTO, "PNG")).decode(), "sky")


@pytest.mark.slow
def test_a_large_result_is_written_and_read(tab):
    found = tab.call("large", 6000, 4000)
    print(found)
    assert found["same"]
