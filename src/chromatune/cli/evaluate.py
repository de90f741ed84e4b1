"""`chromatune evaluate`: colorizers measured on photos, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chromatune.cli.fields import command_line_of, flags_in_errors, takes_fields
from chromatune.cli.terminal import complain, note_own_results, print_line, stages
from chromatune.errors import count_of
from chromatune.evaluation import EvaluationSettings, is_video_source, make_settings

if TYPE_CHECKING:
    from chromatune.evaluation import Evaluation


@takes_fields(make_settings)
def evaluate_command(
    *,
    settings: EvaluationSettings,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for scores and report.")] = Path(
        "evaluation"
    ),
) -> int:
    """Measure colorizers on photos: scores of each photo, tables with intervals, and a report with pictures.

    A video in color (or video:DIR, a folder of frames) is measured over time; see docs/video.md.
    Always included: the gray photo itself, and every model with and without the photo's own luminance. An interrupted
    run resumes. Exit code 1: photos or results could not be read; the report lists them.
    """
    command = command_line_of(("chromatune", "evaluate"), settings, "--out", str(out))
    if is_video_source(settings.source):
        return _video(settings, out, command)

    from chromatune.evaluation import evaluate, tables

    with stages() as start_stage:
        evaluation = evaluate(settings, out, command=command, start_stage=start_stage)
    return report_evaluation(evaluation, tables(evaluation.summary)["Means"])


def report_evaluation(evaluation: Evaluation, table: Sequence[Sequence[str]]) -> int:
    """Print a table of an evaluation, what must be read with it and where the rest is; return the exit code."""
    from chromatune.evaluation import REPORT_FILE, SUMMARY_FILE, notes, remarks
    from chromatune.reports import markdown_table

    print(markdown_table(table))
    for line in (*notes(evaluation.summary), *remarks(evaluation.summary)):
        print_line(line)
    note_own_results(evaluation.own_results)
    for name in (REPORT_FILE, SUMMARY_FILE):
        print_line(evaluation.out / name)
    if evaluation.unreadable:
        photos = count_of(len(evaluation.unreadable), "photo")
        complain(f"{photos} cannot be read, the first: {evaluation.unreadable[0].detail}")
    if evaluation.failures:
        row, key, reason = evaluation.failures[0]
        results = count_of(len(evaluation.failures), "result has", "results have")
        complain(f"{results} no score, the first: {row}, {key}: {reason}")
    return 1 if evaluation.unreadable or evaluation.failures else 0


def _video(settings: EvaluationSettings, out: Path, command: str) -> int:
    """Measure models on a video in color; print a table, and the paths of what is written."""
    from chromatune.evaluation import STRIP_FILE, VIDEO_SUMMARY_FILE, check_video_settings, evaluate_video, video_table
    from chromatune.reports import markdown_table

    with flags_in_errors(EvaluationSettings):
        check_video_settings(settings)
    with stages() as start_stage:
        evaluation = evaluate_video(
            settings.source,
            settings.models,
            out,
            finished=settings.results,
            device=settings.device,
            seed=settings.seed,
            command=command,
            start_stage=start_stage,
        )
    print(markdown_table(video_table(evaluation)))
    for name in (STRIP_FILE, VIDEO_SUMMARY_FILE):
        print_line(out / name)
    return 0
