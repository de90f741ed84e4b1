"""Whole runs with a tiny pipeline: resume, updates, frozen parts, validation, results, errors."""

from __future__ import annotations

import errno
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from chromatune import Colorizer, make_options
from chromatune.errors import ChromaTuneError, DataError, OptionsError
from chromatune.training import checkpoints, loop, validation
from chromatune.training.outcome import write_outcome
from chromatune.training.pair_stream import PairStream
from chromatune.training.settings import PARTS, TrainSettings
from chromatune.training.widening import open_trainable


class Killed(BaseException):
    """Stands for a SIGKILL: nothing may catch it."""


def dying_after(updates):
    """Learning rates as ever, and death where the update after so many begins."""
    known = loop.learning_rate

    def learning_rate(step, settings):
        if step == updates:
            raise Killed
        return known(step, settings)

    return learning_rate


def state(out):
    _, folder = checkpoints.latest(out)
    return load_file(folder / checkpoints.STATE_FILE), (folder / checkpoints.NOTES_FILE).read_text()


@pytest.mark.parametrize("moment", ["after the checkpoint", "while it is written", "two steps later"])
def test_resumed_equals_uninterrupted(start, tmp_path, monkeypatch, moment):
    whole, _ = start("whole", lab_weight=1.0)
    finish = checkpoints.finish_checkpoint

    def die_in_finish(temporary, final):
        if moment == "after the checkpoint":
            finish(temporary, final)
        raise Killed

    with monkeypatch.context() as patched:
        if moment == "two steps later":
            patched.setattr(loop, "learning_rate", dying_after(5))
        else:
            patched.setattr(checkpoints, "finish_checkpoint", die_in_finish)
        with pytest.raises(Killed):
            start("cut", lab_weight=1.0)
    found = checkpoints.latest(tmp_path / "cut")
    assert (found[0] if found else 0) == (0 if moment == "while it is written" else 3)
    resumed, _ = start("cut", lab_weight=1.0)
    for name, tensor in whole.pipeline.unet.state_dict().items():
        assert torch.equal(tensor, resumed.pipeline.unet.state_dict()[name]), name
    (tensors_1, notes_1), (tensors_2, notes_2) = state(tmp_path / "whole"), state(tmp_path / "cut")
    assert {name.partition(".")[0] for name in tensors_1} == {"weights", "averages", "optimizer"}
    assert tensors_1.keys() == tensors_2.keys() and notes_1 == notes_2
    assert all(torch.equal(tensor, tensors_2[name]) for name, tensor in tensors_1.items())
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut")]
    assert logs[0] == logs[1] and whole.best_step == resumed.best_step


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

    trained, rows = start(model=tiny_pipeline(vae_kind), parts=parts, lr=0.02, lora_rank=3)
    folder = write_outcome(trained, "photos", "quick")
    photo = np.tile(np.arange(48, dtype=np.uint8) * 5, (40, 1))
    options = make_options(steps=1, guidance_scale=1, image_guidance_scale=1, size_px=32, recompose=False)
    ours = Colorizer.load(str(folder), device="cpu").colorize(photo, options).rgb
    untrained = Colorizer.load(str(tiny_pipeline(vae_kind)), device="cpu").colorize(photo, options).rgb
    assert ours.shape == untrained.shape
    if parts == "lora":
        adapter = load_file(folder / "pytorch_lora_weights.safetensors")
        assert any(tensor.abs().max() > 0 for name, tensor in adapter.items() if "lora_B" in name or "lora.up" in name)
        ranks = {min(tensor.shape) for tensor in adapter.values()}
        assert ranks == {3}, "lora_rank decides how many directions an adapter has"
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
    assert row["psnr_gray"] > 5
    weights = [(row["weight_noise"], row["weight_lab"]) for row in rows if row["kind"] == "train"]
    assert weights[0] != weights[-1], "learned weights are logged and move"


def test_training_lowers_the_loss(start):
    _, rows = start(max_steps=40, validate_every=40, checkpoint_every=40, batch=4, lr=3e-3)
    first, last = (row for row in rows if row["kind"] == "validation")
    assert last["train_noise_loss"] < first["train_noise_loss"]


