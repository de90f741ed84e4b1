"""Threads with a bounded queue: no more than may wait, and no slot lost whatever happens to who waits."""

from __future__ import annotations

import asyncio
import threading

import pytest

from chromatune.serving.bounded_pool import BoundedPool
from chromatune.serving.predictor import QueueFull


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0.005)


def test_more_than_may_wait_are_sent_away():
    async def scenario() -> None:
        pool, go = BoundedPool(1, 1, "test"), threading.Event()
        running = [asyncio.create_task(pool.run(go.wait)) for _ in range(2)]
        await settle()
        assert pool.in_use == 2
        with pytest.raises(QueueFull):
            await pool.run(go.wait)
        go.set()
        assert await asyncio.gather(*running) == [True, True]
        await settle()
        assert pool.in_use == 0
        pool.stop()

    asyncio.run(scenario())


def test_who_is_patient_gets_the_next_slot_before_anybody_who_comes_later():
    async def scenario() -> None:
        pool, go, on = BoundedPool(1, 0, "test"), threading.Event(), threading.Event()
        first = asyncio.create_task(pool.run(go.wait))
        await settle()
        patient = asyncio.create_task(pool.run(on.wait, wait_for_slot=True))
        await settle()
        go.set()
        await first
        with pytest.raises(QueueFull):  # its slot has gone on to the patient one
            await pool.run(lambda: None)
        on.set()
        assert await patient
        pool.stop()

    asyncio.run(scenario())


def test_who_goes_away_before_its_turn_frees_the_slot_at_once_and_while_it_runs_at_its_end():
    async def scenario() -> None:
        pool, go, ran = BoundedPool(1, 2, "test"), threading.Event(), []
        running = asyncio.create_task(pool.run(go.wait))
        await settle()
        waiting = asyncio.create_task(pool.run(lambda: ran.append(1)))
        await settle()
        waiting.cancel()
        running.cancel()
        await settle()
        assert pool.in_use == 1  # the thread still works
        go.set()
        await settle()
        assert (pool.in_use, ran) == (0, [])
        pool.stop()

    asyncio.run(scenario())


def test_a_patient_one_that_goes_away_leaves_no_slot_behind():
    async def scenario() -> None:
        pool, go = BoundedPool(1, 0, "test"), threading.Event()
        running = asyncio.create_task(pool.run(go.wait))
        await settle()
        gone, stays = (asyncio.create_task(pool.run(lambda: 5, wait_for_slot=True)) for _ in range(2))
        await settle()
        gone.cancel()
        go.set()
        assert await stays == 5
        await running
        await settle()
        assert pool.in_use == 0
        pool.stop()
        with pytest.raises(QueueFull):
            await pool.run(lambda: 5)
        assert pool.in_use == 0

    asyncio.run(scenario())


def test_a_patient_one_that_goes_away_just_as_it_is_given_a_slot():
    async def scenario() -> None:
        pool, go = BoundedPool(1, 0, "test"), threading.Event()
        running = asyncio.create_task(pool.run(go.wait))
        await settle()
        patient = asyncio.create_task(pool.run(lambda: 5, wait_for_slot=True))
        await settle()
        pool._release()  # the slot is given, and before the task hears of it, it is cancelled
        patient.cancel()
        await settle()
        assert pool.in_use == 0
        go.set()
        await running
        pool.stop()

    asyncio.run(scenario())
