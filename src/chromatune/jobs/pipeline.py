"""Reading, the model, and writing at the same time: what keeps all cores at work while photos go through.

One thread reads ahead; each worker takes a photo through the model to its file. On a GPU several photos share a pass,
and the next ones go through it while the last are written. Events come in the order of the jobs.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from chromatune.colorizer import Colorizer, ColorizeResult, Request
from chromatune.errors import PhotoError
from chromatune.hints import Reference
from chromatune.images import format_for, suffix_for
from chromatune.jobs.events import Done, Event, Exists, Failed, Ready
from chromatune.options import ColorizeOptions

MOST_PIXELS = 48_000_000  # of photos in work at the same time, but for one that is larger alone

T = TypeVar("T")


@dataclass(frozen=True)
class Maker:
    """Takes photos through the model to their files.

    Attributes:
        colorizer: the model.
        options: of each variant.
        overwrite: replace results that exist.
        standard_output: takes the results of jobs without a name.
        like: references of all photos.
    """

    colorizer: Colorizer
    options: Sequence[ColorizeOptions]
    overwrite: bool
    standard_output: BinaryIO | None
    like: tuple[Reference, ...] = ()

    def make(self, window: Sequence[Ready]) -> list[tuple[Event, bytes | None]]:
        """What becomes of photos that go through the model together; bytes are for standard output."""
        requests = [Request(each.photo, self.options[each.job.variant], each.hints, self.like) for each in window]
        results = self.colorizer.colorize_many(requests, batch_size=len(window))
        return [self._write(ready, result) for ready, result in zip(window, results, strict=True)]

    def _write(self, ready: Ready, result: ColorizeResult | PhotoError) -> tuple[Event, bytes | None]:
        data = None
        try:
            if isinstance(result, PhotoError):
                raise result
            if ready.path is not None:
                result.save(ready.path, overwrite=self.overwrite)
            elif self.standard_output is not None:
                data = result.encode(format_for(suffix_for(None, result.photo)))
        except PhotoError as error:
            return Failed(ready.job.source, str(error)), None
        return Done(ready.job, ready.path, result), data

    def pass_on(self, data: bytes) -> None:
        """Writes a result to standard output."""
        if self.standard_output is not None:
            self.standard_output.write(data)
            self.standard_output.flush()


def make_all(
    entries: Iterable[Ready | Failed | Exists], maker: Maker, *, batch_size: int, workers: int
) -> Iterator[Event]:
    """The events of all entries, in their order.

    Args:
        entries: photos as they are read, and what has no photo.
        maker: what makes their results.
        batch_size: photos that share a pass where the model gains by it.
        workers: photos in work at the same time, or passes; 0 works in the caller's thread.

    Raises:
        ModelError: the model gives no numbers; what was found or made until then is told first.
    """
    together = max(1, batch_size) if maker.colorizer.backend.batches else 1
    waiting: deque[_Task | Failed | Exists] = deque()
    given_up: set[str] = set()  # photos whose result could not be written: told once, not for each variant
    pool: Executor = ThreadPoolExecutor(workers, "colorize") if workers else _Here()
    try:
        window: list[Ready] = []
        for entry in entries:
            if isinstance(entry, Ready):
                window.append(entry)
                if len(window) < together:
                    continue
            if window:
                yield from _make_room(waiting, window, workers, maker, given_up)
                waiting.append(_Task.start(pool, maker, window))
                window = []
            if not isinstance(entry, Ready):
                waiting.append(entry)
        if window:
            waiting.append(_Task.start(pool, maker, window))
        while waiting:
            yield from _told(waiting.popleft(), maker, given_up)
    except (Exception, KeyboardInterrupt):
        for each in waiting:
            if isinstance(each, _Task):
                each.future.cancel()
        yield from _left(waiting, maker, given_up)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Here(Executor):
    """Runs what it is given at once, in the caller's thread."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - raised again where the result is asked for
            future.set_exception(error)
        return future


@dataclass(frozen=True, eq=False)
class _Task:
    """Photos on their way through the model."""

    future: Future[list[tuple[Event, bytes | None]]]
    pixels: int

    @classmethod
    def start(cls, pool: Executor, maker: Maker, window: list[Ready]) -> _Task:
        return cls(pool.submit(maker.make, window), _pixels(window))


def _pixels(window: Iterable[Ready]) -> int:
    return sum(ready.photo.height_px * ready.photo.width_px for ready in window)


def _make_room(
    waiting: deque[_Task | Failed | Exists], window: list[Ready], workers: int, maker: Maker, given_up: set[str]
) -> Iterator[Event]:
    """Tells what is done until the next photos may start: bounded in number and in pixels."""
    while True:
        tasks = [each for each in waiting if isinstance(each, _Task)]
        fits = sum(task.pixels for task in tasks) + _pixels(window) <= MOST_PIXELS
        if not tasks or (len(tasks) <= workers and fits):
            return
        yield from _told(waiting.popleft(), maker, given_up)


def _told(each: _Task | Failed | Exists, maker: Maker, given_up: set[str]) -> Iterator[Event]:
    if not isinstance(each, _Task):
        yield each
        return
    for event, data in each.future.result():
        if isinstance(event, Failed):
            if event.source in given_up:
                continue
            given_up.add(event.source)
        if data is not None:
            maker.pass_on(data)
        yield event


def _left(waiting: Iterable[_Task | Failed | Exists], maker: Maker, given_up: set[str]) -> Iterator[Event]:
    """What is to be told where the work ends early: failures found while reading, and results that are written."""
    for each in waiting:
        if isinstance(each, _Task):
            if each.future.cancelled() or each.future.exception() is not None:
                continue
            yield from _told(each, maker, given_up)
        else:
            yield each


@contextmanager
def ahead(items: Iterator[T], most: int = 1) -> Iterator[Iterator[T]]:
    """Items that a thread of its own takes while the caller works; it is over when the context is left.

    Args:
        items: what to take.
        most: items that wait to be used, beside the one that the thread is at.
    """
    waiting: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(most)
    over = threading.Event()

    def put(item: tuple[bool, T | BaseException | None]) -> None:
        while not over.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def take() -> None:
        try:
            for item in items:
                put((True, item))
                if over.is_set():
                    return
            put((False, None))
        except BaseException as error:  # noqa: BLE001 - raised again where the items are used
            put((False, error))

    def use() -> Iterator[T]:
        while True:
            more, item = waiting.get()
            if not more:
                if isinstance(item, BaseException):
                    raise item
                return
            yield item  # type: ignore[misc]

    thread = threading.Thread(target=take, name="read-ahead", daemon=True)
    thread.start()
    try:
        yield use()
    finally:
        over.set()
        thread.join()
