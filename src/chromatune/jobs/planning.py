"""What is to be made of photos before any is read: the file of each result, and by their names hints and pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeAlias

import numpy as np

from chromatune.errors import OptionsError, PhotoError
from chromatune.hints import LAYER_SUFFIXES, Hints, list_layers
from chromatune.images import IMAGE_SUFFIXES, RESULT_MARK, Photo, suffix_for

STANDARD_STREAM = "-"
ORDINARY_PHOTO = Photo(np.zeros((1, 1), np.uint8))  # 8 bits, opaque: what is expected by a name alone

HintLookup: TypeAlias = Callable[[str], Hints]  # from a photo's path, or "-"
FinishedLookup: TypeAlias = Callable[[str], str]  # a photo's path ⇒ that of its finished picture


@dataclass(frozen=True)
class Job:
    """One result to make.

    Attributes:
        source: path of the photo, or "-" for standard input.
        variant: 0 for the first result of a photo; it is in the options of each, see `ColorizeOptions.variant`.
        stem: path of the result without its suffix; None means standard output.
        suffix: suffix the result should have; None means the one of the photo's own format.
        exact: the user named this very file, so that its suffix stays, whatever the photo holds.
        page: of a file that holds several pictures, from 1; None for the one that is the photo.
    """

    source: str
    variant: int
    stem: str | None
    suffix: str | None = None
    exact: bool = False
    page: int | None = None

    def path_for(self, photo: Photo) -> Path | None:
        """Return the result's path, `.png` where the wanted format cannot hold it; None for standard output."""
        if self.stem is None:
            return None
        if self.exact and self.suffix is not None:
            return Path(self.stem + self.suffix)
        return Path(self.stem + suffix_for(self.suffix, photo))

    @property
    def expected_path(self) -> Path | None:
        """Path of the result as far as names alone tell; None where they do not."""
        return None if self.suffix is None else self.path_for(ORDINARY_PHOTO)


def plan_jobs(
    photos: Sequence[str], out: str | None, variants: int, pages: Mapping[str, Sequence[int]] | None = None
) -> list[Job]:
    """Return the results to make, photo by photo, each photo's variants in order; a photo given twice counts once.

    Args:
        photos: paths, or "-" alone.
        out: file, folder or "-"; None means beside the photo, or standard output for a photo from standard input.
        variants: results for each photo.
        pages: numbers of the pages wanted of a photo; without, the one that is the photo.

    Raises:
        OptionsError: the photos and `out` contradict each other, or two results would have one name.
    """
    if STANDARD_STREAM in photos and len(photos) > 1:
        raise OptionsError("- reads one photo from standard input; give it alone")
    if out is not None and not out.strip():
        raise OptionsError("-o is empty; give a file or a folder")
    first_of: dict[str, str] = {}
    for photo in photos:
        first_of.setdefault(photo if photo == STANDARD_STREAM else os.path.abspath(photo), photo)
    photos = list(first_of.values())
    wanted = {photo: tuple((pages or {}).get(photo, (None,))) for photo in photos}
    results = variants * sum(len(of_photo) for of_photo in wanted.values())
    if out == STANDARD_STREAM or (out is None and photos == [STANDARD_STREAM]):
        if results > 1:
            raise OptionsError("standard output takes one result; give one photo and one variant, or -o FOLDER")
        return [Job(photos[0], 0, stem=None, page=wanted[photos[0]][0])]
    jobs: list[Job] = []
    source_of: dict[str, str] = {}
    for source, of_photo in wanted.items():
        for page, variant in product(of_photo, range(variants)):
            number = (f"-{variant + 1}" if variants > 1 else "") + (f"-p{page}" if len(of_photo) > 1 else "")
            jobs.append(Job(source, variant, *_result_name(source, out, number, len(photos)), page=page))
    for job in jobs:
        if (path := job.expected_path) is not None:
            other = source_of.setdefault(os.path.realpath(path), job.source)
            if other != job.source:
                raise OptionsError(
                    f"{other} and {job.source} would both become {path}; colorize them separately, or rename one"
                )
    return jobs


def _result_name(source: str, out: str | None, number: str, photos: int) -> tuple[str, str | None, bool]:
    """Return stem, suffix and exactness of a result, see `Job`; its number tells a photo's variants and pages apart."""
    name = Path("stdin" if source == STANDARD_STREAM else source)
    suffix = None if source == STANDARD_STREAM else name.suffix
    if out is None:
        beside = str(name.with_name(f"{name.stem}{RESULT_MARK}{number}")) if name.name else source
        return beside, suffix, False
    target = Path(out)
    if photos == 1 and target.suffix.lower() in IMAGE_SUFFIXES and not target.is_dir():
        if suffix_for(target.suffix, ORDINARY_PHOTO) != target.suffix:
            raise OptionsError(f"{out}: results cannot be written as {target.suffix}; choose .png, .tif, .webp or .jpg")
        return str(target.with_suffix("")) + number, target.suffix, True
    if target.exists() and not target.is_dir():
        raise OptionsError(f"{out} is a file; give a folder, or for one photo a file name such as result.png")
    return str(target / (name.stem + number)), suffix, False


def no_hints(source: str) -> Hints:
    """Return no hints, for any photo."""
    return Hints()


def finished_from_folder(folder: str) -> FinishedLookup:
    """Find a photo's finished picture by its name: of `a/b.jpg`, a picture in FOLDER called `b` or `b.color`.

    Raises:
        OptionsError: there is no such folder, or no picture in it.
    """
    pictures: dict[str, list[Path]] = {}
    with suppress(OSError):
        for path in sorted(Path(folder).iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                pictures.setdefault(path.stem.removesuffix(RESULT_MARK), []).append(path)
    if not pictures:
        raise OptionsError(f"{folder}: no picture in it; give a folder of finished pictures, named like the photos")

    def finished_of(source: str) -> str:
        found = pictures.get(Path(source).stem, [])
        if len(found) != 1:
            named = f"{found[0]} and {found[1].name} both have it; keep one" if found else f"none in {folder}"
            raise PhotoError(f"{source}: no finished picture of this name ({named})")
        return str(found[0])

    return finished_of


def hints_from_folder(folder: str) -> HintLookup:
    """Find a photo's hints by its name: of `a/b.jpg`, the layer `FOLDER/b.png`, `.tif`, `.tiff` or `.webp`.

    A photo without such a file has no hints.

    Raises:
        OptionsError: there is no such folder, or no layer in it.
    """
    layers: dict[str, list[Path]] = {}
    for path in list_layers(Path(folder)):
        layers.setdefault(path.stem, []).append(path)
    if not layers:
        raise OptionsError(
            f"{folder}: no painted layers in it; name them like the photos, ending in {' '.join(LAYER_SUFFIXES)}"
        )

    def hints_of(source: str) -> Hints:
        found = [] if source == STANDARD_STREAM else layers.get(Path(source).stem, [])
        if len(found) > 1:
            raise PhotoError(f"{source}: {found[0]} and {found[1].name} both look like its painted layer; keep one")
        return Hints.from_layer(found[0], name=str(found[0])) if found else Hints()

    return hints_of
