"""An experiment that is being run, and its runs, each made once: interrupted, it goes on with the run that it was at.

OUT/experiment.json      what is being run, so that another one is not continued by mistake
OUT/runs/ARM-SEED/       a fine-tuning run (its model in model/), or a baseline's results by test
OUT/tests/TEST.txt       keys of the photos of a test
OUT/measured/TEST-SEED/  an evaluation, or an ambiguity's records
OUT/cache/               latents that runs share, unless another folder is given
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chromatune import color
from chromatune.data import PhotoItem
from chromatune.errors import DataError, count_of
from chromatune.evaluation import Choice, center_square, score_result, select
from chromatune.files import atomic_folder, atomic_write
from chromatune.options import StartStage
from chromatune.reports import png_of
from chromatune.training import TrainSettings, model_folder, resolve_settings, save_result, train
from studies.paper import baselines
from studies.paper.declaration import Arm, Budget, DeclaredTest, Experiment, folder_name
from studies.paper.photos import Role, always_trained, training_source

BASELINE_PX = 128  # the small models' own size


@dataclass(frozen=True)
class OpenedExperiment:
    """An experiment with all that its runs and measurements need.

    Attributes:
        experiment: as declared.
        budget: how much work.
        roles: role ⇒ its photos.
        out: folder of all that is made.
        cache_dir: latents that runs share.
        model: fine-tuned by the arms.
        results: (name, folder) of other tools' results, measured in every test.
        square_px: side of the squares that are compared.
        start_stage: shows progress.
    """

    experiment: Experiment
    budget: Budget
    roles: Mapping[str, Role]
    out: Path
    cache_dir: Path
    model: str
    results: tuple[tuple[str, str], ...]
    square_px: int
    start_stage: StartStage

    @property
    def seeds(self) -> range:
        """A run of each arm a seed."""
        return range(self.budget.seeds)

    def run_folder(self, arm: Arm, seed: int) -> Path:
        """Where an arm's run is made."""
        return self.out / "runs" / f"{folder_name(arm.name)}-{seed}"

    def model_of(self, arm: Arm, seed: int) -> str:
        """The arm's model: as it is, or where its run puts it."""
        return arm.model or str(model_folder(self.run_folder(arm, seed)))

    def settings_of(self, arm: Arm, seed: int) -> TrainSettings:
        """The preset's, then the arm's, then the budget's; photos were chosen already."""
        over = {**arm.settings, **self.budget.settings, "seed": seed, "photos": None}
        return resolve_settings(arm.preset, None, over)

    def keys_file(self, test: DeclaredTest) -> Path:
        """The test's photos, chosen once: readable color photos, lowest content hash first."""
        path = self.out / "tests" / f"{test.name}.txt"
        if not path.exists():
            role = self.roles[test.on]
            share = self.settings_of(self.experiment.arms[0], 0).validation
            items = role.test if test.half == "test" else always_trained(role, share, self.seeds)
            keys = frozenset(item.key for item in items)
            choice = Choice(size_px=self.square_px, limit=self.budget.test_photos, keys=keys)
            advance = self.start_stage(f"choosing photos for “{test.name}”", len(items))
            chosen = select(role.source, choice, advance=advance)
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, "".join(f"{photo.key}\n" for photo in chosen.photos).encode())
        return path

    def photos_of(self, test: DeclaredTest) -> list[PhotoItem]:
        """The test's photos."""
        keys = set(self.keys_file(test).read_text(encoding="utf-8").splitlines())
        return [item for item in self.roles[test.on].source.items if item.key in keys]

    def describe_photos(self, test: DeclaredTest) -> str:
        """How many photos a test has, and a hash of their keys."""
        text = self.keys_file(test).read_bytes()
        return f"{count_of(len(text.splitlines()), 'photo')}, keys {hashlib.sha256(text).hexdigest()[:16]}"


def make_runs(opened: OpenedExperiment) -> None:
    """Every arm's run of every seed; seed by seed, so that an early look has all arms.

    Raises:
        DataError: photos cannot be used, or results cannot be written.
        ModelError: the model cannot be opened.
        OptionsError: a run's folder holds another run, or is in use.
    """
    for seed in opened.seeds:
        for arm in opened.experiment.arms:
            if arm.baseline is not None:
                _fit(opened, arm, seed)
            elif arm.model is None:
                _fine_tune(opened, arm, seed)


def _fine_tune(opened: OpenedExperiment, arm: Arm, seed: int) -> None:
    folder, settings = opened.run_folder(arm, seed), opened.settings_of(arm, seed)
    if model_folder(folder).exists():  # written whole, and last
        return
    advance, done = opened.start_stage(f"{arm.name}, seed {seed}", settings.max_steps), 0

    def on_row(row: dict[str, Any]) -> None:
        nonlocal done
        if row["kind"] == "train":
            for _ in range(done, row["step"]):
                advance()
            done = max(done, row["step"])

    source = training_source(opened.roles, arm.roles)
    result = train(
        source, opened.model, settings, folder, score=score_result, on_row=on_row, cache_dir=opened.cache_dir
    )
    save_result(result, arm.train or "", arm.preset)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # three times the model's size, of no more use


def _fit(opened: OpenedExperiment, arm: Arm, seed: int) -> None:
    """A baseline's results for every test it stands in, each folder written whole."""
    folder_of = {test: opened.run_folder(arm, seed) / test.name for test in opened.experiment.tests_of(arm)}
    missing = {test: folder for test, folder in folder_of.items() if not folder.exists()}
    if not missing:
        return
    settings = opened.settings_of(arm, seed)
    advance = opened.start_stage(f"{arm.name}, seed {seed}", settings.max_steps)
    items = training_source(opened.roles, arm.roles).items
    colorize = baselines.fit(arm.baseline or "", items, settings, settings.size_px or BASELINE_PX, advance)
    for test, folder in missing.items():
        try:
            with atomic_folder(folder) as new:
                for item in opened.photos_of(test):
                    path = (new / item.key).with_suffix(".png")
                    path.parent.mkdir(parents=True, exist_ok=True)
                    gray = color.luma(center_square(item.read(), opened.square_px))
                    path.write_bytes(png_of(colorize(gray)))
        except OSError as error:
            raise DataError(f"{folder}: cannot be written ({error.strerror}); make room, and run again") from error
