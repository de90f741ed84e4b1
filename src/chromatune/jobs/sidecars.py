"""A JSON file beside a result with all that is needed to make the same file again, hints themselves included."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import chromatune
from chromatune.errors import ModelError, OptionsError, PhotoError, printable, shown
from chromatune.files import atomic_write, open_regular, read_regular
from chromatune.hints import MAX_JSON_BYTES, Hints, parse_json
from chromatune.options import ColorizeOptions, first_problem
from chromatune.pipeline import weights_hash

SIDECAR_SUFFIX = ".json"
LARGEST_BYTES = 2 * MAX_JSON_BYTES
MOST_REFERENCES = 100

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
FilePath = Annotated[str, Field(min_length=1, max_length=4096)]


class SidecarFile(BaseModel):
    """A file that a result was made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: FilePath  # from the sidecar's folder, or absolute
    sha256: Digest


class Sidecar(BaseModel):
    """How one result was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    software: Annotated[str, Field(max_length=200)]
    photo: SidecarFile
    page: Annotated[int, Field(ge=1)] | None = None
    model: FilePath
    weights: Annotated[str, Field(max_length=64)]
    runtime: Literal["onnx", "torch"]
    options: ColorizeOptions
    hints: dict[str, Any] | None = None
    like: Annotated[tuple[SidecarFile, ...], Field(max_length=MOST_REFERENCES)] = ()


@dataclass(frozen=True)
class MadeOf:
    """What a result is made of, as the user named it.

    Attributes:
        photo: its path.
        page: of a file with several pictures.
        model: its name.
        weights: their hash, see `weights_hash`.
        like: paths of the references.
    """

    photo: str
    page: int | None
    model: str
    weights: str
    like: tuple[str, ...] = ()


def sidecar_path(result: Path) -> Path:
    """Return where a result's sidecar is: `a.color.png` has `a.color.png.json`."""
    return result.with_name(result.name + SIDECAR_SUFFIX)


def digest_of(path: str) -> str:
    """Return the SHA-256 of a file.

    Raises:
        PhotoError: it cannot be read.
    """
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()
    except OSError as error:
        raise PhotoError(f"{printable(path)}: cannot be read ({error.strerror})") from None


def write_sidecar(
    result: Path, made_of: MadeOf, options: ColorizeOptions, hints: Hints, runtime: str, *, overwrite: bool
) -> None:
    """Write a result's sidecar, whole or not at all.

    Raises:
        PhotoError: a file that it was made of cannot be read any more; or the sidecar exists, or cannot be written.
    """
    path = sidecar_path(result)
    sidecar = Sidecar(
        software=f"ChromaTune {chromatune.__version__}",
        photo=_file(made_of.photo, path.parent),
        page=made_of.page,
        model=made_of.model,
        weights=made_of.weights,
        runtime=runtime,
        options=options,
        hints=json.loads(hints.to_json()) if hints else None,
        like=tuple(_file(each, path.parent) for each in made_of.like),
    )
    text = json.dumps(sidecar.model_dump(mode="json", exclude_none=True), indent=1, ensure_ascii=False)
    try:
        atomic_write(path, f"{text}\n".encode(errors="surrogateescape"), overwrite=overwrite)
    except FileExistsError:
        raise PhotoError(f"{path}: already exists; replace it with --overwrite") from None
    except OSError as error:
        raise PhotoError(f"{path}: cannot be written ({error.strerror}); check disk and path") from None


def read_sidecar(path: str) -> Sidecar:
    """Read a sidecar.

    Raises:
        OptionsError: it cannot be read, or is none.
    """
    try:
        data = read_regular(path, LARGEST_BYTES)
        return Sidecar.model_validate(parse_json(data, max_bytes=LARGEST_BYTES))
    except OSError as error:
        raise OptionsError(f"--again {shown(path)}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        raise OptionsError(f"--again {shown(path)}: is not the sidecar of a result ({first_problem(error)})") from None
    except OptionsError as error:
        raise OptionsError(f"--again {shown(path)}: is not the sidecar of a result ({error})") from None


def found_file(wanted: SidecarFile, sidecar: str, given: str | None = None) -> str:
    """Return the path of a file that a result was made of: as given, where it was, or beside the sidecar.

    Raises:
        PhotoError: it is gone, or another file.
    """
    folder = Path(sidecar).parent
    candidates = [given] if given is not None else [str(folder / wanted.path), str(folder / Path(wanted.path).name)]
    path = next((each for each in candidates if Path(each).exists()), candidates[0])
    if digest_of(path) != wanted.sha256:
        raise PhotoError(f"{printable(path)}: is not the file the result was made from, or was changed since")
    return path


def check_weights(sidecar: Sidecar) -> None:
    """Check that a sidecar's model is the same as then.

    Raises:
        ModelError: it cannot be found, or its weights are others.
    """
    found = weights_hash(sidecar.model)
    if found != sidecar.weights:
        raise ModelError(
            f"{sidecar.model} was changed since (hash {found}, then {sidecar.weights}); get the earlier version, or "
            "colorize without --again"
        )


def _file(path: str, folder: Path) -> SidecarFile:
    """Describe a file by its path from a folder."""
    absolute = os.path.abspath(path)
    try:
        shortest = os.path.relpath(absolute, folder)
    except ValueError:  # on another drive
        shortest = absolute
    return SidecarFile(path=shortest, sha256=digest_of(path))
