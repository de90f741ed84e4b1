"""One evaluation from its settings to its report."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import chromatune
from chromatune.bundle.names import weights_hash
from chromatune.data.sources import Source, open_source
from chromatune.errors import DataError, OptionsError
from chromatune.evaluation import bootstrap, cost, report, running, summary
from chromatune.evaluation.files import ResultFiles
from chromatune.evaluation.frechet import FeatureFile, fid_rows
from chromatune.evaluation.perceptual import Networks, feature_width, load_networks
from chromatune.evaluation.pictures import choose_examples, draw_examples
from chromatune.evaluation.protocol import MIN_CHROMA, SEEN, UNREADABLE, Choice, ChosenPhoto, LeftOut, Selection, select
from chromatune.evaluation.rows import Method, Record, plan_methods
from chromatune.evaluation.settings import EvaluationSettings
from chromatune.files import LineFile, write_whole

ROWS_FILE, TIMINGS_FILE, PROTOCOL_FILE = "rows.jsonl", "timings.jsonl", "protocol.json"
FEATURES_FILE = "features.bin"  # only with FID: results are not kept, and an interrupted run needs those it scored
SUMMARY_FILE, TABLE_FILE, REPORT_FILE = "summary.json", "table.md", "report.html"
LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "opencv-python-headless")

Cost = dict[str, float | None]
StartStage = Callable[[str, int], Callable[[], None]]  # name and length of a stage ⇒ what to call once a step of it


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        summary: as in summary.json: "rows", "protocol", "prompt_spread", "generalisation".
        left_out: photos of the source that were not measured, and why.
        failures: (row, key, reason) of every result that was missing or could not be scored.
        out: folder with the report.
    """

    summary: dict[str, Any]
    left_out: tuple[LeftOut, ...]
    failures: tuple[tuple[str, str, str], ...]
    out: Path


def evaluate(
    settings: EvaluationSettings,
    out: Path,
    *,
    command: str | None = None,
    start_stage: StartStage = lambda name, length: lambda: None,
) -> Evaluation:
    """Measures every method on every photo, and writes scores, tables and report below `out`.

    An evaluation that was interrupted goes on where it stopped when called again, and ends with the same tables.

    Args:
        settings: what to measure.
        out: folder, made if missing.
        command: what was typed, for the report.
        start_stage: shows progress.

    Raises:
        DataError: no photo is left to measure, or the folder's files are damaged.
        ModelError: a model cannot be loaded.
        OptionsError: `out` holds an evaluation with other settings, or a network for LPIPS or FID cannot be used.
        MissingExtraError: what the report needs is not installed.
    """
    report.require()
    methods = plan_methods(settings)
    for method in methods:
        if method.folder is not None:
            ResultFiles(method.folder)  # a mistyped folder is told before the work, not after
    networks = load_networks(settings)
    selections, sources = _select(settings, start_stage)
    find_face, face_detector = running.cached_face_finder()
    protocol = _protocol(settings, selections, sources) | {"faces": face_detector, "command": command}
    protocol |= networks.described
    out.mkdir(parents=True, exist_ok=True)
    _claim(out, protocol)
    photos = [photo for selection in selections for photo in selection.photos]
    left_out = tuple(photo for selection in selections for photo in selection.left_out)
    with (
        LineFile(out / ROWS_FILE, ("row", "part", "key")) as scores,
        LineFile(out / TIMINGS_FILE, ("method", "part", "key")) as timings,
        ThreadPoolExecutor(running.WORKERS) as pool,
        ExitStack() as stack,
    ):
        features = _open_features(out, networks, stack)
        place = running.Workplace(settings, scores, timings, pool, find_face, networks, features)
        costs = _score_all(methods, photos, place, start_stage)
        records = scores.read()
        distances = {} if features is None else fid_rows(records, photos, features)
        summarised = _summary(records, methods, protocol, costs, distances, settings.seed)
        write_whole(out / SUMMARY_FILE, (json.dumps(summarised, indent=1, allow_nan=False) + "\n").encode())
        write_whole(out / TABLE_FILE, summary.markdown_report(summarised).encode())
        examples = draw_examples(choose_examples(records, methods), methods, photos, place, start_stage)
        failures = tuple((r["row"], r["key"], r["failed"]) for r in records if "failed" in r)
        page = report.render(summarised, records, methods, costs, examples, left_out, failures)
        write_whole(out / REPORT_FILE, page.encode())
    return Evaluation(summarised, left_out, failures, out)


def _open_features(out: Path, networks: Networks, stack: ExitStack) -> FeatureFile | None:
    if networks.fid is None:
        return None
    return stack.enter_context(FeatureFile(out / FEATURES_FILE, feature_width(networks.fid)))


