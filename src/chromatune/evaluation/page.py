"""The page of an evaluation: who is better by how much, pictures, the columns people decide by, and all the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from chromatune.errors import count_of, printable
from chromatune.evaluation import pictures, summary
from chromatune.evaluation.cost import Cost
from chromatune.evaluation.methods import GRAY_ROW, RAW, Method, Record
from chromatune.evaluation.pictures import KINDS, RANKED_BY, Example
from chromatune.evaluation.protocol import MONOCHROME, TOO_SMALL, UNREADABLE, LeftOut
from chromatune.evaluation.summary import DRIFT_MAX, TITLES, number, span
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
    data_uri,
)

# What people decide by, and which way is better; PSNR rewards dull color, and so never stands without ΔCF beside it
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
    "ΔCF": "absolute difference of the mean CF of results and of truths; lower is better",
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


def make_page(
    summarized: Mapping[str, Any],
    records: Sequence[Record],
    methods: Sequence[Method],
    costs: Mapping[str, Cost],
    examples: Sequence[Example],
    left_out: Sequence[LeftOut],
    failures: Sequence[tuple[str, str, str]],
) -> Page:
    """The page.

    Args:
        summarized: what summary.json holds.
        records: lines of scores.
        methods: in the order of the table.
        costs: by method.
        examples: with their pictures.
        left_out: photos of the source that were not measured.
        failures: (row, key, reason) of results that could not be scored.
    """
    protocol = summarized["protocol"]
    sections = [
        Section("Worst, median and best photos", _examples(examples, summarized["comparison"])),
        Section("Scores", _scores(summarized, len(failures))),
        Section("Plots", _plots(summarized["rows"], records, methods)),
        Section("Details", [*_tables(summarized), _costs(costs), *_failures(failures, left_out), *_protocol(protocol)]),
    ]
    title = f"Evaluation on {printable(protocol['source'])}"
    lead = lead_sentence(summarized).replace(" … ", "\u00a0…\u00a0")  # an interval stays on one line
    return Page(title, lead, [section for section in sections if section.blocks])


def lead_sentence(summarized: Mapping[str, Any]) -> str:
    """Who is better by how much: the best model or tool against the next best, and against the gray input.

    A difference whose interval holds 0, or that is over too few photos, is said not to be shown.

    Args:
        summarized: what summary.json holds.
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
    """How much better or worse one is than the other; `delta_cf` is of both."""
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
    said = " and ".join(
        f"{word} than {other} by {' and '.join(amounts[sign])}"
        for word, sign in (("better", 1), ("worse", -1))
        if amounts[sign]
    )
    if not said:
        return f"No difference between {name} and {other} could be shown: {', '.join(amounts[0])}, {color}"
    return f"{name} is {said}, {color}" + "".join(f"; no difference shown: {found}" for found in amounts[0])


def _gain(against_gray: Mapping[str, Any]) -> str:
    """What the best one's PSNR is beside that of the gray input."""
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
    """The interval of the size of a difference that is shown, whatever its sign."""
    return span(sorted(map(abs, difference["interval"])), key)


def _signed(difference: Mapping[str, Any], key: str) -> str:
    return f"{'+' if difference['mean'] > 0 else ''}{number(difference['mean'], key)}"


def _examples(examples: Sequence[Example], comparison: Mapping[str, Any] | None) -> list[Block]:
    """Pictures of each row: of those compared first, of all but the first few and of raw rows folded."""
    by_row: dict[str, list[Picture]] = {}
    for kind in KINDS:
        for example in examples:
            if example.picture and example.kind == kind:
                caption = f"{kind}: {printable(example.key)}, {example.value:.2f}"
                by_row.setdefault(example.row, []).append(Picture(example.picture, caption, "input, result, truth"))
    if not by_row:
        return []
    compared = [] if comparison is None else [comparison["best"], comparison["other"]]
    first = {row: index - len(compared) for index, row in enumerate(compared)}
    rows = sorted(by_row, key=lambda row: (row.endswith(RAW), first.get(row, 0)))  # stable: else the table's order
    shown = [row for row in rows if not row.endswith(RAW)][:OPEN_ROWS]
    blocks: list[Block] = [Text(f"Input, result, truth; by mean {TITLES[RANKED_BY]} of the photo. Click to enlarge.")]
    blocks += [Pictures(by_row[row], title=row, across=len(KINDS)) for row in shown]
    return blocks + [Folded(row, [Pictures(by_row[row], across=len(KINDS))]) for row in rows if row not in shown]


