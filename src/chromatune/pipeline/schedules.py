"""Sampling without torch: the noise at the start, timesteps, one step towards latents, and guidance.

Coefficients are floats, so that a step takes NumPy arrays and torch tensors alike, and both runtimes take the same
steps. DDIM, Euler and ancestral Euler are here, which is what the models need that this package is made for; torch's
loop hands the others to diffusers. Training shares the arithmetic: what a U-Net's output means at a timestep.

Notation: z_t = alpha_t z_0 + sigma_t eps with alpha_t² + sigma_t² = 1 (variance preserving).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from chromatune.cancellation import check_cancelled

if TYPE_CHECKING:
    import torch

Draw = Callable[[], Any]  # fresh standard normal noise of the latents' shape

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
ALMOST_NO_SIGNAL = 2.0**-24  # of diffusers' Euler schedulers in place of zero, where sigma would be infinite
# Settings that are not followed here, by their default; with another value, the schedule is for diffusers.
ELSEWHERE = {
    "thresholding": False,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "interpolation_type": "linear",
    "timestep_type": "discrete",
    "final_sigmas_type": "zero",
}


def noise_generator(seed: int) -> np.random.Generator:
    """Return the generator of one photo's noise: its draws depend on the seed alone, not on the batch or the device."""
    return np.random.Generator(np.random.PCG64(seed))


def draw_noise(generators: Sequence[np.random.Generator], shape: tuple[int, ...]) -> np.ndarray:
    """Draw standard normal noise, (B, *shape) float32, each photo's from its own generator."""
    return np.stack([generator.standard_normal(shape, dtype=np.float32) for generator in generators])


