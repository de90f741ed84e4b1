"""A model of the replicas as a model pass of this process: small grays travel, photos do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from chromatune.options import ResolvedOptions

if TYPE_CHECKING:
    from chromatune.pipeline import BackendOutput, ModelInfo
    from chromatune.serving.ray_replicas import Replicas


class RemoteBackend:
    """See `Backend`; it is called in threads."""

    batches = False  # the replicas gather what arrives together
    concurrent = True

    def __init__(self, replicas: Replicas, model: str) -> None:
        """Waits until a replica has loaded the model.

        Args:
            replicas: they compute.
            model: one of those on offer.

        Raises:
            ModelError: it cannot be loaded.
            Unavailable: no replica answers.
        """
        self._replicas, self._model = replicas, model
        facts = replicas.ask_from_thread("facts", model)
        self.info: ModelInfo = facts.info
        self.runtime: str = facts.runtime
        self.multiple_px: int = facts.multiple_px

    def warnings_of(self, options: ResolvedOptions) -> tuple[str, ...]:
        """See `Backend.warnings_of`."""
        return self._replicas.ask_from_thread("warnings_of", self._model, options)

    def features(self, grays: np.ndarray) -> dict[int, np.ndarray] | None:
        """See `Backend.features`."""
        return self._replicas.ask_from_thread("features", self._model, grays)

    def __call__(
        self, grays: np.ndarray, options: Sequence[ResolvedOptions], with_features: bool = False
    ) -> BackendOutput:
        """See `Backend`."""
        return self._replicas.ask_from_thread("run_pass", self._model, grays, list(options), with_features)
