"""Modes, ranges, arrays and profiles ⇒ samples: (H, W) gray or (H, W, 3) sRGB, uint8 or uint16, and alpha like it.

ICC profiles: Pillow offers LittleCMS with 8 bits per color only. Most profiles of scanners and editors are three curves
and a matrix (ICC.1:2022, 8.3.3), or one curve for gray; those are applied here to 16-bit pictures in floating point. A
16-bit picture with a table-based profile takes the change that LittleCMS makes at 8 bits, added to its 16-bit values.
"""

from __future__ import annotations

import io
import struct
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from chromatune.color import linear_to_srgb, luma
from chromatune.errors import PhotoError
from chromatune.images import tiff

Samples = tuple[np.ndarray, np.ndarray | None]  # color, alpha

MODES_VIA_RGB = ("RGBX", "YCbCr", "HSV")
MODES_SPLIT = ("P", "PA", "LA", "La", "RGBA", "RGBa", "RGBX", "HSV")  # into other modes, and alpha
MODES_8_BIT = ("L", "RGB", "CMYK", "LAB")
MODES_NUMERIC = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")

BLOCK_ROWS = 256  # bounds the float temporaries of a large scan

TAG_BITS_PER_SAMPLE, TAG_PHOTOMETRIC, TAG_SAMPLE_FORMAT = 258, 262, 339
PHOTOMETRIC_WHITE_IS_ZERO, SAMPLE_FORMAT_UNSIGNED = 0, 1

# XYZ (D50) of linear sRGB's red, green and blue, one per column (IEC 61966-2-1, Bradford-adapted)
SRGB_TO_XYZ_D50 = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
D50 = (0.9642, 1.0, 0.8249)
PNG_GAMMA_IS_SRGB_WITHIN = 0.05  # libpng's own threshold for not correcting at all

SAME_WITHIN = 1  # of 255: a profile that changes no probe color by more is sRGB under another name
HEADER_DATE = slice(24, 36)
FIXED_DATE = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)


def samples_from_image(image: Image.Image, icc_profile: bytes | None, bit_depth: int) -> tuple[Samples, bool]:
    """Return samples of a loaded Pillow image, and whether its colors went through `icc_profile`.

    Args:
        image: any mode; for 16-bit color use `samples_from_deep`, Pillow holds none.
        icc_profile: the profile the file carried, or None.
        bit_depth: bits per sample in the file; transparency keys are given at this depth.

    Raises:
        PhotoError: the mode is unknown, or a number is not finite.
    """
    key = None if image.mode in ("P", "PA") else image.info.get("transparency")
    if icc_profile is None and key is None and image.mode in MODES_SPLIT:
        return _split_in_blocks(image), False
    base, alpha = _split_alpha(image)
    if base.mode in MODES_NUMERIC:
        raw = _numbers(base)
        color, managed = deep_to_srgb(raw, icc_profile) if raw.dtype == np.uint16 else (raw, False)
        alpha = alpha if key is None else _alpha_from_key(raw, key)
        return (color, alpha), managed
    if base.mode not in MODES_8_BIT:
        raise PhotoError(f"pixel mode {image.mode} is not supported; save it as an 8-bit or 16-bit RGB or gray picture")
    if key is not None and alpha is None and base.mode in ("L", "RGB"):
        if image.mode == "1":
            key = 255 * bool(key)  # 1 or 255, as the version of Pillow has it
        elif image.mode == "L" and bit_depth < 8:
            key *= 255 // (2**bit_depth - 1)  # Pillow scales such pixels, not their key
        alpha = _alpha_from_key(np.asarray(base), key)
    converted, managed = image_to_srgb(base, icc_profile)
    return (np.array(converted), alpha), managed


