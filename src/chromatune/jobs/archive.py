"""An archive: a folder of photos, the folder of their results, and what is known of both."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from chromatune.errors import DataError, OptionsError, PhotoError, printable
from chromatune.files import LineFile, atomic_write, lock_run_folder
from chromatune.hints import LAYER_SUFFIXES
from chromatune.jobs.archive_worker import ArchiveJob, ArchiveRecord, WorkSettings, joined_stamp
from chromatune.jobs.local_engine import Engine
from chromatune.jobs.manifest import Manifest, Row
from chromatune.jobs.result_names import ResultNames
from chromatune.jobs.stores import MARK, NOTE, LocalFolder, SourceGoneError, Store
from chromatune.pipeline import model_info, weights_hash

PIXELS = 2  # raised when the same photo, options and weights give other pixels: then all photos are done again
STRICT = " strict"  # after the key of a result whose photo was read so
FAILURES_FILE = "failures.jsonl"
FAILURE_KEYS = ("photo", "message")


class Reason(StrEnum):
    """Why a photo is to be colorized."""

    NEW = "new"
    CHANGED = "changed"  # or only its time is another: its content decides
    SETTINGS = "other settings"
    MISSING = "result missing"
    FAILED = "failed before"


@dataclass(frozen=True)
class Listed:
    """A photo as it was found.

    Attributes:
        stamp: of the photo and its layer.
        layer: key of its painted layer; None for none.
        problem: why it cannot be colorized, as far as names tell; empty if it can.
    """

    stamp: str
    layer: str | None = None
    problem: str = ""


@dataclass(frozen=True)
class Planned:
    """A photo that is to be colorized, and why."""

    job: ArchiveJob
    listed: Listed
    reason: Reason


class HaltedError(PhotoError):
    """The run cannot go on: the destination takes nothing, or the source is gone."""


class Archive:
    """What is to be done, and what was done, of one source and destination."""

    def __init__(
        self,
        settings: WorkSettings,
        source: Store,
        destination: Store,
        manifest: Manifest,
        folder: Path,
        layers: Store | None = None,
        globs: Sequence[str] = (),
    ) -> None:
        """Reads what is known.

        Args:
            settings: of all photos.
            source: of the photos.
            destination: of the results.
            manifest: what is known of them.
            folder: of this machine, for `failures.jsonl`: the destination, where that is one.
            layers: of painted layers, where there are any.
            globs: patterns of names, or of keys where they have a slash; a photo that fits one is wanted, all without.

        Raises:
            ModelError: the model is unknown.
            DataError: the manifest is damaged.
        """
        self.settings, self.destination, self.source = settings, destination, source
        self._layers, self._manifest, self.folder = layers, manifest, folder
        self._globs = [each.lower() for each in globs]
        self.key = settings_key(settings)
        self._good_keys = self.key, self.key + STRICT  # what passed a strict reading passes any
        self.rows = {row.photo: row for row in manifest.rows()}
        self._names = ResultNames({photo: row.result for photo, row in self.rows.items()})
        self.listed: dict[str, Listed] = {}
        self.own_results = self.closed_folders = 0
        self._halted = ""

    @property
    def failures_file(self) -> Path:
        """A line for each photo that failed."""
        return self.folder / FAILURES_FILE

    def find(self) -> dict[str, Listed]:
        """All photos of the source that are wanted, sorted by key.

        Raises:
            HaltedError: the source is gone.
        """
        try:
            found = self.source.find()
            layers = {} if self._layers is None else self._layers.find().stamps
        except SourceGoneError:
            raise HaltedError(f"{printable(self.source.name)} is gone: it was removed, or its drive was") from None
        self.own_results, self.closed_folders = found.own_results, found.closed_folders
        wanted = {key: stamp for key, stamp in found.stamps.items() if self._is_wanted(key)}
        self.listed = {key: self._listed(key, stamp, layers) for key, stamp in wanted.items()}
        return self.listed

    def plan(self, listed: Mapping[str, Listed]) -> list[Planned]:
        """What is to be done of photos that were found."""
        reasons = {photo: reason for photo, each in listed.items() if (reason := self._reason(photo, each.stamp))}
        names = self._names.names_of(reasons)
        return [
            Planned(self._job(photo, names[photo], listed[photo].layer, reason), listed[photo], reason)
            for photo, reason in reasons.items()
        ]

    def run(self, planned: Sequence[Planned], engine: Engine) -> Iterator[ArchiveRecord]:
        """What becomes of the photos, each told after it is written down.

        Raises:
            HaltedError: no further photo can be done.
            DataError: what became of them cannot be written down.
            ModelError, MissingExtraError, OptionsError: the model cannot be loaded.
        """
        with self._failure_lines() as failures:
            for each in planned:
                if each.listed.problem:
                    yield self._keep(ArchiveRecord(each.job.photo, "failed", each.listed.problem), failures)
            for record in engine.records(self._jobs(planned)):
                if record.state == "halted":
                    self._halted = record.message
                    continue
                yield self._keep(record, failures)
        if self._halted:
            raise HaltedError(self._halted)

    def commit(self) -> None:
        """Brings what is known to the disk."""
        self._manifest.commit()

    def done_and_failed(self) -> tuple[list[Row], list[Row]]:
        """Rows of photos that are in the source, those with a result and those without, sorted by photo."""
        rows = [self.rows[photo] for photo in sorted(self.listed) if photo in self.rows]
        return [row for row in rows if row.state == "done"], [row for row in rows if row.state == "failed"]

    def is_of_other_settings(self, row: Row) -> bool:
        """Whether a result was made with other options or another model, or of a photo that is now too damaged."""
        lenient = row.settings == self.key and bool(row.warnings)
        return row.settings not in self._good_keys or (lenient and self.settings.strict)

    def write_failures(self) -> None:
        """Writes `failures.jsonl` anew, a line for each photo that failed; no file where none did."""
        failed = self.done_and_failed()[1]
        lines = [json.dumps({"photo": row.photo, "message": row.message}) + "\n" for row in failed]
        if lines:
            atomic_write(self.failures_file, "".join(lines).encode())
        else:
            self.failures_file.unlink(missing_ok=True)

    @contextmanager
    def _failure_lines(self) -> Iterator[LineFile]:
        """The file of failures, which grows while the photos are done."""
        gone = [photo for photo, row in self.rows.items() if row.state == "failed" and photo not in self.listed]
        self._manifest.forget(gone)
        for photo in gone:
            del self.rows[photo]
        self.write_failures()
        with LineFile(self.failures_file, FAILURE_KEYS) as lines:
            yield lines

    def _jobs(self, planned: Iterable[Planned]) -> Iterator[ArchiveJob]:
        for each in planned:
            if self._halted:
                return
            if not each.listed.problem:
                yield each.job

    def _keep(self, record: ArchiveRecord, failures: LineFile) -> ArchiveRecord:
        """Writes down what became of a photo."""
        photo, old = record.photo, self.rows.get(record.photo)
        if record.state == "failed":
            before = old or Row(photo, "failed", "")
            stamp = self.listed[photo].stamp
            # a result that is there stays: a photo may be unreadable for a day
            row = dataclasses.replace(before, state="failed", stamp=stamp, message=record.message, warnings=())
            failures.append([{"photo": photo, "message": record.message}])
        elif record.state == "kept" and old is not None:
            row = dataclasses.replace(old, state="done", stamp=record.stamp, message="")
        else:
            made = (
                record.content,
                self._good_keys[self.settings.strict],
                record.result,
                record.result_bytes,
                record.pixels,
            )
            row = Row(photo, "done", record.stamp, *made, warnings=record.warnings)
            if old is not None and old.result not in ("", record.result):
                with suppress(OSError):
                    self.destination.remove(old.result)  # the photo is of another kind now: it has one result
        self._manifest.put(row)
        self.rows[photo] = row
        return record

    def _reason(self, photo: str, stamp: str) -> Reason | None:
        row = self.rows.get(photo)
        if row is None:
            return Reason.NEW
        if row.state == "failed":
            return Reason.FAILED
        if self.is_of_other_settings(row):
            return Reason.SETTINGS
        if self.destination.size(row.result) != row.result_bytes:
            return Reason.MISSING
        return None if row.stamp == stamp else Reason.CHANGED

    def _job(self, photo: str, names: tuple[str, str], layer: str | None, reason: Reason) -> ArchiveJob:
        row = self.rows.get(photo)
        if row is not None and reason is Reason.CHANGED:
            return ArchiveJob(photo, *names, layer, content=row.content, made=row.result)
        return ArchiveJob(photo, *names, layer)

    def _is_wanted(self, key: str) -> bool:
        lower = key.lower()
        name = lower.rpartition("/")[2]
        return not self._globs or any(fnmatch.fnmatchcase(lower if "/" in glob else name, glob) for glob in self._globs)

    def _listed(self, key: str, stamp: str, layers: Mapping[str, str]) -> Listed:
        stem = key.rpartition(".")[0]
        names = dict.fromkeys(base + suffix for base in (key, stem) for suffix in LAYER_SUFFIXES)
        found = [name for name in names if name in layers]
        if not found:
            return Listed(stamp)
        stamp = joined_stamp(stamp, found[0], layers[found[0]])
        if len(found) == 1:
            return Listed(stamp, found[0])
        first, second = (printable(name) for name in found[:2])
        return Listed(
            f"{stamp} {found[1]}", None, f"{printable(key)}: {first} and {second} could both be its layer; keep one"
        )


def settings_key(settings: WorkSettings) -> str:
    """A key of all that decides a result's pixels beside the photo and its layer.

    The runtime and the device are left out: what they change is rounding.

    Raises:
        ModelError: the model is unknown.
    """
    resolved = dataclasses.asdict(model_info(settings.model).resolve(settings.options))
    facts = {"options": resolved, "weights": weights_hash(settings.model), "pixels": PIXELS}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


@contextmanager
def hold_destination(
    destination: LocalFolder, source: Store, *, moved: bool = False, results: Store | None = None
) -> Iterator[Manifest]:
    """The manifest of a destination, made if missing, which no other process works in meanwhile.

    Args:
        destination: of the results, or of what is known of them where they go elsewhere.
        source: of the photos; the destination is its from the first time on.
        moved: the source is the one of earlier runs, under another path.
        results: where they go, if elsewhere.

    Raises:
        OptionsError: it is of another source, another process works there, or it holds files and was no destination.
        DataError: it cannot be written, or what is known there is damaged.
    """
    folder, label = destination.path, printable(destination.name)
    if folder.exists() and not folder.is_dir():
        raise OptionsError(f"{label} is a file; give a folder for the results")
    try:
        if not (folder / NOTE).exists() and folder.is_dir() and _has_files(folder):
            raise OptionsError(f"{label} holds files of other work; give a new or empty folder for the results")
        (folder / MARK).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{label}: cannot be written ({error.strerror}); give another DEST") from error
    facts = {"source": source.address} | ({} if results is None else {"results": results.address})
    with lock_run_folder(folder, NOTE, facts, "results", ignored=("source",) if moved else (), other="DEST"):
        manifest = Manifest(folder / MARK)
        try:
            yield manifest
        finally:
            manifest.close()


def _has_files(folder: Path) -> bool:
    left_by_a_kill = {MARK, ".lock"}
    return any(each.name not in left_by_a_kill for each in folder.iterdir())
