"""A batch's losses, as settings, photo encoder and text encoder have it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from chromatune.pipeline.schedules import alpha_sigma, prediction_target
from chromatune.pipeline.text import tokenize
from chromatune.training.learner import Batch, Learner
from chromatune.training.settings import TrainSettings
from chromatune.training.widening import TrainablePipeline, open_trainable


def make_learner(parts: TrainablePipeline, photo_encoder=None, **settings) -> Learner:
    models = (parts.unet, parts.tokenizer, parts.text_encoder, parts.vae)
    return Learner(*models, parts.scheduler.alphas_cumprod, "epsilon", TrainSettings(**settings), photo_encoder)


def make_batch(parts: TrainablePipeline, prompt: str = "", **changes) -> Batch:
    """Two pairs at different timesteps."""
    torch.manual_seed(0)
    batch = Batch(
        latents=torch.randn(2, 4, 4, 4), condition=torch.randn(2, 4, 4, 4), noise=torch.randn(2, 4, 4, 4),
        timesteps=torch.tensor([5, 900]), tokens=tokenize(parts.tokenizer, [prompt]), prompt_of=torch.tensor([0, 0]),
        truth=None, grays=torch.randint(0, 256, (2, 32, 32), dtype=torch.uint8), shown=torch.tensor([True, True]),
    )  # fmt: skip
    return dataclasses.replace(batch, **changes)


@pytest.mark.parametrize("gamma", [None, 0.5])
def test_min_snr_weighs_each_pair_by_its_timestep(tiny_pipeline, gamma):
    """Guards `min_snr_gamma`: min(SNR, γ)/SNR of each pair's squared error, arXiv 2303.09556."""
    parts = open_trainable(str(tiny_pipeline()))
    learner, batch = make_learner(parts, min_snr_gamma=gamma), make_batch(parts)
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
        parts = open_trainable(str(tiny_pipeline()))
        parts.text_encoder.config.use_attention_mask = masked
        batch = make_batch(parts, "colorize it")
        with torch.no_grad():
            answers.append(make_learner(parts).predict(batch.latents, batch))
    assert not torch.allclose(answers[0], answers[1], atol=1e-6)


def test_what_is_learnt_is_blind_to_dropped_photos(encoder_pipeline):
    """The U-Net's answer for a dropped photo is that without a photo encoder; for a shown one it is another."""
    parts = open_trainable(str(encoder_pipeline))
    seeing, blind = make_learner(parts, parts.photo_encoder.eval()), make_learner(parts)
    batch = make_batch(parts, timesteps=torch.tensor([5, 5]), shown=torch.tensor([True, False]))
    with torch.no_grad():
        ours, theirs = (learner.predict(batch.latents, batch) for learner in (seeing, blind))
    with pytest.raises(ValueError, match="the batch is without grays"):
        seeing.predict(batch.latents, dataclasses.replace(batch, grays=None))
    assert torch.equal(ours[1], theirs[1]) and not torch.allclose(ours[0], theirs[0], atol=1e-3)
