"""The model's chroma and hints ⇒ the chroma that is put onto the photo."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from chromatune.color.correction_field import CorrectionField, grid_size, shrunk_luma, upsample_field
from chromatune.color.gamut import fit_gamut
from chromatune.color.recomposition import resize
from chromatune.hints.drawing import Drawn, draw
from chromatune.hints.hints import Hints
from chromatune.hints.similarity import STRIDES, Similarity
from chromatune.images import Photo


class HintedChroma:
    """One photo with its model's chroma, ready for hints: what does not depend on them is worked out once."""

    def __init__(self, photo: Photo, chroma: np.ndarray, features: Mapping[int, np.ndarray] | None = None) -> None:
        """Prepares the correction field.

        Args:
            photo: as it was read.
            chroma: (h, w, 2) float32, (Cb, Cr), the model's own, of any size.
            features: of the photo encoder, stride ⇒ (C, h, w); None without one.
        """
        size = grid_size(photo.height_px, photo.width_px)
        self._photo = photo
        self._field = CorrectionField(shrunk_luma(photo.grey, size))
        self._at_grid = resize(np.ascontiguousarray(chroma, np.float32), *size)
        # The finer of both: chroma of a pass that is smaller than the grid would blur the hints
        fine = (max(size[0], chroma.shape[0]), max(size[1], chroma.shape[1]))
        self._chroma = resize(np.ascontiguousarray(chroma, np.float32), *fine)
        self._fine_luma = shrunk_luma(photo.grey, fine)
        usable = features is not None and all(stride in features for stride in STRIDES)
        self._similarity = Similarity(features, self._field.luma) if usable and features is not None else None

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid, in pixels."""
        return self._field.luma.shape[0], self._field.luma.shape[1]

    def with_hints(self, hints: Hints, *, reach: float = 1.0, strength: float = 1.0) -> np.ndarray:
        """The corrected chroma: (h, w, 2) float32, (Cb, Cr).

        Args:
            hints: of this photo.
            reach: how far they act, 1 by default.
            strength: how much of the correction is added, 0..1.

        Raises:
            PhotoError: the hints do not fit the photo.
        """
        return self._corrected(self.field(hints, reach=reach), strength)

    def field(self, hints: Hints, *, reach: float = 1.0) -> np.ndarray:
        """The correction at the grid: (h, w, 2) float32, between the hints' corrections and 0.

        Args:
            hints: of this photo.
            reach: see `with_hints`.

        Raises:
            PhotoError: the hints do not fit the photo.
        """
        return self.field_of(draw(hints, self._photo, self.grid), reach=reach)

    def field_of(self, drawn: Drawn, *, reach: float = 1.0) -> np.ndarray:
        """`field`, of hints that are drawn at the grid."""
        luma = self._field.luma
        correction = fit_gamut(drawn.relative * luma[..., None], luma) - self._at_grid
        weight = drawn.weight
        if self._similarity is not None and weight.any():
            alike, soft = self._similarity.carry(correction, weight)
            soft = soft * (1 - weight)
            total = np.maximum(weight + soft, 1e-12)
            correction = (weight[..., None] * correction + soft[..., None] * alike) / total[..., None]
            weight = weight + soft
        return self._field.solve(correction, weight, reach=reach)

    def _corrected(self, field: np.ndarray, strength: float) -> np.ndarray:
        fine = upsample_field(field, self._field.luma, self._fine_luma)
        return np.asarray(self._chroma + np.float32(strength) * fine)
