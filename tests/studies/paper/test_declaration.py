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
        assert experiment.budgets["full"].seeds >= 5
        for arm in experiment.arms:
            for budget in experiment.budgets.values():
                resolve_settings(None, None, {**arm.settings, **budget.settings})


@pytest.mark.parametrize("name", [name for name in NINE if name != "ambiguity"])
def test_every_experiment_that_trains_claims_something_against_the_untrained_model(name):
    experiment = declaration.find(name)
    (control,) = (arm.name for arm in experiment.arms if arm.untrained)
    fine_tuned = {arm.name for arm in experiment.arms if arm.is_fine_tuned}
    differences = [
        claim
        for claim in experiment.claims
        for plus, minus in [sorted(claim.terms, key=lambda row: -claim.terms[row])] * (len(claim.terms) == 2)
        if plus.arm in fine_tuned and minus == plus._replace(arm=control) and claim.metric == "psnr"
    ]
    assert differences


def test_the_learning_rates_are_the_papers_own_and_those_scaled_to_the_model_and_none_has_a_lab_loss():
    experiment = declaration.find("learning-rate")
    trained = [arm for arm in experiment.arms if arm.train]
    assert {arm.settings["lr"] for arm in trained if arm.settings} == {1e-6, 5e-6, 1e-5}
    assert sorted(arm.rate for arm in trained if not arm.settings) == [
        0.2,
        1.0,
        2.0,
    ]  # as the paper's
    for budget in experiment.budgets.values():
        assert "lab_weight" not in budget.settings
    assert all("lab_weight" not in arm.settings for arm in experiment.arms)


def test_the_gap_of_the_lab_loss_is_the_models_less_the_controls_on_the_same_photos():
    claims = declaration.find("lab-loss").claims
    (gap,) = (claim for claim in claims if "there is a gap" in claim.text)
    for test in ("trained on", "unseen"):
        model, control = gap.terms[Row("noise alone", test)], gap.terms[Row("untrained", test)]
        assert model == -control != 0


def claim(row: str) -> dict:
    return {"text": "c", "metric": "psnr", "terms": {row: 1}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"roles": {"photos": "x", "more": "y"}}, r"roles \['more', 'photos'\] are declared, \['photos'\] are used"),
        ({"arms": [{"name": "a/b", "train": "photos"}]}, "holds no slash"),
        ({"tests": [{"name": "a/b", "on": "photos"}]}, "holds no slash"),
        ({"arms": [{"name": "a 1", "train": "photos"}, {"name": "a-1", "train": "photos"}]}, "two arms have one name"),
        ({"arms": [{"name": "a"}]}, "arm 'a': give one of `train`, `untrained` and `model`"),
        ({"arms": [{"name": "a", "untrained": True, "model": "mini"}]}, "give one of `train`, `untrained` and `model`"),
        ({"arms": [{"name": "a", "train": "photos", "pace": 1}]}, "arms.0.pace=1: extra inputs are not permitted"),
        ({"arms": [{"name": "a", "model": "m", "baseline": "regression"}]}, "learns from photos: give `train`"),
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
