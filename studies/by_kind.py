"""An evaluation of the recipe's photos, told apart by what they show: faces, portraits, scenes, objects, flowers.

    python studies/by_kind.py OUT/rows.jsonl [--metrics psnr ciede2000 cf_field]

OUT is what `chromatune evaluate` wrote for the folder that the recipe was given; kinds are those of its settings.
Prints Markdown: each row's means by kind, less the gray photo's in brackets.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections import defaultdict
from pathlib import Path

import numpy as np

from chromatune.evaluation import row_of

SETTINGS = Path(__file__).parents[1] / "recipes" / "mini" / "settings.toml"


def main() -> None:
    """Reads the rows, prints one table a metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--metrics", nargs="+", default=["psnr", "ciede2000", "cf_field"])
    arguments = parser.parse_args()
    kinds = tomllib.loads(SETTINGS.read_text())["kinds"]
    kind_of = {name: kind for kind, names in kinds.items() for name in names}
    scores: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for line in arguments.rows.read_text().splitlines():
        record = json.loads(line)
        if "failed" not in record:
            scores[row_of(record).name][kind_of.get(record["key"].split("/")[0], "other")].append(record)
    present = [kind for kind in (*kinds, "other") if kind in scores["gray"]]
    for metric in arguments.metrics:
        counts = " | ".join(f"{kind} ({len(scores['gray'][kind])})" for kind in present)
        print(f"| {metric} | {counts} |\n| --- |" + " ---: |" * len(present))
        for row, by_kind in scores.items():
            means = [float(np.mean([record[metric] for record in by_kind[kind]])) for kind in present]
            grays = [float(np.mean([record[metric] for record in scores["gray"][kind]])) for kind in present]
            cells = [f"{mean:.2f} ({mean - gray:+.2f})" for mean, gray in zip(means, grays, strict=True)]
            print(f"| {row} | " + " | ".join(cells) + " |")
        print()


if __name__ == "__main__":
    main()
