"""Whole runs with a tiny pipeline: resume, frozen parts, results, errors."""

from __future__ import annotations

import dataclasses
import errno
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from chromatune import Colorizer, make_options
from chromatune.bundle.text import tokenize
from chromatune.data.sources import open_source
from chromatune.errors import ChromaTuneError, DataError, OptionsError
from chromatune.evaluation.metrics import scores
from chromatune.training import checkpoints, engine
from chromatune.training.learner import Batch, Learner
from chromatune.training.outcome import write_outcome
from chromatune.training.settings import PARTS, TrainSettings
from chromatune.training.widening import open_trainable


@pytest.fixture
def start(drawn_photos, tiny_pipeline, tmp_path, tiny_settings):
    """Runs with the tiny settings and some changed: `start("name", lr=…)` -> what `train` returned, and its rows."""

    def start(name="run", *, model=None, **changes):
        settings = TrainSettings(**(tiny_settings | changes))
        rows = []
        trained = engine.train(
            open_source(drawn_photos), str(model or tiny_pipeline()), settings, tmp_path / name, score=scores,
            report=rows.append,
        )  # fmt: skip
        return trained, rows

    return start


class Killed(BaseException):
    """Stands for a SIGKILL: nothing may catch it."""


def state(out):
    _, folder = checkpoints.latest(out)
    return load_file(folder / "model.safetensors"), torch.load(folder / "custom_checkpoint_0.pkl", weights_only=True)


@pytest.mark.parametrize("moment", ["after the checkpoint", "while it is written", "two steps later"])
def test_resumed_equals_uninterrupted(start, tmp_path, monkeypatch, moment):
    whole, _ = start("whole", lab_weight=1.0)
    finish, after = checkpoints.finish_checkpoint, engine._Run._after_update

    def die_in_finish(temporary, final):
        if moment == "after the checkpoint":
            finish(temporary, final)
        raise Killed

    def die_later(self, sums):
        after(self, sums)
        if self.step == 5:
            raise Killed

    with monkeypatch.context() as patched:
        if moment == "two steps later":
            patched.setattr(engine._Run, "_after_update", die_later)
        else:
            patched.setattr(checkpoints, "finish_checkpoint", die_in_finish)
        with pytest.raises(Killed):
            start("cut", lab_weight=1.0)
    found = checkpoints.latest(tmp_path / "cut")
    assert (found[0] if found else 0) == (0 if moment == "while it is written" else 3)
    resumed, _ = start("cut", lab_weight=1.0)
    for name, tensor in whole.pipeline.unet.state_dict().items():
        assert torch.equal(tensor, resumed.pipeline.unet.state_dict()[name]), name
    (model_1, ema_1), (model_2, ema_2) = state(tmp_path / "whole"), state(tmp_path / "cut")
    assert all(torch.equal(tensor, model_2[name]) for name, tensor in model_1.items())
    assert all(torch.equal(a, b) for a, b in zip(ema_1["shadow_params"], ema_2["shadow_params"], strict=True))
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut")]
    assert logs[0] == logs[1] and whole.best_step == resumed.best_step


