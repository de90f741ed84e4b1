"""Batches over HTTP: many photos are colorized in the background; files in a temporary folder, states in memory."""

from __future__ import annotations

import asyncio
import io
import logging
import shutil
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, File, HTTPException, Response, UploadFile
from fastapi import Path as InPath
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel
from starlette.concurrency import iterate_in_threadpool

from chromatune.errors import ChromaTuneError
from chromatune.options import ColorizeOptions
from chromatune.serving.bodies import bounded_route, stored
from chromatune.serving.middleware import Metrics
from chromatune.serving.predictor import ColorizeRequest, EncodedImage, Predictor, QueueFull
from chromatune.serving.responses import (
    CHUNK_BYTES,
    FILES,
    MAX_FORM_FIELD_BYTES,
    NOT_DONE,
    PICTURES,
    RETRY_SOON,
    ModelField,
    OptionsField,
    example,
    failures,
    file_name,
    file_of,
    image_response,
    parsed_options,
    plain_name,
    result_name,
    status_of,
)
from chromatune.serving.settings import ServeSettings
from chromatune.serving.store import SessionStore, new_upload_folder

LOG = logging.getLogger(__name__)
PhotoState = Literal["waiting", "working", "done", "failed"]
CONCURRENT_PHOTOS = 4  # of one batch in the predictor's queue at the same time
MAX_STORED = 4  # times the largest batch: bytes of all batches together
FAILURES_FILE = "failures.txt"
MAX_PHOTOS = 1000  # of a batch
FULL = "too many batches in progress; try again later, or delete one"
NOT_STORED = "this batch does not exist or has expired; send the photos again"
Key = Annotated[str, InPath(max_length=64, description="Id of a batch.")]
Number = Annotated[
    int, InPath(description="Number of a photo: from 1, in the order sent.", openapi_examples=example(1))
]
ARCHIVE = file_of("application/zip")


@dataclass(eq=False)
class BatchPhoto:
    """One photo of a batch.

    Attributes:
        name: the client's name of it.
        source: its file, until it is done.
        state: its progress.
        line: why it failed.
        status: HTTP status of the failure.
        image: suffix and facts of the result, whose bytes are in `result`.
        result: the colored file.
    """

    name: str
    source: Path
    state: PhotoState = "waiting"
    line: str = ""
    status: int = 0
    image: EncodedImage | None = None
    result: Path | None = None


@dataclass(eq=False)
class Batch:
    """Photos with one set of options."""

    folder: Path
    model: str
    options: ColorizeOptions
    photos: list[BatchPhoto] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    readers: int = 0
    is_removed: bool = False

    def delete_files(self) -> None:
        """Delete all files, once nobody reads them."""
        if not self.readers:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def is_done(self) -> bool:
        """Whether no photo waits or is in progress."""
        return all(photo.state in ("done", "failed") for photo in self.photos)


