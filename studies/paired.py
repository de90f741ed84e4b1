"""Paired differences between two rows of an evaluation, with 95 % bootstrap intervals.

    python studies/paired.py OUT/rows.jsonl "faces-quick, raw" "mini-base, raw"

Prints first minus second. The report of `chromatune evaluate` compares every row with the gray photo and with the first
model; this compares any two, such as raw with raw. ΔCF is a difference of means, so its interval is that of the
difference of both rows' ΔCF.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from chromatune.evaluation import interval, resampled_means, row_of

METRICS = ("psnr", "ssim", "mae", "cf_field", "truth_cf_field")


def main() -> None:
    """Reads the rows, draws the photos together, prints one line a metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    records = [json.loads(line) for line in arguments.rows.read_text(encoding="utf-8").splitlines()]
    sides = []
    for name in (arguments.first, arguments.second):
        scores = {record["key"]: record for record in records if row_of(record).name == name}
        if not scores:
            raise SystemExit(f"no row {name!r}; there are: {', '.join(sorted({row_of(r).name for r in records}))}")
        columns = {metric: np.array([scores[key][metric] for key in sorted(scores)]) for metric in METRICS}
        means = resampled_means(columns, arguments.seed)
        gap = np.abs(means["cf_field"] - means["truth_cf_field"])
        sides.append({metric: means[metric] for metric in METRICS[:3]} | {"delta_cf_field": gap})
    for metric, first in sides[0].items():
        difference = first - sides[1][metric]
        low, high = interval(difference)
        print(f"{metric} {difference[0]:+.4f} ({low:.4f} … {high:.4f})")


if __name__ == "__main__":
    main()
