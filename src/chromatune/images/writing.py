"""(H, W, 3) samples and the photo they come from ⇒ a file, its bytes, or a Pillow image.

Pillow writes JPEG, WebP and BMP. It cannot write 16-bit color, so PNG is encoded by OpenCV (at 8 bits too: eight
times as fast) and gets its profile, EXIF, resolution and captions as chunks put in here; TIFF is packed here around a
directory made by Pillow.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

from chromatune.errors import PhotoError, printable
from chromatune.files import atomic_write
from chromatune.images import decoding, metadata
from chromatune.images.headers import PNG_SIGNATURE
from chromatune.images.photo_files import FORMAT_OF_SUFFIX, format_for, shown
from chromatune.images.pixels import to_depth
from chromatune.images.provenance import Provenance, with_provenance
from chromatune.images.reading import Photo

FORMATS_WITH_16_BITS = frozenset({"PNG", "TIFF"})
FORMATS_WITH_ALPHA = frozenset({"PNG", "TIFF", "WEBP"})
LONGEST_SIDE_PX = {"JPEG": 65_500, "WEBP": 16_383}  # what libjpeg and libwebp accept
WRITABLE_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP")  # a GIF's 256 colors hold no result

JPEG_QUALITY = 95
INCHES_PER_METRE = 1 / 0.0254
EXIF_PREFIX = b"Exif\0\0"

TIFF_STRIP_BYTES = 1 << 20
TIFF_MAX_BYTES = (1 << 32) - (1 << 20)  # offsets have 32 bits; the margin is for the directory
TIFF_DEFLATE, TIFF_RGB, TIFF_CHUNKY, TIFF_INCH, TIFF_HORIZONTAL_PREDICTOR, TIFF_STRAIGHT_ALPHA = 8, 2, 1, 2, 2, 2
TAG_STRIP_OFFSETS, TYPE_LONG = 273, 4
TAG_ICC_PROFILE, TYPE_UNDEFINED, TYPE_BYTE = 34675, 7, 1

# Lossless, so that the gray in the file is the photo's own; effort 20 of 100 costs 3 % more bytes and half the time
WEBP_OPTIONS = {"lossless": True, "exact": True, "quality": 20, "method": 1}


def write_photo(
    path: str | os.PathLike,
    rgb: np.ndarray,
    photo: Photo,
    *,
    provenance: Provenance | None = None,
    overwrite: bool = False,
    follow_link: bool = True,
) -> None:
    """Write a result; the file appears under its name only once it is complete and on the disk.

    Args:
        path: where to; the suffix decides the format (see `suffix_for`).
        rgb: (H, W, 3) uint8 or uint16, sRGB-coded, of the photo's size.
        photo: the source of the result.
        provenance: how it was made, to be written into it.
        overwrite: replace an existing file; if not, of two writers of one name one fails.
        follow_link: replace what a link points at; if not, the link.

    Raises:
        PhotoError: the file exists, its folder does not, the suffix is unknown or its format cannot hold the result,
            or the disk is full or write-protected. No file is left behind, and an existing one stays as it was.
    """
    target = Path(os.fsdecode(path))
    label = shown(str(target))
    try:
        format_name = format_for(target.suffix)
        if target.is_dir():
            raise PhotoError("is a folder; name a file")
        if not target.parent.is_dir():
            raise PhotoError("its folder does not exist; make it first")
        if not overwrite and os.path.lexists(target):
            raise FileExistsError
        data = encode_photo(rgb, photo, format_name, provenance)
        atomic_write(target, data, overwrite=overwrite, follow_link=follow_link)
    except PhotoError as error:
        raise PhotoError(f"{label}: {error}") from error.__cause__
    except FileExistsError:
        raise PhotoError(f"{label}: already exists; choose another name, or allow overwriting") from None
    except PermissionError:
        raise PhotoError(f"{label}: no permission to write there; choose another folder") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise PhotoError(f"{label}: cannot be written ({reason}); check disk and path") from error


def suffix_for(suffix: str | None, photo: Photo) -> str:
    """Return the suffix for a result of `photo`: `suffix` itself, or ".png" where its format cannot hold the result.

    Args:
        suffix: the wanted suffix, such as ".jpg", returned as spelled; None means the photo's own format.
        photo: the source of the result; its depth, transparency and size decide.
    """
    wanted = suffix
    if wanted is None:
        wanted = next((known for known, name in FORMAT_OF_SUFFIX.items() if name == photo.format), ".png")
    format_name = FORMAT_OF_SUFFIX.get(wanted.lower())
    holds = (
        format_name in WRITABLE_FORMATS
        and (photo.alpha is None or format_name in FORMATS_WITH_ALPHA)
        and (photo.max_value == 255 or format_name in FORMATS_WITH_16_BITS)
        and max(photo.gray.shape) <= LONGEST_SIDE_PX.get(format_name, 2**31)
    )
    return wanted if holds else ".png"


def encode_photo(rgb: np.ndarray, photo: Photo, format: str, provenance: Provenance | None = None) -> bytes:
    """Encode a result: the samples with the photo's transparency, profile, EXIF, resolution and captions.

    JPEG is of quality 95 without chroma subsampling, and lossy all the same: its gray is the photo's within a few
    levels, not within 1. All others are lossless. PNG and TIFF keep 16 bits, the others are rounded to 8. BMP keeps
    resolution alone; WebP all but an alpha that is opaque everywhere. `docs/files.md` says where captions go.

    Args:
        rgb: (H, W, 3) uint8 or uint16, sRGB-coded, of the photo's size.
        photo: the source of the result.
        format: "JPEG", "PNG", "TIFF", "WEBP" or "BMP", in any case.
        provenance: how it was made; not written into a BMP, and not into a JPEG whose own XMP fills its segment.

    Raises:
        PhotoError: the format is unknown or cannot hold the photo's transparency or size, or the samples do not fit.
    """
    name = format.upper()
    if name not in WRITABLE_FORMATS:
        raise PhotoError(
            f"results cannot be written as {printable(format[:20])}; accepted: {', '.join(WRITABLE_FORMATS)}"
        )
    if provenance is not None:
        xmp = with_provenance(photo.captions.xmp, provenance)
        if name != "JPEG" or len(xmp) <= metadata.LONGEST_JPEG_XMP:
            photo = dataclasses.replace(photo, captions=dataclasses.replace(photo.captions, xmp=xmp))
    alpha = photo.alpha
    if alpha is not None and name not in FORMATS_WITH_ALPHA:
        if alpha.min() < np.iinfo(alpha.dtype).max:
            raise PhotoError(
                f"{shown(photo.name)} has transparency, which {name} does not support; choose PNG, TIFF or WEBP"
            )
        alpha = None
    samples = _with_alpha(rgb, photo, alpha)
    if name not in FORMATS_WITH_16_BITS:
        samples = to_depth(samples, np.uint8)
    if name == "PNG":
        return _encode_png(samples, photo)
    if name == "TIFF":
        return _encode_tiff(samples, photo)
    return _encode_with_pillow(samples, photo, name)


def to_pil(rgb: np.ndarray, photo: Photo) -> Image.Image:
    """Return the result as an 8-bit Pillow image, mode RGB, or RGBA where the photo has transparency.

    Args:
        rgb: (H, W, 3) uint8 or uint16, sRGB-coded, of the photo's size.
        photo: the source of the result.

    Raises:
        PhotoError: the samples are of another type or size.
    """
    image = Image.fromarray(to_depth(_with_alpha(rgb, photo, photo.alpha), np.uint8))
    if photo.icc_profile is not None:
        image.info["icc_profile"] = photo.icc_profile
    return image


def _with_alpha(rgb: np.ndarray, photo: Photo, alpha: np.ndarray | None) -> np.ndarray:
    """(H, W, 3) or (H, W, 4) samples of rgb's depth, checked against the photo."""
    wanted = (*photo.gray.shape, 3)
    if rgb.shape != wanted or rgb.dtype not in (np.uint8, np.uint16):
        raise PhotoError(
            f"a result of {shown(photo.name)} is {wanted} uint8 or uint16, and this one {rgb.shape} {rgb.dtype}; "
            "bring it to the photo's size first"
        )
    if alpha is None:
        return rgb
    return np.concatenate([rgb, to_depth(alpha, rgb.dtype)[..., None]], axis=2)


