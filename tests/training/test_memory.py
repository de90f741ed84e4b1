"""What a run is said to take, beside what it takes."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch

from chromatune.errors import MissingExtraError
from chromatune.training.initial_model import load_initial_model
from chromatune.training.learner import Learner, make_optimizer
from chromatune.training.memory import LiveBytes, batch_of, cost_of
from chromatune.training.run import run_info
from chromatune.training.settings import TrainSettings


@pytest.fixture(autouse=True)
def _fresh():
    """No run is made here."""


def learner_of(model, settings: TrainSettings) -> Learner:
    initial = load_initial_model(str(model))
    learner = Learner(dataclasses.replace(initial.pipeline, info=run_info(initial, settings)), settings)
    if settings.gradient_checkpointing:
        learner.checkpoint_gradients()
    for module in (learner.unet, learner.vae):
        module.to(memory_format=torch.channels_last)
    return learner


def passed(learner: Learner, settings: TrainSettings, live: LiveBytes) -> float:
    """A forward and backward pass; its loss."""
    learner(batch_of(learner, settings, 64))  # the embedding of its prompt is kept from here on
    with live:
        loss = learner(batch_of(learner, settings, 64))["loss"]
        loss.backward()
    return loss.item()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"parts": "lora", "lab_weight": 1.0},
        {"lab_weight": 1.0, "gradient_checkpointing": True, "parts": "unet+vae-decoder"},
    ],
)
def test_a_pass_over_shapes_takes_what_a_real_one_does(tiny_pipeline, changes):
    settings = TrainSettings(size_px=64, batch=3, lab_photos=2, **changes)
    cost, learner, live = (
        cost_of(str(tiny_pipeline("kl")), settings),
        learner_of(tiny_pipeline("kl"), settings),
        LiveBytes(),
    )
    passed(learner, settings, live)
    weights = list(learner.trainable().values())
    make_optimizer(learner, settings).step()
    assert cost.trained == sum(weight.nbytes for weight in weights) == cost.ema == cost.gradients
    assert cost.frozen == sum(each.nbytes for each in (*learner.parameters(), *learner.buffers())) - cost.trained
    assert cost.optimizer == 2 * cost.trained
    # the embeddings of prompts are counted in one of both
    assert cost.activations + cost.gradients == pytest.approx(live.peak, rel=0.05)


def test_checkpointing_spares_the_decoders_activations_and_changes_no_gradient(tiny_pipeline):
    found = []
    for checkpointing in (False, True):
        settings = TrainSettings(
            size_px=64, batch=2, lab_photos=2, lab_weight=1.0, gradient_checkpointing=checkpointing
        )
        learner, live = learner_of(tiny_pipeline("kl"), settings), LiveBytes()
        loss = passed(learner, settings, live)
        gradients = [weight.grad for weight in learner.trainable().values() if weight.grad is not None]
        assert learner.vae.decoder.gradient_checkpointing is checkpointing
        found.append((loss, gradients, live.peak))
    assert found[0][0] == found[1][0] and found[1][2] < 0.8 * found[0][2]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found[0][1], found[1][1], strict=True))


def test_what_spares_memory_is_counted(tiny_pipeline):
    model = str(tiny_pipeline())
    plain = cost_of(model, TrainSettings(size_px=64, batch=2))
    spared = cost_of(model, TrainSettings(size_px=64, batch=2, optimizer="adafactor", ema_on_cpu=True))
    assert spared.optimizer < plain.optimizer / 2 and spared.ema == 0 and spared.host == plain.ema
    assert cost_of(model, TrainSettings(size_px=64, batch=2, optimizer="adamw8bit")).optimizer < plain.optimizer
    half = TrainSettings(size_px=64, batch=2, parts="lora", precision="bf16", frozen_precision="bf16")
    whole = half.model_copy(update={"frozen_precision": "no"})
    assert cost_of(model, half).frozen < 0.7 * cost_of(model, whole).frozen


def test_adamw_of_8_bits_needs_its_extra(tiny_pipeline, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    learner = Learner(load_initial_model(str(tiny_pipeline())).pipeline, TrainSettings(optimizer="adamw8bit"))
    with pytest.raises(MissingExtraError, match="pip install .chromatune.lowmem."):
        make_optimizer(learner, learner.settings)
