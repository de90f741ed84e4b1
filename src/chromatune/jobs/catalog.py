"""The photos of an archive: which there are, which are to be colorized and why, and the outcome of each."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from chromatune.errors import ChromaTuneError, OptionsError, PhotoError, first_line, printable
from chromatune.files import LineFile, remove_below, write_below
from chromatune.hints import LAYER_SUFFIXES
from chromatune.jobs.archive_worker import ArchiveJob, ArchiveRecord, ArchiveSettings, Engine, joined_stamp
from chromatune.jobs.folder_settings import FolderSettings, PhotoSettings
from chromatune.jobs.manifest import FAILURES_FILE, Manifest, ResultNames, Row, State, name_parts
from chromatune.jobs.store_protocol import STATE_FOLDER, SourceGoneError
from chromatune.pipeline import model_info, weights_hash

PIXELS_VERSION = 3  # raised when the same photo, options and weights give other pixels: then all are done again
STRICT = " strict"  # after the key of a result whose photo was read so
MOST_SIDECAR_BYTES = 16_000_000  # of an XMP file
THUMBNAILS = f"{STATE_FOLDER}/thumbnails"
FAILURE_KEYS = ("photo", "message")
COLORED_STATES = {"skip": "skipped", "copy": "copied", "recolor": "done"}  # of a photo that is in color already


class Reason(StrEnum):
    """Why a photo is to be colorized."""

    NEW = "new"
    CHANGED = "changed"  # or only its time is another: its content decides
    SETTINGS = "other settings"
    MISSING = "result missing"
    FAILED = "failed before"


@dataclass(frozen=True)
class ListedPhoto:
    """A photo as it was listed.

    Attributes:
        stamp: of the photo and its layer.
        settings: of its folder.
        key: of those settings, see `settings_key`.
        suffix: that its name has, or should have.
        layer: key of its painted layer; None for none.
        problem: why it cannot be colorized, as far as names tell; empty if it can.
    """

    stamp: str
    settings: PhotoSettings
    key: str
    suffix: str
    layer: str | None = None
    problem: str = ""


@dataclass(frozen=True)
class PlannedPhoto:
    """A photo that is to be colorized, and why."""

    job: ArchiveJob
    listed: ListedPhoto
    reason: Reason


class HaltedError(PhotoError):
    """The run cannot go on: the destination cannot be written, or the source is gone."""


class Catalog:
    """The photos of one source and their results in one destination."""

    def __init__(self, settings: ArchiveSettings, manifest: Manifest, folder: Path, globs: Sequence[str] = ()) -> None:
        """Read the manifest.

        Args:
            settings: of all photos.
            manifest: of the destination.
            folder: of this machine, for `failures.jsonl`: the destination, where that is one.
            globs: patterns of names, or of keys where they have a slash; a photo that fits one is wanted, all without.

        Raises:
            ModelError: the model is unknown.
            DataError: the manifest is damaged.
        """
        self.settings, self.folder, self._manifest = settings, folder, manifest
        self._globs = [each.lower() for each in globs]
        self._usual = PhotoSettings(settings.options, settings.page)
        self._keys = {self._usual: settings_key(settings)}
        self._planned_keys: dict[str, str] = {}
        self.rows = {row.photo: row for row in manifest.rows()}
        self._names = ResultNames({photo: row.result for photo, row in self.rows.items()})
        self.listed: dict[str, ListedPhoto] = {}
        self.own_results = self.closed_folders = 0
        self.refused: tuple[str, ...] = ()
        self.left_out: tuple[str, ...] = ()
        self._sidecars: tuple[str, ...] = ()
        self.folder_settings = FolderSettings(settings.source, (), self._usual)
        self._halted = ""

    @property
    def failures_file(self) -> Path:
        """The file with a line for each photo that failed."""
        return self.folder / FAILURES_FILE

    def find(self) -> dict[str, ListedPhoto]:
        """List all photos of the source that are wanted, sorted by key.

        Raises:
            HaltedError: the source is gone.
            OptionsError: the settings of a folder cannot be read, or are wrong.
        """
        try:
            found = self.settings.source.find()
            layers = {} if self.settings.layers is None else self.settings.layers.find().stamps
        except SourceGoneError:
            raise HaltedError(
                f"{printable(self.settings.source.name)} is gone: it was deleted, or its drive was disconnected"
            ) from None
        self.own_results, self.closed_folders = found.own_results, found.closed_folders
        self.refused, self.left_out, self._sidecars = found.refused, found.left_out, found.sidecars
        hinted = self.settings.layers is not None
        self.folder_settings = FolderSettings(self.settings.source, found.settings_files, self._usual, hinted=hinted)
        wanted = {key: stamp for key, stamp in found.stamps.items() if self._is_wanted(key)}
        suffixes = {key: found.suffixes.get(key, os.path.splitext(key)[1]) for key in wanted}
        self.listed = {key: self._listed(key, stamp, suffixes[key], layers) for key, stamp in wanted.items()}
        return self.listed

    def plan(self, listed: Mapping[str, ListedPhoto]) -> list[PlannedPhoto]:
        """Return what is to be done of photos that were listed, and why."""
        reasons = {photo: reason for photo, each in listed.items() if (reason := self._reason(photo, each.stamp))}
        nameless = {photo: listed[photo].suffix for photo in reasons if not photo.endswith(listed[photo].suffix)}
        names = self._names.names_of(reasons, nameless)
        planned = []
        for photo, reason in reasons.items():
            each = listed[photo]
            suffix = name_parts(photo, nameless.get(photo, ""))[1]
            self._planned_keys[photo] = each.key
            job = ArchiveJob(photo, *names[photo], suffix, each.settings.options, each.settings.page, each.layer)
            if reason is Reason.CHANGED:
                row = self.rows[photo]
                job = dataclasses.replace(job, known_content=row.content, known_result=row.result)
            planned.append(PlannedPhoto(job, listed[photo], reason))
        return planned

    def colorize(self, planned: Sequence[PlannedPhoto], engine: Engine, show: Callable[[ArchiveRecord], None]) -> None:
        """Colorize photos; the outcome of each is saved, then shown. Rows of failed photos that are gone are deleted.

        On Ctrl-C the photos in work are finished and saved.

        Raises:
            HaltedError: no further photo can be done.
            DataError: an outcome cannot be saved.
            ModelError, MissingExtraError, OptionsError: the model cannot be loaded.
        """
        gone = [photo for photo, row in self.rows.items() if row.state == "failed" and photo not in self.listed]
        self._manifest.forget(gone)
        for photo in gone:
            del self.rows[photo]
        self.write_failures()
        lines = LineFile(self.failures_file, FAILURE_KEYS)  # grows while photos are colorized
        with lines as failures, closing(engine.records(self._jobs(planned))) as records:
            for each in planned:
                if each.listed.problem:
                    record = ArchiveRecord(each.job.photo, "failed", each.listed.problem)
                    self._save(record, failures)
                    show(record)
            try:
                for record in records:
                    self._save(record, failures)
                    if record.state != "halted":
                        show(record)
            except KeyboardInterrupt:
                for record in _stop(records):  # that was being saved or shown, or in work
                    self._save(record, failures)
                raise
        if self._halted:
            raise HaltedError(self._halted)

    def commit(self) -> None:
        """Write all rows to the disk."""
        self._manifest.commit()

    def rows_of(self, *states: State) -> list[Row]:
        """Return the rows of photos in the source that are in one of these states, sorted by photo."""
        rows = [self.rows[photo] for photo in sorted(self.listed) if photo in self.rows]
        return [row for row in rows if row.state in states]

    def is_outdated(self, row: Row) -> bool:
        """Return whether a result was made with other options or weights, or of a photo that is now too damaged.

        Where the photo is in color already, whether it is now wanted otherwise.
        """
        if row.state in ("skipped", "copied"):
            return row.state != COLORED_STATES[self.settings.colored]
        key = self.listed[row.photo].key
        lenient = row.settings == key and bool(row.warnings)
        # what passed a strict reading passes any
        return row.settings not in (key, key + STRICT) or (lenient and self.settings.strict)

    def copy_sidecars(self) -> tuple[int, list[str]]:
        """Copy XMP files beside the results of their photos where those there are missing or older.

        `a.xmp` and `a.jpg.xmp` belong to `a.jpg`. Nothing newer is replaced: it may have been edited there.

        Returns:
            The number of copies, and a line for each file that could not be copied.
        """
        by_base: dict[str, list[str]] = {}
        for key in self._sidecars:
            by_base.setdefault(os.path.splitext(key)[0], []).append(key)
        copied, problems = 0, list[str]()
        for row in self.rows_of("done", "copied") if by_base else ():
            stems = os.path.splitext(row.photo)[0], os.path.splitext(row.result)[0]
            for photo, result in ((row.photo, row.result), stems):
                for key in by_base.get(photo, ()):
                    try:
                        copied += self._copy_sidecar(key, result + os.path.splitext(key)[1])
                    except (OSError, PhotoError) as error:
                        reason = getattr(error, "strerror", None) or first_line(error)
                        problems.append(f"{printable(key)}: sidecar not copied ({reason})")
        return copied, problems

    def _copy_sidecar(self, key: str, target: str) -> bool:
        source, destination = self.settings.source, self.settings.destination
        changed, there = source.modified_ns(key), destination.modified_ns(target)
        if there is not None and (changed is None or there >= changed):
            return False
        destination.write(target, source.read_inside(key, MOST_SIDECAR_BYTES), changed)
        return True

    def write_failures(self) -> None:
        """Write `failures.jsonl` anew, a line for each photo that failed; remove it where none did."""
        failed = self.rows_of("failed")
        lines = [json.dumps({"photo": row.photo, "message": row.message}) + "\n" for row in failed]
        if lines:
            write_below(self.folder, FAILURES_FILE, "".join(lines).encode())
        else:
            remove_below(self.folder, FAILURES_FILE)

    def _jobs(self, planned: Iterable[PlannedPhoto]) -> Iterator[ArchiveJob]:
        for each in planned:
            if self._halted:
                return
            if not each.listed.problem:
                yield each.job

    def _save(self, record: ArchiveRecord, failures: LineFile) -> None:
        if record.state == "halted":
            self._halted = record.message
            return
        photo, old = record.photo, self.rows.get(record.photo)
        key = self._planned_keys[photo]
        if record.state == "failed":
            before = old or Row(photo, "failed", "")
            stamp = self.listed[photo].stamp
            # a result that is there stays: a photo may be unreadable for a day
            row = dataclasses.replace(before, state="failed", stamp=stamp, message=record.message, warnings=())
            failures.append([{"photo": photo, "message": record.message}])
        elif record.state == "unchanged" and old is not None:
            row = dataclasses.replace(old, stamp=record.stamp, message="")
        elif record.state == "skipped":
            row = Row(photo, "skipped", record.stamp, record.content, key, pixels=record.pixels)
            if old is not None and old.content == record.content:  # a result that an earlier run made of it stays
                row = dataclasses.replace(row, result=old.result, result_bytes=old.result_bytes)
            self._remove_other(old, row.result)
        else:
            made = record.result, record.result_bytes, record.pixels
            key += STRICT if self.settings.strict else ""
            state: State = "copied" if record.state == "copied" else "done"
            row = Row(photo, state, record.stamp, record.content, key, *made, warnings=record.warnings)
            self._remove_other(old, record.result)
        if record.thumbnail:
            with suppress(OSError):  # the page then shows the files themselves
                write_below(self.folder, f"{THUMBNAILS}/{thumbnail_name(photo)}", record.thumbnail, sync=False)
        self._manifest.put(row)
        self.rows[photo] = row

    def _remove_other(self, old: Row | None, result: str) -> None:
        """Remove the result of an earlier run where the photo is of another kind now: it has one at most."""
        if old is not None and old.result not in ("", result):
            with suppress(OSError):
                self.settings.destination.remove(old.result)

    def _reason(self, photo: str, stamp: str) -> Reason | None:
        row = self.rows.get(photo)
        if row is None:
            return Reason.NEW
        if row.state == "failed":
            return Reason.FAILED
        if self.is_outdated(row):
            return Reason.SETTINGS
        if row.state != "skipped" and self.settings.destination.size(row.result) != row.result_bytes:
            return Reason.MISSING
        return None if row.stamp == stamp else Reason.CHANGED

    def _is_wanted(self, key: str) -> bool:
        lower = key.lower()
        name = lower.rpartition("/")[2]
        return not self._globs or any(fnmatch.fnmatchcase(lower if "/" in glob else name, glob) for glob in self._globs)

    def _listed(self, key: str, stamp: str, suffix: str, layers: Mapping[str, str]) -> ListedPhoto:
        stem = os.path.splitext(key)[0]
        names = dict.fromkeys(base + suffix for base in (key, stem) for suffix in LAYER_SUFFIXES)
        found = [name for name in names if name in layers]
        chosen = self.folder_settings.of(key)
        of_photo = chosen, self._key_of(chosen, key), suffix
        if not found:
            return ListedPhoto(stamp, *of_photo)
        stamp = joined_stamp(stamp, found[0], layers[found[0]])
        if len(found) == 1:
            return ListedPhoto(stamp, *of_photo, found[0])
        first, second = (printable(name) for name in found[:2])
        problem = f"{printable(key)}: {first} and {second} both look like its painted layer; keep one"
        return ListedPhoto(f"{stamp} {found[1]}", *of_photo, None, problem)

    def _key_of(self, chosen: PhotoSettings, photo: str) -> str:
        """Return the key of a photo's settings; where the model refuses them, its folder's file is named."""
        if chosen not in self._keys:
            changed = dataclasses.replace(self.settings, options=chosen.options, page=chosen.page)
            try:
                self._keys[chosen] = settings_key(changed)
            except ChromaTuneError as error:
                raise OptionsError(f"{self.folder_settings.file_of(photo)}: {error}") from None
        return self._keys[chosen]


def thumbnail_name(photo: str) -> str:
    """Return the path of a photo's thumbnail below `THUMBNAILS`: of its key alone, so that a new one replaces it."""
    digest = hashlib.sha256(os.fsencode(photo)).hexdigest()
    return f"{digest[:2]}/{digest[2:26]}.webp"


def _stop(records: Generator[ArchiveRecord, None, None]) -> Iterator[ArchiveRecord]:
    """Stop an engine, and yield the outcomes that it still has; none if it has stopped by itself."""
    with suppress(KeyboardInterrupt):
        # a new one: the one that is handled would keep the engine's frames, and with them its workers
        yield records.throw(KeyboardInterrupt())
        yield from records


def settings_key(settings: ArchiveSettings) -> str:
    """Return a hash of all that decides a result's pixels beside the photo and its layer.

    Runtime and device are not part of it: what they change is rounding.

    Raises:
        ModelError: the model is unknown.
    """
    info = model_info(settings.model)
    read, _ = info.read(info.resolve(settings.options))  # what the model gets, not how it was said
    facts = {"options": dataclasses.asdict(read), "weights": weights_hash(settings.model), "pixels": PIXELS_VERSION}
    if settings.page is not None:
        facts["page"] = settings.page
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
