"""Shared parts of routes: fields of forms, results as files with facts in their headers, failures as one line."""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, TypeAlias, TypeVar
from urllib.parse import quote

from fastapi import FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.concurrency import iterate_in_threadpool
from starlette.types import Receive, Scope, Send

from chromatune.cancellation import Cancelled
from chromatune.errors import ChromaTuneError, NotAPictureError, OptionsError, PhotoError, VideoError
from chromatune.hints import MAX_REFERENCES, parse_json
from chromatune.options import ColorizeOptions, make_options
from chromatune.serving.bodies import RETRY_LATER, bounded_route, no_room, stored, write_all
from chromatune.serving.bounded_pool import says_no_memory
from chromatune.serving.predictor import Content, EncodedImage, Predictor, QueueFull, Unavailable
from chromatune.serving.settings import ServeSettings

PhotoField: TypeAlias = Annotated[UploadFile, File(description="A photo, in any supported format.")]
OptionsField: TypeAlias = Annotated[
    str, Form(description='Options as a JSON object, such as `{"seed": 7}`; see the schema ColorizeOptions.')
]
ModelField: TypeAlias = Annotated[str, Form(description="One of the models offered; without it, the first.")]
HintsField: TypeAlias = Annotated[
    str,
    Form(
        description='Strokes and layers as JSON, such as `{"marks": [{"points": [[40, 30]], "color": "#a03020"}]}`; '
        "see the schema Hints."
    ),
]
LayerField: TypeAlias = Annotated[
    UploadFile | None, File(description="Hints painted on a transparent image of the photo's aspect ratio.")
]
FILES: dict[str, Any] = {"items": {"type": "string", "format": "binary"}}  # or Swagger UI has no button for files
ReferenceField: TypeAlias = Annotated[
    list[UploadFile],
    File(
        default_factory=list,
        description="Photos in color that show the same things.",
        json_schema_extra={**FILES, "default": []},  # or Swagger UI sends a file called "string"
    ),
]
STROKES: dict[str, Any] = {"marks": [{"points": [[40, 30], [60, 30]], "color": "#a03020"}]}  # for examples

MEDIA_TYPES = {
    ".jpg": "image/jpeg", ".png": "image/png", ".tif": "image/tiff", ".webp": "image/webp", ".bmp": "image/bmp",
}  # fmt: skip
CHUNK_BYTES = 256 * 1024  # of a response that is sent from the disk
MAX_HEADER = 1000  # characters of a fact in a header
PLAIN_IN_HEADERS = " ,.:;()+-/="  # what is not percent-encoded beside letters and digits
POLL_S = 0.25  # between two looks whether the client is still there
MAX_FORM_FIELD_BYTES = 8_000_000  # of a form's fields that are no files: hints as JSON may hold painted layers
MAX_OPTIONS_BYTES = 64 * 1024  # of options as JSON in a form
PHOTO_FORM: Any = {"max_files": 2 + MAX_REFERENCES, "max_fields": 8, "max_part_size": MAX_FORM_FIELD_BYTES}
LONGEST_NAME_BYTES = 200
RESERVED_NAMES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))}  # Windows
CLIENT_GONE = 499  # nginx's number, for logs and metrics: nobody reads it


class Failure(BaseModel):
    """Why there is no result."""

    detail: str


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the description of a route's failures, and of those that every route has, for OpenAPI."""
    return {status: {"model": Failure, "description": _MEANINGS[status]} for status in (401, 403, *statuses)}


_MEANINGS = {
    400: "The photo cannot be read; `detail` is the command line's message.",
    401: "A token is needed.",
    403: "The host or origin is not the server's.",
    404: "It does not exist or has expired.",
    408: "The upload took too long.",
    413: "The request is too large.",
    507: "The server's disk is full.",
    415: "The file is not an image.",
    422: "An option is wrong.",
    429: "Too many photos are queued; `Retry-After` says when to try again.",
    503: "The model is loading, or could not be loaded.",
    504: "The response took too long.",
}
FILE_FIELDS = ("photo", "photos", "video", "film")  # of forms
UPLOADS = (400, 408, 413, 415, 422, 429, 503, 504, 507)  # of routes that take a photo
EDITS = (400, 404, 408, 413, 422, 429, 503, 504)  # of routes that take a few values

