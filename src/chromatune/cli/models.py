"""`chromatune models`: what ships with the package, the user's own, and whether a model can be used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chromatune.cli.terminal import complain, print_table
from chromatune.errors import ModelError, OptionsError

if TYPE_CHECKING:
    import numpy as np

    from chromatune.colorizer import Colorizer
    from chromatune.pipeline import ModelInfo

HEADER = ("model", "size (px)", "steps", "description", "folder", "family", "MB", "license")
SHEET_PX = 256  # height of the pictures on a sheet

models_app = typer.Typer(help="List models, and check whether one can be used.", rich_markup_mode=None)


@models_app.callback(invoke_without_command=True)
def models_command(context: typer.Context) -> int:
    """List the models that ship with the package, then the user's own.

    The user's own are the files and folders in ~/.config/chromatune/models, or in the folder that CHROMATUNE_MODELS
    names; --model takes their names. In a pipe: one model a line, its fields separated by tabs.
    """
    if context.invoked_subcommand is not None:
        return 0

    from chromatune.pipeline import available_models, model_info, users_models

    rows = [_row(info) for info in available_models()]
    for path in users_models():
        try:
            rows.append(_row(model_info(path.name)))
        except ModelError as error:
            complain(f"not listed: {error}", "warning")
    print_table(rows, HEADER)
    return 0


@models_app.command("check")
def check_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A colorizer's file or folder, or any other model.")],
    photo: Annotated[
        Path | None, typer.Option(metavar="PHOTO", help="The photo to try it with.", show_default="a built-in one")
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write the sheet.", show_default="NAME.check.png"),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Save how the model is used as its description, colorizer.json.")
    ] = False,
) -> int:
    """Print how a model is understood, color a photo with it, and write both versions side by side to a small sheet.

    On the sheet: the photo, the model's own answer, and its colors on the photo's own luminance.
    """
    from chromatune.colorizer import Colorizer
    from chromatune.files import atomic_write

    colorizer = Colorizer.load(model)
    rows = [("model", colorizer.info.name), *_facts(colorizer)]
    if write:
        rows.append(("description", str(_write_description(model, colorizer))))
    path = sheet or Path(f"{Path(model).stem}.check.png")
    atomic_write(path, _sheet(colorizer, photo))
    print_table([*rows, ("sheet", str(path))])
    return 0


def _row(info: ModelInfo) -> tuple[str, ...]:
    size = f"{_bytes_of(info.path) / 1e6:.0f}"
    return (
        info.name,
        str(info.size_px),
        str(info.steps),
        info.description,
        str(info.path),
        info.family,
        size,
        info.license,
    )


def _bytes_of(path: Path) -> int:
    return sum(each.stat().st_size for each in (path.rglob("*") if path.is_dir() else (path,)) if each.is_file())


def _facts(colorizer: Colorizer) -> list[tuple[str, str]]:
    from chromatune.pipeline import ColorizerBackend

    info, backend = colorizer.info, colorizer.backend
    rows = [("family", info.family or "unknown"), ("license", info.license or "not said")]
    follows = ", ".join(sorted(info.follows)) or "none: it has no instructions and no seeds"
    if not isinstance(backend, ColorizerBackend):
        return [*rows, ("size of its pass", f"{info.size_px} px"), ("options it follows", follows)]
    found = backend.convention
    taken, given = found.input, found.output
    if found.fixed_px:
        size = f"{found.fixed_px[1]} × {found.fixed_px[0]} px alone"
    else:
        size = f"{info.size_px} px by default, --size for others; multiples of {found.multiple_px}"
    kinds = {"rgb": "gray in three channels", "gray": "gray in one channel", "lightness": "L of CIELAB"}
    colors = (
        f"a and b of CIELAB, in units of {1 / given.white:g}"
        if given.kind == "ab"
        else f"a picture, {given.black:g} to {given.white:g}"
    )
    rows += [
        ("takes", f"{taken.name}: {kinds[taken.kind]}, {taken.black:g} to {taken.white:g}, {taken.layout}"),
        ("gives", f"{given.name}: {colors}, {given.layout}"),
        ("size of its pass", size),
        ("options it follows", follows),
    ]
    return rows + [("found", line) for line in found.found]


def _write_description(model: str, colorizer: Colorizer) -> Path:
    """Write the description of a colorizer's graph; return where it is."""
    from chromatune.pipeline import ColorizerBackend, ColorizerFiles, find_model, write_description

    files = find_model(model)
    if not isinstance(files, ColorizerFiles) or not isinstance(colorizer.backend, ColorizerBackend):
        raise OptionsError("--write is for colorizers; other models need no description", "write")
    write_description(files.description_file, colorizer.backend.convention.described(files.declared))
    return files.description_file


def _sheet(colorizer: Colorizer, photo: Path | None) -> bytes:
    """Return the sheet as a PNG: the photo, the model's own answer, and the result."""
    import numpy as np

    from chromatune.color import resize
    from chromatune.images import read_photo
    from chromatune.options import ColorizeOptions
    from chromatune.pipeline import trial_photo
    from chromatune.reports import beside, png_of

    opened = read_photo(trial_photo() if photo is None else photo)
    own, ours = (
        colorizer.colorize(opened, ColorizeOptions(recompose=recompose, own_color="replace"))
        for recompose in (False, True)
    )
    pictures: Sequence[np.ndarray] = (np.repeat(opened.gray[..., None], 3, axis=2), own.rgb, ours.rgb)
    width = max(1, math.ceil(SHEET_PX * opened.width_px / opened.height_px))
    eight_bit = [each if each.dtype == np.uint8 else (each >> 8).astype(np.uint8) for each in pictures]
    for line in dict.fromkeys(ours.warnings):
        complain(line, "warning")
    return png_of(beside([resize(each, SHEET_PX, width) for each in eight_bit]))
