"""Settings of single folders of an archive: a `chromatune.toml` is for the photos beside it and in the folders below.

A file has options of `chromatune batch` by their names, such as `prompt = "warm light"` and `strength = 0.8`. Of
several above a photo the nearest one counts, name by name; for a name that none of them has, the command line does.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chromatune.errors import ChromaTuneError, OptionsError, first_line, printable, shown
from chromatune.jobs.store_protocol import Store
from chromatune.options import ColorizeOptions, Flag, check_recompose, make_options

MOST_BYTES = 64_000  # of a file: more than all options together
MOST_PAGE = 999_999_999
PAGE = "page"


def _names() -> dict[str, str]:
    """Return the name of each option in a file, which is that of its flag, and its field."""
    names = {}
    for field, info in ColorizeOptions.model_fields.items():
        flag = next((each.name for each in info.metadata if isinstance(each, Flag) and each.name), field)
        names[flag.removeprefix("--").replace("-", "_")] = field
    return names


NAMES = _names()


@dataclass(frozen=True)
class PhotoSettings:
    """How a photo is colorized where its folder may say so: the options, and the page of a file with several."""

    options: ColorizeOptions
    page: int | None = None


class FolderSettings:
    """The settings of each photo of an archive by its folder."""

    def __init__(self, source: Store, files: Iterable[str], usual: PhotoSettings, *, hinted: bool = False) -> None:
        """Read and check all files.

        Args:
            source: of the photos.
            files: keys of the `chromatune.toml` in it.
            usual: settings of photos without.
            hinted: there may be painted layers, which need `recompose`.

        Raises:
            OptionsError: a file cannot be read, or has an unknown name or a bad value: a line that has both.
        """
        self.labels: dict[str, str] = {}  # what messages call the file of a folder
        self._given: dict[str, dict[str, Any]] = {}
        self._known: dict[str, PhotoSettings] = {"": usual}
        for key in sorted(files, key=lambda key: key.count("/")):  # from the top: each builds on those above
            folder, label = key.rpartition("/")[0], printable(f"{source.name.rstrip('/')}/{key}")
            self.labels[folder], self._given[folder] = label, _read(source, key, label)
            above = usual if folder == "" else self._in_folder(folder.rpartition("/")[0])
            self._known[folder] = _merged(above, self._given[folder], label, hinted)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all options that the files have, sorted."""
        return tuple(sorted({name for given in self._given.values() for name in given}))

    def of(self, photo: str) -> PhotoSettings:
        """Return the settings of a photo."""
        return self._in_folder(photo.rpartition("/")[0])

    def file_of(self, photo: str) -> str:
        """Return the name of the nearest file above a photo; "" for none."""
        folder = photo.rpartition("/")[0]
        while folder not in self.labels and folder:
            folder = folder.rpartition("/")[0]
        return self.labels.get(folder, "")

    def _in_folder(self, folder: str) -> PhotoSettings:
        if folder not in self._known:
            self._known[folder] = self._in_folder(folder.rpartition("/")[0])
        return self._known[folder]


def _read(source: Store, key: str, label: str) -> dict[str, Any]:
    """Return what a file says, by the names in it."""
    try:
        text = source.read_inside(key, MOST_BYTES).decode("utf-8-sig")
        given = tomllib.loads(text)
    except OSError as error:
        raise OptionsError(f"{label}: cannot be read ({error.strerror or first_line(error)})") from error
    except UnicodeDecodeError:
        raise OptionsError(f"{label}: not UTF-8; save it as a text file in UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        reason = printable(first_line(error))[:200]
        raise OptionsError(f'{label}: not valid TOML ({reason}); a line is NAME = VALUE, text in "quotes"') from None
    settings = {name.replace("-", "_"): value for name, value in given.items()}
    for name in settings:
        if name != PAGE and name not in NAMES:
            raise OptionsError(f"{label}: unknown setting {shown(name)}; accepted: {', '.join((*NAMES, PAGE))}")
    return settings


def _merged(above: PhotoSettings, given: Mapping[str, Any], label: str, hinted: bool) -> PhotoSettings:
    """Return the settings of a folder from those above it and its own."""
    page = given.get(PAGE, above.page)
    if page is not None and (type(page) is not int or not 1 <= page <= MOST_PAGE):
        raise OptionsError(f"{label}: {PAGE}={shown(page)}: accepted is a number from 1")
    fields = {NAMES[name]: value for name, value in given.items() if name != PAGE}
    try:
        options = make_options(**{**above.options.model_dump(), **fields})
        if hinted:
            check_recompose(options, "--hints-dir needs")
    except ChromaTuneError as error:
        field = getattr(error, "field", None) or ""
        name = next((name for name in NAMES if NAMES[name] == field), field)
        message = str(error).removeprefix(f"{field}=")
        raise OptionsError(f"{label}: {f'{name}={message}' if message != str(error) else message}") from None
    return PhotoSettings(options, page)