class Batches:
    """All batches of an app."""

    def __init__(self, predictor: Predictor, settings: ServeSettings, count: Callable[[], None]) -> None:
        """Start with none; `count` is called for each photo that is done."""
        self._predictor, self._settings, self._count = predictor, settings, count
        self.store = SessionStore[Batch](
            settings.batches, settings.batch_minutes, NOT_STORED, remove_batch, full=FULL,
            is_busy=lambda batch: not batch.is_done,
        )  # fmt: skip

    @contextmanager
    def place(self) -> Iterator[None]:
        """Keep a place for a batch free while it is uploaded; finished ones make room.

        Raises:
            QueueFull: too many are in progress, or they use too much of the disk.
        """
        while self._stored_mb() > MAX_STORED * self._settings.max_batch_mb:
            done = next((key for key, batch in self.store.items() if batch.is_done), None)
            if done is None:
                raise QueueFull(FULL)
            self.store.remove(done)
        with self.store.reserved():
            yield

    def start(self, photos: Sequence[tuple[str, Path]], folder: Path, model: str, options: ColorizeOptions) -> str:
        """Begin to colorize photos, each a name and a file in `folder`, and return the id of their batch."""
        batch = Batch(folder, model, options, [BatchPhoto(name, path) for name, path in photos])
        batch.task = asyncio.create_task(self._colorize_all(batch))
        return self.store.add(batch)

    async def _colorize_all(self, batch: Batch) -> None:
        waiting = iter(batch.photos)

        async def worker() -> None:
            for photo in waiting:
                await self._colorize(photo, batch)

        await asyncio.gather(*(worker() for _ in range(CONCURRENT_PHOTOS)))

    async def _colorize(self, photo: BatchPhoto, batch: Batch) -> None:
        photo.state = "working"
        try:
            request = ColorizeRequest(
                photo.source, photo.name, batch.model, batch.options, max_pixels=self._settings.max_pixels
            )
            image = await self._predictor.colorize(request, wait_for_slot=True)
            photo.result = photo.source.with_suffix(f".color{image.suffix}")
            await asyncio.to_thread(photo.result.write_bytes, image.data)
            photo.image, photo.state = EncodedImage(b"", image.suffix, image.facts), "done"
            self._count()
        except ChromaTuneError as error:
            photo.line, photo.status, photo.state = str(error), status_of(error), "failed"
        except (MemoryError, OSError):
            line = f"{photo.name}: not enough memory or disk space at the moment; send it again"
            photo.line, photo.status, photo.state = line, 503, "failed"
        except Exception:
            LOG.exception("a photo of a batch failed")
            photo.line, photo.status, photo.state = (
                f"{photo.name}: an error of the server; its log has more",
                500,
                "failed",
            )
        finally:
            photo.source.unlink(missing_ok=True)

    def _stored_mb(self) -> float:
        files = (path for _, batch in self.store.items() for path in batch.folder.glob("*"))
        return sum(path.stat().st_size for path in files) / 1e6


def remove_batch(batch: Batch) -> None:
    """End the work on a batch and delete its files."""
    if batch.task is not None:
        batch.task.cancel()
    batch.is_removed = True
    batch.delete_files()


async def zip_response(batch: Batch) -> AsyncIterator[bytes]:
    """Yield the results as a ZIP file; where the batch is deleted meanwhile, its files go at the end."""
    batch.readers += 1
    try:
        async for chunk in iterate_in_threadpool(zip_chunks(batch)):
            yield chunk
    finally:
        batch.readers -= 1
        if batch.is_removed:
            batch.delete_files()


def zip_chunks(batch: Batch) -> Iterator[bytes]:
    """Yield the results as a ZIP file; repeated names get a number, failures a text file."""
    sink = _Sink()
    used = {FAILURES_FILE}
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # pictures are compressed already
        for number, photo in enumerate(batch.photos, 1):
            if photo.result is None or photo.image is None:
                continue
            name = _free_name(plain_name(result_name(photo.image)), number, used)
            with photo.result.open("rb") as source, archive.open(name, "w", force_zip64=True) as target:
                while chunk := source.read(CHUNK_BYTES):
                    target.write(chunk)
                    yield sink.drain()
            yield sink.drain()
        failed = [photo.line for photo in batch.photos if photo.state == "failed"]
        if failed:
            archive.writestr(FAILURES_FILE, "\n".join([*failed, ""]))
    yield sink.drain()


def _free_name(name: str, number: int, used: set[str]) -> str:
    """Return a name that no other has, also where capital letters do not count; `used` gets it."""
    names = chain([name], (f"{n}-{name}" for n in count(number)))
    free = next(each for each in names if each.casefold() not in used)
    used.add(free.casefold())
    return free


