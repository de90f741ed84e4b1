"""Bodies of requests, read within bounds: a place in the queue first, then bytes, time, parts and values."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from fastapi import HTTPException, Request, Response, UploadFile
from fastapi.routing import APIRoute
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Message, Receive

from chromatune.errors import OptionsError
from chromatune.hints import MOST_JSON_VALUES, count_values, parse_json
from chromatune.serving.bounded_pool import says_no_memory
from chromatune.serving.predictor import Content

MEMORY_BYTES = 64 * 1024  # of a form's file; larger ones lie on the disk
MAX_JSON_MB = 1.0  # of a body of JSON, where a route needs no more
JSON_BYTES_A_VALUE = 100  # that a parsed value may take
MAX_JSON_HELD_BYTES = 256_000_000  # of all bodies of JSON in progress, with their values
LEAST_BYTES_PER_S = 4_000  # of an upload, in the mean after the first seconds
PATIENCE_S = 20.0  # how long an upload may be slower than that
CLOSING = {"connection": "close"}
RETRY_LATER = {"retry-after": "5"}
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class StoredFile:
    """A file of a form: in memory while it is small, then on the disk, and open only while it is written or read.

    A batch of hundreds of photos would otherwise take as many descriptors.
    """

    _rolled = False  # starlette looks at both, to write small files without a thread
    _max_size = MEMORY_BYTES

    def __init__(self) -> None:
        self.path: Path | None = None
        self._file: BinaryIO = io.BytesIO()

    def write(self, data: bytes) -> int:
        if self.path is None and self._file.tell() + len(data) > MEMORY_BYTES:
            descriptor, name = tempfile.mkstemp(prefix="part-")
            self.path, self._rolled = Path(name), True
            start = cast(io.BytesIO, self._file).getvalue()
            self._file = os.fdopen(descriptor, "r+b", buffering=0)
            write_all(self._file, start)
        write_all(self._file, data)
        return len(data)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        if self.path is not None and self._file.closed:
            self._file = self.path.open("rb", buffering=0)
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place; at the start of a file on the disk, its descriptor is given back."""
        if self.path is not None and offset == 0 and whence == os.SEEK_SET:
            self._file.close()
            return 0
        return self._file.seek(offset, whence)

    def close(self) -> None:
        """Delete the file, unless it was moved."""
        self._file.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    @property
    def content(self) -> Content:
        """Bytes of a small file, or the path of a larger one, which is deleted at the end of its request."""
        return cast(io.BytesIO, self._file).getvalue() if self.path is None else self.path

    def move_to(self, target: Path) -> None:
        """Give the file to a folder of its own, on the same disk."""
        if self.path is None:
            target.write_bytes(cast(io.BytesIO, self._file).getvalue())
        else:
            self._file.close()
            os.replace(self.path, target)


def write_all(file: IO[bytes], data: bytes) -> None:
    """Write to an unbuffered file, which may take a part at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def stored(upload: UploadFile) -> StoredFile:
    """Return the file of an upload."""
    return cast(StoredFile, upload.file)


class _FormParser(MultiPartParser):
    """Starlette's parser, with files that are closed once they are complete, and a limit of all fields together."""

    def __init__(self, *args: Any, **limits: Any) -> None:
        super().__init__(*args, **limits)
        self._fields_bytes = 0

    def on_part_begin(self) -> None:
        super().on_part_begin()
        self._charset = "utf-8"  # Python's other codecs take long, or give what is no text

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            self._fields_bytes += end - start
            if self._fields_bytes > self.max_part_size:
                raise MultiPartException(f"fields without a file take more than {self.max_part_size / 1e6:g} MB")
        super().on_part_data(data, start, end)

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        part = self._current_part
        if part.file is not None:
            self._files_to_close_on_error.pop().close()
            file = cast(Any, StoredFile())
            part.file = UploadFile(file, size=0, filename=part.file.filename, headers=part.file.headers)
            self._files_to_close_on_error.append(file)


class _Held:
    """Bytes that all bodies of JSON of this process take at the moment."""

    total = 0


