"""`python -m studies.paper`, from the root of the repository: the paper's open questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chromatune.cli import (
    command_line_of,
    complain,
    print_line,
    require_torch,
    run_app,
    shared_cache,
    stages,
    takes_fields,
)
from chromatune.errors import OptionsError, count_of
from chromatune.evaluation import NamedFolder
from chromatune.options import Flag, options_error

NAME = "python -m studies.paper"

app = typer.Typer(
    help="Answer the paper's open questions by measurement.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class RunSettings(BaseModel):
    """Which experiment is run, on which photos, and how long."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # help needs the fields alone

    name: str = Field(description="One of `list`.")
    data: Annotated[tuple[str, ...], Flag(metavar="[ROLE=]SOURCE", unset="none")] = Field(
        default=(),
        description="Photos for a role, a folder or KIND:PATH; without ROLE for the only one; repeatable. With none, "
        "budget quick takes pieces of the photos that scikit-image ships.",
    )
    model: Annotated[str | None, Flag(unset="the experiment's, mini-base")] = Field(
        default=None, description="Model that is fine-tuned."
    )
    preset: Annotated[str | None, Flag(unset="quick for mini-base and mini, paper for others")] = Field(
        default=None, description="Preset of the training, to whose rate and updates the experiment's are relative."
    )
    settings: Annotated[tuple[str, ...], Flag("--set", metavar="NAME=VALUE", unset="none")] = Field(
        default=(), description="One setting of the training or of the budget, overrides all others; repeatable."
    )
    budget: Annotated[Literal["quick", "full"], Flag(always=True)] = Field(
        default="quick", description="quick: minutes, to see that it runs; full: hours, to answer."
    )
    results: Annotated[tuple[NamedFolder, ...], Flag(metavar="NAME=DIR", unset="none")] = Field(
        default=(), description="Another tool's results, included in every test."
    )
    size_px: Annotated[int, Flag("--size")] = Field(
        default=256, ge=32, description="Side, in pixels, of the squares compared."
    )


def make_run_settings(**fields: Any) -> RunSettings:
    """Return validated `RunSettings`.

    Raises:
        OptionsError: one line that names the first field that is wrong, what was given and what is accepted.
    """
    try:
        return RunSettings(**fields)
    except ValidationError as error:
        raise options_error(error, RunSettings, "setting") from None


@app.command("list")
def list_command() -> int:
    """List the experiments: question, photos they need, number of runs."""
    from studies.paper.declaration import experiments

    for name, experiment in experiments().items():
        runs = sum(arm.train is not None for arm in experiment.arms) * experiment.budgets["full"].seeds
        print(f"{name}: {experiment.question}")
        for role, what in experiment.roles.items():
            print(f"  --data {role}=SOURCE   {what}")
        claims = count_of(len(experiment.claims), "claim")
        made = count_of(runs, "training run")
        print(f"  {count_of(len(experiment.arms), 'arm')}, {made} at full budget, {claims}")
    return 0


@app.command("run")
@takes_fields(make_run_settings)
def run_command(
    *,
    settings: RunSettings,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder of the experiment.", show_default="experiment-NAME"),
    ] = None,
) -> int:
    """Run an experiment: train, measure, judge; prints the verdicts and the report's path.

    Stop it at any time: the same command resumes, and repeats no finished run.
    """
    from studies.paper.declaration import find

    experiment = find(settings.name)
    typed = sources_by_role(settings.data, experiment.roles)
    folder = out or Path(f"experiment-{settings.name}")
    require_torch("an experiment", "train")

    from studies.paper.experiment import run_experiment
    from studies.paper.findings import write_findings
    from studies.paper.photos import write_examples

    data = typed
    if not typed and settings.budget == "quick":
        data = dict.fromkeys(experiment.roles, str(write_examples(folder / "examples")))
    with stages() as start_stage:
        findings = run_experiment(
            experiment, settings.budget, data, folder,
            model=settings.model, preset=settings.preset, overrides=settings.settings,
            results=settings.results, square_px=settings.size_px, cache_dir=shared_cache(),
            start_stage=start_stage, on_warning=lambda line: complain(line, "warning"),
        )  # fmt: skip
        report = write_findings(findings, public_command(settings, typed))
    for judged in findings.judged:
        estimate = f"{judged.value:.3g}, {judged.low:.3g} … {judged.high:.3g}"
        print_line(f"{judged.verdict}: {judged.claim.text} ({estimate})")
    print_line(report)
    return 0


def sources_by_role(typed: Iterable[str], roles: Iterable[str]) -> dict[str, str]:
    """Return role ⇒ source; "" for a source without one. A path may hold a sign of equality too.

    Raises:
        OptionsError: a role has two sources.
    """
    known, data = set(roles), dict[str, str]()
    for text in typed:
        role, sign, source = text.partition("=")
        if not (sign and (role in known or not Path(text).exists())):
            role, source = "", text
        if role in data:
            raise OptionsError("--data: a role is given twice; give each once", "data")
        data[role] = source
    return data


def public_command(settings: RunSettings, data: dict[str, str]) -> str:
    """Return the command that does this again, with the folders of the photos left to the reader."""
    sources: list[str] = []
    for role, source in data.items():
        kind, colon, path = source.rpartition(":")
        sources.append((f"{role}=" if role else "") + f"{kind}{colon}{Path(path).name}")
    shown = settings.model_copy(update={"data": tuple(sources)})
    return command_line_of((*NAME.split(), "run"), shown)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; see `chromatune.cli.run_app`."""
    return run_app(app, arguments, NAME)


if __name__ == "__main__":
    raise SystemExit(main())
