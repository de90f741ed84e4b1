"""The error tree: every failure a user can cause or mend is one of these, with one clear line.

ChromaTuneError
├── PhotoError          a photo cannot be read or a result cannot be written
├── ModelError          a model is unknown, incomplete or not an InstructPix2Pix pipeline
├── OptionsError        a setting is out of range or contradicts another
├── DataError           a source of photos is empty, broken or of an unknown kind
└── MissingExtraError   an optional part was asked for and is not installed
"""


class ChromaTuneError(Exception):
    """Base of all errors raised on purpose; `str(error)` is one line that says what to do."""


class PhotoError(ChromaTuneError):
    """A photo cannot be read, or a result cannot be written."""


class ModelError(ChromaTuneError):
    """A model is unknown, incomplete, or not an InstructPix2Pix pipeline."""


class OptionsError(ChromaTuneError):
    """A setting is out of range or contradicts another."""


class DataError(ChromaTuneError):
    """A source of photos is empty, broken, or of an unknown kind."""


class MissingExtraError(ChromaTuneError):
    """An optional part was asked for and is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}': pip install 'chromatune[{extra}]'")
        self.extra = extra
