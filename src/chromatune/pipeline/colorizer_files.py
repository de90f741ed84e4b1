"""Anyone's colorizer: where its network is, and its description: what goes in, what comes out, in which units.

A description is written in `colorizer.json`; what it leaves open is read from the network itself, see
`colorizer_graph`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from chromatune.errors import ModelError, printable, shown
from chromatune.files import atomic_write, open_regular
from chromatune.options import first_problem
from chromatune.pipeline.checks import read_json

DESCRIPTION_FILE = "colorizer.json"  # in a folder with the network; beside a single file NAME.colorizer.json
GRAPH_SUFFIXES = (".onnx",)
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors")
NETWORK_SUFFIXES = GRAPH_SUFFIXES + CHECKPOINT_SUFFIXES

Layout = Literal["nchw", "nhwc"]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Level = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]
Levels3 = tuple[Level, Level, Level]
Side = Annotated[int, Field(ge=8, le=2048)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputDescription(_Part):
    """What a network takes. `None` is read from the network, or tried out."""

    name: Name | None = None
    kind: Literal["rgb", "gray", "lightness"] | None = Field(
        default=None, description="The gray three times, the gray once, or CIELAB's L once."
    )
    black: Level | None = Field(default=None, description="The number that stands for black.")
    white: Level | None = Field(default=None, description="The number that stands for white.")
    mean: Levels3 = Field(default=(0, 0, 0), description="Taken off each channel, after black and white.")
    std: Levels3 = Field(default=(1, 1, 1), description="What each channel is divided by, after that.")
    layout: Layout | None = None

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if (self.black is None) != (self.white is None):
            raise ValueError("black and white belong together; give both, or neither")
        if self.black is not None and self.black == self.white:
            raise ValueError("black and white are the same number")
        if 0 in self.std:
            raise ValueError("std must not be 0")
        return self


class OutputDescription(_Part):
    """What a network gives. `None` is read from the network, or tried out."""

    name: Name | None = None
    kind: Literal["rgb", "ab"] | None = Field(default=None, description="A picture in color, or CIELAB's a and b.")
    black: Level | None = Field(default=None, description="Of rgb: the number that stands for black.")
    white: Level | None = Field(default=None, description="Of rgb: the number that stands for white.")
    unit: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        default=None, description="Of ab: what 1 stands for in CIELAB units: 1, or such as 110 where they are -1 to 1."
    )
    layout: Layout | None = None

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if (self.black is None) != (self.white is None) or (self.black is not None and self.black == self.white):
            raise ValueError("black and white belong together, and differ")
        return self


class ColorizerDescription(_Part):
    """`colorizer.json`: how a network is used. Everything may be left out that the network itself shows."""

    format: Literal[1] = 1
    network: Annotated[str | None, Field(max_length=200)] = Field(
        default=None, description="The network's file in this folder, where there are several."
    )
    family: Annotated[str, Field(max_length=60)] = Field(default="", description="Such as DDColor.")
    description: Annotated[str, Field(max_length=1000)] = ""
    license: Annotated[str, Field(max_length=200)] = Field(
        default="", description="Of the weights, such as Apache-2.0."
    )
    size_px: Side | None = Field(default=None, description="Short side of its pass, for a network that takes any size.")
    multiple_px: Annotated[int, Field(ge=1, le=256)] | None = Field(
        default=None, description="Sides are multiples of it."
    )
    input: InputDescription = InputDescription()
    output: OutputDescription = OutputDescription()


@dataclass(frozen=True)
class ColorizerFiles:
    """Where a colorizer is, and what its description says."""

    name: str
    path: Path  # the file or folder that the name stands for
    network: Path
    declared: ColorizerDescription

    @property
    def description_file(self) -> Path:
        """Where its description is, whether or not it exists."""
        return self.path / DESCRIPTION_FILE if self.path.is_dir() else description_of(self.path)

    @property
    def is_checkpoint(self) -> bool:
        """Whether it holds the weights of a class in Python, and not a graph."""
        return self.network.suffix.lower() in CHECKPOINT_SUFFIXES


def find_colorizer(name: str, path: Path) -> ColorizerFiles:
    """Return the files of a colorizer.

    Args:
        name: what it is called by the user.
        path: its network's file, or a folder that holds one.

    Raises:
        ModelError: there is no network, or several and no word of which; or the description is damaged.
    """
    if not path.is_dir():
        return ColorizerFiles(name, path, path, _read_description(name, description_of(path)))
    declared = _read_description(name, path / DESCRIPTION_FILE)
    if declared.network is not None:
        network = path / declared.network
        if network.parent != path or network.suffix.lower() not in NETWORK_SUFFIXES or not network.is_file():
            raise ModelError(
                f"{name}: {DESCRIPTION_FILE} names {shown(declared.network)} as network; accepted is a file beside it, "
                f"{', '.join(NETWORK_SUFFIXES)}"
            )
        return ColorizerFiles(name, path, network, declared)
    found = networks_in(path)
    if len(found) != 1:
        listed = ", ".join(printable(each.name) for each in found[:4])
        what = f"several networks ({listed})" if found else f"no network ({', '.join(NETWORK_SUFFIXES)})"
        raise ModelError(f'{name} has {what}; give the file itself, or write {{"network": FILE}} to {DESCRIPTION_FILE}')
    return ColorizerFiles(name, path, found[0], declared)


def networks_in(folder: Path) -> list[Path]:
    """Return the networks' files in a folder itself, by name."""
    files = sorted(folder.iterdir())
    graphs = [each for each in files if each.suffix.lower() in GRAPH_SUFFIXES and each.is_file()]
    # Beside a graph, others are its weights
    return graphs or [each for each in files if each.suffix.lower() in CHECKPOINT_SUFFIXES and each.is_file()]


def description_of(network: Path) -> Path:
    """Return where the description of a single file is, whether or not it exists."""
    return network.with_name(f"{network.stem}.{DESCRIPTION_FILE}")


def read_description(path: Path) -> ColorizerDescription:
    """Read a description; without the file, all is left to the network.

    Raises:
        ValueError: it is damaged; the text says how.
    """
    if not path.exists():
        return ColorizerDescription()
    try:
        return ColorizerDescription.model_validate(read_json(path))
    except ValidationError as error:
        raise ValueError(f"has {first_problem(error)}") from None


def write_description(path: Path, description: ColorizerDescription) -> None:
    """Write a description, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    atomic_write(path, description.model_dump_json(indent=2, exclude_defaults=True).encode() + b"\n")


def files_digest(files: Iterable[Path], name: str) -> str:
    """Return 16 hexadecimal digits of the SHA-256 over the contents of the files of the model `name`.

    Raises:
        ModelError: one cannot be read.
    """
    digest = hashlib.sha256()
    for path in files:
        try:
            with open_regular(path) as file:
                digest.update(hashlib.file_digest(cast(BufferedReader, file), "sha256").digest())
        except OSError as error:
            place = printable(f"{path.parent.name}/{path.name}")
            raise ModelError(f"{name}: {place} cannot be read ({error.strerror}); download the model again") from None
    return digest.hexdigest()[:16]


def _read_description(name: str, path: Path) -> ColorizerDescription:
    try:
        return read_description(path)
    except ValueError as error:
        raise ModelError(f"{name}: {path.name} {error}; docs/models.md has its fields") from None
