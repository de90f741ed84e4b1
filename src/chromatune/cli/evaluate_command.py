"""`chromatune evaluate`: colorizers measured on photos, side by side. What loads libraries is imported when it runs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chromatune.cli.progress import stages
from chromatune.errors import OptionsError

if TYPE_CHECKING:
    from chromatune.evaluation.evaluation import Evaluation

FLAGS = {
    "source": "SOURCE",
    "models": "--model",
    "results": "--results",
    "size_px": "--size",
    "prompts": "--prompt",
    "split_seed": "--split-seed",
    "batch_size": "--batch-size",
}


def evaluate_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Colour photos: a folder, or KIND:PATH as `chromatune data inspect` takes it."
        ),
    ],
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="MODEL", help="A model to measure; may be given again.", show_default="none"),
    ] = None,
    results: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR",
            help="Another tool's results, named like the photos, at the size of the photos or of the squares; may be "
            "given again.",
            show_default="none",
        ),
    ] = None,
    size_px: Annotated[int, typer.Option("--size", help="Side, in pixels, of the squares compared.")] = 256,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="At most N photos: lowest content hash first.", show_default="all")
    ] = None,
    steps: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Sampling steps; may be given again: a row each.", show_default="model's own"),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompt", help="Instruction; may be given again: a row each.", show_default="model's own"),
    ] = None,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="Folder for scores and report."),
    ] = Path("evaluation"),
    one_per_person: Annotated[bool, typer.Option("--one-per-person", help="One photo of each person.")] = False,
    split: Annotated[
        str, typer.Option(metavar="all|train|validation", help="Half of the source that fine-tuning would split off.")
    ] = "all",
    validation: Annotated[
        str, typer.Option(metavar="SHARE|N", help="Size of the validation half: a share under 1, or photos.")
    ] = "0.1",
    split_seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    keys: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Only photos whose keys this file lists, one a line.", show_default="all"),
    ] = None,
    seen: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Photos that were trained on, to tell how much better the models do there; with --split validation, "
            "its other half is taken.",
            show_default="none",
        ),
    ] = None,
    lpips: Annotated[
        str | None,
        typer.Option(
            metavar="NET:PATH",
            help="Also LPIPS v0.1: NET is alex or vgg, PATH a TorchScript file of it that takes two images in [-1, 1].",
            show_default="none",
        ),
    ] = None,
    fid: Annotated[
        str | None,
        typer.Option(
            metavar="BACKEND:PATH",
            help="Also FID: BACKEND is tf-inception or torchvision-inception, PATH a TorchScript file of it, such as "
            "inception-2015-12-05.pt. Features of all results are kept in DIR.",
            show_default="none",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sampling and of the intervals.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Photos that go through the model at once.")] = 8,
    device: Annotated[
        str | None, typer.Option(help="Where to compute, such as cpu or cuda.", show_default="the best there is")
    ] = None,
) -> int:
    """Measure colorizers on photos: scores of each photo, tables with intervals, and a report with pictures.

    Rows that are always there: the grey photo itself, and every model with and without its own luminance. Run again
    after an interruption, it goes on. Exit code 1: photos or results could not be read; the report lists them.
    """
    fields: dict[str, Any] = {
        "source": source,
        "models": tuple(models or ()),
        "results": tuple(named_folder(text) for text in results or ()),
        "size_px": size_px,
        "limit": limit,
        "steps": tuple(steps or ()),
        "prompts": tuple(prompts or ()),
        "one_per_person": one_per_person,
        "split": split,
        "validation": _share_or_number(validation),
        "split_seed": split_seed,
        "keys": keys,
        "seen": seen,
        "lpips": lpips,
        "fid": fid,
        "seed": seed,
        "batch_size": batch_size,
        "device": device,
    }
    from chromatune.evaluation.settings import make_settings

    try:
        settings = make_settings(**fields)
    except OptionsError as error:
        name, rest = (error.field or "").partition(".")[0], str(error).removeprefix(f"{error.field}=")
        raise OptionsError(f"{FLAGS.get(name, '--' + name)} {rest}" if name in fields else str(error)) from None

    from chromatune.evaluation.evaluation import REPORT_FILE, SUMMARY_FILE, evaluate
    from chromatune.evaluation.summary import notes, tables
    from chromatune.pages import markdown_table

    with stages() as start_stage:
        evaluation = evaluate(settings, out, command=_typed(fields, out), start_stage=start_stage)
    print(markdown_table(tables(evaluation.summary)["Means"]))
    for note in notes(evaluation.summary):
        print(note)
    for name in (REPORT_FILE, SUMMARY_FILE):
        print(out / name)
    return _tell_failures(evaluation)


def named_folder(text: str) -> tuple[str, str]:
    """NAME=DIR in its two parts.

    Raises:
        OptionsError: one of them is missing.
    """
    name, sign, folder = text.partition("=")
    if not (name and sign and folder):
        raise OptionsError(f"--results {text!r}: accepted is NAME=DIR, such as ddcolor=results/ddcolor")
    return name, folder


def _share_or_number(text: str) -> float | int:
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise OptionsError(f"--validation {text!r}: accepted is a share such as 0.1, or a number of photos") from None


def _typed(fields: dict[str, Any], out: Path) -> str:
    """The command that gives this evaluation, in one spelling whatever was typed."""
    words = ["chromatune", "evaluate", fields["source"]]
    for model in fields["models"]:
        words += ["--model", model]
    for name, folder in fields["results"]:
        words += ["--results", f"{name}={folder}"]
    words += ["--size", str(fields["size_px"])]
    for flag, values in (("--steps", fields["steps"]), ("--prompt", fields["prompts"])):
        for value in values:
            words += [flag, str(value)]
    if fields["one_per_person"]:
        words.append("--one-per-person")
    if fields["split"] != "all":
        words += ["--split", fields["split"], "--validation", str(fields["validation"])]
        words += ["--split-seed", str(fields["split_seed"])]
    for name in ("limit", "keys", "seen", "lpips", "fid", "device"):
        if fields[name] is not None:
            words += ["--" + name, str(fields[name])]
    return shlex.join([*words, "--seed", str(fields["seed"]), "--out", str(out)])


def _tell_failures(evaluation: Evaluation) -> int:
    """The exit code, after a line on stderr for each kind of failure."""
    broken = evaluation.unreadable
    if broken:
        print(f"error: {len(broken)} photos cannot be read, the first: {broken[0].detail}", file=sys.stderr)
    if evaluation.failures:
        row, key, reason = evaluation.failures[0]
        count = len(evaluation.failures)
        print(f"error: {count} results have no score, the first: {row}, {key}: {reason}", file=sys.stderr)
    return 1 if broken or evaluation.failures else 0