def samples_from_deep(deep: np.ndarray, icc_profile: bytes | None, key: tuple | None) -> tuple[Samples, bool]:
    """Return samples of 16-bit color, and whether it went through `icc_profile`.

    Args:
        deep: (H, W, 2) gray and alpha, (H, W, 3) or (H, W, 4), uint16.
        icc_profile: the profile the file carried, or None.
        key: the one color that a PNG declares transparent, or None.
    """
    channels = deep.shape[2]
    raw = deep[..., 0] if channels == 2 else deep[..., :3]
    alpha = np.ascontiguousarray(deep[..., -1]) if channels in (2, 4) else None
    if alpha is None and key is not None:
        alpha = _alpha_from_key(raw, key)
    color, managed = deep_to_srgb(np.ascontiguousarray(raw), icc_profile)
    return (color, alpha), managed


def samples_from_tiff(stored: tiff.Samples, icc_profile: bytes | None) -> tuple[Samples, bool]:
    """Return samples of a TIFF page that Pillow cannot hold, and whether its colors went through `icc_profile`.

    Lab becomes 16-bit sRGB from 16-bit Lab, 8-bit from 8-bit. CMYK with a usable profile becomes 8-bit: LittleCMS in
    Pillow has no more.

    Raises:
        PhotoError: a number is not finite, or inks or Lab are of another type than uint8 and uint16.
    """
    color, alpha = np.ascontiguousarray(stored.color), stored.alpha
    is_plain = color.dtype in (np.uint8, np.uint16)
    if stored.photometric in (tiff.CMYK, tiff.CIELAB, tiff.ICCLAB) and not is_plain:
        raise PhotoError(f"CMYK or Lab of type {color.dtype} is not supported; save it as a 16-bit RGB picture")
    managed = False
    if stored.photometric == tiff.CMYK:
        converted, managed = image_to_srgb(Image.fromarray(to_depth(color, np.uint8), "CMYK"), icc_profile)
        is_naive = color.dtype == np.uint16 and not managed
        color = cmyk_to_srgb(color) if is_naive else np.array(converted)
    elif stored.photometric in (tiff.CIELAB, tiff.ICCLAB):
        depth = color.dtype
        color = to_depth(lab_to_srgb(_lab(color, stored.photometric)), depth)
        managed = icc_profile is not None
    else:
        color = scaled_from_numbers(color)
        if stored.photometric == tiff.WHITE_IS_ZERO:
            color = np.iinfo(color.dtype).max - color
        if alpha is not None and stored.is_premultiplied:
            color = _unpremultiply(color, to_depth(scaled_from_numbers(alpha), color.dtype))
        color = color[..., 0] if color.shape[2] == 1 else color
        if color.dtype == np.uint16:
            color, managed = deep_to_srgb(np.ascontiguousarray(color), icc_profile)
        else:
            converted, managed = image_to_srgb(Image.fromarray(color), icc_profile)
            color = np.array(converted)
    if alpha is not None:
        alpha = to_depth(np.ascontiguousarray(scaled_from_numbers(alpha)), color.dtype)
    return (color, alpha), managed


def samples_from_array(array: np.ndarray) -> Samples:
    """Return samples of an array the caller made, copied.

    Args:
        array: (H, W), (H, W, 1) gray, (H, W, 2) gray and alpha, (H, W, 3) RGB or (H, W, 4) RGBA; uint8, uint16,
            bool, or float in 0..1 (which becomes 16-bit).

    Raises:
        PhotoError: any other shape, type or range.
    """
    accepted = "accepted: (H, W) or (H, W, 1..4) of uint8, uint16, bool, or float in 0..1"
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
        raise PhotoError(f"an array of shape {array.shape} is not a photo; {accepted}")
    if array.size == 0:
        raise PhotoError(f"the array of shape {array.shape} has no pixels; {accepted}")
    if array.dtype == np.bool_:
        samples = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # false for NaN too
            raise PhotoError(f"float values span {array.min():g}..{array.max():g}; {accepted}")
        samples = np.rint(array.astype(np.float64) * 65535).astype(np.uint16)
    elif array.dtype.newbyteorder("=") in (np.uint8, np.uint16):
        samples = array.astype(array.dtype.newbyteorder("="))
    else:
        raise PhotoError(f"an array of type {array.dtype} is not a photo; {accepted}")
    if samples.ndim == 2:
        return samples, None
    channels = samples.shape[2]
    color = samples[..., 0] if channels <= 2 else samples[..., :3]
    alpha = np.ascontiguousarray(samples[..., -1]) if channels in (2, 4) else None
    return np.ascontiguousarray(color), alpha


