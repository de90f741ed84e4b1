"""Losses against their formulas, and whole runs of a tiny pipeline: resume, updates, frozen parts, errors."""

from __future__ import annotations

import dataclasses
import errno
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from chromatune import Colorizer, make_options
from chromatune.errors import ChromaTuneError, DataError, OptionsError
from chromatune.pipeline import Pipeline, alpha_sigma, load_pipeline, prediction_target, tokenize
from chromatune.training import checkpoints, learner, training_loop
from chromatune.training.dataset import Batch, BatchSampler
from chromatune.training.initial_model import load_initial_model
from chromatune.training.learner import LAB_SCALE, Learner, combined_loss, lab_loss, noise_loss, snr_weight
from chromatune.training.saving import save_result
from chromatune.training.settings import PARTS, TrainSettings
from chromatune.training.training_loop import FiniteLossGuard, learning_rate

ALPHA = torch.tensor([0.0, 0.3, 0.6, 0.99]).view(-1, 1, 1, 1)
SIGMA = (1 - ALPHA.square()).sqrt()


def test_min_snr_follows_its_paper():
    snr = (ALPHA / SIGMA).square().flatten()
    epsilon = snr_weight(ALPHA, SIGMA, 5.0, "epsilon").flatten()
    torch.testing.assert_close(epsilon[1:], (snr.clamp(max=5) / snr)[1:])
    v = snr_weight(ALPHA, SIGMA, 5.0, "v_prediction").flatten()
    torch.testing.assert_close(v[1:], (snr.clamp(max=5) / (snr + 1))[1:])
    assert v[0] > 0, "at zero terminal SNR color is decided: it must be trained"
    assert torch.equal(snr_weight(ALPHA, SIGMA, None, "epsilon"), torch.ones_like(ALPHA))


def test_noise_loss_weighs_samples():
    prediction, target = torch.ones(2, 4, 3, 3), torch.zeros(2, 4, 3, 3)
    weight = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    assert noise_loss(prediction, target, weight).item() == pytest.approx(2.0)


def test_lab_loss_is_float_cielab():
    """The paper's LAB error subtracts bytes, which wrap modulo 256; scikit-image's floats are the judge here."""
    from skimage.color import rgb2lab

    rng = np.random.default_rng(0)
    first, second = rng.uniform(0.05, 1, (2, 1, 3, 8, 8)).astype(np.float32)
    labs = [rgb2lab(image[0].transpose(1, 2, 0).astype(np.float64)) for image in (first, second)]
    expected = (((labs[0] - labs[1]) / LAB_SCALE) ** 2).sum(axis=2).mean()
    ours = lab_loss(torch.from_numpy(first), torch.from_numpy(second), torch.ones(1, 1, 1, 1))
    assert ours.item() == pytest.approx(expected, rel=1e-3)
    blue, yellow = torch.tensor([0.1, 0.1, 1.0]), torch.tensor([1.0, 1.0, 0.1])
    blue, yellow = (color.view(1, 3, 1, 1).expand(1, 3, 8, 8) for color in (blue, yellow))
    assert lab_loss(blue, yellow, torch.ones(1, 1, 1, 1)) > 15, "opposite colors are far apart, not wrapped together"


