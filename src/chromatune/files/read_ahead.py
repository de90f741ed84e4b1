"""Results that threads make ahead of their use: files are read while those before them are worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(
    executor: Executor, function: Callable[[Item], Result], items: Iterable[Item], depth: int
) -> Generator[Result]:
    """Yield `function(item)` for each item, in order, with at most `depth` results made ahead.

    An exception of the function is raised where its result would come. Where the generator ends early, or is closed,
    what has not begun is cancelled.
    """
    begun: deque[Future[Result]] = deque()
    try:
        for item in items:
            begun.append(executor.submit(function, item))
            if len(begun) > depth:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()
