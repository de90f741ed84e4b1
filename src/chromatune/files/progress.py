"""How long work tells how far it is: one spelling for every layer; what it looks like is the caller's."""

from __future__ import annotations

from collections.abc import Callable

Advance = Callable[[], None]  # called once a step
StartStage = Callable[[str, int], Advance]  # name of a stage and its number of steps ⇒ what to call once a step


def silent(name: str, length: int) -> Advance:
    """A `StartStage` that shows nothing."""
    return lambda: None
