"""Photos through one model to files of their own, and an event for each result. Nothing is printed."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import BinaryIO, TypeAlias

from chromatune.colorizer import Colorizer
from chromatune.errors import OptionsError, PhotoError
from chromatune.files import prefetch
from chromatune.hints import Hints, Reference
from chromatune.images import MAX_PIXELS, Photo, format_for, read_photo, suffix_for, write_photo
from chromatune.jobs.engine import Task, run_tasks
from chromatune.jobs.planning import STANDARD_STREAM, FinishedLookup, HintLookup, Job, no_hints
from chromatune.jobs.sidecars import MadeOf, write_sidecar
from chromatune.options import ColorizeOptions
from chromatune.pipeline import usual_workers, weights_hash
from chromatune.recoloring import recolor
from chromatune.results import ColorizeResult, Request

READ_AHEAD = 2  # photos that are read before the model asks for them


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
    """A result that exists already, and was not to be replaced."""

    source: str
    path: Path


Event: TypeAlias = Done | Failed | Exists
ResultsOf: TypeAlias = Callable[[Sequence["DecodedPhoto"]], Iterable[ColorizeResult | PhotoError]]


@dataclass(frozen=True, eq=False)
class DecodedPhoto:
    """A photo that was read, its hints, and the file of one of its results."""

    job: Job
    path: Path | None
    photo: Photo
    hints: Hints


def colorize_photos(
    jobs: Sequence[Job],
    options: Sequence[ColorizeOptions],
    model: str | None,
    *,
    device: str | None = None,
    runtime: str | None = None,
    batch_size: int = 8,
    overwrite: bool = False,
    strict: bool = False,
    keep_times: bool = False,
    max_pixels: int = MAX_PIXELS,
    standard_input: bytes = b"",
    standard_output: BinaryIO | None = None,
    hints_of: HintLookup = no_hints,
    like: Sequence[Photo] = (),
    sidecars: bool = False,
    finished_of: FinishedLookup | None = None,
) -> Iterator[Event]:
    """Make the results and yield an event for each: first what names alone rule out, then in the order of the jobs.

    Each photo is decoded once, whatever the number of its results. The model is loaded once a photo needs it. One
    thread reads ahead, and each worker takes a photo through the model to its file; on a GPU several photos share a
    pass, and the next ones go through it while the last are written.

    Args:
        jobs: what to make, see `plan_jobs`; the jobs of a photo follow each other.
        options: of each variant.
        model: see `Colorizer.load`; with `finished_of` None for none.
        device: where to compute; None for the best there is.
        runtime: the library that computes; None for the faster one.
        batch_size: photos that share a pass where the model gains by it.
        overwrite: replace results that exist; the photos given are never replaced.
        strict: refuse damaged photos that could be read in part.
        keep_times: a result gets its photo's time of last change.
        max_pixels: larger photos are refused.
        standard_input: content of the photo of a job whose source is "-".
        standard_output: takes the results of jobs without a name; needed for those alone.
        hints_of: returns the hints of a source's photo, or raises a `PhotoError`.
        like: photos in color whose colors are used where they show the same.
        sidecars: write a JSON file beside each result, from which it can be made again; references are then files.
        finished_of: returns the finished picture of a source's photo, whose colors it gets, or raises a `PhotoError`;
            the model then gives colors where the picture has none.

    Raises:
        OptionsError: there are references, and the model has no photo encoder; or the model makes no variants.
        ModelError: the model cannot be loaded, or gives no numbers; events that are known by then come first.
        PhotoError: the folder of the first result cannot be made.
    """
    inputs = frozenset(os.path.realpath(job.source) for job in jobs if job.source != STANDARD_STREAM)
    outputs = _OutputPaths(inputs, overwrite)
    possible = yield from _possible_jobs(jobs, outputs)
    alone = len(possible) == 1  # threads would gain nothing, and each has memory of its own
    reading = ThreadPoolExecutor(1, "read-ahead")

    def decode(job: Job) -> Photo:
        source, name = (standard_input, "standard input") if job.source == STANDARD_STREAM else (job.source, None)
        return read_photo(source, name=name, page=job.page, strict=strict, max_pixels=max_pixels)

    read = partial(_read, outputs=outputs, decode=decode, hints_of=hints_of)
    try:
        photos = (list(group) for _, group in groupby(possible, key=lambda job: (job.source, job.page)))
        found = map(read, photos) if alone else prefetch(reading, read, photos, READ_AHEAD)
        entries = chain.from_iterable(found)
        for first in entries:
            if isinstance(first, DecodedPhoto):
                break
            yield first
        else:
            return
        _make_folder(first.path)  # before time is spent on what goes there
        colorizer, workers = (None, usual_workers()) if model is None else _load(model, device, runtime, len(possible))
        for each in options:  # before the first variant is written
            if colorizer is not None:
                colorizer.info.resolve(each)
        if finished_of is not None:
            results_of: ResultsOf = partial(_recolored, colorizer, options, finished_of)
        elif colorizer is not None:
            references = tuple(colorizer.reference(photo) for photo in like)
            results_of = partial(_colorized, colorizer, options, references)
        else:
            raise OptionsError("give a model, or finished pictures", "model")
        made_of = None
        if sidecars and model is not None:
            made_of = MadeOf("", None, model, weights_hash(model), tuple(photo.name for photo in like))
        writer = Writer(results_of, options, overwrite, standard_output, keep_times, made_of)
        workers = 0 if alone else workers
        batches = finished_of is None and colorizer is not None and colorizer.backend.batches
        together = max(1, batch_size) if batches else 1
        tasks = _tasks(chain([first], entries), writer, together)
        yield from _events(run_tasks(tasks, workers=workers, most_tasks=workers + 1, in_order=True))
    finally:
        reading.shutdown(wait=True, cancel_futures=True)


@dataclass
class _OutputPaths:
    """Which files may be written."""

    inputs: frozenset[str]  # real paths of all photos given: none of them is written to
    overwrite: bool
    results: set[str] = field(default_factory=set)  # real paths of results that this run has made or will make

    def refuse(self, source: str, path: Path | None) -> Failed | Exists | None:
        """Return why a photo's result may not be written to a path; None if it may."""
        if path is None:
            return None
        real_path = os.path.realpath(path)
        if real_path in self.inputs:
            problem = f"{path} is one of the input photos, which are never replaced; choose another place with -o"
        elif real_path in self.results:
            problem = f"{path} is the result of another photo of this run; colorize this one separately"
        elif path.parent.is_dir() and not os.access(path.parent, os.W_OK):
            problem = f"{path}: no permission to write there; choose another place with -o"
        else:
            return Exists(source, path) if not self.overwrite and os.path.lexists(path) else None
        return Failed(source, problem)


