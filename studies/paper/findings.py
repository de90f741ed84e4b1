"""What was found, for people: answer, verdicts, pictures, plot and numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

import chromatune
from chromatune import color, reports
from chromatune.colorizer import Colorizer
from chromatune.errors import count_of
from chromatune.evaluation import TITLES, center_square
from chromatune.files import atomic_write, write_json
from studies.paper.declaration import Budget, Experiment, Row
from studies.paper.photos import EXAMPLES
from studies.paper.verdicts import Judged, Scores

REPORT, PAGE, PLOT, PICTURES, NUMBERS = "report.md", "report.html", "plot.png", "pictures.jpg", "results.json"
JPEG_QUALITY = 88  # pictures are to be looked at, and reports are kept in repositories
METRICS = ("psnr", "ssim", "ciede2000", "ab_mse", "cf_field", "delta_cf_field", "spread", "shift")
PLOTTED = ("psnr", "cf_field", "spread", "shift")
NAMES = TITLES | {"spread": "spread of a, b", "shift": "shift along the hue"}
SHOWN_PX = 160
PANEL_INCHES = 4.5  # of a plot: two stand side by side on a page
_VERBS = {  # of several, and of one
    "holds": ("hold", "holds"),
    "does not hold": ("do not hold", "does not hold"),
    "undecided": ("are undecided", "is undecided"),
}
LIBRARIES = ("torch", "diffusers", "transformers", "numpy")
RULES = (
    "The rules stand in the experiment's declaration. Intervals are of 95 %, of Student's t, over photos and seeds; "
    "a claim holds, or does not, where the whole interval lies on one side of the margin."
)


@dataclass(frozen=True)
class Findings:
    """What an experiment found.

    Attributes:
        experiment: as declared.
        budget: what it was given.
        facts: what decides the numbers: data with hashes, models, versions.
        scores: all rows' scores, and intervals on them.
        judged: a verdict a claim.
        models: arm ⇒ the model of its first seed, where it has one.
        out: folder.
    """

    experiment: Experiment
    budget: Budget
    facts: dict[str, Any]
    scores: Scores
    judged: tuple[Judged, ...]
    models: dict[str, str]
    out: Path


def write_findings(findings: Findings, command: str) -> Path:
    """Writes report.md, report.html, plot.png, pictures.jpg (where a model stands in it) and results.json.

    Args:
        findings: what was found.
        command: what was typed, or what would do the same.

    Returns:
        The Markdown file.
    """
    out, strips = findings.out, draw_strips(findings.models)
    write_json(out / NUMBERS, as_data(findings))
    atomic_write(out / PLOT, _plot(findings.scores, _measured(PLOTTED, findings.scores)))
    if strips:
        atomic_write(out / PICTURES, reports.jpeg_of(np.concatenate(list(strips.values())), JPEG_QUALITY))
    described = _described(findings, command)
    atomic_write(out / REPORT, _markdown(findings, described, strips).encode())
    atomic_write(out / PAGE, reports.render_page(_page(findings, described, strips)).encode())
    return out / REPORT


def as_data(findings: Findings) -> dict[str, object]:
    """Verdicts and all rows with intervals, for programs."""
    scores = findings.scores
    rows = {
        str(row): {metric: list(scores.estimate(row, metric)) for metric in METRICS if scores.has(row, metric)}
        for row in scores.rows
    }
    verdicts = [
        {"claim": j.claim.text, "value": j.value, "interval": [j.low, j.high], "margin": j.claim.margin,
         "expect": j.claim.expect, "metric": j.claim.metric, "verdict": j.verdict}
        for j in findings.judged
    ]  # fmt: skip
    return {"name": findings.experiment.name, "verdicts": verdicts, "rows": rows, "facts": findings.facts}


def answer(judged: Sequence[Judged]) -> str:
    """The verdicts in one sentence: how many of each, and the main claim's."""
    counts, main = Counter(each.verdict for each in judged), judged[0]
    told = ", ".join(
        f"{count} of {len(judged)} {_VERBS[verdict][count == 1]}" for verdict, count in counts.most_common()
    )
    return f"Claims: {told}. The main one, “{main.claim.text}”, {_VERBS[main.verdict][1]}: {_value(main)}."


