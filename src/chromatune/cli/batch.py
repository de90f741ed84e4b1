"""`chromatune batch`: a folder of photos to a folder of results."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, cast

import typer

from chromatune.cli.colorize import (
    PAGE_NUMBER,
    Blend,
    Device,
    KeepTimes,
    Library,
    MaxMegapixels,
    Model,
    Quiet,
    Strict,
    blended,
)
from chromatune.cli.fields import takes_fields
from chromatune.cli.terminal import complain, format_duration, note_own_results, photo_rate, print_line, print_table
from chromatune.errors import MissingExtraError, OptionsError, count_of, shown
from chromatune.options import ColorizeOptions, check_recompose, make_options

if TYPE_CHECKING:
    from chromatune.jobs import ArchiveRecord, ArchiveReport, Catalog, Colored, EngineName, PlannedPhoto


@takes_fields(make_options)
def batch_command(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Folder of photos, searched recursively, or a URL such as s3://bucket/scans.",
        ),
    ],
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="Folder for the results, in the same subfolders, made if missing.")
    ],
    model: Model = "mini",
    blend: Blend = None,
    options: ColorizeOptions,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="Photos colorized at the same time, while others are read and written.",
            show_default="one per core, up to 8, or all of a cluster",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(metavar="local|ray", help="Engine: threads of this process, or Ray processes (extra ray)."),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Ray cluster to use, with --engine ray.", show_default="this machine"),
    ] = None,
    records_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Local folder for the manifest, failures and summary, if DEST is a URL or has no file locks.",
            show_default="DEST",
        ),
    ] = None,
    glob: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Photos to colorize, by name such as '*.tif', or by path below SOURCE such as '1920/*'; repeatable.",
            show_default="all",
        ),
    ] = None,
    hints_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder of painted layers, in the same subfolders as the photos and named like them.",
            show_default="none",
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep running and colorize photos as they arrive in SOURCE, until Ctrl-C.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the photos that would be colorized and why; change nothing.")
    ] = False,
    moved: Annotated[bool, typer.Option("--moved", help="SOURCE was moved or renamed since the last run.")] = False,
    colored: Annotated[
        str,
        typer.Option(
            metavar="skip|copy|recolor",
            help="Photos that are already in color: skip them, copy them unchanged, or colorize them like the others.",
        ),
    ] = "skip",
    page: Annotated[
        str | None,
        typer.Option(metavar="N", help="Page of files with several pictures.", show_default="the main picture"),
    ] = None,
    device: Device = None,
    runtime: Library = None,
    strict: Strict = False,
    keep_times: KeepTimes = False,
    max_megapixels: MaxMegapixels = 150.0,
    quiet: Quiet = False,
) -> int:
    """Colorize all photos below a folder into another folder; run it again to resume.

    Photos whose result is up to date (same photo, options and model) are skipped. A photo that fails gives a line on
    standard error and in DEST/failures.jsonl, the run continues, and the exit code is 1. See DEST/summary.html for an
    overview: each photo before and after.

    A file chromatune.toml in a folder of SOURCE sets options for the photos there and below, such as strength = 0.8.
    """
    if hints_dir is not None:
        check_recompose(options, "--hints-dir needs")

    from chromatune.jobs import ArchiveSettings, colorize_archive, open_store, plan_archive

    chosen = _check_engine(engine, ray_address)
    settings = ArchiveSettings(
        source=open_store(source),
        destination=open_store(destination),
        layers=None if hints_dir is None else open_store(hints_dir),
        model=blended(model, blend),
        options=options,
        page=None if page is None else _check_page(page),
        device=device,
        runtime=runtime,
        strict=strict,
        max_pixels=round(max_megapixels * 1e6),
        keep_times=keep_times,
        colored=_check_colored(colored),
    )
    progress = _Progress(quiet)
    if dry_run:
        return _print_plan(*plan_archive(settings, globs=glob or (), records_dir=records_dir, progress=progress))
    report = colorize_archive(
        settings,
        globs=glob or (),
        records_dir=records_dir,
        moved=moved,
        engine=chosen,
        workers=workers,
        ray_address=ray_address,
        watch=watch,
        progress=progress,
    )
    if report.summary is not None:
        print_line(report.summary)
    elif not quiet:
        complain(f"no summary page: {MissingExtraError('it', 'batch')}", "note")
    for problem in report.problems:
        complain(problem, "warning")
    if not quiet:
        if report.sidecars:
            complain(f"{count_of(report.sidecars, 'XMP sidecar')} copied beside the results", "note")
        _note_colored(report)
    if report.failed:
        photos_have = count_of(report.failed, "photo has", "photos have")
        complain(f"{photos_have} no result; see {report.failures_file}", "note")
    return 1 if report.failed else 0


def _check_page(page: str) -> int:
    if page == "all":
        raise OptionsError(
            "--page all is for chromatune colorize; batch makes one result a photo: give a number from 1"
        )
    if not PAGE_NUMBER.fullmatch(page):
        raise OptionsError(f"--page {shown(page)}: accepted is a number from 1")
    return int(page)


def _check_colored(name: str) -> Colored:
    if name in ("skip", "copy", "recolor"):
        return cast("Colored", name)
    raise OptionsError(f"--colored {shown(name)}: unknown; accepted: skip, copy, recolor")


def _note_colored(report: ArchiveReport) -> None:
    """Print how many photos are already in color, and what was done with them."""
    if report.skipped:
        them = count_of(report.skipped, "photo is already in color and was", "photos are already in color and were")
        advice = "give --colored copy to copy such photos, or --colored recolor to colorize them"
        complain(f"{them} skipped; {advice}", "note")
    if report.copied:
        them = count_of(report.copied, "photo is already in color and was", "photos are already in color and were")
        complain(f"{them} copied", "note")


def _check_engine(name: str, address: str | None) -> EngineName:
    if name == "local":
        if address is not None:
            raise OptionsError("--ray-address goes with --engine ray")
        return "local"
    if name != "ray":
        raise OptionsError(f"--engine {shown(name)}: unknown; accepted: local, ray")

    from chromatune.cluster import check_address, require_ray

    require_ray("--engine ray")
    if address is not None:
        try:
            check_address(address)
        except OptionsError as error:
            raise OptionsError(f"--ray-address {error}") from None
    return "ray"


def _print_plan(planned: list[PlannedPhoto], done: int) -> int:
    """Print why each photo would be done, and a count of each reason; return the exit code."""
    print_table([(str(each.reason), each.job.photo) for each in planned], header=("why", "photo"))
    counts = Counter(str(each.reason) for each in planned)
    summed_up = ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "nothing"
    complain(f"to be done: {summed_up}; already done: {done}", "note")
    return 0


class _Progress:
    """Progress of a run: lines for skipped results, failures and warnings, and a bar."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet

    def listed(self, catalog: Catalog) -> None:
        """Print which parts of the source are skipped."""
        note_own_results(catalog.own_results)
        if (names := catalog.folder_settings.names) and not self._quiet:
            files = count_of(len(catalog.folder_settings.labels), "chromatune.toml", "chromatune.toml files")
            complain(f"settings in {files} ({', '.join(names)}) take precedence over the command line", "note")
        if catalog.left_out:
            files, first = count_of(len(catalog.left_out), "picture"), shown(catalog.left_out[0])
            advice = "give them a name that ends in .jpg, .tif … to colorize them"
            complain(f"skipped {files} by name, such as {first}; {advice}", "warning")
        if catalog.closed_folders:
            closed = count_of(catalog.closed_folders, "folder")
            source = catalog.settings.source.name
            complain(f"{closed} in {source} cannot be opened; the photos there are skipped", "warning")
        if catalog.refused:
            files, source = count_of(len(catalog.refused), "file"), catalog.settings.source.name
            first = shown(catalog.refused[0])
            complain(
                f"skipped {files} in {source} with a name that could lead out of the folder, such as {first}", "warning"
            )

    def planned(self, planned: Sequence[PlannedPhoto]) -> None:
        """Print how many results of other settings are about to be replaced, and how to keep such."""
        count = sum(each.reason == "other settings" for each in planned)
        if count and not self._quiet:
            them = count_of(count, "photo was", "photos were")
            advice = "to keep a folder's settings, put them into a chromatune.toml there"
            complain(f"{them} colorized with other settings and will be colorized again; {advice}", "note")

    def watching(self, catalog: Catalog) -> None:
        """Print how to stop it."""
        if not self._quiet:
            complain(f"watching {catalog.settings.source.name}; Ctrl-C stops it", "note")

    @contextmanager
    def colorizing(self, photos: int, done: int) -> Iterator[Callable[[ArchiveRecord], None]]:
        """Show a bar, a line for each failure and warning, and at the end the speed."""
        if done and not self._quiet:
            complain(f"{count_of(done, 'photo is', 'photos are')} already done", "note")
        printed: set[str] = set()
        start, made = time.monotonic(), 0
        with photo_rate("colorizing", photos, shown=not self._quiet) as advance:

            def show(record: ArchiveRecord) -> None:
                nonlocal made
                if record.state == "failed":
                    complain(record.message)
                elif not self._quiet:
                    for warning in (*(f"{record.photo}: {each}" for each in record.warnings), *record.notes):
                        if warning not in printed:
                            complain(warning, "warning")
                            printed.add(warning)
                made += record.state == "done"
                advance()

            yield show
        if made and not self._quiet:
            seconds = time.monotonic() - start
            speed = f"{count_of(made, 'photo')} in {format_duration(seconds)}, {made / seconds:.2f} photos/s"
            complain(speed, "note")
