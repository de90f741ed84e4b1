"""Photos that travel: a folder of photos as a few files of bounded size, with a model to start from and the licenses.

A shard is a ZIP file: `list.json` (name, split and the original's hash of each photo), `manifest.csv` (the photos'
rows), `photos/FILE.webp`, and in the first one `model/`. Test photos do not travel.
"""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
import zlib
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from photos import (
    LEFT_OUT,
    SPLITS,
    content_at,
    content_share,
    find_photos,
    list_hash,
    read_to_pack,
    save_pack,
    set_of,
    split_of,
)
from rich.progress import track

from chromatune.files import atomic_folder
from chromatune.pipeline import PHOTO_DIGITS

PATTERN = "shard-*.zip"
FORMAT = 2
WITHOUT_HASHES = 1  # the format before, which is read too
QUALITIES = (95, 90, 85, 80, 75, 70, 65, 60, 50)  # of WebP: the best one that fits is taken
TRIED = 600  # photos that the size of all is estimated from
SLACK = 1.03  # of that estimate
MIB = 2**20


@dataclass(frozen=True)
class Packed:
    """A photo that travels: name, split, WebP bytes, hash of the original (`content_at`); or why it was left out."""

    file: str
    split: str
    webp: bytes
    content: str = ""
    left_out: str = ""

    @property
    def bytes_in_zip(self) -> int:
        """With its two entries in the archive, and its place in the list."""
        return len(self.webp) + 3 * len(self.file) + len(self.content) + 180


def packed(path: Path, file: str, split: str, settings: dict[str, Any], quality: int) -> Packed:
    """Reads a photo at the size that training reads, and compresses it; `file` is its name in the pack."""
    rgb = read_to_pack(path, settings)
    if isinstance(rgb, str):
        return Packed(file, split, b"", left_out=rgb)
    _, data = cv2.imencode(".webp", rgb[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])
    return Packed(file, split, data.tobytes(), content_at(path)[:PHOTO_DIGITS])