def _possible_jobs(jobs: Iterable[Job], outputs: _OutputPaths) -> Generator[Failed | Exists, None, list[Job]]:
    """Return the jobs that can have a result by their names; yield why the others cannot, before any photo is read."""
    possible: list[Job] = []
    for source, group in groupby(jobs, key=lambda job: job.source):
        of_photo = list(group)
        if source != STANDARD_STREAM and os.path.isdir(source):
            message = f"{source} is a folder; use `chromatune batch {source} RESULTS`, or give files"
            yield Failed(source, message, len(of_photo))
            continue
        for job in of_photo:
            refused = outputs.refuse(source, job.expected_path)
            if refused is None:
                possible.append(job)
            else:
                yield refused
    return possible


def _read(
    of_photo: list[Job], outputs: _OutputPaths, decode: Callable[[Job], Photo], hints_of: HintLookup
) -> list[DecodedPhoto | Failed | Exists]:
    """Decode a photo once, for each of its results whose file may be written."""
    source = of_photo[0].source
    try:
        photo = decode(of_photo[0])
        hints = hints_of(source)
        hints.check(photo)
    except PhotoError as error:
        return [Failed(source, str(error), len(of_photo))]
    entries: list[DecodedPhoto | Failed | Exists] = []
    for job in of_photo:
        path = job.path_for(photo)
        refused = outputs.refuse(source, path)  # again: what the photo holds may have changed the suffix
        if refused is None and path is not None:
            outputs.results.add(os.path.realpath(path))
        entries.append(refused or DecodedPhoto(job, path, photo, hints))
    return entries


def _make_folder(path: Path | None) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PhotoError(f"{path.parent}: cannot be made ({error.strerror}); choose another place with -o") from error


def _load(model: str, device: str | None, runtime: str | None, results: int) -> tuple[Colorizer, int]:
    """Return the model, and how many threads take results through it."""
    workers = max(1, min(results, usual_workers()))
    colorizer = Colorizer.load(model, device=device, runtime=runtime, workers=workers)
    if not colorizer.backend.concurrent:  # on a GPU, a photo is written while the next is in the pass; a CPU's
        workers = min(workers, 2 if colorizer.backend.batches else 1)  # threads would only be in the way
    return colorizer, workers


