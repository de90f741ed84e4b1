"""One photo of an archive from its file to its result's: all that a worker does, in whatever process it runs.

A worker loads the model once and then takes job after job. It touches files of photos and results alone; what is known
of an archive is kept by whoever gives out the jobs. Jobs, records and settings are plain values that can be sent to
another process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Literal, Protocol

from chromatune.colorizer import Colorizer
from chromatune.errors import ChromaTuneError, PhotoError, first_line, printable
from chromatune.hints import Hints
from chromatune.images import MAX_PIXELS, Photo, count_pixels, format_for, read_photo, suffix_for
from chromatune.jobs.stores import SourceGoneError, Store
from chromatune.options import ColorizeOptions

State = Literal["done", "kept", "failed", "halted"]
HASH_DIGITS = 32


@dataclass(frozen=True)
class WorkSettings:
    """How all photos of an archive are colorized.

    Attributes:
        model: see `Colorizer.load`.
        options: of all photos.
        device: where to compute; None for the best there is.
        runtime: the library that computes; None for the faster one.
        strict: refuse damaged photos that could be read in part.
        max_pixels: larger photos are refused.
    """

    model: str = "mini"
    options: ColorizeOptions = ColorizeOptions()
    device: str | None = None
    runtime: str | None = None
    strict: bool = False
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class ArchiveJob:
    """A photo to be colorized.

    Attributes:
        photo: key of the photo in the source.
        result: key of its result in the destination, where the photo's own format can hold that.
        other_result: key where it cannot: a PNG.
        layer: key of its painted layer; None for none.
        content: of what the result that is there was made; "" where it is to be made in any case.
        made: key of that result.
    """

    photo: str
    result: str
    other_result: str
    layer: str | None = None
    content: str = ""
    made: str = ""


@dataclass(frozen=True)
class ArchiveRecord:
    """What became of a photo.

    Attributes:
        photo: its key.
        state: "done"; "kept" where photo and layer are what the result that is there was made of; "failed" for this
            photo alone; "halted" where no other photo would do better.
        message: of a photo that has no result: one line that says what to do.
        stamp: of the photo, and of its layer, as they were read.
        content: hash of the photo, and of its layer.
        result: key of the result.
        result_bytes: its size.
        pixels: of the photo.
        warnings: what the user should know of how the photo was read, a line each.
        notes: the same of the options: alike for all photos.
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


class Room(Protocol):
    """What bounds the work of several workers that share one memory and one machine."""

    def for_photo(self, pixels: int) -> AbstractContextManager[None]:
        """Waits until a photo of so many pixels may be in memory."""

    def for_computing(self) -> AbstractContextManager[None]:
        """Waits until a core is free."""


class Unbounded:
    """The room of a worker that is alone in its process."""

    @contextmanager
    def for_photo(self, pixels: int) -> Iterator[None]:
        """Waits for nothing."""
        yield

    @contextmanager
    def for_computing(self) -> Iterator[None]:
        """Waits for nothing."""
        yield


