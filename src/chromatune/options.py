"""Frozen, validated settings, one definition for Python, the command line and HTTP; and how progress is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chromatune.errors import OptionsError, shown

OwnColorChoice = Literal["auto", "replace", "keep", "blend"]
SEEDS = 2**63  # numbers that a seed can have
MOST_VARIANTS = 1000  # of one seed
Advance = Callable[[], None]  # called once a step
StartStage = Callable[[str, int], Advance]  # name of a stage and its number of steps ⇒ what to call once a step


def silent(name: str, length: int) -> Advance:
    """Show no progress: the `StartStage` that long functions have by default."""
    return lambda: None


@dataclass(frozen=True)
class Flag:
    """How a field of settings is typed on the command line, where its own name and type do not say it.

    Attributes:
        name: such as "--size"; by default the field's own name.
        metavar: what stands for the value in help, such as "DIR"; by default its type.
        unset: help's words for a default of None or ().
        always: spelled in the command that is written down also where it is the default: it decides the numbers.
    """

    name: str | None = None
    metavar: str | None = None
    unset: str | None = None
    always: bool = False


MODELS_OWN = Flag(unset="model's own")


class ColorizeOptions(BaseModel):
    """How to colorize one photo. `None` means the model's own default, kept beside its weights.

    Raises (through `make_options`):
        OptionsError: a value is out of range or of the wrong type.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Annotated[str | None, MODELS_OWN] = Field(
        default=None, max_length=1000, description="Instruction to the model, in plain words."
    )
    negative_prompt: str = Field(default="", max_length=1000, description="What the result should move away from.")
    steps: Annotated[int | None, MODELS_OWN] = Field(
        default=None, ge=1, le=1000, description="Sampling steps of the model."
    )
    seed: int = Field(default=0, ge=0, lt=SEEDS, description="Same seed, variant, photo and model: same pixels.")
    variant: int = Field(
        default=1,
        ge=1,
        le=MOST_VARIANTS,
        description="1 is the model's own colors; every other number colors some regions differently.",
    )
    guidance_scale: Annotated[float | None, MODELS_OWN] = Field(
        default=None, ge=0.0, le=50.0, description="Weight of the prompt; 1 turns text guidance off."
    )
    image_guidance_scale: Annotated[float | None, MODELS_OWN] = Field(
        default=None, ge=0.0, le=50.0, description="Weight of the photo; 1 turns image guidance off."
    )
    strength: float = Field(
        default=1.0, ge=0.0, le=1.0, description="Amount of color: 0 is gray, 1 as the model gives it."
    )
    vivid: Annotated[float | None, MODELS_OWN] = Field(
        default=None,
        ge=0.0,
        le=2.0,
        description="How much to boost colors that the model is unsure of, from 0 (none) to 2.",
    )
    smooth: float = Field(
        default=1.0, ge=0.0, le=1.0, description="How strongly blotches of color are smoothed, 0 to 1."
    )
    size_px: Annotated[int | None, Flag("--size", unset="model's own")] = Field(
        default=None,
        ge=32,
        le=2048,
        description="Short side, in pixels, at which the model runs (the result keeps full size).",
    )
    view: Literal["restored", "plain"] = Field(
        default="restored",
        description="What the model sees: restored is a copy with stretched tones and filled scratches, "
        "plain is the photo itself.",
    )
    hint_reach: Annotated[float, Flag("--reach")] = Field(
        default=1.0, ge=0.02, le=10.0, description="How far the colors of hints spread: 2 is about twice as far."
    )
    hint_strength: float = Field(default=1.0, ge=0.0, le=1.0, description="How strongly hints apply, 0 to 1.")
    own_color: OwnColorChoice = Field(
        default="auto",
        description="The photo's own color: auto keeps stamps, pencil and hand-tinted spots on a gray or toned print; "
        "replace keeps none; keep keeps all local color; blend mixes it with the model's.",
    )
    invert: bool = Field(
        default=False, description="The photo is a negative: make a positive first, whose luminance the result keeps."
    )
    recompose: bool = Field(
        default=True, description="Keep the photo's own luminance exactly; off gives the model's raw output."
    )
    provenance: bool = Field(default=True, description="Write into each result how it was made (XMP).")


@dataclass(frozen=True)
class ResolvedOptions:
    """The options of one photo, with the model's own values in place of None."""

    prompt: str
    negative_prompt: str
    steps: int
    seed: int
    variant: int  # 1, or the number of one that the model's own pass is shifted to, see `color.regional_shift`
    guidance_scale: float
    image_guidance_scale: float
    strength: float
    vivid: float  # see `color.vivid`
    smooth: float  # see `color.smooth_chroma`
    size_px: int  # short side of the model's own pass
    view: Literal["restored", "plain"]  # see `color.restored_view`
    hint_reach: float
    hint_strength: float
    own_color: OwnColorChoice
    invert: bool
    recompose: bool
    provenance: bool


def make_options(**settings: Any) -> ColorizeOptions:
    """Return validated `ColorizeOptions` from loose settings.

    Raises:
        OptionsError: one line naming the first setting that is wrong, what was given and what is accepted.
    """
    try:
        return ColorizeOptions(**settings)
    except ValidationError as error:
        raise options_error(error, ColorizeOptions, "option") from None


def check_recompose(options: ColorizeOptions | ResolvedOptions, needs: str = "hints need") -> None:
    """Check that a result keeps the photo's own luminance.

    Args:
        options: of the result.
        needs: the message's first words: what works on that luminance alone.

    Raises:
        OptionsError: `recompose` is off.
    """
    if not options.recompose:
        raise OptionsError(
            f"{needs} the photo's own luminance; leave out --no-recompose (recompose=False)", "recompose"
        )


class Problem(NamedTuple):
    """The first thing that is wrong with given values."""

    field: str  # dotted; empty where it is about several together
    given: object
    message: str

    def __str__(self) -> str:
        return f"{self.field}={shown(self.given)}: {self.message}" if self.field else self.message


def first_problem(error: ValidationError) -> Problem:
    """Return the first problem that pydantic found, worded for a message."""
    first = error.errors()[0]
    field, message = ".".join(str(part) for part in first["loc"]), str(first["msg"]).removeprefix("Value error, ")
    return Problem(field, first["input"], message[:1].lower() + message[1:] if field else message)


def options_error(error: ValidationError, model: type[BaseModel], kind: str) -> OptionsError:
    """Return pydantic's first finding as one line for the user.

    Args:
        error: raised by `model`.
        model: the settings' class.
        kind: how one of them is called: "option", "setting".
    """
    problem = first_problem(error)
    if error.errors()[0]["type"] == "extra_forbidden":
        return OptionsError(f"unknown {kind} {shown(problem.field)}; accepted: {', '.join(model.model_fields)}")
    return OptionsError(str(problem), problem.field or None)
