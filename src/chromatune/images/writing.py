"""A result ⇒ a file, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from chromatune.errors import PhotoError
from chromatune.files import atomic_write
from chromatune.images.encoding import encode_photo
from chromatune.images.photo import Photo
from chromatune.images.photo_files import format_for, shown


def write_photo(path: str | os.PathLike, rgb: np.ndarray, photo: Photo, *, overwrite: bool = False) -> None:
    """Write a result; the file appears under its name only once it is complete and on the disk.

    Args:
        path: where to; the suffix decides the format (see `suffix_for`).
        rgb: (H, W, 3) uint8 or uint16, sRGB-coded, of the photo's size.
        photo: the source of the result.
        overwrite: replace an existing file; if not, of two writers of one name one fails.

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
        data = encode_photo(rgb, photo, format_name)
        atomic_write(target, data, overwrite=overwrite)
    except PhotoError as error:
        raise PhotoError(f"{label}: {error}") from error.__cause__
    except FileExistsError:
        raise PhotoError(f"{label}: already exists; choose another name, or allow overwriting") from None
    except PermissionError:
        raise PhotoError(f"{label}: no permission to write there; choose another folder") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise PhotoError(f"{label}: cannot be written ({reason}); check disk and path") from error
