"""One evaluation, from its settings to its tables and its page."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import chromatune
from chromatune.data import OWN_RESULT, SkippedPhoto, Source, check_outside
from chromatune.errors import DataError, OptionsError
from chromatune.evaluation import summary
from chromatune.evaluation.artifacts import FACE_DETECTOR, face_finder
from chromatune.evaluation.perceptual import FeatureFile, Networks, feature_width, fid_rows, load_networks
from chromatune.evaluation.protocol import (
    HELD_OUT,
    MIN_CHROMA,
    RECORD_KEYS,
    UNREADABLE,
    ChosenPhoto,
    Method,
    Record,
    ResultFiles,
    Row,
    Selection,
    plan_methods,
    row_of,
    select_photos,
)
from chromatune.evaluation.report import choose_examples, draw_examples, make_page
from chromatune.evaluation.scoring import (
    REPEATABLE,
    WORKERS,
    Cost,
    Scorer,
    count_work,
    hint_squares,
    peak_memory_mib,
)
from chromatune.evaluation.settings import EvaluationSettings
from chromatune.files import LineFile, atomic_write, lock_run_folder, write_json
from chromatune.options import StartStage, silent
from chromatune.pipeline import training_overlap, weights_hash
from chromatune.reports import installed_versions, render_page, require_pages

ROWS_FILE, TIMINGS_FILE, PROTOCOL_FILE = "rows.jsonl", "timings.jsonl", "protocol.json"
FEATURES_FILE = "features.bin"  # only with FID: results are not stored, and an interrupted run needs those it scored
HINTS_FILE = "hints.json"  # only with hints: where they are, for other tools
SUMMARY_FILE, TABLE_FILE, REPORT_FILE = "summary.json", "table.md", "report.html"

FORMAT = "2: rows are named by method, hints and raw"  # of rows.jsonl; a folder with another one is refused
ADDED = ("square", "every_photo", "best_of")  # the same, where they are not the default
LIBRARIES = ("torch", "diffusers", "transformers", "onnxruntime", "numpy", "opencv-python-headless")
SETTINGS = (  # fields that go into the protocol as they are
    *("limit", "one_per_person", "split", "validation", "split_seed", "keys"),
    *("steps", "prompts", "hints", "seed", "device"),
)


@dataclass(frozen=True)
class Published:
    """What makes an evaluation one of a published set of photos.

    Attributes:
        keys: of the photos to measure.
        facts: of the set and its list, for the protocol.
        compare: takes what is in summary.json so far; returns "rows", published ones, and "remarks", sentences on where
            the protocols differ.
    """

    keys: frozenset[str]
    facts: Mapping[str, Any]
    compare: Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        summary: as in summary.json: "rows", "protocol", "comparison", "prompt_spread", "generalization", "trained_on";
            of a published set also "published".
        skipped: photos of the source that were not measured, and why.
        failures: (row, key, reason) of every result that was missing or could not be scored.
        out: folder with the report.
        own_results: how many files among the photos are results of colorizing them, and were not measured.
    """

    summary: dict[str, Any]
    skipped: tuple[SkippedPhoto, ...]
    failures: tuple[tuple[str, str, str], ...]
    out: Path
    own_results: int = 0

    @property
    def unreadable(self) -> list[SkippedPhoto]:
        """Photos of the source that could not be read."""
        return [photo for photo in self.skipped if photo.reason == UNREADABLE]


