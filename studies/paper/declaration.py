"""What an experiment declares before it is run."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError, model_validator

from chromatune.data import prompt_set
from chromatune.errors import OptionsError
from chromatune.evaluation import DRIFT_MAX, GRAY_METHOD, MEANS, SKIN
from chromatune.options import first_problem
from studies.paper.ambiguity import ASPECTS, METRICS_OF

DECLARED = Path(__file__).parent / "declared"
TRUTH = "truth"
GAP, CF = "delta_cf_field", "cf_field"  # |mean of results - mean of truths| and what it is made of
BudgetName = Literal["quick", "full"]


class Row(NamedTuple):
    """A line of the table: an arm in a test, and where the test scores several things, which of them.

    Declarations and results spell it "arm/test", or "arm/test/aspect".
    """

    arm: str
    test: str
    aspect: str = ""

    def __str__(self) -> str:
        return "/".join(self if self.aspect else self[:2])


def parse_row(spelled: str | Row) -> Row:
    """The row of that spelling.

    Raises:
        ValueError: it has fewer than two or more than three names, or an empty one.
    """
    names = spelled if isinstance(spelled, Row) else spelled.split("/")
    if not 2 <= len(names) <= 3 or not all(names[:2]):
        raise ValueError("a row is spelled arm/test, or arm/test/aspect")
    return Row(*names)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Budget(_Frozen):
    """How much work: the same experiment in minutes, to see that it runs, or in hours, to answer."""

    train_photos: int = Field(ge=2, description="At most, of a role's training half.")
    test_photos: int = Field(ge=2, description="At most, of a role's test half.")
    seeds: int = Field(ge=1, description="Runs of each arm; verdicts take their spread into account.")
    updates: float = Field(default=1.0, gt=0, description="Share of the preset's updates, and of its warm-up.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Training settings over the arm's own.")


class Arm(_Frozen):
    """One way to come to a colorizer."""

    name: str
    train: str | None = Field(default=None, description="Role of the photos to fine-tune on; several joined by +.")
    rate: float = Field(default=1.0, gt=0, description="Learning rate, in units of the preset's.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Training settings over the preset's.")
    untrained: bool = Field(
        default=False, description="The model that the others are fine-tuned from, as it is: the control."
    )
    model: str | None = Field(
        default=None, description="A named model measured as it is, whatever the others start from."
    )
    baseline: Literal["mean-chroma", "regression"] | None = None

    @property
    def is_fine_tuned(self) -> bool:
        """Whether it is the model, trained further."""
        return self.train is not None and self.baseline is None

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles of the photos it learns from."""
        return tuple(self.train.split("+")) if self.train else ()


class DeclaredTest(_Frozen):
    """What arms are measured on: a row each, and beside them gray and truth."""

    name: str
    on: str = Field(description="Role of the photos.")
    half: Literal["test", "train"] = Field(default="test", description="`train` measures on what was trained on.")
    prompts: str | tuple[str, ...] = Field(
        default="model", description="`model`: its own; a prompt set; or instructions."
    )
    arms: tuple[str, ...] = Field(default=(), description="Measured here; none means all.")
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
    terms: dict[Annotated[Row, PlainValidator(parse_row), PlainSerializer(str)], float] = Field(
        min_length=1, description="Row ⇒ factor, such as a 1 and a -1 for a difference."
    )
    expect: Literal["above", "below"] = "above"
    margin: float = 0.0
    source: str = Field(default="", description="Whose claim it is, where it is the paper's.")


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
    tests: tuple[DeclaredTest, ...]
    claims: tuple[Claim, ...] = Field(min_length=1, description="The main one first.")

    @model_validator(mode="after")
    def _agrees(self) -> Experiment:
        arms, tests = [arm.name for arm in self.arms], [test.name for test in self.tests]
        for what, names in (("arm", arms), ("test", tests)):
            if odd := [name for name in names if "/" in name or not folder_name(name)]:
                raise ValueError(f"{what} {odd[0]!r}: a name has letters or digits, and holds no slash")
            if len(set(map(folder_name, names))) < len(names):
                raise ValueError(f"two {what}s have one name, or names that differ in signs alone")
        for arm in self.arms:
            if (arm.train is not None) + arm.untrained + (arm.model is not None) != 1:
                raise ValueError(f"arm {arm.name!r}: give one of `train`, `untrained` and `model`")
            if arm.baseline is not None and arm.train is None:
                raise ValueError(f"arm {arm.name!r}: a baseline learns from photos: give `train`")
        used = {role for arm in self.arms for role in arm.roles} | {test.on for test in self.tests}
        if used != set(self.roles):
            raise ValueError(f"roles {sorted(self.roles)} are declared, {sorted(used)} are used")
        if set(self.budgets) != {"quick", "full"}:
            raise ValueError("budgets are quick and full")
        for test in self.tests:
            if unknown := set(test.arms) - set(arms):
                raise ValueError(f"test {test.name!r}: no arm {min(unknown)!r}; there are {', '.join(arms)}")
        for claim in self.claims:
            if no_rows := set(claim.terms) - set(self.rows):
                known = ", ".join(map(str, self.rows))
                raise ValueError(f"claim {claim.text!r}: no row {str(min(no_rows))!r}; there are {known}")
            for row in claim.terms:
                if claim.metric not in metrics_of(row):
                    known = ", ".join(metrics_of(row))
                    raise ValueError(f"claim {claim.text!r}: {row} has no metric {claim.metric!r}; accepted: {known}")
        return self

    def arms_of(self, test: DeclaredTest) -> tuple[Arm, ...]:
        """The arms measured in a test."""
        return tuple(arm for arm in self.arms if not test.arms or arm.name in test.arms)

    def tests_of(self, arm: Arm) -> tuple[DeclaredTest, ...]:
        """The tests that an arm is measured in."""
        return tuple(test for test in self.tests if arm in self.arms_of(test))

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows, in the order of the table."""
        rows: list[Row] = []
        for test in self.tests:
            arms = [arm.name for arm in self.arms_of(test)]
            if test.kind == "ambiguity":
                rows += [Row(arm, test.name, aspect) for arm in arms for aspect in ASPECTS]
            else:
                rows += [Row(name, test.name) for name in (TRUTH, GRAY_METHOD, *arms)]
        return tuple(rows)


def metrics_of(row: Row) -> tuple[str, ...]:
    """The metrics that a claim may be about in a row."""
    if row.aspect:
        return METRICS_OF.get(row.aspect, ())
    own = tuple(name.removeprefix("truth_") for name in MEANS if name.startswith("truth_"))
    return (*own, GAP) if row.arm == TRUTH else (*MEANS, DRIFT_MAX, SKIN, GAP)


def folder_name(name: str) -> str:
    """An arm's or a test's name as it stands in the name of a folder."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def experiments() -> dict[str, Experiment]:
    """All declared experiments, by name."""
    files = sorted(DECLARED.glob("*.toml"))
    return {file.stem: parse(file.stem, tomllib.loads(file.read_text(encoding="utf-8"))) for file in files}


def parse(name: str, values: Mapping[str, Any]) -> Experiment:
    """An experiment from its file's values.

    Raises:
        OptionsError: they do not agree.
    """
    try:
        return Experiment(**{**values, "name": name})
    except ValidationError as error:
        raise OptionsError(f"the declaration of {name!r} is wrong: {first_problem(error)}") from None


def find(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        OptionsError: there is none.
    """
    known = experiments()
    if name not in known:
        raise OptionsError(f"no experiment {name!r}; accepted: {', '.join(known)}")
    return known[name]
