"""The error tree: every failure that a user can cause or repair is one of these, with one clear line.

ChromaTuneError
├── PhotoError          a photo cannot be read or a result cannot be written
│   └── NotAPictureError    a file is of no known picture format
├── VideoError          a film cannot be read or a result cannot be written
├── ModelError          a model is unknown, incomplete or not an InstructPix2Pix pipeline
├── OptionsError        a setting is out of range or contradicts another
├── DataError           a source of photos is empty, broken or of an unknown kind
├── MissingExtraError   an optional part was asked for and is not installed
└── WorkInterrupted     the user ended long work, which can be resumed later
"""

from __future__ import annotations

LONGEST_SHOWN = 60  # characters of a value in a message


class ChromaTuneError(Exception):
    """Base of all errors raised on purpose; `str(error)` is one line that says what to do."""


class PhotoError(ChromaTuneError):
    """A photo cannot be read, or a result cannot be written."""


class NotAPictureError(PhotoError):
    """A file is of no known picture format."""


class VideoError(ChromaTuneError):
    """A film cannot be read, or a result cannot be written."""


class ModelError(ChromaTuneError):
    """A model is unknown, incomplete, or not an InstructPix2Pix pipeline."""


class OptionsError(ChromaTuneError):
    """A setting is out of range or contradicts another; `field` names it where it is one alone."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class DataError(ChromaTuneError):
    """A source of photos is empty, broken, or of an unknown kind."""


class MissingExtraError(ChromaTuneError):
    """An optional part was asked for and is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}': pip install 'chromatune[{extra}]'")
        self.what, self.extra = what, extra

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), (self.what, self.extra)  # it comes from other processes too


class WorkInterrupted(ChromaTuneError):
    """The user ended long work, which can be resumed later."""


def printable(name: str) -> str:
    """Return the name, escaped where a line break or control character would spoil a message of one line."""
    return name if name.isprintable() else repr(name)


def count_of(number: int, thing: str, things: str = "") -> str:
    """Return a number with what it counts, as in "2 photos"; `things` is the plural if it is not `thing` and an s."""
    return f"{number} {thing if number == 1 else things or f'{thing}s'}"


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, for a message of one line; its type where it has no text."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def shown(value: object) -> str:
    """Return a value as a message shows it: on one line, and cut where it is long."""
    text = repr(value)  # escapes what is no printable character
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