def test_a_bad_loss_stops_before_the_update(start, tmp_path, monkeypatch):
    """Guards that the loss is looked at before the optimizer's step: weights stay those of the updates before."""
    from chromatune.training import learner, run

    held, passes, joined = {}, [], learner.joined_loss

    def hold(name):
        opened = open_trainable(name)
        held["unet"] = opened.unet
        return opened

    def poisoned(*args):
        loss = joined(*args)
        if not loss.requires_grad:  # a validation
            return loss
        passes.append({name: tensor.clone() for name, tensor in held["unet"].state_dict().items()})
        return loss * float("nan") if len(passes) == 5 else loss

    monkeypatch.setattr(run, "open_trainable", hold)
    monkeypatch.setattr(learner, "joined_loss", poisoned)
    with pytest.raises(ChromaTuneError, match="the loss is nan at step 4; nothing was updated"):
        start()
    after = held["unet"].state_dict()
    assert any(not torch.equal(tensor, passes[4][name]) for name, tensor in passes[3].items()), "updates move weights"
    assert all(torch.equal(tensor, after[name]) for name, tensor in passes[4].items()), "the bad one moved none"
    assert checkpoints.latest(tmp_path / "run")[0] == 3


def test_passes_make_up_one_update(start):
    """Guards accumulation: two passes of two pairs are one of four, each pair once, and the curves are the same."""
    settings = {"max_steps": 4, "log_every": 1, "validate_every": 4, "checkpoint_every": 4, "lab_weight": 0}
    curves = [
        [row["noise_loss"] for row in rows if row["kind"] == "train"]
        for rows in (start("one", batch=4, **settings)[1], start("two", batch=2, accumulation=2, **settings)[1])
    ]
    assert len(set(curves[0])) == 4
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-3)


@pytest.mark.parametrize(
    ("best_by", "by_step", "best_step"), [("psnr", (99, 20, 23, 21, 22), 2), ("ab_mse", (0, 9, 5, 3, 4), 3)]
)
def test_the_best_checkpoint_has_the_most_psnr_or_the_least_error(start, monkeypatch, best_by, by_step, best_step):
    """Guards the sign of "best"; the untouched model, whatever it reaches, is none."""
    known = loop.validate
    monkeypatch.setattr(loop, "validate", lambda run, step, *a: known(run, step, *a) | {best_by: float(by_step[step])})
    trained, _ = start(best_by=best_by, max_steps=4, validate_every=1)
    assert trained.best_step == best_step


def test_the_averages_are_validated_and_kept_and_training_goes_on_without_them(start, tmp_path, monkeypatch):
    """Guards that the averaged weights stand in for the trained ones during a validation, and only then."""
    seen = []
    for name in ("measure_losses", "colorize"):
        known = getattr(validation, name)

        def look(model, *args, known=known):
            seen.append(model.unet.conv_in.weight.detach().clone())
            return known(model, *args)

        monkeypatch.setattr(validation, name, look)
    trained, _ = start(ema=0.9, max_steps=3)
    tensors, _ = state(tmp_path / "run")
    index = [name for name, _ in trained.pipeline.unet.named_parameters()].index("conv_in.weight")
    weight, average = tensors[f"weights.{index}"], tensors[f"averages.{index}"]
    assert len(seen) == 2 * 3, "held-out losses, training photos' losses and samples at step 0 and 3"
    assert all(torch.equal(used, average) for used in seen[3:])
    assert not torch.equal(average, weight)
    best = load_file(tmp_path / "run" / "checkpoints" / "best.safetensors")
    assert torch.equal(best["unet.conv_in.weight"], average)
    start("plain", ema=0, max_steps=3)
    assert torch.equal(weight, state(tmp_path / "plain")[0][f"weights.{index}"])


