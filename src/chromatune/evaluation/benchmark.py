"""Published sets of photos and videos: which files belong to one, and published rows and their protocol beside ours.

A set is known by the names of its files: how many there are and their hash stand in benchmarks.toml, with what was
published on it, and by whom. What is measured is an evaluation like any other.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from chromatune.errors import DataError, OptionsError
from chromatune.evaluation.evaluation import Evaluation, Published, evaluate
from chromatune.evaluation.settings import VIDEO_PREFIX, VIDEO_SUFFIXES, BenchmarkSettings, make_settings
from chromatune.evaluation.summary import FID, LPIPS
from chromatune.evaluation.videos import evaluate_video, mean_of_videos, write_videos
from chromatune.files import read_regular
from chromatune.images import IMAGE_SUFFIXES, list_folder
from chromatune.options import StartStage, silent

SIZE_PX = 256  # of all published sets of photos
LARGEST_LIST_BYTES = 16 << 20
SAME_CF = 0.02  # the mean CF of the same pixels differs by less: published figures have two digits
HASH_DIGITS = 16  # of a hash that is shown


@dataclass(frozen=True)
class PublishedSet:
    """A set as benchmarks.toml describes it, which says what each field means."""

    title: str
    example: str
    pattern: str
    count: int
    sha256: str
    list_source: str
    rule: str = ""
    square: str = ""
    prepared: str = ""
    fid: str = ""
    truth_cf: float | None = None
    videos: bool = False
    remarks: tuple[str, ...] = ()
    rows: tuple[dict[str, Any], ...] = ()

    @property
    def what(self) -> str:
        """What its files are."""
        return "video" if self.videos else "photo"

    @property
    def ruled_names(self) -> frozenset[str] | None:
        """The names, where they follow a rule."""
        return frozenset(map(self.rule.format, range(1, self.count + 1))) if self.rule else None


@dataclass(frozen=True)
class Listed:
    """Which files of a folder are measured.

    Attributes:
        files: name ⇒ file or key, of those that are there.
        names: of the list, also of those that are not.
        is_published: whether the list is the published one.
    """

    files: Mapping[str, str]
    names: frozenset[str]
    is_published: bool

    @property
    def facts(self) -> dict[str, Any]:
        """The list in protocol.json."""
        return {"listed": len(self.names), "names_sha256": names_hash(self.names), "is_published": self.is_published}


def load_set(name: str) -> PublishedSet:
    """Return a set by its name on the command line."""
    text = resources.files("chromatune.evaluation").joinpath("benchmarks.toml").read_text(encoding="utf-8")
    fields: dict[str, Any] = tomllib.loads(text)[name]
    fields |= {key: tuple(fields.get(key, ())) for key in ("remarks", "rows")}
    return PublishedSet(**fields)


def is_video_set(name: str) -> bool:
    """Return whether a set has videos."""
    return load_set(name).videos


def names_hash(names: Iterable[str]) -> str:
    """Return the SHA-256 over sorted names, each with a newline behind it, hexadecimal: `sort names | sha256sum`."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(names)).encode()).hexdigest()


def read_names(path: Path) -> frozenset[str]:
    """Return the names that a list has, one a line: its first word without folders and a picture's or video's suffix.

    Raises:
        DataError: it cannot be read, or has none.
    """
    try:
        lines = read_regular(path, LARGEST_LIST_BYTES).decode("utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path}: the list of names cannot be read ({error}); give a UTF-8 text file") from error
    names = frozenset(_name_of(line.split()[0]) for line in lines if line.strip())
    if not names:
        raise DataError(f"{path}: the list of names is empty; give one name a line")
    return names


