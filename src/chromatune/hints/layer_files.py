"""Painted layers in a folder."""

from __future__ import annotations

from pathlib import Path

from chromatune.errors import OptionsError, printable

LAYER_SUFFIXES = (".png", ".tif", ".tiff", ".webp")  # of formats with transparency


def list_layers(folder: Path) -> list[Path]:
    """The files in a folder that can be layers, sorted.

    Raises:
        OptionsError: there is no such folder.
    """
    try:
        return sorted(path for path in folder.expanduser().iterdir() if path.suffix.lower() in LAYER_SUFFIXES)
    except OSError as error:
        name = printable(str(folder))
        raise OptionsError(f"{name}: cannot be read ({error.strerror}); give a folder of painted layers") from None