@pytest.mark.parametrize("chosen", [False, True])
def test_gradient_checkpointing_computes_activations_again(start, monkeypatch, chosen):
    """Guards the setting: memory is saved by a second forward pass through each block, during the backward pass."""
    from diffusers.models.resnet import ResnetBlock2D

    calls, forward = [], ResnetBlock2D.forward
    monkeypatch.setattr(
        ResnetBlock2D, "forward", lambda *a, **k: (calls.append(torch.is_grad_enabled()), forward(*a, **k))[1]
    )
    trained, _ = start(gradient_checkpointing=chosen, max_steps=1, ema=0)
    blocks = sum(isinstance(module, ResnetBlock2D) for module in trained.pipeline.unet.modules())
    assert sum(calls) > blocks if chosen else sum(calls) == blocks


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
    save = checkpoints.save_file

    def fill_up(tensors, path, **more):
        if "000006" in str(path):
            raise error
        return save(tensors, path, **more)

    monkeypatch.setattr(checkpoints, "save_file", fill_up)
    with pytest.raises(DataError, match="the disk is full.*earlier checkpoints are intact"):
        start()
    assert checkpoints.latest(tmp_path / "run")[0] == 3


def test_learning_rates():
    settings = TrainSettings(lr=1.0, warmup=10, max_steps=110, lr_schedule="cosine")
    rates = [loop.learning_rate(step, settings) for step in range(110)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.51) and rates[-1] == pytest.approx(0.02, abs=1e-3)
    constant = TrainSettings(lr=5e-6, warmup=0, lr_schedule="constant")
    assert {loop.learning_rate(step, constant) for step in (0, 500)} == {5e-6}


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
    monkeypatch.setattr(loop, "makes_batches_ahead", lambda device: True)  # as on a GPU
    copy, check, backward = loop.LossWatch.copy, loop.LossWatch.check, Accelerator.backward
    monkeypatch.setattr(loop.LossWatch, "copy", lambda *a: (order.append("copy"), copy(*a))[1])
    monkeypatch.setattr(loop.LossWatch, "check", lambda *a: (order.append("check"), check(*a))[1])
    monkeypatch.setattr(Accelerator, "backward", lambda *a: (order.append("backward"), backward(*a))[1])
    batch = PairStream.batch
    monkeypatch.setattr(PairStream, "batch", lambda *a: (makers.add(threading.get_ident()), batch(*a))[1])
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


@pytest.mark.parametrize("parts", ["unet", "lora"])
def test_a_photo_encoder_is_used_and_stays_as_it_is(start, encoder_pipeline, tmp_path, parts):
    """Its residuals reach the training, its weights reach the result, and dropped photos are not seen."""
    trained, _ = start(model=encoder_pipeline, parts=parts, max_steps=3, dropout=0.3)
    kept = open_trainable(str(encoder_pipeline)).photo_encoder.state_dict()
    after = trained.pipeline.photo_encoder.state_dict()
    assert kept and all(torch.equal(value, after[name]) for name, value in kept.items())
    pipeline = Colorizer.load(str(write_outcome(trained, "photos", "quick")), device="cpu").backend.pipeline
    assert all(torch.equal(value, pipeline.photo_encoder.state_dict()[name]) for name, value in kept.items())
    blind = tmp_path / "blind"
    shutil.copytree(encoder_pipeline, blind, ignore=shutil.ignore_patterns("photo_encoder"))
    without, _ = start("without", model=blind, parts=parts, max_steps=3, dropout=0.3)
    assert without.pipeline.photo_encoder is None and without.cache.grays is None
    ours, theirs = (run.pipeline.unet.state_dict() for run in (trained, without))
    assert any(not torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_run_with_a_photo_encoder_resumes(start, encoder_pipeline, monkeypatch):
    whole, _ = start("whole", model=encoder_pipeline)
    with monkeypatch.context() as patched:
        patched.setattr(loop, "learning_rate", dying_after(4))
        with pytest.raises(Killed):
            start("cut", model=encoder_pipeline)
    resumed, _ = start("cut", model=encoder_pipeline)
    for name, tensor in whole.pipeline.unet.state_dict().items():
        assert torch.equal(tensor, resumed.pipeline.unet.state_dict()[name]), name
