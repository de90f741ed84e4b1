"""Which file each result goes to, decided before any work is done."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from chromatune.errors import OptionsError
from chromatune.images import IMAGE_SUFFIXES, RESULT_MARK, Photo, suffix_for

STANDARD_STREAM = "-"
ORDINARY_PHOTO = Photo(np.zeros((1, 1), np.uint8))  # 8 bits, opaque: what a name alone lets one expect


@dataclass(frozen=True)
class Job:
    """One result to make.

    Attributes:
        source: path of the photo, or "-" for standard input.
        variant: 0 for the first result of a photo; its seed is the first seed plus this.
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
        """Path of the result: its suffix is `.png` where the wanted format cannot hold it. None: standard output."""
        if self.stem is None:
            return None
        if self.exact and self.suffix is not None:
            return Path(self.stem + self.suffix)
        return Path(self.stem + suffix_for(self.suffix, photo))

    @property
    def expected_path(self) -> Path | None:
        """Path of the result as far as names alone tell; None where they do not."""
        return None if self.suffix is None else self.path_for(ORDINARY_PHOTO)


def plan(
    photos: Sequence[str], out: str | None, variants: int, pages: Mapping[str, Sequence[int]] | None = None
) -> list[Job]:
    """The results to make, photo by photo, each photo's variants in order; a photo given twice counts once.

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
        first_of.setdefault(_same_file(photo), photo)
    photos = list(first_of.values())
    wanted = {photo: tuple((pages or {}).get(photo, (None,))) for photo in photos}
    results = variants * sum(len(of_photo) for of_photo in wanted.values())
    if out == STANDARD_STREAM or (out is None and photos == [STANDARD_STREAM]):
        if results > 1:
            raise OptionsError("standard output takes one result; give one photo and one variant, or -o FOLDER")
        return [Job(photos[0], 0, stem=None, page=wanted[photos[0]][0])]
    jobs = [
        _paged(_job(source, out, variant, variants, len(photos)), page, len(of_photo))
        for source, of_photo in wanted.items()
        for page in of_photo
        for variant in range(variants)
    ]
    _refuse_collisions(jobs)
    return jobs


def _same_file(photo: str) -> str:
    return photo if photo == STANDARD_STREAM else os.path.abspath(photo)


def _paged(job: Job, page: int | None, pages: int) -> Job:
    """The job for a page; where a photo has several, each result's name says which it is of."""
    if page is None or pages == 1 or job.stem is None:
        return replace(job, page=page)
    return replace(job, page=page, stem=f"{job.stem}-p{page}")


def _job(source: str, out: str | None, variant: int, variants: int, photos: int) -> Job:
    number = f"-{variant + 1}" if variants > 1 else ""
    name = Path("stdin" if source == STANDARD_STREAM else source)
    suffix = None if source == STANDARD_STREAM else name.suffix
    if out is None:
        return Job(
            source, variant, str(name.with_name(f"{name.stem}{RESULT_MARK}{number}")) if name.name else source, suffix
        )
    target = Path(out)
    if photos == 1 and target.suffix.lower() in IMAGE_SUFFIXES and not target.is_dir():
        if suffix_for(target.suffix, ORDINARY_PHOTO) != target.suffix:
            raise OptionsError(f"{out}: results cannot be written as {target.suffix}; choose .png, .tif, .webp or .jpg")
        return Job(source, variant, str(target.with_suffix("")) + number, target.suffix, exact=True)
    if target.exists() and not target.is_dir():
        raise OptionsError(f"{out} is a file; give a folder, or for one photo a file name such as result.png")
    return Job(source, variant, str(target / (name.stem + number)), suffix)


def _refuse_collisions(jobs: list[Job]) -> None:
    source_of: dict[str, str] = {}
    for job in jobs:
        path = job.expected_path
        if path is None:
            continue
        other = source_of.setdefault(os.path.realpath(path), job.source)
        if other != job.source:
            raise OptionsError(f"{other} and {job.source} would both become {path}; run them apart, or rename one")
