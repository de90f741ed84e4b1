"""Photos as they arrive in a folder, each once it is complete."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from chromatune.jobs.archive import Listed

POLL_SECONDS = 2.0
LOOKING_SHARE = 0.1  # of the time, at most: a large folder on a slow drive takes long to look through


def arrivals(
    find: Callable[[], Mapping[str, Listed]], pause: Callable[[float], None] = time.sleep
) -> Iterator[dict[str, Listed]]:
    """What is new or changed and has stayed as it is from one look to the next, at least two seconds later; for ever.

    Args:
        find: looks once.
        pause: waits for so many seconds.
    """
    before: Mapping[str, Listed] = {}
    given: dict[str, Listed] = {}
    while True:
        start = time.monotonic()
        now = dict(find())
        took = time.monotonic() - start
        settled = {key: each for key, each in now.items() if before.get(key) == each and given.get(key) != each}
        given |= settled
        before = now
        yield settled
        pause(max(POLL_SECONDS, took / LOOKING_SHARE))
