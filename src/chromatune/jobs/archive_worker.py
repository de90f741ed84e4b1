"""One photo of an archive from its file to its result's: what a worker does, in whatever process it runs.

A worker loads the model once and then colorizes job after job. It touches files of photos and results alone: the table
of an archive stays with the process that gives out the jobs. Settings, jobs and records can be sent to other processes.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Literal, Protocol

import cv2
import numpy as np
from PIL import Image

from chromatune.colorizer import Colorizer
from chromatune.errors import ChromaTuneError, PhotoError, first_line, printable
from chromatune.hints import Hints
from chromatune.images import (
    MAX_PIXELS,
    Photo,
    count_pixels,
    encode_photo,
    format_for,
    read_photo,
    suffix_for,
    to_depth,
)
from chromatune.jobs.engine import ResourceLimiter, Task, run_tasks
from chromatune.jobs.store_protocol import SourceGoneError, Store
from chromatune.options import ColorizeOptions
from chromatune.pipeline import usual_workers

State = Literal["done", "unchanged", "skipped", "copied", "failed", "halted"]
Colored = Literal["skip", "copy", "recolor"]
HASH_DIGITS = 32
THUMBNAIL_PX, THUMBNAIL_QUALITY = 256, 75  # longest side of a photo in it
FILE_BYTES_A_PIXEL = 56  # of a file in memory count as a pixel: as many as a pixel takes
TASKS_A_THREAD = 2  # one in work and one that waits: enough that no thread waits for the next


@dataclass(frozen=True)
class ArchiveSettings:
    """How all photos of an archive are colorized, from where to where.

    Attributes:
        source: of the photos.
        destination: of the results.
        layers: of painted layers, named like the photos; None for none.
        model: see `Colorizer.load`.
        options: of all photos; a `chromatune.toml` in a folder of the source has others for its photos.
        page: of files that hold several pictures, from 1; None for the main one of each.
        device: where to compute; None for the best there is.
        runtime: the library that computes; None for the faster one.
        strict: refuse damaged photos that could be read in part.
        max_pixels: larger photos are refused.
        keep_times: a result gets its photo's time of last change.
        colored: what is done with photos that are in color already and have no painted layer: nothing, they are copied
            as they are, or colorized like the others, as all are with `options.invert`.
    """

    source: Store
    destination: Store
    layers: Store | None = None
    model: str = "mini"
    options: ColorizeOptions = ColorizeOptions()
    page: int | None = None
    device: str | None = None
    runtime: str | None = None
    strict: bool = False
    max_pixels: int = MAX_PIXELS
    keep_times: bool = False
    colored: Colored = "skip"


@dataclass(frozen=True)
class ArchiveJob:
    """A photo to be colorized.

    Attributes:
        photo: key of the photo in the source.
        result: key of its result in the destination, where the photo's own format can hold that.
        other_result: key where it cannot: a PNG.
        suffix: that the photo's name has, or should have.
        options: how it is colorized.
        page: of a file that holds several pictures; None for the main one.
        layer: key of its painted layer; None for none.
        known_content: hash of what the result that is there was made of; "" where it is to be made in any case.
        known_result: key of that result.
    """

    photo: str
    result: str
    other_result: str
    suffix: str = ""
    options: ColorizeOptions = ColorizeOptions()
    page: int | None = None
    layer: str | None = None
    known_content: str = ""
    known_result: str = ""


@dataclass(frozen=True)
class ArchiveRecord:
    """The outcome of a job.

    Attributes:
        photo: its key.
        state: "done"; "unchanged" where photo and layer are what the result that is there was made of; "skipped" or
            "copied" where the photo is in color already; "failed" for this photo alone; "halted" where no other photo
            would do better.
        message: of a photo that has no result: one line that says what to do.
        stamp: of the photo, and of its layer, as they were read.
        content: hash of the photo, and of its layer.
        result: key of the result.
        result_bytes: its size.
        pixels: of the photo.
        warnings: what the user should know of how the photo was read, and what was done with it, a line each.
        notes: the same of the options: alike for all photos.
        thumbnail: a small WebP of the photo, with the result beside it if there is one; b"" for none.
    """

    photo: str
    state: State
    message: str = ""
    stamp: str = ""
    content: str = ""
    result: str = ""
    result_bytes: int = 0
    pixels: int = 0
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    thumbnail: bytes = b""


class ArchiveWorker:
    """A loaded model that takes photos from a source to a destination."""

    def __init__(self, settings: ArchiveSettings, workers: int = 1, limiter: ResourceLimiter | None = None) -> None:
        """Load the model for `workers` threads; the limiter bounds what they do together, by default by their number.

        Raises:
            ModelError, MissingExtraError, OptionsError: the model cannot be loaded.
        """
        self._settings = settings
        self._source, self._destination, self._layers = settings.source, settings.destination, settings.layers
        self._colorizer = Colorizer.load(
            settings.model, device=settings.device, runtime=settings.runtime, workers=workers
        )
        self._limiter = limiter or ResourceLimiter(workers)

    def colorize(self, job: ArchiveJob) -> ArchiveRecord:
        """Return the outcome of a job; the result, if there is one, is whole and on the disk by then.

        Nothing that a file can cause is raised.
        """
        label = printable(f"{self._source.name.rstrip('/')}/{job.photo}")
        stamp = self._stamp(job)
        try:
            return self._colorize(job, label, stamp)
        except SourceGoneError:
            return ArchiveRecord(
                job.photo, "halted", f"{self._source.name} is gone: it was deleted, or its drive was disconnected"
            )
        except ChromaTuneError as error:
            message = str(error)
            if self._source.stamp(job.photo) is not None and self._stamp(job) != stamp:  # half a file looks damaged
                message = f"{label}: changed while it was being read; run again once it is complete"
            return ArchiveRecord(job.photo, "failed", message)
        except MemoryError:
            return ArchiveRecord(job.photo, "failed", f"{label}: not enough memory; make the photo smaller")
        except OSError as error:  # of the destination: what concerns this photo alone is a PhotoError
            reason = error.strerror or first_line(error)
            return ArchiveRecord(job.photo, "halted", f"{self._destination.name}: cannot be written ({reason})")
        except Exception as error:  # noqa: BLE001 - a night's work does not end for one odd file
            reason = printable(f"{type(error).__name__}: {first_line(error)}")
            return ArchiveRecord(
                job.photo, "failed", f"{label}: cannot be colorized ({reason}); save it again in an image editor"
            )

    def _colorize(self, job: ArchiveJob, label: str, stamp: str) -> ArchiveRecord:
        most = self._settings.max_pixels
        with ExitStack() as stack:
            files = [PictureFile(stack.enter_context(self._source.open(job.photo)), label, most)]
            if job.layer is not None and self._layers is not None:
                of_layer = printable(f"{self._layers.name}/{job.layer}")
                files.append(PictureFile(stack.enter_context(self._layers.open(job.layer)), of_layer, most))
            stack.enter_context(self._limiter.memory(sum(each.pixels_of_memory for each in files)))
            parts = [each.read() for each in files]
            content = "+".join(hashlib.sha256(part).hexdigest()[:HASH_DIGITS] for part in parts)
            if self._stamp(job) != stamp:
                raise PhotoError(f"{label}: changed")
            if content == job.known_content:
                size = self._destination.size(job.known_result) if job.known_result else 0
                return ArchiveRecord(job.photo, "unchanged", "", stamp, content, job.known_result, size or 0)
            photo = read_photo(parts[0], name=label, strict=self._settings.strict, max_pixels=most, page=job.page)
            layer = parts[1] if len(parts) > 1 else None
            if self._settings.colored != "recolor" and not job.options.invert and layer is None:
                with self._limiter.core():
                    in_color = photo.in_color
                if in_color:
                    return self._leave(job, photo, parts[0], stamp, content)
            del parts
            return self._write_result(job, photo, layer, stamp, content)

    def _write_result(
        self, job: ArchiveJob, photo: Photo, layer: bytes | None, stamp: str, content: str
    ) -> ArchiveRecord:
        key = job.result if suffix_for(job.suffix, photo) == job.suffix else job.other_result
        hints = Hints() if layer is None else Hints.from_layer(layer, name=job.layer)
        with self._limiter.core():
            result = self._colorizer.colorize(photo, job.options, hints=hints)
            encoded = result.encode(format_for(_suffix(key)))
            small = thumbnail(photo, result.rgb)
        warnings = (*photo.warnings, *result.notes), result.warnings
        pixels = photo.height_px * photo.width_px
        del photo, result
        modified_ns = self._source.modified_ns(job.photo) if self._settings.keep_times else None
        self._destination.write(key, encoded, modified_ns)
        return ArchiveRecord(job.photo, "done", "", stamp, content, key, len(encoded), pixels, *warnings, small)

    def _leave(self, job: ArchiveJob, photo: Photo, data: bytes, stamp: str, content: str) -> ArchiveRecord:
        """Skip or copy a photo that is in color already; as it is, where its own format holds results."""
        pixels = photo.height_px * photo.width_px
        if self._settings.colored == "skip" or photo.rgb is None:
            return ArchiveRecord(job.photo, "skipped", "", stamp, content, pixels=pixels, thumbnail=thumbnail(photo))
        key = job.result
        if _suffix(key) != job.suffix:
            key, data = job.other_result, encode_photo(photo.rgb, photo, format_for(_suffix(job.other_result)))
        modified_ns = self._source.modified_ns(job.photo) if self._settings.keep_times else None
        self._destination.write(key, data, modified_ns)
        made = key, len(data), pixels, photo.warnings, (), thumbnail(photo, photo.rgb)
        return ArchiveRecord(job.photo, "copied", "", stamp, content, *made)

    def _stamp(self, job: ArchiveJob) -> str:
        of_layer = None if job.layer is None or self._layers is None else self._layers.stamp(job.layer)
        return joined_stamp(self._source.stamp(job.photo), job.layer, of_layer)


class PictureFile:
    """A file of a picture of which the header alone was read."""

    def __init__(self, file: BinaryIO, label: str, max_pixels: int) -> None:
        """Read the header.

        Args:
            file: seekable.
            label: what messages call it.
            max_pixels: larger ones are refused.

        Raises:
            PhotoError: it is no picture, or has too many pixels, or is too long, see `count_pixels`.
        """
        self._file, self._label = file, label
        self.pixels = count_pixels(file, name=label, max_pixels=max_pixels)
        self._bytes = file.seek(0, os.SEEK_END)

    @property
    def pixels_of_memory(self) -> int:
        """The photo's pixels, and as many as take the memory of its file."""
        return self.pixels + self._bytes // FILE_BYTES_A_PIXEL

    def read(self) -> bytes:
        """Return the whole file.

        Raises:
            PhotoError: it cannot be read.
        """
        try:
            self._file.seek(0)
            return self._file.read(self._bytes)
        except OSError as error:
            reason = error.strerror or error
            raise PhotoError(f"{self._label}: cannot be read ({reason}); check the disk") from error