def test_lab_loss_is_in_float32_under_autocast():
    """In bfloat16 a* alone would be off by more than two units."""
    torch.manual_seed(0)
    rgb, truth = torch.rand(2, 1, 3, 16, 16)
    weight = torch.ones(1, 1, 1, 1)
    expected = lab_loss(rgb, truth, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = lab_loss(rgb, truth, weight)
    assert loss.dtype == torch.float32 and torch.equal(loss, expected)


def test_lab_loss_pulls_back_what_leaves_the_gamut():
    rgb = torch.full((1, 3, 4, 4), 1.5, requires_grad=True)
    lab_loss(rgb, torch.ones(1, 3, 4, 4), torch.ones(1, 1, 1, 1)).backward()
    assert rgb.grad is not None and rgb.grad.min() > 0


def test_learned_weights_balance_two_losses():
    """At the optimum of Kendall's objective each weight is the inverse of its loss."""
    noise, lab = torch.tensor(0.5), torch.tensor(0.02)
    log_variances = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([log_variances], lr=0.5)
    for _ in range(400):
        optimizer.zero_grad()
        combined_loss(noise, lab, 1.0, log_variances).backward()
        optimizer.step()
    torch.testing.assert_close((-log_variances.detach()).exp(), torch.tensor([2.0, 50.0]), rtol=1e-3, atol=0)
    assert combined_loss(noise, lab, 3.0, None).item() == pytest.approx(0.56)
    assert combined_loss(noise, None, 3.0, None) is noise


@pytest.mark.parametrize("change", [1 / 3, 3.2])
def test_learned_weights_follow_losses_of_different_scales(start, monkeypatch, change):
    """A run's own optimizer takes each weight to the inverse of its loss: 0.6 and 0.06 at first, that fall or rise."""
    rng, updates, scales = np.random.default_rng(0), 160, {"noise_loss": 0.6, "lab_loss": 0.06}
    passes = dict.fromkeys(scales, 0)

    def constructed(name):
        def loss(prediction, *_):
            scale = scales[name] * change ** min(1.0, passes[name] / (updates / 2))
            if not torch.is_grad_enabled():
                return torch.tensor(scale)
            passes[name] += 1
            return prediction.mean() * 0 + scale * float(rng.lognormal(-0.045, 0.3))  # of mean `scale`

        return loss

    for name in scales:
        monkeypatch.setattr(learner, name, constructed(name))
    settings = {"lab_weight": 1.0, "lab_weighting": "learned", "log_every": 1, "validate_every": 160}
    _, rows = start(max_steps=updates, checkpoint_every=160, **settings)
    logged = [row for row in rows if row["kind"] == "train"]
    for name, scale in scales.items():
        weights = [row[name.replace("noise_loss", "weight_noise").replace("lab_loss", "weight_lab")] for row in logged]
        assert weights[0] == pytest.approx(1 / scale, rel=0.05), "they start from the losses' own scales"
        assert abs(math.log(weights[-1] / weights[0])) > math.log(1.5)
        assert weights[-1] == pytest.approx(1 / scale / change, rel=0.2)
    assert {row["lr_loss_weights"] for row in logged} == {1e-2} and logged[-1]["lr"] != 1e-2


def test_learned_weights_have_a_rate_of_their_own(start):
    """Guards `loss_weights_lr`: the weights move with it, whatever the networks' rate; decay does not touch them."""
    moved = []
    for rate in (1e-4, 0.1):
        settings = {"lab_weight": 1.0, "lab_weighting": "learned", "loss_weights_lr": rate, "weight_decay": 1.0}
        _, rows = start(f"{rate}", lr=1e-9, log_every=1, max_steps=4, **settings)
        weights = [row["weight_lab"] for row in rows if row["kind"] == "train"]
        moved.append(abs(math.log(weights[-1] / weights[0])))
    assert 0 < moved[0] < 5e-4 and 0.01 < moved[1] < 0.5


def make_batch(pipeline: Pipeline, prompt: str = "", **changes) -> Batch:
    """Two pairs at different timesteps."""
    torch.manual_seed(0)
    batch = Batch(
        latents=torch.randn(2, 4, 4, 4), condition=torch.randn(2, 4, 4, 4), noise=torch.randn(2, 4, 4, 4),
        timesteps=torch.tensor([5, 900]), tokens=tokenize(pipeline.tokenizer, [prompt]), prompt_of=torch.tensor([0, 0]),
        truth=None, grays=torch.randint(0, 256, (2, 32, 32), dtype=torch.uint8), has_photo=torch.tensor([True, True]),
    )  # fmt: skip
    return dataclasses.replace(batch, **changes)


@pytest.mark.parametrize("gamma", [None, 0.5])
def test_min_snr_weighs_each_pair_by_its_timestep(tiny_pipeline, gamma):
    """Guards `min_snr_gamma`: min(SNR, γ)/SNR of each pair's squared error, arXiv 2303.09556."""
    pipeline = load_initial_model(str(tiny_pipeline())).pipeline
    learner, batch = Learner(pipeline, TrainSettings(min_snr_gamma=gamma)), make_batch(pipeline)
    alpha, sigma = alpha_sigma(learner.alphas_cumprod, batch.timesteps)
    with torch.no_grad():
        loss = learner(batch)["noise_loss"]
        answer = learner.predict(alpha * batch.latents + sigma * batch.noise, batch)
    errors = (answer - prediction_target("epsilon", batch.latents, batch.noise, alpha, sigma)).square()
    snr = (alpha / sigma).square().flatten()
    weights = torch.ones(2) if gamma is None else snr.clamp(max=gamma) / snr
    torch.testing.assert_close(loss, (errors.mean(dim=(1, 2, 3)) * weights).mean())


def test_padding_is_masked_for_a_text_encoder_that_was_trained_so(tiny_pipeline):
    """Guards `use_attention_mask`: what stands in the text encoder's configuration holds in training as in sampling."""
    answers = []
    for masked in (False, True):
        pipeline = load_initial_model(str(tiny_pipeline())).pipeline
        pipeline.text_encoder.config.use_attention_mask = masked
        batch = make_batch(pipeline, "colorize it")
        with torch.no_grad():
            answers.append(Learner(pipeline, TrainSettings()).predict(batch.latents, batch))
    assert not torch.allclose(answers[0], answers[1], atol=1e-6)


def test_what_is_learnt_is_blind_to_dropped_photos(encoder_pipeline):
    """The U-Net's answer for a dropped photo is that without a photo encoder; for a shown one it is another."""
    pipeline = load_initial_model(str(encoder_pipeline)).pipeline
    seeing = Learner(pipeline, TrainSettings()).eval()
    blind = Learner(dataclasses.replace(pipeline, photo_encoder=None), TrainSettings()).eval()
    batch = make_batch(pipeline, timesteps=torch.tensor([5, 5]), has_photo=torch.tensor([True, False]))
    with torch.no_grad():
        ours, theirs = (learner.predict(batch.latents, batch) for learner in (seeing, blind))
    with pytest.raises(ValueError, match="the batch is without grays"):
        seeing.predict(batch.latents, dataclasses.replace(batch, grays=None))
    assert torch.equal(ours[1], theirs[1]) and not torch.allclose(ours[0], theirs[0], atol=1e-3)


class Killed(BaseException):
    """Stands for a SIGKILL: nothing may catch it."""


def dying_after(updates):
    """Learning rates as ever, and death where the update after so many begins."""

    def rate(step, settings):
        if step == updates:
            raise Killed
        return learning_rate(step, settings)

    return rate


def last_checkpoint(out: Path) -> tuple[int, Path]:
    found = checkpoints.latest_checkpoint(out)
    assert found is not None
    return found


def state(out: Path) -> tuple[dict[str, torch.Tensor], str]:
    _, folder = last_checkpoint(out)
    return load_file(folder / checkpoints.STATE_FILE), (folder / checkpoints.NOTES_FILE).read_text()


@pytest.fixture(scope="module")
def settings_of_whole(encoder_pipeline) -> dict[str, Any]:
    """All that a run can have beside weights: a photo encoder, and learned weights of two losses."""
    return {"model": encoder_pipeline, "lab_weight": 0.5, "lab_weighting": "learned"}


@pytest.fixture(scope="module")
def whole(train_tiny, settings_of_whole, tmp_path_factory):
    """A run that nothing interrupted: what `train` returned, and its rows."""
    return train_tiny(tmp_path_factory.mktemp("whole") / "run", **settings_of_whole)


@pytest.mark.parametrize("moment", ["after the checkpoint", "while it is written", "two steps later"])
def test_resumed_equals_uninterrupted(whole, settings_of_whole, start, tmp_path, monkeypatch, moment):
    finish = checkpoints.finish_checkpoint

    def die_in_finish(temporary, final, keep):
        if moment == "after the checkpoint":
            finish(temporary, final, keep)
        raise Killed

    with monkeypatch.context() as patched:
        if moment == "two steps later":
            patched.setattr(training_loop, "learning_rate", dying_after(5))
        else:
            patched.setattr(checkpoints, "finish_checkpoint", die_in_finish)
        with pytest.raises(Killed):
            start("cut", **settings_of_whole)
    found = checkpoints.latest_checkpoint(tmp_path / "cut")
    assert (found[0] if found else 0) == (0 if moment == "while it is written" else 3)
    resumed, _ = start("cut", **settings_of_whole)
    expected, _ = whole
    for name, tensor in expected.pipeline.unet.state_dict().items():
        assert torch.equal(tensor, resumed.pipeline.unet.state_dict()[name]), name
    (tensors_1, notes_1), (tensors_2, notes_2) = state(expected.out), state(tmp_path / "cut")
    assert {name.partition(".")[0] for name in tensors_1} == {"weights", "averages", "optimizer"}
    assert tensors_1.keys() == tensors_2.keys() and notes_1 == notes_2
    assert all(torch.equal(tensor, tensors_2[name]) for name, tensor in tensors_1.items())
    logs = [(out / "metrics.jsonl").read_text() for out in (expected.out, tmp_path / "cut")]
    assert logs[0] == logs[1] and expected.best_step == resumed.best_step


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw8bit"])
def test_a_run_with_another_optimizer_resumes_bit_for_bit(start, tmp_path, monkeypatch, optimizer):
    if optimizer == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    settings = {"optimizer": optimizer, "validate_every": 6}
    expected, _ = start("whole", **settings)
    with monkeypatch.context() as patched:
        patched.setattr(training_loop, "learning_rate", dying_after(4))
        with pytest.raises(Killed):
            start("cut", **settings)
    resumed, _ = start("cut", **settings)
    (ours, _), (theirs, _) = state(expected.out), state(resumed.out)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    strange = ours | {"optimizer.0.step": torch.zeros(1, dtype=torch.float16)}
    save_file(strange, last_checkpoint(resumed.out)[1] / checkpoints.STATE_FILE)
    with pytest.raises(DataError, match="damaged"):
        start("cut", **settings)


@pytest.mark.parametrize("parts", ["unet", "lora"])
def test_frozen_weights_of_half_precision_come_back_whole(start, tiny_pipeline, monkeypatch, parts):
    """They have half the bits in training, and none is lost in the result."""
    types: set[torch.dtype] = set()
    forward = Learner.forward

    def recorded(self, batch):
        types.update({self.vae.decoder.conv_in.weight.dtype, self.text_encoder.dtype})
        types.update(weight.dtype for weight in self.unet.parameters() if not weight.requires_grad)
        assert self.vae.encoder.conv_in.weight.dtype == torch.float32
        return forward(self, batch)

    monkeypatch.setattr(Learner, "forward", recorded)
    halved = {"precision": "bf16", "frozen_precision": "bf16", "ema_on_cpu": True, "lab_weight": 1.0, "parts": parts}
    result, rows = start(model=tiny_pipeline("kl"), max_steps=1, **halved)
    initial = load_initial_model(str(tiny_pipeline("kl"))).pipeline
    assert types == {torch.bfloat16} and all(math.isfinite(row.get("loss", 0)) for row in rows)
    for part in ("vae", "text_encoder"):
        after = getattr(result.pipeline, part).state_dict()
        assert all(torch.equal(tensor, after[name]) for name, tensor in getattr(initial, part).state_dict().items())
    if parts == "lora":
        unet = {name.replace(".base_layer", ""): weight for name, weight in result.pipeline.unet.state_dict().items()}
        assert all(torch.equal(tensor, unet[name]) for name, tensor in initial.unet.state_dict().items())


def test_the_ema_is_that_of_its_formula(tiny_pipeline):
    """As `EMAModel.step` of diffusers, up to rounding; and it is exchanged with the weights without a third copy."""
    from diffusers.training_utils import EMAModel

    weights = {"a": torch.nn.Parameter(torch.randn(3, 4)), "b": torch.nn.Parameter(torch.randn(5))}
    ours, theirs = (EMAModel(list(weights.values()), decay=0.9) for _ in range(2))
    state = checkpoints.TrainState(weights, ours, None, None)
    for _ in range(20):
        for weight in weights.values():
            weight.data += torch.randn_like(weight)
        training_loop.update_ema(state)
        theirs.step(weights.values())
    torch.testing.assert_close(ours.shadow_params, theirs.shadow_params)
    assert ours.optimization_step == theirs.optimization_step
    trained, average = weights["a"].detach().clone(), ours.shadow_params[0].clone()
    training_loop._swap_ema(state)
    assert torch.equal(weights["a"], average) and torch.equal(ours.shadow_params[0], trained)


def test_a_finished_run_is_not_repeated(whole, settings_of_whole, train_tiny):
    first, _ = whole
    again, rows = train_tiny(first.out, **settings_of_whole)
    assert not rows and again.steps == first.steps == 6
    assert torch.equal(first.pipeline.unet.conv_in.weight, again.pipeline.unet.conv_in.weight)


def test_validation_has_losses_scores_and_the_gap(whole):
    _, rows = whole
    row = next(row for row in rows if row["kind"] == "validation")
    for name in ("noise_loss", "lab_loss", "train_noise_loss", "train_lab_loss", "psnr", "ab_mse", "delta_cf"):
        assert math.isfinite(row[name])
    assert row["psnr_gray"] > 5
    for name in ("lab_mse", "ab_mse"):
        assert math.isfinite(row[f"train_{name}"]) and row[f"train_{name}"] != row[name], "of other photos"
    weights = [(row["weight_noise"], row["weight_lab"]) for row in rows if row["kind"] == "train"]
    assert weights[0] != weights[-1], "learned weights are logged and move"


@pytest.mark.parametrize("parts", PARTS)
def test_frozen_parts_stay_bit_identical(start, tiny_pipeline, parts):
    result, _ = start(parts=parts, lab_weight=1.0, max_steps=1)
    before, after = load_initial_model(str(tiny_pipeline())).pipeline, result.pipeline
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


@pytest.mark.parametrize(
    ("vae_kind", "parts"),
    [
        ("tiny", "lora"),
        ("kl", "unet"),
        pytest.param("tiny", "unet", marks=pytest.mark.slow),
        pytest.param("kl", "lora", marks=pytest.mark.slow),
    ],
)
def test_the_result_opens_and_colorizes(start, tiny_pipeline, parts, vae_kind):
    from diffusers import StableDiffusionInstructPix2PixPipeline

    result, rows = start(model=tiny_pipeline(vae_kind), parts=parts, lr=0.02, lora_rank=3)
    folder = save_result(result, "photos", "quick")
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
        assert torch.equal(stock.unet.conv_in.weight, result.pipeline.unet.conv_in.weight)
    assert (result.out / "report.html").is_file() and (result.out / "grids" / "step-000006.png").is_file()
    card = (folder / "README.md").read_text()
    assert result.split.digest in card
    info = result.pipeline.info
    assert f"num_inference_steps={info.steps}, guidance_scale={info.guidance_scale}, image_guidance_scale=" in card
    assert [row["step"] for row in rows if row["kind"] == "validation"] == [0, 3, 6]


def test_training_lowers_the_loss(start):
    _, rows = start(max_steps=25, validate_every=25, checkpoint_every=25, batch=4, lr=3e-3)
    first, last = (row for row in rows if row["kind"] == "validation")
    assert last["train_noise_loss"] < first["train_noise_loss"]


def test_a_bad_loss_stops_before_the_update(start, tmp_path, monkeypatch):
    """Guards that the loss is looked at before the optimizer's step: weights stay those of the updates before."""
    held: dict[str, Any] = {}
    passes: list[dict[str, torch.Tensor]] = []

    def hold(name):
        model = load_initial_model(name)
        held["unet"] = model.pipeline.unet
        return model

    def poisoned(*args):
        loss = combined_loss(*args)
        if not loss.requires_grad:  # a validation
            return loss
        passes.append({name: tensor.clone() for name, tensor in held["unet"].state_dict().items()})
        return loss * float("nan") if len(passes) == 5 else loss

    monkeypatch.setattr("chromatune.training.run.load_initial_model", hold)
    monkeypatch.setattr(learner, "combined_loss", poisoned)
    with pytest.raises(ChromaTuneError, match="the loss is nan at step 4; nothing was updated"):
        start()
    after = held["unet"].state_dict()
    assert any(not torch.equal(tensor, passes[4][name]) for name, tensor in passes[3].items()), "updates move weights"
    assert all(torch.equal(tensor, after[name]) for name, tensor in passes[4].items()), "the bad one moved none"
    assert last_checkpoint(tmp_path / "run")[0] == 3


def test_passes_make_up_one_update(start):
    """Guards accumulation: two passes of two pairs are one of four, each pair once, and the curves are the same."""
    settings = {"max_steps": 3, "log_every": 1, "validate_every": 3, "checkpoint_every": 3, "lab_weight": 0}
    curves = [
        [row["noise_loss"] for row in rows if row["kind"] == "train"]
        for rows in (start("one", batch=4, **settings)[1], start("two", batch=2, accumulation=2, **settings)[1])
    ]
    assert len(set(curves[0])) == 3
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-3)


