"""Orientation, EXIF, resolution and ICC profiles on the way in."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from chromatune.color import luma
from chromatune.images import read_photo

pytestmark = pytest.mark.filterwarnings("error")

ORIENTATION, MAKE, DATE, EXIF_IFD, GPS_IFD, DATE_TAKEN, MAKER_NOTE = 274, 271, 306, 34665, 34853, 36867, 37500

# what the camera stored, so that showing it as the tag says gives the upright picture (EXIF 2.32, 4.6.5.1.6)
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


def camera_exif(orientation=1):
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKE], exif[DATE] = orientation, "Leica", "1957:10:04 19:28:34"
    details = {DATE_TAKEN: "1957:10:04 19:28:34", 40961: 65535, 40962: 37, 40963: 53, MAKER_NOTE: b"secret"}
    exif.get_ifd(EXIF_IFD).update(details)
    exif.get_ifd(GPS_IFD).update({1: "N", 2: (48.0, 12.0, 30.0)})
    return exif


def tags_of(block):
    exif = Image.Exif()
    exif.load(block)
    return exif


@pytest.mark.parametrize(
    "format", ["PNG", "TIFF", *(pytest.param(name, marks=pytest.mark.slow) for name in ("WEBP", "JPEG", "IMAGE"))]
)
@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_gives_the_same_upright_picture(orientation, format, colors, as_file):
    alpha = colors[..., 0]
    upright = np.dstack([colors, alpha]) if format != "JPEG" else np.dstack([colors // 64 * 60] * 3)[..., :3]
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    options: dict[str, dict[str, Any]] = {
        "WEBP": {"lossless": True, "exact": True},
        "JPEG": {"quality": 100, "subsampling": 0},
    }
    exif = camera_exif(orientation).tobytes()
    data = as_file(image, "PNG" if format == "IMAGE" else format, exif=exif, **options.get(format, {}))
    photo = read_photo(Image.open(io.BytesIO(data)) if format == "IMAGE" else data)
    tolerance = 6 if format == "JPEG" else 0
    assert np.abs(np.asarray(photo.rgb).astype(int) - upright[..., :3]).max() <= tolerance
    assert np.abs(photo.gray.astype(int) - luma(upright[..., :3])).max() <= tolerance
    if format != "JPEG":
        assert np.array_equal(np.asarray(photo.alpha), alpha)
    tags = tags_of(photo.exif)
    assert tags[ORIENTATION] == 1
    assert (tags.get_ifd(EXIF_IFD)[40962], tags.get_ifd(EXIF_IFD)[40963]) == (53, 37)


@pytest.mark.parametrize("orientation", STORED)
def test_16_bit_color_is_turned_upright_too(orientation, deep_colors, as_file):
    import cv2

    stored = np.ascontiguousarray(STORED[orientation](deep_colors))
    data = cv2.imencode(".png", stored[..., ::-1])[1].tobytes()
    shallow = as_file(Image.fromarray(np.uint8(stored >> 8)), "PNG", exif=camera_exif(orientation))
    start = shallow.index(b"eXIf") - 4
    chunk = shallow[start : start + 12 + struct.unpack_from(">I", shallow, start)[0]]
    assert np.array_equal(np.asarray(read_photo(data[:33] + chunk + data[33:]).rgb), deep_colors)


def test_exif_keeps_date_camera_and_place_and_drops_the_thumbnail(colors, as_file):
    exif = camera_exif()
    exif[282], exif[273] = 300.0, 12345
    data = as_file(Image.fromarray(colors), "JPEG", exif=exif)
    tags = tags_of(read_photo(data).exif)
    assert (tags[MAKE], tags[DATE]) == ("Leica", "1957:10:04 19:28:34")
    assert tags.get_ifd(EXIF_IFD)[DATE_TAKEN] == "1957:10:04 19:28:34"
    assert tags.get_ifd(EXIF_IFD)[MAKER_NOTE] == b"secret"
    assert tags.get_ifd(GPS_IFD)[2] == (48.0, 12.0, 30.0)
    assert 273 not in tags
    assert not tags.get_ifd(1)  # the thumbnail's directory


def test_text_beyond_ascii_survives(colors, as_file):
    exif = Image.Exif()
    exif[33432] = "© José".encode()
    tags = tags_of(read_photo(as_file(Image.fromarray(colors), "JPEG", exif=exif)).exif)
    assert tags[33432].encode("latin-1").decode() == "© José"


def test_an_exif_block_too_long_for_a_jpeg_loses_its_maker_note(colors, as_file):
    exif = camera_exif()
    exif.get_ifd(EXIF_IFD)[MAKER_NOTE] = bytes(70_000)
    block = read_photo(as_file(Image.fromarray(colors), "PNG", exif=exif)).exif
    assert block is not None and len(block) < 65_000
    assert tags_of(block).get_ifd(EXIF_IFD)[DATE_TAKEN] == "1957:10:04 19:28:34"


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG", "BMP"])
def test_resolution_is_read_and_turned(format, orientation, colors, as_file):
    dpi = (300, 300) if format == "JPEG" else (300, 600)
    options = {} if format == "BMP" else {"exif": camera_exif(orientation)}
    photo = read_photo(as_file(Image.fromarray(colors), format, dpi=dpi, **options))
    turned = orientation == 6 and format != "BMP"
    assert photo.dpi == pytest.approx(dpi[::-1] if turned else dpi, abs=0.02)
    assert read_photo(colors).dpi is None


def srgb_bytes():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_an_srgb_profile_changes_no_pixel_and_stays(colors, as_file):
    photo = read_photo(as_file(Image.fromarray(colors), "PNG", icc_profile=srgb_bytes()))
    assert np.array_equal(np.asarray(photo.rgb), colors)
    assert photo.icc_profile is not None
    assert ImageCms.ImageCmsProfile(io.BytesIO(photo.icc_profile)).profile.xcolor_space.strip() == "RGB"
    assert photo.icc_profile[24:36] == struct.pack(">6H", 2000, 1, 1, 0, 0, 0)  # no clock in a result


def test_a_profile_that_is_nearly_srgb_changes_no_pixel(colors, as_file, make_profile, xyz):
    curve = b"para\0\0\0\0" + struct.pack(
        ">2H5i", 3, 0, *(int(v * 65536) for v in (2.41, 0.948, 0.052, 0.0774, 0.0404))
    )
    tags = {
        b"rXYZ": xyz(0.4361, 0.2225, 0.0139),
        b"gXYZ": xyz(0.3851, 0.7169, 0.0971),
        b"bXYZ": xyz(0.1431, 0.0606, 0.7141),
    }
    tags |= {b"wtpt": xyz(0.9642, 1.0, 0.8249), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    profile = make_profile(b"RGB ", b"XYZ ", tags)
    photo = read_photo(as_file(Image.fromarray(colors), "PNG", icc_profile=profile))
    assert np.array_equal(np.asarray(photo.rgb), colors)
    assert photo.icc_profile not in (None, profile)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_a_profile_with_swapped_channels_is_undone(format, as_file):
    swapped = srgb_bytes().replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    red = Image.new("RGB", (16, 16), (255, 0, 0))
    options = {"lossless": True} if format == "WEBP" else {}
    photo = read_photo(as_file(red, format, icc_profile=swapped, **options))
    assert np.abs(np.asarray(photo.rgb)[8, 8].astype(int) - [0, 255, 0]).max() <= 3
    assert photo.icc_profile is not None
    assert b"????" not in photo.icc_profile


PARAMETRIC = {
    "gamma 1.8": struct.pack(">2H1i", 0, 0, round(1.8 * 65536)),
    "type 1": struct.pack(">2H3i", 1, 0, *(round(v * 65536) for v in (2.2, 1.1, -0.1))),
    "type 3": struct.pack(">2H5i", 3, 0, *(round(v * 65536) for v in (2.4, 0.9479, 0.0521, 0.0774, 0.0405))),
    "type 4": struct.pack(">2H7i", 4, 0, *(round(v * 65536) for v in (2.4, 0.94, 0.06, 0.08, 0.04, 0.0, 0.0))),
}
CURVES = {name: b"para\0\0\0\0" + content for name, content in PARAMETRIC.items()}
CURVES["linear"] = b"curv\0\0\0\0" + struct.pack(">I", 0)
CURVES["gamma 2.2"] = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256))
TABLE = (np.linspace(0, 1, 300) ** 2.5 * 65535).round().astype(">u2")
CURVES["table"] = b"curv\0\0\0\0" + struct.pack(">I", 300) + TABLE.tobytes()


def adobe_rgb(make_profile, xyz, curve, table=None):
    primaries = {
        b"rXYZ": xyz(0.60974, 0.31111, 0.01947),
        b"gXYZ": xyz(0.20528, 0.62567, 0.06087),
        b"bXYZ": xyz(0.14919, 0.06322, 0.74457),
    }
    tags = {b"wtpt": xyz(0.9642, 1.0, 0.8249), **primaries, b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    return make_profile(b"RGB ", b"XYZ ", tags | ({b"A2B0": table} if table else {}))


@pytest.mark.parametrize("name", CURVES)
def test_16_bit_color_through_a_profile_agrees_with_littlecms(name, make_profile, xyz):
    profile = adobe_rgb(make_profile, xyz, CURVES[name])
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    rgb = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(18, -1, 3)
    shallow = Image.fromarray(rgb)
    shallow.info["icc_profile"] = profile
    wanted = read_photo(shallow)
    photo = read_photo(tiff_16(rgb.astype(np.uint16) * 257, profile))
    assert photo.gray.dtype == np.uint16
    assert not np.array_equal(np.asarray(wanted.rgb), rgb)
    assert np.abs(np.asarray(photo.rgb) / 257 - np.asarray(wanted.rgb)).max() <= (2.5 if name == "linear" else 1.2)
    assert photo.icc_profile == wanted.icc_profile is not None


def tiff_16(array, profile=None, photometric="rgb"):
    import tifffile

    file = io.BytesIO()
    extra = [(34675, 7, len(profile), profile, True)] if profile else []
    tifffile.imwrite(file, array, photometric=photometric, extratags=extra)
    return file.getvalue()


def test_16_bit_gray_through_a_profile_stays_smooth(make_profile, xyz, gamma_curve):
    tags = {b"wtpt": xyz(0.9642, 1.0, 0.8249), b"kTRC": gamma_curve(1.8)}
    profile = make_profile(b"GRAY", b"XYZ ", tags)
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    photo = read_photo(tiff_16(ramp, profile, "minisblack"))
    linear = (ramp / 65535) ** (461 / 256)
    wanted = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 65535
    assert np.abs(photo.gray - wanted).max() <= 1
    assert (np.diff(photo.gray.ravel().astype(int)) >= 0).all()
    shallow = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    shallow.info["icc_profile"] = profile
    assert np.abs(read_photo(shallow).gray[0] - wanted.ravel()[::257] / 257).max() <= 1.6


@pytest.mark.parametrize("also_curves", [False, True])
def test_a_16_bit_picture_with_a_table_profile_follows_littlecms(also_curves, make_profile, xyz, gamma_curve):
    if also_curves:
        profile = adobe_rgb(make_profile, xyz, gamma_curve(2.2), table=lut_8(3))
    else:
        profile = make_profile(b"RGB ", b"Lab ", {b"A2B0": lut_8(3), b"wtpt": xyz(0.9642, 1.0, 0.8249)})
    rgb = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    shallow = Image.fromarray(rgb)
    shallow.info["icc_profile"] = profile
    photo = read_photo(tiff_16(rgb.astype(np.uint16) * 257, profile))
    wanted = np.asarray(read_photo(shallow).rgb)
    assert np.array_equal(np.asarray(photo.rgb), wanted.astype(np.uint16) * 257)
    assert not np.array_equal(wanted, rgb)


def lut_8(inputs):
    """An ICC table of two points per axis from `inputs` inks to Lab: each darkens, the first one is green."""
    corners = np.stack(np.meshgrid(*[[0, 1]] * inputs, indexing="ij"), axis=-1).reshape(-1, inputs)
    lightness = np.clip(100 - 25 * corners.sum(axis=1), 0, 100)
    lab = np.stack([lightness * 2.55, 128 - 50 * corners[:, 0], np.full(len(corners), 128)], axis=1)
    identity = bytes(range(256))
    head = b"mft1\0\0\0\0" + bytes([inputs, 3, 2, 0]) + struct.pack(">9i", *(np.eye(3, dtype=int) * 65536).ravel())
    return head + identity * inputs + np.rint(lab).astype(np.uint8).tobytes() + identity * 3


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_follows_its_profile(format, make_profile, xyz, as_file):
    profile = make_profile(b"CMYK", b"Lab ", {b"A2B0": lut_8(4), b"wtpt": xyz(0.9642, 1.0, 0.8249)}, b"prtr")
    paper, first_ink = Image.new("CMYK", (16, 16)), Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert (read_photo(as_file(paper, format, icc_profile=profile)).gray >= 253).all()
    red, green, blue = np.asarray(read_photo(as_file(first_ink, format, icc_profile=profile)).rgb)[8, 8].tolist()
    assert green > red + 50  # the profile's first ink is green, whatever a naive conversion thinks
    assert green > blue
    naive = read_photo(as_file(first_ink, format))
    assert np.abs(np.asarray(naive.rgb)[8, 8].astype(int) - [0, 255, 255]).max() <= 2
    assert naive.icc_profile is None


def test_an_adobe_cmyk_jpeg_is_not_inverted(as_file):
    data = as_file(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in data
    assert np.abs(np.asarray(read_photo(data).rgb)[8, 8].astype(int) - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.6])
def test_a_gray_picture_ignores_an_rgb_profile(gamma, format, as_file, make_profile, xyz, gamma_curve):
    profile = adobe_rgb(make_profile, xyz, gamma_curve(gamma))
    gray = Image.new("L", (16, 16), 128)
    photo = read_photo(as_file(gray, format, icc_profile=profile, **({"lossless": True} if format == "WEBP" else {})))
    if format == "WEBP":  # has no gray: its RGB picture goes through the profile
        assert photo.warnings == ()
        return
    assert (photo.gray == 128).all()
    assert photo.icc_profile is None
    assert any("profile" in warning and "ignored" in warning for warning in photo.warnings)


def test_16_bit_gray_ignores_an_rgb_profile_too(make_profile, xyz, gamma_curve):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    profile = adobe_rgb(make_profile, xyz, gamma_curve(1.0))
    assert np.array_equal(read_photo(tiff_16(ramp, profile, "minisblack")).gray, ramp)


def test_an_srgb_profile_on_gray_changes_nothing_and_stays(as_file):
    photo = read_photo(as_file(Image.new("L", (4, 4), 128), "PNG", icc_profile=srgb_bytes()))
    assert (photo.gray == 128).all()
    assert photo.icc_profile is not None
    assert photo.warnings == ()


@pytest.mark.parametrize("kind", ["garbage", "empty", "wrong space", "cut"])
def test_a_profile_that_does_not_fit_is_ignored(kind, colors, as_file, make_profile, xyz, gamma_curve):
    profile = {
        "garbage": b"this is no profile" * 20,
        "empty": b"",
        "wrong space": make_profile(b"GRAY", b"XYZ ", {b"wtpt": xyz(1, 1, 1), b"kTRC": gamma_curve(1.8)}),
        "cut": srgb_bytes()[:300],
    }[kind]
    photo = read_photo(as_file(Image.fromarray(colors), "PNG", icc_profile=profile))
    assert np.array_equal(np.asarray(photo.rgb), colors)
    assert photo.icc_profile is None
    deep = read_photo(tiff_16(colors.astype(np.uint16) * 257, profile))
    assert np.array_equal(np.asarray(deep.rgb), colors.astype(np.uint16) * 257)


def test_alpha_does_not_go_through_the_profile(colors, as_file):
    swapped = srgb_bytes().replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    image = Image.fromarray(np.dstack([colors, colors[..., 1]]))
    photo = read_photo(as_file(image, "PNG", icc_profile=swapped))
    assert np.array_equal(np.asarray(photo.alpha), colors[..., 1])
    assert not np.array_equal(np.asarray(photo.rgb), colors)
