"""`chromatune experiment`: the paper's open questions. What loads libraries is imported when a command runs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from chromatune.cli.environment import shared_cache
from chromatune.cli.evaluate_command import named_folder
from chromatune.cli.progress import stages
from chromatune.errors import OptionsError

experiment_app = typer.Typer(help="Answer the paper's open questions by measurement.", rich_markup_mode=None)


@experiment_app.callback(invoke_without_command=True)
def start(context: typer.Context) -> int:
    """Answer the paper's open questions by measurement."""
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)
    return 0


@experiment_app.command("list")
def list_command() -> int:
    """List the experiments: question, photos they need, number of runs."""
    from chromatune.experiments.declaration import experiments

    for name, experiment in experiments().items():
        runs = sum(arm.model is None for arm in experiment.arms) * experiment.budgets["full"].seeds
        print(f"{name}: {experiment.question}")
        for role, what in experiment.roles.items():
            print(f"  --data {role}=SOURCE   {what}")
        print(f"  {len(experiment.arms)} arms, {runs} training runs at full budget, {len(experiment.claims)} claims")
    return 0


@experiment_app.command("run")
def run_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="One of `chromatune experiment list`.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[ROLE=]SOURCE",
            help="Photos for a role, a folder or KIND:PATH; without ROLE for the only one. May be given again.",
            show_default="none",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model that is fine-tuned.", show_default="the experiment's, mini-base")
    ] = None,
    budget: Annotated[
        Literal["quick", "full"], typer.Option(help="quick: minutes, to see that it runs; full: hours, to answer.")
    ] = "quick",
    results: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="Another tool's results, in every test.", show_default="none"),
    ] = None,
    size_px: Annotated[int, typer.Option("--size", min=32, help="Side, in pixels, of the squares compared.")] = 256,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder of the experiment.", show_default="experiment-NAME"),
    ] = None,
) -> int:
    """Run an experiment: train, measure, judge; prints the verdicts and the report's path.

    Stop it at any time: the same command goes on, and repeats no run that was finished.
    """
    from chromatune.experiments.declaration import find

    experiment = find(name)
    pairs = [_role_and_source(text, set(experiment.roles)) for text in data or ()]
    if len({role for role, _ in pairs}) < len(pairs):
        raise OptionsError("--data: one role twice; give each once")
    folder = out or Path(f"experiment-{name}")
    tools = tuple(named_folder(text) for text in results or ())

    from chromatune.experiments.experiment import run_experiment
    from chromatune.experiments.findings import write_findings

    with stages() as start_stage:
        findings = run_experiment(
            experiment, budget, dict(pairs), folder, model=model, results=tools, square_px=size_px,
            cache_dir=shared_cache(), start_stage=start_stage,
        )  # fmt: skip
        report = write_findings(findings, _typed(name, pairs, model, budget, results, size_px))
    for judged in findings.judged:
        came = f"{judged.value:.3g}, {judged.low:.3g} … {judged.high:.3g}"
        print(f"{judged.verdict}: {judged.claim.text} ({came})")
    print(report)
    return 0


def _role_and_source(text: str, roles: set[str]) -> tuple[str, str]:
    """`ROLE=SOURCE`, or a source alone: a path may hold a sign of equality too."""
    role, sign, source = text.partition("=")
    return (role, source) if sign and (role in roles or not Path(text).exists()) else ("", text)


def _typed(
    name: str, pairs: list[tuple[str, str]], model: str | None, budget: str, results: list[str] | None, size_px: int
) -> str:
    """The command that does this again, with the photos' places left to the reader."""
    words = ["chromatune", "experiment", "run", name]
    for role, source in pairs:
        kind, colon, path = source.rpartition(":")
        words += ["--data", f"{role}={kind}{colon}{Path(path).name}" if role else f"{kind}{colon}{Path(path).name}"]
    words += ["--model", model] if model else []
    words += ["--budget", budget]
    for text in results or ():
        words += ["--results", text]
    words += ["--size", str(size_px)] if size_px != 256 else []
    return shlex.join(words)