class Schedule(Protocol):
    """Timesteps, and the steps between them; `index` counts the steps from 0."""

    @property
    def timesteps(self) -> Sequence[float]:
        """Falling, one for each step."""

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the latents at the start."""

    def scale_model_input(self, latents: Any, index: int) -> Any:
        """Return the latents as the U-Net takes them."""

    def step(self, prediction: Any, index: int, latents: Any, draw: Draw) -> Any:
        """Return the latents after the step, of the same shape.

        Args:
            prediction: of the U-Net, (B, 4, h, w).
            index: of the step.
            latents: before it, (B, 4, h, w).
            draw: gives the noise that an ancestral step adds.
        """


def make_schedule(class_name: str, config: Mapping[str, Any], steps: int) -> Schedule | None:
    """Return the schedule of a diffusers scheduler; None if it is for diffusers itself.

    Args:
        class_name: such as "DDIMScheduler".
        config: its settings, checked (`checks.SchedulerConfig`).
        steps: number of evaluations of the U-Net.

    Raises:
        ValueError: there are more steps than timesteps.
    """
    kinds: dict[str, Callable[[Mapping[str, Any], int], Schedule]] = {
        "DDIMScheduler": DdimSchedule,
        "EulerDiscreteScheduler": EulerSchedule,
        "EulerAncestralDiscreteScheduler": AncestralEulerSchedule,
    }
    if class_name not in kinds or any(config.get(name) not in (None, usual) for name, usual in ELSEWHERE.items()):
        return None
    if config.get("beta_schedule", "linear") not in ("linear", "scaled_linear"):
        return None
    if class_name != "DDIMScheduler" and config.get("prediction_type", "epsilon") == "sample":
        return None
    if steps > (most := config.get("num_train_timesteps", 1000)):
        raise ValueError(f"it has {most} timesteps, and cannot be sampled in {steps}")
    return kinds[class_name](config, steps)


def denoise(schedule: Schedule, draw: Draw, predict: Callable[[Any, float], Any]) -> Any:
    """Sample latents from noise, (B, 4, h, w).

    Args:
        schedule: the steps to take.
        draw: gives the noise at the start, and what the steps add.
        predict: the U-Net's prediction, guidance included, for scaled latents at a timestep.
    """
    latents = draw() * schedule.init_noise_sigma
    for index, timestep in enumerate(schedule.timesteps):
        check_cancelled()
        prediction = predict(schedule.scale_model_input(latents, index), timestep)
        latents = schedule.step(prediction, index, latents, draw)
    return latents


class DdimSchedule:
    """DDIM (arXiv 2010.02502, formula 12) without added noise."""

    init_noise_sigma = 1.0

    def __init__(self, config: Mapping[str, Any], steps: int) -> None:
        self.timesteps: list[float] = [float(each) for each in np.rint(_timesteps(config, steps, "leading"))]
        self._alphas_cumprod = alphas_cumprod(config)
        self._last = 1.0 if config.get("set_alpha_to_one", True) else float(self._alphas_cumprod[0])
        self._stride = int(config.get("num_train_timesteps", 1000)) // steps
        self._prediction_type = config.get("prediction_type", "epsilon")
        self._clip = float(config.get("clip_sample_range", 1.0)) if config.get("clip_sample", True) else None

    def scale_model_input(self, latents: Any, index: int) -> Any:
        """Return the latents themselves."""
        return latents

    def step(self, prediction: Any, index: int, latents: Any, draw: Draw) -> Any:
        """Take the step of `Schedule.step`; nothing is drawn."""
        timestep = int(self.timesteps[index])
        before = timestep - self._stride
        alpha_bar = float(self._alphas_cumprod[timestep])
        alpha_bar_before = float(self._alphas_cumprod[before]) if before >= 0 else self._last
        alpha, sigma = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
        if self._prediction_type == "epsilon":
            clean, noise = (latents - sigma * prediction) / alpha, prediction
        elif self._prediction_type == "sample":
            clean, noise = prediction, (latents - alpha * prediction) / sigma
        else:
            clean, noise = alpha * latents - sigma * prediction, alpha * prediction + sigma * latents
        if self._clip is not None:
            clean = clean.clip(-self._clip, self._clip)
        return alpha_bar_before**0.5 * clean + (1 - alpha_bar_before) ** 0.5 * noise


class EulerSchedule:
    """Euler steps of the ODE over sigma = noise / signal (arXiv 2206.00364, algorithm 2, without churn)."""

    def __init__(self, config: Mapping[str, Any], steps: int) -> None:
        timesteps = _timesteps(config, steps, "linspace").astype(np.float32)
        bars = alphas_cumprod(config)
        if config.get("rescale_betas_zero_snr", False):
            bars[-1] = ALMOST_NO_SIGNAL
        known = ((1 - bars) / bars) ** 0.5
        self.timesteps: list[float] = timesteps.tolist()
        self._sigmas: list[float] = [*np.interp(timesteps, np.arange(len(known)), known).tolist(), 0.0]
        largest = max(self._sigmas)
        spread = config.get("timestep_spacing", "linspace") in ("linspace", "trailing")
        self.init_noise_sigma = largest if spread else (largest**2 + 1) ** 0.5
        self._prediction_type = config.get("prediction_type", "epsilon")

    def scale_model_input(self, latents: Any, index: int) -> Any:
        """Return the latents at unit variance."""
        return latents / (self._sigmas[index] ** 2 + 1) ** 0.5

    def step(self, prediction: Any, index: int, latents: Any, draw: Draw) -> Any:
        """Take the step of `Schedule.step`; nothing is drawn."""
        return self._towards(self._sigmas[index + 1], prediction, index, latents)

    def _towards(self, target: float, prediction: Any, index: int, latents: Any) -> Any:
        """Return the latents at another sigma."""
        sigma = self._sigmas[index]
        if self._prediction_type == "epsilon":
            return latents + prediction * (target - sigma)
        clean = prediction * (-sigma / (sigma**2 + 1) ** 0.5) + latents / (sigma**2 + 1)
        # not along (latents - clean) / sigma: with zero terminal SNR sigma is 4096, and little is left of float32
        return latents * (target / sigma) + clean * (1 - target / sigma)


class AncestralEulerSchedule(EulerSchedule):
    """Euler steps that go further down and add fresh noise, as InstructPix2Pix is sampled by default."""

    def step(self, prediction: Any, index: int, latents: Any, draw: Draw) -> Any:
        """Take the step of `Schedule.step`, and add fresh noise."""
        sigma, target = self._sigmas[index], self._sigmas[index + 1]
        up = (target**2 * (sigma**2 - target**2) / sigma**2) ** 0.5
        down = (target**2 - up**2) ** 0.5
        return self._towards(down, prediction, index, latents) + draw() * up


def branch_weights(guidance_scale: float, image_guidance_scale: float) -> dict[str, float]:
    """Return the weights of the U-Net's three predictions, without those that cancel.

    InstructPix2Pix (arXiv 2211.09800, eq. 3) adds e(0,0) + s_I [e(I,0) - e(0,0)] + s_T [e(I,T) - e(I,0)];
    gathered by prediction, that is (1 - s_I) e(0,0) + (s_I - s_T) e(I,0) + s_T e(I,T).
    """
    weights = {
        "text+image": guidance_scale,
        "image": image_guidance_scale - guidance_scale,
        "none": 1.0 - image_guidance_scale,
    }
    needed = {branch: weight for branch, weight in weights.items() if weight != 0.0}
    return needed or {"text+image": 0.0}


def combine_guidance(weights: Mapping[str, float], predictions: Iterable[Any]) -> Any:
    """Return the guided prediction, (B, 4, h, w).

    Args:
        weights: see `branch_weights`.
        predictions: the U-Net's, (B, 4, h, w) float32 for each branch, arrays or tensors.
    """
    return sum(weight * each for weight, each in zip(weights.values(), predictions, strict=True))


def alpha_sigma(
    alphas_cumprod: torch.Tensor, timesteps: torch.Tensor, ndim: int = 4
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return alpha_t and sigma_t, each (B, 1, 1, 1) float32, for (B,) integer timesteps."""
    alpha_bar = alphas_cumprod.to(timesteps.device)[timesteps].float()
    shape = (-1,) + (1,) * (ndim - 1)
    return alpha_bar.sqrt().view(shape), (1 - alpha_bar).sqrt().view(shape)


