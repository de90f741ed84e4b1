"""Threads with a bounded queue: no more than may wait, and no slot lost whatever happens to who waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from chromatune.cancellation import Cancelled, check_cancelled
from chromatune.serving.bounded_pool import BoundedPool
from chromatune.serving.predictor import QueueFull


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.001)


def endless(began: threading.Event) -> None:
    """Work that has no end of its own."""
    began.set()
    while True:
        check_cancelled()


def test_more_than_may_wait_are_refused():
    async def scenario() -> None:
        pool, go = BoundedPool(1, 1, "test"), threading.Event()
        running = [asyncio.create_task(pool.run(go.wait)) for _ in range(2)]
        await until(lambda: pool.in_use == 2)
        with pytest.raises(QueueFull):
            await pool.run(go.wait)
        go.set()
        assert await asyncio.gather(*running) == [True, True]
        await until(lambda: pool.in_use == 0)
        pool.stop()

    asyncio.run(scenario())


def test_who_waits_for_a_slot_gets_the_next_one_before_anybody_who_comes_later():
    async def scenario() -> None:
        pool, go, on = BoundedPool(1, 0, "test"), threading.Event(), threading.Event()
        first = asyncio.create_task(pool.run(go.wait))
        await until(lambda: pool.in_use == 1)
        second = asyncio.create_task(pool.run(on.wait, wait_for_slot=True))
        await until(lambda: len(pool._waiters) == 1)
        go.set()
        await first
        with pytest.raises(QueueFull):  # its slot has gone on to the second
            await pool.run(lambda: None)
        on.set()
        assert await second
        pool.stop()

    asyncio.run(scenario())


def test_who_goes_away_before_its_turn_frees_the_slot_at_once_and_while_it_runs_at_its_end():
    async def scenario() -> None:
        pool, begun, go, ran = BoundedPool(1, 2, "test"), threading.Event(), threading.Event(), list[int]()

        def hold() -> bool:
            begun.set()
            return go.wait()

        running = asyncio.create_task(pool.run(hold))
        await until(begun.is_set)
        waiting = asyncio.create_task(pool.run(lambda: ran.append(1)))
        await until(lambda: pool.in_use == 2)
        waiting.cancel()
        running.cancel()
        await asyncio.wait([running, waiting])
        await until(lambda: pool.in_use == 1)
        assert running.cancelled() and pool.in_use == 1  # the thread still works
        go.set()
        await until(lambda: pool.in_use == 0)
        assert ran == []
        pool.stop()

    asyncio.run(scenario())


def test_one_that_waits_for_a_slot_and_goes_away_leaves_none_behind():
    async def scenario() -> None:
        pool, go = BoundedPool(1, 0, "test"), threading.Event()
        running = asyncio.create_task(pool.run(go.wait))
        await until(lambda: pool.in_use == 1)
        gone, stays = (asyncio.create_task(pool.run(lambda: 5, wait_for_slot=True)) for _ in range(2))
        await until(lambda: len(pool._waiters) == 2)
        gone.cancel()
        go.set()
        assert await stays == 5
        await running
        await until(lambda: pool.in_use == 0)
        pool.stop()
        with pytest.raises(QueueFull):
            await pool.run(lambda: 5)
        assert pool.in_use == 0

    asyncio.run(scenario())


def test_one_that_goes_away_just_as_it_is_given_a_slot():
    async def scenario() -> None:
        pool, go = BoundedPool(1, 0, "test"), threading.Event()
        running = asyncio.create_task(pool.run(go.wait))
        await until(lambda: pool.in_use == 1)
        waiting = asyncio.create_task(pool.run(lambda: 5, wait_for_slot=True))
        await until(lambda: len(pool._waiters) == 1)
        pool._release()  # the slot is given, and before the task hears of it, it is cancelled
        waiting.cancel()
        await asyncio.wait([waiting])
        assert pool.in_use == 0
        go.set()
        await running
        pool.stop()

    asyncio.run(scenario())


def test_a_task_that_nobody_waits_for_stops_and_frees_its_slot():
    async def scenario() -> None:
        pool, began = BoundedPool(1, 0, "test"), threading.Event()
        task = asyncio.create_task(pool.run(lambda: endless(began)))
        await until(began.is_set)
        task.cancel()
        await until(lambda: pool.in_use == 0)
        assert await pool.run(lambda: "next") == "next"
        pool.stop()

    asyncio.run(scenario())


def test_stopped_it_ends_what_is_in_progress():
    async def scenario() -> None:
        pool, began = BoundedPool(1, 0, "test"), threading.Event()
        task = asyncio.create_task(pool.run(lambda: endless(began)))
        await until(began.is_set)
        await asyncio.to_thread(pool.stop)
        with pytest.raises(Cancelled):
            await task

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "said", ["std::bad_alloc", "Failed to allocate memory for requested buffer", "Insufficient memory"]
)
def test_an_allocation_that_failed_in_a_library_is_a_lack_of_memory(said):
    async def scenario() -> None:
        pool = BoundedPool(1, 0, "test")

        def work(line: str) -> None:
            raise RuntimeError(line)

        with pytest.raises(MemoryError):
            await pool.run(lambda: work(said))
        with pytest.raises(RuntimeError, match="something else"):
            await pool.run(lambda: work("something else"))
        pool.stop()

    asyncio.run(scenario())
