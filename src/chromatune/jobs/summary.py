"""The page of an archive: totals, a contact sheet, and what went wrong. The same photos make the same page."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from chromatune.errors import PhotoError, count_of, printable
from chromatune.files import write_below
from chromatune.images import read_photo, to_depth
from chromatune.jobs.archive_worker import ArchiveSettings, PictureFile
from chromatune.jobs.manifest import FAILURES_FILE, Row
from chromatune.jobs.stores import SourceGoneError, Store
from chromatune.pipeline import model_info, weights_hash
from chromatune.reports import (
    Block,
    Definitions,
    Folded,
    Page,
    Picture,
    Pictures,
    Section,
    Table,
    Text,
    data_uri,
    jpeg_of,
    render_page,
)

SUMMARY_FILE = "summary.html"
MOST_PICTURES = 30
MOST_PICTURE_PIXELS = 48_000_000  # larger results are not in the sheet: it is not worth their memory
THUMBNAIL_PX = 190
THUMBNAIL_QUALITY = 82
BACKGROUND = 128  # level of gray
MOST_LINES = 200  # of a table of photos; the file of failures has all
LONGEST_CAPTION = 26  # characters: about as wide as a thumbnail


def write_summary(
    folder: Path,
    settings: ArchiveSettings,
    photos: int,
    done: Sequence[Row],
    failed: Sequence[Row],
    skipped: Sequence[Row],
    outdated: int,
) -> Path:
    """Write the page of a source's photos, of which `outdated` are in other settings, into a folder; return its path.

    Args:
        folder: takes it.
        settings: of the photos.
        photos: number of all.
        done: with a result, among them those that were copied.
        failed: without.
        skipped: in color already.
        outdated: number of those in other settings.

    Raises:
        OSError: it cannot be written.
    """
    left = photos - len(done) - len(failed) - len(skipped)
    copied = [row for row in done if row.state == "copied"]
    lead = f"{count_of(len(done), 'photo')} of {photos:,} in color"
    lead += f", {len(failed):,} failed" if failed else ""
    lead += f", {len(skipped):,} in color already and skipped" if skipped else ""
    lead += f", {len(copied):,} of them in color already and copied" if copied else ""
    lead += f", {left:,} still to be done" if left else ""
    sections = [
        Section("Folders", [_folders(done, failed)]),
        Section("Contact sheet", _sheet(settings.destination, done)),
        Section("What went wrong", [*_failures(failed), *_warnings(done)]),
        Section("In color already", _in_color_already([*skipped, *copied])),
        Section("Settings", [_settings(settings, outdated)]),
    ]
    title = f"Archive {printable(settings.source.name)}"
    page = Page(title, f"{lead}.", [section for section in sections if section.blocks])
    path = folder / SUMMARY_FILE
    write_below(folder, SUMMARY_FILE, render_page(page).encode("utf-8", "backslashreplace"))
    return path


def _sheet(destination: Store, done: Sequence[Row]) -> list[Block]:
    """Show results at even distances through the archive."""
    small = [row for row in done if row.pixels <= MOST_PICTURE_PIXELS]
    count = min(len(small), MOST_PICTURES)
    pictures = []
    for row in (small[index * len(small) // count] for index in range(count)):
        rgb_u8 = _thumbnail(destination, row.result)
        if rgb_u8 is not None:
            uri = data_uri(jpeg_of(rgb_u8, THUMBNAIL_QUALITY), "jpeg")
            pictures.append(Picture(uri, _short_name(row.result), printable(row.result)))
    return [Pictures(pictures)] if pictures else []


def _thumbnail(destination: Store, key: str) -> np.ndarray | None:
    """Return a small (THUMBNAIL_PX, THUMBNAIL_PX, 3) uint8 of a result; None where it cannot be read."""
    try:
        with destination.open_result(key) as file:
            data = PictureFile(file, key, MOST_PICTURE_PIXELS).read()
        photo = read_photo(data, name=key, max_pixels=MOST_PICTURE_PIXELS)
    except (PhotoError, SourceGoneError):
        return None
    full = np.repeat(photo.gray[..., None], 3, axis=2) if photo.rgb is None else photo.rgb
    scale = min(1.0, THUMBNAIL_PX / max(full.shape[:2]))
    size = (max(1, round(full.shape[1] * scale)), max(1, round(full.shape[0] * scale)))
    small = to_depth(cv2.resize(full, size, interpolation=cv2.INTER_AREA), np.uint8)
    square = np.full((THUMBNAIL_PX, THUMBNAIL_PX, 3), BACKGROUND, np.uint8)  # rows of a sheet are of one height
    top, left = (THUMBNAIL_PX - small.shape[0]) // 2, (THUMBNAIL_PX - small.shape[1]) // 2
    square[top : top + small.shape[0], left : left + small.shape[1]] = small
    return square


def _short_name(key: str) -> str:
    """Return the name of a result, without its folder; a long one loses its middle."""
    name = printable(key.rpartition("/")[2])
    half = LONGEST_CAPTION // 2
    return name if len(name) <= LONGEST_CAPTION else f"{name[: half - 1]}…{name[-half:]}"


def _folders(done: Sequence[Row], failed: Sequence[Row]) -> Table:
    """List photos, pixels and bytes of each folder at the top of the source, and of all."""
    count, failures, pixels, size = (Counter[str]() for _ in range(4))
    for row in done:
        top = _top(row)
        count[top] += 1
        pixels[top] += row.pixels
        size[top] += row.result_bytes
    failures.update(_top(row) for row in failed)
    tops = sorted(count.keys() | failures.keys())
    figures = [(printable(top), count[top], failures[top], pixels[top], size[top]) for top in tops]
    if len(tops) > 1:
        figures.append(("all", count.total(), failures.total(), pixels.total(), size.total()))
    lines = [
        [name, f"{photos:,}", f"{lacking:,}", f"{area / 1e6:,.1f}", f"{space / 1e6:,.1f}"]
        for name, photos, lacking, area, space in figures
    ]
    return Table(("folder", "in color", "failed", "megapixels", "results, MB"), lines)


def _failures(failed: Sequence[Row]) -> list[Block]:
    if not failed:
        return []
    lines = [[printable(row.photo), row.message] for row in failed[:MOST_LINES]]
    more = f"; the first {MOST_LINES}, all are in {FAILURES_FILE}" if len(failed) > MOST_LINES else ""
    photos_have = count_of(len(failed), "photo has", "photos have")
    text = Text(f"{photos_have} no result; each run tries again{more}.", strong=True)
    return [text, Table(("photo", "reason"), lines, prose=True)]


def _warnings(done: Sequence[Row]) -> list[Block]:
    warned = [[printable(row.photo), warning] for row in done for warning in row.warnings]
    if not warned:
        return []
    return [Folded(f"Warnings: {len(warned)}", [Table(("photo", "warning"), warned[:MOST_LINES], prose=True)])]


def _in_color_already(rows: Sequence[Row]) -> list[Block]:
    if not rows:
        return []
    lines = [[printable(row.photo), row.state] for row in rows[:MOST_LINES]]
    return [Folded(count_of(len(rows), "photo"), [Table(("photo", "what"), lines, prose=True)])]


def _settings(settings: ArchiveSettings, outdated: int) -> Definitions:
    resolved = model_info(settings.model).resolve(settings.options)
    terms = {name.replace("_", " "): str(value) for name, value in dataclasses.asdict(resolved).items()}
    terms |= {"photos still in other settings": f"{outdated:,}"} if outdated else {}
    return Definitions({"model": settings.model, "weights": weights_hash(settings.model)} | terms)


def _top(row: Row) -> str:
    return row.photo.partition("/")[0] if "/" in row.photo else "."
