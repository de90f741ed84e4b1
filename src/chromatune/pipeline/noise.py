"""The noise that sampling starts from: one for all runtimes, so that a seed means the same picture everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def noise_generator(seed: int) -> np.random.Generator:
    """The generator of one photo's noise: its draws depend on the seed alone, not on the batch or the device."""
    return np.random.Generator(np.random.PCG64(seed))


def draw_noise(generators: Sequence[np.random.Generator], shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal noise, (B, *shape) float32, each photo's from its own generator."""
    return np.stack([generator.standard_normal(shape, dtype=np.float32) for generator in generators])
