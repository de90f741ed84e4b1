"""Schedules without torch against diffusers' own schedulers: timesteps, and every step from noise to latents."""

from __future__ import annotations

import itertools
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from chromatune.pipeline.schedules import denoise, make_schedule

DDIM, EULER, ANCESTRAL = "DDIMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"
KINDS = (DDIM, EULER, ANCESTRAL)
STEPS = (1, 2, 7, pytest.param(20, marks=pytest.mark.slow))
SHAPE = (2, 4, 6, 10)
# Share of the largest latent. With zero terminal SNR Euler's sigma starts at 4096: diffusers takes float32 differences
# of numbers of that size, where a unit in the last place is 1/2048.
TIGHT, ZERO_SNR_EULER = 2e-5, 2e-3
STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012}


def grid(kind: str) -> list[dict[str, Any]]:
    """Settings of every combination that matters to a scheduler."""
    found = []
    axes = (
        ("linear", "scaled_linear"), ("epsilon", "v_prediction", "sample"), ("leading", "linspace", "trailing"),
        (False, True), (0, 1),
    )  # fmt: skip
    names = ("beta_schedule", "prediction_type", "timestep_spacing", "rescale_betas_zero_snr", "steps_offset")
    for values in itertools.product(*axes):
        config = dict(zip(names, values, strict=True)) | STABLE_DIFFUSION
        if config["rescale_betas_zero_snr"] and config["prediction_type"] == "epsilon":
            continue  # refused when a model is opened: there is no signal to predict noise from
        if kind != DDIM and config["prediction_type"] == "sample":
            continue  # for diffusers, see below
        found += [config]
        if kind == DDIM:
            found += [config | {"clip_sample": False}, config | {"set_alpha_to_one": False, "clip_sample_range": 2.0}]
    return found


def answer(x: Any) -> Any:
    """Stands for the U-Net: some function of its input, of the same size."""
    return x.tanh() * 1.3 + 0.1 if isinstance(x, torch.Tensor) else np.tanh(x) * np.float32(1.3) + np.float32(0.1)


def draws() -> Any:
    generator = np.random.default_rng(5)
    return lambda: generator.standard_normal(SHAPE, dtype=np.float32)


def by_diffusers(kind: str, config: dict[str, Any], steps: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Timesteps, and the latents at the end."""
    from diffusers.schedulers import scheduling_euler_ancestral_discrete as ancestral

    scheduler, draw = getattr(diffusers, kind)(**config), draws()
    monkeypatch.setattr(ancestral, "randn_tensor", lambda *_, **__: torch.from_numpy(draw()))
    scheduler.set_timesteps(steps)
    latents = torch.from_numpy(draw()) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        prediction = answer(scheduler.scale_model_input(latents, timestep))
        latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
    return scheduler.timesteps.numpy(), latents.numpy()


def by_ours(kind: str, config: dict[str, Any], steps: int) -> Any:
    schedule = make_schedule(kind, config, steps)
    assert schedule is not None
    return np.array(schedule.timesteps), denoise(schedule, draws(), lambda latents, timestep: answer(latents))


def apart(kind: str, config: dict[str, Any], steps: int, monkeypatch: pytest.MonkeyPatch) -> float:
    (times, expected), (own_times, latents) = (
        by_diffusers(kind, config, steps, monkeypatch),
        by_ours(kind, config, steps),
    )
    np.testing.assert_allclose(own_times, times, rtol=1e-6, atol=0, err_msg=f"{kind} {config} {steps}")
    assert latents.dtype == np.float32 and latents.shape == SHAPE
    return float(np.abs(latents - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", STEPS)
def test_every_setting_gives_what_diffusers_gives(kind, steps, monkeypatch):
    for config in grid(kind):
        coarse = kind != DDIM and config["rescale_betas_zero_snr"]
        most = ZERO_SNR_EULER if coarse else TIGHT
        assert apart(kind, config, steps, monkeypatch) < most, f"{kind} {config} in {steps} steps"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["beta_schedule", "timestep_spacing", "prediction_type", "clip_sample",
                                  "clip_sample_range", "set_alpha_to_one", "num_train_timesteps", "beta_start",
                                  "beta_end", "steps_offset", "rescale_betas_zero_snr", "trained_betas"])  # fmt: skip
def test_a_missing_setting_means_what_it_means_to_diffusers(kind, name, monkeypatch):
    """A folder may leave out whatever its scheduler's class has a default for."""
    whole = dict(getattr(diffusers, kind)().config)
    partial = {key: value for key, value in whole.items() if key != name and not key.startswith("_")}
    for config in (partial, {}):
        assert apart(kind, config, 3, monkeypatch) < TIGHT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trained", [[0.01] * 1000, np.linspace(1e-4, 0.03, 1000).tolist()])
def test_trained_betas_are_taken_as_they_are(kind, trained, monkeypatch):
    assert apart(kind, {"trained_betas": trained, "beta_schedule": "scaled_linear"}, 5, monkeypatch) < TIGHT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [50, 333, 1500])