def _colorized(
    colorizer: Colorizer,
    options: Sequence[ColorizeOptions],
    references: tuple[Reference, ...],
    photos: Sequence[DecodedPhoto],
) -> Iterable[ColorizeResult | PhotoError]:
    """Colorize photos by a model."""
    requests = [Request(each.photo, options[each.job.variant], each.hints, references) for each in photos]
    return colorizer.colorize_many(requests, batch_size=len(photos))


def _recolored(
    colorizer: Colorizer | None,
    options: Sequence[ColorizeOptions],
    finished_of: FinishedLookup,
    photos: Sequence[DecodedPhoto],
) -> Iterator[ColorizeResult | PhotoError]:
    """Give photos the colors of their finished pictures."""
    for each in photos:
        try:
            path = finished_of(each.job.source)
            picture = read_photo(path, name=path)
            yield recolor(each.photo, picture, options[each.job.variant], hints=each.hints, colorizer=colorizer)
        except PhotoError as error:
            yield error


@dataclass(frozen=True)
class Writer:
    """Takes photos through the model to their files.

    Attributes:
        results_of: colorizes photos, together where the model gains by it.
        options: of each variant.
        overwrite: replace results that exist.
        standard_output: takes the results of jobs without a name.
        keep_times: a result gets its photo's time of last change.
        made_of: for sidecars: the model and the references; None for none.
    """

    results_of: ResultsOf
    options: Sequence[ColorizeOptions]
    overwrite: bool = False
    standard_output: BinaryIO | None = None
    keep_times: bool = False
    made_of: MadeOf | None = None

    def write(self, photos: Sequence[DecodedPhoto]) -> list[Event]:
        """Colorize photos in one pass, write their results, and return an event for each."""
        return [self._write(each, result) for each, result in zip(photos, self.results_of(photos), strict=True)]

    def _write(self, decoded: DecodedPhoto, result: ColorizeResult | PhotoError) -> Event:
        try:
            if isinstance(result, PhotoError):
                raise result
            if decoded.path is not None:
                # A link is the user's own where that very file was named; in a folder anybody may have put it there
                named = decoded.job.exact
                write_photo(
                    decoded.path,
                    result.rgb,
                    result.photo,
                    provenance=result.provenance,
                    overwrite=self.overwrite,
                    follow_link=named,
                )
                if self.made_of is not None:
                    self._write_sidecar(self.made_of, decoded, decoded.path, result)
                if self.keep_times and decoded.job.source != STANDARD_STREAM:
                    _keep_time(decoded.job.source, decoded.path)
            elif self.standard_output is not None:
                self.standard_output.write(result.encode(format_for(suffix_for(None, result.photo))))
                self.standard_output.flush()
        except PhotoError as error:
            return Failed(decoded.job.source, str(error))
        return Done(decoded.job, decoded.path, result)

    def _write_sidecar(self, made_of: MadeOf, decoded: DecodedPhoto, path: Path, result: ColorizeResult) -> None:
        made_of = replace(made_of, photo=decoded.job.source, page=decoded.job.page)
        options = self.options[decoded.job.variant]
        write_sidecar(path, made_of, options, decoded.hints, result.runtime, overwrite=self.overwrite)


def _keep_time(source: str, result: Path) -> None:
    """Give a result its photo's time of last change."""
    with suppress(OSError):  # the photo may be gone, and a disk may not have such a time
        modified_ns = os.stat(source).st_mtime_ns
        os.utime(result, ns=(modified_ns, modified_ns))


def _tasks(
    entries: Iterable[DecodedPhoto | Failed | Exists], writer: Writer, together: int
) -> Iterator[Task[Event | list[Event]]]:
    """Yield a task for each so many photos in a row, and one for each entry without a photo."""
    batch: list[DecodedPhoto] = []
    for entry in chain(entries, [None]):  # None ends the last batch
        if isinstance(entry, DecodedPhoto):
            batch.append(entry)
        if batch and (len(batch) == together or not isinstance(entry, DecodedPhoto)):
            pixels = sum(each.photo.height_px * each.photo.width_px for each in batch)
            yield Task(partial(writer.write, batch), pixels=pixels)
            batch = []
        if isinstance(entry, Failed | Exists):
            yield Task.known(entry)


def _events(results: Iterable[Event | list[Event]]) -> Iterator[Event]:
    """Yield all events, but of a photo whose results could not be written the first failure alone."""
    failed: set[str] = set()
    for result in results:
        for event in result if isinstance(result, list) else []:
            if isinstance(event, Failed):
                if event.source in failed:
                    continue
                failed.add(event.source)
            yield event
        if not isinstance(result, list):
            yield result