def _encode_with_pillow(samples: np.ndarray, photo: Photo, name: str) -> bytes:
    options: dict[str, object] = {}
    if name != "WEBP" and photo.dpi is not None:
        options["dpi"] = photo.dpi
    if name != "BMP":
        options |= {"icc_profile": photo.icc_profile} if photo.icc_profile else {}
        # What has no place of its own in the file goes into EXIF tags
        tags: metadata.Tags = dict(metadata.tags_beside(photo.captions, with_lines=name != "JPEG"))
        if name == "WEBP" and photo.dpi is not None:
            tags |= {282: photo.dpi[0], 283: photo.dpi[1], 296: TIFF_INCH}
        exif = metadata.with_tags(photo.exif, tags)
        options |= {"exif": exif} if exif else {}
        xmp = photo.captions.xmp
        if xmp is not None and (name != "JPEG" or len(xmp) <= metadata.LONGEST_JPEG_XMP):
            options["xmp"] = xmp
    if name == "JPEG":
        options |= {"quality": JPEG_QUALITY, "subsampling": 0, "extra": metadata.jpeg_segments(photo.captions)}
        comment = metadata.jpeg_comment(photo.captions)
        options |= {"comment": comment} if comment else {}
    elif name == "WEBP":
        options |= WEBP_OPTIONS
    file = io.BytesIO()
    try:
        with decoding.quiet_libraries():
            Image.fromarray(samples).save(file, name, **options)
    except (OSError, ValueError, struct.error) as error:
        raise PhotoError(f"{shown(photo.name)} cannot be written as {name} ({error}); choose PNG") from error
    return file.getvalue()