@pytest.mark.parametrize(
    ("best_by", "by_step", "best_step"), [("psnr", (99, 20, 23, 21, 22), 2), ("ab_mse", (0, 9, 5, 3, 4), 3)]
)
def test_the_best_checkpoint_has_the_most_psnr_or_the_least_error(start, monkeypatch, best_by, by_step, best_step):
    """Guards the sign of "best"; the untouched model, whatever it reaches, is none."""

    def validate(run, step, *args):
        return {"step": step, "kind": "validation", "noise_loss": 1.0, best_by: float(by_step[step])}

    monkeypatch.setattr(training_loop, "validate", validate)
    result, _ = start(best_by=best_by, max_steps=4, validate_every=1)
    assert result.best_step == best_step


def test_the_ema_is_validated_and_saved_and_training_goes_on_without_it(start, tmp_path, monkeypatch):
    """Guards that the EMA stands in for the trained weights during a validation, and only then."""
    used = []
    for name in ("measure_losses", "colorize_photos"):
        known = getattr(training_loop, name)

        def look(model, *args, known=known, **named):
            used.append(model.unet.conv_in.weight.detach().clone())
            return known(model, *args, **named)

        monkeypatch.setattr(training_loop, name, look)
    result, _ = start(ema=0.9, max_steps=3)
    tensors, _ = state(tmp_path / "run")
    index = [name for name, _ in result.pipeline.unet.named_parameters()].index("conv_in.weight")
    weight, average = tensors[f"weights.{index}"], tensors[f"averages.{index}"]
    assert len(used) == 2 * 4, "losses and samples, of held-out and of training photos, at step 0 and 3"
    assert all(torch.equal(weights, average) for weights in used[4:])
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

    def counted(*args, **named):
        calls.append(torch.is_grad_enabled())
        return forward(*args, **named)

    monkeypatch.setattr(ResnetBlock2D, "forward", counted)
    result, _ = start(gradient_checkpointing=chosen, max_steps=1, ema=0)
    blocks = sum(isinstance(module, ResnetBlock2D) for module in result.pipeline.unet.modules())
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

    def fill_up(tensors, path, **more):
        if "000006" in str(path):
            raise error
        return save_file(tensors, path, **more)

    monkeypatch.setattr(checkpoints, "save_file", fill_up)
    with pytest.raises(DataError, match="the disk is full.*earlier checkpoints are intact"):
        start()
    assert last_checkpoint(tmp_path / "run")[0] == 3


