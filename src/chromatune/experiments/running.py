"""The runs of an experiment, each done once: an interrupted experiment goes on with the run that it was at.

OUT/experiment.json      what is being run, so that another one is not continued by mistake
OUT/runs/ARM-SEED/       a fine-tuning run (its model in model/), or a baseline's results by test
OUT/tests/TEST.txt       keys of the photos of a test
OUT/measured/TEST-SEED/  an evaluation, or an ambiguity's records
OUT/cache/               latents that runs share
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from chromatune import color
from chromatune.bundle.names import weights_hash
from chromatune.colorizer import Colorizer
from chromatune.errors import DataError, OptionsError
from chromatune.evaluation.evaluation import ROWS_FILE, evaluate
from chromatune.evaluation.methods import GREY_ROW, plan_methods
from chromatune.evaluation.metrics import scores
from chromatune.evaluation.protocol import Choice, centre_square, select
from chromatune.evaluation.settings import make_settings
from chromatune.experiments import ambiguity, baselines
from chromatune.experiments.declaration import TRUTH, Arm, Budget, BudgetName, Experiment, Test
from chromatune.experiments.photos import Role, always_trained, open_roles, training_source
from chromatune.experiments.verdicts import Judged, Keys, Resampler, as_arrays
from chromatune.files import write_whole
from chromatune.training.loop import train
from chromatune.training.outcome import model_folder, write_outcome
from chromatune.training.settings import TrainSettings, resolve_settings

EXPERIMENT_FILE = "experiment.json"
SQUARE_PX = 256  # what results are compared at, unless the photos are smaller
BASELINE_PX = 128  # the small models' own size

StartStage = Callable[[str, int], Callable[[], None]]
PhotoScores = dict[str, dict[str, float | None]]  # key ⇒ metric ⇒ value


@dataclass(frozen=True)
class Outcome:
    """What an experiment came to.

    Attributes:
        experiment: as declared.
        budget: what it was given.
        facts: what decides the numbers: data with hashes, models, versions.
        resampler: all rows' scores, and intervals on them.
        judged: a verdict a claim.
        models: arm ⇒ the model of its first seed, where it has one.
        out: folder.
    """

    experiment: Experiment
    budget: Budget
    facts: dict[str, Any]
    resampler: Resampler
    judged: tuple[Judged, ...]
    models: dict[str, str]
    out: Path


def run_experiment(
    experiment: Experiment, budget_name: BudgetName, data: Mapping[str, str], out: Path, *,
    model: str | None = None, results: Sequence[tuple[str, str]] = (), square_px: int = SQUARE_PX,
    start_stage: StartStage = lambda name, length: lambda: None, cache_dir: Path | None = None,
) -> Outcome:  # fmt: skip
    """Trains, measures and judges; called again, it repeats nothing that was finished.

    Args:
        experiment: what to run.
        budget_name: "quick" or "full".
        data: role ⇒ source of photos; see `photos.open_roles`.
        out: folder, made if missing.
        model: fine-tuned instead of the experiment's.
        results: (name, folder) of other tools' results, measured in every test beside the arms.
        square_px: side of the squares that are compared.
        start_stage: shows progress.
        cache_dir: folder of the latents that runs share; `out/cache` by default.

    Raises:
        OptionsError: roles do not match, or `out` holds another experiment.
        DataError: photos cannot be used.
        ModelError: a model cannot be opened.
    """
    budget = experiment.budgets[budget_name]
    model = model or experiment.model
    roles = open_roles(experiment, data, budget)
    measured = {arm.model for arm in experiment.arms if arm.model}
    facts = {
        "experiment": experiment.model_dump(mode="json"),
        "budget": budget_name,
        "model": model,
        "weights": {name: weights_hash(name) for name in sorted(measured | {model})},
        "data": {role: found.spec for role, found in roles.items()},
        "results": [list(pair) for pair in results],
        "square_px": square_px,
    }
    out.mkdir(parents=True, exist_ok=True)
    _claim(out, facts)
    cache_dir = cache_dir or out / "cache"
    place = _Place(experiment, budget, roles, out, model, tuple(results), square_px, start_stage, cache_dir)
    place.train_all()
    resampler = Resampler(*place.measure_all())
    facts["photos"] = {test.name: _digest(place.keys_file(test)) for test in experiment.tests}
    judged = tuple(resampler.judge(claim) for claim in experiment.claims)
    firsts = {arm.name: place.model_of(arm, 0) for arm in experiment.arms if arm.baseline is None}
    return Outcome(experiment, budget, facts, resampler, judged, firsts, out)


@dataclass(frozen=True)
class _Place:
    """One experiment being run."""

    experiment: Experiment
    budget: Budget
    roles: Mapping[str, Role]
    out: Path
    model: str
    results: tuple[tuple[str, str], ...]
    square_px: int
    start_stage: StartStage
    cache_dir: Path

    @property
    def seeds(self) -> range:
        return range(self.budget.seeds)

    def folder_of(self, arm: Arm, seed: int) -> Path:
        return self.out / "runs" / f"{_slug(arm.name)}-{seed}"

    def model_of(self, arm: Arm, seed: int) -> str:
        return arm.model or str(model_folder(self.folder_of(arm, seed)))

    def settings_of(self, arm: Arm, seed: int) -> TrainSettings:
        """The preset's, then the arm's, then the budget's; photos were chosen already."""
        over = {**arm.settings, **self.budget.settings, "seed": seed, "photos": None}
        return resolve_settings(arm.preset, None, over)

    def train_all(self) -> None:
        """Every arm's run of every seed; seed by seed, so that an early look has all arms."""
        for seed in self.seeds:
            for arm in self.experiment.arms:
                if arm.baseline is not None:
                    self._fit(arm, seed)
                elif arm.model is None:
                    self._fine_tune(arm, seed)

    def _fine_tune(self, arm: Arm, seed: int) -> None:
        folder, settings = self.folder_of(arm, seed), self.settings_of(arm, seed)
        if model_folder(folder).exists():  # written whole, and last
            return
        advance, done = self.start_stage(f"{arm.name}, seed {seed}", settings.max_steps), 0

        def report(row: dict[str, Any]) -> None:
            nonlocal done
            for _ in range(row["step"] - done if row["kind"] == "train" else 0):
                advance()
            done = max(done, row["step"]) if row["kind"] == "train" else done

        source = training_source(self.roles, arm.train or "")
        trained = train(source, self.model, settings, folder, score=scores, on_row=report, cache_dir=self.cache_dir)
        write_outcome(trained, arm.train or "", arm.preset)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # three times the model's size, of no more use

    def _fit(self, arm: Arm, seed: int) -> None:
        """A baseline's results for every test it stands in, each folder written whole."""
        tests = [test for test in self.experiment.tests if arm in self.experiment.arms_of(test)]
        missing = [test for test in tests if not (self.folder_of(arm, seed) / test.name).exists()]
        if not missing:
            return
        settings = self.settings_of(arm, seed)
        advance = self.start_stage(f"{arm.name}, seed {seed}", settings.max_steps)
        items = training_source(self.roles, arm.train or "").items
        side = settings.size_px or BASELINE_PX
        colorize = baselines.fit(arm.baseline or "", items, settings, side, lambda step: advance())
        for test in missing:
            folder = self.folder_of(arm, seed) / test.name
            new = folder.with_name(f".{test.name}.new")
            shutil.rmtree(new, ignore_errors=True)
            for item in self.photos_of(test):
                path = (new / item.key).with_suffix(".png")
                path.parent.mkdir(parents=True, exist_ok=True)
                result = colorize(color.luma(centre_square(item.read(), self.square_px)))
                if not cv2.imwrite(str(path), result[..., ::-1]):
                    raise DataError(f"{path}: cannot be written; make room and run again")
            new.rename(folder)

    def keys_file(self, test: Test) -> Path:
        """The test's photos, chosen once: readable colour photos, lowest content hash first."""
        path = self.out / "tests" / f"{test.name}.txt"
        if not path.exists():
            role = self.roles[test.on]
            share = self.settings_of(self.experiment.arms[0], 0).validation
            items = role.test if test.half == "test" else always_trained(role, share, self.seeds)
            choice = Choice(
                size_px=self.square_px,
                limit=self.budget.test_photos,
                keys=frozenset(item.key for item in items),
            )
            advance = self.start_stage(f"choosing photos for “{test.name}”", len(items))
            chosen = select(role.source, choice, advance=advance)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, "".join(f"{photo.key}\n" for photo in chosen.photos).encode())
        return path

    def photos_of(self, test: Test) -> list[Any]:
        keys = set(self.keys_file(test).read_text(encoding="utf-8").splitlines())
        return [item for item in self.roles[test.on].source.items if item.key in keys]

    def measure_all(self) -> tuple[dict[str, dict[str, Any]], dict[str, Keys]]:
        """Row ⇒ metric ⇒ (seeds, photos); and test ⇒ its photos."""
        rows: dict[str, dict[str, Any]] = {}
        photos_of: dict[str, Keys] = {}
        for test in self.experiment.tests:
            found: dict[str, list[PhotoScores]] = {}
            for seed in self.seeds:
                measure = self._ambiguity if test.kind == "ambiguity" else self._protocol
                for row, photos in measure(test, seed).items():
                    found.setdefault(row, []).append(photos)
            arrays, photos_of[test.name] = as_arrays(found)
            rows |= arrays
        return rows, photos_of

    def _protocol(self, test: Test, seed: int) -> dict[str, PhotoScores]:
        arms = self.experiment.arms_of(test)
        arm_of = {self.model_of(arm, seed): arm.name for arm in arms if arm.baseline is None}
        folders = [(arm.name, str(self.folder_of(arm, seed) / test.name)) for arm in arms if arm.baseline is not None]
        settings = make_settings(
            source=self.roles[test.on].spec,
            models=tuple(arm_of),
            results=(*folders, *self.results),
            size_px=self.square_px,
            prompts=test.instructions,
            keys=str(self.keys_file(test)),
            seed=seed,
        )
        folder = self.out / "measured" / f"{_slug(test.name)}-{seed}"
        evaluate(settings, folder, start_stage=self.start_stage)
        name_of = {GREY_ROW: GREY_ROW}  # row of the evaluation ⇒ arm; raw rows stay in the evaluation's own report
        for method in plan_methods(settings):
            if method.model is not None:
                name_of[method.name] = arm_of[method.model]
            elif method.folder is not None:
                name_of[method.name] = method.name
        return _pooled(_records(folder / ROWS_FILE), name_of, test.name)

    def _ambiguity(self, test: Test, seed: int) -> dict[str, PhotoScores]:
        found: dict[str, PhotoScores] = {}
        for arm in self.experiment.arms_of(test):
            path = self.out / "measured" / f"{_slug(arm.name)}-{_slug(test.name)}-{seed}.jsonl"
            if not path.exists():
                items = self.photos_of(test)
                squares = [(item.key, centre_square(item.read(), self.square_px)) for item in items]
                photos = [(key, square, color.luma(square)) for key, square in squares]
                advance = self.start_stage(f"{arm.name}, seeds and words", len(photos))
                colorizer = Colorizer.load(self.model_of(arm, seed))
                lines = ambiguity.measure_all(colorizer, photos, seed, advance)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
            for record in _records(path):
                row = f"{arm.name}/{test.name}/{record.pop('row')}"
                found.setdefault(row, {})[record.pop("key")] = record
        return found


