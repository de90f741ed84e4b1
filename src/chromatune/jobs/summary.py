"""The page of an archive: each photo before and after, by folder and result, what needs a look first.

`summary.html` shows a hundred photos at a time. What it shows of them, and their thumbnails, are files of
`.chromatune`, of which it loads those that it needs: 100,000 photos make a page as light as 100. The same photos make
the same page.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from chromatune.errors import count_of, printable
from chromatune.files import open_below, write_below
from chromatune.jobs.catalog import THUMBNAILS, Catalog, thumbnail_name
from chromatune.jobs.manifest import Row
from chromatune.jobs.store_protocol import STATE_FOLDER, Store
from chromatune.jobs.stores import LocalFolder
from chromatune.pipeline import model_info, weights_hash

SUMMARY_FILE = "summary.html"
TEMPLATE = "summary.html.jinja"
PAGE_PHOTOS = 100  # at a time, and in a file of photos
DATA = f"{STATE_FOLDER}/summary/photos-"  # and a number: what the page shows of a hundred photos
MOST_LINES = 200  # of the list of failures for readers without scripts; the file of failures has all
LETTERS = {"failed": "f", "skipped": "s", "copied": "c", "done": "d"}  # of states, in the page's index
WARNED = {"c": "v", "d": "w"}  # letters of the same with warnings
WAITING = "n"
WHY = {
    "waiting": "not done yet",
    "left out": "skipped: its name does not end in a picture's suffix; rename it to colorize it",
    "skipped": "skipped: already in color",
    "copied": "copied: already in color",
    "kept": "the result of an earlier run is kept",
}


def write_summary(catalog: Catalog) -> Path:
    """Write the page of an archive into the folder of its records, and return its path.

    Raises:
        OSError: it cannot be written.
    """
    folder, settings = catalog.folder, catalog.settings
    photos = sorted([*catalog.listed, *catalog.left_out], key=_folder_and_name)
    links = _link_base(settings.source, folder), _link_base(settings.destination, folder)
    for number, start in enumerate(range(0, len(photos), PAGE_PHOTOS)):
        entries = [_entry(catalog, photo, *links) for photo in photos[start : start + PAGE_PHOTOS]]
        lines = ",\n".join(json.dumps(entry) for entry in entries)
        _write_changed(folder, f"{DATA}{number}.js", f"chromatunePhotos({number},[\n{lines}\n])\n".encode())
    index = {
        "size": PAGE_PHOTOS,
        "folders": list(_folders(photos)),
        "states": "".join(_letter(catalog, photo) for photo in photos),
        "data": DATA,
        "thumbnails": f"{THUMBNAILS}/",
    }
    done, failed = catalog.rows_of("done", "copied"), catalog.rows_of("failed")
    page = _render(
        title=f"Archive {printable(settings.source.name)}",
        lead=_lead(catalog, done, failed),
        failed=len(failed),
        problems=[(printable(row.photo), row.message) for row in failed[:MOST_LINES]],
        tops=_top_folders(done, failed),
        terms=_settings(catalog, done),
        index=index,
    )
    write_below(folder, SUMMARY_FILE, page.encode("utf-8", "backslashreplace"))
    return folder / SUMMARY_FILE


def _render(**values: Any) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = (resources.files("chromatune.jobs") / TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source).render(**values)


def _write_changed(folder: Path, key: str, data: bytes) -> None:
    """Write a file, unless it is there as it should be."""
    with suppress(OSError), open_below(folder, key) as file:
        if file.read(len(data) + 1) == data:
            return
    write_below(folder, key, data, sync=False)


def _folder_and_name(photo: str) -> tuple[list[str], str]:
    folder, _, name = photo.rpartition("/")
    return folder.split("/") if folder else [], name


def _folders(photos: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield each folder with photos in it or below it, the first of them, and their number; the first folder has all.

    The photos are sorted by folder, so those below one follow each other.
    """
    below = Counter[str]()
    start: dict[str, int] = {"": 0}
    for position, photo in enumerate(photos):
        parts = _folder_and_name(photo)[0]
        for depth in range(len(parts) + 1):
            folder = "/".join(parts[:depth])
            below[folder] += 1
            start.setdefault(folder, position)
    for folder, first in start.items():
        depth = folder.count("/") + 1 if folder else 0
        yield {"label": printable(folder), "start": first, "below": below[folder], "depth": depth}


