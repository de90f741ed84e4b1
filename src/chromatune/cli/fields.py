"""Settings as command-line options: flag, type, default and help come from the pydantic model that defines them.

A field's description is its help; what its name and type do not say is a `chromatune.options.Flag` beside the field.
Limits are the model's own: it says what breaks one, under the name of the flag.
"""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from chromatune.errors import OptionsError
from chromatune.options import Flag

Settings = TypeVar("Settings", bound=BaseModel)
SCALARS = (str, int, float, bool)  # types that typer converts; all else reaches the model as text


def takes_fields(make: Callable[..., Settings]) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Return a decorator of commands: the parameter of a pydantic model becomes an option for each field.

    Args:
        make: makes the model from its fields, such as `make_options`; its `OptionsError` gets the field's flag.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        signature = inspect.signature(command, eval_str=True)
        name, model = next(
            (each.name, each.annotation)
            for each in signature.parameters.values()
            if isinstance(each.annotation, type) and issubclass(each.annotation, BaseModel)
        )
        parameters: list[inspect.Parameter] = []
        for each in signature.parameters.values():
            parameters += [_parameter(model, field) for field in model.model_fields] if each.name == name else [each]

        def run(**typed: Any) -> int:
            given: dict[str, Any] = {}
            for field, info in model.model_fields.items():
                value = typed.pop(field)
                given[field] = () if value is None and info.default == () else value  # a repeatable flag, not typed
            with flags_in_errors(model):
                settings = make(**given)
            return command(**typed, **{name: settings})

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": int}
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return run

    return decorate


@contextmanager
def flags_in_errors(model: type[BaseModel]) -> Iterator[None]:
    """Call a field of the model by its flag in an `OptionsError` about it."""
    try:
        yield
    except OptionsError as error:
        name = (error.field or "").partition(".")[0]
        if name not in model.model_fields:
            raise
        raise OptionsError(f"{flag_of(model, name)} {str(error).removeprefix(f'{error.field}=')}", name) from None


def flag_of(model: type[BaseModel], field: str) -> str:
    """Return the flag of a field; for a field without default, which has no flag, its name in help."""
    info = model.model_fields[field]
    if info.is_required():
        return _flag(info).metavar or field.upper()
    return _flag(info).name or "--" + field.replace("_", "-")


def command_line_of(command: Sequence[str], settings: BaseModel, *more: str) -> str:
    """Return the command line of these settings, in one spelling whatever was typed, without defaults.

    Args:
        command: its first words.
        settings: see `takes_fields`.
        more: its last words.
    """
    model, words = type(settings), list(command)
    for field, info in model.model_fields.items():
        value, flag = getattr(settings, field), flag_of(model, field)
        if info.is_required():
            words.append(str(value))
        elif value == info.default and not _flag(info).always:
            continue
        elif isinstance(value, bool):
            words.append(flag if value else _negated(flag))
        elif isinstance(value, tuple):
            for each in value:
                words += [flag, "=".join(each) if isinstance(each, tuple) else str(each)]
        else:
            words += [flag, str(value)]
    return shlex.join([*words, *more])


def _parameter(model: type[BaseModel], field: str) -> inspect.Parameter:
    """Return the parameter from which typer makes the option, or the argument, of a field."""
    info, flag = model.model_fields[field], flag_of(model, field)
    kind, metavar = _typed_as(info.annotation)
    metavar = _flag(info).metavar or metavar
    default: Any
    declared: Any
    if info.is_required():
        default, declared = inspect.Parameter.empty, typer.Argument(metavar=flag, help=info.description)
    else:
        default = None if info.default == () else info.default
        if default is not None and kind is str:  # the model reads its text
            default = str(default)
        shown = _flag(info).unset if default is None else default != ""
        spelling = f"{flag}/{_negated(flag)}" if default is True else flag
        declared = typer.Option(spelling, metavar=metavar, help=info.description, show_default=shown or False)
    annotation: Any = Annotated[kind if default is not None else kind | None, declared]
    return inspect.Parameter(field, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _typed_as(annotation: Any) -> tuple[Any, str | None]:
    """Return the type that typer reads for a field's type, and the value's name in help where the type says more."""
    origin, inner = get_origin(annotation), [each for each in get_args(annotation) if each is not type(None)]
    if origin is Annotated:
        return _typed_as(inner[0])
    if origin is Literal:
        return str, "|".join(inner)
    if origin in (Union, UnionType) and len(inner) == 1:
        return _typed_as(inner[0])
    if origin is tuple and inner[-1] is Ellipsis:
        return list[_typed_as(inner[0])[0]], None  # type: ignore[misc]
    return (annotation if annotation in SCALARS else str), None


def _flag(info: FieldInfo) -> Flag:
    return next((each for each in info.metadata if isinstance(each, Flag)), Flag())


def _negated(flag: str) -> str:
    return "--no-" + flag.removeprefix("--")