def _pooled(records: Sequence[dict[str, Any]], name_of: Mapping[str, str], test: str) -> dict[str, PhotoScores]:
    """Scores by row and photo, the mean over prompts where there are several; photos without a score are left out."""
    several: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        if record["row"] in name_of and "failed" not in record:
            several.setdefault((name_of[record["row"]], record["key"]), []).append(record)
    found: dict[str, PhotoScores] = {}
    for (name, key), lines in several.items():
        metrics = {metric for metric, value in lines[0].items() if isinstance(value, float)}
        means = {metric: sum(line[metric] or 0.0 for line in lines) / len(lines) for metric in metrics}
        found.setdefault(f"{name}/{test}", {})[key] = means
        truth = {metric.removeprefix("truth_"): mean for metric, mean in means.items() if metric.startswith("truth_")}
        found.setdefault(f"{TRUTH}/{test}", {})[key] = truth
    return found


def _digest(keys_file: Path) -> str:
    """How many photos a test has, and a hash of their keys."""
    text = keys_file.read_bytes()
    return f"{len(text.splitlines())} photos, keys {hashlib.sha256(text).hexdigest()[:16]}"


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _claim(out: Path, facts: Mapping[str, Any]) -> None:
    """Notes what is run here, or finds that something else was.

    Raises:
        OptionsError: it was.
    """
    path, ours = out / EXPERIMENT_FILE, json.loads(json.dumps(facts))
    if not path.exists():
        write_whole(path, (json.dumps(ours, indent=1, ensure_ascii=False) + "\n").encode())
        return
    theirs = json.loads(path.read_text(encoding="utf-8"))
    if changed := [key for key in ours if theirs.get(key) != ours[key]]:
        raise OptionsError(f"{out} holds an experiment with another {changed[0]}; give another --out")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