def scaled_from_numbers(values: np.ndarray) -> np.ndarray:
    """Return 8- or 16-bit samples of integers or floats that do not declare their white; it follows from their range.

    uint8 and uint16 are returned as they are. Floats of 0..1 have white at 1 and become 16-bit. Beyond that white is
    255 if no value is larger, else 65535; integers up to 255 become 8-bit, all else 16-bit. Negative or larger values
    (science, not photography) are stretched from smallest to largest over 16 bits.

    Args:
        values: any shape, any integer or float type.

    Raises:
        PhotoError: a value is NaN or infinite.
    """
    if values.dtype in (np.uint8, np.uint16):
        return values
    is_float = np.issubdtype(values.dtype, np.floating)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):  # NaN is its own minimum
        raise PhotoError("some values are NaN or infinite; replace them, then save it again")
    if low >= 0 and high <= 255 and not is_float:
        return values.astype(np.uint8)
    if low < 0 or high > 65535:
        offset, factor = low, 65535 / (high - low or 1.0)
    else:
        offset, factor = 0.0, (65535.0 if high <= 1 else 257.0) if is_float and high <= 255 else 1.0
    scaled = np.empty(values.shape, np.uint16)
    for top in range(0, len(values), BLOCK_ROWS):  # bounds the float temporaries of a large scan
        rows = slice(top, top + BLOCK_ROWS)
        scaled[rows] = np.rint((values[rows].astype(np.float64) - offset) * factor)
    return scaled


def _split_in_blocks(image: Image.Image) -> Samples:
    """Color and alpha by blocks of rows: of a palette of 1 bit a pixel, RGBA takes four bytes, and others as much."""
    color = alpha = None
    for top in range(0, image.height, BLOCK_ROWS):
        rows = slice(top, min(top + BLOCK_ROWS, image.height))
        base, alpha_of_block = _split_alpha(image.crop((0, rows.start, image.width, rows.stop)))
        block = np.asarray(base)
        if color is None:
            color = np.empty((image.height, *block.shape[1:]), np.uint8)
            alpha = None if alpha_of_block is None else np.empty(color.shape[:2], np.uint8)
        color[rows] = block
        if alpha is not None:
            alpha[rows] = alpha_of_block
    assert color is not None, "a picture has rows"
    return color, alpha


def _split_alpha(image: Image.Image) -> tuple[Image.Image, np.ndarray | None]:
    """The image without transparency, in a mode of MODES_8_BIT or MODES_NUMERIC, and its alpha if it had any."""
    mode = image.mode
    if mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif mode == "1":
        image = image.convert("L")
    elif mode in ("La", "RGBa"):  # premultiplied
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[mode])
    elif mode in MODES_VIA_RGB:
        image = image.convert("RGB")
    if image.mode not in ("LA", "RGBA"):
        return image, None
    alpha = np.array(image.getchannel("A"))
    return (image.getchannel("L") if image.mode == "LA" else image.convert("RGB")), alpha


