"""The interface between the app and a predictor: photos as bytes in, colored files as bytes out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from chromatune.errors import ChromaTuneError
from chromatune.hints import Hints
from chromatune.options import ColorizeOptions, OwnColorChoice, ResolvedOptions
from chromatune.pipeline import ModelInfo

Facts: TypeAlias = dict[str, str | int | float | list[str]]
Content: TypeAlias = bytes | Path  # of an upload: its bytes, or the file that has them


@dataclass(frozen=True, eq=False)
class ColorizeRequest:
    """One photo to colorize.

    Attributes:
        photo: a file of any supported format.
        name: the photo's name in messages and answers.
        model: one of those offered.
        options: of the model's pass and of the result.
        hints: known colors as JSON, see `Hints.from_json`; they lie above the layer.
        hints_layer: name and file of hints painted on a transparent picture.
        references: name and file of photos in color that show the same things.
        finished: name and file of a finished picture of the photo, whose colors it gets; an empty `model` is then none.
        max_pixels: larger photos are refused.
    """

    photo: Content
    name: str
    model: str
    options: ColorizeOptions = ColorizeOptions()
    hints: str = ""
    hints_layer: tuple[str, Content] | None = None
    references: tuple[tuple[str, Content], ...] = ()
    finished: tuple[str, Content] | None = None
    max_pixels: int = 60_000_000

    def in_memory(self) -> ColorizeRequest:
        """Return the request with its files' bytes, for another machine."""
        layer, finished = self.hints_layer, self.finished
        return dataclasses.replace(
            self,
            photo=bytes_of(self.photo),
            hints_layer=None if layer is None else (layer[0], bytes_of(layer[1])),
            finished=None if finished is None else (finished[0], bytes_of(finished[1])),
            references=self.references_in_memory(),
        )

    def references_in_memory(self) -> tuple[tuple[str, bytes], ...]:
        """Return name and bytes of each reference."""
        return tuple((name, bytes_of(content)) for name, content in self.references)


def bytes_of(content: Content) -> bytes:
    """Return the bytes of an upload."""
    return content.read_bytes() if isinstance(content, Path) else content


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """A colored photo as a file, and facts about it.

    Attributes:
        data: the file.
        suffix: of its format, such as ".jpg".
        facts: model, runtime, prompt, seed, variant, steps, size, warnings: for headers and JSON.
    """

    data: bytes
    suffix: str
    facts: Facts = field(default_factory=dict)


def _optional(name: str) -> Any:
    """Return a field of `ColorizeOptions`, with its limits and description, that may be left out."""
    return FieldInfo.merge_field_infos(ColorizeOptions.model_fields[name], default=None)


