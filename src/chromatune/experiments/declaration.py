"""What an experiment declares before it is run."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from chromatune.data.prompt_sets import prompt_set
from chromatune.errors import OptionsError
from chromatune.training.settings import presets

GREY, TRUTH = "grey", "truth"
BASELINES = ("mean-chroma", "regression")
BudgetName = Literal["quick", "full"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Budget(_Frozen):
    """How much work: the same experiment in minutes, to see that it runs, or in hours, to answer."""

    train_photos: int = Field(ge=2, description="At most, of a role's training half.")
    test_photos: int = Field(ge=2, description="At most, of a role's test half.")
    seeds: int = Field(ge=1, description="Runs of each arm; verdicts take their spread into account.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Training settings over the arm's own.")


class Arm(_Frozen):
    """One way to come to a colorizer."""

    name: str
    train: str | None = Field(None, description="Role of the photos to fine-tune on; several joined by +.")
    preset: str = "quick"
    settings: dict[str, Any] = Field(default_factory=dict, description="Training settings over the preset's.")
    model: str | None = Field(None, description="Model measured as it is, instead of the experiment's fine-tuned one.")
    baseline: Literal["mean-chroma", "regression"] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Arm:
        if self.preset not in presets():
            raise ValueError(f"arm {self.name!r}: unknown preset {self.preset!r}")
        if self.baseline is not None and self.train is None:
            raise ValueError(f"arm {self.name!r}: a baseline learns from photos: give `train`")
        if "/" in self.name:
            raise ValueError(f"arm {self.name!r}: a name holds no slash")
        return self


class Test(_Frozen):
    """What arms are measured on: a row `arm/test` each, and `grey/test` and `truth/test` beside them."""

    name: str
    on: str = Field(description="Role of the photos.")
    half: Literal["test", "train"] = Field("test", description="`train` measures on what was trained on.")
    prompts: str | tuple[str, ...] = Field("model", description="`model`: its own; a prompt set; or instructions.")
    arms: tuple[str, ...] = Field((), description="Measured here; none means all.")
    kind: Literal["protocol", "ambiguity"] = "protocol"

    @property
    def instructions(self) -> tuple[str, ...]:
        """The instructions, or nothing for the model's own."""
        if isinstance(self.prompts, tuple):
            return self.prompts
        return () if self.prompts == "model" else prompt_set(self.prompts)


class Claim(_Frozen):
    """A statement, and when it holds: the sum of terms lies, with its whole interval, on one side of the margin."""

    text: str
    metric: str
    terms: dict[str, float] = Field(description="Row ⇒ factor, such as a 1 and a -1 for a difference.")
    expect: Literal["above", "below"] = "above"
    margin: float = 0.0
    source: str = Field("", description="Whose claim it is, where it is the paper's.")


class Experiment(_Frozen):
    """A question and how it is answered; `name` is the file's."""

    name: str
    question: str
    source: str = Field(description="Where the paper (arXiv 2312.04780) leaves it open.")
    measure: str = Field(description="What is compared, in words.")
    model: str = "mini-base"
    roles: dict[str, str] = Field(description="Role ⇒ what photos play it.")
    budgets: dict[BudgetName, Budget]
    arms: tuple[Arm, ...]
    tests: tuple[Test, ...]
    claims: tuple[Claim, ...]

    @model_validator(mode="after")
    def _agrees(self) -> Experiment:
        arms = [arm.name for arm in self.arms]
        used = {role for arm in self.arms if arm.train for role in arm.train.split("+")} | {t.on for t in self.tests}
        if used != set(self.roles):
            raise ValueError(f"roles {sorted(self.roles)} are declared, {sorted(used)} are used")
        if set(self.budgets) != {"quick", "full"}:
            raise ValueError("budgets are quick and full")
        for test in self.tests:
            if unknown := set(test.arms) - set(arms):
                raise ValueError(f"test {test.name!r}: no arm {sorted(unknown)[0]!r}")
        rows = set(self.rows)
        for claim in self.claims:
            if unknown := set(claim.terms) - rows:
                raise ValueError(f"claim {claim.text!r}: no row {sorted(unknown)[0]!r}; there are {sorted(rows)}")
        return self

    def arms_of(self, test: Test) -> tuple[Arm, ...]:
        """The arms measured in a test."""
        return tuple(arm for arm in self.arms if not test.arms or arm.name in test.arms)

    @property
    def rows(self) -> tuple[str, ...]:
        """All rows, in the order of the table."""
        return tuple(row for test in self.tests for row in rows_of(self, test))


def rows_of(experiment: Experiment, test: Test) -> tuple[str, ...]:
    """The rows of one test."""
    from chromatune.experiments.ambiguity import ROWS

    arms = [arm.name for arm in experiment.arms_of(test)]
    if test.kind == "ambiguity":
        return tuple(f"{arm}/{test.name}/{row}" for arm in arms for row in ROWS)
    return tuple(f"{name}/{test.name}" for name in (TRUTH, GREY, *arms))


def experiments() -> dict[str, Experiment]:
    """All declared experiments, by name."""
    folder = resources.files("chromatune.experiments") / "declared"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    return {file.name[:-5]: parse(file.name[:-5], tomllib.loads(file.read_text(encoding="utf-8"))) for file in files}


def parse(name: str, values: Mapping[str, Any]) -> Experiment:
    """An experiment from its file's values.

    Raises:
        pydantic.ValidationError: they do not agree.
    """
    return Experiment(name=name, **values)


def find(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        OptionsError: there is none.
    """
    known = experiments()
    if name not in known:
        raise OptionsError(f"no experiment {name!r}; accepted: {', '.join(known)}")
    return known[name]
