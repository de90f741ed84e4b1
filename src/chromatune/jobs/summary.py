"""The page of an archive: totals, a contact sheet, and what went wrong. The same photos make the same page."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from chromatune.errors import PhotoError, count_of, printable
from chromatune.files import atomic_write
from chromatune.images import read_photo, to_depth
from chromatune.jobs.archive import FAILURES_FILE, Archive
from chromatune.jobs.manifest import Row
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
MOST_PICTURE_PIXELS = 48_000_000  # larger results are left out of the sheet: it is not worth their memory
THUMBNAIL_PX = 190
THUMBNAIL_QUALITY = 82
BACKGROUND = 128  # level of gray
MOST_LINES = 200  # of a table of photos; the file of failures has all
LONGEST_CAPTION = 26  # characters: about as wide as a thumbnail


def write_summary(archive: Archive, folder: Path) -> Path:
    """Writes the page into a folder, and returns its path.

    Raises:
        OSError: it cannot be written.
    """
    done, failed = archive.done_and_failed()
    path = folder / SUMMARY_FILE
    atomic_write(path, render_page(make_page(archive, done, failed)).encode("utf-8", "backslashreplace"))
    return path


def make_page(archive: Archive, done: Sequence[Row], failed: Sequence[Row]) -> Page:
    """The page of photos with a result and of those without."""
    left = len(archive.listed) - len(done) - len(failed)
    lead = f"{count_of(len(done), 'photo')} of {len(archive.listed):,} in color"
    lead += f", {len(failed):,} failed" if failed else ""
    lead += f", {left:,} still to be done" if left else ""
    sections = [
        Section("Folders", [_folders(done, failed)]),
        Section("Contact sheet", _sheet(archive.destination, done)),
        Section("What went wrong", [*_failures(failed), *_warnings(done)]),
        Section("Settings", [_settings(archive, done)]),
    ]
    title = f"Archive {printable(archive.source.name)}"
    return Page(title, f"{lead}.", [section for section in sections if section.blocks])


def _sheet(destination: Store, done: Sequence[Row]) -> list[Block]:
    """Results at even distances through the archive."""
    small = [row for row in done if row.pixels <= MOST_PICTURE_PIXELS]
    count = min(len(small), MOST_PICTURES)
    chosen = [small[index * len(small) // count] for index in range(count)]
    pictures = []
    for row in chosen:
        rgb_u8 = _thumbnail(destination, row.result)
        if rgb_u8 is not None:
            uri = data_uri(jpeg_of(rgb_u8, THUMBNAIL_QUALITY), "jpeg")
            pictures.append(Picture(uri, _short(row.result), printable(row.result)))
    return [Pictures(pictures)] if pictures else []


def _thumbnail(destination: Store, key: str) -> np.ndarray | None:
    """(THUMBNAIL_PX, THUMBNAIL_PX, 3) uint8 of a result; None where it cannot be read."""
    try:
        with destination.open(key) as file:
            photo = read_photo(file, name=key)
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


def _short(key: str) -> str:
    """The name of a result, without its folder; a long one loses its middle."""
    name = printable(key.rpartition("/")[2])
    half = LONGEST_CAPTION // 2
    return name if len(name) <= LONGEST_CAPTION else f"{name[: half - 1]}…{name[-half:]}"


def _folders(done: Sequence[Row], failed: Sequence[Row]) -> Table:
    """Photos, pixels and bytes of each folder at the top of the source, and of all."""
    count, lost, pixels, size = (Counter[str]() for _ in range(4))
    for row in done:
        top = _top(row)
        count[top] += 1
        pixels[top] += row.pixels
        size[top] += row.result_bytes
    lost.update(_top(row) for row in failed)
    tops = sorted(count.keys() | lost.keys())
    figures = [(printable(top), count[top], lost[top], pixels[top], size[top]) for top in tops]
    if len(tops) > 1:
        figures.append(("all", count.total(), lost.total(), pixels.total(), size.total()))
    lines = [
        [name, f"{made:,}", f"{failures:,}", f"{area / 1e6:,.1f}", f"{space / 1e6:,.1f}"]
        for name, made, failures, area, space in figures
    ]
    return Table(("folder", "in color", "failed", "megapixels", "results, MB"), lines)


def _failures(failed: Sequence[Row]) -> list[Block]:
    if not failed:
        return []
    lines = [[printable(row.photo), row.message] for row in failed[:MOST_LINES]]
    more = f"; the first {MOST_LINES}, all are in {FAILURES_FILE}" if len(failed) > MOST_LINES else ""
    said = count_of(len(failed), "photo has", "photos have")
    text = Text(f"{said} no result; each run tries again{more}.", strong=True)
    return [text, Table(("photo", "reason"), lines, prose=True)]


def _warnings(done: Sequence[Row]) -> list[Block]:
    warned = [[printable(row.photo), warning] for row in done for warning in row.warnings]
    if not warned:
        return []
    return [Folded(f"Warnings: {len(warned)}", [Table(("photo", "warning"), warned[:MOST_LINES], prose=True)])]


def _settings(archive: Archive, done: Sequence[Row]) -> Definitions:
    resolved = model_info(archive.settings.model).resolve(archive.settings.options)
    terms = {name.replace("_", " "): str(value) for name, value in dataclasses.asdict(resolved).items()}
    older = sum(archive.is_of_other_settings(row) for row in done)
    terms |= {"photos still in other settings": f"{older:,}"} if older else {}
    return Definitions({"model": archive.settings.model, "weights": weights_hash(archive.settings.model)} | terms)


def _top(row: Row) -> str:
    return row.photo.partition("/")[0] if "/" in row.photo else "."
