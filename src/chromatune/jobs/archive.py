"""A whole archive: colorize the photos of a folder into another one, and go on where an earlier run stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

from chromatune.errors import DataError, OptionsError, PhotoError, WorkInterrupted, count_of, printable
from chromatune.files import claim_run_folder, lock_run_folder
from chromatune.jobs.archive_worker import ArchiveRecord, ArchiveSettings, ArchiveWorker, Engine, LocalEngine
from chromatune.jobs.catalog import Catalog, ListedPhoto, PlannedPhoto
from chromatune.jobs.manifest import Manifest
from chromatune.jobs.store_protocol import STATE_FILE, STATE_FOLDER, Store
from chromatune.jobs.stores import LocalFolder, check_stores
from chromatune.jobs.summary import write_summary

POLL_SECONDS = 2.0
LISTING_SHARE = 0.1  # of the time, at most: a large folder on a slow drive takes long to list

EngineName = Literal["local", "ray"]


class ArchiveProgress(Protocol):
    """Shows how far a run of an archive is."""

    def listed(self, catalog: Catalog) -> None:
        """Show what was found: all photos of the source are listed."""
        return

    def planned(self, planned: Sequence[PlannedPhoto]) -> None:
        """Show what is to be done, before it is begun."""
        return

    def watching(self, catalog: Catalog) -> None:
        """Show that the run waits for photos that arrive."""
        return

    def colorizing(self, photos: int, done: int) -> AbstractContextManager[Callable[[ArchiveRecord], None]]:
        """Return a context in which photos are colorized, and in it, what to call with the outcome of each.

        Args:
            photos: number of those to be colorized.
            done: number of those that need not be.
        """
        return nullcontext(lambda record: None)


class SilentProgress(ArchiveProgress):
    """An `ArchiveProgress` that shows nothing."""


@dataclass(frozen=True)
class ArchiveReport:
    """The state of an archive after a run.

    Attributes:
        photos: number of them in the source.
        done: number of those with a result.
        failed: number of those that could not be colorized.
        skipped: number of those that are in color already and were skipped.
        copied: number of those that are in color already and were copied; they are among those with a result.
        sidecars: number of XMP files that were copied beside results.
        problems: a line for each XMP file that was not.
        failures_file: has a line for each of them, `{"photo": ..., "message": ...}`.
        summary: path of the page; None without the extra `batch`.
    """

    photos: int
    done: int
    failed: int
    skipped: int
    copied: int
    failures_file: Path
    summary: Path | None
    sidecars: int = 0
    problems: tuple[str, ...] = ()


def colorize_archive(
    settings: ArchiveSettings,
    *,
    globs: Sequence[str] = (),
    records_dir: str | None = None,
    moved: bool = False,
    engine: EngineName = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    watch: bool = False,
    progress: ArchiveProgress | None = None,
) -> ArchiveReport:
    """Colorize the photos of a source that have no result yet, and report the state of all.

    Photos that cannot be colorized do not end it; they are counted, and listed in the destination's `failures.jsonl`.

    Args:
        settings: folders, model and options.
        globs: patterns of names, or of keys where they have a slash; a photo that fits one is wanted, all without.
        records_dir: folder of this machine for the archive's records, where the destination is a URL or has no locks.
        moved: the source is the one of earlier runs, under another path.
        engine: threads of this process, or processes of Ray.
        workers: photos computed at the same time; None for one a core, up to 8, or all of a cluster.
        ray_address: of the Ray cluster; None for this machine.
        watch: go on with photos that arrive, until Ctrl-C.
        progress: shows how far it is.

    Raises:
        OptionsError: the folders or options contradict each other, another run works there, or no photo is wanted.
        ModelError, MissingExtraError: the model cannot be loaded, or a library is missing.
        DataError: the archive's records are damaged.
        PhotoError: no further photo can be done: the disk is full, or a folder is gone.
        WorkInterrupted: Ctrl-C; the next run goes on there.
    """
    check_stores(settings.source, settings.destination, settings.layers)
    records = _records_folder(settings.destination, records_dir)
    elsewhere = None if records is settings.destination else settings.destination
    progress = progress or SilentProgress()
    with lock_destination(records, settings.source, moved=moved, results=elsewhere) as manifest:
        catalog = Catalog(settings, manifest, records.path, globs)
        with closing(_load_engine(engine, settings, workers, ray_address)) as chosen:
            if watch:
                _watch(catalog, chosen, progress)
            else:
                listed = _find_photos(catalog, progress)
                planned = catalog.plan(listed)
                progress.planned(planned)
                with _saving(catalog):
                    _colorize(catalog, planned, len(listed) - len(planned), chosen, progress)
        return _make_report(catalog)


def plan_archive(
    settings: ArchiveSettings,
    *,
    globs: Sequence[str] = (),
    records_dir: str | None = None,
    progress: ArchiveProgress | None = None,
) -> tuple[list[PlannedPhoto], int]:
    """Return what `colorize_archive` would do and why, and how many photos are done already; change nothing."""
    check_stores(settings.source, settings.destination, settings.layers)
    records = _records_folder(settings.destination, records_dir)
    with closing(Manifest(records.path / STATE_FOLDER, read_only=True)) as manifest:
        catalog = Catalog(settings, manifest, records.path, globs)
        listed = _find_photos(catalog, progress or SilentProgress())
        planned = catalog.plan(listed)
        return planned, len(listed) - len(planned)


def _records_folder(destination: Store, records_dir: str | None) -> LocalFolder:
    """Return the folder of this machine for the archive's records: its table, failures and page."""
    if records_dir is not None:
        records = LocalFolder(records_dir)
        return (
            destination if isinstance(destination, LocalFolder) and records.address == destination.address else records
        )
    if not isinstance(destination, LocalFolder):
        raise OptionsError(
            f"{printable(destination.name)} is a URL; give --records-dir DIR, a local folder for the manifest, "
            "failures and summary"
        )
    return destination