def _score_all(
    methods: Sequence[Method], photos: Sequence[ChosenPhoto], place: running.Workplace, start_stage: StartStage
) -> dict[str, Cost]:
    """Scores every photo under every method; what each model cost, by the method's name."""
    costs: dict[str, Cost] = {}
    for method in methods:
        place.advance = start_stage(method.name, len(photos))
        running.score_method(method, photos, place)
        if method.model is not None:
            colorizer = place.colorizer(method.model)
            costs[method.name] = {
                **cost.count_work(colorizer, running.options_of(method, place.settings), place.settings.size_px),
                "seconds": cost.median_seconds(place.timings.read(), method.name),
                "memory_mib": cost.peak_memory_mib(colorizer),
            }
    return costs


def _select(settings: EvaluationSettings, start_stage: StartStage) -> tuple[list[Selection], list[Source]]:
    """The held-out photos and, where asked for, as many that were seen in training."""
    choice = Choice(
        size_px=settings.size_px,
        limit=settings.limit,
        one_per_person=settings.one_per_person,
        split=settings.split,
        validation=settings.validation,
        split_seed=settings.split_seed,
        keys=None if settings.keys is None else _read_keys(Path(settings.keys)),
    )
    sources = [open_source(settings.source)]
    selections = [select(sources[0], choice, advance=start_stage("choosing photos", len(sources[0].items)))]
    if settings.seen is not None:
        sources.append(open_source(settings.seen))
        half = "train" if settings.split == "validation" else "all"
        seen_choice = dataclasses.replace(choice, split=half, keys=None, limit=len(selections[0].photos))
        advance = start_stage("choosing seen photos", len(sources[1].items))
        selections.append(select(sources[1], seen_choice, part=SEEN, advance=advance))
        both = {photo.content for photo in selections[0].photos} & {photo.content for photo in selections[1].photos}
        if both:
            raise DataError(
                f"{len(both)} photos are held out and seen in training; give --split validation, or other photos"
            )
    return selections, sources


def _read_keys(path: Path) -> frozenset[str]:
    try:
        keys = frozenset(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path}: the list of keys cannot be read ({error}); give a UTF-8 text file") from error
    if not keys:
        raise DataError(f"{path}: the list of keys is empty; give one key a line")
    return keys


def _protocol(settings: EvaluationSettings, selections: list[Selection], sources: list[Source]) -> dict[str, Any]:
    """All that decides the numbers."""
    held_out = selections[0]
    described: dict[str, Any] = {
        "source": sources[0].name,
        "kind": sources[0].kind,
        "photos": len(held_out.photos),
        "content": held_out.digest,
        "left_out": held_out.counts | dict(sources[0].left_out),
        "grey_threshold": MIN_CHROMA,
        "square_px": settings.size_px,
    }
    if len(selections) > 1:
        seen = selections[1]
        described["seen"] = {"source": sources[1].name, "photos": len(seen.photos), "content": seen.digest}
    chosen = "limit one_per_person split validation split_seed keys steps prompts seed device"
    described |= {name: getattr(settings, name) for name in chosen.split()}
    described["models"] = {model: weights_hash(model) for model in settings.models}
    described["results"] = dict(settings.results)
    described["bootstrap"] = f"{bootstrap.RESAMPLES} resamples, percentile intervals"
    versions = {library: version(library) for library in LIBRARIES}
    described["versions"] = {"chromatune": chromatune.__version__, "python": platform.python_version()} | versions
    return described


def _claim(out: Path, protocol: dict[str, Any]) -> None:
    """Notes what is measured here, or finds that something else was.

    Raises:
        OptionsError: it was.
    """
    path = out / PROTOCOL_FILE
    ours = json.loads(json.dumps(protocol))  # as it will be read: tuples are lists there
    if path.exists():
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise DataError(f"{path} is damaged; give another --out") from None
        changed = [key for key in {**ours, **theirs} if key != "command" and theirs.get(key) != ours.get(key)]
        if changed:
            key = changed[0]
            raise OptionsError(
                f"{out} holds an evaluation with {key}={theirs.get(key)!r}, and now it is {ours.get(key)!r}; "
                "give another --out"
            )
    elif (out / ROWS_FILE).exists():
        raise OptionsError(f"{out} holds scores of an unknown evaluation; give another --out")
    write_whole(path, (json.dumps(protocol, indent=1) + "\n").encode())


def _summary(
    records: Sequence[Record],
    methods: Sequence[Method],
    protocol: dict[str, Any],
    costs: dict[str, Cost],
    distances: dict[str, float],
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
    rows = summary.summarise_rows(records, methods, seed)
    return {
        "rows": [row | work_of.get(row["name"], {}) | fid_of.get(row["name"], {}) for row in rows],
        "protocol": protocol,
        "prompt_spread": summary.prompt_spread(records, methods),
        "generalisation": summary.generalisation_gaps(records, methods, seed),
    }


def unreadable(evaluation: Evaluation) -> list[LeftOut]:
    """Photos of the source that could not be read."""
    return [photo for photo in evaluation.left_out if photo.reason == UNREADABLE]