def test_learning_rates():
    settings = TrainSettings(lr=1.0, warmup=10, max_steps=110, lr_schedule="cosine")
    rates = [learning_rate(step, settings) for step in range(110)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.51) and rates[-1] == pytest.approx(0.02, abs=1e-3)
    constant = TrainSettings(lr=5e-6, warmup=0, lr_schedule="constant")
    assert {learning_rate(step, constant) for step in (0, 500)} == {5e-6}


def test_a_plain_stable_diffusion_model_becomes_a_colorizer(start, tiny_stable_diffusion):
    """The structure of Stable Diffusion 1.5, tiny: widened, result, saved, opened by the stock pipeline."""
    from diffusers import StableDiffusionInstructPix2PixPipeline

    result, _ = start(model=tiny_stable_diffusion(), max_steps=2, size_px=64)
    folder = save_result(result, "photos", "quick")
    stock = StableDiffusionInstructPix2PixPipeline.from_pretrained(folder, safety_checker=None)
    assert stock.unet.config.in_channels == 8
    assert stock.unet.conv_in.weight[:, 4:].abs().max() > 0, "the photo's channels have learnt something"
    with pytest.raises(OptionsError, match="a LoRA cannot teach it"):
        start("lora", model=tiny_stable_diffusion(), parts="lora")