def _letter(catalog: Catalog, photo: str) -> str:
    if photo not in catalog.listed:
        return LETTERS["skipped"]
    row = catalog.rows.get(photo)
    if row is None:
        return WAITING
    letter = LETTERS[row.state]
    return WARNED.get(letter, letter) if row.warnings else letter


def _entry(catalog: Catalog, photo: str, source: str | None, destination: str | None) -> dict[str, Any]:
    """Return what the page shows of a photo: text, links relative to the page, and its thumbnail's name."""
    row = catalog.rows.get(photo) if photo in catalog.listed else None
    entry: dict[str, Any] = {"name": printable(photo.rpartition("/")[2]), "why": []}
    if source is not None:
        entry["photo"] = source + _quoted(photo)
    if row is None:
        entry["why"] = [WHY["waiting" if photo in catalog.listed else "left out"]]
        return entry
    if row.result and destination is not None:
        entry["result"] = destination + _quoted(row.result)
    if row.state != "failed" or row.result:
        entry["thumbnail"] = thumbnail_name(photo)
    reason = "kept" if row.state == "failed" and row.result else row.state
    # the message begins with the photo's path, which is there already
    label = f"{catalog.settings.source.name.rstrip('/')}/{photo}"
    message = row.message.removeprefix(f"{printable(label)}: ")
    entry["why"] = [line for line in (message, WHY.get(reason, ""), *row.warnings) if line]
    return entry


def _link_base(store: Store, folder: Path) -> str | None:
    """Return what comes before a file's key in a link from the page; None where a browser cannot open the store."""
    if not isinstance(store, LocalFolder):
        return f"{store.name}/" if store.name.lower().startswith(("http://", "https://")) else None
    path = os.path.abspath(store.path)
    try:
        relative = os.path.relpath(path, os.path.abspath(folder))
    except ValueError:  # on another drive
        return f"{Path(path).as_uri()}/"
    return "" if relative == os.curdir else f"{_quoted(relative.replace(os.sep, '/'))}/"


def _quoted(path: str) -> str:
    return quote(os.fsencode(path), safe="/")


def _lead(catalog: Catalog, done: Sequence[Row], failed: Sequence[Row]) -> str:
    photos, skipped = len(catalog.listed), len(catalog.rows_of("skipped"))
    copied, left_out = sum(row.state == "copied" for row in done), len(catalog.left_out)
    left = photos - len(done) - len(failed) - skipped
    lead = f"{len(done):,} of {count_of(photos, 'photo')} in color"
    lead += f", {len(failed):,} failed" if failed else ""
    lead += f", {skipped:,} already in color and skipped" if skipped else ""
    lead += f", {copied:,} of them already in color and copied" if copied else ""
    lead += f", {left:,} not done yet" if left else ""
    if left_out:
        lead += f", {count_of(left_out, 'more picture')} skipped for {'its name' if left_out == 1 else 'their names'}"
    return f"{lead}."


def _top_folders(done: Sequence[Row], failed: Sequence[Row]) -> dict[str, Any]:
    """Return photos, pixels and bytes of each folder at the top of the source, and of all, as a table."""
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
    rows = [
        [name, f"{photos:,}", f"{lacking:,}", f"{area / 1e6:,.1f}", f"{space / 1e6:,.1f}"]
        for name, photos, lacking, area, space in figures
    ]
    return {"header": ("folder", "in color", "failed", "megapixels", "results, MB"), "rows": rows}


def _settings(catalog: Catalog, done: Sequence[Row]) -> dict[str, str]:
    settings = catalog.settings
    resolved = model_info(settings.model).resolve(settings.options)
    terms = {"model": settings.model, "weights": weights_hash(settings.model)}
    terms |= {name.replace("_", " "): str(value) for name, value in dataclasses.asdict(resolved).items()}
    terms |= {} if settings.page is None else {"page": str(settings.page)}
    files = sorted(catalog.folder_settings.labels.values())
    terms |= {"folders with settings of their own": ", ".join(files)} if files else {}
    outdated = sum(catalog.is_outdated(row) for row in done)
    return terms | ({"photos still in other settings": f"{outdated:,}"} if outdated else {})


def _top(row: Row) -> str:
    return row.photo.partition("/")[0] if "/" in row.photo else "."