def prediction_target(
    kind: str, latents: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """Return what the U-Net should predict, (B, C, h, w): eps, z_0, or v = alpha eps - sigma z_0.

    v is from Salimans and Ho, arXiv 2202.00512, appendix D.

    Raises:
        ValueError: `kind` is none of `PREDICTION_TYPES`.
    """
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return alpha * noise - sigma * latents
    if kind == "sample":
        return latents
    raise ValueError(f"prediction type {kind!r}; accepted: {', '.join(PREDICTION_TYPES)}")


def predicted_latents(
    kind: str, prediction: torch.Tensor, noisy: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor,
    *, has_signal: bool = False,
) -> torch.Tensor:  # fmt: skip
    """Return the estimate of z_0 that a U-Net output stands for, (B, C, h, w).

    With `has_signal`, no alpha is known to be zero, and a GPU is not waited for to look.

    Raises:
        ValueError: `kind` is none of `PREDICTION_TYPES`, or epsilon where alpha is zero (no signal is left).
    """
    if kind == "epsilon":
        if not has_signal and bool((alpha == 0).any()):
            raise ValueError("an epsilon model cannot start from zero terminal SNR: use v_prediction")
        return (noisy - sigma * prediction) / alpha
    if kind == "v_prediction":
        return alpha * noisy - sigma * prediction
    if kind == "sample":
        return prediction
    raise ValueError(f"prediction type {kind!r}; accepted: {', '.join(PREDICTION_TYPES)}")


def zero_terminal_snr_config(num_train_timesteps: int = 1000) -> dict[str, Any]:
    """Return settings of diffusers' schedulers: SD's betas rescaled to zero terminal SNR, v, trailing timesteps.

    Lin et al., arXiv 2305.08891, algorithm 1 (rescaling) and section 3.3 (trailing).
    """
    return {
        "num_train_timesteps": num_train_timesteps,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "prediction_type": "v_prediction",
        "clip_sample": False,
        "set_alpha_to_one": True,
    }


def alphas_cumprod(config: Mapping[str, Any]) -> np.ndarray:
    """Return the signal's share of the variance at each timestep of training, (T,) float64."""
    start, end = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
    count = int(config.get("num_train_timesteps", 1000))
    if (trained := config.get("trained_betas")) is not None:
        betas = np.asarray(trained, np.float64)
    elif config.get("beta_schedule", "linear") == "linear":
        betas = np.linspace(start, end, count)
    else:  # scaled_linear, Stable Diffusion's
        betas = np.linspace(start**0.5, end**0.5, count) ** 2
    roots = np.cumprod(1 - betas) ** 0.5
    if config.get("rescale_betas_zero_snr", False):  # arXiv 2305.08891, algorithm 1
        roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    return np.asarray(roots**2)


def _timesteps(config: Mapping[str, Any], steps: int, usual: str) -> np.ndarray:
    """Return the timesteps, (steps,) float64, falling; the spacings are those of arXiv 2305.08891, table 2."""
    count, spacing = int(config.get("num_train_timesteps", 1000)), config.get("timestep_spacing", usual)
    if spacing == "linspace":
        return np.linspace(0, count - 1, steps)[::-1]
    if spacing == "leading":
        return (np.arange(steps) * (count // steps))[::-1].astype(float) + config.get("steps_offset", 0)
    return np.rint(np.arange(count, 0, -count / steps)) - 1
