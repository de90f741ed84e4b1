"""What stands in the declarations, and what is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from chromatune.errors import OptionsError
from chromatune.experiments import declaration
from chromatune.training.settings import resolve_settings

NINE = ("ambiguity domains lab-loss learning-rate peers prompt-diversity unfreeze unseen-photos unseen-prompts").split()


def test_all_nine_are_declared_with_rules_and_settings_that_resolve():
    found = declaration.experiments()
    assert sorted(found) == NINE
    for experiment in found.values():
        assert experiment.claims and experiment.question.endswith("?")
        assert experiment.budgets["full"].seeds >= 3
        for arm in experiment.arms:
            for budget in experiment.budgets.values():
                resolve_settings(arm.preset, None, {**arm.settings, **budget.settings})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"roles": {"photos": "x", "more": "y"}}, r"roles \['more', 'photos'\] are declared, \['photos'\] are used"),
        ({"arms": [{"name": "a/b", "train": "photos"}]}, "holds no slash"),
        ({"arms": [{"name": "a", "train": "photos", "preset": "slow"}]}, "unknown preset 'slow'"),
        ({"arms": [{"name": "a", "baseline": "regression"}]}, "give `train`"),
        ({"tests": [{"name": "t", "on": "photos", "arms": ["none"]}]}, "no arm 'none'"),
        ({"claims": [{"text": "c", "metric": "psnr", "terms": {"tuned/elsewhere": 1}}]}, "no row 'tuned/elsewhere'"),
    ],
)
def test_what_does_not_agree_is_refused(experiment, change, message):
    values = experiment.model_dump(mode="json", exclude={"name"})
    with pytest.raises(ValidationError, match=message):
        declaration.parse("x", values | change)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(OptionsError, match="no experiment 'colour'; accepted: ambiguity, domains"):
        declaration.find("colour")
