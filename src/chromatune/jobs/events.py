"""What becomes of a job, and a photo that is ready for its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from chromatune.colorizer import ColorizeResult
from chromatune.hints import Hints
from chromatune.images import Photo
from chromatune.jobs.destinations import Job


@dataclass(frozen=True, eq=False)
class Done:
    """A result that is complete and on the disk.

    Attributes:
        job: what was to be made.
        path: its file; None for standard output.
        result: what was written there.
    """

    job: Job
    path: Path | None
    result: ColorizeResult


@dataclass(frozen=True)
class Failed:
    """Why a photo has no result, or lacks one of several; the others go on.

    Attributes:
        source: the photo's path, or "-" for standard input.
        message: one line that says what to do.
        results: number of results that are not made for this reason.
    """

    source: str
    message: str
    results: int = 1


@dataclass(frozen=True)
class Exists:
    """A result that stands there already, and was not to be replaced."""

    source: str
    path: Path


Event: TypeAlias = Done | Failed | Exists


@dataclass(frozen=True, eq=False)
class Ready:
    """A decoded photo with what is known of its colors, and the file of one result of it."""

    job: Job
    path: Path | None
    photo: Photo
    hints: Hints = Hints()