def pack_shards(
    folder: Path, out: Path, settings: dict[str, Any], count: int, mib: float, model: Path
) -> dict[str, Any]:
    """Writes `count` shards of at most `mib` MiB into `out`, at the best quality that fits; returns what they hold.

    Args:
        folder: photos, searched through all subfolders.
        out: new folder; an older one is replaced when the new one is complete.
        settings: `[pack]`; sets of weight 0 stay, and of a set in `most` that many training photos travel.
        count: shards.
        mib: of each.
        model: folder of the model to start from; its ONNX graphs stay.

    Raises:
        SystemExit: the photos do not fit at the lowest quality, or there are none.
    """
    weights = settings["weights"]
    found = [path for path in find_photos(folder) if weights.get(set_of(_name(path, folder)), 1.0) > 0]
    if not found:
        raise SystemExit(f"{folder}: no photos of a set with a weight above 0 in [pack.weights]; give another folder")
    parts = [path for path in sorted(model.rglob("*")) if path.is_file() and path.suffix not in (".onnx", ".data")]
    room = count * mib * MIB - sum(path.stat().st_size + 400 for path in parts) - 0.02 * MIB * count
    manifest = _manifest(folder)
    with ProcessPoolExecutor() as pool:
        shares = pool.map(content_share, found, chunksize=64)
        chosen = _chosen(
            [(share, path, _name(path, folder)) for share, path in zip(shares, found, strict=True)], settings
        )
        lines = "".join(manifest.get(file, "") for _, file, _ in chosen)
        room -= len(zlib.compress(lines.encode())) * SLACK
        for quality in QUALITIES:
            make = partial(packed, settings=settings, quality=quality)
            tried = list(pool.map(make, *zip(*chosen[:: max(1, len(chosen) // TRIED)], strict=True), chunksize=8))
            if sum(photo.bytes_in_zip for photo in tried) / len(tried) * len(chosen) * SLACK > room:
                continue
            made = pool.map(make, *zip(*chosen, strict=True), chunksize=32)
            photos = list(track(made, f"packing at quality {quality}", total=len(chosen)))
            kept = [photo for photo in photos if not photo.left_out]
            if sum(photo.bytes_in_zip for photo in kept) <= room:
                break
        else:
            raise SystemExit(
                f"{len(chosen)} photos do not fit into {count} shards of {mib:g} MiB: give more, or set [pack.most]"
            )
    facts = {
        "photos": len(photos),
        **{why: sum(photo.left_out == why for photo in photos) for why in LEFT_OUT},
        **{split: sum(photo.split == split for photo in kept) for split in ("train", "validation")},
        "test": 0,
        "train_hash": list_hash(sorted(photo.file for photo in kept if photo.split == "train")),
        "quality": quality,
    }
    with atomic_folder(out) as new:
        _write(new, kept, facts, manifest, parts, model, count)
        sizes = [path.stat().st_size for path in sorted(new.glob(PATTERN))]
        if max(sizes) > mib * MIB:
            raise SystemExit(
                f"{out}: a shard would have {max(sizes) / MIB:.1f} MiB; give fewer --shards, or more --mib"
            )
    return facts | {"mib": [round(size / MIB, 2) for size in sizes]}


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _chosen(found: list[tuple[float, Path, str]], settings: dict[str, Any]) -> list[tuple[Path, str, str]]:
    """Path, name and split of those that travel, of (content share, path, name); by share, which mixes the sets."""
    most, taken, chosen = settings.get("most", {}), Counter[str](), []
    for share, path, file in sorted(found):
        split = split_of(share, settings)
        if split == "test":
            continue
        if split == "train":
            if taken[set_of(file)] >= most.get(set_of(file), len(found)):
                continue
            taken[set_of(file)] += 1
        chosen.append((path, file, split))
    return chosen


def _manifest(folder: Path) -> dict[str, str]:
    """Lines of `manifest.csv` by file, with the header under ""; nothing where the folder has none."""
    path = folder / "manifest.csv"
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as source:
        rows = list(csv.reader(source))
    return {"": _line(rows[0]), **{row[rows[0].index("file")]: _line(row) for row in rows[1:] if row}}


def _line(row: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()


def _write(
    out: Path, photos: list[Packed], facts: dict[str, Any], manifest: dict[str, str], parts: list[Path], model: Path,
    count: int,
) -> None:  # fmt: skip
    """The shards, about equally large: the first has the model, and fewer photos."""
    target = (sum(photo.bytes_in_zip for photo in photos) + sum(path.stat().st_size for path in parts)) / count
    rest = list(reversed(photos))
    for number in range(count):
        size = sum(path.stat().st_size for path in parts) if number == 0 else 0
        mine: list[Packed] = []
        while rest and (size < target or number == count - 1):
            mine.append(rest.pop())
            size += mine[-1].bytes_in_zip
        listed = {"format": FORMAT, "shard": number, "shards": count, **facts}
        listed["files"] = [[photo.file, photo.split, photo.content] for photo in mine]
        with zipfile.ZipFile(out / f"shard-{number}.zip", "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("list.json", json.dumps(listed), zipfile.ZIP_DEFLATED)
            lines = [manifest[key] for key in ("", *(photo.file for photo in mine)) if key in manifest]
            archive.writestr("manifest.csv", "".join(lines), zipfile.ZIP_DEFLATED)
            for path in parts if number == 0 else ():
                archive.write(path, f"model/{path.relative_to(model).as_posix()}")
            for photo in mine:
                archive.writestr(f"photos/{photo.file}.webp", photo.webp)


def read_shards(folder: Path, out: Path) -> dict[str, Any]:
    """Unpacks the shards in `folder` into `out` as `photos.pack` does; the model goes to `out/model`.

    Raises:
        SystemExit: a shard is missing, damaged, or not of this format.
    """
    lists, pixels = {}, {}  # type: dict[int, dict[str, Any]], dict[str, np.ndarray]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path in sorted(folder.glob(PATTERN)):
            try:
                with zipfile.ZipFile(path) as archive:
                    listed = json.loads(archive.read("list.json"))
                    if listed.get("format") not in (FORMAT, WITHOUT_HASHES):
                        raise SystemExit(f"{path}: format {listed.get('format')}, not {FORMAT}; pack the photos again")
                    files = [file for file, *_ in listed["files"]]
                    data = [archive.read(f"photos/{file}.webp") for file in files]
                    pixels |= dict(zip(files, pool.map(_decoded, data), strict=True))
                    for name in archive.namelist():
                        if name.startswith("model/"):
                            archive.extract(name, out)
            except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
                raise SystemExit(f"{path}: not a whole shard ({error}); copy it again") from None
            lists[listed["shard"]] = listed
    some = next(iter(lists.values()))
    missing = [str(number) for number in range(some["shards"]) if number not in lists]
    if missing:
        raise SystemExit(f"{folder}: shard {', '.join(missing)} of {some['shards']} is missing; copy it here")
    if any(listed["train_hash"] != some["train_hash"] for listed in lists.values()):
        raise SystemExit(f"{folder}: shards of different packs; leave those of one")
    table = [row for listed in lists.values() for row in listed["files"]]
    split = {file: name for file, name, *_ in table}
    contents = {file: content for file, _, *hashed in table for content in hashed}
    splits = {name: [(file, pixels[file]) for file in sorted(pixels) if split[file] == name] for name in SPLITS}
    facts = {key: value for key, value in some.items() if key not in ("files", "shard", "shards", "format")}
    return save_pack(out, splits, facts, contents)


def _decoded(webp: bytes) -> np.ndarray:
    bgr = cv2.imdecode(np.frombuffer(webp, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError("a photo in it cannot be decoded")
    return np.ascontiguousarray(bgr[..., ::-1])
