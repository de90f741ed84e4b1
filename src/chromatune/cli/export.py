"""`chromatune export`: a model in a form that other software runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chromatune.cli.environment import require_torch
from chromatune.cli.terminal import plain, stages
from chromatune.errors import OptionsError, shown


def export_command(
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A built-in model, a folder, or a hub name.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the result; an existing model is replaced.")],
    to: Annotated[str, typer.Option(metavar="onnx", help="Format: onnx, runs without torch.")] = "onnx",
) -> int:
    """Write a model that ONNX Runtime runs without torch, and print its largest difference from torch.

    The folder holds the weights once, in half precision, and also opens in the stock pipeline. A LoRA is merged.
    """
    if to != "onnx":
        raise OptionsError(f"--to {shown(to)}: accepted is onnx")
    require_torch("exporting a model", "export")

    from chromatune.pipeline import export_onnx

    with stages() as start_stage:
        apart = export_onnx(model, out, start_stage=start_stage)
    print(f"{plain(str(out))}\tlargest difference from torch: {255 * apart:.3f} levels of 255")
    return 0
