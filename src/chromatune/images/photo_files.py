"""Photo files by their names: which format a suffix means, which files are results, and what lies in a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from chromatune.errors import PhotoError, printable

FORMAT_OF_SUFFIX = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".dib": "BMP",
    ".gif": "GIF",
    ".jp2": "JPEG2000",
    ".j2k": "JPEG2000",
    ".j2c": "JPEG2000",
    ".jpx": "JPEG2000",
    ".jpf": "JPEG2000",
    ".avif": "AVIF",
    ".heic": "HEIF",
    ".heif": "HEIF",
    ".hif": "HEIF",
    ".pbm": "PPM",
    ".pgm": "PPM",
    ".ppm": "PPM",
    ".pnm": "PPM",
    ".pfm": "PPM",
}
IMAGE_SUFFIXES = frozenset(FORMAT_OF_SUFFIX)
READABLE_FORMATS = "JPEG, PNG, TIFF, WebP, BMP, GIF, JPEG 2000, AVIF, HEIC, PNM"

RESULT_MARK = ".color"  # between the name of a photo and the suffix of its result
CONTACT_SHEET = "contact-sheet.png"  # that `chromatune data inspect` writes
# Folders of systems and network drives: bins, thumbnails, snapshots
SYSTEM_FOLDERS = frozenset(
    {"__macosx", "@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot", "$recycle.bin", "recycler",
     "lost+found", "system volume information"}
)  # fmt: skip
LONGEST_LABEL = 400  # characters

_RESULT = re.compile(rf"(?P<photo>.+){re.escape(RESULT_MARK)}(?:-\d+)?(?:-p\d+)?", re.DOTALL)  # of a variant, of a page


def format_for(suffix: str) -> str:
    """Return Pillow's format name for a file suffix such as ".JPG".

    Raises:
        PhotoError: the suffix is not one of `IMAGE_SUFFIXES`.
    """
    try:
        return FORMAT_OF_SUFFIX[suffix.lower()]
    except KeyError:
        accepted = " ".join(sorted(IMAGE_SUFFIXES))
        raise PhotoError(f"unknown image suffix {suffix[:20]!r}; accepted: {accepted}") from None


@dataclass(frozen=True)
class Listing:
    """What lies below a folder: relative POSIX paths, sorted.

    Attributes:
        root: the folder.
        photos: files with a photo's suffix.
        others: all other files.
        closed_folders: how many folders could not be opened.
        results: files with a photo's suffix that are results: of colorizing the photos, or of looking at them.
    """

    root: Path
    photos: tuple[str, ...]
    others: tuple[str, ...]
    closed_folders: int
    results: tuple[str, ...] = ()


def list_folder(root: Path) -> Listing:
    """List all files below a folder, through links too, but for hidden ones (macOS leaves `._x.jpg`) and the system's.

    Folders of runs, evaluations and experiments are not entered: their pictures are results.
    """
    from chromatune.files import is_run_folder  # imported late: file names need no library of locks

    photos: list[str] = []
    others: list[str] = []
    closed: list[OSError] = []
    visited: set[str] = set()  # a link may lead back up
    for parent, folders, files in os.walk(root, followlinks=True, onerror=closed.append):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        if parent != str(root) and is_run_folder(Path(parent)):
            folders.clear()  # a fine-tuning or an evaluation that was begun among its own photos
            continue
        # sorted, so that of two paths to one folder the same one is always used
        folders[:] = sorted(name for name in folders if not is_hidden_folder(name))
        below = "" if parent == str(root) else Path(parent).relative_to(root).as_posix() + "/"
        for name in files:
            if not name.startswith("."):
                is_photo = os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
                (photos if is_photo else others).append(below + name)
    results = set(find_own_results(photos))
    own = (name for name in photos if name not in results)
    return Listing(root, tuple(sorted(own)), tuple(sorted(others)), len(closed), tuple(sorted(results)))


def is_hidden_folder(name: str) -> bool:
    """Return whether no photos are looked for in a folder of this name: a hidden one, or one of the system's."""
    return name.startswith(".") or name.casefold() in SYSTEM_FOLDERS


def find_own_results(paths: Collection[str]) -> list[str]:
    """Return those of the paths whose names say that they are results of others of them, from an earlier run.

    `x.color.jpg`, `x.color-2.jpg` and `x.color-p3.png` are results beside an `x` of any suffix, and photos like any
    other without; a contact sheet is one beside anything.

    Args:
        paths: of photos, all with one kind of separator.
    """
    stems: set[str] = set()
    found = []
    for path in paths:
        stem = _stem(path)
        match = _RESULT.fullmatch(stem)
        if match and not stems:
            stems = {_stem(each) for each in paths}
        if (match and match["photo"] in stems) or (os.path.basename(path) == CONTACT_SHEET and len(paths) > 1):
            found.append(path)
    return found


def shown(label: str) -> str:
    """Return a source's or target's name as messages show it: printable, and cut where it is very long."""
    return printable(label if len(label) <= LONGEST_LABEL else f"{label[:LONGEST_LABEL]}…")


def _stem(path: str) -> str:
    return os.path.normpath(os.path.splitext(path)[0])
