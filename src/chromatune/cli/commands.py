"""What can be typed: the commands, their options and their help. Nothing here loads a model library."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

import chromatune
from chromatune.cli.data_commands import data_app
from chromatune.cli.evaluate_command import evaluate_command
from chromatune.cli.experiment_command import experiment_app
from chromatune.cli.finetune_command import finetune_command
from chromatune.errors import OptionsError
from chromatune.options import ColorizeOptions, make_options

DEFAULTS = ColorizeOptions()
FLAGS_NAMED_OTHERWISE = {"size_px": "--size", "recompose": "--recompose"}

app = typer.Typer(
    help="Colorizes black-and-white photographs by instruction; every pixel keeps its luminance.",
    add_completion=False,
    rich_markup_mode=None,  # rich's help costs a tenth of a second at each start
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")
app.add_typer(experiment_app, name="experiment")
app.command("evaluate")(evaluate_command)
app.command("finetune")(finetune_command)


def flag_of(field: str) -> str:
    """The flag that sets a field of `ColorizeOptions`."""
    return FLAGS_NAMED_OTHERWISE.get(field) or "--" + field.replace("_", "-")


def setting(field: str, declaration: str | None = None) -> Any:
    """The typer option of a field of `ColorizeOptions`, with the field's own description as help."""
    info = ColorizeOptions.model_fields[field]
    default: str | bool = "model's own" if info.default is None else info.default != ""
    return typer.Option(declaration or flag_of(field), help=info.description, show_default=default)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"chromatune {chromatune.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> int:
    """Colorizes black-and-white photographs by instruction; every pixel keeps its luminance."""
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)
    return 0


@app.command("colorize")
def colorize_command(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTO", help="Photos to colorize; - reads one from standard input.")
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="A file, for one photo and a name such as x.png; else a folder, made if missing. - writes to "
            "standard output.",
            show_default="NAME.color.EXT beside the photo",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="A name that `chromatune models` lists, an InstructPix2Pix folder, or a hub name.")
    ] = "mini",
    prompt: Annotated[str | None, setting("prompt")] = DEFAULTS.prompt,
    negative_prompt: Annotated[str, setting("negative_prompt")] = DEFAULTS.negative_prompt,
    steps: Annotated[int | None, setting("steps")] = DEFAULTS.steps,
    seed: Annotated[int, setting("seed")] = DEFAULTS.seed,
    variants: Annotated[
        int,
        typer.Option(
            min=1,
            help="Results for each photo: NAME.color-1.EXT, -2 ..., of seeds S, S+1 ..., in as many steps as they need "
            "to differ.",
        ),
    ] = 1,
    strength: Annotated[float, setting("strength")] = DEFAULTS.strength,
    guidance_scale: Annotated[float | None, setting("guidance_scale")] = DEFAULTS.guidance_scale,
    image_guidance_scale: Annotated[float | None, setting("image_guidance_scale")] = DEFAULTS.image_guidance_scale,
    size_px: Annotated[int | None, setting("size_px")] = DEFAULTS.size_px,
    recompose: Annotated[bool, setting("recompose", "--recompose/--no-recompose")] = DEFAULTS.recompose,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos that go through the model at once.")] = 8,
    device: Annotated[
        str | None, typer.Option(help="Where to compute, such as cpu or cuda.", show_default="the best there is")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print failures only.")] = False,
) -> int:
    """Colorize photos and print the path of each result.

    The photos' own files are never changed. One that cannot be colorized gets a line on standard error, the others go
    on, and the exit code is 1.
    """
    if variants > 1 and steps is None:
        from chromatune.bundle import model_info

        steps = model_info(model).variant_steps
    fields = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "image_guidance_scale": image_guidance_scale,
        "strength": strength,
        "size_px": size_px,
        "recompose": recompose,
    }
    options = [_checked(fields | {"seed": seed + variant}) for variant in range(variants)]

    from chromatune.cli import destinations, running  # here: they load OpenCV, which `--help` does not need

    jobs = destinations.plan(photos, out, variants)
    engine = running.Engine(model, device, batch_size)
    return running.run(jobs, options, engine, overwrite=overwrite, quiet=quiet)


def _checked(fields: dict[str, Any]) -> ColorizeOptions:
    """The options, or an `OptionsError` that calls a field by its flag."""
    try:
        return make_options(**fields)
    except OptionsError as error:
        field, sign, rest = str(error).partition("=")
        raise OptionsError(f"{flag_of(field)} {rest}" if sign and field in fields else str(error)) from None


@app.command("models")
def models_command() -> int:
    """List the models that ship with the package: name, short side in pixels, steps, description, folder.

    In a pipe: one model a line, its fields separated by tabs.
    """
    from chromatune.bundle import available_models

    rows = [
        (info.name, str(info.size_px), str(info.steps), info.description, str(info.path)) for info in available_models()
    ]
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return 0

    from rich.console import Console
    from rich.table import Table

    table = Table("model", "size (px)", "steps", "description", "folder", box=None)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    return 0
