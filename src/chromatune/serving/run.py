"""The app on a port, until SIGTERM or Ctrl-C; requests in progress are answered first."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from chromatune.errors import OptionsError
from chromatune.serving.settings import ServeSettings

GRACE_S = 30  # for requests in progress after SIGTERM or Ctrl-C


class _Server(uvicorn.Server):
    """uvicorn that returns after SIGTERM or Ctrl-C, where uvicorn itself raises the signal again."""

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


def run_app(app: FastAPI, settings: ServeSettings, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        app: see `create_app`.
        settings: host and port.
        announce: given the address once it listens.

    Raises:
        OptionsError: it cannot listen on the port.
    """
    listening = _socket(settings)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=15, h11_max_incomplete_event_size=64 * 1024,
    )  # fmt: skip
    announce(f"http://{shown}:{port}/")
    with _temporary_folder():
        _Server(config).run(sockets=[listening])


@contextlib.contextmanager
def _temporary_folder() -> Iterator[None]:
    """Put all temporary files of this process into one folder, which is removed at the end."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="chromatune-", ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = folder
        try:
            yield
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
