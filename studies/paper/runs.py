"""An experiment that is being run, and its runs, each made once: interrupted, it goes on with the run that it was at.

OUT/experiment.json      what is being run, so that another one is not continued by mistake
OUT/trainings.json       arm and seed ⇒ its folder in CACHE/trainings
OUT/runs/ARM-SEED/       a baseline's results by test
OUT/tests/TEST.txt       keys of the photos of a test
OUT/tests/TEST.contents  hashes of their pixels
OUT/measured/TEST-SEED/  an evaluation, or an ambiguity's records
CACHE/                   OUT/cache, or a folder that experiments share
CACHE/trainings/HASH/    a fine-tuning run, its model in model/; the same one serves every arm that trains the same
                         or, as the control, the model before it, which samples as the trained ones do
CACHE/...                latents that runs share
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import chromatune
from chromatune import color
from chromatune.data import AUTO, DEFAULT_SET, PhotoItem, content_of
from chromatune.errors import DataError, OptionsError, count_of
from chromatune.evaluation import Choice, center_square, score_result, select
from chromatune.files import atomic_folder, atomic_write, write_json
from chromatune.options import StartStage, options_error
from chromatune.pipeline import (
    defaults_of,
    is_embedded,
    quiet_libraries,
    read_training_data,
    save_pipeline,
    weights_hash,
)
from chromatune.reports import png_of
from chromatune.training import (
    TrainSettings,
    load_initial_model,
    model_folder,
    resolve_settings,
    run_info,
    sampling_scheduler,
    save_result,
    train,
)
from studies.paper import baselines
from studies.paper.declaration import Arm, Budget, DeclaredTest, Experiment, folder_name
from studies.paper.photos import Role, always_trained, training_source

BASELINE_PX = 128  # the small models' own size
SAMPLING = (  # what `run_info` and `sampling_scheduler` look at
    "size_px", "size_scale", "dropout", "zero_terminal_snr", "prediction_type", "scheduler", "sampling_steps",
    "guidance_scale", "image_guidance_scale",
)  # fmt: skip
CODE = 1  # to be raised when equal settings, photos and seeds begin to train other weights
TRAININGS_FILE = "trainings.json"
OWN = {"seed": "a budget's seeds are 0, 1, 2 …", "photos": "set train_photos"}  # settings that an experiment decides


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
        preset: of the arms' settings.
        overrides: training settings over all others, each NAME=VALUE.
        results: (name, folder) of other tools' results, measured in every test.
        square_px: side of the squares that are compared.
        start_stage: shows progress.
        on_warning: called with one line about what makes results worth less.
    """

    experiment: Experiment
    budget: Budget
    roles: Mapping[str, Role]
    out: Path
    cache_dir: Path
    model: str
    preset: str
    overrides: tuple[str, ...]
    results: tuple[tuple[str, str], ...]
    square_px: int
    start_stage: StartStage
    on_warning: Callable[[str], None]

    @cached_property
    def weights(self) -> str:
        """Hash of the model that is fine-tuned."""
        return weights_hash(self.model)

    @property
    def seeds(self) -> range:
        """A run of each arm a seed."""
        return range(self.budget.seeds)

    def results_folder(self, arm: Arm, seed: int) -> Path:
        """Where a baseline's results are."""
        return self.out / "runs" / f"{folder_name(arm.name)}-{seed}"

    def training_folder(self, arm: Arm, seed: int) -> Path:
        """Where an arm is trained: one folder for equal models, settings and photos, whatever the arm's name.

        For the control, where the model is that all seeds compare with.
        """
        if arm.untrained:
            sampling = self.sampling_settings.model_dump(mode="json", include=set(SAMPLING))
            return self._hashed({"untrained": [self.model, self.weights], "sampling": sampling})
        source = training_source(self.roles, arm.roles)
        return self._hashed({
            "model": [self.model, self.weights],
            "settings": self.settings_of(arm, seed).model_dump(mode="json", exclude={"description"}),
            "photos": [(item.key, item.stamp) for item in source.items],
            "prompts": None if source.prompts is None else [source.prompts[item.key] for item in source.items],
        })  # fmt: skip

    def _hashed(self, facts: Mapping[str, Any]) -> Path:
        versioned = {"code": [chromatune.__version__, CODE], **facts}
        digest = hashlib.sha256(json.dumps(versioned, sort_keys=True).encode()).hexdigest()[:16]
        return self.cache_dir.absolute() / "trainings" / digest

    @cached_property
    def sampling_settings(self) -> TrainSettings:
        """The settings of the first arm that is fine-tuned, of which the sampling counts: for the control."""
        first = next(arm for arm in self.experiment.arms if arm.is_fine_tuned)
        return self.settings_of(first, 0)

    def model_of(self, arm: Arm, seed: int) -> str:
        """The arm's model: as it is, or where its run puts it."""
        if self.is_made(arm):
            return str(model_folder(self.training_folder(arm, seed)))
        return self.model if arm.model is None else arm.model

    def is_made(self, arm: Arm) -> bool:
        """Whether the arm's model is written here: it is trained, or the control of one that is."""
        others_are = any(each.is_fine_tuned for each in self.experiment.arms)
        return arm.is_fine_tuned or (arm.untrained and others_are)

    def settings_of(self, arm: Arm, seed: int) -> TrainSettings:
        """The preset's on the budget's scale, then the arm's, the budget's and the user's; photos were chosen already.

        Raises:
            OptionsError: a value is not accepted.
        """
        preset = resolve_settings(self.preset)
        updates = max(1, round(preset.max_steps * self.budget.updates))
        scaled = {"max_steps": updates, "warmup": round(preset.warmup * self.budget.updates), "validate_every": updates}
        values = {**scaled, "lr": preset.lr * arm.rate, **arm.settings, **self.budget.settings}
        spelled = [f"{name}={json.dumps(value)}" for name, value in values.items()]  # JSON's scalars are TOML's
        settings = resolve_settings(self.preset, None, [*spelled, *self.overrides, f"seed={seed}", "photos=none"])
        if arm.train and settings.prompts == AUTO and training_source(self.roles, arm.roles).prompts is None:
            return settings.model_copy(update={"prompts": DEFAULT_SET})  # by its name, so that equal trainings are one
        return settings

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
            _write_lines(path.with_suffix(".contents"), [photo.content for photo in chosen.photos])
            _write_lines(path, [photo.key for photo in chosen.photos])
        return path

    def contents_of(self, test: DeclaredTest) -> list[str]:
        """Hashes of the test's photos, known since they were chosen."""
        path = self.keys_file(test).with_suffix(".contents")
        if not path.exists():  # an older version chose them
            _write_lines(path, [content_of(item.read()) for item in self.photos_of(test)])
        return path.read_text(encoding="utf-8").splitlines()

    def photos_of(self, test: DeclaredTest) -> list[PhotoItem]:
        """The test's photos."""
        keys = set(self.keys_file(test).read_text(encoding="utf-8").splitlines())
        return [item for item in self.roles[test.on].source.items if item.key in keys]

    def used_photos(self, role: str) -> tuple[PhotoItem, ...]:
        """The photos of a role that are trained on or tested on."""
        trained = self.roles[role].train if any(role in arm.roles for arm in self.experiment.arms) else ()
        tested = [self.photos_of(test) for test in self.experiment.tests if test.on == role]
        return tuple({item.key: item for item in itertools.chain(trained, *tested)}.values())

    def describe_photos(self, test: DeclaredTest) -> str:
        """How many photos a test has, and a hash of their keys."""
        text = self.keys_file(test).read_bytes()
        return f"{count_of(len(text.splitlines()), 'photo')}, keys {hashlib.sha256(text).hexdigest()[:16]}"


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    atomic_write(path, "".join(f"{line}\n" for line in lines).encode())


