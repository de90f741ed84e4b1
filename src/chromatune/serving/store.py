"""State between requests: sessions, bounded in number and age, and uploaded files."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Generic, TypeVar

from fastapi import HTTPException, UploadFile

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
    ) -> None:
        """Create an empty store.

        Args:
            capacity: most entries at a time.
            minutes: how long an entry stays after its last use.
            missing: line for the client where an id is unknown or expired.
            on_remove: called with each entry that is removed.
            clock: seconds.
        """
        self.capacity = capacity
        self._seconds, self._missing, self._on_remove, self._clock = minutes * 60, missing, on_remove, clock
        self._entries: dict[str, tuple[T, float]] = {}  # the last used one at the end

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: T) -> str:
        """Store an entry, in place of the least recently used one where the store is full, and return its id."""
        self.remove_expired()
        while len(self._entries) >= self.capacity:
            self.remove(next(iter(self._entries)))
        key = secrets.token_urlsafe(16)
        self._entries[key] = (entry, self._clock())
        return key

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
        """Remove entries that were not used for too long."""
        now = self._clock()
        for key in [key for key, (_, used) in self._entries.items() if now - used > self._seconds]:
            self.remove(key)

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


def write_uploads(uploads: Sequence[UploadFile], paths: Sequence[Path]) -> None:
    """Copy uploads to files."""
    for upload, path in zip(uploads, paths, strict=True):
        with path.open("wb") as target:
            shutil.copyfileobj(upload.file, target)