def find_listed(known: PublishedSet, folder: str, names_file: str | None) -> Listed:
    """Return which photos or videos of a folder belong to a set, or to the list that is given instead.

    Raises:
        DataError: there is no such folder, none is there, there are more than the set has and no list says which, or
            two have one name.
    """
    root = Path(folder).expanduser()
    expected = f"{known.count:,} {known.what}s of {known.title}, called like {known.example}"
    if not root.is_dir():
        raise DataError(f"{folder}: no such folder; expected are the {expected}")
    files: dict[str, str] = {}
    for file in _videos_in(root) if known.videos else list_folder(root).photos:
        name = _name_of(file)
        if re.fullmatch(known.pattern, name):
            if name in files:
                raise DataError(f"{folder} has two {known.what}s called {name}: {files[name]} and {file}; keep one")
            files[name] = file
    names = read_names(Path(names_file)) if names_file is not None else known.ruled_names
    if names is None:
        if len(files) > known.count:
            raise DataError(
                f"{folder} has {len(files):,} {known.what}s; expected are the {expected}: give their names by "
                f"--list FILE, such as {known.list_source}"
            )
        names = frozenset(files)
    there = {name: files[name] for name in sorted(names & files.keys())}
    if not there:
        raise DataError(f"{folder} is not that set: none of its files is in the list; expected are the {expected}")
    return Listed(there, names, names_hash(names) == known.sha256)


def evaluate_set(
    settings: BenchmarkSettings, out: Path, *, command: str | None = None, start_stage: StartStage = silent
) -> Evaluation:
    """Measure models and other tools on a published set of photos, each made square as published, gray ones too.

    Args:
        settings: the set, where it is, what to measure.
        out: folder, made if missing.
        command: what was typed, for the report.
        start_stage: shows progress.

    Raises:
        DataError: the folder is not the set, see `find_listed`.
        All that `evaluate` raises.
    """
    known = load_set(settings.name)
    listed = find_listed(known, settings.folder, settings.names)
    same = {name: getattr(settings, name) for name in ("models", "results", "limit", "best_of", "lpips", "fid", "seed")}
    same |= {"device": settings.device, "batch_size": settings.batch_size}
    chosen = make_settings(
        source=f"folder:{settings.folder}", size_px=SIZE_PX, square=known.square, every_photo=True, **same
    )
    facts = {"name": settings.name} | listed.facts
    published = Published(frozenset(listed.files.values()), facts, partial(_compare, known, listed))
    return evaluate(chosen, out, published=published, command=command, start_stage=start_stage)


def evaluate_videos(
    settings: BenchmarkSettings, out: Path, *, command: str = "", start_stage: StartStage = silent
) -> dict[str, Any]:
    """Measure models on each video of a published set, below `out`, and write the means over all videos.

    Args:
        settings: the set, where it is, what to measure.
        out: folder, made if missing.
        command: is recorded in the summary.
        start_stage: opens the progress of each stage.

    Returns:
        As `evaluate_video`, with means over videos; and "published": "rows", always none, and "remarks".

    Raises:
        OptionsError: something is asked for that only photos have.
        DataError: the folder is not the set, see `find_listed`.
        All that `evaluate_video` raises.
    """
    for name in ("results", "lpips", "fid"):
        if getattr(settings, name):
            raise OptionsError(f"--{name} is for photos; leave it out for {settings.name}", name)
    if settings.best_of > 1:
        raise OptionsError(f"--best-of is for photos; leave it out for {settings.name}", "best_of")
    known = load_set(settings.name)
    listed = find_listed(known, settings.folder, settings.names)
    root, summaries = Path(settings.folder).expanduser(), []
    measured = list(listed.files.items())[: settings.limit]
    for name, file in measured:
        path = root / file
        source = f"{VIDEO_PREFIX}{path}" if path.is_dir() else str(path)
        summaries.append(
            evaluate_video(
                source,
                settings.models,
                out / "videos" / name,
                device=settings.device,
                seed=settings.seed,
                command=command,
                start_stage=start_stage,
            )
        )
    summary = mean_of_videos(summaries) | {"video": settings.folder, "command": command}
    summary["set"] = {"name": settings.name} | listed.facts
    said = [*_on_the_list(known, listed, len(measured)), *_differing(known.remarks)]
    summary["published"] = {"rows": [], "remarks": said}
    write_videos(out, summary)
    return summary


