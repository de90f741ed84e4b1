"""Measures the embedded pair on held-out photos: table, curve over steps, one row a photo, sheets to look at.

    python benchmarks/embedded.py FOLDER --split test --out OUT      # a set the recipe trained on: its test split
    python benchmarks/embedded.py FOLDER --split all --out OUT       # a set no weights saw

256 px centre squares; grey or sepia truths are left out and counted. The 500 photos are those whose content hash is
lowest, one a folder where `--one-per-folder` is given (persons).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "mini"))
from photos import SUFFIXES, centre_square, content_share, is_monochrome, split_of

from chromatune import Colorizer, make_options
from chromatune.color import luma
from chromatune.evaluation.metrics import colorfulness, scores
from chromatune.evaluation.table import markdown, summarise

RECIPE = Path(__file__).parents[1] / "recipes" / "mini" / "settings.toml"


def choose(folder: Path, split: str, limit: int, one_per_folder: bool) -> tuple[list[Path], int]:
    """The photos to measure on, lowest content hash first, and how many grey ones were passed over."""
    settings = tomllib.loads(RECIPE.read_text())["pack"]
    files = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    shares = sorted((content_share(path), path) for path in files)
    chosen: list[Path] = []
    grey, folders = 0, set()
    for share, path in shares:
        if (split != "all" and split_of(share, settings) != split) or (one_per_folder and path.parent in folders):
            continue
        if is_monochrome(read(path), settings["min_chroma"]):
            grey += 1
            continue
        chosen.append(path)
        folders.add(path.parent)
        if len(chosen) == limit:
            break
    return chosen, grey


def read(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 sRGB."""
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def variants(names: list[str], steps: list[int]) -> list[tuple[str, str, dict[str, object]]]:
    """(row name, model, options): each model over the steps, recomposed; and raw at its default."""
    rows: list[tuple[str, str, dict[str, object]]] = []
    for name in names:
        rows += [
            (f"{name}, {count} steps" if count > 1 else f"{name}, 1 step", name, {"steps": count}) for count in steps
        ]
        rows.append((f"{name}, default steps, raw", name, {"recompose": False}))
    return rows


def main() -> None:
    """Parses the command line, runs every variant, writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=("test", "validation", "all"), default="all")
    parser.add_argument("--one-per-folder", action="store_true")
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--models", nargs="+", default=["mini-base", "mini"])
    parser.add_argument("--steps", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--prompt")
    arguments = parser.parse_args()
    files, left_out = choose(arguments.folder, arguments.split, arguments.limit, arguments.one_per_folder)
    if not files:
        raise SystemExit(f"no photos of the split {arguments.split!r} below {arguments.folder}")
    truths = [centre_square(read(path), 256) for path in files]
    greys = [luma(truth) for truth in truths]
    truth_cf = [colorfulness(truth) for truth in truths]
    digest = hashlib.sha256(b"".join(hashlib.sha256(truth).digest() for truth in truths)).hexdigest()[:16]
    arguments.out.mkdir(parents=True, exist_ok=True)
    summaries: dict[str, dict[str, float]] = {}
    per_photo = (arguments.out / "rows.jsonl").open("w")
    sheet = {"input": [np.repeat(grey[..., None], 3, axis=2) for grey in greys[:40]]}

    def record(name: str, results: list[np.ndarray], seconds: float) -> None:
        with ThreadPoolExecutor(2) as pool:
            rows = list(pool.map(scores, results, truths, greys))
        summaries[name] = summarise(rows, truth_cf) | {"seconds": seconds / len(results)}
        for path, row in zip(files, rows, strict=True):
            per_photo.write(json.dumps({"row": name, "file": str(path.relative_to(arguments.folder)), **row}) + "\n")
        sheet[name] = results[:40]
        print(name, {key: round(value, 3) for key, value in summaries[name].items()}, flush=True)

    record("grey passthrough", [np.repeat(grey[..., None], 3, axis=2) for grey in greys], 0.0)
    loaded: dict[str, Colorizer] = {}
    for name, model, settings in variants(arguments.models, arguments.steps):
        colorizer = loaded.setdefault(model, Colorizer.load(model, device="cpu"))
        options = make_options(prompt=arguments.prompt, **settings)
        start = time.perf_counter()
        stream = colorizer.colorize_many(greys, options, batch_size=16)
        results = [result.rgb for result in track(stream, name, total=len(greys))]
        record(name, results, time.perf_counter() - start)
    sheet["truth"] = truths[:40]
    write_sheets(arguments.out, sheet)
    header = f"{len(files)} photos, {left_out} grey or sepia left out, content `{digest}`"
    header += f", truth CF field {np.mean(truth_cf):.1f}, seed 0.\n\n"
    (arguments.out / "table.md").write_text(header + markdown(summaries))
    (arguments.out / "summary.json").write_text(json.dumps(summaries, indent=1))
    print(header + markdown(summaries))


def write_sheets(out: Path, sheet: dict[str, list[np.ndarray]]) -> None:
    """Ten photos a sheet, a row for each variant; to be looked at, not published."""
    for start in range(0, len(sheet["truth"]), 10):
        rows = [np.concatenate(photos[start : start + 10], axis=1) for photos in sheet.values()]
        cv2.imwrite(str(out / f"sheet-{start:02d}.jpg"), np.concatenate(rows)[..., ::-1])


if __name__ == "__main__":
    main()
