"""The engine of all jobs: tasks in threads, bounded in memory and in computing, with their results as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

MOST_PIXELS = 48_000_000  # of photos in work at the same time, but for one that is larger alone

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Task(Generic[T]):
    """Work for a thread.

    Attributes:
        call: does the work and returns its result.
        pixels: of the photos that are in memory until the result is used.
        inline: the call takes no time, so that the caller's thread makes it at once.
    """

    call: Callable[[], T]
    pixels: int = 0
    inline: bool = False

    @classmethod
    def known(cls, result: T) -> Task[T]:
        """Return the task of a result that needs no work, so that it keeps its place among the others."""
        return cls(lambda: result, inline=True)


class InlineExecutor(Executor):
    """Calls a function at once, in the caller's thread."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Return a future that is done."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - raised again by `Future.result`
            future.set_exception(error)
        return future


def run_tasks(
    tasks: Iterable[Task[T]], *, workers: int, most_tasks: int, in_order: bool, most_pixels: int = MOST_PIXELS
) -> Generator[T, None, None]:
    """Yield the result of each task.

    Where a task, `tasks` or Ctrl-C raises, or an exception is thrown into this generator, tasks that have not begun are
    cancelled, the results of all others are yielded, and the exception is raised again. A result whose use was cut off
    by that is yielded a second time.

    Args:
        tasks: are taken as there is room for them.
        workers: threads; 0 works in the caller's thread.
        most_tasks: tasks that are in work, or wait, or whose results are not used yet.
        in_order: results come in the order of their tasks, else as they are done.
        most_pixels: of these tasks together, but for a larger one alone.
    """
    executor: Executor = ThreadPoolExecutor(workers, "worker") if workers else InlineExecutor()
    inline = InlineExecutor()
    pending: dict[Future[T], Task[T]] = {}
    try:
        for task in tasks:
            while not (task.inline or _fits(task, pending, most_tasks, most_pixels)):
                yield from _finished(pending, in_order)
            pending[(inline if task.inline else executor).submit(task.call)] = task
        while pending:
            yield from _finished(pending, in_order)
    except (Exception, KeyboardInterrupt):
        for future in pending:
            future.cancel()
        for future in pending:
            if not future.cancelled() and future.exception() is None:
                yield future.result()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _fits(task: Task[T], pending: dict[Future[T], Task[T]], most_tasks: int, most_pixels: int) -> bool:
    busy = [each for each in pending.values() if not each.inline]
    pixels = sum(each.pixels for each in busy) + task.pixels
    return not busy or (len(busy) < most_tasks and pixels <= most_pixels)


def _finished(pending: dict[Future[T], Task[T]], in_order: bool) -> Iterator[T]:
    """Wait for at least one result, yield what is done, and take it out."""
    done = {next(iter(pending))} if in_order else wait(pending, return_when=FIRST_COMPLETED).done
    for future in done:
        yield future.result()
        del pending[future]  # after its use: Ctrl-C may come in between


class ResourceLimiter:
    """Memory and cores of one process, shared by its workers; first come, first served."""

    def __init__(self, workers: int, most_pixels: int = MOST_PIXELS) -> None:
        self._most_pixels, self._pixels = most_pixels, 0
        self._changed = threading.Condition()
        self._turn = threading.Lock()  # a large photo would wait for ever where small ones pass it by
        self._cores = threading.Semaphore(workers)

    @contextmanager
    def memory(self, pixels: int) -> Iterator[None]:
        """Wait until a photo fits beside those in memory; one that is too large for that, until there are none."""
        with self._turn, self._changed:
            self._changed.wait_for(lambda: not self._pixels or self._pixels + pixels <= self._most_pixels)
            self._pixels += pixels
        try:
            yield
        finally:
            with self._changed:
                self._pixels -= pixels
                self._changed.notify_all()

    @contextmanager
    def core(self) -> Iterator[None]:
        """Wait until a core is free."""
        with self._cores:
            yield
