"""The predictor of this process: models loaded once, a bounded queue, and threads that take photos through."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from chromatune.errors import ChromaTuneError, ModelError, shown
from chromatune.serving.predictor import Answer, QueueFull, State, Work
from chromatune.serving.settings import ServeSettings

if TYPE_CHECKING:
    from chromatune.colorizer import Colorizer

T = TypeVar("T")


class LocalPredictor:
    """Models of this process as a `Predictor`."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self._state = State("loading")
        self._colorizers: dict[str, Colorizer] = {}
        self._loading = threading.Lock()
        self._workers = settings.workers or 1  # until it is known what computes
        self._pool: ThreadPoolExecutor | None = None
        self._places = 0
        self._freed: asyncio.Condition | None = None

    @property
    def state(self) -> State:
        """Whether it takes work."""
        return self._state

    @property
    def waiting(self) -> int:
        """Photos that are in work or wait for it."""
        return self._places

    def start(self) -> None:
        """Begins to load the default model, in a thread."""
        threading.Thread(target=self._load_first, name="load", daemon=True).start()

    def stop(self) -> None:
        """Finishes what is in work."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _load_first(self) -> None:
        try:
            from chromatune.inference import threads

            self._workers = self.settings.workers or threads()
            self.colorizer(self.settings.models[0])
            self._pool = ThreadPoolExecutor(self._workers, "colorize")
            self._state = State("ready")
        except ChromaTuneError as error:
            self._state = State("failed", str(error))

    def colorizer(self, model: str) -> Colorizer:
        """The loaded model; the first use of each loads it.

        Raises:
            ModelError: it is not on offer, or cannot be loaded.
        """
        if model not in self.settings.models:
            raise ModelError(f"model {shown(model)} is not on offer; accepted: {', '.join(self.settings.models)}")
        with self._loading:
            if model not in self._colorizers:
                from chromatune.colorizer import Colorizer

                self._colorizers[model] = Colorizer.load(
                    model, device=self.settings.device, runtime=self.settings.runtime, workers=self._workers
                )
            return self._colorizers[model]

    async def colorize(self, work: Work, *, patient: bool = False) -> Answer:
        """See `Predictor.colorize`."""
        return await self.run(lambda: make_answer(self.colorizer(work.model), work), patient=patient)

    async def run(self, task: Callable[[], T], *, patient: bool = False) -> T:
        """What a task gives, in one of the threads and in its turn.

        Raises:
            QueueFull: too many wait.
        """
        assert self._pool is not None, "it is asked before it is ready"
        freed = self._freed = self._freed or asyncio.Condition()
        async with freed:
            if self._places >= self._workers + self.settings.queue:
                if not patient:
                    raise QueueFull
                await freed.wait_for(lambda: self._places < self._workers + self.settings.queue)
            self._places += 1
        loop = asyncio.get_running_loop()
        future: Future[T] = self._pool.submit(task)
        # The place is free when the thread is, not when the client has gone
        future.add_done_callback(lambda _: _call_in(loop, self._free))
        return await asyncio.wrap_future(future)

    def _free(self) -> None:
        self._places -= 1
        asyncio.ensure_future(self._tell())

    async def _tell(self) -> None:
        if self._freed is not None:
            async with self._freed:
                self._freed.notify()


def make_answer(colorizer: Colorizer, work: Work) -> Answer:
    """The same file as the command line writes for the same photo and options.

    Raises:
        PhotoError: the photo cannot be read, or no format holds the result.
    """
    from chromatune.images import format_for, read_photo, suffix_for

    photo = read_photo(work.photo, name=work.name, max_pixels=work.max_pixels)
    result = colorizer.colorize(photo, work.options)
    suffix = suffix_for(None, result.photo)
    facts: dict[str, str | int | float | list[str]] = {
        "name": work.name, "model": result.model, "runtime": result.runtime, "prompt": result.prompt,
        "negative_prompt": result.negative_prompt, "seed": result.seed, "steps": result.steps,
        "seconds": round(result.seconds, 4), "height_px": photo.height_px, "width_px": photo.width_px,
        "warnings": [*result.photo.warnings, *result.warnings],
    }  # fmt: skip
    return Answer(result.encode(format_for(suffix)), suffix, facts)


def _call_in(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)