class EditRequest(BaseModel):
    """An edit of an open photo, without running the model again.

    Options that are None have the values of the version.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int | None = Field(default=None, description="Which version; the last one by default.")
    hints: Hints = Field(default=Hints(), description="Strokes, points and layers; see `Hints.to_json`.")
    strength: float | None = _optional("strength")
    vivid: float | None = _optional("vivid")
    own_color: OwnColorChoice | None = _optional("own_color")
    hint_reach: float | None = _optional("hint_reach")
    hint_strength: float | None = _optional("hint_strength")

    def applied_to(self, options: ResolvedOptions) -> ResolvedOptions:
        """Return the options of a pass, changed where this request says otherwise."""
        return dataclasses.replace(options, **self.model_dump(include=EDITABLE, exclude_none=True))


EDITABLE = EditRequest.model_fields.keys() & ColorizeOptions.model_fields.keys()


def edit_limits() -> dict[str, dict[str, float]]:
    """Return the smallest and the largest value of the numbers among the options that edits change."""
    properties = ColorizeOptions.model_json_schema()["properties"]
    schemas = {name: properties[name].get("anyOf", [properties[name]])[0] for name in sorted(EDITABLE)}
    ends = ("minimum", "maximum")
    return {name: {end: each[end] for end in ends} for name, each in schemas.items() if "minimum" in each}


@dataclass(frozen=True)
class State:
    """Whether a predictor accepts photos, and why not."""

    name: Literal["loading", "ready", "failed"]
    reason: str = ""


class QueueFull(Exception):
    """The queue is full; the same request may succeed in some seconds."""


class Unavailable(ChromaTuneError):
    """No replica answers at the moment; the same request may succeed in some seconds."""


class Session(Protocol):
    """An open photo: it has been through the model, and edits cost no further pass."""

    @property
    def version(self) -> int:
        """Number of the first pass."""

    @property
    def facts(self) -> Facts:
        """Name and size of the photo, and model and options of its first pass."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes between requests."""

    async def add_version(self, model: str, options: ColorizeOptions) -> tuple[int, Facts]:
        """Take the photo through a model again; of many versions the oldest is dropped.

        Returns:
            Number and facts of the new version.

        Raises:
            ModelError: the model cannot be used.
            QueueFull: too many photos wait.
        """

    async def add_finished(self, name: str, picture: bytes) -> tuple[int, Facts]:
        """Take the colors of a finished picture of the photo as a version, see `chromatune.recolor`.

        Args:
            name: of the picture, for messages.
            picture: its file.

        Returns:
            Number and facts of the new version.

        Raises:
            PhotoError: it cannot be read, is gray, or shows something else.
            QueueFull: too many photos wait.
        """

    async def confidence(self, version: int | None) -> EncodedImage:
        """Return a PNG that is transparent where a finished picture gives the colors of a version, black elsewhere.

        Raises:
            OptionsError: there is no such version, or its colors are a model's.
            QueueFull: too many wait.
        """

    async def original(self, max_pixels: int) -> EncodedImage:
        """Return the photo as it was, with its own colors, for a screen; size and format as `preview`.

        Raises:
            QueueFull: too many wait.
        """

    async def preview(self, edit: EditRequest, max_pixels: int) -> EncodedImage:
        """Return the photo for a screen, made smaller where it has more pixels: JPEG, or PNG with transparency.

        Raises:
            PhotoError: the hints do not fit the photo.
            OptionsError: there is no such version.
            QueueFull: too many wait.
        """

    async def finish(self, edit: EditRequest) -> EncodedImage:
        """Return the full-size file, the same as `Predictor.colorize` gives for all options; raises as `preview`."""

    async def suggestions(self, x: float, y: float, version: int | None) -> list[str]:
        """Return colors for a point, distinct, the most plausible first, as #rrggbb.

        Args:
            x: in pixels of the photo as it is shown.
            y: the same, downward.
            version: its own color is the first; None for the last version.

        Raises:
            PhotoError: the point lies outside.
            OptionsError: there is no such version.
            QueueFull: too many wait.
        """


class Predictor(Protocol):
    """Colorizes for the app; several coroutines call it at the same time."""

    @property
    def state(self) -> State:
        """Whether it accepts photos."""

    @property
    def waiting(self) -> int:
        """Number of photos that are in progress or wait."""

    @property
    def slots(self) -> int:
        """Number of photos that may be in progress or wait; more are refused."""

    def describe(self, model: str) -> ModelInfo | None:
        """Return what is known of a model offered, None where its files are not on this machine; called in a thread.

        Raises:
            ModelError: they are no model.
        """

    def start(self) -> None:
        """Begin to load the models; returns at once."""

    def free_idle(self) -> None:
        """Free memory that was not used for a while; called in a thread, twice a minute."""

    def stop(self) -> None:
        """Finish photos in progress and free everything."""

    async def colorize(self, request: ColorizeRequest, *, wait_for_slot: bool = False) -> EncodedImage:
        """Return the colored photo; being cancelled frees its slot in the queue.

        Args:
            request: the photo, and how.
            wait_for_slot: whether to wait for a slot where the queue is full.

        Raises:
            PhotoError: the photo cannot be read, or hints do not fit it.
            OptionsError: the model is not offered, or options contradict each other.
            ModelError: the model cannot be used.
            QueueFull: too many photos wait, and `wait_for_slot` is off.
        """

    async def open_session(self, request: ColorizeRequest) -> Session:
        """Read a photo and take it through the model, for edits; `request.hints` are not used.

        Raises:
            PhotoError, OptionsError, ModelError, QueueFull: as for `colorize`.
        """
