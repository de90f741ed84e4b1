"""The page of an evaluation: who is better by how much, pictures, the columns people decide by, and all the rest.

Results are not stored while they are scored; the few that are shown are made again, with the same pixels.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chromatune.data import MONOCHROME, TOO_SMALL, SkippedPhoto
from chromatune.errors import PhotoError, count_of, printable
from chromatune.evaluation import summary
from chromatune.evaluation.protocol import (
    GRAY_METHOD,
    HELD_OUT,
    UNREADABLE,
    ChosenPhoto,
    Method,
    Record,
    Row,
    row_of,
    scored_by_row,
)
from chromatune.evaluation.scoring import Cost, Scorer
from chromatune.evaluation.summary import DRIFT_MAX, TITLES, number, span
from chromatune.options import StartStage
from chromatune.reports import (
    MISSING,
    Block,
    Definitions,
    Folded,
    Page,
    Picture,
    Pictures,
    Section,
    Table,
    Text,
    beside,
    data_uri,
    jpeg_of,
    new_figure,
    plain_label,
    png_of_figure,
)

RANKED_BY = "ciede2000"
EXAMPLES = 3  # of each kind
KINDS = ("worst", "median", "best")

WIDTH_INCHES, ROW_INCHES = 7.0, 0.34
LEGEND_ROWS, LEGEND_INCHES = 16, 0.15  # names that fit inside the axes; what each takes below them

# What people decide by, and which way is better; PSNR rewards dull color, and so is always shown beside ΔCF
DECIDING = {"psnr": max, "delta_cf_field": min, "ciede2000": min, "ssim": max, DRIFT_MAX: min}
COMPARED = {"psnr": ("PSNR", " dB", 1), "ciede2000": ("CIEDE2000", "", -1)}  # name, unit, sign of a better one
ENOUGH_PHOTOS = 6  # with fewer, not even all of one sign would be 95 % sure: 2 · 0.5⁵ is 6 % (sign test)
OPEN_ROWS = 3  # whose pictures are shown at once; those of the others are folded
LISTED = (UNREADABLE, MONOCHROME, TOO_SMALL)  # reasons that lie in the photo itself; others are only counted
COST_DIGITS = {"parameters": 0, "unet_evaluations": 0, "gflops": 2, "seconds": 3, "memory_mib": 0}
COST_HEADER = (
    "model",
    "parameters",
    "U-Net evaluations a photo",
    "GFLOP a photo",
    "seconds a photo, median",
    "peak memory so far, MiB",
)
MEANINGS = {
    "rows": "gray is the input itself; a name alone is the method's color with the photo's own luminance, and with "
    "“raw” what the method gave",
    "PSNR": "one MSE over all channels and pixels of a photo, then the mean over photos; no crop; higher is better",
    "SSIM": "Gaussian 11 × 11 window, sigma 1.5, K = (0.01, 0.03), data range 255, valid region, mean over channels",
    "MAE": "mean absolute RGB difference, 0..255",
    "LAB MSE, ab MSE": "float CIELAB (D65), over (L, a, b) and over (a, b) alone",
    "CIEDE2000": "mean over pixels; lower is better",
    "CF": "Hasler–Süsstrunk colorfulness: signed as published, field with absolute opponents as DDColor reports it",
    "ΔCF": "absolute difference of the mean CF of results and of truths; by photo: mean of the absolute differences of "
    "each photo's; papers mean the one or the other; lower is better",
    "luma drift max": "largest Rec.601 luma difference to the input, 8-bit levels, over all photos",
    "bleeding": "share of the strength of chroma edges that lies away from luma edges, 0..1",
    "skin CIEDE2000": "over the skin of faces, where the detector finds one",
    "brackets": "95 % intervals of a paired bootstrap over photos",
}
OPTIONAL_MEANINGS = {
    "LPIPS": "v0.1, of the network named in the protocol, inputs in [-1, 1]; lower is better",
    "FID": "Fréchet distance between Gaussians of the features of a row's results and of the same photos' truths; "
    "unbiased covariance; lower is better",
}


@dataclass(frozen=True)
class Example:
    """A photo of a row to be shown.

    Attributes:
        row: whose result it shows.
        kind: one of `KINDS`.
        key: the photo.
        value: its `RANKED_BY`.
        picture: data URI of the strip; empty until drawn.
    """

    row: Row
    kind: str
    key: str
    value: float
    picture: str = ""


def choose_examples(records: Sequence[Record], methods: Sequence[Method]) -> list[Example]:
    """Return worst, median and best held-out photos of each row but gray, by CIEDE2000; few photos come once each."""
    examples, scored = [], scored_by_row(records, HELD_OUT)
    for row in (row for method in methods for row in method.rows if row.method != GRAY_METHOD):
        ranked = sorted(scored.get(row, {}).values(), key=lambda record: (-record[RANKED_BY], record["key"]))
        for kind, third in zip(KINDS, _thirds(len(ranked)), strict=True):
            examples += [Example(row, kind, ranked[i]["key"], ranked[i][RANKED_BY]) for i in third]
    return examples


def _thirds(count: int) -> list[list[int]]:
    """Indices of the first, the middle and the last `EXAMPLES` of a ranking; each once where there are few."""
    if count <= len(KINDS) * EXAMPLES:
        return [third.tolist() for third in np.array_split(np.arange(count), len(KINDS))]
    starts = (0, (count - EXAMPLES) // 2, count - EXAMPLES)
    return [list(range(start, start + EXAMPLES)) for start in starts]


def draw_examples(
    examples: Sequence[Example],
    methods: Sequence[Method],
    photos: Sequence[ChosenPhoto],
    scorer: Scorer,
    start_stage: StartStage,
) -> list[Example]:
    """Return the same examples with their pictures."""
    advance = start_stage("drawing pictures", len({(e.row, e.key) for e in examples}))
    strips: dict[tuple[Row, str], str] = {}
    for method in methods:
        wanted = {(example.row, example.key) for example in examples if example.row in method.rows}
        keys = {key for _, key in wanted}
        shown = [photo for photo in photos if photo.subset == HELD_OUT and photo.key in keys]
        for results in scorer.run(method, shown):
            if isinstance(results.pictures, PhotoError):  # it could be scored, and its file has gone since
                continue
            target = results.target
            for row, picture in zip(method.rows, results.pictures, strict=True):
                if (row, target.photo.key) in wanted:
                    strip = beside([target.gray_rgb, picture, target.truth])
                    strips[row, target.photo.key] = data_uri(jpeg_of(strip), "jpeg")
                    advance()
    return [dataclasses.replace(each, picture=strips.get((each.row, each.key), "")) for each in examples]


def plot_trade_off(rows: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Plot PSNR against ΔCF, a point a row with its intervals, as PNG; None without any score."""
    shown = [row for row in rows if row["photos"]]
    if not shown:
        return None
    below = len(shown) > LEGEND_ROWS  # such as with many prompts: inside, the names would leave no room for the points
    figure = new_figure(WIDTH_INCHES, 4.6 + (LEGEND_INCHES * len(shown) if below else 0.0))
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    for row in shown:
        x, y = row["delta_cf_field"], row["psnr"]
        x_bars, y_bars = (_bars(row[key], row["intervals"][key]) for key in ("delta_cf_field", "psnr"))
        axes.errorbar([x], [y], xerr=x_bars, yerr=y_bars, fmt="o", capsize=2, label=plain_label(row["name"]))
    axes.set_xlabel("ΔCF (field): lower is nearer to the truth's colorfulness")
    axes.set_ylabel("PSNR, dB: higher is better")
    if below:
        figure.legend(fontsize=7, loc="outside lower center")
    else:
        axes.legend(fontsize=7, loc="best")
    return png_of_figure(figure)


