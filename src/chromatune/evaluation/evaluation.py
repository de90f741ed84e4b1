"""One evaluation, from its settings to its tables and its page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from chromatune.data import OWN_RESULT, check_outside
from chromatune.errors import DataError, OptionsError
from chromatune.evaluation import cost, summary
from chromatune.evaluation.hint_points import squares
from chromatune.evaluation.methods import Method, Record, ResultFiles, plan_methods
from chromatune.evaluation.page import make_page
from chromatune.evaluation.perceptual import FeatureFile, Networks, feature_width, fid_rows, load_networks
from chromatune.evaluation.pictures import choose_examples, draw_examples
from chromatune.evaluation.protocol import UNREADABLE, ChosenPhoto, LeftOut, describe_protocol, select_photos
from chromatune.evaluation.records import NAMES, is_score, is_timing
from chromatune.evaluation.scores import WORKERS, FaceFinder, Scorer, cached_face_finder
from chromatune.evaluation.settings import EvaluationSettings
from chromatune.files import LineFile, atomic_write, lock_run_folder, write_json
from chromatune.options import StartStage, silent
from chromatune.reports import render_page, require_pages

ROWS_FILE, TIMINGS_FILE, PROTOCOL_FILE = "rows.jsonl", "timings.jsonl", "protocol.json"
FEATURES_FILE = "features.bin"  # only with FID: results are not kept, and an interrupted run needs those it scored
HINTS_FILE = "hints.json"  # only with hints: where they are, for other tools
SUMMARY_FILE, TABLE_FILE, REPORT_FILE = "summary.json", "table.md", "report.html"


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        summary: as in summary.json: "rows", "protocol", "comparison", "prompt_spread", "generalization".
        left_out: photos of the source that were not measured, and why.
        failures: (row, key, reason) of every result that was missing or could not be scored.
        out: folder with the report.
        own_results: how many files among the photos are results of colorizing them, and were not measured.
    """

    summary: dict[str, Any]
    left_out: tuple[LeftOut, ...]
    failures: tuple[tuple[str, str, str], ...]
    out: Path
    own_results: int = 0

    @property
    def unreadable(self) -> list[LeftOut]:
        """Photos of the source that could not be read."""
        return [photo for photo in self.left_out if photo.reason == UNREADABLE]


def evaluate(
    settings: EvaluationSettings, out: Path, *, command: str | None = None, start_stage: StartStage = silent
) -> Evaluation:
    """Measures every method on every photo, and writes scores, tables and report below `out`.

    An evaluation that was interrupted goes on where it stopped when called again, and ends with the same tables.

    Args:
        settings: what to measure.
        out: folder, made if missing.
        command: what was typed, for the report.
        start_stage: shows progress.

    Raises:
        DataError: no photo is left to measure, the folder's files are damaged, or the disk is full.
        ModelError: a model cannot be loaded.
        OptionsError: `out` holds an evaluation with other settings or the photos themselves, or another process is
            working there; or a network for LPIPS or FID cannot be used.
        MissingExtraError: what the report needs is not installed.
    """
    require_pages("evaluate")
    for spec in filter(None, (settings.source, settings.seen)):
        check_outside(out, spec)
    methods = plan_methods(settings)
    for method in methods:
        if method.folder is not None:
            ResultFiles(method.folder)  # a mistyped folder is told before the work, not after
    networks = load_networks(settings)
    selected = select_photos(settings, start_stage)
    own_results = sum(source.skipped.get(OWN_RESULT, 0) for source, _ in selected)
    find_face, face_detector = cached_face_finder()
    protocol = describe_protocol(settings, selected) | {"faces": face_detector, "command": command}
    protocol |= networks.described
    photos = [photo for _, selection in selected for photo in selection.photos]
    left_out = tuple(photo for _, selection in selected for photo in selection.left_out)
    # Rows first: another process that is just beginning here writes them after its protocol
    if (out / ROWS_FILE).exists() and not (out / PROTOCOL_FILE).exists():
        raise OptionsError(f"{out} holds scores of an unknown evaluation; give another --out")
    claim = lock_run_folder(out, PROTOCOL_FILE, protocol, "an evaluation", ignored=("command",))
    with claim, _writing(out), ExitStack() as stack:
        scorer = _open_scorer(settings, out, networks, find_face, stack, photos)
        costs = _score_all(methods, photos, scorer, start_stage)
        records = _of_these(scorer.scores.read(), methods, photos)
        summarized = _summary(records, methods, protocol, costs, _fid_by_row(records, photos, scorer), settings.seed)
        write_json(out / SUMMARY_FILE, summarized)
        if settings.hints:
            write_json(out / HINTS_FILE, _hint_squares(settings, photos))
        atomic_write(out / TABLE_FILE, summary.markdown_report(summarized).encode())
        examples = draw_examples(choose_examples(records, methods), methods, photos, scorer, start_stage)
        evaluation = Evaluation(summarized, left_out, summary.failures_of(records), out, own_results)
        page = make_page(summarized, records, methods, costs, examples, left_out, evaluation.failures)
        atomic_write(out / REPORT_FILE, render_page(page).encode())
    return evaluation


