"""Photos through the model to their files, with a line for each result and each failure."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from chromatune.cli.destinations import STANDARD_STREAM, Job
from chromatune.cli.progress import stages
from chromatune.errors import OptionsError, PhotoError
from chromatune.images import Photo, format_for, read_photo, suffix_for
from chromatune.options import ColorizeOptions

if TYPE_CHECKING:
    from chromatune.colorizer import ColorizeResult


@dataclass(frozen=True)
class Engine:
    """Which model to load, where, and how many photos go through it at once."""

    model: str
    device: str | None
    batch_size: int


@dataclass
class _Run:
    """What is known while a run goes on."""

    overwrite: bool
    quiet: bool
    inputs: frozenset[str]  # real paths of all photos given: none of them is written to
    standard_input: bytes = b""
    advance: Callable[[], None] = lambda: None
    unreadable: set[str] = field(default_factory=set)  # sources complained about: not again for each variant
    taken: set[str] = field(default_factory=set)  # real paths of results that this run has made or will make
    failures: int = 0

    def fail(self, reason: object) -> None:
        self.failures += 1
        print("error:", " ".join(str(reason).split("\n")), file=sys.stderr, flush=True)
        self.advance()


def run(jobs: list[Job], options: Sequence[ColorizeOptions], engine: Engine, *, overwrite: bool, quiet: bool) -> int:
    """The exit code, after all jobs: 0, or 1 if any failed. The model is loaded once a photo needs it.

    Args:
        jobs: what to make, variant by variant.
        options: settings for each variant.
        engine: model to load.
        overwrite: replace results that exist.
        quiet: print failures only.

    Raises:
        ChromaTuneError: nothing can go on: the model cannot be loaded, or a stream is a terminal.
    """
    inputs = frozenset(os.path.realpath(job.source) for job in jobs if job.source != STANDARD_STREAM)
    state = _Run(overwrite, quiet, inputs)
    _open_streams(jobs, state)
    jobs = [job for job in jobs if _is_possible(job, state)]
    colorizer = None
    with stages(shown=not quiet and len(jobs) > 1) as start_stage:
        state.advance = start_stage("colorizing", len(jobs))
        for variant, settings in enumerate(options):
            waiting: deque[tuple[Job, Path | None]] = deque()
            photos = _readable((job for job in jobs if job.variant == variant), waiting, state)
            first = next(photos, None)
            if first is None:
                continue
            if colorizer is None:
                _make_folder(waiting[0][1])
                from chromatune.colorizer import Colorizer  # here: it loads torch, which a refusal does not need

                colorizer = Colorizer.load(engine.model, device=engine.device)
            results = colorizer.colorize_many(chain([first], photos), settings, batch_size=engine.batch_size)
            for result in results:
                _finish(*waiting.popleft(), result, state)
    return 1 if state.failures else 0


def _open_streams(jobs: list[Job], state: _Run) -> None:
    """Read standard input if a job wants it; a terminal at either end is a mistake."""
    if any(job.stem is None for job in jobs) and sys.stdout.isatty():
        raise OptionsError("standard output is a terminal; send it to a file or a program, or give -o FILE")
    if any(job.source == STANDARD_STREAM for job in jobs):
        if sys.stdin.isatty():
            raise OptionsError("standard input is a terminal; send a photo into it: chromatune colorize - < PHOTO")
        state.standard_input = sys.stdin.buffer.read()


def _is_possible(job: Job, state: _Run) -> bool:
    """Whether names alone let one expect a result; if not, the failure is told."""
    if job.source in state.unreadable:
        return False
    if job.source != STANDARD_STREAM and os.path.isdir(job.source):
        state.unreadable.add(job.source)
        state.fail(f"{job.source} is a folder; give the files in it, such as {os.path.join(job.source, '*.jpg')}")
        return False
    path = job.expected_path
    reason = None if path is None else _refusal(path, state)
    if reason is not None:
        state.fail(reason)
    return reason is None


def _refusal(path: Path, state: _Run) -> str | None:
    """Why no result may be written to a path, or None."""
    real_path = os.path.realpath(path)
    if real_path in state.inputs:
        return f"{path} is one of the photos given, which are never replaced; choose another place with -o"
    if real_path in state.taken:
        return f"{path} is the result of another photo of this run; colorize this one apart"
    if os.path.lexists(path) and not state.overwrite:
        return f"{path} exists; replace it with --overwrite, or choose another place with -o"
    if path.parent.is_dir() and not os.access(path.parent, os.W_OK):
        return f"{path}: no permission to write there; choose another place with -o"
    return None


def _readable(jobs: Iterator[Job], waiting: deque[tuple[Job, Path | None]], state: _Run) -> Iterator[Photo]:
    """The photos that can be read and whose results may be written; `waiting` learns what each is for."""
    for job in jobs:
        if job.source in state.unreadable:
            continue
        try:
            if job.source == STANDARD_STREAM:
                photo = read_photo(state.standard_input, name="standard input")
            else:
                photo = read_photo(job.source)
        except PhotoError as error:
            state.unreadable.add(job.source)
            state.fail(error)
            continue
        path = job.path_for(photo)
        reason = None if path is None else _refusal(path, state)
        if reason is not None:
            state.fail(reason)
            continue
        if path is not None:
            state.taken.add(os.path.realpath(path))
        waiting.append((job, path))
        yield photo


def _make_folder(path: Path | None) -> None:
    """Make the folder of the results before time is spent on them."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PhotoError(f"{path.parent}: cannot be made ({error.strerror}); choose another place with -o") from error


def _finish(job: Job, path: Path | None, result: ColorizeResult | PhotoError, state: _Run) -> None:
    """Write a result and tell its path, or tell why there is none."""
    try:
        if isinstance(result, PhotoError):
            raise result
        if path is None:
            sys.stdout.buffer.write(result.encode(format_for(suffix_for(None, result.photo))))
            sys.stdout.buffer.flush()
        else:
            result.save(path, overwrite=state.overwrite)
    except PhotoError as error:
        state.unreadable.add(job.source)
        state.fail(error)
        return
    if path is not None and not state.quiet:
        print(path, flush=True)  # at once: another program may be waiting for it
    state.advance()
