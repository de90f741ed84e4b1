"""Tables of scores: means over photos, and the colourfulness gap that stands beside every PSNR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

COLUMNS = {
    "psnr": "PSNR dB",
    "ssim": "SSIM",
    "mae": "MAE",
    "ab_mse": "ab MSE",
    "ciede2000": "CIEDE2000",
    "cf_field": "CF field",
    "delta_cf_field": "ΔCF field",
    "luma_drift_max": "luma drift max",
}

MISSING = "–"


def summarise(rows: Sequence[Mapping[str, float]], truth_cf_field: Sequence[float]) -> dict[str, float]:
    """Means over photos of each score; drift is the worst photo's; ΔCF is the difference of mean CF.

    Args:
        rows: `metrics.scores` of each photo.
        truth_cf_field: colourfulness ("field") of each truth.

    Raises:
        ValueError: there are no rows: a mean of nothing would be a NaN in a table.
    """
    if not rows:
        raise ValueError("no photos were scored")
    summary = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    summary["luma_drift_max"] = max(row["luma_drift_max"] for row in rows)
    summary["delta_cf_field"] = abs(summary["cf_field"] - float(np.mean(truth_cf_field)))
    return summary


def markdown(rows: Mapping[str, Mapping[str, float]], columns: Mapping[str, str] = COLUMNS) -> str:
    """A Markdown table: one line a method, one column a score; a score a row lacks is a dash."""
    lines = [["", *columns.values()]]
    for name, row in rows.items():
        lines.append([name, *(_cell(key, row[key]) if key in row else MISSING for key in columns)])
    return markdown_lines(lines)


def markdown_lines(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells, the header first; the first column is aligned left, the others right."""
    header, *body = (["\\|".join(" ".join(cell.split()).split("|")) for cell in line] for line in lines)
    written = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    written += ["| " + " | ".join(line) + " |" for line in body]
    return "\n".join(written) + "\n"


def _cell(key: str, value: float) -> str:
    digits = {"ssim": 4, "psnr": 2, "mae": 2}.get(key, 3 if key == "seconds" else 1)
    return f"{value:.{digits}f}"