def _encode_png(samples: np.ndarray, photo: Photo) -> bytes:
    """A PNG with iCCP, pHYs, eXIf and text where the photo has them (PNG, third edition, section 11.3)."""
    order = [2, 1, 0, 3][: samples.shape[2]]
    done, encoded = cv2.imencode(".png", samples[..., order])
    if not done:
        raise PhotoError(f"{shown(photo.name)} cannot be written as PNG; make it smaller")
    extra = b""
    if photo.icc_profile is not None:
        extra += decoding.png_chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(photo.icc_profile))
    if photo.dpi is not None:
        per_metre = [min(round(dpi * INCHES_PER_METRE), 2**31 - 1) for dpi in photo.dpi]
        extra += decoding.png_chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1))
    if photo.exif is not None:
        extra += decoding.png_chunk(b"eXIf", photo.exif.removeprefix(EXIF_PREFIX))
    for kind, content in metadata.png_chunks_of(photo.captions):
        extra += decoding.png_chunk(kind, content)
    data = encoded.tobytes()
    header_end = len(PNG_SIGNATURE) + 25  # IHDR is always first, and 25 bytes long
    return data[:header_end] + extra + data[header_end:]


def _encode_tiff(samples: np.ndarray, photo: Photo) -> bytes:
    """A little-endian TIFF 6.0: one directory with all tags, then deflated strips with horizontal differencing."""
    height_px, width_px, channels = samples.shape
    rows_per_strip = max(1, TIFF_STRIP_BYTES // samples[0].nbytes)
    strips = [_tiff_strip(samples[top : top + rows_per_strip]) for top in range(0, height_px, rows_per_strip)]
    sizes = [len(strip) for strip in strips]
    if sum(sizes) > TIFF_MAX_BYTES:
        raise PhotoError(f"{shown(photo.name)} is too large for a TIFF (4 GB); choose PNG")
    directory = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    exif = metadata.with_tags(photo.exif, dict(metadata.tags_beside(photo.captions)))
    for tag, value in (metadata.tags_of_exif(exif) if exif else {}).items():
        directory[tag] = value
    for tag, block in ((metadata.TAG_XMP, photo.captions.xmp), (metadata.TAG_IPTC, photo.captions.iptc)):
        if block is not None:
            directory.tagtype[tag] = TYPE_UNDEFINED if tag == metadata.TAG_IPTC else TYPE_BYTE
            directory[tag] = block
    directory[256], directory[257] = width_px, height_px
    directory[258] = (samples.dtype.itemsize * 8,) * channels
    directory[259], directory[262], directory[284] = TIFF_DEFLATE, TIFF_RGB, TIFF_CHUNKY
    directory.tagtype[TAG_STRIP_OFFSETS] = TYPE_LONG
    directory[TAG_STRIP_OFFSETS] = (0, *itertools.accumulate(sizes[:-1]))  # Pillow adds the directory's end to each
    directory[277], directory[278], directory[279] = channels, rows_per_strip, tuple(sizes)
    directory[317] = TIFF_HORIZONTAL_PREDICTOR
    if channels == 4:
        directory[338] = TIFF_STRAIGHT_ALPHA
    if photo.dpi is not None:
        directory[282], directory[283], directory[296] = *photo.dpi, TIFF_INCH
    if photo.icc_profile is not None:
        directory.tagtype[TAG_ICC_PROFILE] = TYPE_UNDEFINED
        directory[TAG_ICC_PROFILE] = photo.icc_profile
    file = io.BytesIO()
    directory.save(file)
    file.writelines(strips)
    return file.getvalue()


def _tiff_strip(rows: np.ndarray) -> bytes:
    differences = rows.copy()
    differences[:, 1:] -= rows[:, :-1]  # modulo 2^8 or 2^16, as TIFF 6.0 section 14 wants it
    return zlib.compress(differences.astype(rows.dtype.newbyteorder("<")).tobytes(), 1)