def draw_strips(models: Mapping[str, str]) -> dict[str, np.ndarray]:
    """scikit-image's photos side by side: input, each model's results, truth; nothing without models or that library.

    Returns:
        Name ⇒ (H, W, 3) uint8 sRGB, all of one size.
    """
    try:
        import skimage.data
    except ImportError:
        return {}
    if not models:
        return {}
    truths = [center_square(getattr(skimage.data, name)(), SHOWN_PX) for name in EXAMPLES]
    grays = [color.luma(truth) for truth in truths]
    strips = {"input": reports.beside([np.repeat(gray[..., None], 3, axis=2) for gray in grays])}
    for name, model in models.items():
        colorizer = Colorizer.load(model)
        strips[name] = reports.beside([colorizer.colorize(gray).rgb for gray in grays])
    return strips | {"truth": reports.beside(truths)}


def _markdown(findings: Findings, described: dict[str, str], strips: dict[str, np.ndarray]) -> str:
    experiment, (header, *verdicts) = findings.experiment, _verdict_cells(findings.judged)
    marked = ([*cells, f"**{verdict}**"] for *cells, verdict in verdicts)
    lines = [
        f"# {experiment.name}", "", f"**{experiment.question}**", "", answer(findings.judged), "",
        *(f"- {term}: {meaning}" for term, meaning in described.items()), "",
        "## Verdicts", "", reports.markdown_table([header, *marked]), RULES, "",
        "## Numbers", "", reports.markdown_table(_number_cells(findings.scores, intervals=True)),
        f"![Rows with their intervals]({PLOT})", "",
    ]  # fmt: skip
    if strips:
        names = ", ".join(strips)
        lines += ["## Pictures", "", f"From top to bottom: {names} (first seed).", "", f"![{names}]({PICTURES})", ""]
    return "\n".join(lines)


def _page(findings: Findings, described: dict[str, str], strips: dict[str, np.ndarray]) -> reports.Page:
    experiment, scores = findings.experiment, findings.scores
    (claim, rule, *found), *verdicts = _verdict_cells(findings.judged)
    (header, *means), (_, *intervals) = (_number_cells(scores, intervals=each) for each in (False, True))
    arms, tests = ({each.name: _declared(each) for each in kind} for kind in (experiment.arms, experiment.tests))
    pictures = [_picture(reports.jpeg_of(strip, JPEG_QUALITY), "jpeg", name) for name, strip in strips.items()]
    plots = [_picture(_plot(scores, [name]), "png", NAMES[name]) for name in _measured(PLOTTED, scores)]
    sections = [
        reports.Section("Verdicts", [
            reports.Table([claim, *found], [[cells[0], *cells[2:]] for cells in verdicts], prose=True),
            reports.Folded("Rules", [
                reports.Text(RULES), reports.Table([claim, rule], [cells[:2] for cells in verdicts], prose=True),
            ]),
        ]),
        *([reports.Section("Pictures", [reports.Pictures(pictures)])] if pictures else []),
        reports.Section("Means and their 95 % intervals", [reports.Pictures(plots)]),
        reports.Section("Numbers", [
            reports.Table(header, means), reports.Folded("With 95 % intervals", [reports.Table(header, intervals)]),
        ]),
        reports.Section("Declaration", [
            reports.Folded("Arms: ways to come to a colorizer", [reports.Definitions(arms)]),
            reports.Folded("Tests: what the arms are measured on", [reports.Definitions(tests)]),
            reports.Folded("Photos, models, command and versions", [reports.Definitions(described)]),
        ]),
    ]  # fmt: skip
    return reports.Page(f"{experiment.name}: {experiment.question}", answer(findings.judged), sections)


def _picture(data: bytes, kind: str, caption: str) -> reports.Picture:
    return reports.Picture(reports.data_uri(data, kind), caption)


