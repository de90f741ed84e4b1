"""What clients come back for: bounded in number and age."""

from __future__ import annotations

import pytest

from chromatune.serving.shelf import GoneError, Shelf


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(most: int = 2) -> tuple[Shelf[str], Clock, list[str]]:
    clock, dropped = Clock(), []
    return Shelf[str](most, 1, "it is gone", dropped.append, clock), clock, dropped


def test_the_one_that_was_not_used_for_longest_is_let_go():
    shelf, _, dropped = make()
    first, second = shelf.add("first"), shelf.add("second")
    shelf.get(first)
    third = shelf.add("third")
    assert (shelf.get(first), shelf.get(third), dropped) == ("first", "third", ["second"])
    with pytest.raises(GoneError, match="it is gone"):
        shelf.get(second)


def test_what_is_old_is_let_go_and_use_makes_young():
    shelf, clock, dropped = make()
    first, second = shelf.add("first"), shelf.add("second")
    clock.now = 50
    shelf.get(first)
    clock.now = 100
    assert (shelf.get(first), dropped) == ("first", ["second"])
    with pytest.raises(GoneError):
        shelf.get(second)
    clock.now = 1000
    shelf.tidy()
    assert (len(shelf), dropped) == (0, ["second", "first"])


def test_ids_are_long_and_never_the_same():
    shelf, _, _ = make(1000)
    keys = {shelf.add("x") for _ in range(1000)}
    assert len(keys) == 1000 and min(map(len, keys)) >= 20


def test_taking_away():
    shelf, _, dropped = make()
    key = shelf.add("x")
    shelf.remove(key)
    with pytest.raises(GoneError):
        shelf.remove(key)
    shelf.add("y")
    shelf.clear()
    assert (dropped, len(shelf)) == (["x", "y"], 0)
