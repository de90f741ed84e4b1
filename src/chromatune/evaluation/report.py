"""The report: one HTML file that needs nothing beside it, all text escaped, all pictures inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.util import find_spec
from typing import Any

from chromatune.errors import MissingExtraError
from chromatune.evaluation import plots, summary
from chromatune.evaluation.pictures import KINDS, RANKED_BY, Example, data_uri
from chromatune.evaluation.protocol import GREY, TOO_SMALL, UNREADABLE, LeftOut
from chromatune.evaluation.rows import Method, Record

TEMPLATE = "report.html.jinja"
LISTED = (UNREADABLE, GREY, TOO_SMALL)  # reasons that lie in the photo itself; others are only counted
MEANINGS = {
    "PSNR": "one MSE over all channels and pixels of a photo, then the mean over photos; no crop; higher is better",
    "SSIM": "Gaussian 11 × 11 window, sigma 1.5, K = (0.01, 0.03), data range 255, valid region, mean over channels",
    "MAE": "mean absolute RGB difference, 0..255",
    "LAB MSE, ab MSE": "float CIELAB (D65), over (L, a, b) and over (a, b) alone",
    "CIEDE2000": "mean over pixels",
    "CF": "Hasler–Süsstrunk colourfulness: signed as published, field with absolute opponents as DDColor reports it",
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


def require() -> None:
    """Checks that what the report needs is installed.

    Raises:
        MissingExtraError: it is not.
    """
    for library in ("matplotlib", "jinja2"):
        if find_spec(library) is None:
            raise MissingExtraError(f"the report ({library})", "evaluate")


def render(
    summarised: Mapping[str, Any],
    records: Sequence[Record],
    methods: Sequence[Method],
    costs: Mapping[str, Mapping[str, float | None]],
    examples: Sequence[Example],
    left_out: Sequence[LeftOut],
    failures: Sequence[tuple[str, str, str]],
) -> str:
    """The page.

    Args:
        summarised: what summary.json holds.
        records: lines of scores.
        methods: in the order of the table.
        costs: by method: parameters, unet_evaluations, gflops, seconds, memory_mib.
        examples: with their pictures.
        left_out: photos of the source that were not measured.
        failures: (row, key, reason) of results that could not be scored.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = (resources.files("chromatune.evaluation") / TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source).render(
        protocol={name.replace("_", " "): summary.plain(value) for name, value in summarised["protocol"].items()},
        tables=summary.tables(summarised),
        plots=_plots(summarised["rows"], records, methods),
        costs=_cost_rows(costs),
        groups=_grouped(examples),
        ranked_by=summary.TITLES[RANKED_BY],
        notes=summary.notes(summarised),
        meanings=MEANINGS | {n: m for n, m in OPTIONAL_MEANINGS.items() if n.lower() in summarised["protocol"]},
        listed=[photo for photo in left_out if photo.reason in LISTED],
        counted=_counts(left_out),
        failures=failures,
    )


def _plots(
    rows: Sequence[Mapping[str, Any]], records: Sequence[Record], methods: Sequence[Method]
) -> list[tuple[str, str]]:
    """(title, data URI) of each plot."""
    drawn = {
        "Faithful or vivid": plots.trade_off(rows),
        "Colour difference to the truth": plots.distributions(records, methods, "ciede2000", "CIEDE2000"),
        "Colourfulness": plots.distributions(records, methods, "cf_field", "CF field"),
        "PSNR over steps": plots.over_steps(rows, methods, "psnr", "PSNR dB"),
        "ΔCF over steps": plots.over_steps(rows, methods, "delta_cf_field", "ΔCF field"),
    }
    return [(title, data_uri(png, "png")) for title, png in drawn.items() if png is not None]


def _cost_rows(costs: Mapping[str, Mapping[str, float | None]]) -> list[list[str]]:
    digits = {"parameters": 0, "unet_evaluations": 0, "gflops": 2, "seconds": 3, "memory_mib": 0}
    return [
        [name, *("–" if cost[key] is None else f"{cost[key]:,.{count}f}" for key, count in digits.items())]
        for name, cost in costs.items()
    ]


def _grouped(examples: Sequence[Example]) -> dict[str, dict[str, list[Example]]]:
    """Row ⇒ kind ⇒ examples with a picture."""
    groups: dict[str, dict[str, list[Example]]] = {}
    for example in examples:
        if example.picture:
            kinds = groups.setdefault(example.row, {kind: [] for kind in KINDS})
            kinds[example.kind].append(example)
    return groups


def _counts(left_out: Sequence[LeftOut]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for photo in left_out:
        counts[photo.reason] = counts.get(photo.reason, 0) + 1
    return dict(sorted(counts.items()))