NOT_DONE: dict[int | str, dict[str, Any]] = {409: {"model": Failure, "description": "It is not done yet."}}
RETRY_SOON = {"retry-after": "2"}


def example(value: Any) -> Any:
    """Return what a body or parameter is filled with where requests are tried, for OpenAPI; it succeeds as it is."""
    return {"example": {"summary": "An example", "value": value}}


def file_of(media_type: str) -> dict[str, Any]:
    """Return the description of a response that is a file, for OpenAPI."""
    return {"content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}


PICTURES = file_of("image/*")
T = TypeVar("T")


def parsed_options(text: str) -> ColorizeOptions:
    """Return options from JSON, within the same limits as on the command line.

    Raises:
        OptionsError: `text` is no JSON object, or an option is unknown or out of range.
    """
    try:
        given = parse_json(text or "{}", max_bytes=MAX_OPTIONS_BYTES)
    except OptionsError:
        given = None
    if not isinstance(given, dict):
        raise OptionsError("options: accepted is a JSON object")
    return make_options(**given)


def file_name(given: str | None) -> str:
    """Return a client's name of a photo, without folders."""
    return (given or "").replace("\\", "/").rpartition("/")[2][:200] or "photo"


def plain_name(name: str) -> str:
    """Return a name for a file that every system can store: printable, not reserved, not hidden, of 200 bytes."""
    plain = "".join(each if each.isprintable() and each not in '<>:"/\\|?*' else "_" for each in name)
    stem, suffix = os.path.splitext(plain.lstrip(". ") or "photo")
    if stem.partition(".")[0].strip().upper() in RESERVED_NAMES:
        stem = f"_{stem}"
    room = LONGEST_NAME_BYTES - len(suffix.encode())
    return stem.encode("utf-8", "replace")[:room].decode("utf-8", "ignore").rstrip(". ") + suffix


def named_files(uploads: Sequence[UploadFile] | None) -> tuple[tuple[str, Content], ...]:
    """Return name and content of each of a request's files."""
    return tuple((file_name(each.filename), stored(each).content) for each in uploads or ())


def photo_route(predictor: Predictor, settings: ServeSettings) -> type[APIRoute]:
    """Return a class of routes that take a photo: as many bodies are read at a time as photos may wait."""
    reading = 0

    @contextmanager
    def place() -> Iterator[None]:
        nonlocal reading
        if max(reading, predictor.waiting) >= predictor.slots:
            raise QueueFull
        reading += 1
        try:
            yield
        finally:
            reading -= 1

    return bounded_route(settings.max_upload_mb, settings.timeout_s, place)


async def image_response(image: EncodedImage, disposition: str = "inline", stored_at: Path | None = None) -> Response:
    """Return a file with its facts as headers; values that are no plain text are percent-encoded.

    A large one is sent from the disk: clients that read slowly would hold it in memory.

    Args:
        image: the file and its facts.
        disposition: "inline" or "attachment".
        stored_at: where its bytes are, instead of in `image`.
    """
    headers = {
        f"x-chromatune-{name.replace('_', '-')}": _header_value(text[:MAX_HEADER])
        for name, value in image.facts.items()
        for text in ["; ".join(value) if isinstance(value, list) else str(value)]
    }
    if "name" in image.facts:
        headers["content-disposition"] = f"{disposition}; filename*=UTF-8''{quote(result_name(image), safe='')}"
    media_type = MEDIA_TYPES.get(image.suffix, "application/octet-stream")
    if stored_at is not None:
        return await file_response(stored_at, media_type, headers)
    if len(image.data) <= CHUNK_BYTES:
        return Response(image.data, media_type=media_type, headers=headers)
    return _OpenFileResponse(await asyncio.to_thread(_on_disk, image.data), media_type, headers)


def _header_value(text: str) -> str:
    """Return text percent-encoded, its spaces only where one is at an end: no header may end with one."""
    return quote(text, safe=PLAIN_IN_HEADERS if text == text.strip() else PLAIN_IN_HEADERS.replace(" ", ""))


async def file_response(path: Path, media_type: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a file's content, chunk by chunk; it may be deleted meanwhile.

    Raises:
        OSError: it cannot be opened.
    """
    return _OpenFileResponse(await asyncio.to_thread(path.open, "rb", 0), media_type, headers or {})


class _OpenFileResponse(StreamingResponse):
    """An open file, chunk by chunk; it is closed whatever ends the response, also before its first chunk."""

    def __init__(self, file: IO[bytes], media_type: str, headers: Mapping[str, str]) -> None:
        length = {"content-length": str(os.fstat(file.fileno()).st_size)}
        super().__init__(iterate_in_threadpool(_chunks(file)), media_type=media_type, headers={**headers, **length})
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def _on_disk(data: bytes) -> IO[bytes]:
    """Return an open file without a name: it goes when it is closed."""
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - the response closes it
    try:
        write_all(file, data)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def result_name(image: EncodedImage) -> str:
    """Return the name of a result's file, the same that the command line gives it."""
    return f"{Path(str(image.facts['name'])).stem}.color{image.suffix}"


async def in_time(request: Request, work: Awaitable[T], seconds: float) -> T:
    """Return the result of work, which is cancelled where it takes too long or the client closes the connection.

    Raises:
        HTTPException: 504 where it takes too long, 499 where the client has gone.
        Exception: any that the work raises.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise HTTPException(CLIENT_GONE, "the client has closed the connection")
        raise HTTPException(504, f"no response within {seconds:g} s; send a smaller photo, or try again later")
    finally:
        for each in (task, gone):
            each.cancel()


async def _disconnected(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(POLL_S)


def _failed(status: int, line: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": line}, status, headers)


def status_of(error: ChromaTuneError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, OptionsError):
        return 422
    if isinstance(error, PhotoError):
        return 415 if isinstance(error, NotAPictureError) else 400
    if isinstance(error, VideoError):
        return 400
    return 503  # a model, or a library that a model needs


def add_error_handlers(app: FastAPI) -> None:
    """Answer each error with its status and one line, the same that the command line prints."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        names = [str(name) for name in first["loc"] if name != "body"]
        if names and names[-1] in FILE_FIELDS and first["type"] in ("missing", "value_error"):
            return _failed(422, f"the form field {names[-1]} must be a file")
        return _failed(422, f"{'.'.join(names) or 'request'}: {first['msg']}")

    @app.exception_handler(ChromaTuneError)
    async def failed(_: Request, error: ChromaTuneError) -> JSONResponse:
        return _failed(status_of(error), str(error), RETRY_SOON if isinstance(error, Unavailable) else None)

    @app.exception_handler(QueueFull)
    async def full(request: Request, error: QueueFull) -> JSONResponse:
        seconds = math.ceil(request.app.state.predictor.waiting / 4)  # after which a slot is likely
        line = str(error) or "too many photos are queued; try again later"
        return _failed(429, line, {"retry-after": str(max(1, seconds))})

    @app.exception_handler(MemoryError)
    @app.exception_handler(OSError)
    async def full_machine(_: Request, error: MemoryError | OSError) -> JSONResponse:
        if isinstance(error, FileNotFoundError):
            return _failed(404, "it was deleted meanwhile")
        refusal = no_room(error)
        return _failed(refusal.status_code, refusal.detail, dict(refusal.headers or {}))

    @app.exception_handler(RuntimeError)
    async def no_thread(_: Request, error: RuntimeError) -> JSONResponse:
        if not says_no_memory(error):
            raise error
        return _failed(503, str(no_room(error).detail), RETRY_LATER)

    @app.exception_handler(Cancelled)
    async def stopping(_: Request, __: Cancelled) -> JSONResponse:
        return _failed(503, "the server is stopping", RETRY_SOON)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> JSONResponse:  # starlette has it logged
        return _failed(500, "an error of the server; its log has more")
