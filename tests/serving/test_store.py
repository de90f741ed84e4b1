"""Sessions between requests: bounded in number and age."""

from __future__ import annotations

import pytest
from fastapi import HTTPException

from chromatune.serving.predictor import QueueFull
from chromatune.serving.store import SessionStore


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(capacity: int = 2) -> tuple[SessionStore[str], Clock, list[str]]:
    clock, removed = Clock(), list[str]()
    return SessionStore[str](capacity, 1, "it is gone", removed.append, clock), clock, removed


def test_the_least_recently_used_one_gives_way():
    store, _, removed = make()
    first, second = store.add("first"), store.add("second")
    store.get(first)
    third = store.add("third")
    assert (store.get(first), store.get(third), removed) == ("first", "third", ["second"])
    with pytest.raises(HTTPException, match="it is gone"):
        store.get(second)


def test_what_is_old_is_removed_and_use_starts_its_time_anew():
    store, clock, removed = make()
    first, second = store.add("first"), store.add("second")
    clock.now = 50
    store.get(first)
    clock.now = 100
    assert (store.get(first), removed) == ("first", ["second"])
    with pytest.raises(HTTPException):
        store.get(second)
    clock.now = 1000
    store.remove_expired()
    assert (len(store), removed) == (0, ["second", "first"])


def test_ids_are_long_and_never_the_same():
    store, _, _ = make(1000)
    keys = {store.add("x") for _ in range(1000)}
    assert len(keys) == 1000 and min(map(len, keys)) >= 20


def test_removing():
    store, _, removed = make()
    key = store.add("x")
    store.remove(key)
    with pytest.raises(HTTPException):
        store.remove(key)
    store.add("y")
    store.clear()
    assert (removed, len(store)) == (["x", "y"], 0)


def test_busy_entries_neither_expire_nor_make_room():
    clock, busy = Clock(), {"first"}
    store = SessionStore[str](2, 1, "gone", clock=clock, full="all busy", is_busy=busy.__contains__)
    first, second = store.add("first"), store.add("second")
    clock.now = 1000
    third = store.add("third")
    assert (store.get(first), store.get(third)) == ("first", "third")
    with pytest.raises(HTTPException):
        store.get(second)
    busy.add("third")
    with pytest.raises(QueueFull, match="all busy"):
        store.add("fourth")


def test_a_reserved_place_is_nobody_elses():
    store, _, removed = make(1)
    with store.reserved():
        with pytest.raises(QueueFull), store.reserved():
            pass
        key = store.add("mine")
    assert (store.get(key), removed) == ("mine", [])
    with store.reserved():  # where nothing comes, it is free again
        pass
    assert removed == ["mine"]
    store.add("next")


def test_together_entries_are_only_so_large():
    sizes, removed = {"a": 5, "b": 5, "huge": 100}, list[str]()
    store = SessionStore[str](10, 1, "gone", removed.append, Clock(), size_of=lambda each: sizes[each], max_bytes=12)
    store.add("a")
    store.add("b")
    assert removed == []
    store.add("huge")  # larger than all may be, and the only one then
    assert (removed, len(store)) == (["a", "b"], 1)
    sizes["huge"] = 1
    store.add("a")
    sizes["a"] = 20
    store.remove_expired()  # one has grown
    assert (removed, len(store)) == (["a", "b", "huge"], 1)
