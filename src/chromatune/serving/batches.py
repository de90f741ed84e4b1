"""Batches: many photos that are colorized while nobody waits; files in a temporary folder, states in memory."""

from __future__ import annotations

import asyncio
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from chromatune.errors import ChromaTuneError
from chromatune.options import ColorizeOptions
from chromatune.serving.answers import result_name, status_of
from chromatune.serving.predictor import Answer, Predictor, QueueFull, Work
from chromatune.serving.settings import ServeSettings
from chromatune.serving.shelf import Shelf

PhotoState = Literal["waiting", "working", "done", "failed"]
SIDE_BY_SIDE = 4  # photos of one batch that ask for a slot at the same time
MOST_KEPT = 4  # times the largest batch: bytes of all batches together
CHUNK_BYTES = 1 << 20
FAILURES_FILE = "failures.txt"


@dataclass(eq=False)
class BatchPhoto:
    """One photo of a batch.

    Attributes:
        name: what the client calls it.
        source: its file, until it is done.
        state: how far it is.
        line: why it failed.
        status: HTTP status of the failure.
        answer: facts of the result, whose bytes are in `result`.
        result: the colored file.
    """

    name: str
    source: Path
    state: PhotoState = "waiting"
    line: str = ""
    status: int = 0
    answer: Answer | None = None
    result: Path | None = None


@dataclass(eq=False)
class Batch:
    """Photos with one set of options."""

    folder: Path
    model: str
    options: ColorizeOptions
    photos: list[BatchPhoto] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    @property
    def is_done(self) -> bool:
        """Whether no photo waits or is in work."""
        return all(photo.state in ("done", "failed") for photo in self.photos)

    def size_bytes(self) -> int:
        """What its files take on the disk."""
        return sum(path.stat().st_size for path in self.folder.glob("*"))


class Batches:
    """All batches of an app."""

    def __init__(self, predictor: Predictor, settings: ServeSettings, count: Callable[[], None]) -> None:
        """None yet.

        Args:
            predictor: colorizes.
            settings: limits.
            count: is called for each photo that is done.
        """
        self._predictor, self._settings, self._count = predictor, settings, count
        line = "there is no such batch, or not any more; send the photos again"
        self.shelf = Shelf[Batch](settings.batches, settings.batch_minutes, line, _drop)

    def check_room(self) -> None:
        """Lets go of finished batches where there are too many.

        Raises:
            QueueFull: too many are in work, or they take too much of the disk.
        """
        self.shelf.tidy()
        while len(self.shelf) >= self.shelf.most or self._kept_mb() > MOST_KEPT * self._settings.max_batch_mb:
            done = next((key for key, batch in self.shelf.items() if batch.is_done), None)
            if done is None:
                raise QueueFull("too many batches are in work; come again, or delete one")
            self.shelf.remove(done)

    def start(self, photos: Sequence[tuple[str, Path]], folder: Path, model: str, options: ColorizeOptions) -> str:
        """The id of a batch that is worked on from now on.

        Args:
            photos: name and file of each.
            folder: of the files; it is removed with the batch.
            model: one of those on offer.
            options: of all photos.
        """
        batch = Batch(folder, model, options, [BatchPhoto(name, path) for name, path in photos])
        batch.task = asyncio.create_task(self._work(batch))
        return self.shelf.add(batch)

    async def _work(self, batch: Batch) -> None:
        waiting = iter(batch.photos)

        async def lane() -> None:
            for photo in waiting:
                await self._colorize(photo, batch)

        await asyncio.gather(*(lane() for _ in range(SIDE_BY_SIDE)))

    async def _colorize(self, photo: BatchPhoto, batch: Batch) -> None:
        photo.state = "working"
        try:
            data = await asyncio.to_thread(photo.source.read_bytes)
            work = Work(data, photo.name, batch.model, batch.options, max_pixels=self._settings.max_pixels)
            answer = await self._predictor.colorize(work, patient=True)
            photo.result = photo.source.with_suffix(f".color{answer.suffix}")
            await asyncio.to_thread(photo.result.write_bytes, answer.data)
            photo.answer, photo.state = Answer(b"", answer.suffix, answer.facts), "done"
            self._count()
        except ChromaTuneError as error:
            photo.line, photo.status, photo.state = str(error), status_of(error), "failed"
        except (MemoryError, OSError):
            line = f"{photo.name}: not enough memory or disk at the moment; send it again"
            photo.line, photo.status, photo.state = line, 503, "failed"
        finally:
            photo.source.unlink(missing_ok=True)

    def _kept_mb(self) -> float:
        return sum(batch.size_bytes() for _, batch in self.shelf.items()) / 1e6


def _drop(batch: Batch) -> None:
    if batch.task is not None:
        batch.task.cancel()
    shutil.rmtree(batch.folder, ignore_errors=True)


def zip_of(batch: Batch) -> Iterator[bytes]:
    """The results as a ZIP file, piece by piece; names that come twice get a number, failures a text file."""
    sink = _Sink()
    taken: set[str] = set()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # pictures are compressed already
        for number, photo in enumerate(batch.photos, 1):
            if photo.result is None or photo.answer is None:
                continue
            name = result_name(photo.answer)
            if name in taken:
                name = f"{number}-{name}"
            taken.add(name)
            with photo.result.open("rb") as source, archive.open(name, "w", force_zip64=True) as target:
                while piece := source.read(CHUNK_BYTES):
                    target.write(piece)
                    yield sink.take()
            yield sink.take()
        failed = [photo.line for photo in batch.photos if photo.state == "failed"]
        if failed:
            archive.writestr(FAILURES_FILE, "\n".join([*failed, ""]))
    yield sink.take()


class _Sink:
    """A file that cannot be sought, for `zipfile`: what is written is taken away again."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """There is nothing to close."""

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
