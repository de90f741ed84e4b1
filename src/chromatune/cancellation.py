"""Cancellation of work in threads: between its steps, it asks whether somebody still waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import TypeVar

T = TypeVar("T")


class Cancelled(Exception):
    """Nobody waits for this work any more."""


_cancelled: ContextVar[threading.Event | None] = ContextVar("cancelled", default=None)


def check_cancelled() -> None:
    """Raise `Cancelled` where the work that this thread does was cancelled."""
    event = _cancelled.get()
    if event is not None and event.is_set():
        raise Cancelled


def cancellable(task: Callable[[], T], event: threading.Event) -> Callable[[], T]:
    """Return a task that stops at its next `check_cancelled` once the event is set."""

    def run() -> T:
        _cancelled.set(event)
        check_cancelled()
        return task()

    return lambda: copy_context().run(run)
