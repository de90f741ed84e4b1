"""Scores of single photos ⇒ a row a method: means, 95 % intervals, paired differences; as data and as tables.

Intervals are of a seeded paired bootstrap. A resample is how often each photo was drawn, with replacement. All
statistics over the same photos use the same resamples, so that differences are paired.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from chromatune.errors import count_of
from chromatune.evaluation.perceptual import ENOUGH_PHOTOS
from chromatune.evaluation.protocol import (
    GRAY_METHOD,
    HELD_OUT,
    RECORD_TYPES,
    SEEN,
    Method,
    Record,
    Row,
    row_of,
    scored_by_row,
)
from chromatune.pipeline import Overlap
from chromatune.reports import MISSING, markdown_table

RESAMPLES = 2000
TAILS_PERCENT = (2.5, 97.5)  # percentile interval, Efron & Tibshirani 1993, section 13.3
_CHUNK = 4_000_000  # drawn indices in memory at a time

MEANS = (
    "psnr ssim mae lab_mse ab_mse ciede2000 cf_field cf_signed luma_drift_mean bleeding "
    "truth_cf_field truth_cf_signed truth_bleeding"
).split()
GAPS = {"delta_cf_field": "cf_field", "delta_cf_signed": "cf_signed"}  # |mean of results - mean of truths|
PHOTO_GAPS = {"photo_delta_cf_field": "cf_field", "photo_delta_cf_signed": "cf_signed"}  # mean of |result - truth|
SKIN = "skin_ciede2000"  # only where there is a face
LPIPS, FID = "lpips", "fid"  # only where a network was given
DRIFT_MAX = "luma_drift_max"  # the worst photo's: no mean, and so no interval
OPTIONAL = (LPIPS, FID)
COMPARED = ("psnr", "ssim", "mae", "lab_mse", "ab_mse", "ciede2000", *GAPS, "bleeding", SKIN, LPIPS)
PUBLISHED_TITLE = "Published rows beside ours"
PUBLISHED = ("photos", FID, "psnr", "ssim", LPIPS, "cf_field", "delta_cf_field", "photo_delta_cf_field")
SPREAD = ("psnr", "ciede2000", "cf_field")
GENERALIZATION = ("psnr", "ab_mse", "ciede2000")
DECISIVE = ("psnr", "ciede2000", "delta_cf_field")  # of two methods, the better one is better in these

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
    "photo_delta_cf_field": "ΔCF field, by photo",
    "cf_signed": "CF signed",
    "delta_cf_signed": "ΔCF signed",
    "photo_delta_cf_signed": "ΔCF signed, by photo",
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
    "seconds": 3,
}

Statistics = dict[str, np.ndarray]  # name ⇒ (1 + resamples,), the plain value first


def is_score(record: Record, *, with_lpips: bool = False) -> bool:
    """Return whether a line of rows.jsonl holds all scores, LPIPS too where it is measured, or why there are none."""
    if not all(type(record.get(name)) is kind for name, kind in RECORD_TYPES.items()):
        return False
    if "failed" in record:
        return isinstance(record["failed"], str)
    needed = (*MEANS, DRIFT_MAX, *([LPIPS] if with_lpips else []))
    if SKIN not in record or not all(is_number(record.get(name)) for name in needed):
        return False
    return record[SKIN] is None or is_number(record[SKIN])


def is_number(value: object) -> bool:
    """Return whether a value of a line is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def draw_counts(count: int, seed: int | Sequence[int], resamples: int = RESAMPLES) -> Iterator[np.ndarray]:
    """Yield how often each of `count` is drawn in each resample, a few resamples at a time: memory stays bounded.

    Args:
        count: how many there are to draw from, and how many a resample draws, with replacement.
        seed: of the draws; equal count and seed give the same ones.
        resamples: how many there are in all.

    Yields:
        (r, count) float64, whole numbers; each row's sum is `count`.
    """
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // count)
    for start in range(0, resamples, rows):
        drawn = rng.integers(0, count, (min(rows, resamples - start), count))  # (r, count) indices
        offsets = np.arange(len(drawn))[:, None] * count
        yield np.bincount((drawn + offsets).ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)


def resampled_means(columns: Mapping[str, np.ndarray], seed: int, resamples: int = RESAMPLES) -> dict[str, np.ndarray]:
    """Return each column's mean, then its means over resampled photos: (1 + resamples,) float64.

    Args:
        columns: name ⇒ (N,) float64, photos in one order; equal N and seed draw the same photos.
        seed: of the draws.
        resamples: how many times N photos are drawn, with replacement.

    Raises:
        ValueError: there are no photos, or the columns differ in length.
    """
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"columns must have one length, at least 1; got {sorted(lengths)}")
    (photos,) = lengths
    values = np.stack([np.asarray(column, np.float64) for column in columns.values()], axis=1)  # (N, K)
    means = [values.mean(axis=0, keepdims=True)]
    means += [counts @ values / photos for counts in draw_counts(photos, seed, resamples)]  # (r, K) each
    stacked = np.concatenate(means)  # (1 + resamples, K)
    return {name: stacked[:, index] for index, name in enumerate(columns)}