class BoundedRequest(Request):
    """A request whose body is read within bounds of bytes, time and values."""

    def __init__(self, request: Request, max_mb: float, pause_s: float) -> None:
        """Take over a request whose body nobody has read.

        Args:
            request: the request.
            max_mb: of its body.
            pause_s: longest time without a byte.
        """
        self._max_mb, self._pause_s, self._held_bytes = max_mb, pause_s, 0
        super().__init__(request.scope, self._bounded(request.receive))
        length = self.headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > max_mb * 1e6:
            raise _too_large(max_mb)

    def _bounded(self, receive: Receive) -> Receive:
        """Return `receive` that raises a refusal once the body is too large, or comes too slowly."""
        size, complete = 0, False
        start = asyncio.get_running_loop().time()

        async def bounded() -> Message:
            nonlocal size, complete
            if complete:  # the next message says that the client has gone
                return await receive()
            try:
                async with asyncio.timeout(self._pause_s):
                    message = await receive()
            except TimeoutError:
                line = f"nothing came for {self._pause_s:g} s; send the request again"
                raise HTTPException(408, line, CLOSING) from None
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            seconds = asyncio.get_running_loop().time() - start
            if not complete and seconds > PATIENCE_S and size < LEAST_BYTES_PER_S * seconds:
                line = f"the upload is slower than {LEAST_BYTES_PER_S // 1000} kB/s; send a smaller photo"
                raise HTTPException(408, line, CLOSING)
            if size > self._max_mb * 1e6:
                raise _too_large(self._max_mb, CLOSING)
            return message

        return bounded

    async def body(self) -> bytes:
        """Return the body.

        Raises:
            HTTPException: 503, the bodies of all requests take too much memory.
        """
        if not hasattr(self, "_body"):
            chunks = []
            async for chunk in self.stream():
                self._hold(len(chunk))
                chunks.append(chunk)
            self._body = b"".join(chunks)
        return self._body

    def _hold(self, count: int) -> None:
        if _Held.total + count > MAX_JSON_HELD_BYTES:
            line = "too many edits are in progress; try again in a moment"
            raise HTTPException(503, line, {**RETRY_LATER, **CLOSING})
        _Held.total += count
        self._held_bytes += count

    def release(self) -> None:
        """Count the body no longer: its request is answered."""
        _Held.total -= self._held_bytes
        self._held_bytes = 0

    async def json(self) -> Any:
        """Return the body's value, parsed in a thread.

        Raises:
            HTTPException: it is no JSON, has too many values, or is nested too deeply; or 503, as `body` raises.
        """
        body = await self.body()
        self._hold(JSON_BYTES_A_VALUE * min(MOST_JSON_VALUES, count_values(body)))
        try:
            return await asyncio.to_thread(parse_json, body)
        except OptionsError as error:
            raise HTTPException(422, str(error)) from None

    async def _get_form(self, **limits: Any) -> FormData:
        """Return the fields of a form, without empty ones; forms without files are empty.

        Raises:
            HTTPException: it is damaged or has too many parts, or there is no room for them here.
        """
        if self._form is None:
            kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
            try:
                is_form = kind == "multipart/form-data"
                parser = _FormParser(self.headers, self.stream(), **limits)
                given = (await parser.parse()).multi_items() if is_form else []
                self._form = FormData([field for field in given if field[1] != ""])  # such as a file that is not chosen
            except MultiPartException as error:
                raise HTTPException(400, f"the form cannot be read: {error.message}") from None
            except (OSError, MemoryError, RuntimeError) as error:
                raise no_room(error) from error
        return self._form


def no_room(error: OSError | MemoryError | RuntimeError) -> HTTPException:
    """Return the refusal of a request for which this machine has no memory, disk or descriptors at the moment."""
    number = getattr(error, "errno", None)
    if number in NO_ROOM:
        return HTTPException(507, "the server's disk is full; send less, or try again later", RETRY_LATER)
    if number in NO_DESCRIPTORS:
        return HTTPException(503, "the server has too many files open; try again in a moment", RETRY_LATER)
    if number == errno.ENOMEM or says_no_memory(error):
        return HTTPException(503, "not enough memory at the moment; try again later", RETRY_LATER)
    return HTTPException(500, "the server cannot store the upload; look at its log")


def bounded_route(
    max_mb: float, pause_s: float, place: Callable[[], AbstractContextManager[None]] = nullcontext
) -> type[APIRoute]:
    """Return a class of routes that read no more than so much.

    Args:
        max_mb: of a request's body.
        pause_s: longest time without a byte of it.
        place: a place in a queue that is taken before the body is read, and given back with the response; it raises
            what refuses the request.
    """

    class BoundedRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            handler = super().get_route_handler()

            async def bounded(request: Request) -> Response:
                if request.method in ("GET", "HEAD", "DELETE"):
                    return await handler(request)
                with place():
                    bounded_request = BoundedRequest(request, max_mb, pause_s)
                    try:
                        return await handler(bounded_request)
                    finally:
                        bounded_request.release()

            return bounded

    return BoundedRoute


def _too_large(max_mb: float, headers: dict[str, str] | None = None) -> HTTPException:
    line = f"the request is larger than {max_mb:g} MB; send a smaller photo, or fewer"
    return HTTPException(413, line, headers)