class _Sink(io.RawIOBase):
    """A file that cannot be sought, for `zipfile`, from which written bytes are drained chunk by chunk."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, chunk: Any, /) -> int:
        self._written += chunk
        return len(chunk)

    def drain(self) -> bytes:
        written, self._written = bytes(self._written), bytearray()
        return written


class BatchStarted(BaseModel):
    """A batch in progress."""

    id: str


class PhotoStatus(BaseModel):
    """Progress of one photo."""

    number: int
    name: str
    state: PhotoState
    line: str


class BatchStatus(BaseModel):
    """Progress of a batch."""

    id: str
    state: Literal["working", "done"]
    photos: list[PhotoStatus]


def add_batch_routes(
    app: FastAPI, predictor: Predictor, settings: ServeSettings, metrics: Metrics
) -> SessionStore[Batch]:
    """Add the routes of batches, and return the store that they use."""
    batches = Batches(predictor, settings, metrics.photos.inc)
    _add_start(app, batches, settings)
    _add_results(app, batches)
    return batches.store


def _add_start(app: FastAPI, batches: Batches, settings: ServeSettings) -> None:
    router = APIRouter(route_class=bounded_route(settings.max_batch_mb, settings.timeout_s, batches.place))

    @router.post(
        "/v1/batches",
        status_code=202,
        summary="Colorize many photos",
        responses=failures(400, 408, 413, 422, 429, 503, 507),
        form_limits={"max_files": MAX_PHOTOS, "max_fields": 8, "max_part_size": MAX_FORM_FIELD_BYTES},
    )
    async def start_batch(
        photos: Annotated[
            list[UploadFile], File(description="Photos, in any supported formats.", json_schema_extra=FILES)
        ],
        options: OptionsField = "{}",
        model: ModelField = "",
    ) -> BatchStarted:
        """Respond at once; `GET /v1/batches/{id}` has its progress."""
        chosen, parsed = model or settings.models[0], parsed_options(options)
        settings.check_offered(chosen)
        async with new_upload_folder() as folder:
            files = [(file_name(photo.filename), folder / f"{n}.photo") for n, photo in enumerate(photos, 1)]
            for photo, (_, path) in zip(photos, files, strict=True):
                await asyncio.to_thread(stored(photo).move_to, path)
            return BatchStarted(id=batches.start(files, folder, chosen, parsed))

    app.include_router(router)

    @app.get("/v1/batches/{key}", summary="Progress of a batch", responses=failures(404, 422))
    async def batch_status(key: Key) -> BatchStatus:
        batch = batches.store.get(key)
        photos = [
            PhotoStatus(number=number, name=photo.name, state=photo.state, line=photo.line)
            for number, photo in enumerate(batch.photos, 1)
        ]
        return BatchStatus(id=key, state="done" if batch.is_done else "working", photos=photos)

    @app.delete(
        "/v1/batches/{key}", status_code=204, summary="Delete a batch", response_class=Response,
        responses=failures(404, 422),
    )  # fmt: skip
    async def delete_batch(key: Key) -> Response:
        """Photos in progress are finished and discarded; those that wait are not started."""
        batches.store.remove(key)
        return Response(status_code=204)


def _add_results(app: FastAPI, batches: Batches) -> None:
    @app.get(
        "/v1/batches/{key}/photos/{number}",
        summary="One result of a batch",
        response_class=Response,
        responses={200: PICTURES, **NOT_DONE, **failures(400, 404, 415, 422, 503)},
    )
    async def batch_photo(key: Key, number: Number) -> Response:
        """The file; for a photo that failed, the error."""
        batch = batches.store.get(key)
        if not 1 <= number <= len(batch.photos):
            raise HTTPException(404, f"the batch has photos 1 to {len(batch.photos)}")
        photo = batch.photos[number - 1]
        if photo.state == "failed":
            return JSONResponse({"detail": photo.line}, photo.status)
        if photo.image is None or photo.result is None:
            raise HTTPException(409, f"{photo.name} is not done yet; try again later", RETRY_SOON)
        return await image_response(photo.image, "attachment", photo.result)

    @app.get(
        "/v1/batches/{key}/zip",
        summary="All results of a batch",
        response_class=Response,
        responses={200: ARCHIVE, **NOT_DONE, **failures(404, 422)},
    )
    async def batch_zip(key: Key) -> Response:
        """A ZIP file; errors of photos that failed are in its failures.txt."""
        batch = batches.store.get(key)
        if not batch.is_done:
            raise HTTPException(409, "the batch is not done yet; try again later", RETRY_SOON)
        headers = {"content-disposition": "attachment; filename=chromatune.zip"}
        return StreamingResponse(zip_response(batch), media_type="application/zip", headers=headers)
