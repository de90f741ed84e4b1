"""What an experiment came to, for people: question, verdicts, table, plot and pictures."""

from __future__ import annotations

import base64
import html
import io
import json
import mimetypes
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

import chromatune
from chromatune import color
from chromatune.colorizer import Colorizer
from chromatune.evaluation.bootstrap import interval
from chromatune.evaluation.protocol import centre_square
from chromatune.evaluation.summary import TITLES
from chromatune.experiments.running import Outcome
from chromatune.files import write_whole
from chromatune.pages import markdown_table

REPORT, PAGE, PLOT, PICTURES, NUMBERS = "report.md", "report.html", "plot.png", "pictures.jpg", "results.json"
JPEG_QUALITY = 88  # pictures are to be looked at, and reports are kept in repositories
METRICS = ("psnr", "ssim", "ciede2000", "ab_mse", "cf_field", "delta_cf_field", "spread", "shift")
NAMES = TITLES | {"spread": "spread of a, b", "shift": "shift along the hue"}
SHOWN = ("astronaut", "coffee", "chelsea", "rocket")  # photos that scikit-image ships: any report may show them
SHOWN_PX = 160
LIBRARIES = ("torch", "diffusers", "transformers", "numpy")


def write_report(outcome: Outcome, command: str) -> Path:
    """Writes report.md, report.html, plot.png, pictures.jpg (where a model stands in it) and results.json.

    Args:
        outcome: what came.
        command: what was typed, or what would do the same.

    Returns:
        The Markdown file.
    """
    out = outcome.out
    write_whole(out / NUMBERS, (json.dumps(as_data(outcome), indent=1, ensure_ascii=False) + "\n").encode())
    write_whole(out / PLOT, _plot(outcome))
    pictures = draw_pictures(outcome.models)
    if pictures is not None:
        encoded = cv2.imencode(".jpg", pictures[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        write_whole(out / PICTURES, encoded.tobytes())
    images = [name for name in (PLOT, PICTURES) if name == PLOT or pictures is not None]
    text = _markdown(outcome, command, images)
    write_whole(out / REPORT, text.encode())
    write_whole(out / PAGE, _page(outcome, text, [out / name for name in images]).encode())
    return out / REPORT


def as_data(outcome: Outcome) -> dict[str, object]:
    """Verdicts and all rows with intervals, for programs."""
    resampler = outcome.resampler
    rows = {
        row: {metric: _value_and_ends(outcome, row, metric) for metric in METRICS if resampler.has(row, metric)}
        for row in resampler.rows
    }
    verdicts = [
        {"claim": j.claim.text, "value": j.value, "interval": [j.low, j.high], "margin": j.claim.margin,
         "expect": j.claim.expect, "metric": j.claim.metric, "verdict": j.verdict}
        for j in outcome.judged
    ]  # fmt: skip
    return {"name": outcome.experiment.name, "verdicts": verdicts, "rows": rows, "facts": outcome.facts}


def _value_and_ends(outcome: Outcome, row: str, metric: str) -> list[float]:
    samples = outcome.resampler.mean(row, metric)
    return [float(samples[0]), *interval(samples)]


def _markdown(outcome: Outcome, command: str, images: Sequence[str]) -> str:
    experiment, budget = outcome.experiment, outcome.budget
    photos = {role: f"{role}: {what}" for role, what in experiment.roles.items()}
    versions = ", ".join(f"{library} {version(library)}" for library in LIBRARIES)
    weights = ", ".join(f"{Path(name).name} {digest}" for name, digest in outcome.facts["weights"].items())
    tests = "; ".join(f"{name}: {what}" for name, what in outcome.facts["photos"].items())
    lines = [
        f"# {experiment.name}", "", f"**{experiment.question}**", "",
        f"Where the paper (arXiv 2312.04780) leaves it: {experiment.source}.",
        f"Measured: {experiment.measure}.", "", "```", command, "```", "",
        f"Budget {outcome.facts['budget']}: {budget.seeds} seeds, at most {budget.train_photos} photos to train on and "
        f"{budget.test_photos} to test on; from {Path(outcome.facts['model']).name}; "
        f"chromatune {chromatune.__version__}, {versions}. Weights: {weights}.",
        *(f"Photos, {text}." for text in photos.values()), f"Tests: {tests}.", "",
        "## Verdicts", "", *_verdict_lines(outcome), "",
        "The rules stand in the experiment's declaration. Intervals are of 95 %, over photos and seeds drawn together; "
        "a claim holds, or does not, where the whole interval lies on one side of the margin.", "",
        "## Numbers", "", *_table_lines(outcome), "", f"![Rows with their intervals]({images[0]})", "",
    ]  # fmt: skip
    if len(images) > 1:
        names = ", ".join(["input", *outcome.models, "truth"])
        lines += ["## Pictures", "", f"From top to bottom: {names} (first seed).", "", f"![{names}]({images[1]})", ""]
    return "\n".join(lines)


def _verdict_lines(outcome: Outcome) -> list[str]:
    lines = [["claim", "rule", "came", "verdict"]]
    for judged in outcome.judged:
        claim, sign = judged.claim, ">" if judged.claim.expect == "above" else "<"
        source = f" ({claim.source})" if claim.source else ""
        rule = f"{NAMES.get(claim.metric, claim.metric)}: {_sum(claim.terms)} {sign} {claim.margin:g}"
        came = f"{judged.value:.3g} ({judged.low:.3g} … {judged.high:.3g})"
        lines.append([claim.text + source, rule, came, f"**{judged.verdict}**"])
    return markdown_table(lines).splitlines()


def _sum(terms: dict[str, float]) -> str:
    return " ".join(f"{'+' if factor > 0 else '−'} {_factor(abs(factor))}{row}" for row, factor in terms.items())


def _factor(factor: float) -> str:
    return "" if factor == 1 else f"{factor:g} · "


def _table_lines(outcome: Outcome) -> list[str]:
    resampler = outcome.resampler
    metrics = [metric for metric in METRICS if any(resampler.has(row, metric) for row in resampler.rows)]
    lines = [["row", *(NAMES[metric] for metric in metrics)]]
    for row in resampler.rows:
        texts = [_cell(_value_and_ends(outcome, row, m)) if resampler.has(row, m) else "" for m in metrics]
        lines.append([row, *texts])
    return markdown_table(lines).splitlines()


def _cell(found: Sequence[float]) -> str:
    value, low, high = found
    digits = 4 if abs(value) < 1.5 else 2
    return f"{value:.{digits}f} ({low:.{digits}f} … {high:.{digits}f})"


def _plot(outcome: Outcome) -> bytes:
    """A point a row with its interval, a panel a metric."""
    from matplotlib.figure import Figure

    resampler = outcome.resampler
    wanted = [m for m in ("psnr", "cf_field", "spread", "shift") if any(resampler.has(r, m) for r in resampler.rows)]
    height = 1.0 + 0.28 * len(resampler.rows)
    figure = Figure(figsize=(5.2 * len(wanted), height), dpi=110, layout="constrained")
    for axes, metric in zip(np.atleast_1d(figure.subplots(1, len(wanted))), wanted, strict=True):
        rows = [row for row in resampler.rows if resampler.has(row, metric)]
        for place, row in enumerate(rows):
            value, low, high = _value_and_ends(outcome, row, metric)
            bars = [[max(0.0, value - low)], [max(0.0, high - value)]]
            axes.errorbar([value], [place], xerr=bars, fmt="o", capsize=3, color="C0")
        axes.set_yticks(range(len(rows)), [row.replace("$", r"\$") for row in rows], fontsize=7)
        axes.invert_yaxis()
        axes.grid(alpha=0.3)
        axes.set_xlabel(NAMES[metric])
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def draw_pictures(models: dict[str, str]) -> np.ndarray | None:
    """scikit-image's photos in rows: input, each model's result, truth; None without models or that library."""
    try:
        import skimage.data
    except ImportError:
        return None
    if not models:
        return None
    truths = [centre_square(getattr(skimage.data, name)(), SHOWN_PX) for name in SHOWN]
    greys = [color.luma(truth) for truth in truths]
    rows = [[np.repeat(grey[..., None], 3, axis=2) for grey in greys]]
    for model in models.values():
        colorizer = Colorizer.load(model)
        rows.append([colorizer.colorize(grey).rgb for grey in greys])
    rows.append(truths)
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _page(outcome: Outcome, text: str, images: Sequence[Path]) -> str:
    """The Markdown as it stands, with verdicts first and the pictures in it: one file that opens anywhere."""
    shown = "".join(
        f'<img alt="{path.stem}" src="data:{mimetypes.guess_type(path)[0]};base64,'
        f'{base64.b64encode(path.read_bytes()).decode()}">'
        for path in images
    )
    verdicts = "".join(
        f"<li>{html.escape(judged.claim.text)}: <b>{judged.verdict}</b></li>" for judged in outcome.judged
    )
    title = html.escape(outcome.experiment.name)
    style = "body{font:15px/1.5 sans-serif;margin:2em auto;max-width:70em}img{max-width:100%}pre{overflow-x:auto}"
    return (
        f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{style}</style><h1>{title}</h1>"
        f"<p><b>{html.escape(outcome.experiment.question)}</b></p><ul>{verdicts}</ul>{shown}"
        f"<h2>All of it</h2><pre>{html.escape(text)}</pre>\n"
    )
