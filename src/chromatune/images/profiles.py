"""ICC profiles ⇒ sRGB: 8-bit pictures through LittleCMS, 16-bit ones through the profile's own curves and matrix.

Pillow offers LittleCMS with 8 bits per color only. Most profiles of scanners and editors are three curves and a
matrix (ICC.1:2022, 8.3.3), or one curve for gray; those are applied here in floating point. A 16-bit picture with a
table-based profile takes the change that LittleCMS makes at 8 bits, added to its 16-bit values.
"""

from __future__ import annotations

import io
import struct
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from chromatune.color import linear_to_srgb, luma
from chromatune.images.photo import to_depth

# XYZ (D50) of linear sRGB's red, green and blue, one per column (IEC 61966-2-1, Bradford-adapted)
SRGB_TO_XYZ_D50 = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
D50 = (0.9642, 1.0, 0.8249)
PNG_GAMMA_IS_SRGB_WITHIN = 0.05  # libpng's own threshold for not correcting at all

SAME_WITHIN = 1  # of 255: a profile that changes no probe color by more is sRGB under another name
BLOCK_ROWS = 256  # bounds the float temporaries of a large scan
HEADER_DATE = slice(24, 36)
FIXED_DATE = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """A small sRGB profile; its date is fixed, so that the same result is the same file."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[HEADER_DATE] = FIXED_DATE
    return bytes(profile)


def image_to_srgb(image: Image.Image, icc_profile: bytes | None) -> tuple[Image.Image, bool]:
    """The image in sRGB, and whether its profile was usable; without one, the usual assumption for the mode.

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
    """16-bit samples in sRGB, and whether the profile was usable.

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
    result = np.empty_like(color)
    for top in range(0, color.shape[0], BLOCK_ROWS):
        rows = slice(top, top + BLOCK_ROWS)
        result[rows] = _apply_curves(color[rows], *curves)
    return result, True


def gamma_to_srgb(color: np.ndarray, gamma: float) -> np.ndarray:
    """Samples of a PNG that gives a gamma and no profile, sRGB-coded; gammas close to 1/2.2, or senseless, do nothing.

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
    """Naive conversion of (H, W, 4) uint16 inks, full = no light: (H, W, 3) uint16, as Pillow does it at 8 bits."""
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


def _apply_curves(color: np.ndarray, curves: list[np.ndarray], matrix: np.ndarray | None) -> np.ndarray:
    """One block of (H, W) or (H, W, 3) uint16 through curves (65536 entries each), matrix and sRGB coding."""
    if matrix is None:
        linear = curves[0][color]
    else:
        linear = np.stack([curve[color[..., i]] for i, curve in enumerate(curves)], axis=-1)
        linear = linear @ matrix.T.astype(np.float32)
    linear = np.clip(linear, 0.0, 1.0)
    return np.rint(linear_to_srgb(linear) * 65535).astype(np.uint16)


def _curves_and_matrix(icc_profile: bytes) -> tuple[list[np.ndarray], np.ndarray | None] | None:
    """Curves to linear light and the matrix to linear sRGB (None for gray); None if the profile works by tables."""
    tags = {}
    for index in range(struct.unpack_from(">I", icc_profile, 128)[0]):
        name, offset, size = struct.unpack_from(">4sII", icc_profile, 132 + 12 * index)
        tags[name] = icc_profile[offset : offset + size]
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


def _curve(tag: bytes) -> np.ndarray | None:
    """Linear light of each 16-bit value, (65536,) float32, from a curveType or parametricCurveType tag."""
    x = np.arange(65536) / 65535
    if tag[:4] == b"curv":  # ICC.1:2022, 10.6
        count = struct.unpack_from(">I", tag, 8)[0]
        if count == 0:
            return x.astype(np.float32)
        points = np.frombuffer(tag, ">u2", count, 12)
        if count == 1:
            return (x ** (points[0] / 256)).astype(np.float32)
        return np.interp(x, np.linspace(0, 1, count), points / 65535).astype(np.float32)
    if tag[:4] != b"para":  # ICC.1:2022, 10.18
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


def _fixed_point(tag: bytes, position: int, count: int) -> list[float]:
    """Numbers of type s15Fixed16."""
    return [number / 65536 for number in struct.unpack_from(f">{count}i", tag, position)]
