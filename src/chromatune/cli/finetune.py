"""`chromatune finetune`: photos and a model ⇒ a better model."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from chromatune.cli.data import Columns
from chromatune.cli.environment import require_torch, shared_cache
from chromatune.cli.terminal import (
    complain,
    format_duration,
    line_stages,
    make_bar,
    note_own_results,
    print_line,
    print_status,
    print_table,
    stages,
)
from chromatune.errors import OptionsError, first_line

if TYPE_CHECKING:
    from chromatune.options import Advance, StartStage
    from chromatune.training import RunCost, Start, TrainSettings

SHOWN_METRICS = ("noise_loss", "train_noise_loss", "psnr", "psnr_gray", "ab_mse", "delta_cf")

OnRow: TypeAlias = Callable[[dict[str, Any]], None]  # called with a row of metrics.jsonl
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="DIR", help="Folder of the run.", show_default="finetuned-PRESET"),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, overrides all others; repeatable.")
]
ExportOnnx = Annotated[
    bool, typer.Option("--export-onnx", help="Add ONNX graphs to the model, to run it without torch.")
]
PushToHub = Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="Upload the finished model to the hub.")]
Private = Annotated[bool, typer.Option("--private", help="With --push-to-hub: only you see a repository made now.")]
Tracked = Annotated[
    list[str] | None,
    typer.Option("--track", metavar="NAME", help="tensorboard (the default), wandb or mlflow; repeatable."),
]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Weight updates.", show_default="preset's")]


def finetune_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder of color photos, KIND:PATH (see `chromatune data`), tar shards such as "
            "photos-{000..099}.tar, or stream:NAME of a Hugging Face data set.",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(help="Initial model: mini-base, mini, a Stable Diffusion or InstructPix2Pix folder, a hub name."),
    ] = "mini-base",
    preset: Annotated[
        str | None,
        typer.Option(
            help="paper, quick, best or lora; each has values of its own for U-Nets of more than 100 M parameters.",
            show_default="the one --config names, else quick, or best for such a U-Net",
        ),
    ] = None,
    out: Out = None,
    max_steps: MaxSteps = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file of settings that override the preset.")
    ] = None,
    settings: Overrides = None,
    columns: Columns = None,
    prompts: Annotated[
        str | None, typer.Option(metavar="FILE", help="Instructions, one per line, instead of the photos' own.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved settings and what they take of memory, and stop.")
    ] = False,
    export_onnx: ExportOnnx = False,
    push_to_hub: PushToHub = None,
    private: Private = False,
    track: Tracked = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the result's path only.")] = False,
) -> int:
    """Fine-tune a model to colorize, on your own color photos; prints the path of the new model.

    Stop it at any time: the same command resumes from the last checkpoint. The folder of the run holds the model, the
    curves (report.html), sample grids, metrics.jsonl and the checkpoints.
    """
    from chromatune.data import with_columns
    from chromatune.pipeline import check_hub_name, find_trainable, unet_parameters
    from chromatune.training import LARGE_MODEL, preset_of, resolve_settings

    source = with_columns(source, columns or [])
    # A named column of instructions is used whatever the preset; --set and the other flags override it
    overrides = ["prompts=source"] if any(text.startswith("prompt=") for text in columns or []) else []
    overrides += settings or []
    overrides += [] if max_steps is None else [f"max_steps={max_steps}"]
    overrides += [] if prompts is None else [f"prompts={json.dumps(prompts)}"]
    parameters = unet_parameters(find_trainable(model))
    large = parameters > LARGE_MODEL
    preset = preset_of(preset, config, large=large)
    resolved = resolve_settings(preset, config, overrides, large=large)
    if dry_run:
        for name, value in resolved.model_dump().items():
            print_line(f"{name} = {json.dumps(value, ensure_ascii=False) if isinstance(value, bool | str) else value}")
        _print_cost(model, resolved)
        return 0
    out = out or Path(f"finetuned-{preset}")
    require_torch("fine-tuning", "train")
    from chromatune.training import check_trackers  # it needs torch

    if export_onnx:
        _check_export(resolved, model, out)
    if push_to_hub is not None:
        check_hub_name(push_to_hub)
    if track:
        check_trackers(track)
    headline = preset_line(preset, resolved, parameters)
    folder = _train(source, model, preset, resolved, out, quiet, export_onnx, headline, track)
    if folder is None:
        return 0
    print_line(folder)
    if push_to_hub is not None:
        from chromatune.pipeline import push_to_hub as push

        print_line(push(folder, push_to_hub, private=private))
    if not quiet:
        complain(f"try it: chromatune colorize PHOTO --model {folder}; curves: {out / 'report.html'}", "note")
    return 0


def preset_line(preset: str, settings: TrainSettings, parameters: int) -> str:
    """Return which preset a run has, and what of it depends on the size of its U-Net."""
    kept = settings.prediction_type == "model" and not settings.zero_terminal_snr
    values = [
        f"lr {settings.lr:g}",
        "predicts as the model does" if kept else "predicts v",
        {"no": "float32"}.get(settings.precision, settings.precision),
        *(["gradient checkpointing"] if settings.gradient_checkpointing else []),
        f"EMA {settings.ema:g}" if settings.ema else "no EMA",
    ]
    return f"preset {preset} for a U-Net of {parameters / 1e6:,.0f} M parameters: {', '.join(values)}"


def _print_cost(model: str, settings: TrainSettings) -> None:
    """Print what a run takes in one process, a part a line."""
    from chromatune.pipeline import has_torch

    if not has_torch():
        complain("what it takes of memory is not known without torch: pip install 'chromatune[train]'", "note")
        return
    from chromatune.training import cost_of

    cost = cost_of(model, settings)
    rows = [("weights that are trained", cost.trained), ("weights that are not", cost.frozen)]
    rows += [("gradients", cost.gradients), (f"optimizer, {settings.optimizer}", cost.optimizer)]
    rows += [("EMA", cost.ema), ("activations, at their peak", cost.activations), ("memory in all", cost.memory)]
    rows += [("EMA, in the host's memory", cost.host)] if cost.host else []
    rows += [("checkpoints, on the disk", cost.checkpoints), ("the result, on the disk", cost.result)]
    rows += [("latents of a thousand photos, on the disk", 1000 * cost.cache)]
    print_line("")
    print_table([(name, format_bytes(size)) for name, size in rows])


def format_bytes(size: int) -> str:
    """Return a size as text: "0.3 GB", "12 MB"."""
    return f"{size / 1e9:,.1f} GB" if size >= 10**9 / 2 else f"{size / 1e6:,.0f} MB"


def cost_line(cost: RunCost, photos: int) -> str:
    """Return what a run on so many photos takes."""
    disk = format_bytes(cost.checkpoints + cost.result + photos * cost.cache)
    held = f", {format_bytes(cost.host)} of the host's for its EMA" if cost.host else ""
    return f"memory: about {format_bytes(cost.memory)}{held}; disk: {disk}; --dry-run has a table"


def _check_export(settings: TrainSettings, model: str, out: Path) -> None:
    """Check that the trained model can have ONNX graphs, before hours are spent.

    Raises:
        OptionsError: it is a LoRA, or has a scheduler that needs torch.
    """
    from chromatune.pipeline import EditFiles, find_trainable, scheduler_problem

    files = find_trainable(model)
    if isinstance(files, EditFiles):
        raise OptionsError(f"--export-onnx: {model} is of Stable Diffusion XL, which has no graphs here; leave it out")
    if settings.parts == "lora":
        raise OptionsError(f"--export-onnx needs a whole model; after the run: chromatune export {out / 'model'} OUT")
    if settings.zero_terminal_snr:  # it brings a schedule of its own
        return
    if problem := scheduler_problem(files):
        raise OptionsError(f"--export-onnx: {model} {problem}; start from one with a DDIM or Euler scheduler")


def _train(
    source: str, model: str, preset: str, settings: TrainSettings, out: Path, quiet: bool, export_onnx: bool,
    headline: str, track: list[str] | None,
) -> Path | None:  # fmt: skip
    """Train, and return the folder of the trained model; None in all but one of several processes."""
    from chromatune.data import OWN_RESULT, Source, check_outside, is_stream, open_source, open_stream
    from chromatune.pipeline import check_replaceable

    if not is_stream(source):
        check_outside(out, source)
    photos = open_stream(source) if is_stream(source) else open_source(source)
    if not quiet and isinstance(photos, Source):
        note_own_results(photos.skipped.get(OWN_RESULT, 0))

    from chromatune.evaluation import score_result  # this late, as they load OpenCV and torch
    from chromatune.reports import require_pages
    from chromatune.training import cost_of, model_folder, save_result, train

    require_pages("train")
    check_replaceable(model_folder(out))

    def warn(line: str) -> None:
        if not quiet:
            complain(line, "warning")

    def tell(start: Start) -> None:
        if not quiet:
            print_status(headline)
            try:
                print_status(cost_line(cost_of(model, settings), len(start.split.train)))
            except RuntimeError as error:  # of an operation that torch has no shapes for: no reason not to train
                complain(f"what the run takes of memory is not known ({first_line(error)})", "note")

    with progress_of_run(quiet) as (start_stage, on_row):
        result = train(
            photos, model, settings, out,
            score=score_result, on_row=on_row, start_stage=start_stage, on_warning=warn, on_start=tell,
            cache_dir=shared_cache(), track=track,
        )  # fmt: skip
    return save_result(result, source, preset, export_onnx=export_onnx) if result.is_main else None


@contextmanager
def progress_of_run(quiet: bool) -> Iterator[tuple[StartStage, OnRow]]:
    """Yield callbacks that show stages and rows of a run: a bar on a terminal, lines elsewhere, nothing when quiet."""
    if quiet:
        with stages(shown=False) as start_stage:
            yield start_stage, lambda row: None
        return
    if not sys.stderr.isatty():
        yield line_stages, with_time_left(_print_row)
        return
    with make_bar(note=True, transient=False) as bar:
        task = bar.add_task("starting", total=None, note="")

        def start_stage(name: str, length: int) -> Advance:
            bar.reset(task, description=name, total=length, note="")
            return lambda: bar.advance(task)

        def on_row(row: dict[str, Any]) -> None:
            if row["kind"] != "train":
                bar.console.print(_validation_line(row), highlight=False)
                return
            if bar.tasks[0].description != "training":
                bar.reset(task, description="training", total=row["of"], completed=row["step"])
            rate = bar.tasks[0].speed
            note = f"loss {row['loss']:.4f}" + (f", {rate:.2f} updates/s" if rate else "")
            bar.update(task, completed=row["step"], note=note)

        yield start_stage, on_row


def with_time_left(on_row: OnRow, clock: Callable[[], float] = time.monotonic) -> OnRow:
    """Return `on_row` with one line more, when updates were timed: how long the run will take."""
    first: tuple[int, float] | None = None
    told = False

    def timed(row: dict[str, Any]) -> None:
        nonlocal first, told
        on_row(row)
        if row["kind"] != "train":
            first = None  # a validation lies between the updates
        elif first is None:
            first = row["step"], clock()
        elif not told:
            told = True
            seconds = (clock() - first[1]) / (row["step"] - first[0])
            left = format_duration(seconds * (row["of"] - row["step"]))
            print_status(f"time: {seconds:.2g} s an update, about {left} left without validations")

    return timed


def _print_row(row: dict[str, Any]) -> None:
    train = row["kind"] == "train"
    line = f"step {row['step']}/{row['of']} loss {row['loss']:.4f}" if train else _validation_line(row)
    print_status(line)


def _validation_line(row: dict[str, Any]) -> str:
    figures = ", ".join(f"{name} {row[name]:.4g}" for name in SHOWN_METRICS if name in row)
    return f"validation at {row['step']}: {figures}"
