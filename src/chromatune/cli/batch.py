"""`chromatune batch`: a folder of photos to a folder of results. What loads libraries is imported when it runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from chromatune.cli.colorize import Device, Library, MaxMegapixels, Model, Quiet, Strict
from chromatune.cli.fields import takes_fields
from chromatune.cli.printing import complain, note_own_results, print_line, print_table
from chromatune.cli.progress import photo_rate, spoken_time
from chromatune.errors import (
    DataError,
    MissingExtraError,
    OptionsError,
    PhotoError,
    WorkInterrupted,
    count_of,
    printable,
    shown,
)
from chromatune.options import ColorizeOptions, check_recompose, make_options

if TYPE_CHECKING:
    from chromatune.jobs import Archive, Engine, Listed, LocalFolder, MakeWorker, Planned, Store

ENGINES = ("local", "ray")
GO_ON = "the same command goes on"


@takes_fields(make_options)
def batch_command(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Folder of photos; folders in it count, too. It may be a URL such as s3://bucket/scans.",
        ),
    ],
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="Folder for the results, in the same folders, made if missing.")
    ],
    model: Model = "mini",
    options: ColorizeOptions,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="Photos computed at the same time, while others are read and written.",
            show_default="one a core, up to 8, or all of a cluster",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(metavar="local|ray", help="What works: threads of this process, or processes of Ray (extra ray)."),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="The Ray cluster that works, with --engine ray.", show_default="this machine"
        ),
    ] = None,
    records_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder for what is known of the archive, where DEST is a URL.",
            show_default="DEST",
        ),
    ] = None,
    glob: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Photos to take, by name as '*.tif', or by path below SOURCE as '1920/*'; may be given again.",
            show_default="all",
        ),
    ] = None,
    hints_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Painted layers, in the same folders and named like the photos they are of.",
            show_default="none",
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on with photos that arrive, once they are complete, until Ctrl-C.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done and why, and change nothing.")
    ] = False,
    moved: Annotated[
        bool, typer.Option("--moved", help="SOURCE is the folder of earlier runs, under another path.")
    ] = False,
    device: Device = None,
    runtime: Library = None,
    strict: Strict = False,
    max_megapixels: MaxMegapixels = 150.0,
    quiet: Quiet = False,
) -> int:
    """Colorize all photos below a folder into another one, and go on there when called again.

    A photo whose result is there, of the same photo, options and model, is not done again. One that cannot be colorized
    gets a line on standard error and in DEST/failures.jsonl, the others go on, and the exit code is 1.
    DEST/summary.html shows what became of all.
    """
    if hints_dir is not None:
        check_recompose(options, "--hints-dir needs")

    from chromatune.jobs import (
        MARK,
        Archive,
        ArchiveWorker,
        Manifest,
        Room,
        WorkSettings,
        check_stores,
        hold_destination,
        open_store,
    )

    _check_engine(engine, ray_address)
    photos, results = open_store(source), open_store(destination)
    layers = None if hints_dir is None else open_store(hints_dir)
    check_stores(photos, results, layers)
    records = _records(results, records_dir)
    settings = WorkSettings(model, options, device, runtime, strict, round(max_megapixels * 1e6))
    if dry_run:
        with closing(Manifest(records.path / MARK, read_only=True)) as manifest:
            return _tell_plan(Archive(settings, photos, results, manifest, records.path, layers, glob or ()))
    elsewhere = None if records is results else results
    with hold_destination(records, photos, moved=moved, results=elsewhere) as manifest:
        archive = Archive(settings, photos, results, manifest, records.path, layers, glob or ())

        def make_worker(count: int, room: Room) -> ArchiveWorker:
            return ArchiveWorker(settings, photos, results, layers, workers=count, room=room)

        with closing(_engine(engine, make_worker, workers, ray_address, device)) as chosen:
            return (_watch if watch else _work)(archive, chosen, quiet)


def _check_engine(name: str, address: str | None) -> None:
    if name not in ENGINES:
        raise OptionsError(f"--engine {shown(name)}: unknown; accepted: {', '.join(ENGINES)}")
    if name == "ray":
        from chromatune.cluster import check_address, require_ray

        require_ray("--engine ray")
        if address is not None:
            try:
                check_address(address)
            except OptionsError as error:
                raise OptionsError(f"--ray-address {error}") from None
    elif address is not None:
        raise OptionsError("--ray-address goes with --engine ray")


def _records(results: Store, given: str | None) -> LocalFolder:
    """The folder of this machine for what is known of the archive."""
    from chromatune.jobs import LocalFolder

    if isinstance(results, LocalFolder):
        if given is not None:
            raise OptionsError("--records-dir goes with a DEST that is a URL; a folder keeps its own records")
        return results
    if given is None:
        raise OptionsError(
            f"{printable(results.name)} is no folder of this machine; give --records-dir DIR for the table of what is "
            "done, the failures and the page"
        )
    return LocalFolder(given)


def _engine(name: str, make_worker: MakeWorker, workers: int | None, address: str | None, device: str | None) -> Engine:
    if name == "local":
        from chromatune.jobs import LocalEngine

        return LocalEngine(make_worker, workers)
    from chromatune.jobs import RayEngine

    return RayEngine(make_worker, workers, address=address, gpu=(device or "").startswith("cuda"))


def _tell_plan(archive: Archive) -> int:
    """Prints why each photo would be done, and how many there are of each kind."""
    listed = _found(archive)
    planned = archive.plan(listed)
    print_table([(str(each.reason), each.job.photo) for each in planned], header=("why", "photo"))
    counts = Counter(str(each.reason) for each in planned)
    said = ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "nothing"
    complain(f"to be done: {said}; done already: {len(listed) - len(planned)}", "note")
    return 0


def _work(archive: Archive, engine: Engine, quiet: bool) -> int:
    """The exit code, after all that is to be done now."""
    planned = archive.plan(_found(archive))
    done = len(archive.listed) - len(planned)
    if done and not quiet:
        complain(f"{count_of(done, 'photo is', 'photos are')} done already", "note")
    with _ending(archive, quiet):
        _take(archive, planned, engine, quiet)
    return _tell_end(archive, quiet)


def _watch(archive: Archive, engine: Engine, quiet: bool) -> int:
    """The exit code, after Ctrl-C."""
    from chromatune.jobs import arrivals

    if not quiet:
        complain(f"watching {archive.source.name}; Ctrl-C ends it", "note")
    with suppress(WorkInterrupted), _ending(archive, quiet):
        for arrived in arrivals(archive.find):
            if planned := archive.plan(arrived):
                _take(archive, planned, engine, quiet)
                archive.write_failures()
    return _tell_end(archive, quiet)


def _found(archive: Archive) -> Mapping[str, Listed]:
    """The photos of the source, after a line on what is left out."""
    listed = archive.find()
    note_own_results(archive.own_results)
    if archive.closed_folders:
        closed = count_of(archive.closed_folders, "folder")
        complain(f"{closed} of {archive.source.name} cannot be opened, and what is in there is left out", "warning")
    if not listed:
        raise OptionsError(f"{archive.source.name}: no photos in it that are wanted; check the path, and --glob")
    return listed


def _take(archive: Archive, planned: Sequence[Planned], engine: Engine, quiet: bool) -> None:
    """Takes photos through the engine; a line for each failure and warning as it comes, and progress."""
    told: set[str] = set()
    start, made = time.monotonic(), 0
    with photo_rate("colorizing", len(planned), shown=not quiet) as advance:
        for record in archive.run(planned, engine):
            if record.state == "failed":
                complain(record.message)
            elif not quiet:
                for warning in (*(f"{record.photo}: {each}" for each in record.warnings), *record.notes):
                    if warning not in told:
                        complain(warning, "warning")
                        told.add(warning)
            made += record.state == "done"
            advance()
    if made and not quiet:
        seconds = time.monotonic() - start
        said = f"{count_of(made, 'photo')} in {spoken_time(seconds)}, {made / seconds:.2f} photos/s"
        complain(said, "note")


@contextmanager
def _ending(archive: Archive, quiet: bool) -> Iterator[None]:
    """Whatever ends the block, what was done is written down; where it ends early, one line says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        archive.commit()
        archive.write_failures()
        raise WorkInterrupted(f"interrupted; {_so_far(archive)}") from None
    except (DataError, OSError, PhotoError) as error:
        with suppress(DataError, OSError):  # the disk may be what it ended for
            archive.commit()
        message = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise PhotoError(f"{message}; {_so_far(archive)}") from error
    archive.commit()
    archive.write_failures()


def _so_far(archive: Archive) -> str:
    done, _ = archive.done_and_failed()
    return f"{len(done)} of {count_of(len(archive.listed), 'photo')} done, {GO_ON}"


def _tell_end(archive: Archive, quiet: bool) -> int:
    """The exit code, after the page was written and its path told."""
    done, failed = archive.done_and_failed()
    if find_spec("jinja2"):
        from chromatune.jobs import write_summary

        print_line(write_summary(archive, archive.folder))
    elif not quiet:
        complain(f"no summary page: {MissingExtraError('it', 'batch')}", "note")
    if failed:
        them = count_of(len(failed), "photo has", "photos have")
        complain(f"{them} no result; see {archive.failures_file}", "note")
    return 1 if failed else 0
