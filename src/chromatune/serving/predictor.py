"""What stands behind the app: photos as bytes in, colored files as bytes out, by this process or any other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from chromatune.errors import ChromaTuneError
from chromatune.hints import Hints
from chromatune.options import ColorizeOptions

Facts: TypeAlias = dict[str, str | int | float | list[str]]


@dataclass(frozen=True, eq=False)
class Work:
    """One photo to colorize.

    Attributes:
        photo: a file's bytes.
        name: what the photo is called in messages and answers.
        model: one of those on offer.
        options: how.
        hints: what is known of its colors.
        references: name and file's bytes of photos in color that show the same things.
        max_pixels: larger photos are refused.
    """

    photo: bytes
    name: str
    model: str
    options: ColorizeOptions = ColorizeOptions()
    hints: Hints = Hints()
    references: tuple[tuple[str, bytes], ...] = ()
    max_pixels: int = 60_000_000


@dataclass(frozen=True, eq=False)
class Answer:
    """A colored photo as a file, and what it was made with.

    Attributes:
        data: the file.
        suffix: of its format, such as ".jpg".
        facts: model, runtime, prompt, seed, steps, size, warnings: for headers and JSON.
    """

    data: bytes
    suffix: str
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Change:
    """What is wanted of a photo that has been through the model.

    Attributes:
        version: which pass, see `Kept.add`; None for the last one.
        hints: what is known of its colors.
        strength: amount of color, 0..1; None for what the pass was asked with, as with the next three.
        vivid: how vivid, 0..2.
        hint_reach: how far hints act.
        hint_strength: how much of their correction is made.
    """

    version: int | None = None
    hints: Hints = Hints()
    strength: float | None = None
    vivid: float | None = None
    hint_reach: float | None = None
    hint_strength: float | None = None


@dataclass(frozen=True)
class State:
    """Whether a predictor takes work, and why not."""

    name: Literal["loading", "ready", "failed"]
    reason: str = ""


class QueueFull(Exception):
    """There are as many photos waiting as may; try again after some seconds."""


class Unavailable(ChromaTuneError):
    """What computes is not there at the moment; the same request may succeed in some seconds."""


class Kept(Protocol):
    """A photo that has been through the model, for changes that cost no pass."""

    @property
    def version(self) -> int:
        """Number of the first pass."""

    @property
    def facts(self) -> Facts:
        """Name and size of the photo, and what its first pass was made with."""

    async def add(self, model: str, options: ColorizeOptions) -> tuple[int, Facts]:
        """Takes the photo through a model again: the new version's number and facts; the oldest may be let go.

        Raises:
            ModelError: the model cannot be used.
            QueueFull: too many photos wait.
        """

    async def preview(self, change: Change, max_pixels: int) -> Answer:
        """The photo in color for a screen, made smaller where it has more pixels: JPEG, or PNG with transparency.

        Raises:
            PhotoError: the hints do not fit the photo.
            OptionsError: there is no such version, or it has no luminance of the photo's own to put hints on.
            QueueFull: too many wait.
        """

    async def finish(self, change: Change) -> Answer:
        """The file at full size, the same as `Predictor.colorize` gives for all options together; see `preview`."""

    async def suggestions(self, x: float, y: float, version: int | None) -> list[str]:
        """Colors for a point, distinct, the most plausible first, as #rrggbb.

        Args:
            x: in pixels of the photo as it is shown.
            y: the same, downward.
            version: whose own color comes first.

        Raises:
            PhotoError: the point lies outside.
            OptionsError: there is no such version.
            QueueFull: too many wait.
        """


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

    def tidy(self) -> None:
        """Frees what was not used for a while; it is called in a thread, twice a minute."""

    def stop(self) -> None:
        """Finishes what is in work and frees all."""

    async def colorize(self, work: Work, *, patient: bool = False) -> Answer:
        """The colored photo; being cancelled frees its slot in the queue.

        Args:
            work: what to do.
            patient: waits for a slot where the queue is full.

        Raises:
            PhotoError: the photo cannot be read, or hints do not fit it.
            OptionsError: the model is not on offer, or options contradict each other.
            ModelError: the model cannot be used.
            QueueFull: too many photos wait, and it is not patient.
        """

    async def keep(self, work: Work) -> Kept:
        """The photo, read and taken through the model, for changes; `work.hints` are not used.

        Raises:
            PhotoError: as for `colorize`, and so on.
        """
