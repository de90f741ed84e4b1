"""Results that are made ahead of their use."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from chromatune.files import prefetch


def numbers(count: int, taken: list[int]) -> Iterator[int]:
    for number in range(count):
        taken.append(number)
        yield number


def test_results_come_in_order_and_only_a_few_ahead() -> None:
    taken: list[int] = []
    with ThreadPoolExecutor(2) as threads:
        results = prefetch(threads, lambda number: number * 2, numbers(9, taken), depth=2)
        assert taken == []
        assert next(results) == 0
        assert taken == [0, 1, 2]
        assert list(results) == list(range(2, 18, 2))


def test_a_failure_comes_in_its_place() -> None:
    with ThreadPoolExecutor(1) as threads:
        results = prefetch(threads, lambda number: 6 // number, [1, 2, 0, 3], depth=9)
        assert [next(results), next(results)] == [6, 3]
        with pytest.raises(ZeroDivisionError):
            next(results)
