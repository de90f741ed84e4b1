"""The engine under all jobs: how many tasks at once, in what order, and what is left where it ends early."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial

import pytest

from chromatune.jobs.engine import ResourceLimiter, Task, run_tasks


def tasks(numbers: range, taken: list[int]) -> Iterator[Task[int]]:
    for number in numbers:
        taken.append(number)
        yield Task(partial(int, number), pixels=number)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order_and_tasks_as_there_is_room(workers: int) -> None:
    taken: list[int] = []
    results = run_tasks(tasks(range(20), taken), workers=workers, most_tasks=2, in_order=True)
    assert next(results) == 0
    assert len(taken) == 3  # two in work, one that waits for room
    assert list(results) == list(range(1, 20))


def test_without_an_order_no_result_waits_for_another() -> None:
    first_may_end = threading.Event()

    def slow() -> int:
        first_may_end.wait(60)
        return 0

    results = run_tasks([Task(slow), Task(lambda: 1)], workers=2, most_tasks=2, in_order=False)
    assert next(results) == 1
    first_may_end.set()
    assert list(results) == [0]


def test_pixels_bound_tasks_and_a_larger_one_goes_alone() -> None:
    taken: list[int] = []
    results = run_tasks(tasks(range(4, 8), taken), workers=4, most_tasks=9, in_order=True, most_pixels=10)
    assert next(results) == 4
    assert taken == [4, 5, 6]  # 4 and 5 fit; 6 waits
    assert list(results) == [5, 6, 7]


def test_known_results_keep_their_place_and_take_no_room() -> None:
    known = [Task.known(number) for number in range(3)]
    each = [Task(lambda: 10), *known, Task(lambda: 11)]
    assert list(run_tasks(each, workers=1, most_tasks=1, in_order=True)) == [10, 0, 1, 2, 11]


@pytest.mark.parametrize("in_order", [True, False])
def test_where_it_is_stopped_what_is_in_work_is_finished_and_nothing_is_begun(monkeypatch, in_order: bool) -> None:
    """An exception is thrown in while a result is used: that one comes again, and those in work."""
    begun, may_end, cancel = [threading.Event() for _ in range(4)], threading.Event(), Future.cancel

    def work(number: int) -> int:
        begun[number].set()
        if number == 1:
            may_end.wait(60)
        return number

    def cancel_and_end(future: Future[int]) -> bool:
        cancelled = cancel(future)
        if cancelled:  # the one behind the one that is in work
            may_end.set()
        return cancelled

    monkeypatch.setattr(Future, "cancel", cancel_and_end)
    each = [Task(partial(work, number)) for number in range(4)]
    results = run_tasks(each, workers=1, most_tasks=3, in_order=in_order)
    assert next(results) == 0
    assert begun[1].wait(60)
    left = [results.throw(KeyboardInterrupt())]
    with pytest.raises(KeyboardInterrupt):
        left.extend(results)
    assert sorted(left) == [0, 1]
    assert not begun[2].is_set() and not begun[3].is_set()


def test_a_failure_comes_after_the_results_that_are_known() -> None:
    def fail() -> int:
        raise ValueError("none")

    results = run_tasks([Task(fail), Task(lambda: 1), Task.known(2)], workers=1, most_tasks=3, in_order=True)
    known = [next(results)]
    with pytest.raises(ValueError, match="none"):
        known.extend(results)
    assert known[-1] == 2


def test_a_large_photo_is_alone_in_memory() -> None:
    limiter, at_once, largest = ResourceLimiter(8, most_pixels=10), [0], [0]
    lock = threading.Lock()

    def work(pixels: int) -> None:
        with limiter.memory(pixels):
            with lock:
                at_once[0] += pixels
                largest[0] = max(largest[0], at_once[0])
                assert pixels <= 10 or at_once[0] == pixels
            time.sleep(0.001)  # so that others may come in, if they can
            with lock:
                at_once[0] -= pixels

    threads = [threading.Thread(target=work, args=(pixels,)) for pixels in (4, 4, 50, 3, 6, 50, 1, 9) * 3]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert at_once == [0]
    assert largest == [50]
