"""`chromatune data`: what a source of photos contains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chromatune.cli.terminal import print_table, stages
from chromatune.errors import DataError, count_of
from chromatune.images import CONTACT_SHEET

if TYPE_CHECKING:
    from chromatune.data import Inspection

Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="image=NAME|prompt=NAME",
        help="Column of a table or data set with the photos, or with their instructions; repeatable.",
        show_default="found by name",
    ),
]

data_app = typer.Typer(help="Inspect photos to train with.", rich_markup_mode=None)


@data_app.command("inspect")
def inspect_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder of photos, LFW, FFHQ, IMDB-WIKI, a Hugging Face data set or a table of photos "
            "(metadata.csv, .jsonl or .parquet with columns file_name and edit_prompt), recognized by its layout; or "
            "KIND:PATH with KIND one of folder, lfw, ffhq, imdb-wiki, hf, table. On the hub: hf:OWNER/NAME. "
            "Other columns: --column, or hf:PATH#image=COLUMN&prompt=COLUMN in quotes.",
        ),
    ],
    columns: Columns = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help=f"Write {CONTACT_SHEET} into this folder, made if missing.", show_default="none"
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Open N photos only, evenly spread.", show_default="all"),
    ] = None,
    min_size: Annotated[int, typer.Option(min=1, metavar="PX", help="Minimum short side of a photo.")] = 16,
) -> int:
    """Print what a source contains: counts, sizes, skipped photos and why, and the hash of its split.

    In a pipe: one figure a line, its fields separated by tabs.
    """
    from chromatune.data import inspect_source, open_source, with_columns, write_contact_sheet

    opened = open_source(with_columns(source, columns or []))
    total = min(limit or len(opened.items), len(opened.items))
    with stages() as start_stage:
        advance = start_stage("opening photos", total)
        inspection = inspect_source(opened, limit=limit, size_px=min_size, on_photo=lambda item: advance())
    if not inspection.usable:
        reasons = ", ".join(f"{photos.count} {reason}" for reason, photos in inspection.skipped.items())
        raise DataError(f"{source}: no usable photo among {total} ({reasons}); give other photos")
    rows = _rows(inspection)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_contact_sheet(out / CONTACT_SHEET, inspection.usable)
        rows.append(("contact sheet", str(out / CONTACT_SHEET), ""))
    print_table(rows)
    return 0


def _rows(inspection: Inspection) -> list[tuple[str, str, str]]:
    """Return rows of a quantity, its figure, and a remark."""
    opened = "" if inspection.opened == inspection.photos else f"of {inspection.opened} opened"
    persons = f"of {count_of(inspection.persons, 'person')}" if inspection.persons else ""
    rows = [
        ("source", inspection.name, inspection.kind),
        ("photos", str(inspection.photos), persons),
        ("usable", str(len(inspection.usable)), opened),
        ("short side (px)", " ".join(map(str, inspection.short_side_px)), "least, quartiles, most"),
        ("long side (px)", " ".join(map(str, inspection.long_side_px)), ""),
        ("split hash", inspection.split_digest or "none", "a tenth for validation, seed 0"),
    ]
    for reason, photos in inspection.skipped.items():
        rows.append((f"skipped: {reason}", str(photos.count), "; ".join(photos.messages or photos.examples)))
    return rows