def plot_distributions(records: Sequence[Record], methods: Sequence[Method], metric: str, title: str) -> bytes | None:
    """Plot a box a row over the held-out photos (median, quartiles, 5 % and 95 %) as PNG; None without any score."""
    values: dict[Row, list[float]] = {row: [] for method in methods for row in method.rows}
    for record in records:
        if record["subset"] == HELD_OUT and record.get(metric) is not None:
            values[row_of(record)].append(record[metric])
    shown = {row: found for row, found in values.items() if found}
    if not shown:
        return None
    figure = new_figure(WIDTH_INCHES, 1.2 + ROW_INCHES * len(shown))
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    positions = list(range(len(shown)))
    axes.boxplot(list(shown.values()), orientation="horizontal", positions=positions, whis=(5, 95), showfliers=False)
    axes.set_yticks(positions, [plain_label(row.name) for row in shown], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel(title)
    return png_of_figure(figure)


def plot_over_steps(
    rows: Sequence[Mapping[str, Any]], methods: Sequence[Method], metric: str, title: str
) -> bytes | None:
    """Plot a curve a model and kind of row over its numbers of steps as PNG; None where no model has several."""
    by_name = {row["name"]: row for row in rows}
    curves: dict[str, list[tuple[int, float]]] = {}
    for method in methods:
        for row in method.rows:
            if method.steps is not None and not method.hints and by_name[row.name]["photos"]:
                label = " ".join(filter(None, (method.model, method.prompt, "raw" if row.raw else "")))
                curves.setdefault(label, []).append((method.steps, by_name[row.name][metric]))
    if not any(len(curve) > 1 for curve in curves.values()):
        return None
    figure = new_figure(WIDTH_INCHES, 3.6)
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    for label, curve in curves.items():
        axes.plot(*zip(*sorted(curve), strict=True), marker="o", label=plain_label(label))
    axes.set_xscale("log", base=2)
    axes.set_xlabel("steps")
    axes.set_ylabel(title)
    axes.legend(fontsize=7)
    return png_of_figure(figure)


def plot_over_hints(
    rows: Sequence[Mapping[str, Any]], methods: Sequence[Method], metric: str, title: str
) -> bytes | None:
    """Plot a curve a model or tool over its numbers of hints, with intervals, as PNG; None without hints."""
    by_name = {row["name"]: row for row in rows if row["photos"]}
    curves: dict[str, list[tuple[int, str]]] = {}
    for method in methods:
        if method.row.name in by_name:
            label = GRAY_METHOD if method.model is None and method.folder is None else method.name
            curves.setdefault(label, []).append((method.hints, method.row.name))
    curves = {label: sorted(curve) for label, curve in curves.items() if len(curve) > 1}
    if not curves:
        return None
    figure = new_figure(WIDTH_INCHES, 3.6)
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    for label, curve in curves.items():
        values = [by_name[name][metric] for _, name in curve]
        bars = [_bars(by_name[name][metric], by_name[name]["intervals"][metric]) for _, name in curve]
        below, above = ([bar[side][0] for bar in bars] for side in (0, 1))
        shown = f"{label}, and hints without a model" if label == GRAY_METHOD else label
        counts = [count for count, _ in curve]
        axes.errorbar(counts, values, yerr=[below, above], marker="o", capsize=2, label=plain_label(shown))
    axes.set_xscale("symlog", linthresh=1)
    ticks = sorted({count for curve in curves.values() for count, _ in curve})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("hints: colors of the truth, an upper bound of what a person knows")
    axes.set_ylabel(title)
    axes.legend(fontsize=7)
    return png_of_figure(figure)


def _bars(value: float, ends: Sequence[float]) -> list[list[float]]:
    """Lengths below and above; a gap of means, which is never negative, may lie outside its own interval."""
    return [[max(0.0, value - ends[0])], [max(0.0, ends[1] - value)]]


def make_page(
    summarized: Mapping[str, Any],
    records: Sequence[Record],
    methods: Sequence[Method],
    costs: Mapping[str, Cost],
    examples: Sequence[Example],
    skipped: Sequence[SkippedPhoto],
    failures: Sequence[tuple[str, str, str]],
) -> Page:
    """Return the page of what summary.json holds, with (row, key, reason) of the results that could not be scored."""
    protocol = summarized["protocol"]
    tables = [Folded(title, [Table(header, rows)]) for title, (header, *rows) in summary.tables(summarized).items()]
    sections = [
        Section("Worst, median and best photos", _examples(examples, summarized["comparison"])),
        Section("Scores", _scores(summarized, len(failures))),
        Section(summary.PUBLISHED_TITLE, _published(summarized)),
        Section("Plots", _plots(summarized["rows"], records, methods)),
        Section("Details", [*tables, _costs(costs), *_failures(failures, skipped), *_protocol(protocol)]),
    ]
    title = f"Evaluation on {printable(protocol['source'])}"
    lead = lead_sentence(summarized).replace(" … ", "\u00a0…\u00a0")  # an interval stays on one line
    return Page(title, lead, [section for section in sections if section.blocks])


def lead_sentence(summarized: Mapping[str, Any]) -> str:
    """Say who is better by how much: the best model or tool against the next best, and against the gray input.

    A difference whose interval holds 0, or that is over too few photos, is called "not shown".
    """
    comparison = summarized["comparison"]
    if comparison is None:
        return "Nothing but the gray input was scored: every result is missing or cannot be read (see Details)."
    best, other, settings = comparison["best"], comparison["other"], comparison["settings"]
    row = next(row for row in summarized["rows"] if row["name"] == best)
    against_gray = row["minus_gray"]
    name = best if settings == 1 else f"{best} (the best of its {settings} settings)"
    if other is None:
        own = row["delta_cf_field"]
        gaps = own, own - against_gray["delta_cf_field"]["mean"]
        return f"{_compared(name, 'the gray input', against_gray, gaps)}."
    if comparison["contenders"] > 2:
        other = f"{other}, the next best of {comparison['contenders']},"
    compared = _compared(name, other, comparison, comparison["delta_cf_fields"])
    return f"{compared}; against the gray input, {best} {_gain(against_gray)}."


def _compared(name: str, other: str, differences: Mapping[str, Any], delta_cf: Sequence[float]) -> str:
    """Say how much better or worse one is than the other; `delta_cf` is of both."""
    count = differences["photos"]
    color = f"ΔCF {number(delta_cf[0], 'delta_cf_field')} against {number(delta_cf[1], 'delta_cf_field')}"
    color += f", on {count_of(count, 'photo')}"
    if count < ENOUGH_PHOTOS:
        found = ", ".join(
            f"{metric} {_signed(differences[key], key)}{unit}" for key, (metric, unit, _) in COMPARED.items()
        )
        return f"Too few photos to show a difference between {name} and {other}: {found}, {color}"
    amounts: dict[int, list[str]] = {1: [], -1: [], 0: []}  # better, worse, not shown
    for key, (metric, unit, good) in COMPARED.items():
        difference, verdict = differences[key], good * _sign_shown(differences[key])
        if verdict:
            amounts[verdict].append(f"{_size(difference, key)}{unit} {metric} ({_size_span(difference, key)})")
        else:
            amounts[0].append(f"{metric} {_signed(difference, key)}{unit} ({span(difference['interval'], key)})")
    shown = " and ".join(
        f"{word} than {other} by {' and '.join(amounts[sign])}"
        for word, sign in (("better", 1), ("worse", -1))
        if amounts[sign]
    )
    if not shown:
        return f"No difference between {name} and {other} could be shown: {', '.join(amounts[0])}, {color}"
    return f"{name} is {shown}, {color}" + "".join(f"; no difference shown: {found}" for found in amounts[0])


def _gain(against_gray: Mapping[str, Any]) -> str:
    """Say what the best one's PSNR gains over that of the gray input."""
    difference = against_gray["psnr"]
    sign = _sign_shown(difference) if against_gray["photos"] >= ENOUGH_PHOTOS else 0
    if not sign:
        return f"shows no gain ({_signed(difference, 'psnr')} dB, {span(difference['interval'], 'psnr')})"
    return f"{'gains' if sign > 0 else 'loses'} {_size(difference, 'psnr')} dB ({_size_span(difference, 'psnr')})"


def _sign_shown(difference: Mapping[str, Any]) -> int:
    """1 or -1 where the whole interval lies on that side of 0; else 0."""
    low, high = difference["interval"]
    return 1 if low > 0 else -1 if high < 0 else 0


def _size(difference: Mapping[str, Any], key: str) -> str:
    return number(abs(difference["mean"]), key)


def _size_span(difference: Mapping[str, Any], key: str) -> str:
    """Return the interval of the size of a difference that is shown, whatever its sign."""
    return span(sorted(map(abs, difference["interval"])), key)


def _signed(difference: Mapping[str, Any], key: str) -> str:
    return f"{'+' if difference['mean'] > 0 else ''}{number(difference['mean'], key)}"


def _examples(examples: Sequence[Example], comparison: Mapping[str, Any] | None) -> list[Block]:
    """Show pictures of each row, those compared first; raw rows, and all but the first few, are folded."""
    by_row: dict[Row, list[Picture]] = {}
    for kind in KINDS:
        for example in examples:
            if example.picture and example.kind == kind:
                caption = f"{kind}: {printable(example.key)}, {example.value:.2f}"
                by_row.setdefault(example.row, []).append(Picture(example.picture, caption, "input, result, truth"))
    if not by_row:
        return []
    compared = [] if comparison is None else [comparison["best"], comparison["other"]]
    first = {name: index - len(compared) for index, name in enumerate(compared)}
    rows = sorted(by_row, key=lambda row: (row.raw, first.get(row.name, 0)))  # stable: else the table's order
    shown = [row for row in rows if not row.raw][:OPEN_ROWS]
    blocks: list[Block] = [Text(f"Input, result, truth; by mean {TITLES[RANKED_BY]} of the photo. Click to enlarge.")]
    blocks += [Pictures(by_row[row], title=row.name, across=len(KINDS)) for row in shown]
    return blocks + [Folded(row.name, [Pictures(by_row[row], across=len(KINDS))]) for row in rows if row not in shown]


def _scores(summarized: Mapping[str, Any], failures: int) -> list[Block]:
    """Show the few columns, the best of each marked, and what must be read with them."""
    rows = summarized["rows"]
    cells = [summary.cells_of(row) for row in rows]
    arrows = {max: "↑", min: "↓"}
    header = ["", *(f"{TITLES[key]} {arrows[better]}" for key, better in DECIDING.items()), TITLES["photos"]]
    lines = [
        [row["name"], *(found.get(key, MISSING) for key in DECIDING), found["photos"]]
        for row, found in zip(rows, cells, strict=True)
    ]
    best = set()
    for column, (key, better) in enumerate(DECIDING.items(), 1):
        # the input has its own luminance: that is no achievement
        having = [
            i for i, row in enumerate(rows) if key in row and not (key == DRIFT_MAX and row["name"] == GRAY_METHOD)
        ]
        if len(having) > 1:
            text = cells[better(having, key=lambda i: rows[i][key])][key]
            best |= {(i, column) for i in having if cells[i][key] == text}
    blocks: list[Block] = [Table(header, lines, best=frozenset(best))]
    blocks.append(Text("Marked: the best of a column. PSNR rewards dull color: read it with ΔCF beside it."))
    if failures:
        counted = count_of(failures, "result has no score", "results have no score")
        blocks.append(Text(f"{counted}; see Details.", strong=True))
    return blocks + [Text(note, strong=True) for note in summary.notes(summarized)]


def _published(summarized: Mapping[str, Any]) -> list[Block]:
    if "published" not in summarized:
        return []
    header, *rows = summary.beside_published(summarized)
    return [Table(header, rows), *(Text(remark) for remark in summary.remarks(summarized))]


def _plots(rows: Sequence[Mapping[str, Any]], records: Sequence[Record], methods: Sequence[Method]) -> list[Block]:
    drawn = {
        "Faithful or vivid": plot_trade_off(rows),
        "Color difference to the truth": plot_distributions(records, methods, "ciede2000", "CIEDE2000"),
        "Colorfulness": plot_distributions(records, methods, "cf_field", "CF field"),
        "PSNR over steps": plot_over_steps(rows, methods, "psnr", "PSNR dB"),
        "ΔCF over steps": plot_over_steps(rows, methods, "delta_cf_field", "ΔCF field"),
        "PSNR over hints": plot_over_hints(rows, methods, "psnr", "PSNR dB"),
        "Color difference over hints": plot_over_hints(rows, methods, "ciede2000", "CIEDE2000"),
    }
    shown = [Picture(data_uri(png, "png"), title) for title, png in drawn.items() if png is not None]
    return [Pictures(shown)] if shown else []


def _costs(costs: Mapping[str, Cost]) -> Folded:
    if not costs:
        return Folded("Cost", [Text("No model was run.")])
    rows = []
    for name, cost in costs.items():
        values = ((cost[key], digits) for key, digits in COST_DIGITS.items())
        rows.append([name, *(MISSING if value is None else f"{value:,.{digits}f}" for value, digits in values)])
    return Folded("Cost", [Table(COST_HEADER, rows)])


def _failures(failures: Sequence[tuple[str, str, str]], skipped: Sequence[SkippedPhoto]) -> list[Block]:
    failed = [[row, printable(key), reason] for row, key, reason in failures]
    counts = Counter(photo.reason for photo in skipped)
    counted = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items())) or "None."
    listed = [[printable(p.key), p.reason, printable(p.detail)] for p in skipped if p.reason in LISTED]
    missing: Block = Table(("row", "photo", "reason"), failed, prose=True) if failed else Text("None.")
    photos: list[Block] = [Table(("photo", "reason", "detail"), listed, prose=True)] if listed else []
    return [
        Folded(f"Results without a score: {len(failed)}", [missing]),
        Folded(f"Photos skipped: {len(skipped)}", [Text(counted), *photos]),
    ]


def _protocol(protocol: Mapping[str, Any]) -> list[Block]:
    terms = {name.replace("_", " "): summary.plain(value) for name, value in protocol.items()}
    optional = {name: meaning for name, meaning in OPTIONAL_MEANINGS.items() if name.lower() in protocol}
    return [
        Folded("Protocol", [Definitions(terms)]),
        Folded("What the columns mean", [Definitions(MEANINGS | optional)]),
    ]
