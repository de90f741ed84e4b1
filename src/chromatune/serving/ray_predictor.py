"""The predictor of a cluster: replicas colorize, and photos that are kept for changes stay in the app's process.

A photo to colorize goes to a replica as the file it is, and comes back as a file. A photo that is kept holds state, so
it is kept where its requests arrive: here, by the local predictor's own code, over a model pass that the replicas run.
No request has to find the replica it began with, and a lost replica loses no session.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from chromatune.serving.local import LocalPredictor
from chromatune.serving.predictor import Answer, Kept, QueueFull, State, Work
from chromatune.serving.settings import ServeSettings

if TYPE_CHECKING:
    from chromatune.colorizer import Colorizer
    from chromatune.serving.ray_replicas import Replicas

PATIENCE_S = 0.1  # between two looks whether there is room for a patient photo


class RayPredictor:
    """Replicas as a `Predictor`."""

    def __init__(
        self,
        settings: ServeSettings,
        tell: Callable[[str], None] = lambda line: None,
        replicas: Replicas | None = None,
    ) -> None:
        """Starts nothing yet.

        Args:
            settings: models, device, replicas and their workers, queue.
            tell: see `LocalPredictor`.
            replicas: they compute; None to deploy some, as the settings say.
        """
        self._settings, self._replicas = settings, replicas
        self._kept = LocalPredictor(settings, tell, open_model=self._opened)
        self._ends = contextlib.ExitStack()
        self._waiting = 0

    @property
    def state(self) -> State:
        """Whether it takes work."""
        return self._kept.state

    @property
    def waiting(self) -> int:
        """Photos that are in work or wait for it."""
        return self._kept.waiting + self._waiting

    def start(self) -> None:
        """Begins to deploy the replicas, in a thread."""
        self._kept.start()

    def tidy(self) -> None:
        """See `Predictor.tidy`."""
        self._kept.tidy()

    def stop(self) -> None:
        """Finishes what is in work and takes the replicas down."""
        self._kept.stop()
        self._ends.close()

    async def colorize(self, work: Work, *, patient: bool = False) -> Answer:
        """See `Predictor.colorize`."""
        assert self._replicas is not None, "it is asked before it is ready"
        self._waiting += 1
        try:
            while True:
                try:
                    return await self._replicas.ask("colorize", work)
                except QueueFull:
                    if not patient:
                        raise
                await asyncio.sleep(PATIENCE_S)
        finally:
            self._waiting -= 1

    async def keep(self, work: Work) -> Kept:
        """See `Predictor.keep`."""
        return await self._kept.keep(work)

    def _opened(self, model: str, workers: int) -> Colorizer:
        from chromatune.colorizer import Colorizer
        from chromatune.serving.ray_replicas import deployed
        from chromatune.serving.remote_backend import RemoteBackend

        if self._replicas is None:
            self._replicas = self._ends.enter_context(deployed(self._settings))
        return Colorizer(RemoteBackend(self._replicas, model))
