"""`chromatune info`: what a result says of how it was made."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chromatune.cli.terminal import complain, print_table
from chromatune.errors import PhotoError, VideoError

if TYPE_CHECKING:
    from chromatune.images import Provenance

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")


def info_command(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Results: pictures, or videos.")],
) -> int:
    """Print how results were made, as their files say: model and its hash, instruction, seed, options, hints.

    Exit code 1: a file says nothing, or cannot be read. In a pipe: one fact a line, its fields separated by tabs.
    """
    code, rows = 0, list[tuple[str, ...]]()
    for file in files:
        try:
            found = _provenance(file)
        except (PhotoError, VideoError) as error:
            complain(str(error))
            code = 1
            continue
        if found is None:
            complain(f"{file}: says nothing of how it was made; it is no result of ChromaTune, or was saved by others")
            code = 1
            continue
        name = (file,) if len(files) > 1 else ()
        facts = {key.replace("_", " "): value for key, value in asdict(found).items() if value}
        rows += [(*name, key, value) for key, value in facts.items()]
    print_table(rows)
    return code


def _provenance(file: str) -> Provenance | None:
    """Return what a file says; its suffix decides whether it is a picture or a video."""
    from chromatune.images import provenance_of, read_photo

    if Path(file).suffix.lower() in VIDEO_SUFFIXES:
        from chromatune.video import video_provenance

        return video_provenance(Path(file))
    return provenance_of(read_photo(file, name=file).captions.xmp)