def _scores(summarized: Mapping[str, Any], failures: int) -> list[Block]:
    """The few columns, the best of each marked, and what must be read with them."""
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
        # the input has its own luminance: no merit
        having = [i for i, row in enumerate(rows) if key in row and not (key == DRIFT_MAX and row["name"] == GRAY_ROW)]
        if len(having) > 1:
            text = cells[better(having, key=lambda i: rows[i][key])][key]
            best |= {(i, column) for i in having if cells[i][key] == text}
    blocks: list[Block] = [Table(header, lines, best=frozenset(best))]
    blocks.append(Text("Marked: the best of a column. PSNR rewards dull color: read it with ΔCF beside it."))
    if failures:
        said = count_of(failures, "result has no score", "results have no score")
        blocks.append(Text(f"{said}; see Details.", strong=True))
    return blocks + [Text(note, strong=True) for note in summary.notes(summarized)]


def _plots(rows: Sequence[Mapping[str, Any]], records: Sequence[Record], methods: Sequence[Method]) -> list[Block]:
    drawn = {
        "Faithful or vivid": pictures.plot_trade_off(rows),
        "Color difference to the truth": pictures.plot_distributions(records, methods, "ciede2000", "CIEDE2000"),
        "Colorfulness": pictures.plot_distributions(records, methods, "cf_field", "CF field"),
        "PSNR over steps": pictures.plot_over_steps(rows, methods, "psnr", "PSNR dB"),
        "ΔCF over steps": pictures.plot_over_steps(rows, methods, "delta_cf_field", "ΔCF field"),
        "PSNR over hints": pictures.plot_over_hints(rows, methods, "psnr", "PSNR dB"),
        "Color difference over hints": pictures.plot_over_hints(rows, methods, "ciede2000", "CIEDE2000"),
    }
    shown = [Picture(data_uri(png, "png"), title) for title, png in drawn.items() if png is not None]
    return [Pictures(shown)] if shown else []


def _tables(summarized: Mapping[str, Any]) -> list[Block]:
    return [Folded(title, [Table(header, rows)]) for title, (header, *rows) in summary.tables(summarized).items()]


def _costs(costs: Mapping[str, Cost]) -> Folded:
    if not costs:
        return Folded("Cost", [Text("No model was run.")])
    rows = []
    for name, cost in costs.items():
        values = ((cost[key], digits) for key, digits in COST_DIGITS.items())
        rows.append([name, *(MISSING if value is None else f"{value:,.{digits}f}" for value, digits in values)])
    return Folded("Cost", [Table(COST_HEADER, rows)])


def _failures(failures: Sequence[tuple[str, str, str]], left_out: Sequence[LeftOut]) -> list[Block]:
    failed = [[row, printable(key), reason] for row, key, reason in failures]
    counts = Counter(photo.reason for photo in left_out)
    counted = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items())) or "None."
    listed = [[printable(p.key), p.reason, printable(p.detail)] for p in left_out if p.reason in LISTED]
    missing: Block = Table(("row", "photo", "reason"), failed, prose=True) if failed else Text("None.")
    photos: list[Block] = [Table(("photo", "reason", "detail"), listed, prose=True)] if listed else []
    return [
        Folded(f"Results without a score: {len(failed)}", [missing]),
        Folded(f"Photos left out: {len(left_out)}", [Text(counted), *photos]),
    ]


def _protocol(protocol: Mapping[str, Any]) -> list[Block]:
    terms = {name.replace("_", " "): summary.plain(value) for name, value in protocol.items()}
    optional = {name: meaning for name, meaning in OPTIONAL_MEANINGS.items() if name.lower() in protocol}
    return [
        Folded("Protocol", [Definitions(terms)]),
        Folded("What the columns mean", [Definitions(MEANINGS | optional)]),
    ]
