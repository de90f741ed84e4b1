"""Work in threads that nobody waits for any more."""

import threading

import pytest

from chromatune.cancellation import Cancelled, cancellable, check_cancelled


def test_without_a_task_nothing_is_cancelled():
    check_cancelled()


def test_a_task_stops_at_its_next_check():
    event, steps = threading.Event(), []

    def work() -> None:
        for number in range(10):
            check_cancelled()
            steps.append(number)
            if number == 3:
                event.set()

    with pytest.raises(Cancelled):
        cancellable(work, event)()
    assert steps == [0, 1, 2, 3]
    check_cancelled()  # what the thread does next is not meant


def test_a_task_that_was_cancelled_before_its_turn_does_not_begin():
    event = threading.Event()
    event.set()
    with pytest.raises(Cancelled):
        cancellable(lambda: pytest.fail("it began"), event)()