def thumbnail(photo: Photo, rgb: np.ndarray | None = None) -> bytes:
    """Return a small WebP of a photo, and of its result to the right of it: (H, W, 3) of uint8 or uint16."""
    own = photo.gray if photo.rgb is None else photo.rgb
    height, width = own.shape[:2]
    scale = min(1.0, THUMBNAIL_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = [cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (own, rgb) if each is not None]
    pictures = [to_depth(each if each.ndim == 3 else np.repeat(each[..., None], 3, axis=2), np.uint8) for each in small]
    file = io.BytesIO()
    # method 2: half a JPEG's bytes in 4 ms; the usual 4 takes 10 ms for as many
    Image.fromarray(np.concatenate(pictures, axis=1)).save(file, "WEBP", quality=THUMBNAIL_QUALITY, method=2)
    return file.getvalue()


def joined_stamp(of_photo: str | None, layer: str | None, of_layer: str | None) -> str:
    """Return the stamps of a photo and of its layer as one text."""
    return str(of_photo) if layer is None else f"{of_photo} {layer} {of_layer}"


def _suffix(key: str) -> str:
    name = key.rpartition("/")[2]
    return name[name.rindex(".") :]


MakeWorker = Callable[[int, ResourceLimiter], ArchiveWorker]  # from the threads that compute, and what bounds them


class Engine(Protocol):
    """Takes an archive's jobs through workers."""

    def records(self, jobs: Iterable[ArchiveJob]) -> Generator[ArchiveRecord, None, None]:
        """Yield the outcome of each job, in any order; jobs are taken as there is room for them.

        On a KeyboardInterrupt, raised inside or thrown in, no further job is begun, the outcome of those in work is
        yielded, and it is raised again. An outcome whose use was cut off by it is yielded a second time.

        Raises:
            ModelError, MissingExtraError, OptionsError: the model cannot be loaded, or Ray cannot be joined.
        """

    def close(self) -> None:
        """Release the model, and the processes that were started."""


class LocalEngine:
    """Threads of this process that share one model: each worker computes a photo while others are read and written."""

    def __init__(self, make_worker: MakeWorker, workers: int | None = None) -> None:
        """Load nothing before the first job; `workers` are photos computed at the same time: one a core, up to 8."""
        self._make_worker = make_worker
        self._workers = workers or usual_workers()
        self._worker: ArchiveWorker | None = None

    def records(self, jobs: Iterable[ArchiveJob]) -> Generator[ArchiveRecord, None, None]:
        threads = self._workers + 1  # one more: it reads or writes while the others compute
        # pixels are bounded where they are counted: in the worker, which opens the file
        return run_tasks(self._tasks(jobs), workers=threads, most_tasks=TASKS_A_THREAD * threads, in_order=False)

    def _tasks(self, jobs: Iterable[ArchiveJob]) -> Iterator[Task[ArchiveRecord]]:
        for job in jobs:
            if self._worker is None:
                self._worker = self._make_worker(self._workers, ResourceLimiter(self._workers))
            yield Task(partial(self._worker.colorize, job))

    def close(self) -> None:
        self._worker = None