def _hint_squares(settings: EvaluationSettings, photos: Sequence[ChosenPhoto]) -> dict[str, Any]:
    """Where the hints of each photo are: left and top edge and side of the squares, the first N being the N hints."""
    count = max(settings.hints)
    places = {photo.key: squares(settings.size_px, photo.content, settings.seed, count) for photo in photos}
    return {"size_px": settings.size_px, "squares": places}


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Turns a failed write into one line that names the file; what was measured stays."""
    try:
        yield
    except OSError as error:
        name, reason = error.filename or out, error.strerror or error
        raise DataError(
            f"{name}: cannot be written ({reason}); make room and run again: what is measured stays"
        ) from None


def _open_scorer(
    settings: EvaluationSettings,
    out: Path,
    networks: Networks,
    find_face: FaceFinder | None,
    stack: ExitStack,
    photos: Sequence[ChosenPhoto],
) -> Scorer:
    """The scorer with its files below `out`, which the stack closes."""
    is_sound = partial(is_score, with_lpips=networks.lpips is not None)
    scores = stack.enter_context(LineFile(out / ROWS_FILE, NAMES, is_sound))
    timings = stack.enter_context(LineFile(out / TIMINGS_FILE, ("method", "subset", "key"), is_timing))
    features = None
    if networks.fid is not None:
        features = stack.enter_context(FeatureFile(out / FEATURES_FILE, feature_width(networks.fid)))
    pool = stack.enter_context(ThreadPoolExecutor(WORKERS))
    keys = tuple(photo.key for photo in photos)
    return Scorer(settings, scores, timings, pool, find_face, keys, networks, features)


def _score_all(
    methods: Sequence[Method], photos: Sequence[ChosenPhoto], scorer: Scorer, start_stage: StartStage
) -> dict[str, cost.Cost]:
    """Scores every photo under every method; what each model cost, by the method's name."""
    costs: dict[str, cost.Cost] = {}
    for method in methods:
        scorer.score(method, photos, start_stage(method.name, len(photos)))
        if method.model is not None:
            colorizer = scorer.colorizer(method.model)
            costs[method.name] = {
                **cost.count_work(colorizer, scorer.options_of(method), scorer.settings.size_px),
                "seconds": cost.median_seconds(scorer.timings.read(), method.name),
                "memory_mib": cost.peak_memory_mib(colorizer),
            }
    return costs


def _of_these(records: Sequence[Record], methods: Sequence[Method], photos: Sequence[ChosenPhoto]) -> list[Record]:
    """The lines of what is measured: after an interruption, a photo may have come by another name."""
    rows = {row for method in methods for row in method.rows}
    names = {(photo.subset, photo.key) for photo in photos}
    return [record for record in records if record["row"] in rows and (record["subset"], record["key"]) in names]


def _fid_by_row(records: Sequence[Record], photos: Sequence[ChosenPhoto], scorer: Scorer) -> dict[str, float]:
    return {} if scorer.features is None else fid_rows(records, photos, scorer.features)


def _summary(
    records: Sequence[Record],
    methods: Sequence[Method],
    protocol: dict[str, Any],
    costs: Mapping[str, cost.Cost],
    distances: Mapping[str, float],
    seed: int,
) -> dict[str, Any]:
    """What summary.json holds; seconds and memory are not in it: no two runs measure the same."""
    work_of = {
        row: {key: costs[method.name][key] for key in cost.REPEATABLE}
        for method in methods
        if method.name in costs
        for row in method.rows
    }
    fid_of = {row: {"fid": distance, "fid_network": protocol["fid"]} for row, distance in distances.items()}
    rows = summary.summarize_rows(records, methods, seed)
    return {
        "rows": [row | work_of.get(row["name"], {}) | fid_of.get(row["name"], {}) for row in rows],
        "protocol": protocol,
        "comparison": summary.compare_best(records, methods, seed),
        "prompt_spread": summary.prompt_spread(records, methods),
        "generalization": summary.generalization_gaps(records, methods, seed),
    }
