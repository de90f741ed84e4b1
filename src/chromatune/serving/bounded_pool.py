"""A thread pool with a bounded queue, for coroutines."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from chromatune.cancellation import cancellable
from chromatune.serving.predictor import QueueFull

T = TypeVar("T")
# What libraries raise where an allocation failed: ONNX Runtime, OpenCV, torch, and Python for a thread's stack
NO_MEMORY = re.compile(
    r"bad.?alloc|out of memory|insufficient memory|allocate memory|failed to allocate|start new thread", re.I
)


def says_no_memory(error: Exception) -> bool:
    """Return whether an error of a library means that memory is short."""
    return isinstance(error, MemoryError) or NO_MEMORY.search(str(error)) is not None


class BoundedPool:
    """Threads for tasks, and slots for a few more tasks that wait; further ones are refused.

    `anyio.CapacityLimiter` refuses nobody, and a cancelled task returns its token while its thread still works.
    """

    def __init__(self, threads: int, queue: int, name: str) -> None:
        """Start no thread yet.

        Args:
            threads: tasks in progress at the same time.
            queue: tasks that may wait beside them.
            name: prefix of the threads' names.
        """
        self._threads = ThreadPoolExecutor(threads, name)
        self.slots = threads + queue
        self.in_use = 0  # tasks that are in progress or wait for a thread
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._abandoned: set[threading.Event] = set()  # one for each task, set where nobody waits for it

    async def run(self, task: Callable[[], T], *, wait_for_slot: bool = False) -> T:
        """Return the result of a task, which is called in a thread in its turn.

        Cancellation before the task has begun frees its slot at once; later, the slot is free when the thread is, which
        stops at the task's next `check_cancelled`.

        Args:
            task: called in a thread.
            wait_for_slot: whether to wait, first come first served, where all slots are in use.

        Raises:
            QueueFull: all slots are in use, and `wait_for_slot` is off.
        """
        loop = asyncio.get_running_loop()
        if self.in_use < self.slots:
            self.in_use += 1
        elif wait_for_slot:
            await self._next_slot(loop)
        else:
            raise QueueFull
        abandoned = threading.Event()
        self._abandoned.add(abandoned)
        try:
            future: Future[T] = self._threads.submit(cancellable(task, abandoned))
        except RuntimeError:  # the process ends, or can have no more threads
            self._abandoned.discard(abandoned)
            self._release()
            raise QueueFull from None

        def release_in_loop(_: Future[T]) -> None:
            self._abandoned.discard(abandoned)
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._release)

        # The slot is free when the thread is, not when the client has gone
        future.add_done_callback(release_in_loop)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            abandoned.set()
            raise
        except Exception as error:
            if says_no_memory(error):
                raise MemoryError from error
            raise

    def stop(self) -> None:
        """Cancel all tasks, and wait for those in progress to end."""
        for abandoned in list(self._abandoned):
            abandoned.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _next_slot(self, loop: asyncio.AbstractEventLoop) -> None:
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # it was given a slot at the same moment
                self._release()
            raise

    def _release(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)  # and the slot is its own
                return
        self.in_use -= 1
