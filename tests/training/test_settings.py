"""Settings, presets and where a value may come from."""

from __future__ import annotations

import os

import pytest

from chromatune.errors import OptionsError
from chromatune.training.settings import TrainSettings, describe_changes, preset_of, presets, resolve_settings


@pytest.mark.parametrize("name", ["paper", "quick", "best", "lora"])
def test_every_preset_is_valid(name):
    assert resolve_settings(name).description


def test_the_paper_preset_is_the_papers_recipe():
    paper = resolve_settings("paper")
    assert (paper.photos, paper.batch, paper.accumulation, paper.lr) == (766, 4, 4, 5e-6)
    assert (paper.lr_schedule, paper.warmup, paper.dropout, paper.lab_weight) == ("constant", 0, 0.0, 0.0)
    assert (paper.beta1, paper.beta2, paper.weight_decay, paper.seed) == (0.9, 0.999, 1e-2, 42)
    assert paper.ema > 0 and paper.prompts == "thirty" and paper.gray == "rec601"


def test_command_line_beats_file_beats_preset(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text('preset = "lora"\nlr = 0.01\nbatch = 3\n')
    settings = resolve_settings(None, config, ["batch=5", "prompts=single", "photos=none", "flip=false"])
    assert settings.parts == presets()["lora"]["parts"] == "lora"
    assert resolve_settings("paper", config).parts == resolve_settings("paper").parts != "lora"
    assert (settings.lr, settings.batch, settings.prompts, settings.photos) == (0.01, 5, "single", None)
    assert settings.flip is False


def test_names_of_version_0_1_are_taken(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text('grey = "rec601"\n')
    assert resolve_settings("quick", config).gray == "rec601"
    assert resolve_settings("quick", config, ["grey=rec709"]).gray == "rec709"
    assert resolve_settings("paper", None, {"grey": "rec709"}).gray == "rec709"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["lrate=1"], "unknown setting 'lrate'"),
        (["lr"], "NAME=VALUE"),
        (["lr=-1"], "lr=-1"),
        (["parts=vae"], "parts='vae'"),
        (["parts=all", "lab_weight=0"], "lab_weight above 0"),
        (["lab_weighting=learned", "lab_weight=0"], "two losses"),
        (["zero_terminal_snr=true", "prediction_type=epsilon"], "v_prediction"),
        (["frozen_precision=bf16"], "need precision=bf16 or fp16"),
        (["sharding=fsdp", "parts=all", "lab_weight=1"], "use parts=unet"),
        (["sharding=fsdp", "optimizer=adamw8bit"], "use optimizer=adamw"),
        (["sharding=fsdp", "precision=fp16"], "precision=bf16 or no"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(overrides, said):
    with pytest.raises(OptionsError) as raised:
        resolve_settings("quick", None, overrides)
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_unknown_preset_and_bad_files(tmp_path):
    with pytest.raises(OptionsError, match="accepted: paper, quick, best, lora"):
        resolve_settings("fast")
    with pytest.raises(OptionsError, match="cannot be read"):
        resolve_settings("quick", tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("lr = = 1")
    with pytest.raises(OptionsError, match="is not TOML"):
        resolve_settings("quick", tmp_path / "bad.toml")


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        TrainSettings().lr = 1.0  # type: ignore[misc]


def test_a_configuration_is_a_file_of_some_size(tmp_path):
    """A pipe would be waited for; arrays in arrays end in Python's own stack."""
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000 + "]" * 100_000)
    with (tmp_path / "large.toml").open("wb") as file:
        file.truncate(3 << 30)
    for name, said in (("pipe", "cannot be read"), ("deep", "is nested too deep"), ("large", "cannot be read")):
        with pytest.raises(OptionsError, match=said):
            resolve_settings("quick", tmp_path / f"{name}.toml")
    with pytest.raises(OptionsError):
        resolve_settings("quick", overrides=["lr=" + "[" * 100_000])


@pytest.mark.parametrize("name", ["quick", "best", "lora"])
def test_presets_of_large_models_keep_what_they_predict(name):
    """5e-4 and a switch from epsilon to v are for the small pair: they wreck a full-size model."""
    small, large = resolve_settings(name), resolve_settings(name, large=True)
    assert large.lr <= 1e-4 < small.lr and large.description != small.description
    assert (large.prediction_type, large.zero_terminal_snr) == ("model", False)
    assert large.precision == "bf16" and large.gradient_checkpointing and large.ema >= 0.999
    assert resolve_settings(name, None, ["lr=0.5"], large=True).lr == 0.5
    assert resolve_settings("paper", large=True) == resolve_settings("paper")


def test_the_default_preset_depends_on_the_models_size(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text('preset = "lora"')
    assert (preset_of(), preset_of(large=True), preset_of(None, config, large=True)) == ("quick", "best", "lora")
    assert resolve_settings(large=True).lr == 1e-5


def test_a_change_says_whether_it_is_exact():
    before = TrainSettings(batch=4).model_dump() | {"ranks": 2}
    same, other, longer, shown = (
        describe_changes(before, before | change)
        for change in ({"ranks": 1, "batch": 8}, {"ranks": 4}, {"max_steps": 2000}, {"log_every": 1, "keep": 3})
    )
    assert same == [
        "processes=1 (was 2), batch=8 (was 4): each pair still comes once an epoch; an update is the mean of 8 pairs, "
        "as before: the same up to rounding"
    ]
    assert "16 pairs from here on, 8 before: not the same run" in other[0]
    assert "max_steps=2000 (was 1000): the learning rate falls" in longer[0]
    assert shown == ["log_every=1 (was 10), keep=3 (was 1): exact, no update depends on them"]
    constant = before | {"lr_schedule": "constant"}
    assert "exact: the learning rate is constant" in describe_changes(constant, constant | {"max_steps": 2000})[0]
    assert describe_changes({}, before) == describe_changes(before, before) == []