def _numbers(image: Image.Image) -> np.ndarray:
    """Gray of the modes I;16, I and F as (H, W) uint8 or uint16, white at the top of the range."""
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    if image.mode not in ("I", "F"):
        gray = values.astype(np.uint16)  # I;16B arrives big-endian
        if tags.get(TAG_BITS_PER_SAMPLE) == (12,):
            gray = ((gray.astype(np.uint32) * 65535 + 2047) // 4095).astype(np.uint16)
        # Pillow inverts 1- and 8-bit TIFFs of this kind, and forgets the 16-bit ones
        return 65535 - gray if tags.get(TAG_PHOTOMETRIC) == PHOTOMETRIC_WHITE_IS_ZERO else gray
    if image.format == "PPM" and image.mode == "I":
        return values.astype(np.uint16)  # Pillow has brought the white of its header to 65535
    is_unsigned = tags.get(TAG_SAMPLE_FORMAT, (1,))[0] == SAMPLE_FORMAT_UNSIGNED
    if image.mode == "I" and is_unsigned and tags.get(TAG_BITS_PER_SAMPLE) == (32,):
        values = values.view(np.uint32)  # Pillow lets values above 2^31 turn negative
    return scaled_from_numbers(values)


def _alpha_from_key(color: np.ndarray, key: object) -> np.ndarray:
    """Alpha that is 0 where the color is exactly `key`, and full elsewhere."""
    is_key = color == np.asarray(key)
    if color.ndim == 3:
        is_key = is_key.all(axis=2)
    white = np.iinfo(color.dtype).max
    return np.where(is_key, 0, white).astype(color.dtype)


def _lab(color: np.ndarray, photometric: int) -> np.ndarray:
    """(H, W, 3) uint8 or uint16 of a TIFF ⇒ float32 L* 0..100, a*, b* (TIFF 6.0, 23; ICCLab: technote 4)."""
    is_deep = color.dtype == np.uint16
    unit = 256.0 if is_deep else 1.0
    lab = np.empty(color.shape, np.float32)
    white = 65280.0 if is_deep and photometric == tiff.ICCLAB else float(np.iinfo(color.dtype).max)
    lab[..., 0] = np.minimum(color[..., 0] / np.float32(white), 1.0) * 100
    if photometric == tiff.ICCLAB:
        lab[..., 1:] = color[..., 1:] / unit - 128
    else:
        signed: np.ndarray = color[..., 1:].astype(np.int16 if is_deep else np.int8)
        lab[..., 1:] = signed / unit
    return lab


def _unpremultiply(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, C) colors divided by (H, W) alpha, both uint8 or both uint16; fully transparent pixels stay black."""
    white = float(np.iinfo(color.dtype).max)
    divided = color * (white / np.maximum(alpha.astype(np.float32), 1.0))[..., None]
    return np.clip(np.rint(divided), 0, white).astype(color.dtype)


def to_depth(samples: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """Return the same samples as uint8 or uint16: 0 and white map to 0 and white, all between to the nearest."""
    if samples.dtype == dtype:
        return samples
    if dtype == np.uint16:
        return samples.astype(np.uint16) * 257
    # (v + 128) // 257 is round(v / 257) for every 16-bit v, and v + 128 may not overflow
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """Return a small sRGB profile; its date is fixed, so that the same result is the same file."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[HEADER_DATE] = FIXED_DATE
    return bytes(profile)


def image_to_srgb(image: Image.Image, icc_profile: bytes | None) -> tuple[Image.Image, bool]:
    """Return the image in sRGB, and whether its profile was usable; without one, the usual assumption for the mode.

    Args:
        image: mode L, RGB, CMYK or LAB.
        icc_profile: the profile the file carried, or None; a broken or unfitting one is ignored.

    Returns:
        An image of mode L (from L) or RGB (from the others), and True if the profile was understood.
    """
    if image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        return _transform(image, ImageCms.ImageCmsProfile(lab)), icc_profile is not None
    converted = None
    if icc_profile is not None:
        try:
            converted = _through_profile(image, ImageCms.ImageCmsProfile(io.BytesIO(icc_profile)))
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            converted = None
    if converted is not None:
        return converted, True
    return (image.convert("RGB") if image.mode == "CMYK" else image), False


def deep_to_srgb(color: np.ndarray, icc_profile: bytes | None) -> tuple[np.ndarray, bool]:
    """Return 16-bit samples in sRGB, and whether the profile was usable.

    Args:
        color: (H, W) gray or (H, W, 3), uint16.
        icc_profile: the profile the file carried, or None; a broken or unfitting one is ignored.
    """
    if icc_profile is None:
        return color, False
    shallow = Image.fromarray(to_depth(color, np.uint8))
    converted, usable = image_to_srgb(shallow, icc_profile)
    if not usable or converted is shallow:
        return color, usable
    try:
        curves = _curves_and_matrix(icc_profile)
    except (struct.error, ValueError, ArithmeticError, np.linalg.LinAlgError):
        curves = None  # LittleCMS is more lenient with odd profiles
    if curves is None or (curves[1] is None) != (color.ndim == 2):
        change = np.asarray(converted).astype(np.int32) - np.asarray(shallow)
        return np.clip(color + change * 257, 0, 65535).astype(np.uint16), True
    (to_linear, matrix), result = curves, np.empty_like(color)
    for top in range(0, color.shape[0], BLOCK_ROWS):
        block = color[top : top + BLOCK_ROWS]
        if matrix is None:
            linear = to_linear[0][block]
        else:
            linear = np.stack([curve[block[..., i]] for i, curve in enumerate(to_linear)], axis=-1)
            linear = linear @ matrix.T.astype(np.float32)
        result[top : top + BLOCK_ROWS] = np.rint(linear_to_srgb(np.clip(linear, 0.0, 1.0)) * 65535)
    return result, True


def gamma_to_srgb(color: np.ndarray, gamma: float) -> np.ndarray:
    """Return sRGB-coded samples of a PNG with a gamma and no profile; gammas close to 1/2.2, or senseless, do nothing.

    Args:
        color: (H, W) or (H, W, 3), uint8 or uint16.
        gamma: exponent from light to sample, as its gAMA chunk says.
    """
    if not 0.05 < gamma < 20 or abs(gamma * 2.2 - 1) <= PNG_GAMMA_IS_SRGB_WITHIN:
        return color
    white = int(np.iinfo(color.dtype).max)
    linear = (np.arange(white + 1) / white) ** (1 / gamma)
    return np.rint(linear_to_srgb(linear) * white).astype(color.dtype)[color]


def cmyk_to_srgb(inks: np.ndarray) -> np.ndarray:
    """Convert naively (H, W, 4) uint16 inks, full = no light ⇒ (H, W, 3) uint16, as Pillow does it at 8 bits."""
    light = 65535 - inks.astype(np.uint32)
    return ((light[..., :3] * light[..., 3:] + 32767) // 65535).astype(np.uint16)


def lab_to_srgb(lab: np.ndarray) -> np.ndarray:
    """(H, W, 3) float CIELAB under D50 ⇒ (H, W, 3) uint16 sRGB, in blocks of rows; colors out of gamut are clipped."""
    result = np.empty(lab.shape, np.uint16)
    to_linear = np.linalg.inv(SRGB_TO_XYZ_D50).T
    for top in range(0, lab.shape[0], BLOCK_ROWS):
        lightness, a, b = np.moveaxis(lab[top : top + BLOCK_ROWS].astype(np.float64), -1, 0)
        fy = (lightness + 16) / 116
        f = np.stack([fy + a / 500, fy, fy - b / 200], axis=-1)
        xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * D50  # CIE 15:2018, 8.2.1
        linear = np.clip(xyz @ to_linear, 0.0, 1.0)
        result[top : top + BLOCK_ROWS] = np.rint(linear_to_srgb(linear) * 65535)
    return result


def _through_profile(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image | None:
    """The image in sRGB (the very same object if nothing would change); None if the profile is for other colors."""
    space = profile.profile.xcolor_space.strip()
    if image.mode == "L" and space in ("GRAY", "RGB"):
        ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
        ramp = _transform(ramp if space == "GRAY" else ramp.convert("RGB"), profile)
        table = luma(np.asarray(ramp))[0]
        if _same(table, np.arange(256)):
            return image
        # An RGB profile on gray is what converters leave behind; it says nothing of gray, and browsers ignore it
        return image.point(table.tolist()) if space == "GRAY" else None
    if image.mode == "RGB" and space == "RGB":
        steps = np.arange(0, 256, 17, dtype=np.uint8)
        probe = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(16, 256, 3)
        if _same(np.asarray(_transform(Image.fromarray(probe), profile)), probe):
            return image
        return _transform(image, profile)
    if image.mode == "CMYK" and space == "CMYK":
        return _transform(image, profile)
    return None


def _transform(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    transform = ImageCms.buildTransform(
        profile,
        ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile())),
        image.mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    return transform.apply(image)


def _same(samples: np.ndarray, others: np.ndarray) -> bool:
    return int(np.abs(samples.astype(np.int32) - others).max()) <= SAME_WITHIN


def _curves_and_matrix(icc_profile: bytes) -> tuple[list[np.ndarray], np.ndarray | None] | None:
    """Curves to linear light, and the matrix to linear sRGB (None for gray); None if the profile works by tables."""
    tags, content = {}, memoryview(icc_profile)  # tags may overlap, and are not copied
    for index in range(struct.unpack_from(">I", icc_profile, 128)[0]):
        name, offset, size = struct.unpack_from(">4sII", icc_profile, 132 + 12 * index)
        tags[name] = content[offset : offset + size]
    if icc_profile[20:24] != b"XYZ ":  # connection space
        return None
    if icc_profile[16:20] == b"GRAY" and b"kTRC" in tags:
        gray_curve = _curve(tags[b"kTRC"])
        return None if gray_curve is None else ([gray_curve], None)
    wanted = [b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC"]
    if any(name not in tags for name in wanted) or any(name.startswith(b"A2B") for name in tags):
        return None
    curves = [_curve(tags[name]) for name in wanted[3:]]
    to_xyz = np.array([_fixed_point(tags[name], 8, 3) for name in wanted[:3]]).T  # a column for each primary
    known = [curve for curve in curves if curve is not None]
    return (known, np.linalg.inv(SRGB_TO_XYZ_D50) @ to_xyz) if len(known) == 3 else None


def _curve(tag: memoryview) -> np.ndarray | None:
    """Linear light of each 16-bit value, (65536,) float32, from a curveType or parametricCurveType tag."""
    x = np.arange(65536) / 65535
    if bytes(tag[:4]) == b"curv":  # ICC.1:2022, 10.6
        count = struct.unpack_from(">I", tag, 8)[0]
        if count == 0:
            return x.astype(np.float32)
        points = np.frombuffer(tag, ">u2", count, 12)
        if count == 1:
            return (x ** (points[0] / 256)).astype(np.float32)
        return np.interp(x, np.linspace(0, 1, count), points / 65535).astype(np.float32)
    if bytes(tag[:4]) != b"para":  # ICC.1:2022, 10.18
        return None
    kind = struct.unpack_from(">H", tag, 8)[0]
    if kind > 4:
        return None
    given = _fixed_point(tag, 12, (1, 3, 4, 5, 7)[kind])
    gamma, a, b = given[:3] if kind else (given[0], 1.0, 0.0)
    slope, start = given[3:5] if kind >= 3 else (0.0, 0.0)  # from start on it is a power law, before it a line
    offset, offset_below = given[-2:] if kind == 4 else (given[-1], given[-1]) if kind == 2 else (0.0, 0.0)
    power = np.maximum(a * x + b, 0.0) ** gamma + offset
    return np.clip(np.where(x >= start, power, slope * x + offset_below), 0, 1).astype(np.float32)


def _fixed_point(tag: memoryview, position: int, count: int) -> list[float]:
    """Numbers of type s15Fixed16."""
    return [number / 65536 for number in struct.unpack_from(f">{count}i", tag, position)]
