"""`chromatune finetune`: what can be typed, and the bar that shows how far it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from chromatune.cli.environment import shared_cache
from chromatune.cli.progress import make_bar
from chromatune.files.progress import Advance, StartStage, silent


def finetune_command(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder of colour photos, or KIND:PATH; see `chromatune data`.")
    ],
    model: Annotated[
        str,
        typer.Option(help="Where to start: mini-base, mini, a Stable Diffusion or InstructPix2Pix folder, a hub name."),
    ] = "mini-base",
    preset: Annotated[
        str | None, typer.Option(help="paper, quick, best or lora.", show_default="quick, or the one --config names")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder of the run.", show_default="finetuned-PRESET"),
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Updates of the weights.", show_default="preset's")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file of settings over the preset's.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting over all else; can be repeated.")
    ] = None,
    prompts: Annotated[str | None, typer.Option(metavar="FILE", help="Instructions, one a line.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved settings and stop.")] = False,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload the finished model to the hub.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the result's path only.")] = False,
) -> int:
    """Fine-tune a model to colorize, on your own colour photos; prints the path of the new model.

    Stop it at any time: the same command goes on from the last checkpoint. The folder of the run holds the model, the
    curves (report.html), sample grids, metrics.jsonl and the checkpoints.
    """
    from chromatune.training.settings import preset_of, resolve_settings

    overrides = [*(settings or [])]
    overrides += [] if max_steps is None else [f"max_steps={max_steps}"]
    overrides += [] if prompts is None else [f"prompts={json.dumps(prompts)}"]
    preset = preset_of(preset, config)
    resolved = resolve_settings(preset, config, overrides)
    if dry_run:
        for name, value in resolved.model_dump().items():
            print(f"{name} = {_toml(value)}")
        return 0
    from chromatune.bundle.saving import check_replaceable
    from chromatune.bundle.saving import push_to_hub as push
    from chromatune.data.sources import open_source

    photos = open_source(source)
    out = out or Path(f"finetuned-{preset}")

    from chromatune.evaluation.metrics import scores  # here and below: they load OpenCV and torch
    from chromatune.pages import require_pages
    from chromatune.training.loop import train
    from chromatune.training.outcome import model_folder, write_outcome

    require_pages("train")
    check_replaceable(model_folder(out))
    with _progress(quiet) as (on_row, start_stage):
        trained = train(
            photos, model, resolved, out, score=scores, on_row=on_row, start_stage=start_stage, cache_dir=shared_cache()
        )
    if not trained.is_main:
        return 0
    folder = write_outcome(trained, source, preset)
    print(folder)
    if push_to_hub is not None:
        print(push(folder, push_to_hub))
    if not quiet:
        print(f"try it: chromatune colorize PHOTO --model {folder}; curves: {out / 'report.html'}", file=sys.stderr)
    return 0


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


@contextmanager
def _progress(quiet: bool) -> Iterator[tuple[Callable[[dict[str, Any]], None], StartStage]]:
    """Functions for the rows of a run and its stages: a bar on a terminal, lines elsewhere, nothing when quiet."""
    if quiet:
        yield lambda row: None, silent
        return
    if not sys.stderr.isatty():
        yield _print_row, _print_stage
        return
    with make_bar(note=True, transient=False) as bar:
        task = bar.add_task("starting", total=None, note="")

        def start_stage(name: str, length: int) -> Advance:
            bar.update(task, description=name, completed=0, total=length)
            return lambda: bar.advance(task)

        def show_row(row: dict[str, Any]) -> None:
            if row["kind"] == "train":
                rate = bar.tasks[0].speed
                note = f"loss {row['loss']:.4f}" + (f", {rate:.2f} updates/s" if rate else "")
                if bar.tasks[0].description != "training":
                    bar.reset(task, description="training", total=row["of"], completed=row["step"], note=note)
                bar.update(task, completed=row["step"], note=note)
            else:
                bar.console.print(_validation_line(row), highlight=False)

        yield show_row, start_stage


def _print_stage(name: str, length: int) -> Advance:
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if done % 100 == 0 or done == length:
            print(f"{name} {done}/{length}", file=sys.stderr, flush=True)

    return advance


def _print_row(row: dict[str, Any]) -> None:
    if row["kind"] == "train":
        print(f"step {row['step']}/{row['of']} loss {row['loss']:.4f}", file=sys.stderr, flush=True)
    else:
        print(_validation_line(row), file=sys.stderr, flush=True)


def _validation_line(row: dict[str, Any]) -> str:
    names = ("noise_loss", "train_noise_loss", "psnr", "psnr_grey", "ab_mse", "delta_cf")
    figures = ", ".join(f"{name} {row[name]:.4g}" for name in names if name in row)
    return f"validation at {row['step']}: {figures}"