def _described(findings: Findings, command: str) -> dict[str, str]:
    """What must be known to do it again."""
    experiment, budget, facts = findings.experiment, findings.budget, findings.facts
    versions = {"chromatune": chromatune.__version__} | reports.installed_versions(LIBRARIES)
    weights = {Path(name).name: digest for name, digest in facts["weights"].items()}
    return {
        "Where the paper (arXiv 2312.04780) leaves it": experiment.source,
        "Measured": experiment.measure,
        "Command": f"`{command}`",
        f"Budget {facts['budget']}": f"{count_of(budget.seeds, 'seed')}, at most {budget.train_photos} photos to "
        f"train on and {budget.test_photos} to test on; {budget.updates:g} of the updates of preset {facts['preset']}",
        "Fine-tuned from": Path(facts["model"]).name,
        "Set": ", ".join(facts["set"]) or "nothing",
        "Weights": _listed(weights, " "),
        "Photos": _listed(experiment.roles),
        "Tests": _listed(facts["photos"]),
        "Test photos that a model had seen": " ".join(facts["warnings"]) or "none, as far as the models say",
        "Licenses": _listed(facts["licenses"]),
        "Versions": _listed(versions, " "),
    }


def _listed(named: Mapping[str, str], between: str = ": ") -> str:
    return "; ".join(f"{name}{between}{text}" for name, text in named.items())


def _declared(fields: BaseModel) -> str:
    return _listed({name: str(v) for name, v in fields.model_dump(exclude={"name"}, exclude_defaults=True).items()})


def _verdict_cells(judged: Sequence[Judged]) -> list[list[str]]:
    """Claim, rule, value and verdict of each, the header first."""
    cells = [["claim", "rule", "found", "verdict"]]
    for each in judged:
        claim, sign = each.claim, ">" if each.claim.expect == "above" else "<"
        source = f" ({claim.source})" if claim.source else ""
        cells.append([claim.text + source, f"{_sum(claim.terms)} {sign} {claim.margin:g}", _value(each), each.verdict])
    return cells


def _value(judged: Judged) -> str:
    metric = NAMES.get(judged.claim.metric, judged.claim.metric)
    return f"{metric}: {judged.value:.3g} ({judged.low:.3g} … {judged.high:.3g})"


def _sum(terms: Mapping[Row, float]) -> str:
    factors = {row: "" if abs(factor) == 1 else f"{abs(factor):g} · " for row, factor in terms.items()}
    return " ".join(f"{'+' if terms[row] > 0 else '−'} {factor}{row}" for row, factor in factors.items())


def _number_cells(scores: Scores, *, intervals: bool) -> list[list[str]]:
    """Means of every row, the header first."""
    metrics = _measured(METRICS, scores)
    cells = [["row", *(NAMES[metric] for metric in metrics)]]
    for row in scores.rows:
        known = [scores.estimate(row, metric) if scores.has(row, metric) else None for metric in metrics]
        cells.append([str(row), *(reports.MISSING if each is None else _cell(each, intervals) for each in known)])
    return cells


def _cell(estimate: tuple[float, float, float], with_interval: bool) -> str:
    digits = 4 if abs(estimate[0]) < 1.5 else 2
    value, low, high = (f"{number:.{digits}f}" for number in estimate)
    return f"{value} ({low} … {high})" if with_interval else value


def _measured(metrics: Sequence[str], scores: Scores) -> list[str]:
    return [metric for metric in metrics if any(scores.has(row, metric) for row in scores.rows)]


def _plot(scores: Scores, metrics: Sequence[str]) -> bytes:
    """A point a row with its interval, a panel a metric."""
    rows_of = {metric: [row for row in scores.rows if scores.has(row, metric)] for metric in metrics}
    figure = reports.new_figure(PANEL_INCHES * len(metrics), 1.0 + 0.28 * max(map(len, rows_of.values())))
    panels = np.atleast_1d(figure.subplots(1, len(metrics)))
    for axes, (metric, rows) in zip(panels, rows_of.items(), strict=True):
        for height, row in enumerate(rows):
            value, low, high = scores.estimate(row, metric)
            bars = [[max(0.0, value - low)], [max(0.0, high - value)]]
            axes.errorbar([value], [height], xerr=bars, fmt="o", capsize=3, color="C0")
        axes.set_yticks(range(len(rows)), [reports.plain_label(str(row)) for row in rows], fontsize=7)
        axes.invert_yaxis()
        axes.grid(alpha=0.3)
        axes.set_xlabel(NAMES[metric])
    return reports.png_of_figure(figure)
