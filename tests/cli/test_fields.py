"""Settings as options: what is declared once serves the flag, its type, its default, its help, and the way back."""

from __future__ import annotations

import inspect
import shlex
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chromatune.cli.fields import command_line_of, flag_of, flags_in_errors, takes_fields
from chromatune.errors import OptionsError
from chromatune.evaluation.settings import EvaluationSettings, make_settings
from chromatune.options import ColorizeOptions, Flag, options_error


class Paint(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    wall: str = Field(description="What is painted.")
    coats: int = Field(2, ge=1, description="How often.")
    width_m: Annotated[float | None, Flag("--width", "M", unset="all of it")] = Field(None, description="How wide.")
    colors: Annotated[tuple[str, ...], Flag("--color", unset="white")] = Field((), description="A color.")
    finish: Literal["matt", "Gloss"] = Field("matt", description="What it shines like.")
    dry: bool = Field(True, description="Wait for it.")
    twice: bool = Field(False, description="Do it all again.")
    signature: Annotated[str, Flag(always=True)] = Field("", description="Who did it.")


def make_paint(**fields: Any) -> Paint:
    try:
        return Paint(**fields)
    except ValidationError as error:
        raise options_error(error, Paint, "setting") from None


def run(typed: str) -> Paint:
    """What a command gets for what is typed after its name."""
    got: list[Paint] = []
    app = typer.Typer(rich_markup_mode=None, add_completion=False)

    @app.command()
    @takes_fields(make_paint)
    def paint(*, settings: Paint, loud: bool = False) -> int:
        got.append(settings)
        return 0

    app(shlex.split(typed), standalone_mode=False)
    return got[0]


def test_defaults_are_the_models_own() -> None:
    assert run("fence") == Paint(wall="fence")


def test_every_kind_of_value_reaches_its_field() -> None:
    typed = (
        "fence --coats 3 --width 1.5 --color red --color 'light blue' --finish Gloss --no-dry --twice --signature me"
    )
    painted = run(typed)
    assert painted == Paint(
        wall="fence",
        coats=3,
        width_m=1.5,
        colors=("red", "light blue"),
        finish="Gloss",
        dry=False,
        twice=True,
        signature="me",
    )
    assert command_line_of((), painted) == typed


def test_the_command_written_down_leaves_defaults_out_but_for_what_decides() -> None:
    assert command_line_of(("paint",), Paint(wall="a b"), "--loud") == "paint 'a b' --signature '' --loud"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("fence --coats 0", "--coats 0: input should be greater than or equal to 1"),
        ("fence --finish Dull", "--finish 'Dull': input should be 'matt' or 'Gloss'"),
    ],
)
def test_what_breaks_a_limit_is_told_under_its_flag(typed: str, message: str) -> None:
    with pytest.raises(OptionsError) as caught:
        run(typed)
    assert str(caught.value) == message


def test_a_value_of_several_is_told_under_the_flag_of_its_field() -> None:
    with pytest.raises(OptionsError, match="^--steps 0: "), flags_in_errors(EvaluationSettings):
        make_settings(source="x", models=("m",), steps=(4, 0))


def test_an_error_about_no_field_stays_as_it_is() -> None:
    with pytest.raises(OptionsError, match="^nothing to measure"), flags_in_errors(EvaluationSettings):
        make_settings(source="x")


def test_a_mistake_in_typing_is_typers_to_tell() -> None:
    with pytest.raises(typer.TyperException) as caught:
        run("fence --coats many")
    assert "--coats" in caught.value.format_message()


def test_help_says_type_default_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(IndexError):  # nothing was run
        run("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "WALL <str> What is painted. [required]" in text
    assert "--coats <int> How often. [default: 2]" in text
    assert "--width M How wide. [default: (all of it)]" in text
    assert "A color. [default: (white)]" in text
    assert "--finish matt|Gloss What it shines like. [default: matt]" in text
    assert "--dry / --no-dry Wait for it. [default: dry]" in text
    assert "--twice Do it all again. --signature" in text


@pytest.mark.parametrize("model", [ColorizeOptions, EvaluationSettings])
def test_every_field_has_a_help_and_a_flag_of_its_own(model: type[BaseModel]) -> None:
    flags = [flag_of(model, field) for field in model.model_fields]
    assert len(set(flags)) == len(flags)
    assert all(info.description and inspect.cleandoc(info.description) for info in model.model_fields.values())


def test_the_command_of_an_evaluation_gives_the_same_settings() -> None:
    settings = make_settings(
        source="lfw:faces",
        models=("mini", "my model"),
        results=(("theirs", "a=b"),),
        steps=(1, 4),
        prompts=("color it",),
        one_per_person=True,
        split="validation",
        validation=40,
        limit=9,
    )
    line = command_line_of(("chromatune", "evaluate"), settings, "--out", "x")
    assert line == (
        "chromatune evaluate lfw:faces --model mini --model 'my model' --results theirs=a=b --size 256 --limit 9 "
        "--steps 1 --steps 4 --prompt 'color it' --one-per-person --split validation --validation 40 --seed 0 --out x"
    )
