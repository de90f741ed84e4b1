"""What stands in the declarations, and what is refused."""

from __future__ import annotations

import pytest

from chromatune.errors import OptionsError
from chromatune.training import resolve_settings
from studies.paper import declaration
from studies.paper.declaration import Row, parse_row

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


def claim(row: str) -> dict:
    return {"text": "c", "metric": "psnr", "terms": {row: 1}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"roles": {"photos": "x", "more": "y"}}, r"roles \['more', 'photos'\] are declared, \['photos'\] are used"),
        ({"arms": [{"name": "a/b", "train": "photos"}]}, "holds no slash"),
        ({"tests": [{"name": "a/b", "on": "photos"}]}, "holds no slash"),
        ({"arms": [{"name": "a 1", "train": "photos"}, {"name": "a-1", "train": "photos"}]}, "two arms have one name"),
        ({"arms": [{"name": "a", "train": "photos", "preset": "slow"}]}, "unknown preset 'slow'"),
        ({"arms": [{"name": "a", "train": "photos", "rate": 1}]}, "arms.0.rate=1: extra inputs are not permitted"),
        ({"arms": [{"name": "a", "baseline": "regression"}]}, "give `train`"),
        ({"tests": [{"name": "t", "on": "photos", "arms": ["none"]}]}, "no arm 'none'"),
        ({"claims": []}, "claims"),
        (
            {"claims": [claim("tuned/elsewhere")]},
            "no row 'tuned/elsewhere'; there are truth/unseen, gray/unseen, tuned",
        ),
        ({"claims": [claim("tuned")]}, "'tuned': a row is spelled arm/test, or arm/test/aspect"),
        ({"claims": [claim("tuned/unseen/drawn/twice")]}, "a row is spelled arm/test, or arm/test/aspect"),
        (
            {"claims": [claim("tuned/unseen") | {"metric": "pnsr"}]},
            "tuned/unseen has no metric 'pnsr'; accepted: psnr",
        ),
        ({"claims": [claim("tuned/unseen") | {"metric": "spread"}]}, "tuned/unseen has no metric 'spread'"),
        ({"claims": [claim("tuned/unseen") | {"metric": "lpips"}]}, "has no metric 'lpips'"),
        ({"claims": [claim("tuned/unseen") | {"metric": ""}]}, "has no metric ''"),
        (
            {"claims": [claim("truth/unseen")]},
            "truth/unseen has no metric 'psnr'; accepted: cf_field",
        ),
        ({"claims": [claim("/unseen")]}, "a row is spelled arm/test, or arm/test/aspect"),
    ],
)
def test_what_does_not_agree_is_refused_in_one_line(experiment, change, message):
    values = experiment.model_dump(mode="json", exclude={"name"})
    with pytest.raises(OptionsError, match=message) as error:
        declaration.parse("x", values | change)
    assert str(error.value).startswith("the declaration of 'x' is wrong: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("row", [Row("tuned", "asked twice"), Row("mini", "seeds", "named hue, not skin")])
def test_a_row_is_read_as_it_is_spelled(row):
    assert parse_row(str(row)) == row


def test_a_declaration_is_written_as_it_was_read(experiment):
    values = experiment.model_dump(mode="json", exclude={"name"})
    assert values["claims"][0]["terms"] == {"tuned/unseen": 1, "mean/unseen": -1}
    assert declaration.parse("small", values) == experiment


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(OptionsError, match="no experiment 'color'; accepted: ambiguity, domains"):
        declaration.find("color")
