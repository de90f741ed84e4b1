"""An archive's jobs on a Ray cluster, or on a Ray of this machine: processes that each load the model once.

Jobs and records travel, some hundred bytes each and a thumbnail: a worker reads, colorizes and writes a photo whole.
The archive's table stays with the process that sends the jobs. Ray restarts a lost worker and sends its jobs again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from chromatune.cluster import joined
from chromatune.errors import ChromaTuneError, ModelError, count_of, printable
from chromatune.jobs.archive_worker import ArchiveJob, ArchiveRecord, ArchiveWorker, MakeWorker
from chromatune.jobs.engine import ResourceLimiter
from chromatune.pipeline import usual_workers

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

CONCURRENCY = 2  # photos in work in a worker: one is read or written while the other is computed
WAITING = 1  # photos that wait for each worker beside those
GRACE_S = 60.0  # for what is in work when the run ends early
RETRIES = 2  # of a photo whose worker was lost; it may have been another photo's fault


class _Worker:
    """An `ArchiveWorker` in a process of its own; errors are returned: raised, Ray would put a traceback in front."""

    def __init__(self, make_worker: MakeWorker, folder: str) -> None:
        """Load nothing yet; paths may be relative to `folder`, that of the process that sends the jobs."""
        with suppress(OSError):  # of another machine, which needs it only where paths are relative
            os.chdir(folder)
        self._make_worker = make_worker
        self._worker: ArchiveWorker | None = None

    def load(self) -> ChromaTuneError | None:
        """Load the model; return the error where it cannot be loaded."""
        try:
            self._loaded()
        except ChromaTuneError as error:
            return error
        return None

    def colorize(self, job: ArchiveJob) -> ArchiveRecord:
        """Return the outcome of a job; see `ArchiveWorker.colorize`."""
        return self._loaded().colorize(job)

    def _loaded(self) -> ArchiveWorker:
        if self._worker is None:
            self._worker = self._make_worker(1, ResourceLimiter(1))
        return self._worker


class RayEngine:
    """Worker processes, each of which computes one photo while it reads or writes another; see `Engine`."""

    def __init__(
        self,
        make_worker: MakeWorker,
        workers: int | None = None,
        *,
        address: str | None = None,
        gpu: bool = False,
    ) -> None:
        """Start nothing before the first job.

        Args:
            make_worker: loads the model, in each worker process; it travels there.
            workers: processes; None for one a CPU of the cluster, or a GPU; of this machine up to 8.
            address: of a cluster, see `chromatune.cluster.joined`; None for this machine alone.
            gpu: each takes a GPU.
        """
        self._make_worker, self._count, self._address, self._gpu = make_worker, workers, address, gpu
        self._ends = ExitStack()
        self._workers: list[ActorHandle] = []
        self._starting: dict[ObjectRef, ActorHandle] = {}

    def records(self, jobs: Iterable[ArchiveJob]) -> Generator[ArchiveRecord, None, None]:
        sent = _SentJobs(self._started)
        suspects: list[ArchiveJob] = []  # their worker was lost, perhaps by another job of it
        try:
            for job in jobs:
                sent.send(job)
                if sent.is_full:
                    yield from sent.finished(suspects)
            while sent:
                yield from sent.finished(suspects)
            for job in suspects:  # alone, so that the job is known that a worker dies of
                lost: list[ArchiveJob] = []
                sent.send(job)
                yield from sent.finished(lost)
                if lost:
                    message = f"{count_of(RETRIES + 1, 'worker')} died on it, probably out of memory"
                    yield ArchiveRecord(
                        job.photo, "failed", f"{printable(job.photo)}: {message}; make the photo smaller"
                    )
        except KeyboardInterrupt:
            while sent:
                yield from sent.finished(suspects)
            raise
        finally:
            sent.wait()  # nobody is killed while writing

    def close(self) -> None:
        """End the workers, and Ray where this engine has started it."""
        self._workers, self._starting = [], {}  # Ray ends workers without a handle, after what is in work
        self._ends.close()

    def _started(self) -> list[ActorHandle]:
        """Return the workers whose model is loaded, at least one; a cluster may have room for the others later."""
        if not self._workers and not self._starting:
            self._start()
        if self._starting:
            import ray

            wait = 0 if self._workers else None
            for ref in ray.wait(list(self._starting), num_returns=1, timeout=wait)[0]:
                worker = self._starting.pop(ref)
                try:
                    error = ray.get(ref)
                except ray.exceptions.RayActorError:
                    error = ModelError(
                        "a worker died while loading the model, probably out of memory; give fewer --workers"
                    )
                if error is not None:
                    raise error
                self._workers.append(worker)
        return self._workers

    def _start(self) -> None:
        local = self._count or usual_workers()
        self._ends.enter_context(joined(self._address, cpus=local, gpus=local if self._gpu else 0))
        import ray

        kind = "GPU" if self._gpu else "CPU"
        count = self._count or (local if self._address is None else max(1, int(ray.cluster_resources().get(kind, 1))))
        actor = ray.remote(
            num_cpus=1, num_gpus=int(self._gpu), max_restarts=-1, max_task_retries=RETRIES, max_concurrency=CONCURRENCY
        )(_Worker)
        for _ in range(count):
            worker = actor.remote(self._make_worker, os.getcwd())
            self._starting[worker.load.remote()] = worker


class _SentJobs:
    """Jobs that are in work or wait for it, and which worker has each."""

    def __init__(self, workers: Callable[[], list[ActorHandle]]) -> None:
        self._workers = workers
        self._sent: dict[ObjectRef, tuple[ArchiveJob, ActorHandle]] = {}
        self._load: Counter[ActorHandle] = Counter()

    def __bool__(self) -> bool:
        return bool(self._sent)

    @property
    def is_full(self) -> bool:
        """Whether each worker has as many as may wait for it."""
        return len(self._sent) >= (CONCURRENCY + WAITING) * len(self._workers())

    def send(self, job: ArchiveJob) -> None:
        """Send a job to the worker that has the fewest."""
        worker = min(self._workers(), key=self._load.__getitem__)
        self._sent[worker.colorize.remote(job)] = job, worker
        self._load[worker] += 1

    def wait(self) -> None:
        """Wait until all are finished, for some time."""
        if self._sent:
            import ray

            ray.wait(list(self._sent), num_returns=len(self._sent), timeout=GRACE_S)

    def finished(self, lost: list[ArchiveJob]) -> Iterator[ArchiveRecord]:
        """Wait for at least one and yield its record; a job whose worker was lost for good goes to `lost`."""
        import ray

        done, _ = ray.wait(list(self._sent), num_returns=1)
        for ref in done:
            job, worker = self._sent[ref]
            try:
                record = ray.get(ref)
            except ray.exceptions.RayActorError:
                lost.append(job)
            else:
                yield record
            del self._sent[ref]  # after its use: Ctrl-C may come in between
            self._load[worker] -= 1
