"""`chromatune finetune`: photos and a model ⇒ a model trained on them, and whether it is better."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
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
from chromatune.errors import OptionsError, first_line, shown

if TYPE_CHECKING:
    from chromatune.options import Advance, StartStage
    from chromatune.training import Comparison, RunCost, Start, TrainSettings

DEFAULT_MODEL = "mini"
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
MaxSteps = Annotated[
    int | None,
    typer.Option(min=1, help="Updates in all; a larger number goes on with a finished run.", show_default="preset's"),
]
Name = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Name in the report, the model card and menus.", show_default="the folder's"),
]


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
        typer.Option(
            help="Model to start from: mini, mini-base, a Stable Diffusion or InstructPix2Pix folder, a hub name."
        ),
    ] = DEFAULT_MODEL,
    preset: Annotated[
        str | None,
        typer.Option(
            help="paper, quick, best or lora; each has its own values for U-Nets of more than 100 M parameters, and "
            "for models that sample in one step, such as mini.",
            show_default="the one --config names, else quick, or best for such a U-Net",
        ),
    ] = None,
    out: Out = None,
    name: Name = None,
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
        bool, typer.Option("--dry-run", help="Print all settings and how much memory they need, and stop.")
    ] = False,
    export_onnx: ExportOnnx = False,
    push_to_hub: PushToHub = None,
    private: Private = False,
    track: Tracked = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the result's path only.")] = False,
) -> int:
    """Fine-tune a model on your own color photos; prints the path of the new model.

    A tenth of the photos is held out. The last line, and report.html in the folder of the run, say whether the new
    model colorizes them better than mini does. Stop the command at any time: run again, it resumes from the last
    checkpoint; with a larger --max-steps, it trains longer.
    """
    from chromatune.data import with_columns
    from chromatune.pipeline import check_hub_name, find_trainable, read_info, unet_parameters
    from chromatune.training import LARGE_MODEL, preset_of, resolve_settings

    given = source
    source = with_columns(source, columns or [])
    # A named column of instructions is used whatever the preset; --set and the other flags override it
    overrides = ["prompts=source"] if any(text.startswith("prompt=") for text in columns or []) else []
    overrides += settings or []
    overrides += [] if max_steps is None else [f"max_steps={max_steps}"]
    overrides += [] if prompts is None else [f"prompts={json.dumps(prompts)}"]
    files = find_trainable(model)
    parameters = unet_parameters(files)
    large, one_step = parameters > LARGE_MODEL, read_info(files).steps == 1
    preset = preset_of(preset, config, large=large)
    resolved = resolve_settings(preset, config, overrides, large=large, one_step=one_step)
    if dry_run:
        for name, value in resolved.model_dump().items():
            print_line(f"{name} = {json.dumps(value, ensure_ascii=False) if isinstance(value, bool | str) else value}")
        _print_cost(model, resolved)
        return 0
    out = out or Path(f"finetuned-{preset}")
    given_name, name = name, out.resolve().name if name is None else checked_name(name)
    require_torch("fine-tuning", "train")
    from chromatune.training import check_trackers  # it needs torch

    if export_onnx:
        _check_export(resolved, model, out)
    if push_to_hub is not None:
        check_hub_name(push_to_hub)
    if track:
        check_trackers(track)
    headline = preset_line(preset, resolved, parameters)
    trained = _train(source, model, preset, resolved, out, quiet, export_onnx, headline, track, name)
    if trained is None:
        return 0
    folder, compared = trained
    print_line(folder)
    if push_to_hub is not None:
        from chromatune.pipeline import push_to_hub as push

        print_line(push(folder, push_to_hub, private=private))
    if not quiet:
        options: dict[str, Any] = {"--model": model, "--preset": preset, "--config": config, "--column": columns}
        options |= {
            "--prompts": prompts,
            "--set": settings,
            "--export-onnx": export_onnx,
            "--name": given_name,
            "--out": out,
        }
        longer = command_of(given, options | {"--max-steps": 2 * resolved.max_steps})
        _print_next(folder, out, longer, name, compared)
    return 0


def _print_next(folder: Path, out: Path, longer: str, name: str, compared: Comparison | None) -> None:
    """Print what can be done with a finished run, and in the last line which model is better."""
    complain(f"try it: chromatune colorize PHOTO --model {shlex.quote(str(folder))}", "note")
    complain(f"train longer: {longer}", "note")
    complain(f"report with curves and samples: {out / 'report.html'}", "note")
    if compared is not None:
        print_status(outcome(compared, name))


def checked_name(name: str) -> str:
    """Return the name of a run without blanks around it.

    Raises:
        OptionsError: it is empty, too long, or more than a line.
    """
    from chromatune.pipeline import LONGEST_LABEL

    if not 0 < len(name.strip()) <= LONGEST_LABEL or not name.isprintable():
        raise OptionsError(f"--name {shown(name)}: accepted is one line of 1 to {LONGEST_LABEL} characters")
    return name.strip()


def outcome(compared: Comparison, name: str) -> str:
    """Return the command's last line: which model is better, and what to do where it is not the new one."""
    return f"{compared.sentence(name)} {compared.advice}" if compared.verdict == "worse" else compared.sentence(name)


