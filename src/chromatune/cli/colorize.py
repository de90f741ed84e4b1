"""`chromatune colorize`: photos to their files, a line for each. What loads libraries is imported when it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from chromatune.cli.fields import flags_in_errors, takes_fields
from chromatune.cli.printing import complain
from chromatune.cli.progress import stages
from chromatune.errors import OptionsError
from chromatune.options import ColorizeOptions, make_options

if TYPE_CHECKING:
    from chromatune.batch import Event, Job


@takes_fields(make_options)
def colorize_command(
    *,
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTO", help="Photos to colorize; - reads one from standard input.")
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="A file, for one photo and a name such as x.png; else a folder, made if missing. - writes to "
            "standard output.",
            show_default="NAME.color.EXT beside the photo",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="A name that `chromatune models` lists, an InstructPix2Pix folder, or a hub name.")
    ] = "mini",
    options: ColorizeOptions,
    variants: Annotated[
        int,
        typer.Option(
            min=1,
            help="Results for each photo: NAME.color-1.EXT, -2 ..., of seeds S, S+1 ..., in as many steps as they need "
            "to differ.",
        ),
    ] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos that go through the model at once.")] = 8,
    device: Annotated[
        str | None, typer.Option(help="Where to compute, such as cpu or cuda.", show_default="the best there is")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print failures only.")] = False,
) -> int:
    """Colorize photos and print the path of each result.

    The photos' own files are never changed. One that cannot be colorized gets a line on standard error, the others go
    on, and the exit code is 1.
    """
    each = _of_variants(options, variants, model)

    from chromatune.batch import plan, run_jobs  # here: they load OpenCV, which `--help` does not need

    jobs = plan(photos, out, variants)
    _refuse_terminals(jobs)
    events = run_jobs(
        jobs,
        each,
        model,
        device=device,
        batch_size=batch_size,
        overwrite=overwrite,
        standard_input=sys.stdin.buffer.read() if _reads_standard_input(jobs) else b"",
        standard_output=sys.stdout.buffer if _writes_standard_output(jobs) else None,
    )
    return _tell(events, len(jobs), quiet)


def _of_variants(options: ColorizeOptions, variants: int, model: str) -> list[ColorizeOptions]:
    """The options of each variant: seeds one after the other, in a number of steps that lets them differ."""
    if variants > 1 and options.steps is None:
        from chromatune.bundle import model_info

        options = options.model_copy(update={"steps": model_info(model).variant_steps})
    with flags_in_errors(ColorizeOptions):
        return [make_options(**(dict(options) | {"seed": options.seed + variant})) for variant in range(variants)]


def _reads_standard_input(jobs: Sequence[Job]) -> bool:
    from chromatune.batch import STANDARD_STREAM

    return any(job.source == STANDARD_STREAM for job in jobs)


def _writes_standard_output(jobs: Sequence[Job]) -> bool:
    return any(job.stem is None for job in jobs)


def _refuse_terminals(jobs: Sequence[Job]) -> None:
    """A terminal at either end of a pipe of pictures is a mistake."""
    if _writes_standard_output(jobs) and sys.stdout.isatty():
        raise OptionsError("standard output is a terminal; send it to a file or a program, or give -o FILE")
    if _reads_standard_input(jobs) and sys.stdin.isatty():
        raise OptionsError("standard input is a terminal; send a photo into it: chromatune colorize - < PHOTO")


def _tell(events: Iterable[Event], results: int, quiet: bool) -> int:
    """The exit code, after a line for each result and each failure as it comes."""
    from chromatune.batch import Failed

    code = 0
    with stages(shown=not quiet and results > 1) as start_stage:
        advance = start_stage("colorizing", results)
        for event in events:
            if isinstance(event, Failed):
                complain(event.message)
                code = 1
            elif event.path is not None and not quiet:
                print(event.path, flush=True)  # at once: another program may be waiting for it
            for _ in range(event.results if isinstance(event, Failed) else 1):
                advance()
    return code
