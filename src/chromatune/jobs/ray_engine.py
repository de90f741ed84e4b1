"""An archive's jobs on a Ray cluster, or on a Ray of this machine: processes that each load the model once.

What travels is jobs and records, some hundred bytes each, and no pixels: a worker reads, colorizes and writes a photo
whole. What is known of the archive is kept here alone. Ray starts a lost worker again and gives it its jobs again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from chromatune.cluster import joined
from chromatune.errors import ChromaTuneError, ModelError, count_of, printable
from chromatune.jobs.archive_worker import ArchiveJob, ArchiveRecord, ArchiveWorker
from chromatune.jobs.local_engine import MakeWorker, SharedRoom
from chromatune.pipeline import usual_workers

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

AT_ONCE = 2  # photos in work in a worker: one is read or written while the other is computed
WAITING = 1  # photos that wait for each worker beside those
GRACE_S = 60.0  # for what is in work when nobody wants it any more
RETRIES = 2  # of a photo whose worker was lost; it may have been another photo's fault


class _Worker:
    """What runs in a process of its own; its methods give errors back: raised, Ray would put a traceback in front."""

    def __init__(self, make_worker: MakeWorker, folder: str) -> None:
        """Loads nothing yet.

        Args:
            make_worker: loads the model.
            folder: of the process that gives out the jobs: paths of photos may be relative to it.
        """
        with suppress(OSError):  # of another machine, which needs it only where paths are relative
            os.chdir(folder)
        self._make_worker = make_worker
        self._worker: ArchiveWorker | None = None

    def load(self) -> ChromaTuneError | None:
        """Loads the model; the error where it cannot be loaded."""
        try:
            self._opened()
        except ChromaTuneError as error:
            return error
        return None

    def take(self, job: ArchiveJob) -> ArchiveRecord:
        """What became of a photo; see `ArchiveWorker.take`."""
        return self._opened().take(job)

    def _opened(self) -> ArchiveWorker:
        if self._worker is None:
            self._worker = self._make_worker(1, SharedRoom(1))
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
        """Starts nothing before the first job.

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

    def records(self, jobs: Iterable[ArchiveJob]) -> Iterator[ArchiveRecord]:
        """What becomes of the jobs; see `Engine.records`.

        Raises:
            ModelError, MissingExtraError, OptionsError: Ray cannot be joined, or the model cannot be loaded.
        """
        flight = _Flight(self._started)
        suspects: list[ArchiveJob] = []
        try:
            for job in jobs:
                flight.send(job)
                if flight.is_full:
                    yield from flight.landed(suspects)
            while flight:
                yield from flight.landed(suspects)
            for job in suspects:  # alone: one of them may have taken the others' worker along
                lost: list[ArchiveJob] = []
                flight.send(job)
                yield from flight.landed(lost)
                yield from map(_lost, lost)
        except KeyboardInterrupt:
            while flight:
                yield from flight.landed(suspects)
            raise
        finally:
            flight.wait()  # nobody is killed while writing

    def close(self) -> None:
        """Ends the workers, and Ray where it was started here."""
        self._workers, self._starting = [], {}  # Ray ends whom nobody holds, after what is in work
        self._ends.close()

    def _started(self) -> list[ActorHandle]:
        """The workers whose model is loaded, at least one; a cluster may give the others their place later."""
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
                        "a worker died while it loaded the model, of too little memory, perhaps; start fewer"
                    )
                if error is not None:
                    raise error
                self._workers.append(worker)
        return self._workers

    def _start(self) -> None:
        here = self._count or usual_workers()
        self._ends.enter_context(joined(self._address, cpus=here, gpus=here if self._gpu else 0))
        import ray

        kind = "GPU" if self._gpu else "CPU"
        count = self._count or (here if self._address is None else max(1, int(ray.cluster_resources().get(kind, 1))))
        actor = ray.remote(
            num_cpus=1, num_gpus=int(self._gpu), max_restarts=-1, max_task_retries=RETRIES, max_concurrency=AT_ONCE
        )(_Worker)
        for _ in range(count):
            worker = actor.remote(self._make_worker, os.getcwd())
            self._starting[worker.load.remote()] = worker


class _Flight:
    """Jobs that are out, and which worker has each."""

    def __init__(self, workers: Callable[[], list[ActorHandle]]) -> None:
        self._workers = workers
        self._out: dict[ObjectRef, tuple[ArchiveJob, ActorHandle]] = {}
        self._load: Counter[ActorHandle] = Counter()

    def __bool__(self) -> bool:
        return bool(self._out)

    @property
    def is_full(self) -> bool:
        """Whether each worker has as many as may wait for it."""
        return len(self._out) >= (AT_ONCE + WAITING) * len(self._workers())

    def send(self, job: ArchiveJob) -> None:
        """Gives a job to the worker that has the fewest."""
        worker = min(self._workers(), key=self._load.__getitem__)
        self._out[worker.take.remote(job)] = job, worker
        self._load[worker] += 1

    def wait(self) -> None:
        """Waits until all have come, for some time."""
        if self._out:
            import ray

            ray.wait(list(self._out), num_returns=len(self._out), timeout=GRACE_S)

    def landed(self, lost: list[ArchiveJob]) -> Iterator[ArchiveRecord]:
        """Waits for at least one; the records of what has come, and to `lost` the jobs whose worker never came back."""
        import ray

        done, _ = ray.wait(list(self._out), num_returns=1)
        for ref in done:
            job, worker = self._out.pop(ref)
            self._load[worker] -= 1
            try:
                yield ray.get(ref)
            except ray.exceptions.RayActorError:
                lost.append(job)


def _lost(job: ArchiveJob) -> ArchiveRecord:
    tried = count_of(RETRIES + 1, "worker")
    return ArchiveRecord(
        job.photo,
        "failed",
        f"{printable(job.photo)}: {tried} died of it, of too little memory, perhaps; make it smaller",
    )