class ArchiveWorker:
    """A loaded model that takes photos from a source to a destination."""

    def __init__(
        self,
        settings: WorkSettings,
        source: Store,
        destination: Store,
        layers: Store | None = None,
        *,
        workers: int = 1,
        room: Room | None = None,
    ) -> None:
        """Loads the model.

        Args:
            settings: of all photos.
            source: of the photos.
            destination: of the results.
            layers: of painted layers, where there are any.
            workers: threads that will call `take` and compute at the same time.
            room: bounds what they do together.

        Raises:
            ModelError, MissingExtraError, OptionsError: the model cannot be loaded.
        """
        self._settings, self._source, self._destination, self._layers = settings, source, destination, layers
        self._colorizer = Colorizer.load(
            settings.model, device=settings.device, runtime=settings.runtime, workers=workers
        )
        self._room = room or Unbounded()

    @property
    def colorizer(self) -> Colorizer:
        """The loaded model."""
        return self._colorizer

    def take(self, job: ArchiveJob) -> ArchiveRecord:
        """What became of a photo; its result, if it has one, is whole and on the disk by then.

        It raises nothing that a file can cause.
        """
        label = printable(f"{self._source.name.rstrip('/')}/{job.photo}")
        stamp = self._stamp(job)
        try:
            return self._taken(job, label, stamp)
        except SourceGoneError:
            return ArchiveRecord(job.photo, "halted", f"{self._source.name} is gone: it was removed, or its drive was")
        except ChromaTuneError as error:
            return ArchiveRecord(job.photo, "failed", self._explained(job, label, stamp, error))
        except MemoryError:
            return ArchiveRecord(job.photo, "failed", f"{label}: not enough memory for it; make it smaller")
        except OSError as error:  # of the destination: what concerns this photo alone is a PhotoError
            reason = error.strerror or first_line(error)
            return ArchiveRecord(job.photo, "halted", f"{self._destination.name}: cannot be written ({reason})")
        except Exception as error:  # noqa: BLE001 - a night's work does not end for one odd file
            reason = printable(f"{type(error).__name__}: {first_line(error)}")
            return ArchiveRecord(job.photo, "failed", f"{label}: cannot be colorized ({reason}); save it anew")

    def _explained(self, job: ArchiveJob, label: str, stamp: str, error: ChromaTuneError) -> str:
        """Why a photo failed: one that is still being copied looks damaged."""
        if self._source.stamp(job.photo) is None or self._stamp(job) == stamp:
            return str(error)
        return f"{label}: it changed while it was read; run again when it is complete"

    def _taken(self, job: ArchiveJob, label: str, stamp: str) -> ArchiveRecord:
        with self._source.open(job.photo) as file:
            pixels = count_pixels(file, name=label)
            if pixels > self._settings.max_pixels:
                pixels = 1  # it will be refused before it is decoded
            with self._room.for_photo(pixels):
                file.seek(0)
                data = _read(file, label)
                layer = self._read_layer(job)
                content = _content_of(data, layer)
                if self._stamp(job) != stamp:
                    raise PhotoError(f"{label}: changed")
                if content == job.content:
                    size = self._destination.size(job.made)
                    return ArchiveRecord(job.photo, "kept", "", stamp, content, job.made, size or 0)
                photo = read_photo(data, name=label, strict=self._settings.strict, max_pixels=self._settings.max_pixels)
                del data
                return self._made(job, photo, layer, stamp, content)

    def _made(self, job: ArchiveJob, photo: Photo, layer: bytes | None, stamp: str, content: str) -> ArchiveRecord:
        key = job.result if suffix_for(_suffix(job.photo), photo) == _suffix(job.photo) else job.other_result
        hints = Hints() if layer is None else Hints.from_layer(layer, name=job.layer)
        with self._room.for_computing():
            result = self._colorizer.colorize(photo, self._settings.options, hints=hints)
            encoded = result.encode(format_for(_suffix(key)))
        told = photo.warnings, result.warnings
        pixels = photo.height_px * photo.width_px
        del photo, result
        self._destination.write(key, encoded)
        return ArchiveRecord(job.photo, "done", "", stamp, content, key, len(encoded), pixels, *told)

    def _stamp(self, job: ArchiveJob) -> str:
        of_layer = None if job.layer is None or self._layers is None else self._layers.stamp(job.layer)
        return joined_stamp(self._source.stamp(job.photo), job.layer, of_layer)

    def _read_layer(self, job: ArchiveJob) -> bytes | None:
        if job.layer is None or self._layers is None:
            return None
        with self._layers.open(job.layer) as file:
            return _read(file, printable(f"{self._layers.name}/{job.layer}"))


def joined_stamp(of_photo: str | None, layer: str | None, of_layer: str | None) -> str:
    """The stamp of a photo and of its layer, as one text."""
    return str(of_photo) if layer is None else f"{of_photo} {layer} {of_layer}"


def _read(file: BinaryIO, label: str) -> bytes:
    try:
        return file.read()
    except OSError as error:
        raise PhotoError(f"{label}: cannot be read ({error.strerror or error}); check the disk") from error


def _content_of(data: bytes, layer: bytes | None) -> str:
    parts = [data] if layer is None else [data, layer]
    return "+".join(hashlib.sha256(part).hexdigest()[:HASH_DIGITS] for part in parts)


def _suffix(key: str) -> str:
    name = key.rpartition("/")[2]
    return name[name.rindex(".") :]