def interval(samples: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of resampled statistics, the plain one (first) left aside."""
    low, high = np.percentile(samples[1:], TAILS_PERCENT)
    return float(low), float(high)


def summarize_rows(records: Sequence[Record], methods: Sequence[Method], seed: int) -> list[dict[str, Any]]:
    """Return a dictionary a row: name, fields, counts, means by metric, intervals, and differences to two other rows.

    "minus_gray" and "minus_first" (the first model's recomposed row) hold the difference of means and its interval,
    over the photos that both rows have. Rows are in the order of the methods; the bootstrap has the seed.
    """
    found = scored_by_row(records, HELD_OUT)
    scored = {row: found.get(row, {}) for method in methods for row in method.rows}
    failures = Counter(row_of(record) for record in records if record["subset"] == HELD_OUT and "failed" in record)
    first = next((method.row for method in methods if method.model is not None), None)
    summaries = []
    for row, photos in scored.items():
        summary: dict[str, Any] = {"name": row.name, **row.fields, "photos": len(photos), "failed": failures[row]}
        if photos:
            statistics = _statistics(list(photos.values()), seed)
            summary |= {name: float(values[0]) for name, values in statistics.items()}
            summary[DRIFT_MAX] = max(record[DRIFT_MAX] for record in photos.values())
            summary["faces"] = sum(1 for record in photos.values() if record[SKIN] is not None)
            summary["intervals"] = {name: interval(values) for name, values in statistics.items()}
        for label, other in (("minus_gray", Row(GRAY_METHOD)), ("minus_first", first)):
            if other is not None and other != row and photos and scored.get(other):
                summary[label] = _differences(photos, scored[other], seed)
        summaries.append(summary)
    return summaries


def compare_best(records: Sequence[Record], methods: Sequence[Method], seed: int) -> dict[str, Any] | None:
    """Compare the best model or tool with the next best, each at its best settings, over the photos both have.

    Best is who gains most PSNR over the gray input on its own photos; on the photos of both, the better one is first.
    Rows are recomposed ones, without those where the truth had a say; the bootstrap has the seed.

    Returns:
        "best" and "other" (names of rows; other is None without one), "contenders" (how many models and tools have
        scores) and "settings" (how many of its model's rows the best is the best of); with another, "photos" (how many
        both have), "psnr", "ciede2000" and "delta_cf_field" as best minus other, each with its interval, and
        "delta_cf_fields" of both. None where nothing but the gray input was scored.
    """
    methods = [method for method in methods if not method.knows_truth]
    found = scored_by_row(records, HELD_OUT)
    scored = {method.name: found.get(method.row, {}) for method in methods}
    gains: dict[tuple[str | None, str], dict[str, float]] = {}  # model or tool ⇒ its rows ⇒ mean gain over gray
    for method in methods:
        if method.name != GRAY_METHOD and (photos := scored[method.name]):
            gain = np.mean([photos[key]["psnr"] - scored[GRAY_METHOD][key]["psnr"] for key in photos])
            contender = (method.model, "" if method.model else method.name)
            gains.setdefault(contender, {})[method.name] = float(gain)
    gain_of = {row: gain for rows in gains.values() for row, gain in rows.items()}
    settings_of = {row: len(rows) for rows in gains.values() for row in rows}
    ranked = sorted((max(rows, key=gain_of.__getitem__) for rows in gains.values()), key=lambda row: -gain_of[row])
    if not ranked:
        return None
    best, *others = ranked
    other = next((row for row in others if scored[row].keys() & scored[best].keys()), None)
    compared: dict[str, Any] = {"contenders": len(ranked)}
    if other is not None:
        common = [key for key in scored[best] if key in scored[other]]
        first, second = (_statistics([scored[row][key] for key in common], seed) for row in (best, other))
        if first["psnr"][0] < second["psnr"][0]:
            best, other, first, second = other, best, second, first
        gaps = [float(statistics["delta_cf_field"][0]) for statistics in (first, second)]
        compared |= {"photos": len(common), "delta_cf_fields": gaps} | _as_differences(first, second, DECISIVE)
    return compared | {"best": best, "other": other, "settings": settings_of[best]}


def prompt_spread(records: Sequence[Record], methods: Sequence[Method]) -> list[dict[str, Any]]:
    """Return how much the prompt matters: mean over photos of the standard deviation over prompts, by model and row.

    Empty unless a model was run with several prompts.
    """
    groups: dict[tuple[str, int | None, bool], list[Row]] = {}
    for method in methods:
        if method.model is not None and not method.knows_truth:
            for row in method.rows:
                groups.setdefault((method.model, method.steps, row.raw), []).append(row)
    scored_photos, spreads = scored_by_row(records, HELD_OUT), []
    for (model, steps, raw), rows in groups.items():
        scored = [scored_photos.get(row, {}) for row in rows]
        common = sorted(set.intersection(*(set(photos) for photos in scored)))
        if len(rows) < 2 or not common:
            continue
        spread: dict[str, Any] = {"model": model, "steps": steps, "raw": raw, "prompts": len(rows)}
        for name in SPREAD:
            values = np.array([[photos[key][name] for key in common] for photos in scored])  # (prompts, N)
            spread[name] = float(values.std(axis=0).mean())
        spreads.append(spread)
    return spreads


def generalization_gaps(records: Sequence[Record], methods: Sequence[Method], seed: int) -> list[dict[str, Any]]:
    """Return how much better each model is on photos it was trained on: their mean minus that of held-out photos.

    The photos are others, so the two means are resampled independently. Empty without photos seen in training.
    """
    gaps, by_subset = [], [scored_by_row(records, subset) for subset in (SEEN, HELD_OUT)]
    for row in (row for method in methods if method.model is not None for row in method.rows):
        seen, held_out = (list(scored.get(row, {}).values()) for scored in by_subset)
        if not seen or not held_out:
            continue
        of_both = _statistics(seen, seed), _statistics(held_out, seed + 1)
        gaps.append({"name": row.name, "seen": len(seen)} | _as_differences(*of_both, GENERALIZATION))
    return gaps


def scores_table(rows: Mapping[str, Mapping[str, float]], titles: Mapping[str, str]) -> str:
    """Return a Markdown table: one line a method, one column a score of `titles`; a score a row lacks is a dash."""
    cells = {name: {key: number(row[key], key) for key in titles if key in row} for name, row in rows.items()}
    return markdown_table(_table(cells, titles, tuple(titles)))


def markdown_report(summary: Mapping[str, Any]) -> str:
    """Return the tables as Markdown: means, intervals, differences, and below them what was measured and on what."""
    protocol = summary["protocol"]
    lines = [f"# Evaluation on {protocol['source']}", ""]
    lines += [f"- {key.replace('_', ' ')}: {plain(value)}" for key, value in protocol.items() if key != "source"]
    lines.append("")
    lines += [f"## {title}\n\n{markdown_table(rows)}" for title, rows in tables(summary).items()]
    if "published" in summary:
        lines += [f"## {PUBLISHED_TITLE}\n\n{markdown_table(beside_published(summary))}"]
    lines += [note + "\n" for note in [*notes(summary), *remarks(summary)]]
    return "\n".join(lines)


def notes(summary: Mapping[str, Any]) -> list[str]:
    """Return what must be read with the tables, a sentence each; usually none."""
    seen = [f"Warning: {Overlap(**overlap).warning}" for overlap in summary.get("trained_on", ())]
    if (tries := summary["protocol"].get("best_of", 1)) > 1:
        seen.append(
            f"Warning: in rows “best of {tries}”, PSNR to the truth chose among {tries} seeds for each photo. That is "
            "an upper bound: who colorizes a gray photo has no truth to choose by."
        )
    few = [row["photos"] for row in summary["rows"] if FID in row and row["photos"] < ENOUGH_PHOTOS]
    if not few:
        return seen
    return [
        *seen,
        f"Warning: FID is over as few as {count_of(min(few), 'photo')}. Under {ENOUGH_PHOTOS:,} its value depends on "
        "their number: compare it within this table alone, between rows of equally many photos.",
    ]


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Return where the protocol of a published set differs from ours, a sentence each; none of other photos."""
    return list(summary["published"]["remarks"]) if "published" in summary else []


def tables(summary: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """Return title ⇒ lines of cells, the header first; there is no empty table."""
    rows = {row["name"]: row for row in summary["rows"]}
    intervals = {
        name: {key: span(ends, key) for key, ends in row["intervals"].items()}
        for name, row in rows.items()
        if "intervals" in row
    }
    optional = {
        name: f"{TITLES[name]} ({summary['protocol'][name]})" for name in OPTIONAL if name in summary["protocol"]
    }
    titles = {key: title for key, title in TITLES.items() if key not in OPTIONAL} | optional
    compared = [key for key in COMPARED if key in titles]
    made = {
        "Means": _table({name: cells_of(row) for name, row in rows.items()}, titles, tuple(titles)),
        "95 % intervals of the means": _table(intervals, titles, compared),
    }
    for label, title in (("minus_gray", "Minus gray"), ("minus_first", "Minus the first model")):
        differing = {name: _difference_cells(row[label]) for name, row in rows.items() if label in row}
        if differing:
            made[f"{title}: paired differences of means"] = _table(differing, titles, compared)
    if summary["prompt_spread"]:
        spreads = {_spread_name(spread): cells_of(spread) for spread in summary["prompt_spread"]}
        made["Standard deviation over prompts"] = _table(spreads, titles, SPREAD)
    if summary["generalization"]:
        gaps = {gap["name"]: _difference_cells(gap) for gap in summary["generalization"]}
        made["Photos seen in training minus held-out photos"] = _table(gaps, titles, GENERALIZATION)
    return made


def beside_published(summary: Mapping[str, Any]) -> list[list[str]]:
    """Return our rows, without raw ones, and below them the published ones, in the columns that papers have.

    A published ΔCF stands in the column of its definition, where its source tells which that is; else it is marked "?".
    """
    ours = [
        [row["name"], *(cells_of(row).get(key, MISSING) for key in PUBLISHED), "measured here"]
        for row in summary["rows"]
        if not row["raw"]
    ]
    header = ["", *(TITLES[key] for key in PUBLISHED), "source"]
    theirs = []
    for row in summary["published"]["rows"]:
        given = row | ({"delta_cf_field": f"{row['delta_cf']} ?"} if "delta_cf" in row else {})
        theirs.append([row["method"], *(given.get(key, MISSING) for key in PUBLISHED), row["source"]])
    return [header, *ours, *theirs]


def cells_of(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the scores of a row as text, by name, without those that it lacks."""
    return {key: number(row[key], key) for key in TITLES if row.get(key) is not None}


def number(value: float, key: str) -> str:
    """Return a value as text, with the digits of its metric."""
    digits = DIGITS.get(key, 1)
    return f"{round(value, digits) + 0.0:.{digits}f}"  # no minus zero


def span(ends: Sequence[float], key: str) -> str:
    """Return an interval as text."""
    return " … ".join(number(end, key) for end in ends)


def _statistics(photos: Sequence[Record], seed: int) -> Statistics:
    names = [*MEANS, LPIPS] if LPIPS in photos[0] else MEANS
    columns = {name: np.array([record[name] for record in photos]) for name in names}
    columns |= {gap: np.abs(columns[cf] - columns[f"truth_{cf}"]) for gap, cf in PHOTO_GAPS.items()}
    statistics = resampled_means(columns, seed)
    # ΔCF is of the mean colorfulness, without a sign: too dull and too vivid are as wrong
    statistics |= {gap: np.abs(statistics[cf] - statistics[f"truth_{cf}"]) for gap, cf in GAPS.items()}
    faces = [record[SKIN] for record in photos if record[SKIN] is not None]
    if len(faces) > 1:  # of one, the interval would have no width
        statistics |= resampled_means({SKIN: np.array(faces)}, seed)
    return statistics


def _differences(photos: Mapping[str, Record], others: Mapping[str, Record], seed: int) -> dict[str, Any]:
    """Return differences over the photos both have; equal seed and number mean that both are resampled alike."""
    common = [key for key in photos if key in others]
    if not common:
        return {}
    first, second = (_statistics([row[key] for key in common], seed) for row in (photos, others))
    return {"photos": len(common)} | _as_differences(first, second, COMPARED)


def _as_differences(first: Statistics, second: Statistics, names: Sequence[str]) -> dict[str, Any]:
    differences = {name: first[name] - second[name] for name in names if name in first and name in second}
    return {name: {"mean": float(d[0]), "interval": interval(d)} for name, d in differences.items()}


def _table(rows: Mapping[str, Mapping[str, str]], titles: Mapping[str, str], keys: Sequence[str]) -> list[list[str]]:
    header = ["", *(titles[key] for key in keys)]
    return [header, *([name, *(row.get(key, MISSING) for key in keys)] for name, row in rows.items())]


def _difference_cells(differences: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: f"{number(value['mean'], key)} ({span(value['interval'], key)})"
        for key, value in differences.items()
        if isinstance(value, Mapping)
    }


def _spread_name(spread: Mapping[str, Any]) -> str:
    steps = "" if spread["steps"] is None else f", {count_of(spread['steps'], 'step')}"
    return f"{spread['model']}{steps}{', raw' if spread['raw'] else ''}, {spread['prompts']} prompts"


def plain(value: Any) -> str:
    """Return a value of the protocol as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(plain(each) for each in value) or "none"
    return "none" if value is None else str(value)
