"""Every arm in every test, each measured once: scores of all seeds and photos by row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from chromatune import color
from chromatune.colorizer import Colorizer
from chromatune.errors import DataError
from chromatune.evaluation import (
    RECORD_KEYS,
    ROWS_FILE,
    center_square,
    evaluate,
    make_settings,
    plan_methods,
    row_of,
)
from chromatune.files import atomic_write, read_json_lines
from studies.paper import ambiguity
from studies.paper.declaration import TRUTH, DeclaredTest, Row, folder_name
from studies.paper.runs import OpenedExperiment
from studies.paper.verdicts import Keys, PhotoScores, Values, as_arrays

NAMED_BY = ("row", "key")  # fields of every record of an ambiguity

Found = dict[Row, dict[str, dict[str, Any]]]  # row ⇒ photo ⇒ metric ⇒ value


def measure_tests(opened: OpenedExperiment) -> tuple[dict[Row, Values], dict[str, Keys]]:
    """Row ⇒ metric ⇒ (seeds, photos) float64; and test ⇒ its photos.

    Raises:
        DataError: no photo has been measured in all rows of a test, or what was measured before is damaged.
        ModelError: a model cannot be loaded.
    """
    rows: dict[Row, Values] = {}
    photos: dict[str, Keys] = {}
    for test in opened.experiment.tests:
        found: dict[Row, list[PhotoScores]] = {}
        measure = _draw_and_ask if test.kind == "ambiguity" else _evaluate
        for seed in opened.seeds:
            for row, scores in measure(opened, test, seed).items():
                found.setdefault(row, []).append(scores)
        arrays, photos[test.name] = as_arrays(found)
        rows |= arrays
    return rows, photos


def _evaluate(opened: OpenedExperiment, test: DeclaredTest, seed: int) -> Found:
    """Scores under the evaluation's protocol; raw rows stay in the evaluation's own report."""
    arms = opened.experiment.arms_of(test)
    arms_of: dict[str, list[str]] = {}  # a model ⇒ the arms that it serves
    for arm in arms:
        if arm.baseline is None:
            arms_of.setdefault(opened.model_of(arm, seed), []).append(arm.name)
    fitted = [(arm.name, str(opened.results_folder(arm, seed) / test.name)) for arm in arms if arm.baseline is not None]
    settings = make_settings(
        source=opened.roles[test.on].spec,
        models=tuple(arms_of),
        results=(*fitted, *opened.results),
        size_px=opened.square_px,
        prompts=test.instructions,
        keys=str(opened.keys_file(test)),
        seed=seed,
    )
    folder = opened.out / "measured" / f"{folder_name(test.name)}-{seed}"
    evaluate(settings, folder, start_stage=opened.start_stage)
    # A row of the evaluation ⇒ its arms; gray and other tools have no model, and keep their names
    methods = plan_methods(settings)
    names_of = {method.row.name: arms_of.get(method.model or "", [method.row.name]) for method in methods}
    return _pooled(read_json_lines(folder / ROWS_FILE, RECORD_KEYS), names_of, test.name)


def _pooled(records: Sequence[dict[str, Any]], names_of: Mapping[str, Sequence[str]], test: str) -> Found:
    """Scores by row and photo, the mean over prompts where there are several; photos without a score are skipped."""
    several: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        if "failed" not in record:
            for name in names_of.get(row_of(record).name, ()):
                several.setdefault((name, record["key"]), []).append(record)
    found: Found = {}
    for (name, key), lines in several.items():
        metrics = [metric for metric, value in lines[0].items() if isinstance(value, float)]
        means = {metric: sum(line[metric] or 0.0 for line in lines) / len(lines) for metric in metrics}
        found.setdefault(Row(name, test), {})[key] = means
        truth = {metric.removeprefix("truth_"): mean for metric, mean in means.items() if metric.startswith("truth_")}
        found.setdefault(Row(TRUTH, test), {})[key] = truth
    return found


def _draw_and_ask(opened: OpenedExperiment, test: DeclaredTest, seed: int) -> Found:
    """Scores of many seeds and words.

    Raises:
        DataError: the file of an earlier call is damaged.
    """
    found: Found = {}
    items = opened.photos_of(test)
    expected = {(aspect, item.key) for aspect in ambiguity.ASPECTS for item in items}
    for arm in opened.experiment.arms_of(test):
        path = opened.out / "measured" / f"{folder_name(arm.name)}-{folder_name(test.name)}-{seed}.jsonl"
        if not path.exists():
            squares = [(item.key, center_square(item.read(), opened.square_px)) for item in items]
            photos = [(key, square, color.luma(square)) for key, square in squares]
            advance = opened.start_stage(f"{arm.name}, seeds and words", len(photos))
            colorizer = Colorizer.load(opened.model_of(arm, seed))
            records = ambiguity.measure_all(colorizer, photos, seed, advance)
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, "".join(json.dumps(record) + "\n" for record in records).encode())
        known = read_json_lines(path, NAMED_BY, ambiguity.is_record)
        if {(record["row"], record["key"]) for record in known} != expected or len(known) != len(expected):
            raise DataError(f"{path}: does not hold each photo of “{test.name}” once; delete the file")
        for record in known:
            row = Row(arm.name, test.name, record.pop("row"))
            found.setdefault(row, {})[record.pop("key")] = record
    return found
