"""Modes, ranges and arrays ⇒ samples: (H, W) gray or (H, W, 3) sRGB, uint8 or uint16, with alpha of the same depth."""

from __future__ import annotations

import numpy as np
from PIL import Image

from chromatune.errors import PhotoError
from chromatune.images import profiles, tiff
from chromatune.images.photo import to_depth

Samples = tuple[np.ndarray, np.ndarray | None]  # color, alpha

MODES_VIA_RGB = ("RGBX", "YCbCr", "HSV")
MODES_8_BIT = ("L", "RGB", "CMYK", "LAB")
MODES_NUMERIC = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")

BLOCK_ROWS = 256

TAG_BITS_PER_SAMPLE, TAG_PHOTOMETRIC, TAG_SAMPLE_FORMAT = 258, 262, 339
PHOTOMETRIC_WHITE_IS_ZERO, SAMPLE_FORMAT_UNSIGNED = 0, 1


def samples_from_image(image: Image.Image, icc_profile: bytes | None, bit_depth: int) -> tuple[Samples, bool]:
    """Samples of a loaded Pillow image, and whether its colors went through `icc_profile`.

    Args:
        image: any mode; for 16-bit color use `samples_from_deep`, Pillow holds none.
        icc_profile: the profile the file carried, or None.
        bit_depth: bits per sample in the file; transparency keys are given at this depth.

    Raises:
        PhotoError: the mode is unknown, or a number is not finite.
    """
    key = None if image.mode in ("P", "PA") else image.info.get("transparency")
    base, alpha = _split_alpha(image)
    if base.mode in MODES_NUMERIC:
        raw = _numbers(base)
        color, managed = profiles.deep_to_srgb(raw, icc_profile) if raw.dtype == np.uint16 else (raw, False)
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
    converted, managed = profiles.image_to_srgb(base, icc_profile)
    return (np.array(converted), alpha), managed


def samples_from_deep(deep: np.ndarray, icc_profile: bytes | None, key: tuple | None) -> tuple[Samples, bool]:
    """Samples of 16-bit color, and whether it went through `icc_profile`.

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
    color, managed = profiles.deep_to_srgb(np.ascontiguousarray(raw), icc_profile)
    return (color, alpha), managed


def samples_from_tiff(stored: tiff.Samples, icc_profile: bytes | None) -> tuple[Samples, bool]:
    """Samples of a TIFF page that Pillow cannot hold, and whether its colors went through `icc_profile`.

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
        converted, managed = profiles.image_to_srgb(Image.fromarray(to_depth(color, np.uint8), "CMYK"), icc_profile)
        is_naive = color.dtype == np.uint16 and not managed
        color = profiles.cmyk_to_srgb(color) if is_naive else np.array(converted)
    elif stored.photometric in (tiff.CIELAB, tiff.ICCLAB):
        depth = color.dtype
        color = to_depth(profiles.lab_to_srgb(_lab(color, stored.photometric)), depth)
        managed = icc_profile is not None
    else:
        color = scaled_from_numbers(color)
        if stored.photometric == tiff.WHITE_IS_ZERO:
            color = np.iinfo(color.dtype).max - color
        if alpha is not None and stored.is_premultiplied:
            color = _unpremultiply(color, to_depth(scaled_from_numbers(alpha), color.dtype))
        color = color[..., 0] if color.shape[2] == 1 else color
        if color.dtype == np.uint16:
            color, managed = profiles.deep_to_srgb(np.ascontiguousarray(color), icc_profile)
        else:
            converted, managed = profiles.image_to_srgb(Image.fromarray(color), icc_profile)
            color = np.array(converted)
    if alpha is not None:
        alpha = to_depth(np.ascontiguousarray(scaled_from_numbers(alpha)), color.dtype)
    return (color, alpha), managed


def samples_from_array(array: np.ndarray) -> Samples:
    """Samples of an array the caller made, copied.

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
    """8- or 16-bit samples from integers or floats whose white is not written anywhere, judged by their range.

    uint8 and uint16 are what they are.
    Floats of 0..1 have white at 1 and become 16-bit. Beyond that white is 255 if no value is larger, else 65535;
    integers up to 255 become 8-bit, all else 16-bit. Negative or larger values (science, not photography) are
    stretched from smallest to largest over 16 bits.

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
