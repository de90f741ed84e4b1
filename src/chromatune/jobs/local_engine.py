"""An archive's jobs on this machine: threads that share one model, bounded in memory and in computing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Protocol

from chromatune.jobs.archive_worker import ArchiveJob, ArchiveRecord, ArchiveWorker, Room
from chromatune.jobs.pipeline import MOST_PIXELS
from chromatune.pipeline import usual_workers

WAITING_JOBS = 2  # a worker, beside the one it is at: enough that none of them waits for the next


class Engine(Protocol):
    """What takes an archive's jobs through a model."""

    def records(self, jobs: Iterable[ArchiveJob]) -> Iterator[ArchiveRecord]:
        """What becomes of the jobs, in any order; jobs are taken as there is room for them.

        On a KeyboardInterrupt no further job is begun; what is in work is told, then it is raised again.
        """

    def close(self) -> None:
        """Lets go of the model."""


MakeWorker = Callable[[int, Room], ArchiveWorker]  # threads that compute at the same time, and what bounds them


class SharedRoom:
    """Memory and cores of one process, for all of its workers; who came first is served first."""

    def __init__(self, workers: int, most_pixels: int = MOST_PIXELS) -> None:
        self._most_pixels, self._pixels = most_pixels, 0
        self._changed = threading.Condition()
        self._turn = threading.Lock()  # a large photo would wait for ever where small ones pass it by
        self._cores = threading.Semaphore(workers)

    @contextmanager
    def for_photo(self, pixels: int) -> Iterator[None]:
        """Waits until a photo fits beside those in memory; one that is too large for that, until there are none."""
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
    def for_computing(self) -> Iterator[None]:
        """Waits until a core is free."""
        with self._cores:
            yield


class LocalEngine:
    """As many photos computed at the same time as there are workers, while others are read and written."""

    def __init__(self, make_worker: MakeWorker, workers: int | None = None) -> None:
        """Nothing is loaded before the first job.

        Args:
            make_worker: loads the model.
            workers: photos computed at the same time; None for one a core, up to 8.
        """
        self._make_worker = make_worker
        self._workers = workers or usual_workers()
        self._worker: ArchiveWorker | None = None

    def records(self, jobs: Iterable[ArchiveJob]) -> Iterator[ArchiveRecord]:
        """What becomes of the jobs; see `Engine.records`.

        Raises:
            ModelError, MissingExtraError, OptionsError: the model cannot be loaded.
        """
        pending: set[Future[ArchiveRecord]] = set()
        pool = ThreadPoolExecutor(self._workers + 1, "archive")  # one more: it reads or writes while the others compute
        try:
            for job in jobs:
                if self._worker is None:
                    self._worker = self._make_worker(self._workers, SharedRoom(self._workers))
                pending.add(pool.submit(self._worker.take, job))
                if len(pending) > WAITING_JOBS * (self._workers + 1):
                    yield from _finished(pending)
            while pending:
                yield from _finished(pending)
        except KeyboardInterrupt:
            pending = {each for each in pending if not each.cancel()}
            while pending:
                yield from _finished(pending)
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """Lets go of the model."""
        self._worker = None


def _finished(pending: set[Future[ArchiveRecord]]) -> list[ArchiveRecord]:
    """Waits for at least one, and takes what is finished out."""
    done = wait(pending, return_when=FIRST_COMPLETED).done
    pending -= done
    return [each.result() for each in done]
