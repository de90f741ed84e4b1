"""The app on a port, until SIGTERM or Ctrl-C; requests in progress are answered first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from chromatune.errors import OptionsError
from chromatune.files import private_folder
from chromatune.serving.settings import ServeSettings

GRACE_S = 25  # for requests in progress after SIGTERM or Ctrl-C
END_S = 40  # after which the process ends whatever is in progress
MAX_HEAD_BYTES = 32 * 1024  # of a request's line and headers together
MAX_HEADERS = 100  # of a request: each takes time to read
CHUNKS_A_TURN = 100  # of a chunked body, until others' requests have their turn: small ones take as long as large ones
HEAD_S = 10.0  # for a request's line and headers, from the first byte or from the connection
KEEP_ALIVE_S = 15  # between two requests of a connection
STALLED_S = 60.0  # for a client that does not read its response
RESERVED_DESCRIPTORS = 64  # for files; connections get half of the others
REPEATED_LINE_S = 60.0  # between two equal lines in the log
MOST_LINES = 10  # different ones of one place in the code in that time
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class _Server(uvicorn.Server):
    """uvicorn that returns after SIGTERM or Ctrl-C, where uvicorn itself raises the signal again."""

    def __init__(self, config: uvicorn.Config, folder: Path) -> None:
        """Prepare to serve; `folder` has the process's temporary files."""
        super().__init__(config)
        self._folder = folder

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            timer = threading.Timer(END_S, self._end_now)
            timer.daemon = True
            timer.start()
        super().handle_exit(sig, frame)

    def _end_now(self) -> None:
        """End the process although work in it goes on: native code cannot be interrupted."""
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(0)


class _Parser(h11.Connection):
    """h11's parser, with a limit of the number of headers, that pauses between the chunks of a body."""

    chunks_left = CHUNKS_A_TURN

    def next_event(self) -> Any:
        if self.their_state is h11.IDLE:
            head, _, _ = self.trailing_data[0].lstrip(b"\r\n").partition(b"\r\n\r\n")
            if head.count(b"\n") > MAX_HEADERS:
                raise h11.RemoteProtocolError(f"more than {MAX_HEADERS} headers", error_status_hint=431)
        if self.is_paused:
            return h11.NEED_DATA
        event = super().next_event()
        if isinstance(event, h11.Data):
            self.chunks_left -= 1
        return event

    @property
    def is_paused(self) -> bool:
        """Whether it has parsed as many chunks as one turn may."""
        return self.chunks_left <= 0

    @property
    def is_ahead(self) -> bool:
        """Whether it holds what came after the request in progress."""
        return self.their_state is h11.DONE and bool(self.trailing_data[0])


class _Flow(FlowControl):
    """uvicorn's, which reads no more while the parser holds what it cannot use yet."""

    def __init__(self, transport: asyncio.Transport, parser: _Parser) -> None:
        super().__init__(transport)
        self._parser = parser

    def resume_reading(self) -> None:
        if not self._parser.is_paused and not self._parser.is_ahead:
            super().resume_reading()


