"""One experiment, from its declaration to its findings."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from chromatune.files import lock_run_folder
from chromatune.options import StartStage, silent
from chromatune.pipeline import training_overlap, weights_hash
from chromatune.reports import require_pages
from chromatune.training import preset_of
from studies.paper.declaration import BudgetName, Experiment
from studies.paper.findings import Findings
from studies.paper.measurements import measure_tests
from studies.paper.photos import describe_licenses, open_roles
from studies.paper.runs import OpenedExperiment, apply_overrides, make_runs, preset_for
from studies.paper.verdicts import Scores

EXPERIMENT_FILE = "experiment.json"
SQUARE_PX = 256  # what results are compared at, unless the photos are smaller


def run_experiment(
    experiment: Experiment, budget_name: BudgetName, data: Mapping[str, str], out: Path, *,
    model: str | None = None, preset: str | None = None, overrides: Sequence[str] = (),
    results: Sequence[tuple[str, str]] = (), square_px: int = SQUARE_PX,
    cache_dir: Path | None = None, start_stage: StartStage = silent,
    on_warning: Callable[[str], None] = lambda line: None,
) -> Findings:  # fmt: skip
    """Trains, measures and judges; called again, it repeats nothing that was finished.

    Args:
        experiment: what to run.
        budget_name: "quick" or "full".
        data: role ⇒ source of photos; see `photos.open_roles`.
        out: folder, made if missing; held for this process until all is measured.
        model: fine-tuned instead of the experiment's; the arms without training follow it.
        preset: of the training; None: the one that goes with the model.
        overrides: see `apply_overrides`.
        results: (name, folder) of other tools' results, measured in every test beside the arms.
        square_px: side of the squares that are compared.
        cache_dir: for latents and trained models, each made once for all experiments; None: `out/cache`.
        start_stage: shows progress.
        on_warning: called with one line about what makes results worth less; with the same one once.

    Raises:
        OptionsError: a setting is not accepted, roles do not match, `out` holds another experiment, or another
            process works there.
        DataError: photos cannot be used, or the folder's files are damaged.
        ModelError: a model cannot be opened.
        MissingExtraError: what the report needs is not installed.
    """
    require_pages("evaluate")
    budget, settings = apply_overrides(experiment.budgets[budget_name], overrides)
    model = model or experiment.model
    preset = preset_of(preset or preset_for(model))
    roles = open_roles(experiment, data, budget)
    measured = {arm.model for arm in experiment.arms if arm.model}
    facts = {
        "experiment": experiment.model_dump(mode="json"),
        "budget": budget_name,
        "model": model,
        "preset": preset,
        "set": list(overrides),
        "weights": {name: weights_hash(name) for name in sorted(measured | {model})},
        "data": {role: found.spec for role, found in roles.items()},
        "results": [list(pair) for pair in results],
        "square_px": square_px,
    }
    with lock_run_folder(out, EXPERIMENT_FILE, facts, "an experiment"):
        opened = OpenedExperiment(
            experiment,
            budget,
            roles,
            out,
            cache_dir or out / "cache",
            model,
            preset,
            settings,
            tuple(results),
            square_px,
            start_stage,
            functools.cache(on_warning),
        )
        warnings = trained_on_tests(opened)
        for line in warnings:  # before hours of training
            opened.on_warning(line)
        make_runs(opened)
        scores = Scores(*measure_tests(opened))
        facts["warnings"] = warnings
        facts["licenses"] = {role: describe_licenses(opened.used_photos(role)) for role in roles}
        facts["photos"] = {test.name: opened.describe_photos(test) for test in experiment.tests}
    judged = tuple(scores.judge(claim) for claim in experiment.claims)
    models = {arm.name: opened.model_of(arm, seed=0) for arm in experiment.arms if arm.baseline is None}
    return Findings(experiment, budget, facts, scores, judged, models, out)


def trained_on_tests(opened: OpenedExperiment) -> list[str]:
    """A warning for each model that was trained on photos of a test, but for tests on what is trained on."""
    models = sorted({arm.model for arm in opened.experiment.arms if arm.model} | {opened.model})
    tests = [test for test in opened.experiment.tests if test.half == "test"]
    found = ((test, training_overlap(model, opened.contents_of(test))) for test in tests for model in models)
    return [f"test {test.name!r}: {overlap.warning}" for test, overlap in found if overlap is not None]
