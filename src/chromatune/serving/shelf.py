"""Things that clients come back for, by an id that nobody guesses: bounded in number and age."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class GoneError(Exception):
    """There is nothing under an id, or not any more; `str(error)` is a line for the client."""


class Shelf(Generic[T]):
    """Things by id, the one that was used last at the end."""

    def __init__(
        self,
        most: int,
        minutes: float,
        line: str,
        drop: Callable[[T], None] = lambda thing: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """An empty shelf.

        Args:
            most: things on it.
            minutes: how long one stays after its last use.
            line: of the error where one is not there.
            drop: is called with what is taken away.
            clock: seconds.
        """
        self.most, self._seconds, self._line, self._drop, self._clock = most, minutes * 60, line, drop, clock
        self._things: dict[str, tuple[T, float]] = {}

    def __len__(self) -> int:
        return len(self._things)

    def add(self, thing: T) -> str:
        """The id under which it is kept; the one that was not used for longest is let go where there are too many."""
        self.tidy()
        while len(self._things) >= self.most:
            self.remove(next(iter(self._things)))
        key = secrets.token_urlsafe(16)
        self._things[key] = (thing, self._clock())
        return key

    def get(self, key: str) -> T:
        """The thing, whose age begins anew.

        Raises:
            GoneError: it is not there.
        """
        self.tidy()
        if key not in self._things:
            raise GoneError(self._line)
        thing, _ = self._things.pop(key)
        self._things[key] = (thing, self._clock())
        return thing

    def remove(self, key: str) -> None:
        """Takes a thing away.

        Raises:
            GoneError: it is not there.
        """
        if key not in self._things:
            raise GoneError(self._line)
        self._drop(self._things.pop(key)[0])

    def items(self) -> list[tuple[str, T]]:
        """Ids and things, the one that was used last at the end; their ages do not begin anew."""
        return [(key, thing) for key, (thing, _) in self._things.items()]

    def tidy(self) -> None:
        """Takes away what is too old."""
        now = self._clock()
        for key in [key for key, (_, used) in self._things.items() if now - used > self._seconds]:
            self.remove(key)

    def clear(self) -> None:
        """Takes everything away."""
        for key in list(self._things):
            self.remove(key)