def evaluate(
    settings: EvaluationSettings,
    out: Path,
    *,
    published: Published | None = None,
    command: str | None = None,
    start_stage: StartStage = silent,
) -> Evaluation:
    """Measure every method on every photo, and write scores, tables and report below `out`.

    An evaluation that was interrupted goes on where it stopped when called again, and ends with the same tables.

    Args:
        settings: what to measure.
        out: folder, made if missing.
        published: the set of photos, where it is a published one.
        command: what was typed, for the report.
        start_stage: shows progress.

    Raises:
        DataError: no photo is left to measure, the folder's files are damaged, or the disk is full.
        ModelError: a model cannot be loaded, or its list of the photos that it has seen is damaged.
        OptionsError: `out` holds an evaluation with other settings or the photos themselves, or another process is
            working there; or a network for LPIPS or FID cannot be used.
        MissingExtraError: what the metrics or the report need is not installed.
    """
    require_pages("evaluate")
    find_face = face_finder()
    for spec in filter(None, (settings.source, settings.seen)):
        check_outside(out, spec)
    methods = plan_methods(settings)
    for method in methods:
        if method.folder is not None:
            ResultFiles(method.folder)  # a mistyped folder is an error before the work, not after
    networks = load_networks(settings) if settings.lpips or settings.fid else Networks()
    selected = select_photos(settings, start_stage, published.keys if published is not None else None)
    own_results = sum(source.skipped.get(OWN_RESULT, 0) for source, _ in selected)
    protocol = describe_protocol(settings, selected, networks) | {"command": command}
    if published is not None:
        protocol["set"] = dict(published.facts)
    photos = [photo for _, selection in selected for photo in selection.photos]
    skipped = tuple(photo for _, selection in selected for photo in selection.skipped)
    seen = trained_on(settings.models, photos)
    # Rows first: another process that is just starting in this folder writes them after its protocol
    if (out / ROWS_FILE).exists() and not (out / PROTOCOL_FILE).exists():
        raise OptionsError(f"{out} holds scores of an unknown evaluation; give another --out")
    lock = lock_run_folder(out, PROTOCOL_FILE, protocol, "an evaluation", ignored=("command",))
    with lock, _writing(out), ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(WORKERS))
        files = _open_files(out, networks, stack)
        keys = tuple(photo.key for photo in photos)
        scorer = Scorer(settings, files[0], files[1], pool, find_face, keys, networks, files[2])
        costs = _score_all(methods, photos, scorer, start_stage)
        records = _of_these(scorer.scores.read(), methods, photos)
        distances = {} if scorer.features is None else fid_rows(records, photos, scorer.features)
        summarized = _summary(records, methods, protocol, costs, distances, settings.seed) | {"trained_on": seen}
        if published is not None:
            summarized["published"] = published.compare(summarized)
        write_json(out / SUMMARY_FILE, summarized)
        if settings.hints:
            write_json(out / HINTS_FILE, _hint_squares(settings, photos))
        atomic_write(out / TABLE_FILE, summary.markdown_report(summarized).encode())
        examples = draw_examples(choose_examples(records, methods), methods, photos, scorer, start_stage)
        failed = [record for record in records if "failed" in record]
        failures = tuple((row_of(record).name, record["key"], record["failed"]) for record in failed)
        page = make_page(summarized, records, methods, costs, examples, skipped, failures)
        atomic_write(out / REPORT_FILE, render_page(page).encode())
    return Evaluation(summarized, skipped, failures, out, own_results)


def describe_protocol(
    settings: EvaluationSettings, selected: Sequence[tuple[Source, Selection]], networks: Networks
) -> dict[str, Any]:
    """Return what protocol.json holds of the settings: photos and models with their hashes, versions, seeds."""
    source, held_out = selected[0]
    described: dict[str, Any] = {
        "source": source.name,
        "kind": source.kind,
        "photos": len(held_out.photos),
        "content": held_out.digest,
        # Results may come and go between two calls, and are no photos of either
        "skipped": held_out.counts | {reason: n for reason, n in source.skipped.items() if reason != OWN_RESULT},
        "gray_threshold": MIN_CHROMA,
        "square_px": settings.size_px,
    }
    for seen_source, seen in selected[1:]:
        described["seen"] = {"source": seen_source.name, "photos": len(seen.photos), "content": seen.digest}
    described |= {name: getattr(settings, name) for name in SETTINGS}
    # Only where they are used: folders of earlier versions can be resumed
    defaults = type(settings).model_fields
    described |= {name: value for name in ADDED if (value := getattr(settings, name)) != defaults[name].default}
    described["models"] = {model: weights_hash(model) for model in settings.models}
    described["results"] = dict(settings.results)
    described["bootstrap"] = f"{summary.RESAMPLES} resamples, percentile intervals"
    versions = installed_versions(LIBRARIES)
    described["versions"] = {"chromatune": chromatune.__version__, "python": platform.python_version()} | versions
    named = {"lpips": networks.lpips, "fid": networks.fid}
    described |= {name: str(network) for name, network in named.items() if network is not None}
    return described | {"format": FORMAT, "faces": FACE_DETECTOR}


