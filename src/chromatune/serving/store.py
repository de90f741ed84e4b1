"""State between requests: sessions, bounded in number and age, and uploaded files."""

from __future__ import annotations

import asyncio
import math
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from fastapi import HTTPException

from chromatune.serving.predictor import QueueFull

T = TypeVar("T")


class SessionStore(Generic[T]):
    """Entries under random ids, in order of their last use.

    A `cachetools.TTLCache` drops expired entries inside of any call without notice; this store passes each removed one,
    whatever the reason, to `on_remove`, because files and tasks belong to it.
    """

    def __init__(
        self,
        capacity: int,
        minutes: float,
        missing: str,
        on_remove: Callable[[T], None] = lambda entry: None,
        clock: Callable[[], float] = time.monotonic,
        *,
        full: str = "",
        is_busy: Callable[[T], bool] = lambda entry: False,
        size_of: Callable[[T], int] = lambda entry: 0,
        max_bytes: float = math.inf,
    ) -> None:
        """Create an empty store.

        Args:
            capacity: most entries at a time.
            minutes: how long an entry stays after its last use.
            missing: line for the client where an id is unknown or expired.
            on_remove: called with each entry that is removed.
            clock: seconds.
            full: line for the client where all entries are busy.
            is_busy: whether work on an entry is in progress: then it neither expires nor makes room.
            size_of: bytes of an entry.
            max_bytes: of all entries but the last used one; the least recently used make room.
        """
        self.capacity = capacity
        self._seconds, self._missing, self._on_remove, self._clock = minutes * 60, missing, on_remove, clock
        self._full, self._is_busy, self._size_of, self._max_bytes = full, is_busy, size_of, max_bytes
        self._entries: dict[str, tuple[T, float]] = {}  # the last used one at the end
        self._reserved = 0

    def __len__(self) -> int:
        return len(self._entries)

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Keep a place free for an entry that is added in the block.

        Raises:
            QueueFull: all places are reserved, or taken by busy entries.
        """
        self._make_room()
        self._reserved += 1
        try:
            yield
        finally:
            self._reserved -= 1

    def _make_room(self) -> None:
        """Remove the least recently used entries that are not busy, until there is a place.

        Raises:
            QueueFull: there is none.
        """
        self.remove_expired()
        while len(self._entries) + self._reserved >= self.capacity:
            idle = next((key for key, entry in self.items() if not self._is_busy(entry)), None)
            if idle is None:
                raise QueueFull(self._full)
            self.remove(idle)

    def add(self, entry: T) -> str:
        """Store an entry, outside of `reserved` in place of the least recently used one, and return its id.

        Raises:
            QueueFull: all places are taken by busy entries.
        """
        if not self._reserved:
            self._make_room()
        key = secrets.token_urlsafe(16)
        self._entries[key] = (entry, self._clock())
        self._remove_largest()
        return key

    def _remove_largest(self) -> None:
        """Remove the least recently used entries where all together are too large."""
        sizes = [(key, self._size_of(entry)) for key, entry in self.items()]
        total = sum(size for _, size in sizes)
        for key, size in sizes[:-1]:
            if total <= self._max_bytes:
                return
            self.remove(key)
            total -= size

    def get(self, key: str) -> T:
        """Return an entry and start its time anew.

        Raises:
            HTTPException: 404, there is none.
        """
        self.remove_expired()
        if key not in self._entries:
            raise HTTPException(404, self._missing)
        entry, _ = self._entries.pop(key)
        self._entries[key] = (entry, self._clock())
        return entry

    def remove(self, key: str) -> None:
        """Remove an entry.

        Raises:
            HTTPException: 404, there is none.
        """
        if key not in self._entries:
            raise HTTPException(404, self._missing)
        self._on_remove(self._entries.pop(key)[0])

    def items(self) -> list[tuple[str, T]]:
        """Return ids and entries, the least recently used first; does not count as their use."""
        return [(key, entry) for key, (entry, _) in self._entries.items()]

    def remove_expired(self) -> None:
        """Remove entries that were not used for too long, or where all together have become too large."""
        now = self._clock()
        old = [(key, entry) for key, (entry, used) in self._entries.items() if now - used > self._seconds]
        for key, entry in old:
            if not self._is_busy(entry):
                self.remove(key)
        self._remove_largest()

    def clear(self) -> None:
        """Remove all entries."""
        for key in list(self._entries):
            self.remove(key)


@asynccontextmanager
async def new_upload_folder() -> AsyncIterator[Path]:
    """Create a temporary folder; it is removed again where the context ends with an error."""
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="upload-"))
    try:
        yield folder
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, folder, True)
        raise
