"""Two models as one backend: the chroma of both, mixed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from chromatune import color
from chromatune.options import ResolvedOptions
from chromatune.pipeline.backend import Backend, BackendOutput, Features
from chromatune.pipeline.model_files import INSTRUCTIONS
from chromatune.pipeline.model_kinds import blended_info


class BlendedBackend:
    """Two backends as one; each runs at its own size, with its own vividness."""

    def __init__(self, name: str, first: Backend, second: Backend, share: float) -> None:
        """Hold two backends; `share` is the second's, 0..1."""
        self.first, self.second, self.share = first, second, share
        self.info = blended_info(name, first.info, second.info)
        self.runtime = first.runtime
        self.multiple_px = math.lcm(first.multiple_px, second.multiple_px)
        self.batches = first.batches and second.batches
        self.concurrent = first.concurrent and second.concurrent

    def warnings_of(self, options: ResolvedOptions) -> tuple[str, ...]:
        """Return the lines of both, but for what one of them follows."""
        warnings = self.info.unfollowed(options)
        for backend in (self.first, self.second):
            if backend.info.follows:
                warnings += backend.warnings_of(self._options_of(backend, options))
        return tuple(dict.fromkeys(warnings))

    def features(self, grays: np.ndarray) -> Features | None:
        """Return the first's features, or else the second's."""
        found = self.first.features(grays)
        return self.second.features(grays) if found is None else found

    def __call__(
        self, grays: np.ndarray, options: Sequence[ResolvedOptions], with_features: bool = False
    ) -> BackendOutput:
        """Return the grays with the mixed chroma; see `Backend`."""
        first, second = (self._chroma(backend, grays, options) for backend in (self.first, self.second))
        share = np.float32(self.share)
        chroma = (1 - share) * first + share * second
        rgb = np.stack([color.with_chroma(gray, each) for gray, each in zip(grays, chroma, strict=True)])
        return BackendOutput(rgb, self.features(grays) if with_features else None)

    def _chroma(self, backend: Backend, grays: np.ndarray, options: Sequence[ResolvedOptions]) -> np.ndarray:
        """Run one of them at its own size: (B, h, w) -> (B, h, w, 2)."""
        height, width = grays.shape[1:]
        ratio = backend.info.size_px / self.info.size_px
        own = [max(1, round(side * ratio / backend.multiple_px)) * backend.multiple_px for side in (height, width)]
        smaller = np.stack([color.resize(gray, *own) for gray in grays])
        made = backend(smaller, [self._options_of(backend, each) for each in options])
        chroma = [color.vivid(color.chroma_of(rgb), backend.info.vivid) for rgb in made.rgb]
        return np.stack([color.resize(each, height, width) for each in chroma])

    def _options_of(self, backend: Backend, options: ResolvedOptions) -> ResolvedOptions:
        """Return the options of one of them: its own value where the blend's own is asked for."""
        own = {
            name: getattr(backend.info, name)
            for name in INSTRUCTIONS
            if hasattr(backend.info, name) and getattr(options, name) == getattr(self.info, name)
        }
        if self.info.has_versions and options.steps == self.info.variant_steps:
            own["steps"] = backend.info.variant_steps
        return dataclasses.replace(options, **own, size_px=backend.info.size_px)
