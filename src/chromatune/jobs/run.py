"""Photos through one model to their files: an event for each result and each failure, and no printing."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import chain, groupby
from pathlib import Path
from typing import BinaryIO

from chromatune.colorizer import Colorizer
from chromatune.errors import PhotoError
from chromatune.images import MAX_PIXELS, Photo, read_photo
from chromatune.jobs.destinations import STANDARD_STREAM, Job
from chromatune.jobs.events import Event, Exists, Failed, Ready
from chromatune.jobs.hint_layers import HintsOf, no_hints
from chromatune.jobs.pipeline import Maker, ahead, make_all
from chromatune.options import ColorizeOptions
from chromatune.pipeline import usual_workers


@dataclass
class _Paths:
    """Which files may be written."""

    inputs: frozenset[str]  # real paths of all photos given: none of them is written to
    overwrite: bool
    taken: set[str] = field(default_factory=set)  # real paths of results that this run has made or will make

    def refusal(self, path: Path | None) -> str | None:
        """Why no result may be written to a path, or None."""
        if path is None:
            return None
        real_path = os.path.realpath(path)
        if real_path in self.inputs:
            return f"{path} is one of the photos given, which are never replaced; choose another place with -o"
        if real_path in self.taken:
            return f"{path} is the result of another photo of this run; colorize this one apart"
        if path.parent.is_dir() and not os.access(path.parent, os.W_OK):
            return f"{path}: no permission to write there; choose another place with -o"
        return None

    def exists(self, path: Path | None) -> bool:
        """Whether a result stands there already, and is to stay."""
        return path is not None and not self.overwrite and os.path.lexists(path)

    def take(self, path: Path | None) -> None:
        if path is not None:
            self.taken.add(os.path.realpath(path))


def run_jobs(
    jobs: Sequence[Job],
    options: Sequence[ColorizeOptions],
    model: str,
    *,
    device: str | None = None,
    runtime: str | None = None,
    batch_size: int = 8,
    overwrite: bool = False,
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    standard_input: bytes = b"",
    standard_output: BinaryIO | None = None,
    hints_of: HintsOf = no_hints,
    like: Sequence[Photo] = (),
) -> Iterator[Event]:
    """What becomes of the jobs, as it happens: what names alone rule out, then photo by photo.

    Each photo is decoded once, whatever the number of its results. The model is loaded once a photo needs it.

    Args:
        jobs: what to make, see `plan`; the jobs of a photo stand together.
        options: of each variant.
        model: see `Colorizer.load`.
        device: where to compute; None for the best there is.
        runtime: the library that computes; None for the faster one.
        batch_size: photos read ahead of the model.
        overwrite: replace results that exist; the photos given are never replaced.
        strict: refuse damaged photos that could be read in part.
        max_pixels: larger photos are refused.
        standard_input: the file that a job's source "-" stands for.
        standard_output: takes the results of jobs without a name; needed for those alone.
        hints_of: gives what is known of the colors of a source's photo, or raises a `PhotoError`.
        like: photos in color whose colors are taken where they show the same.

    Raises:
        OptionsError: there are references, and the model has no photo encoder.
        ModelError: the model cannot be loaded, or gives no numbers.
        PhotoError: the folder of the first result cannot be made.
    """
    inputs = frozenset(os.path.realpath(job.source) for job in jobs if job.source != STANDARD_STREAM)
    paths = _Paths(inputs, overwrite)
    possible = yield from _possible(jobs, paths)

    def read(job: Job) -> Photo:
        source, name = (standard_input, "standard input") if job.source == STANDARD_STREAM else (job.source, None)
        return read_photo(source, name=name, page=job.page, strict=strict, max_pixels=max_pixels)

    found = _read_all(possible, paths, read, hints_of)
    alone = len(possible) == 1  # threads would gain nothing, and each has memory of its own
    with nullcontext(found) if alone else ahead(found) as entries:
        for first in entries:
            if isinstance(first, Ready):
                break
            yield first
        else:
            return
        _make_folder(first.path)  # before time is spent on what goes there
        colorizer, workers = _load(model, device, runtime, len(possible))
        references = tuple(colorizer.reference(photo) for photo in like)
        maker = Maker(colorizer, options, overwrite=overwrite, standard_output=standard_output, like=references)
        yield from make_all(chain([first], entries), maker, batch_size=batch_size, workers=0 if alone else workers)


def _load(model: str, device: str | None, runtime: str | None, results: int) -> tuple[Colorizer, int]:
    """The model, and how many threads take results through it."""
    workers = max(1, min(results, usual_workers()))
    colorizer = Colorizer.load(model, device=device, runtime=runtime, workers=workers)
    if not colorizer.backend.concurrent:  # on a GPU, a photo is written while the next is in the pass; a CPU's
        workers = min(workers, 2 if colorizer.backend.batches else 1)  # threads would only be in the way
    return colorizer, workers


def _possible(jobs: Iterable[Job], paths: _Paths) -> Generator[Failed | Exists, None, list[Job]]:
    """The jobs whose names let one expect a result; the others fail before any photo is read."""
    possible: list[Job] = []
    for source, group in groupby(jobs, key=lambda job: job.source):
        wanted = list(group)
        if source != STANDARD_STREAM and os.path.isdir(source):
            yield Failed(
                source, f"{source} is a folder; use `chromatune batch {source} RESULTS`, or give files", len(wanted)
            )
            continue
        for job in wanted:
            path = job.expected_path
            reason = paths.refusal(path)
            if reason is not None:
                yield Failed(source, reason)
            elif path is not None and paths.exists(path):
                yield Exists(source, path)
            else:
                possible.append(job)
    return possible


def _read_all(
    jobs: Iterable[Job], paths: _Paths, read: Callable[[Job], Photo], hints_of: HintsOf
) -> Iterator[Ready | Failed | Exists]:
    """Each photo decoded once, for each of its results whose file may be written."""
    for (source, _), group in groupby(jobs, key=lambda job: (job.source, job.page)):
        wanted = list(group)
        try:
            photo = read(wanted[0])
            hints = hints_of(source)
            hints.check(photo)
        except PhotoError as error:
            yield Failed(source, str(error), len(wanted))
            continue
        for job in wanted:
            path = job.path_for(photo)
            reason = paths.refusal(path)  # again: what the photo holds may have changed the suffix
            if reason is not None:
                yield Failed(source, reason)
                continue
            if path is not None and paths.exists(path):
                yield Exists(source, path)
                continue
            paths.take(path)
            yield Ready(job, path, photo, hints)


def _make_folder(path: Path | None) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PhotoError(f"{path.parent}: cannot be made ({error.strerror}); choose another place with -o") from error