@contextmanager
def lock_destination(
    records: LocalFolder, source: Store, *, moved: bool = False, results: Store | None = None
) -> Iterator[Manifest]:
    """Open the manifest in a folder, made if missing, and lock out other processes while the block runs.

    Args:
        records: the folder: the destination, or another one where the results go elsewhere.
        source: of the photos; a destination belongs to the source of its first run.
        moved: the source is the one of earlier runs, under another path.
        results: where they go, if elsewhere.

    Raises:
        OptionsError: it belongs to another source, another process works there, or it holds other files.
        DataError: it cannot be written, its file system has no locks, or its records are damaged.
    """
    other = "DEST" if results is None else "--records-dir"
    _check_new(records, other)
    facts = {"source": source.address} | ({} if results is None else {"results": results.address})
    ignored = ("source",) if moved else ()
    advice = "give --records-dir DIR, a folder on a local disk" if results is None else ""
    lock = lock_run_folder(
        records.path, STATE_FILE, facts, "results", ignored=ignored, other=other, without_locks=advice
    )
    with lock:
        if isinstance(results, LocalFolder):
            _check_new(results, "DEST")
            claim = {"source": source.address, "records_dir": records.address}
            claim_run_folder(results.path, STATE_FILE, claim, "results", ignored=ignored, other="DEST")
        with closing(Manifest(records.path / STATE_FOLDER)) as manifest:
            yield manifest


