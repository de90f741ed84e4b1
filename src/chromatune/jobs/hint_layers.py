"""What is known of the colors of each photo of a batch: layers in a folder, named like the photos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from chromatune.errors import OptionsError, PhotoError
from chromatune.hints import LAYER_SUFFIXES, Hints, list_layers
from chromatune.jobs.destinations import STANDARD_STREAM

HintsOf: TypeAlias = Callable[[str], Hints]  # from a photo's path, or "-"


def no_hints(source: str) -> Hints:
    """Nothing is known."""
    return Hints()


def layers_in(folder: str) -> HintsOf:
    """The hints of a photo `a/b.jpg`: the layer `FOLDER/b.png`, `.tif`, `.tiff` or `.webp`; none without such a file.

    Raises:
        OptionsError: there is no such folder, or no layer in it.
    """
    layers: dict[str, list[Path]] = {}
    for path in list_layers(Path(folder)):
        layers.setdefault(path.stem, []).append(path)
    if not layers:
        raise OptionsError(f"{folder}: no layer in it; accepted are {' '.join(LAYER_SUFFIXES)}, named like the photos")

    def hints_of(source: str) -> Hints:
        found = [] if source == STANDARD_STREAM else layers.get(Path(source).stem, [])
        if len(found) > 1:
            raise PhotoError(f"{source}: {found[0]} and {found[1].name} could both be its layer; keep one")
        return Hints.from_layer(found[0], name=str(found[0])) if found else Hints()

    return hints_of