def trained_on(models: Sequence[str], photos: Sequence[ChosenPhoto]) -> list[dict[str, Any]]:
    """Return each model that was trained on photos that are measured as new to it: the fields of an `Overlap`.

    Raises:
        ModelError: a model cannot be found, or its list of photos is damaged.
    """
    contents = [photo.content for photo in photos if photo.subset == HELD_OUT]
    overlaps = (training_overlap(model, contents) for model in models)
    return [overlap._asdict() for overlap in overlaps if overlap is not None]


def _hint_squares(settings: EvaluationSettings, photos: Sequence[ChosenPhoto]) -> dict[str, Any]:
    """Return what hints.json holds: left and top edge and side of each photo's squares, the first N are N hints."""
    count = max(settings.hints)
    places = {photo.key: hint_squares(settings.size_px, photo.content, settings.seed, count) for photo in photos}
    return {"size_px": settings.size_px, "squares": places}


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Raise a failed write as one line that names the file; what was measured stays."""
    try:
        yield
    except OSError as error:
        name, reason = error.filename or out, error.strerror or error
        raise DataError(
            f"{name}: cannot be written ({reason}); make room and run again: what is measured stays"
        ) from None


def _open_files(out: Path, networks: Networks, stack: ExitStack) -> tuple[LineFile, LineFile, FeatureFile | None]:
    """Open the files of scores, seconds and, for FID, features below `out`; the stack closes them."""
    is_sound = partial(summary.is_score, with_lpips=networks.lpips is not None)
    scores = stack.enter_context(LineFile(out / ROWS_FILE, RECORD_KEYS, is_sound))
    timed = ("method", "hints", "subset", "key")
    timing_file = LineFile(out / TIMINGS_FILE, timed, lambda line: summary.is_number(line.get("seconds")))
    timings = stack.enter_context(timing_file)
    features = None
    if networks.fid is not None:
        features = stack.enter_context(FeatureFile(out / FEATURES_FILE, feature_width(networks.fid)))
    return scores, timings, features


def _score_all(
    methods: Sequence[Method], photos: Sequence[ChosenPhoto], scorer: Scorer, start_stage: StartStage
) -> dict[str, Cost]:
    """Score every photo under every method; return what each model cost, by the name of its row."""
    costs: dict[str, Cost] = {}
    for method in methods:
        scorer.score(method, photos, start_stage(method.row.name, len(photos)))
        if method.model is not None:
            colorizer, timed = scorer.colorizer(method.model), (method.name, method.hints)
            lines = scorer.timings.read()
            seconds = [line["seconds"] for line in lines if (line["method"], line["hints"]) == timed]
            work = count_work(colorizer, scorer.options_of(method), scorer.settings.size_px)
            for name in ("unet_evaluations", "gflops"):
                if (once := work[name]) is not None:
                    work[name] = method.best_of * once
            costs[method.row.name] = {
                **work,
                "seconds": statistics.median(seconds) if seconds else None,
                "memory_mib": peak_memory_mib(colorizer),
            }
    return costs


def _of_these(records: Sequence[Record], methods: Sequence[Method], photos: Sequence[ChosenPhoto]) -> list[Record]:
    """Return the lines of what is measured: after an interruption, a photo may have another name."""
    rows = {row for method in methods for row in method.rows}
    names = {(photo.subset, photo.key) for photo in photos}
    return [record for record in records if row_of(record) in rows and (record["subset"], record["key"]) in names]


def _summary(
    records: Sequence[Record],
    methods: Sequence[Method],
    protocol: dict[str, Any],
    costs: Mapping[str, Cost],
    distances: Mapping[Row, float],
    seed: int,
) -> dict[str, Any]:
    """Return what summary.json holds; seconds and memory are not in it: no two runs measure the same."""
    work_of = {
        row: {key: costs[method.row.name][key] for key in REPEATABLE}
        for method in methods
        if method.row.name in costs
        for row in method.rows
    }
    fid_of = {row: {"fid": distance, "fid_network": protocol["fid"]} for row, distance in distances.items()}
    rows = summary.summarize_rows(records, methods, seed)
    return {
        "rows": [row | work_of.get(row_of(row), {}) | fid_of.get(row_of(row), {}) for row in rows],
        "protocol": protocol,
        "comparison": summary.compare_best(records, methods, seed),
        "prompt_spread": summary.prompt_spread(records, methods),
        "generalization": summary.generalization_gaps(records, methods, seed),
    }
