"""Results and failures as HTTP answers: a file with facts in its headers, or one line, the command line's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from fastapi import FastAPI, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from chromatune.errors import ChromaTuneError, NotAPictureError, OptionsError, PhotoError, VideoError
from chromatune.options import ColorizeOptions, make_options
from chromatune.serving.guard import retry_after
from chromatune.serving.predictor import Answer, QueueFull, Unavailable
from chromatune.serving.shelf import GoneError

MEDIA_TYPES = {
    ".jpg": "image/jpeg", ".png": "image/png", ".tif": "image/tiff", ".webp": "image/webp", ".bmp": "image/bmp",
}  # fmt: skip
LONGEST_HEADER = 1000  # characters of a fact in a header
POLL_S = 0.25  # how often it is looked whether the client is still there
CLIENT_GONE = 499  # nginx's number, for logs and measures: nobody reads it


class Failure(BaseModel):
    """Why there is no answer."""

    detail: str


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The description of failures that a route has, for OpenAPI; those that every route has are added."""
    return {status: {"model": Failure, "description": _MEANINGS[status]} for status in (401, 403, *statuses)}


_MEANINGS = {
    400: "The photo cannot be read; `detail` is the command line's own line.",
    401: "A token is needed.",
    403: "The request comes from elsewhere.",
    404: "It is not kept, or not any more.",
    408: "The upload took too long.",
    413: "The request is too large.",
    415: "The file is no picture.",
    422: "An option is wrong.",
    429: "Too many photos wait; `Retry-After` says when to come again.",
    503: "The model is loading, or could not be loaded.",
    504: "The answer took too long.",
}
UPLOADS = (400, 408, 413, 415, 422, 429, 503, 504)  # of routes that take a photo
CHANGES = (400, 404, 408, 413, 422, 429, 503, 504)  # of routes that take a few values

IN_WORK: dict[int | str, dict[str, Any]] = {409: {"model": Failure, "description": "It is not done yet."}}
AGAIN_S = {"retry-after": "2"}  # header of an answer 409


def file_of(media_type: str) -> dict[str, Any]:
    """The description of an answer that is a file, for OpenAPI."""
    return {"content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}


PICTURES = file_of("image/*")
T = TypeVar("T")


class _ClientGone(Exception):
    """The client does not wait any more."""


class _TooSlow(Exception):
    """The answer took too long."""


def parsed_options(text: str) -> ColorizeOptions:
    """Options from JSON, held to the limits that the command line's are held to.

    Raises:
        OptionsError: it is no JSON object, or an option is unknown or out of range.
    """
    try:
        given = json.loads(text or "{}")
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise OptionsError("options: accepted is a JSON object")
    return make_options(**given)


def picture(answer: Answer, disposition: str = "inline") -> Response:
    """The file of an answer, with its facts as headers: values that are no plain text are percent-encoded."""
    headers = {
        f"x-chromatune-{name.replace('_', '-')}": quote(_text_of(value)[:LONGEST_HEADER], safe=" ,.:;()+-/=")
        for name, value in answer.facts.items()
    }
    if "name" in answer.facts:
        headers["content-disposition"] = f"{disposition}; filename*=UTF-8''{quote(result_name(answer), safe='')}"
    return Response(answer.data, media_type=MEDIA_TYPES.get(answer.suffix, "application/octet-stream"), headers=headers)


def result_name(answer: Answer) -> str:
    """What a result's file is called, as the command line calls it."""
    return f"{Path(str(answer.facts['name'])).stem}.color{answer.suffix}"


def file_name(given: str | None) -> str:
    """What a client calls a photo, without folders."""
    return (given or "").replace("\\", "/").rpartition("/")[2][:200] or "photo"


async def references_of(given: Sequence[UploadFile] | None) -> tuple[tuple[str, bytes], ...]:
    """Name and bytes of each reference photo of a request."""
    return tuple([(file_name(each.filename), await each.read()) for each in given or ()])


def _text_of(value: object) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


async def in_time(request: Request, work: Awaitable[T], seconds: float) -> T:
    """What the work gives; it is given up where it takes too long, or nobody waits for it any more.

    Raises:
        Exception: what the work raises; else one that becomes 504, or is logged where the client has gone.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise _ClientGone
        raise _TooSlow(f"no answer within {seconds:g} s; send a smaller photo, or come again")
    finally:
        for each in (task, gone):
            each.cancel()


async def _gone(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(POLL_S)


def _failed(status: int, line: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": line}, status, headers)


def status_of(error: ChromaTuneError) -> int:
    """The status of a failure that has a line."""
    if isinstance(error, OptionsError):
        return 422
    if isinstance(error, PhotoError):
        return 415 if isinstance(error, NotAPictureError) else 400
    if isinstance(error, VideoError):
        return 400
    return 503  # a model, or a library that a model needs


def add_failures(app: FastAPI) -> None:
    """One line for each failure, the same that the command line has."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        names = [str(name) for name in first["loc"] if name != "body"]
        if names and names[-1] in ("photo", "photos", "film") and first["type"] in ("missing", "value_error"):
            thing = "film" if names[-1] == "film" else "photo"
            return _failed(422, f"a {thing} as a file is needed; the field is called {names[-1]}")
        return _failed(422, f"{'.'.join(names) or 'request'}: {first['msg']}")

    @app.exception_handler(ChromaTuneError)
    async def told(_: Request, error: ChromaTuneError) -> JSONResponse:
        return _failed(status_of(error), str(error))

    @app.exception_handler(Unavailable)
    async def unavailable(_: Request, error: Unavailable) -> JSONResponse:
        return _failed(503, str(error), {"retry-after": "2"})

    @app.exception_handler(GoneError)
    async def missing(_: Request, error: GoneError) -> JSONResponse:
        return _failed(404, str(error))

    @app.exception_handler(QueueFull)
    async def full(request: Request, error: QueueFull) -> JSONResponse:
        waiting = request.app.state.predictor.waiting
        line = str(error) or "too many photos wait; come again"
        return _failed(429, line, {"retry-after": retry_after(waiting, 1)})

    @app.exception_handler(_TooSlow)
    async def slow(_: Request, error: _TooSlow) -> JSONResponse:
        return _failed(504, str(error))

    @app.exception_handler(_ClientGone)
    async def gone(_: Request, __: _ClientGone) -> Response:
        return Response(status_code=CLIENT_GONE)

    @app.exception_handler(MemoryError)
    async def memory(_: Request, __: MemoryError) -> JSONResponse:
        return _failed(503, "not enough memory at the moment; come again", {"retry-after": "5"})