def test_the_loss_is_read_behind_the_backward_pass_and_batches_are_made_ahead(start, monkeypatch):
    """The official script waits for each loss before it goes on, and makes batches in between (0 workers)."""
    import threading

    from accelerate import Accelerator

    order: list[str] = []
    makers: set[int] = set()

    def recorded(name, function):
        def call(*args):
            order.append(name)
            return function(*args)

        return call

    batch = BatchSampler.batch

    def made(*args):
        makers.add(threading.get_ident())
        return batch(*args)

    monkeypatch.setattr(training_loop, "prefetches_batches", lambda device: True)  # as on a GPU
    for owner, name in ((FiniteLossGuard, "copy"), (FiniteLossGuard, "check"), (Accelerator, "backward")):
        monkeypatch.setattr(owner, name, recorded(name, getattr(owner, name)))
    monkeypatch.setattr(BatchSampler, "batch", made)
    start(max_steps=2)
    assert order == ["copy", "backward", "check"] * 2
    assert threading.get_ident() not in makers


def test_a_frozen_text_encoder_reads_each_prompt_once(start, monkeypatch):
    """The official script runs CLIP, on the empty prompt too, at every step."""
    from transformers import CLIPTextModel

    calls, forward = [], CLIPTextModel.forward

    def counted(*args, **named):
        calls.append(1)
        return forward(*args, **named)

    monkeypatch.setattr(CLIPTextModel, "forward", counted)
    start(max_steps=6, prompts="single", dropout=0.3)
    training_and_losses = 2  # "colorize the photo", and the empty prompt
    sampling = 2 * 2 * 3  # the prompt and the negative one, for held-out and for training photos, at three validations
    assert len(calls) <= training_and_losses + sampling


