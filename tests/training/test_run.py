"""How a run begins: what it may be, which photos it takes, how it samples, and whose its folder is."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from chromatune.data import inspect_source, open_source, split_source
from chromatune.errors import DataError, OptionsError
from chromatune.files import lock_run_folder
from chromatune.prompts import COLORIZE_PROMPTS
from chromatune.training import run, training_loop
from chromatune.training.initial_model import load_initial_model
from chromatune.training.settings import TrainSettings, resolve_settings
from chromatune.training.training_loop import learning_rate


def test_photos_that_cannot_be_used_leave_nothing_behind(tmp_path, tiny_pipeline, tiny_settings):
    """So that the same command works once color photos are there."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        Image.new("L", (48, 48), 40 * number).save(photos / f"{number}.png")
    with pytest.raises(DataError, match="no usable photo to validate on .. gray or sepia.; give more color photos"):
        run.train(open_source(photos), str(tiny_pipeline()), TrainSettings(**tiny_settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_run_is_not_continued_by_mistake(start, tmp_path):
    start(max_steps=1)
    kept = sorted(path for path in (tmp_path / "run").rglob("*") if path.is_file())
    with pytest.raises(OptionsError, match=r"holds a run with lr=0.001, and now it is 0.002"):
        start(max_steps=1, lr=0.002)
    assert sorted(path for path in (tmp_path / "run").rglob("*") if path.is_file()) == kept


def test_a_run_of_version_0_1_resumes(start, tmp_path):
    """Its settings and measures have the names of then: grey, psnr_grey."""
    start("old", max_steps=1)
    folder = tmp_path / "old"
    facts = json.loads((folder / run.RUN_FILE).read_text())
    present = {name: (folder / name).read_text() for name in (run.RUN_FILE, "metrics.jsonl")}
    (folder / run.RUN_FILE).write_text(json.dumps({"grey" if k == "gray" else k: v for k, v in facts.items()}))
    log = folder / "metrics.jsonl"
    log.write_text(log.read_text().replace("psnr_gray", "psnr_grey"))
    result, rows = start("old", max_steps=1)
    assert result.steps == 1 and not rows
    assert present == {name: (folder / name).read_text() for name in present}
    (folder / run.RUN_FILE).write_text(json.dumps({"grey": "rec601"} | {k: v for k, v in facts.items() if k != "gray"}))
    with pytest.raises(OptionsError, match="holds a run with gray='rec601', and now it is 'varied'"):
        start("old", max_steps=1)


def test_a_run_without_a_newer_setting_resumes_where_it_changes_nothing(start, tmp_path):
    """Versions before it wrote no `loss_weights_lr`; with learned weights a run would go on otherwise than it began."""
    for name, settings in (("fixed", {}), ("learned", {"lab_weight": 1.0, "lab_weighting": "learned"})):
        start(name, max_steps=1, **settings)
        path = tmp_path / name / run.RUN_FILE
        present = path.read_text()
        facts = json.loads(present)
        del facts["loss_weights_lr"]
        path.write_text(json.dumps(facts))
        if name == "fixed":
            result, rows = start(name, max_steps=1, **settings)
            assert result.steps == 1 and not rows and json.loads(path.read_text()) == json.loads(present)
        else:
            with pytest.raises(OptionsError, match="holds a run with loss_weights_lr=None, and now it is 0.01"):
                start(name, max_steps=1, **settings)


def test_latents_lie_where_the_call_says_whatever_the_environment(start, tmp_path, monkeypatch):
    """Guards that only the command line reads CHROMATUNE_CACHE."""
    monkeypatch.setenv("CHROMATUNE_CACHE", str(tmp_path / "elsewhere"))
    shared, _ = start(max_steps=1, cache_dir=tmp_path / "shared")
    assert shared.cache.folder.parent == tmp_path / "shared"
    own, _ = start(max_steps=1, cache_dir=None)
    assert own.cache.folder.parent == tmp_path / "run" / "cache" and not (tmp_path / "elsewhere").exists()


def test_a_second_process_on_the_same_run_is_one_line(start, tmp_path, monkeypatch):
    """Guards that the folder is held for the whole run, and let go in the end."""
    refused = []

    def rate(*args):
        with pytest.raises(OptionsError) as error, lock_run_folder(tmp_path / "run", run.RUN_FILE, {}, "a run"):
            pass
        refused.append(str(error.value))
        return learning_rate(*args)

    with monkeypatch.context() as patched:
        patched.setattr(training_loop, "learning_rate", rate)
        start(max_steps=1)
    assert "is in use: another process is working there" in refused[0] and "\n" not in refused[0]
    start(max_steps=1)


def test_at_most_so_many_photos_whichever_their_order(start, drawn_photos):
    """Guards `photos`: a share of a source, held-out photos included, is drawn by the seed alone."""
    result, _ = start(photos=6, max_steps=1)
    used = {item.key for item in (*result.split.train, *result.split.validation)}
    assert len(used) == 6
    source = open_source(drawn_photos)
    turned = dataclasses.replace(source, items=source.items[::-1])
    planned = [run.plan_run(each, str(result.pipeline.info.path), result.settings).split for each in (source, turned)]
    assert all({item.key for item in (*split.train, *split.validation)} == used for split in planned)


def test_schedules(start, tiny_pipeline, tmp_path):
    result, _ = start(max_steps=2, zero_terminal_snr=True)
    config = result.pipeline.scheduler.config
    assert config.prediction_type == "v_prediction" and config.rescale_betas_zero_snr
    assert float(result.pipeline.scheduler.alphas_cumprod[-1]) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(OptionsError, match="use v_prediction"):
        start("other", model=tiny_pipeline(rescale_betas_zero_snr=True, prediction_type="v_prediction"),
              prediction_type="epsilon")  # fmt: skip
    assert not (tmp_path / "other").exists()


def test_guidance_only_where_conditions_were_dropped(tiny_stable_diffusion):
    """A model result without dropout must not be sampled with guidance."""
    bare = load_initial_model(str(tiny_stable_diffusion(8)))
    assert bare.defaults == {}
    for dropout, scales in ((0.0, (1.0, 1.0)), (0.05, (7.0, 1.5))):
        info = run.run_info(bare, TrainSettings(dropout=dropout))
        assert (info.guidance_scale, info.image_guidance_scale) == scales


def test_a_list_of_taught_words_stays_where_training_adds_none(tiny_stable_diffusion):
    bare = load_initial_model(str(tiny_stable_diffusion(8)))
    info = dataclasses.replace(bare.pipeline.info, words=("colorize", "the", "photo"))
    taught = dataclasses.replace(bare, pipeline=dataclasses.replace(bare.pipeline, info=info))
    known, more = ["Colorize the photo!", "the photo"], ["colorize the photo", "like an autochrome"]
    for prompts, kept in ((known, info.words), ({"a": "colorize"}, info.words), (more, None), ({"a": more[1]}, None)):
        assert run.run_info(taught, TrainSettings(), prompts).words == kept
    assert run.run_info(bare, TrainSettings(), known).words is None


def test_the_papers_result_samples_as_its_base_does(tiny_stable_diffusion):
    """20 steps of ancestral Euler with guidance 7 and 1.5, at 256 px, before and after: only the weights differ."""
    bare = load_initial_model(str(tiny_stable_diffusion(8)))
    settings = resolve_settings("paper")
    info, scheduler = run.run_info(bare, settings), run.run_scheduler(bare.pipeline, settings)
    assert (info.size_px, info.steps, info.guidance_scale, info.image_guidance_scale) == (256, 20, 7.0, 1.5)
    assert type(scheduler).__name__ == "EulerAncestralDiscreteScheduler"
    own = bare.pipeline.scheduler.config
    assert scheduler.config.prediction_type == own.prediction_type and scheduler.config.beta_end == own.beta_end
    beside = resolve_settings("paper", None, ["guidance_scale=1", "image_guidance_scale=1"])
    assert run.run_info(bare, beside).guidance_scale == run.run_info(bare, beside).image_guidance_scale == 1.0
    for parts in ({"parts": "lora"}, {"zero_terminal_snr": True, "prediction_type": "v_prediction"}):
        with pytest.raises(ValueError, match="leave scheduler=model"):
            TrainSettings(scheduler="euler-ancestral", **parts)


def test_results_without_guidance_stand_beside_guided_ones(start, monkeypatch):
    """Where nothing was dropped in training, guidance extrapolates; at 1 and 1 there is nothing to compare with."""

    def colorize(pipeline, photos, steps):
        scales = pipeline.info.guidance_scale, pipeline.info.image_guidance_scale
        return np.broadcast_to(np.array([scales[0] / 10, scales[1] / 10, 0.1], np.float32), photos.truth_u8.shape)

    monkeypatch.setattr(training_loop, "colorize_photos", colorize)

    def validated(name, **settings):
        _, rows = start(name, max_steps=1, **settings)
        return next(row for row in rows if row["kind"] == "validation")

    guided = {"guidance_scale": 7.0, "image_guidance_scale": 1.5}
    plain, beside = validated("plain", dropout=0.0), validated("guided", dropout=0.0, **guided)
    of_unguided = {name: value for name, value in beside.items() if name.startswith("unguided_")}
    assert {"unguided_psnr", "unguided_raw_lab_mse", "unguided_delta_cf"} <= of_unguided.keys()
    for name, value in of_unguided.items():
        assert value == plain[name.removeprefix("unguided_")]
    assert beside["psnr"] != plain["psnr"]
    for row in (plain, validated("dropped", dropout=0.1, **guided)):
        assert not any(name.startswith("unguided_") for name in row)


def test_the_sources_own_prompts(start):
    with pytest.raises(OptionsError, match="has no prompts of its own"):
        start(prompts="source")


def test_skipped_photos_are_written_with_their_reason(start, drawn_photos, tmp_path):
    """The photos that `data inspect` skips, by the same rule."""
    result, _ = start(max_steps=1)
    rows = [json.loads(line) for line in (tmp_path / "run" / run.SKIPPED_FILE).read_text().splitlines()]
    written = {row["key"]: row["reason"] for row in rows}
    inspected = inspect_source(open_source(drawn_photos), size_px=16).skipped
    expected = {"broken.jpg": "broken", "gray.png": "gray or sepia"}
    assert {key for photos in inspected.values() for key in photos.examples} == set(expected)
    held_out = {item.key for item in result.split.validation}
    assert written == {key: reason for key, reason in expected.items() if key not in held_out}


def test_a_held_out_photo_that_cannot_be_used_is_replaced(tiny_pipeline, tiny_settings, tmp_path):
    """Guards small sets: the only photo to validate on is gray, and another one is held out instead."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(5):
        Image.effect_noise((48, 48), 60).convert("RGB").save(photos / f"{number}.png")
    settings = TrainSettings(**(tiny_settings | {"max_steps": 1, "validation": 0.2}))
    (first,) = split_source(open_source(photos).items, 0.2, settings.seed).validation
    colors = np.random.default_rng(0)
    for path in photos.iterdir():
        if path.name != first.key:
            squares = np.kron(colors.integers(0, 256, (6, 6, 3)), np.ones((8, 8, 1)))
            Image.fromarray(squares.astype(np.uint8)).save(path)
    result = run.train(open_source(photos), str(tiny_pipeline()), settings, tmp_path / "run")
    assert len(result.split.validation) == 1 and result.split.validation[0].key != first.key
    assert json.loads((tmp_path / "run" / run.SKIPPED_FILE).read_text()) == {
        "key": first.key,
        "reason": "gray or sepia",
    }


@pytest.mark.parametrize("own", [None, {"00.png": "paint it red"}])
def test_auto_takes_the_photos_own_prompts_where_there_are_any(drawn_photos, tiny_pipeline, tiny_settings, own):
    source = dataclasses.replace(open_source(drawn_photos), prompts=own)
    settings = TrainSettings(**(tiny_settings | {"prompts": "auto"}))
    prompts = run.plan_run(source, str(tiny_pipeline()), settings).prompts
    if own is None:
        assert prompts == COLORIZE_PROMPTS
    else:
        assert isinstance(prompts, dict)
        assert prompts["00.png"] == "paint it red" and set(prompts) == {item.key for item in source.items}
        assert all(prompt in COLORIZE_PROMPTS for key, prompt in prompts.items() if key != "00.png")


@pytest.mark.parametrize(
    "changes",
    [
        {"aspect": "buckets", "size_px": 64},
        {"cache": "off"},
        pytest.param({"aspect": "buckets", "size_px": 64, "cache": "off", "lab_weight": 0.5}, marks=pytest.mark.slow),
    ],
)
def test_runs_with_buckets_and_without_a_cache_resume_bit_for_bit(start, changes):
    """Stopped between two checkpoints, at update 4 of 6."""

    def stop(row):
        if row["step"] == 4:
            raise KeyboardInterrupt

    changes = changes | {"validate_every": 6}
    whole, _ = start("whole", **changes)
    with pytest.raises(KeyboardInterrupt):
        start("cut", on_row=stop, **changes)
    cut, rows = start("cut", **changes)
    assert [row["step"] for row in rows if row["kind"] == "train"] == [4, 6]
    for name, weight in whole.pipeline.unet.state_dict().items():
        assert torch.equal(weight, cut.pipeline.unet.state_dict()[name])