def preset_for(model: str) -> str:
    """The preset that goes with a model: `quick` for the small ones of the package, `paper` for all others."""
    return "quick" if is_embedded(model) else "paper"


def apply_overrides(budget: Budget, overrides: Sequence[str]) -> tuple[Budget, tuple[str, ...]]:
    """The budget with what the user sets of it, and the overrides that are left: training settings.

    Args:
        budget: as declared.
        overrides: each NAME=VALUE, of the budget's numbers or of `TrainSettings`.

    Raises:
        OptionsError: a name is unknown, or one that an experiment decides; or a value is not accepted.
    """
    values: dict[str, str] = {}
    left: list[str] = []
    for text in overrides:
        name, equals, value = text.partition("=")
        if name in OWN:
            raise OptionsError(f"--set {text}: an experiment decides it: {OWN[name]}")
        if equals and name in Budget.model_fields and name != "settings":
            values[name] = value
        else:
            left.append(text)
    resolve_settings(overrides=left)  # says what is wrong with them
    try:
        return Budget(**{**budget.model_dump(), **values}), tuple(left)
    except ValidationError as error:
        raise options_error(error, Budget, "setting") from None


def make_runs(opened: OpenedExperiment) -> None:
    """Every arm's run of every seed; seed by seed, so that an early look has all arms.

    Raises:
        DataError: photos cannot be used, or results cannot be written.
        ModelError: the model cannot be opened.
        OptionsError: a run's folder holds another run, or is in use.
    """
    made = [(arm, seed) for seed in opened.seeds for arm in opened.experiment.arms if opened.is_made(arm)]
    folders = {f"{arm.name}, seed {seed}": opened.training_folder(arm, seed).name for arm, seed in made}
    write_json(opened.out / TRAININGS_FILE, folders)
    for seed in opened.seeds:
        for arm in opened.experiment.arms:
            if arm.baseline is not None:
                _fit(opened, arm, seed)
            elif arm.is_fine_tuned:
                _fine_tune(opened, arm, seed)
            elif opened.is_made(arm):
                _write_control(opened, arm)


def _fine_tune(opened: OpenedExperiment, arm: Arm, seed: int) -> None:
    folder, settings = opened.training_folder(arm, seed), opened.settings_of(arm, seed)
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
        source,
        opened.model,
        settings,
        folder,
        score=score_result,
        on_row=on_row,
        on_warning=opened.on_warning,
        cache_dir=opened.cache_dir,
    )
    save_result(result, arm.train or "", opened.preset)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # three times the model's size, of no more use


def _write_control(opened: OpenedExperiment, arm: Arm) -> None:
    """Write the model that the others are fine-tuned from with their defaults: nothing but the training differs."""
    folder = model_folder(opened.training_folder(arm, seed=0))
    if folder.exists():
        return
    initial, settings = load_initial_model(opened.model), opened.sampling_settings
    defaults = defaults_of(run_info(initial, settings))
    pipeline = dataclasses.replace(initial.pipeline, scheduler=sampling_scheduler(initial.pipeline, settings))
    card = f"# {initial.pipeline.info.name}, as fine-tuning finds it\n\nWritten by `python -m studies.paper`.\n"
    with quiet_libraries():
        save_pipeline(pipeline, folder, card=card, defaults=defaults, seen=read_training_data(opened.model))


def _fit(opened: OpenedExperiment, arm: Arm, seed: int) -> None:
    """A baseline's results for every test it stands in, each folder written whole."""
    folder_of = {test: opened.results_folder(arm, seed) / test.name for test in opened.experiment.tests_of(arm)}
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
