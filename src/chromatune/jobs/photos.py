"""Photos through one model to files of their own: which file each result goes to, and an event for each.

`plan_jobs` names the files before any work is done; `colorize_photos` makes them. Nothing is printed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, groupby, product
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np

from chromatune.colorizer import Colorizer
from chromatune.errors import OptionsError, PhotoError
from chromatune.files import prefetch
from chromatune.hints import LAYER_SUFFIXES, Hints, Reference, list_layers
from chromatune.images import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    RESULT_MARK,
    Photo,
    format_for,
    read_photo,
    suffix_for,
    write_photo,
)
from chromatune.jobs.engine import Task, run_tasks
from chromatune.jobs.sidecars import MadeOf, write_sidecar
from chromatune.options import ColorizeOptions
from chromatune.pipeline import usual_workers, weights_hash
from chromatune.recoloring import recolor
from chromatune.results import ColorizeResult, Request

STANDARD_STREAM = "-"
ORDINARY_PHOTO = Photo(np.zeros((1, 1), np.uint8))  # 8 bits, opaque: what is expected by a name alone
READ_AHEAD = 2  # photos that are read before the model asks for them

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