class BoundedConnection(H11Protocol):
    """uvicorn's HTTP over h11, which bounds the bytes of a head, and limits of time and of the number of connections.

    httptools, uvicorn's other parser, holds headers of any length. Where there are too many connections, the one goes
    that has been without a request in progress for the longest time.
    """

    most_connections = 100  # `run_app` sets it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._idle_since = time.monotonic()
        super().connection_made(transport)
        self.conn: _Parser = _Parser(h11.SERVER, MAX_HEAD_BYTES)
        self.flow = _Flow(transport, self.conn)
        self._start_head_timer()
        if len(self.connections) > self.most_connections:
            self._make_room()

    def _make_room(self) -> None:
        """Close the connection that has been idle for the longest time; this one where all others are busy."""
        others = [each for each in self.connections if isinstance(each, BoundedConnection) and each is not self]
        idle = [each for each in others if not each._is_busy() and not each.transport.is_closing()]
        if idle:
            min(idle, key=lambda each: each._idle_since).transport.abort()
        elif len(others) >= self.most_connections:
            self.transport.write(BUSY)
            self.transport.close()

    def _is_busy(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self._end_without_head)

    def _end_without_head(self) -> None:
        self._head_timer = None
        if not self._is_busy():
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_busy():
            self._cancel_head_timer()
        else:
            self._start_head_timer()

    def handle_events(self) -> None:
        self.conn.chunks_left = CHUNKS_A_TURN
        super().handle_events()
        if self.conn.is_paused:
            self.flow.pause_reading()
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Parse more of what is there, then read on."""
        if self.conn.is_paused and not self.transport.is_closing():
            self.handle_events()
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        self._idle_since = time.monotonic()
        self._cancel_head_timer()
        super().on_response_complete()
        self.flow.resume_reading()

    def shutdown(self) -> None:
        if self._is_busy() and self.cycle.more_body:  # it may go on sending for minutes
            self.transport.abort()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:  # in the middle of a response
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall_timer = self.loop.call_later(STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_stall_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head_timer()
        self._cancel_stall_timer()
        super().connection_lost(exc)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _cancel_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None


class OnceAMinute(logging.Filter):
    """Drops a record that says the same as one of the last minute: strangers decide how often something goes wrong.

    Of records that one line of code makes and that differ, a few a minute stay: names and numbers in them may come from
    strangers.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, int], tuple[float, set[str]]] = {}  # by place in the code: since when, and what

    def filter(self, record: logging.LogRecord) -> bool:
        place, now, line = (record.pathname, record.lineno), self._clock(), str(record.msg)[:200]
        since, said = self._said.get(place, (-math.inf, set[str]()))
        if now - since >= REPEATED_LINE_S:
            since, said = now, set[str]()
        is_new = line not in said and len(said) < MOST_LINES
        if is_new:
            self._said[place] = since, said | {line}
        return is_new


def run_app(app: FastAPI, settings: ServeSettings, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        app: see `create_app`.
        settings: host, port and number of connections.
        announce: given the address once it listens.

    Raises:
        OptionsError: it cannot listen on the port, or there is no temporary folder.
    """
    listening = _socket(settings)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    _log_to_stderr()
    announce(f"http://{shown}:{port}/")
    with _temporary_folder() as folder:
        _Server(server_config(app, settings), folder).run(sockets=[listening])


def server_config(app: FastAPI, settings: ServeSettings) -> uvicorn.Config:
    """Return the settings of uvicorn, with bounds of what connections may take."""
    protocol = type("Connection", (BoundedConnection,), {"most_connections": most_connections(settings)})
    return uvicorn.Config(
        app, http=protocol, ws="none", log_config=None, access_log=False, server_header=False,
        timeout_graceful_shutdown=GRACE_S, timeout_keep_alive=KEEP_ALIVE_S,
        backlog=128,
    )  # fmt: skip


def most_connections(settings: ServeSettings) -> int:
    """Return how many connections are open at most: as set, but no more than half of what descriptors allow."""
    try:
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return settings.connections
    except ImportError:  # Windows
        return settings.connections
    return max(8, min(settings.connections, (soft - RESERVED_DESCRIPTORS) // 2))


def _log_to_stderr() -> None:
    """Send uvicorn's and asyncio's warnings to stderr, if there is one: both are given what strangers do."""
    handler: logging.Handler = logging.NullHandler() if sys.stderr is None else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    handler.addFilter(OnceAMinute())
    for name in ("uvicorn", "asyncio", "chromatune"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING)
    if not logging.root.handlers:  # of libraries that parse forms and pictures
        logging.root.addHandler(handler)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Put all temporary files of this process into one folder, which is removed at the end.

    Raises:
        OptionsError: there is no place for it.
    """
    before = tempfile.tempdir
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(private_folder("chromatune-serve-"))
        except OSError as error:
            raise OptionsError(f"no temporary folder ({error.strerror}); set TMPDIR to one with room") from None
        tempfile.tempdir = str(folder)
        try:
            yield folder
        finally:
            tempfile.tempdir = before


def _socket(settings: ServeSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform != "win32":
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        reason = error.strerror or str(error)
        raise OptionsError(
            f"cannot listen on {settings.host}:{settings.port} ({reason}); give another --port"
        ) from None
    return listening
