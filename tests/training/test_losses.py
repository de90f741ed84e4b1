"""Losses against formulas and an independent CIELAB."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chromatune.training.losses import LAB_SCALE, joined_loss, lab_loss, noise_loss, snr_weight

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
    pair = [color.view(1, 3, 1, 1).expand(1, 3, 8, 8) for color in (blue, yellow)]
    assert lab_loss(*pair, torch.ones(1, 1, 1, 1)) > 15, "opposite colors are far apart, not wrapped together"


def test_lab_loss_pulls_back_what_leaves_the_gamut():
    rgb = torch.full((1, 3, 4, 4), 1.5, requires_grad=True)
    lab_loss(rgb, torch.ones(1, 3, 4, 4), torch.ones(1, 1, 1, 1)).backward()
    assert (rgb.grad > 0).all()


def test_learned_weights_balance_two_losses():
    """At the optimum of Kendall's objective each weight is the inverse of its loss."""
    noise, lab = torch.tensor(0.5), torch.tensor(0.02)
    log_variances = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([log_variances], lr=0.5)
    for _ in range(400):
        optimizer.zero_grad()
        joined_loss(noise, lab, 1.0, log_variances).backward()
        optimizer.step()
    torch.testing.assert_close((-log_variances.detach()).exp(), torch.tensor([2.0, 50.0]), rtol=1e-3, atol=0)
    assert joined_loss(noise, lab, 3.0, None).item() == pytest.approx(0.56)
    assert joined_loss(noise, None, 3.0, None) is noise