def command_of(source: str, options: Mapping[str, Any]) -> str:
    """Return a command as it is typed, with those options that were given; `max_steps` among --set is left out."""
    words = ["chromatune", "finetune", source]
    for option, value in options.items():
        if value is True:
            words.append(option)
        for each in value if isinstance(value, list) else [value]:
            if each is not None and not isinstance(each, bool) and not str(each).startswith("max_steps"):
                words += [option, str(each)]
    return shlex.join(words)


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
    headline: str, track: list[str] | None, name: str,
) -> tuple[Path, Comparison | None] | None:  # fmt: skip
    """Train, and return the model's folder and how it compares; None in all but one of several processes."""
    from chromatune.data import OWN_RESULT, Source, check_outside, is_stream, open_source, open_stream
    from chromatune.pipeline import check_replaceable

    if not is_stream(source):
        check_outside(out, source)
    photos = open_stream(source) if is_stream(source) else open_source(source)
    if not quiet and isinstance(photos, Source):
        note_own_results(photos.skipped.get(OWN_RESULT, 0))

    from chromatune.evaluation import score_result  # this late, as they load OpenCV and torch
    from chromatune.reports import require_pages
    from chromatune.training import UNTOUCHED, compare, cost_of, model_folder, save_result, train

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

    with progress_of_run(quiet, settings.validate_every) as (start_stage, on_row):
        result = train(
            photos, model, settings, out,
            score=score_result, on_row=on_row, start_stage=start_stage, on_warning=warn, on_start=tell,
            cache_dir=shared_cache(), track=track, untouched=UNTOUCHED,
        )  # fmt: skip
    if not result.is_main:
        return None
    folder = save_result(result, source, preset, name=name, export_onnx=export_onnx)
    return folder, compare(out, result.best_step)


@contextmanager
def progress_of_run(quiet: bool, validate_every: int) -> Iterator[tuple[StartStage, OnRow]]:
    """Yield callbacks that show stages and rows of a run: a bar on a terminal, lines elsewhere, nothing when quiet."""
    if quiet:
        with stages(shown=False) as start_stage:
            yield start_stage, lambda row: None
        return
    pace = Pace(validate_every)
    if not sys.stderr.isatty():

        def print_row(row: dict[str, Any]) -> None:
            note = pace.note(row)
            train = row["kind"] == "train"
            print_status(f"update {row['step']}/{row['of']}: {note}" if train else _validation_line(row))

        yield line_stages, print_row
        return
    with make_bar(note=True, transient=False) as bar:
        task = bar.add_task("starting", total=None, note="")

        def start_stage(name: str, length: int) -> Advance:
            bar.reset(task, description=name, total=length, note="")
            return lambda: bar.advance(task)

        def on_row(row: dict[str, Any]) -> None:
            note = pace.note(row)
            if row["kind"] != "train":
                bar.console.print(_validation_line(row), highlight=False)
                return
            if bar.tasks[0].description != "training":
                bar.reset(task, description="training", total=row["of"], completed=row["step"])
            bar.update(task, completed=row["step"], note=note)

        yield start_stage, on_row


class Pace:
    """How fast a run goes, from the times at which its rows come."""

    def __init__(self, validate_every: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._validate_every, self._clock = validate_every, clock
        self._last: tuple[float, dict[str, Any]] | None = None  # time of the last row, and the row
        self._validation_s = 0.0  # of the last validation

    def note(self, row: dict[str, Any]) -> str:
        """Return the loss of a row of training, with pairs a second and the time left once they are known."""
        last, self._last = self._last, (self._clock(), row)
        seconds = self._last[0] - last[0] if last is not None else 0.0
        if row["kind"] != "train":
            if last is not None and last[1]["kind"] == "train":
                self._validation_s = seconds
            return ""
        text = f"loss {row['loss']:.4f}"
        if last is None or last[1].get("step", row["step"]) >= row["step"] or seconds <= 0:
            return text
        updates = row["step"] - last[1]["step"]
        pairs_per_s = updates * row["pairs"] / row["step"] / seconds
        validations = -(-row["of"] // self._validate_every) - row["step"] // self._validate_every
        left = (row["of"] - row["step"]) * seconds / updates + validations * self._validation_s
        return f"{text}, {pairs_per_s:.3g} pairs/s, {format_duration(left)} left"


def _validation_line(row: dict[str, Any]) -> str:
    figures = ", ".join(f"{name} {row[name]:.4g}" for name in SHOWN_METRICS if name in row)
    return f"validation at {row['step']}: {figures}"
