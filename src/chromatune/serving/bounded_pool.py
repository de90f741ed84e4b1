"""Threads with a bounded queue before them, for coroutines."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from chromatune.serving.predictor import QueueFull

T = TypeVar("T")


class BoundedPool:
    """As many threads as may work, and as many tasks as may wait for one."""

    def __init__(self, threads: int, queue: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(threads, name)
        self._slots = threads + queue
        self._taken = 0
        self._patient: deque[asyncio.Future[None]] = deque()

    @property
    def taken(self) -> int:
        """Tasks that are in work or wait for a thread."""
        return self._taken

    async def run(self, task: Callable[[], T], *, patient: bool = False) -> T:
        """What the task gives, in one of the threads and in its turn; being cancelled before that frees its slot.

        Args:
            task: is called in a thread.
            patient: waits for a slot where all are taken; it is given the next one that gets free.

        Raises:
            QueueFull: all slots are taken, and it is not patient.
        """
        loop = asyncio.get_running_loop()
        if self._taken < self._slots:
            self._taken += 1
        elif patient:
            await self._slot(loop)
        else:
            raise QueueFull
        try:
            future: Future[T] = self._threads.submit(task)
        except RuntimeError:  # the process ends
            self._free()
            raise QueueFull from None
        # The slot is free when the thread is, not when the client has gone
        future.add_done_callback(lambda _: _call_in(loop, self._free))
        return await asyncio.wrap_future(future)

    def stop(self) -> None:
        """Finishes what is in work; what waits is given up."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _slot(self, loop: asyncio.AbstractEventLoop) -> None:
        waiter: asyncio.Future[None] = loop.create_future()
        self._patient.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # it was given a slot at the same moment
                self._free()
            raise

    def _free(self) -> None:
        while self._patient:
            waiter = self._patient.popleft()
            if not waiter.done():
                waiter.set_result(None)  # the slot goes on to it
                return
        self._taken -= 1


def _call_in(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)