def test_other_numbers_of_training_timesteps(kind, count, monkeypatch):
    for spacing in ("leading", "linspace", "trailing"):
        assert apart(kind, {"num_train_timesteps": count, "timestep_spacing": spacing}, 7, monkeypatch) < TIGHT


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (DDIM, {"thresholding": True}),
        (DDIM, {"beta_schedule": "squaredcos_cap_v2"}),
        (EULER, {"use_karras_sigmas": True}),
        (EULER, {"use_exponential_sigmas": True}),
        (EULER, {"use_beta_sigmas": True}),
        (EULER, {"interpolation_type": "log_linear"}),
        (EULER, {"timestep_type": "continuous"}),
        (EULER, {"final_sigmas_type": "sigma_min"}),
        (EULER, {"prediction_type": "sample"}),
        (ANCESTRAL, {"prediction_type": "sample"}),
        (ANCESTRAL, {"beta_schedule": "sigmoid"}),
        ("PNDMScheduler", {}),
        ("DDPMScheduler", {}),
        ("LCMScheduler", {}),
        ("UniPCMultistepScheduler", {}),
        ("ddimscheduler", {}),
        ("", {}),
    ],
)
def test_what_is_not_followed_here_is_left_to_diffusers(kind, config):
    assert make_schedule(kind, config, 4) is None


def test_settings_that_are_null_mean_the_default():
    unset = dict.fromkeys(("thresholding", "use_karras_sigmas", "interpolation_type", "trained_betas"))
    for kind in KINDS:
        assert make_schedule(kind, unset, 4) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_more_steps_than_timesteps_are_refused(kind):
    with pytest.raises(ValueError, match="it has 10 timesteps, and cannot be sampled in 11"):
        make_schedule(kind, {"num_train_timesteps": 10}, 11)
    assert make_schedule(kind, {"num_train_timesteps": 10}, 10) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_steps_take_tensors_as_they_take_arrays(kind):
    """Torch's loop takes the same steps, and stays torch's."""
    schedule = make_schedule(kind, STABLE_DIFFUSION, 4)
    assert schedule is not None
    draw = draws()
    tensors = denoise(schedule, lambda: torch.from_numpy(draw()), lambda latents, timestep: answer(latents))
    assert isinstance(tensors, torch.Tensor) and tensors.dtype == torch.float32
    np.testing.assert_allclose(tensors.numpy(), by_ours(kind, STABLE_DIFFUSION, 4)[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "times"), [(DDIM, 1), (EULER, 1), (ANCESTRAL, 5)])
def test_only_ancestral_steps_draw_after_the_start(kind, times):
    drawn, own = [], draws()

    def draw() -> np.ndarray:
        drawn.append(own())
        return drawn[-1]

    schedule = make_schedule(kind, STABLE_DIFFUSION, 4)
    assert schedule is not None
    denoise(schedule, draw, lambda latents, timestep: answer(latents))
    assert len(drawn) == times
