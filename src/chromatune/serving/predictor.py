"""What stands behind the app: photos as bytes in, coloured files as bytes out, by this process or any other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from chromatune.options import ColorizeOptions


@dataclass(frozen=True)
class Work:
    """One photo to colorize.

    Attributes:
        photo: a file's bytes.
        name: what the photo is called in messages and answers.
        model: one of those on offer.
        options: how.
        max_pixels: larger photos are refused.
    """

    photo: bytes
    name: str
    model: str
    options: ColorizeOptions = field(default_factory=ColorizeOptions)
    max_pixels: int = 60_000_000


@dataclass(frozen=True)
class Answer:
    """A coloured photo as a file, and what it was made with.

    Attributes:
        data: the file.
        suffix: of its format, such as ".jpg".
        facts: model, runtime, prompt, seed, steps, size, warnings: for headers and JSON.
    """

    data: bytes
    suffix: str
    facts: dict[str, str | int | float | list[str]]


@dataclass(frozen=True)
class State:
    """Whether a predictor takes work: "loading", "ready" or "failed", and why."""

    name: str
    reason: str = ""


class QueueFull(Exception):
    """There are as many photos waiting as may; try again after some seconds."""


class Predictor(Protocol):
    """Colorizes for the app; several coroutines call it at the same time."""

    @property
    def state(self) -> State:
        """Whether it takes work."""

    @property
    def waiting(self) -> int:
        """Photos that are in work or wait for it."""

    def start(self) -> None:
        """Begins to load the models; returns at once."""

    def stop(self) -> None:
        """Finishes what is in work and frees all."""

    async def colorize(self, work: Work, *, patient: bool = False) -> Answer:
        """The coloured photo; being cancelled frees the place in the queue.

        Args:
            work: what to do.
            patient: waits for a place where the queue is full.

        Raises:
            PhotoError: the photo cannot be read.
            ModelError: the model cannot be used.
            QueueFull: too many photos wait, and it is not patient.
        """
