"""What a file is, from its first bytes: for the reader, and for a message that names what cannot be read."""

from __future__ import annotations

from chromatune.errors import MissingExtraError, NotAPictureError, PhotoError
from chromatune.images.photo import READABLE_FORMATS

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
START_BYTES = 32  # as many as the tests below look at

SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    PNG_SIGNATURE: "PNG",
    **dict.fromkeys(TIFF_SIGNATURES, "TIFF"),
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"RIFF": "WebP",
    b"\0\0\0\x0cjP  \r\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"P7\n": "PAM",
    b"PF\n": "color PFM",
    **{b"P%d" % number: "PNM" for number in range(1, 7)},
}
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
AVIF_BRANDS = {b"avif", b"avis"}

CAMERA_RAWS = {
    b"FUJIFILMCCD-RAW": "RAF",
    b"IIRO": "ORF",
    b"IIRS": "ORF",
    b"MMOR": "ORF",
    b"IIU\0": "RW2",
    b"FOVb": "X3F",
    b"\0MRM": "MRW",
    b"II\x1a\0\0\0HEAPCCDR": "CRW",
}
# Raw files that are TIFFs inside, by what the first directory says of the maker
CAMERA_RAWS_OF_MAKERS = {
    "NIKON": "NEF",
    "SONY": "ARW",
    "CANON": "CR2",
    "PENTAX": "PEF",
    "RICOH": "PEF",
    "SAMSUNG": "SRW",
    "HASSELBLAD": "3FR",
    "PHASE ONE": "IIQ",
    "LEAF": "IIQ",
    "EASTMAN KODAK": "DCR",
    "KODAK": "DCR",
    "SEIKO EPSON": "ERF",
}


class HeicExtraError(PhotoError, MissingExtraError):
    """A HEIC photo, and no `pillow-heif`: a batch goes on with the next photo, as after any other `PhotoError`."""

    def __init__(self, label: str) -> None:
        MissingExtraError.__init__(self, f"{label}: reading HEIC", "heic")


def is_tiff(start: bytes) -> bool:
    """Whether a file begins like a TIFF, the one with 64-bit offsets included."""
    return start.startswith(TIFF_SIGNATURES)


def is_heif(start: bytes) -> bool:
    """Whether a file begins like a HEIC photo; AVIF, the same container, is told apart."""
    if start[4:8] != b"ftyp":
        return False
    brands = {start[8:12], *(start[at : at + 4] for at in range(16, len(start) - 3, 4))}
    return start[8:12] in HEIF_BRANDS and not brands & AVIF_BRANDS


def camera_raw_kind(start: bytes) -> str | None:
    """The kind of camera raw file that begins so, such as "CR3"; None for what is none, or a TIFF inside."""
    if start[4:12] == b"ftypcrx ":
        return "CR3"
    if start[:4] == b"II*\0" and start[8:10] == b"CR":
        return "CR2"
    return next((kind for signature, kind in CAMERA_RAWS.items() if start.startswith(signature)), None)


def camera_raw_of_maker(maker: str, is_dng: bool) -> str:
    """The kind of a TIFF that holds sensor data, from the maker's name in it."""
    if is_dng:
        return "DNG"
    known = (kind for name, kind in CAMERA_RAWS_OF_MAKERS.items() if maker.upper().startswith(name))
    return next(known, "TIFF with sensor data")


def refuse_camera_raw(kind: str) -> PhotoError:
    """The error for a camera raw file."""
    return PhotoError(f"is a camera raw file ({kind}): develop it to TIFF first")


def refuse_unidentified(start: bytes) -> PhotoError:
    """The error for a file that no reader takes."""
    if is_heif(start) or start[4:8] == b"ftyp":
        known: str | None = "HEIC" if is_heif(start) else "AVIF" if start[8:12] in AVIF_BRANDS else None
    else:
        known = next((name for signature, name in SIGNATURES.items() if start.startswith(signature)), None)
    if known is not None:
        article = "an" if known == "AVIF" else "a"
        return PhotoError(
            f"{article} {known} with a damaged header, or of a rare kind; open it in an editor and save it as PNG"
        )
    return NotAPictureError(f"not a picture in a known format; accepted: {READABLE_FORMATS}")
