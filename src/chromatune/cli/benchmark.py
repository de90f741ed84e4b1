"""`chromatune benchmark`: colorizers on a published set, with published figures beside theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chromatune.cli.evaluate import report_evaluation
from chromatune.cli.fields import command_line_of, takes_fields
from chromatune.cli.terminal import print_line, stages
from chromatune.evaluation import BenchmarkSettings, make_benchmark_settings


@takes_fields(make_benchmark_settings)
def benchmark_command(
    *,
    settings: BenchmarkSettings,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for scores and report.")] = Path(
        "benchmark"
    ),
) -> int:
    """Measure colorizers on a published set of photos or videos, with published figures beside theirs.

    Photos are made square as published, 256 pixels, gray ones too. The names of the files are compared with the
    published list, and a line says each difference of the protocols. An interrupted run on photos resumes. Exit code 1:
    photos or results could not be read; the report lists them.
    """
    from chromatune.evaluation import (
        VIDEO_SUMMARY_FILE,
        beside_published,
        evaluate_set,
        evaluate_videos,
        is_video_set,
        remarks,
        video_table,
    )
    from chromatune.reports import markdown_table

    command = command_line_of(("chromatune", "benchmark"), settings, "--out", str(out))
    if is_video_set(settings.name):
        with stages() as start_stage:
            summary = evaluate_videos(settings, out, command=command, start_stage=start_stage)
        print(markdown_table(video_table(summary)))
        for remark in remarks(summary):
            print_line(remark)
        print_line(out / VIDEO_SUMMARY_FILE)
        return 0
    with stages() as start_stage:
        evaluation = evaluate_set(settings, out, command=command, start_stage=start_stage)
    return report_evaluation(evaluation, beside_published(evaluation.summary))
