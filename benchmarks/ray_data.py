"""A pool of Ray actors against a Ray Data pipeline, over jobs that only sleep: what each adds to a job; as Markdown.

    python benchmarks/ray_data.py [--jobs 600] [--seconds 0.03] [--workers 2]

Each side has a Ray of its own, with 200 MB of shared memory; seconds include the start of its workers.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from typing import Any

from chromatune.cluster import joined


class Sleeper:
    """A worker of either side."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def work(self, job: dict[str, str]) -> dict[str, str]:
        """A record of a job."""
        time.sleep(self.seconds)
        return job

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Records of several jobs."""
        time.sleep(self.seconds * len(batch["photo"]))
        return batch


def pool_records(jobs: list[dict[str, str]], workers: int, seconds: float) -> Iterator[object]:
    """Records by actors, each of which has at most three jobs."""
    import ray

    actors = [ray.remote(num_cpus=1)(Sleeper).remote(seconds) for _ in range(workers)]
    out: dict[Any, Any] = {}
    load = dict.fromkeys(actors, 0)
    waiting = iter(jobs)
    while True:
        while len(out) < 3 * workers and (job := next(waiting, None)) is not None:
            actor = min(load, key=load.__getitem__)
            out[actor.work.remote(job)] = actor
            load[actor] += 1
        if not out:
            return
        for ref in ray.wait(list(out), num_returns=1)[0]:
            load[out.pop(ref)] -= 1
            yield ray.get(ref)


def data_records(jobs: list[dict[str, str]], workers: int, seconds: float, size: int) -> Iterator[object]:
    """Records by a pipeline with so many jobs a task."""
    import ray

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    pipeline = ray.data.from_items(jobs, override_num_blocks=max(1, len(jobs) // size))
    pool = ray.data.ActorPoolStrategy(size=workers)
    done = pipeline.map_batches(Sleeper, fn_constructor_args=(seconds,), batch_size=size, compute=pool, num_cpus=1)
    yield from done.iter_rows()


def main() -> None:
    """Measures both, prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=0.03)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    jobs = [{"photo": f"box/{number:05d}.jpg"} for number in range(given.jobs)]
    print(f"{given.jobs * given.seconds / given.workers:.1f} s at best\n")
    print("| engine | seconds | first record after, s |\n| --- | ---: | ---: |")
    for name, size in (("pool of actors", 0), ("Ray Data, 16 a task", 16), ("Ray Data, 1 a task", 1)):
        with joined(None, cpus=given.workers):
            start, first, count = time.perf_counter(), 0.0, 0
            arguments = jobs, given.workers, given.seconds
            for _ in data_records(*arguments, size) if size else pool_records(*arguments):
                first = first or time.perf_counter() - start
                count += 1
            assert count == len(jobs)
            print(f"| {name} | {time.perf_counter() - start:.1f} | {first:.1f} |", flush=True)


if __name__ == "__main__":
    main()