def _compare(known: PublishedSet, listed: Listed, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the published rows and, a sentence each, where the protocols differ: see `Published.compare`."""
    protocol, gray = summary["protocol"], summary["rows"][0]
    said = _on_the_list(known, listed, protocol["photos"])
    if known.prepared:
        said.append(f"Prepared as published: {known.prepared}.")
    said.append(f"Seeds: {_seeds(protocol['seed'], protocol.get('best_of', 1))}.")
    said += [f"{metric.upper()} here is by {protocol[metric]}." for metric in (FID, LPIPS) if metric in protocol]
    differing = []
    for metric in (FID, LPIPS):
        if metric not in protocol and any(metric in row for row in known.rows):
            differing.append(f"{metric.upper()} is published and was not measured: no network was given (--{metric}).")
    if known.fid and FID in protocol and not protocol[FID].startswith(f"{known.fid},"):
        differing.append(f"FIDs of DDColor and CT2 are by {known.fid}, another scale.")
    if known.truth_cf is not None and protocol["photos"] == known.count:
        found = gray.get("truth_cf_field")
        if found is not None and abs(found - known.truth_cf) > SAME_CF:
            differing.append(
                f"the truths' mean CF (field) is {found:.2f}, where published CF and ΔCF imply "
                f"{known.truth_cf}: other pixels, or other photos."
            )
    if any("delta_cf" in row for row in known.rows):
        differing.append("a ΔCF with “?” is of means or by photo: its source does not say which.")
    differing.append("results keep the photo's Rec.601 luma here; those of DDColor and CT2 keep its CIELAB L.")
    said += _differing([*differing, *known.remarks])
    rows = [{"photos": str(known.count)} | row | {"source": _source_of(row)} for row in known.rows]
    return {"rows": rows, "remarks": said}


def _on_the_list(known: PublishedSet, listed: Listed, measured: int) -> list[str]:
    """Say whether the list is the published one, and what of it is not measured."""
    names = f"List: {len(listed.names):,} names, SHA-256 {names_hash(listed.names)[:HASH_DIGITS]}…"
    if listed.is_published:
        said = [f"{names}, as published: {known.list_source}."]
    else:
        theirs = f"{known.count:,} names, SHA-256 {known.sha256[:HASH_DIGITS]}…: {known.list_source}"
        said = [f"{names}.", *_differing([f"the published list is another: {theirs}."])]
    if missing := sorted(listed.names - listed.files.keys()):
        these = f"{known.what} of the list is" if len(missing) == 1 else f"{known.what}s of the list are"
        said += _differing([f"{len(missing):,} {these} not there, the first: {missing[0]}."])
    if measured < known.count:
        said += _differing([f"{measured:,} {known.what}s are measured, and {known.count:,} were published."])
    return said


def _seeds(first: int, tries: int) -> str:
    alone = f"one for all photos ({first})"
    return (
        alone
        if tries == 1
        else f"{alone}; in rows “best of {tries}”, each photo's best of {first} to {first + tries - 1}"
    )


def _differing(sentences: Iterable[str]) -> list[str]:
    return [f"Differs: {sentence}" for sentence in sentences]


def _source_of(row: Mapping[str, Any]) -> str:
    return f"{row['source']}{' (second-hand)' if row.get('second_hand') else ''}"


def _name_of(file: str) -> str:
    """Return the name of a file or folder, without folders above it and the suffix of a picture or video."""
    path = PurePosixPath(file.replace("\\", "/"))
    return path.stem if path.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES) else path.name


def _videos_in(root: Path) -> list[str]:
    """Return the video files of a folder, and the folders in it that hold pictures: frames."""

    def is_video(path: Path) -> bool:
        if path.is_dir():
            return any(each.suffix.lower() in IMAGE_SUFFIXES for each in path.iterdir())
        return path.suffix.lower() in VIDEO_SUFFIXES

    return sorted(path.name for path in root.iterdir() if not path.name.startswith(".") and is_video(path))
