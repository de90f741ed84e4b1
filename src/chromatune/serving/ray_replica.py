"""What runs in each replica of Ray Serve: models loaded once, whole photos, and passes for photos that the app keeps.

A replica keeps nothing of a request: each answers any of them, and one that is lost costs only what it had in work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from ray import serve

from chromatune.colorizer import Colorizer
from chromatune.errors import ChromaTuneError
from chromatune.options import ResolvedOptions
from chromatune.pipeline import Backend, BackendOutput, ModelInfo
from chromatune.serving.gathered_pass import Asked, GatheredPass, passes_of
from chromatune.serving.local import MOST_TOGETHER, LocalPredictor
from chromatune.serving.predictor import Answer, Work
from chromatune.serving.settings import ServeSettings
from chromatune.serving.shared_pass import GATHER_S

T = TypeVar("T")


@dataclass(frozen=True)
class PassFacts:
    """What is known of a model's pass without calling it; see `Backend`."""

    info: ModelInfo
    runtime: str
    multiple_px: int


class Replica:
    """Its methods answer with an error where there is one: raised, Ray would put a traceback into its text."""

    def __init__(self, settings: ServeSettings) -> None:
        """Loads the default model; where it cannot be loaded, `facts` says why."""
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._predictor = LocalPredictor(settings, open_model=self._open)
        self._predictor.load()

    async def facts(self, model: str) -> PassFacts | Exception:
        """What is known of a model, once it is loaded."""
        try:
            own = await self._model_pass(model)
        except ChromaTuneError as error:
            return error
        return PassFacts(own.info, own.runtime, own.multiple_px)

    async def colorize(self, work: Work) -> Answer | Exception:
        """The colored photo, see `Predictor.colorize`."""
        self._loop = asyncio.get_running_loop()
        try:
            return await self._predictor.colorize(work, patient=True)
        except (ChromaTuneError, MemoryError) as error:
            return error

    async def run_pass(
        self, model: str, grays: np.ndarray, options: Sequence[ResolvedOptions], with_features: bool
    ) -> BackendOutput | Exception:
        """What the model gives for small grays, see `Backend`."""
        return await self._in_thread(model, lambda own: own(grays, options, with_features))

    async def features(self, model: str, grays: np.ndarray) -> dict[int, np.ndarray] | None | Exception:
        """What the photo encoder sees, see `Backend.features`."""
        return await self._in_thread(model, lambda own: own.features(grays))

    async def warnings_of(self, model: str, options: ResolvedOptions) -> tuple[str, ...] | Exception:
        """What of the options the model does not follow, see `Backend.warnings_of`."""
        return await self._in_thread(model, lambda own: own.warnings_of(options))

    async def _in_thread(self, model: str, call: Callable[[Backend], T]) -> T | Exception:
        self._loop = asyncio.get_running_loop()
        try:
            own = await self._model_pass(model)
            return await self._predictor.photos.run(lambda: call(own), patient=True)
        except (ChromaTuneError, MemoryError) as error:
            return error

    async def _model_pass(self, model: str) -> Backend:
        shared = await asyncio.to_thread(self._predictor.model, model)
        return shared.colorizer.backend

    def _open(self, model: str, workers: int) -> Colorizer:
        asked = self._settings
        loaded = Colorizer.load(asked.source_of(model), device=asked.device, runtime=asked.runtime, workers=workers)
        own = loaded.backend
        return Colorizer(GatheredPass(own, self._gathered)) if own.batches else loaded

    def _gathered(self, asked: Sequence[Asked]) -> list[np.ndarray | Exception]:
        async def all_of() -> list[np.ndarray | Exception]:
            return await asyncio.gather(*(self._together(each) for each in asked))

        assert self._loop is not None, "only requests bring photos"
        return asyncio.run_coroutine_threadsafe(all_of(), self._loop).result()

    @serve.batch(max_batch_size=MOST_TOGETHER, batch_wait_timeout_s=GATHER_S)  # type: ignore[untyped-decorator]
    async def _together(self, asked: list[Asked]) -> list[np.ndarray | Exception]:
        return await asyncio.to_thread(passes_of, asked)
