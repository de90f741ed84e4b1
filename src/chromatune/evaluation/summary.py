"""Scores of single photos ⇒ a row a method: means, 95 % intervals, paired differences; as data and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chromatune.evaluation.bootstrap import interval, resampled_means
from chromatune.evaluation.frechet import ENOUGH_PHOTOS
from chromatune.evaluation.protocol import HELD_OUT, SEEN
from chromatune.evaluation.rows import GREY, RAW, Method, Record
from chromatune.evaluation.table import MISSING, markdown_lines

MEANS = (
    "psnr ssim mae lab_mse ab_mse ciede2000 cf_field cf_signed luma_drift_mean bleeding "
    "truth_cf_field truth_cf_signed truth_bleeding"
).split()
GAPS = {"delta_cf_field": "cf_field", "delta_cf_signed": "cf_signed"}  # |mean of results - mean of truths|
SKIN = "skin_ciede2000"  # only where there is a face
LPIPS, FID = "lpips", "fid"  # only where a network was given
DRIFT_MAX = "luma_drift_max"  # the worst photo's: no mean, and so no interval
OPTIONAL = (LPIPS, FID)
COMPARED = ("psnr", "ssim", "mae", "lab_mse", "ab_mse", "ciede2000", *GAPS, "bleeding", SKIN, LPIPS)
SPREAD = ("psnr", "ciede2000", "cf_field")
GENERALISATION = ("psnr", "ab_mse", "ciede2000")

TITLES = {
    "photos": "photos",
    "psnr": "PSNR dB",
    "ssim": "SSIM",
    "mae": "MAE",
    "lab_mse": "LAB MSE",
    "ab_mse": "ab MSE",
    "ciede2000": "CIEDE2000",
    "cf_field": "CF field",
    "delta_cf_field": "ΔCF field",
    "cf_signed": "CF signed",
    "delta_cf_signed": "ΔCF signed",
    DRIFT_MAX: "luma drift max",
    "bleeding": "bleeding",
    SKIN: "skin CIEDE2000",
    "faces": "faces",
    LPIPS: "LPIPS",
    FID: "FID",
}
DIGITS = {
    "photos": 0,
    "faces": 0,
    "ssim": 4,
    "psnr": 2,
    "mae": 2,
    "ciede2000": 2,
    "bleeding": 3,
    SKIN: 2,
    LPIPS: 4,
    FID: 2,
}

Statistics = dict[str, np.ndarray]  # name ⇒ (1 + resamples,), the plain value first


def summarise_rows(records: Sequence[Record], methods: Sequence[Method], seed: int) -> list[dict[str, Any]]:
    """One dictionary a row: name, counts, means under their names, intervals, and differences to two other rows.

    "minus_grey" and "minus_first" (the first model's recomposed row) hold the difference of means and its interval,
    over the photos that both rows have.

    Args:
        records: lines of scores.
        methods: in the order of the table.
        seed: of the bootstrap.
    """
    scored = {row: _by_key(records, row, HELD_OUT) for method in methods for row in method.rows}
    first = next((method.name for method in methods if method.model is not None), None)
    summaries = []
    for row, photos in scored.items():
        failed = sum(1 for r in records if r["row"] == row and r["part"] == HELD_OUT and "failed" in r)
        summary: dict[str, Any] = {"name": row, "photos": len(photos), "failed": failed}
        if photos:
            statistics = _statistics(list(photos.values()), seed)
            summary |= {name: float(values[0]) for name, values in statistics.items()}
            summary[DRIFT_MAX] = max(record[DRIFT_MAX] for record in photos.values())
            summary["faces"] = sum(1 for record in photos.values() if record[SKIN] is not None)
            summary["intervals"] = {name: interval(values) for name, values in statistics.items()}
        for label, other in (("minus_grey", GREY), ("minus_first", first)):
            if other is not None and other != row and photos and scored.get(other):
                summary[label] = _differences(photos, scored[other], seed)
        summaries.append(summary)
    return summaries


def prompt_spread(records: Sequence[Record], methods: Sequence[Method]) -> list[dict[str, Any]]:
    """How much the prompt matters: mean over photos of the standard deviation over prompts, a line a model and row.

    Empty unless a model was run with several prompts.
    """
    groups: dict[tuple[str, int | None, bool], list[str]] = {}
    for method in methods:
        if method.model is not None:
            for row in method.rows:
                groups.setdefault((method.model, method.steps, row.endswith(RAW)), []).append(row)
    spreads = []
    for (model, steps, raw), rows in groups.items():
        scored = [_by_key(records, row, HELD_OUT) for row in rows]
        common = sorted(set.intersection(*(set(photos) for photos in scored)))
        if len(rows) < 2 or not common:
            continue
        spread: dict[str, Any] = {"model": model, "steps": steps, "raw": raw, "prompts": len(rows)}
        for name in SPREAD:
            values = np.array([[photos[key][name] for key in common] for photos in scored])  # (prompts, N)
            spread[name] = float(values.std(axis=0).mean())
        spreads.append(spread)
    return spreads


def generalisation_gaps(records: Sequence[Record], methods: Sequence[Method], seed: int) -> list[dict[str, Any]]:
    """How much better each model is on photos it was trained on: mean there minus mean on held-out photos.

    The photos are others, so the two means are resampled independently. Empty without photos seen in training.
    """
    gaps = []
    for row in (row for method in methods if method.model is not None for row in method.rows):
        seen, held_out = (list(_by_key(records, row, part).values()) for part in (SEEN, HELD_OUT))
        if not seen or not held_out:
            continue
        there, here = _statistics(seen, seed), _statistics(held_out, seed + 1)
        gaps.append({"name": row, "seen": len(seen)} | _as_differences(there, here, GENERALISATION))
    return gaps


def markdown_report(summary: Mapping[str, Any]) -> str:
    """The tables as Markdown: means, intervals, differences, and below them what was measured and on what."""
    written = {title: markdown_lines(lines) for title, lines in tables(summary).items()}
    sections = [f"## {title}\n\n{text}" for title, text in written.items()]
    return "\n".join([_header(summary["protocol"]), *sections, *(note + "\n" for note in notes(summary))])


def notes(summary: Mapping[str, Any]) -> list[str]:
    """What must be read with the tables, a sentence each; usually none."""
    few = [row["photos"] for row in summary["rows"] if FID in row and row["photos"] < ENOUGH_PHOTOS]
    if not few:
        return []
    return [
        f"Warning: FID is over as few as {min(few)} photos. Under {ENOUGH_PHOTOS:,} its value depends on their number: "
        "compare it within this table alone, between rows of equally many photos."
    ]


def tables(summary: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """Title ⇒ lines of cells, the header first; a table that would be empty is left out."""
    rows = {row["name"]: row for row in summary["rows"]}
    intervals = {name: _spans(row["intervals"]) for name, row in rows.items() if "intervals" in row}
    optional = {
        name: f"{TITLES[name]} ({summary['protocol'][name]})" for name in OPTIONAL if name in summary["protocol"]
    }
    titles = {key: title for key, title in TITLES.items() if key not in OPTIONAL} | optional
    compared = [key for key in COMPARED if key in titles]
    made = {
        "Means": _table({name: _cells(row) for name, row in rows.items()}, titles, tuple(titles)),
        "95 % intervals of the means": _table(intervals, titles, compared),
    }
    for label, title in (("minus_grey", "Minus grey"), ("minus_first", "Minus the first model")):
        differing = {name: _difference_cells(row[label]) for name, row in rows.items() if label in row}
        if differing:
            made[f"{title}: paired differences of means"] = _table(differing, titles, compared)
    if summary["prompt_spread"]:
        spreads = {_spread_name(spread): _cells(spread) for spread in summary["prompt_spread"]}
        made["Standard deviation over prompts"] = _table(spreads, titles, SPREAD)
    if summary["generalisation"]:
        gaps = {gap["name"]: _difference_cells(gap) for gap in summary["generalisation"]}
        made["Photos seen in training minus held-out photos"] = _table(gaps, titles, GENERALISATION)
    return made


def number(value: float, key: str) -> str:
    """A value with the digits that its metric deserves."""
    digits = DIGITS.get(key, 1)
    return f"{round(value, digits) + 0.0:.{digits}f}"  # no minus zero


def span(ends: Sequence[float], key: str) -> str:
    """An interval as text."""
    return " … ".join(number(end, key) for end in ends)


def _by_key(records: Sequence[Record], row: str, part: str) -> dict[str, Record]:
    return {r["key"]: r for r in records if r["row"] == row and r["part"] == part and "failed" not in r}


def _statistics(photos: Sequence[Record], seed: int) -> Statistics:
    names = [*MEANS, LPIPS] if LPIPS in photos[0] else MEANS
    columns = {name: np.array([record[name] for record in photos]) for name in names}
    statistics = _with_gaps(resampled_means(columns, seed))
    faces = [record[SKIN] for record in photos if record[SKIN] is not None]
    if len(faces) > 1:  # of one, the interval would have no width
        statistics |= resampled_means({SKIN: np.array(faces)}, seed)
    return statistics


def _with_gaps(means: Statistics) -> Statistics:
    return means | {gap: np.abs(means[cf] - means[f"truth_{cf}"]) for gap, cf in GAPS.items()}


def _differences(photos: Mapping[str, Record], others: Mapping[str, Record], seed: int) -> dict[str, Any]:
    """Differences over the photos both have; equal seed and number mean that both are resampled alike."""
    common = [key for key in photos if key in others]
    if not common:
        return {}
    here, there = (_statistics([row[key] for key in common], seed) for row in (photos, others))
    return {"photos": len(common)} | _as_differences(here, there, COMPARED)


def _as_differences(here: Statistics, there: Statistics, names: Sequence[str]) -> dict[str, Any]:
    differences = {name: here[name] - there[name] for name in names if name in here and name in there}
    return {name: {"mean": float(d[0]), "interval": interval(d)} for name, d in differences.items()}


def _table(rows: Mapping[str, Mapping[str, str]], titles: Mapping[str, str], keys: Sequence[str]) -> list[list[str]]:
    header = ["", *(titles[key] for key in keys)]
    return [header, *([name, *(row.get(key, MISSING) for key in keys)] for name, row in rows.items())]


def _spans(intervals: Mapping[str, Sequence[float]]) -> dict[str, str]:
    return {key: span(ends, key) for key, ends in intervals.items()}


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    return {key: number(row[key], key) for key in TITLES if row.get(key) is not None}


def _difference_cells(differences: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: f"{number(value['mean'], key)} ({span(value['interval'], key)})"
        for key, value in differences.items()
        if isinstance(value, Mapping)
    }


def _spread_name(spread: Mapping[str, Any]) -> str:
    steps = "" if spread["steps"] is None else f", {spread['steps']} steps"
    return f"{spread['model']}{steps}{RAW if spread['raw'] else ''}, {spread['prompts']} prompts"


def _header(protocol: Mapping[str, Any]) -> str:
    lines = [f"# Evaluation on {protocol['source']}", ""]
    lines += [f"- {key.replace('_', ' ')}: {plain(value)}" for key, value in protocol.items() if key != "source"]
    return "\n".join(lines) + "\n"


def plain(value: Any) -> str:
    """A value of the protocol as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(plain(each) for each in value) or "none"
    return "none" if value is None else str(value)