def test_photos_that_cannot_be_used_leave_nothing_behind(tmp_path, tiny_pipeline, tiny_settings):
    """So that the same command works once colour photos are there."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        Image.new("L", (48, 48), 40 * number).save(photos / f"{number}.png")
    with pytest.raises(DataError, match="none of the . photos can be used: . grey"):
        engine.train(open_source(photos), str(tiny_pipeline()), TrainSettings(**tiny_settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_repeated(start):
    first, _ = start()
    again, rows = start()
    assert not rows and again.steps == first.steps == 6
    assert torch.equal(first.pipeline.unet.conv_in.weight, again.pipeline.unet.conv_in.weight)


@pytest.mark.parametrize("parts", PARTS)
def test_frozen_parts_stay_bit_identical(start, tiny_pipeline, parts):
    trained, _ = start(parts=parts, lab_weight=1.0, max_steps=3)
    before, after = open_trainable(str(tiny_pipeline())), trained.pipeline
    changed = set()
    for part in ("unet", "vae", "text_encoder"):
        old = getattr(before, part).state_dict()
        for name, tensor in getattr(after, part).state_dict().items():
            known = old.get(name.replace(".base_layer", ""))
            if known is not None and not torch.equal(known, tensor):
                changed.add((part, name))
    expected = {
        "unet": lambda part, name: part == "unet",
        "unet-attention": lambda part, name: part == "unet" and ".attn" in name,
        "lora": lambda part, name: False,
        "unet+vae-decoder": lambda part, name: part == "unet" or name.startswith("decoder."),
        "unet+text-encoder": lambda part, name: part in ("unet", "text_encoder"),
        "all": lambda part, name: part != "vae" or name.startswith("decoder."),
    }[parts]
    assert all(expected(*place) for place in changed)
    wanted = {"unet": {"unet"}, "unet-attention": {"unet"}, "lora": set(), "unet+vae-decoder": {"unet", "vae"}}
    wanted |= {"unet+text-encoder": {"unet", "text_encoder"}, "all": {"unet", "vae", "text_encoder"}}
    assert {part for part, _ in changed} == wanted[parts]


@pytest.mark.parametrize("parts", ["unet", "lora"])
@pytest.mark.parametrize("vae_kind", ["tiny", "kl"])
def test_the_result_opens_and_colorizes(start, tiny_pipeline, parts, vae_kind):
    from diffusers import StableDiffusionInstructPix2PixPipeline

    trained, rows = start(model=tiny_pipeline(vae_kind), parts=parts, lr=0.02)
    folder = write_outcome(trained, "photos", "quick")
    photo = np.tile(np.arange(48, dtype=np.uint8) * 5, (40, 1))
    options = make_options(steps=1, guidance_scale=1, image_guidance_scale=1, size_px=32, recompose=False)
    ours = Colorizer.load(str(folder), device="cpu").colorize(photo, options).rgb
    untrained = Colorizer.load(str(tiny_pipeline(vae_kind)), device="cpu").colorize(photo, options).rgb
    assert ours.shape == untrained.shape
    if parts == "lora":
        adapter = load_file(folder / "pytorch_lora_weights.safetensors")
        assert any(tensor.abs().max() > 0 for name, tensor in adapter.items() if "lora_B" in name or "lora.up" in name)
    else:
        assert (ours != untrained).any()
        stock = StableDiffusionInstructPix2PixPipeline.from_pretrained(folder, safety_checker=None)
        assert torch.equal(stock.unet.conv_in.weight, trained.pipeline.unet.conv_in.weight)
    assert (trained.out / "report.html").is_file() and (trained.out / "grids" / "step-000006.png").is_file()
    card = (folder / "README.md").read_text()
    assert trained.split.digest in card
    assert [row["step"] for row in rows if row["kind"] == "validation"] == [0, 3, 6]


def test_validation_has_losses_scores_and_the_gap(start):
    _, rows = start(lab_weight=0.5, lab_weighting="learned")
    row = next(row for row in rows if row["kind"] == "validation")
    for name in ("noise_loss", "lab_loss", "train_noise_loss", "train_lab_loss", "psnr", "ab_mse", "delta_cf"):
        assert math.isfinite(row[name])
    assert row["psnr_grey"] > 5
    weights = [(row["weight_noise"], row["weight_lab"]) for row in rows if row["kind"] == "train"]
    assert weights[0] != weights[-1], "learned weights are logged and move"


def test_training_lowers_the_loss(start):
    _, rows = start(max_steps=40, validate_every=40, checkpoint_every=40, batch=4, lr=3e-3)
    first, last = (row for row in rows if row["kind"] == "validation")
    assert last["train_noise_loss"] < first["train_noise_loss"]


def test_a_bad_loss_stops_before_the_update(start, tmp_path, monkeypatch):
    from chromatune.training import learner

    seen, joined = [], learner.joined_loss

    def poisoned(*args):
        seen.append(1)
        loss = joined(*args)
        # validation at step 0 and 3 also passes here: count updates by their gradient
        return loss * float("nan") if loss.requires_grad and sum(seen) > 15 else loss

    monkeypatch.setattr(learner, "joined_loss", poisoned)
    with pytest.raises(ChromaTuneError, match=r"the loss is nan at step \d; nothing was updated"):
        start()
    found = checkpoints.latest(tmp_path / "run")
    if found is not None:
        assert all(torch.isfinite(tensor).all() for tensor in load_file(found[1] / "model.safetensors").values())


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_full_disk_leaves_the_earlier_checkpoint(start, tmp_path, monkeypatch, error):
    """The three ways in which Python, safetensors and torch say it."""
    from accelerate import Accelerator

    save = Accelerator.save_state

    def fill_up(self, folder):
        if "000006" in folder:
            raise error
        return save(self, folder)

    monkeypatch.setattr(Accelerator, "save_state", fill_up)
    with pytest.raises(DataError, match="the disk is full.*earlier checkpoints are intact"):
        start()
    assert checkpoints.latest(tmp_path / "run")[0] == 3


def test_another_run_is_not_continued_by_mistake(start):
    start(max_steps=3)
    with pytest.raises(OptionsError, match=r"holds a run with lr = 0.001, not 0.002"):
        start(max_steps=3, lr=0.002)


def test_schedules(start, tiny_pipeline, tmp_path):
    trained, _ = start(max_steps=2, zero_terminal_snr=True)
    config = trained.pipeline.scheduler.config
    assert config.prediction_type == "v_prediction" and config.rescale_betas_zero_snr
    assert float(trained.pipeline.scheduler.alphas_cumprod[-1]) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(OptionsError, match="use v_prediction"):
        start("other", model=tiny_pipeline(rescale_betas_zero_snr=True, prediction_type="v_prediction"),
              prediction_type="epsilon")  # fmt: skip
    assert not (tmp_path / "other").exists()


def test_guidance_only_where_conditions_were_dropped(tiny_stable_diffusion):
    """A model trained without dropout must not be sampled with guidance."""
    bare = open_trainable(str(tiny_stable_diffusion(8)))
    assert bare.defaults == {}
    for dropout, scales in ((0.0, (1.0, 1.0)), (0.05, (7.0, 1.5))):
        info = engine.run_info(bare, TrainSettings(dropout=dropout), 16)
        assert (info.guidance_scale, info.image_guidance_scale) == scales


def test_learning_rates():
    settings = TrainSettings(lr=1.0, warmup=10, max_steps=110, lr_schedule="cosine")
    rates = [engine.learning_rate(step, settings) for step in range(110)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.51) and rates[-1] == pytest.approx(0.02, abs=1e-3)
    constant = TrainSettings(lr=5e-6, warmup=0, lr_schedule="constant")
    assert {engine.learning_rate(step, constant) for step in (0, 500)} == {5e-6}


def test_a_plain_stable_diffusion_model_becomes_a_colorizer(start, tiny_stable_diffusion):
    """The structure of Stable Diffusion 1.5, tiny: widened, trained, saved, opened by the stock pipeline."""
    from diffusers import StableDiffusionInstructPix2PixPipeline

    trained, _ = start(model=tiny_stable_diffusion(), max_steps=2, size_px=64)
    folder = write_outcome(trained, "photos", "quick")
    stock = StableDiffusionInstructPix2PixPipeline.from_pretrained(folder, safety_checker=None)
    assert stock.unet.config.in_channels == 8
    assert stock.unet.conv_in.weight[:, 4:].abs().max() > 0, "the photo's channels have learnt something"
    with pytest.raises(OptionsError, match="a LoRA cannot teach it"):
        start("lora", model=tiny_stable_diffusion(), parts="lora")


def test_the_loss_is_read_behind_the_backward_pass_and_batches_are_made_ahead(start, monkeypatch):
    """The official script waits for each loss before it goes on, and makes batches in between (0 workers)."""
    import threading

    from accelerate import Accelerator

    order, makers = [], set()
    monkeypatch.setattr(engine, "makes_batches_ahead", lambda device: True)  # as on a GPU
    copy, check, backward = engine.LossWatch.copy, engine.LossWatch.check, Accelerator.backward
    monkeypatch.setattr(engine.LossWatch, "copy", lambda *a: (order.append("copy"), copy(*a))[1])
    monkeypatch.setattr(engine.LossWatch, "check", lambda *a: (order.append("check"), check(*a))[1])
    monkeypatch.setattr(Accelerator, "backward", lambda *a: (order.append("backward"), backward(*a))[1])
    batch = engine._Run._batch
    monkeypatch.setattr(engine._Run, "_batch", lambda *a: (makers.add(threading.get_ident()), batch(*a))[1])
    start(max_steps=2)
    assert order == ["copy", "backward", "check"] * 2
    assert threading.get_ident() not in makers


def test_a_frozen_text_encoder_reads_each_prompt_once(start, monkeypatch):
    """The official script runs CLIP, on the empty prompt too, at every step."""
    from transformers import CLIPTextModel

    calls, forward = [], CLIPTextModel.forward
    monkeypatch.setattr(CLIPTextModel, "forward", lambda *a, **k: (calls.append(1), forward(*a, **k))[1])
    start(max_steps=6, prompts="single", dropout=0.3)
    training_and_losses = 2  # "colorize the photo", and the empty prompt
    sampling = 2 * 3  # the prompt and the negative one at each of three validations
    assert len(calls) <= training_and_losses + sampling


def test_the_sources_own_prompts(start):
    with pytest.raises(OptionsError, match="has no prompts of its own"):
        start(prompts="source")


@pytest.mark.parametrize("parts", ["unet", "lora"])
def test_a_photo_encoder_is_used_and_stays_as_it_is(start, encoder_pipeline, tmp_path, parts):
    """Its residuals reach the training, its weights reach the result, and dropped photos are not seen."""
    trained, _ = start(model=encoder_pipeline, parts=parts, max_steps=3, dropout=0.3)
    kept = open_trainable(str(encoder_pipeline)).photo_encoder.state_dict()
    after = trained.pipeline.photo_encoder.state_dict()
    assert kept and all(torch.equal(value, after[name]) for name, value in kept.items())
    bundle = Colorizer.load(str(write_outcome(trained, "photos", "quick")), device="cpu").model_pass.bundle
    assert all(torch.equal(value, bundle.photo_encoder.state_dict()[name]) for name, value in kept.items())
    blind = tmp_path / "blind"
    shutil.copytree(encoder_pipeline, blind, ignore=shutil.ignore_patterns("photo_encoder"))
    without, _ = start("without", model=blind, parts=parts, max_steps=3, dropout=0.3)
    assert without.pipeline.photo_encoder is None and without.cache.greys is None
    ours, theirs = (run.pipeline.unet.state_dict() for run in (trained, without))
    assert any(not torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_run_with_a_photo_encoder_resumes(start, encoder_pipeline, monkeypatch):
    whole, _ = start("whole", model=encoder_pipeline)
    after = engine._Run._after_update

    def die(self, sums):
        after(self, sums)
        if self.step == 4:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(engine._Run, "_after_update", die)
        with pytest.raises(Killed):
            start("cut", model=encoder_pipeline)
    resumed, _ = start("cut", model=encoder_pipeline)
    for name, tensor in whole.pipeline.unet.state_dict().items():
        assert torch.equal(tensor, resumed.pipeline.unet.state_dict()[name]), name


def test_what_is_learnt_is_blind_to_dropped_photos(encoder_pipeline):
    """The U-Net's answer for a dropped photo is that without a photo encoder; for a shown one it is another."""
    parts = open_trainable(str(encoder_pipeline))
    named = (
        parts.unet,
        parts.tokenizer,
        parts.text_encoder,
        parts.vae,
        parts.scheduler.alphas_cumprod,
        "epsilon",
        TrainSettings(),
    )
    seeing, blind = Learner(*named, parts.photo_encoder.eval()), Learner(*named)
    batch = Batch(
        latents=torch.randn(2, 4, 4, 4), condition=torch.randn(2, 4, 4, 4), noise=torch.randn(2, 4, 4, 4),
        timesteps=torch.tensor([5, 5]), tokens=tokenize(parts.tokenizer, [""]), prompt_of=torch.tensor([0, 0]),
        truth=None, greys=torch.randint(0, 256, (2, 32, 32), dtype=torch.uint8), shown=torch.tensor([True, False]),
    )  # fmt: skip
    with torch.no_grad():
        ours, theirs = (learner.predict(batch.latents, batch) for learner in (seeing, blind))
    with pytest.raises(ValueError, match="the batch is without greys"):
        seeing.predict(batch.latents, dataclasses.replace(batch, greys=None))
    assert torch.equal(ours[1], theirs[1]) and not torch.allclose(ours[0], theirs[0], atol=1e-3)
