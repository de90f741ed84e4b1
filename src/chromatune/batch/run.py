"""Photos through one model to their files: an event for each result and each failure, and no printing."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from pathlib import Path
from typing import BinaryIO, TypeAlias

from chromatune.batch.destinations import STANDARD_STREAM, Job
from chromatune.colorizer import Colorizer, ColorizeResult, Request
from chromatune.errors import PhotoError
from chromatune.images import MAX_PIXELS, Photo, format_for, read_photo, suffix_for
from chromatune.options import ColorizeOptions


@dataclass(frozen=True, eq=False)
class Done:
    """A result that is complete and on the disk.

    Attributes:
        job: what was to be made.
        path: its file; None for standard output.
        result: what was written there.
    """

    job: Job
    path: Path | None
    result: ColorizeResult


@dataclass(frozen=True)
class Failed:
    """Why a photo has no result, or lacks one of several; the others go on.

    Attributes:
        source: the photo's path, or "-" for standard input.
        message: one line that says what to do.
        results: number of results that are not made for this reason.
    """

    source: str
    message: str
    results: int = 1


@dataclass(frozen=True)
class Exists:
    """A result that stands there already, and was not to be replaced."""

    source: str
    path: Path


Event: TypeAlias = Done | Failed | Exists


@dataclass(frozen=True, eq=False)
class _Ready:
    """A decoded photo with the file of one result of it."""

    job: Job
    path: Path | None
    photo: Photo


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
    batch_size: int = 8,
    overwrite: bool = False,
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    standard_input: bytes = b"",
    standard_output: BinaryIO | None = None,
) -> Iterator[Event]:
    """What becomes of the jobs, as it happens: what names alone rule out, then photo by photo.

    Each photo is decoded once, whatever the number of its results. The model is loaded once a photo needs it.

    Args:
        jobs: what to make, see `plan`; the jobs of a photo stand together.
        options: of each variant.
        model: see `Colorizer.load`.
        device: where to compute; None for the best there is.
        batch_size: photos read ahead of the model.
        overwrite: replace results that exist; the photos given are never replaced.
        strict: refuse damaged photos that could be read in part.
        max_pixels: larger photos are refused.
        standard_input: the file that a job's source "-" stands for.
        standard_output: takes the results of jobs without a name; needed for those alone.

    Raises:
        ModelError: the model cannot be loaded, or gives no numbers.
        PhotoError: the folder of the first result cannot be made.
    """
    inputs = frozenset(os.path.realpath(job.source) for job in jobs if job.source != STANDARD_STREAM)
    paths = _Paths(inputs, overwrite)
    possible = yield from _possible(jobs, paths)

    def read(job: Job) -> Photo:
        source, name = (standard_input, "standard input") if job.source == STANDARD_STREAM else (job.source, None)
        return read_photo(source, name=name, page=job.page, strict=strict, max_pixels=max_pixels)

    entries = _read_ahead(possible, paths, read)
    for first in entries:
        if isinstance(first, _Ready):
            break
        yield first
    else:
        return
    _make_folder(first.path)  # before time is spent on what goes there
    colorizer = Colorizer.load(model, device=device)
    yield from _results(chain([first], entries), colorizer, options, batch_size, overwrite, standard_output)


def _possible(jobs: Iterable[Job], paths: _Paths) -> Generator[Failed | Exists, None, list[Job]]:
    """The jobs whose names let one expect a result; the others fail before any photo is read."""
    possible: list[Job] = []
    for source, group in groupby(jobs, key=lambda job: job.source):
        wanted = list(group)
        if source != STANDARD_STREAM and os.path.isdir(source):
            example = os.path.join(source, "*.jpg")
            yield Failed(source, f"{source} is a folder; give the files in it, such as {example}", len(wanted))
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


def _read_ahead(jobs: Iterable[Job], paths: _Paths, read: Callable[[Job], Photo]) -> Iterator[_Ready | Failed | Exists]:
    """Each photo decoded once, for each of its results whose file may be written."""
    for (source, _), group in groupby(jobs, key=lambda job: (job.source, job.page)):
        wanted = list(group)
        try:
            photo = read(wanted[0])
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
            yield _Ready(job, path, photo)


def _make_folder(path: Path | None) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PhotoError(f"{path.parent}: cannot be made ({error.strerror}); choose another place with -o") from error


def _results(
    entries: Iterable[_Ready | Failed | Exists],
    colorizer: Colorizer,
    options: Sequence[ColorizeOptions],
    batch_size: int,
    overwrite: bool,
    standard_output: BinaryIO | None,
) -> Iterator[Event]:
    """The photos colorized as one stream and written, each failure at its photo's turn."""
    waiting: deque[_Ready | Failed | Exists] = deque()  # read, and not yet answered by the model

    def requests() -> Iterator[Request]:
        for entry in entries:
            waiting.append(entry)
            if isinstance(entry, _Ready):
                yield Request(entry.photo, options[entry.job.variant])

    given_up: set[str] = set()  # photos whose result could not be written: not again for each variant
    try:
        for result in colorizer.colorize_many(requests(), batch_size=batch_size):
            ready = yield from _next_ready(waiting)
            if ready.job.source in given_up:
                continue
            event = _write(ready, result, overwrite, standard_output)
            if isinstance(event, Failed):
                given_up.add(event.source)
            yield event
    except (Exception, KeyboardInterrupt):
        yield from _failures(waiting)  # found while reading ahead: told even where the model gives up
        raise
    yield from _failures(waiting)


def _next_ready(waiting: deque[_Ready | Failed | Exists]) -> Generator[Failed | Exists, None, _Ready]:
    while not isinstance(entry := waiting.popleft(), _Ready):
        yield entry
    return entry


def _failures(waiting: Iterable[_Ready | Failed | Exists]) -> Iterator[Failed | Exists]:
    return (entry for entry in waiting if not isinstance(entry, _Ready))


def _write(
    ready: _Ready, result: ColorizeResult | PhotoError, overwrite: bool, standard_output: BinaryIO | None
) -> Event:
    try:
        if isinstance(result, PhotoError):
            raise result
        if ready.path is not None:
            result.save(ready.path, overwrite=overwrite)
        elif standard_output is not None:
            standard_output.write(result.encode(format_for(suffix_for(None, result.photo))))
            standard_output.flush()
    except PhotoError as error:
        return Failed(ready.job.source, str(error))
    return Done(ready.job, ready.path, result)
