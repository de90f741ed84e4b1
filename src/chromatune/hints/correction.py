"""The model's chroma and hints ⇒ the chroma that is put onto the photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from chromatune.color import CorrectionField, fit_gamut, grid_size, resize, shrunk_luma, upsample_field
from chromatune.hints.drawing import HintMap, draw
from chromatune.hints.hints import Hints
from chromatune.hints.reference import Reference, Similarity, can_compare, matches
from chromatune.images import Photo

REFERENCE_WEIGHT = 0.01  # of a certain match, over that of a hint: matches are of cells, and edges are finer


class HintedChroma:
    """One photo with its model's chroma, ready for hints: what does not depend on them is worked out once."""

    def __init__(
        self,
        photo: Photo,
        chroma: np.ndarray,
        features: Mapping[int, np.ndarray] | None = None,
        references: Sequence[Reference] = (),
    ) -> None:
        """Prepare the correction field.

        Args:
            photo: as it was read.
            chroma: (h, w, 2) float32, (Cb, Cr), the model's own, of any size.
            features: of the photo encoder, stride ⇒ (C, h, w); None without one.
            references: photos whose colors are taken where they show the same; they need features. Hints correct
                what comes of it.
        """
        size = grid_size(photo.height_px, photo.width_px)
        self._photo = photo
        self._field = CorrectionField(shrunk_luma(photo.gray, size))
        self._at_grid = resize(np.ascontiguousarray(chroma, np.float32), *size)
        # The finer of both: chroma of a pass that is smaller than the grid would blur the hints
        fine = (max(size[0], chroma.shape[0]), max(size[1], chroma.shape[1]))
        self._chroma = resize(np.ascontiguousarray(chroma, np.float32), *fine)
        self._fine_luma = shrunk_luma(photo.gray, fine)
        self._similarity = Similarity(features, self._field.luma) if can_compare(features) else None
        if references and can_compare(features):
            relative, certainty = matches(references, features, self._field.luma)
            field = self._field.solve(self._correction_to(relative), REFERENCE_WEIGHT * certainty)
            self._at_grid = self._at_grid + field
            self._chroma = self._chroma + upsample_field(field, self._field.luma, self._fine_luma)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid, in pixels."""
        return self._field.luma.shape[0], self._field.luma.shape[1]

    def with_hints(self, hints: Hints, *, reach: float = 1.0, strength: float = 1.0) -> np.ndarray:
        """Return the corrected chroma: (h, w, 2) float32, (Cb, Cr).

        Args:
            hints: of this photo.
            reach: how far they act, 1 by default.
            strength: how much of the correction is added, 0..1.

        Raises:
            PhotoError: the hints do not fit the photo.
        """
        fine = upsample_field(self.field(hints, reach=reach), self._field.luma, self._fine_luma)
        return np.asarray(self._chroma + np.float32(strength) * fine)

    def field(self, hints: Hints, *, reach: float = 1.0) -> np.ndarray:
        """Return the correction at the grid: (h, w, 2) float32, between the hints' corrections and 0.

        Args:
            hints: of this photo.
            reach: see `with_hints`.

        Raises:
            PhotoError: the hints do not fit the photo.
        """
        return self.field_of(draw(hints, self._photo, self.grid), reach=reach)

    def field_of(self, hint_map: HintMap, *, reach: float = 1.0) -> np.ndarray:
        """Return `field` of hints that are drawn at the grid."""
        correction, weight = self._correction_to(hint_map.relative), hint_map.weight
        if self._similarity is not None and weight.any():
            colors = np.concatenate([correction, hint_map.relative], axis=-1)
            spread, soft = self._similarity.carry(colors, weight)
            # Half the hint's own color, half its correction of the model: each alone does worse on photos
            mean = (spread[..., :2] + self._correction_to(spread[..., 2:])) / 2
            soft = soft * (1 - weight)  # what looks alike counts as far as the hint itself leaves room
            total = weight + soft
            summed = weight[..., None] * correction + soft[..., None] * mean
            correction, weight = summed / np.maximum(total, 1e-12)[..., None], total
        return self._field.solve(correction, weight, reach=reach)

    def _correction_to(self, relative: np.ndarray) -> np.ndarray:
        """Return the correction from the model's chroma to a relative chroma, as far as the gamut goes: (h, w, 2)."""
        luma = self._field.luma
        return np.asarray(fit_gamut(relative * luma[..., None], luma) - self._at_grid, np.float32)
