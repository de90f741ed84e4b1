"""What every backend offers: a loaded model as one callable, whatever library runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from chromatune.options import ResolvedOptions
from chromatune.pipeline.model_files import ModelInfo

Features: TypeAlias = dict[int, np.ndarray]  # of the photo encoder: stride in pixels ⇒ (B, C, h / stride, w / stride)


@dataclass(frozen=True, eq=False)
class BackendOutput:
    """What a backend gives for photos of one size.

    Attributes:
        rgb: (B, h, w, 3) float32, sRGB 0..1, the model's own.
        features: of the photo encoder, float32; None where they were not asked for, or without a photo encoder.
    """

    rgb: np.ndarray
    features: Features | None = None


class Backend(Protocol):
    """A loaded model as one callable, for several threads; NumPy arrays in, NumPy arrays out."""

    @property
    def runtime(self) -> str:
        """The library that computes: "onnx" or "torch"."""

    @property
    def info(self) -> ModelInfo:
        """The model's name and defaults."""

    @property
    def multiple_px(self) -> int:
        """Sides of the grays must be multiples of this."""

    @property
    def batches(self) -> bool:
        """Whether several photos in one call are faster than one by one, and no photo's pixels depend on the others.

        A CPU's matrix kernels round differently at another batch size, and one level of 255 is not the same pixels.
        """

    @property
    def concurrent(self) -> bool:
        """Whether calls of several threads run at the same time; else one waits for the other."""

    def warnings_of(self, options: ResolvedOptions) -> tuple[str, ...]:
        """Return a line for each option that this model does not follow in full; usually none."""

    def features(self, grays: np.ndarray) -> Features | None:
        """Return the photo encoder's features alone, float32; None without a photo encoder.

        Args:
            grays: (B, h, w) float32, luma 0..1; sides are multiples of 32.
        """

    def __call__(
        self, grays: np.ndarray, options: Sequence[ResolvedOptions], with_features: bool = False
    ) -> BackendOutput:
        """Return the model's own RGB, and where wanted the photo encoder's features from the same pass.

        Args:
            grays: (B, h, w) float32, luma 0..1.
            options: of each photo; all but the seeds are the same.
            with_features: whether the features are wanted; they are the same as `features` gives.

        Raises:
            ModelError: the model gives values that are not numbers.
        """