def encoder_weights(pipeline: Pipeline) -> dict[str, torch.Tensor]:
    assert pipeline.photo_encoder is not None
    return pipeline.photo_encoder.state_dict()


@pytest.mark.parametrize("parts", ["unet", pytest.param("lora", marks=pytest.mark.slow)])
def test_a_photo_encoder_is_used_and_stays_as_it_is(start, encoder_pipeline, tmp_path, parts):
    """Its residuals reach the training, its weights reach the result, and dropped photos are not seen."""
    result, _ = start(model=encoder_pipeline, parts=parts, max_steps=2, validate_every=2, dropout=0.3)
    folder = save_result(result, "photos", "quick")
    before, after, saved = (
        encoder_weights(pipeline)
        for pipeline in (
            load_initial_model(str(encoder_pipeline)).pipeline,
            result.pipeline,
            load_pipeline(str(folder), device="cpu"),
        )
    )
    assert before and all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(torch.equal(value, saved[name]) for name, value in before.items())
    blind = tmp_path / "blind"
    shutil.copytree(encoder_pipeline, blind, ignore=shutil.ignore_patterns("photo_encoder"))
    without, _ = start("without", model=blind, parts=parts, max_steps=2, validate_every=2, dropout=0.3)
    assert without.pipeline.photo_encoder is None and not without.cache.with_grays
    ours, theirs = (run.pipeline.unet.state_dict() for run in (result, without))
    assert any(not torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("adapter", ["dora", "lokr"])
def test_other_adapters_are_merged_into_a_model_that_the_stock_pipeline_opens(start, adapter):
    from diffusers import StableDiffusionInstructPix2PixPipeline

    result, _ = start(parts="lora", adapter=adapter, lr=0.02, max_steps=2, validate_every=2)
    given = torch.ones(1, 8, 4, 4), 5, torch.ones(1, 77, 16)
    with torch.no_grad():
        trained = result.pipeline.unet(*given).sample
        folder = save_result(result, "photos", "lora")
        stock = StableDiffusionInstructPix2PixPipeline.from_pretrained(folder, safety_checker=None)
        merged = stock.unet(*given).sample
        initial = load_initial_model(str(result.pipeline.info.path)).pipeline.unet(*given).sample
    torch.testing.assert_close(merged, trained, rtol=0, atol=1e-5)
    assert (merged - initial).abs().max() > 1e-3


def test_sdxl_is_trained_saved_and_sampled_as_the_stock_pipeline_does(train_tiny, tiny_sdxl, tmp_path):
    """Two text encoders, time ids, and the empty prompt as zeros."""
    from diffusers import StableDiffusionXLInstructPix2PixPipeline

    from chromatune.pipeline import TextEmbedder, noise_generator, sample
    from chromatune.pipeline.schedules import draw_noise

    settings = {"max_steps": 20, "validate_every": 20, "checkpoint_every": 20, "size_px": 64, "dropout": 0.1}
    result, rows = train_tiny(tmp_path / "run", model=tiny_sdxl, lr=3e-3, batch=4, **settings)
    first, last = (row for row in rows if row["kind"] == "validation")
    assert last["train_noise_loss"] < first["train_noise_loss"]
    folder = save_result(result, "photos", "quick")
    assert "import StableDiffusionXLInstructPix2PixPipeline" in (folder / "README.md").read_text()
    stock = StableDiffusionXLInstructPix2PixPipeline.from_pretrained(folder)
    stock.set_progress_bar_config(disable=True)
    photo = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pipeline = load_initial_model(str(folder)).pipeline
    embed = TextEmbedder(pipeline.tokenizer, pipeline.text_encoder)
    assert embed("").abs().max() == 0
    for prompt, guidance, image_guidance in (("color the sky", 3.0, 1.5), ("paint it", 7.0, 1.2)):
        noise = torch.from_numpy(draw_noise([noise_generator(3)], (4, 8, 8)))
        with torch.no_grad():
            theirs = stock(
                prompt, image=photo, num_inference_steps=4, guidance_scale=guidance, height=64, width=64,
                image_guidance_scale=image_guidance, latents=noise.clone(), output_type="latent",
            ).images  # fmt: skip
            ours = sample(
                pipeline, pipeline.vae.encode(photo * 2 - 1).latent_dist.mode(), embed(prompt), embed(""), steps=4,
                generators=[noise_generator(3)], guidance_scale=guidance, image_guidance_scale=image_guidance,
            )  # fmt: skip
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    gray = np.tile(np.arange(64, dtype=np.uint8) * 3, (64, 1))
    colored = Colorizer.load(str(folder), device="cpu").colorize(gray, make_options(steps=1, size_px=64)).rgb
    assert colored.shape == (64, 64, 3)