def _check_new(folder: LocalFolder, other: str) -> None:
    """Check that a folder is new, empty, or of an earlier run, and can be written to.

    Raises:
        OptionsError: it is a file, or it has files of something else in it.
        DataError: it cannot be written.
    """
    path, label = folder.path, printable(folder.name)
    if path.exists() and not path.is_dir():
        raise OptionsError(f"{label} is a file; give a folder as {other}")
    try:
        left_by_a_kill = {STATE_FOLDER, ".lock"}
        new = not (path / STATE_FILE).exists() and path.is_dir()
        if new and any(each.name not in left_by_a_kill for each in path.iterdir()):
            raise OptionsError(
                f"{label} is not empty and was not made by chromatune batch; give a new or empty folder as {other}"
            )
        (path / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{label}: cannot be written ({error.strerror}); give another {other}") from error


def _load_engine(name: EngineName, settings: ArchiveSettings, workers: int | None, address: str | None) -> Engine:
    make_worker = partial(ArchiveWorker, settings)
    if name == "local":
        return LocalEngine(make_worker, workers)

    from chromatune.jobs.ray_engine import RayEngine

    return RayEngine(make_worker, workers, address=address, gpu=(settings.device or "").startswith("cuda"))


def _find_photos(catalog: Catalog, progress: ArchiveProgress) -> Mapping[str, ListedPhoto]:
    listed = catalog.find()
    progress.listed(catalog)
    if not listed:
        raise OptionsError(f"{catalog.settings.source.name}: no photos found; check the path and --glob")
    return listed


def _watch(catalog: Catalog, engine: Engine, progress: ArchiveProgress) -> None:
    """Colorize what arrives, until Ctrl-C."""
    progress.watching(catalog)
    with suppress(WorkInterrupted), _saving(catalog):
        for number, arrived in enumerate(arrivals(catalog.find)):
            if number == 0:
                progress.listed(catalog)
            if planned := catalog.plan(arrived):
                _colorize(catalog, planned, 0, engine, progress)
                catalog.write_failures()
                catalog.copy_sidecars()


def arrivals(
    find: Callable[[], Mapping[str, ListedPhoto]], pause: Callable[[float], None] = time.sleep
) -> Iterator[dict[str, ListedPhoto]]:
    """Yield, without end, what is new or changed and is the same in two listings, at least two seconds apart.

    Args:
        find: lists once.
        pause: waits for so many seconds.
    """
    before: Mapping[str, ListedPhoto] = {}
    given: dict[str, ListedPhoto] = {}
    while True:
        start = time.monotonic()
        now = dict(find())
        seconds = time.monotonic() - start
        settled = {key: each for key, each in now.items() if before.get(key) == each and given.get(key) != each}
        given |= settled
        before = now
        yield settled
        pause(max(POLL_SECONDS, seconds / LISTING_SHARE))


def _colorize(
    catalog: Catalog, planned: Sequence[PlannedPhoto], done: int, engine: Engine, progress: ArchiveProgress
) -> None:
    with progress.colorizing(len(planned), done) as show:
        catalog.colorize(planned, engine, show)


@contextmanager
def _saving(catalog: Catalog) -> Iterator[None]:
    """Save the records, whatever ends the block; where it ends early, the error says how to go on."""
    try:
        yield
        catalog.commit()
        catalog.write_failures()
    except KeyboardInterrupt:
        catalog.commit()
        catalog.write_failures()
        raise WorkInterrupted(f"interrupted; {_so_far(catalog)}") from None
    except (DataError, OSError, PhotoError) as error:
        with suppress(DataError, OSError):  # the disk may be what it ended for
            catalog.commit()
        message = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise PhotoError(f"{message}; {_so_far(catalog)}") from error


def _so_far(catalog: Catalog) -> str:
    done = catalog.rows_of("done", "copied", "skipped")
    return f"{len(done)} of {count_of(len(catalog.listed), 'photo')} done; run the same command to resume"


def _make_report(catalog: Catalog) -> ArchiveReport:
    """Copy sidecar files, write the page, and return the state of the archive."""
    sidecars, problems = catalog.copy_sidecars()
    done, failed, skipped = catalog.rows_of("done", "copied"), catalog.rows_of("failed"), catalog.rows_of("skipped")
    copied = sum(row.state == "copied" for row in done)
    summary = write_summary(catalog) if find_spec("jinja2") else None
    counts = len(catalog.listed), len(done), len(failed), len(skipped), copied
    return ArchiveReport(*counts, catalog.failures_file, summary, sidecars, tuple(problems))
