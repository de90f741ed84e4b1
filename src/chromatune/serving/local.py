"""The predictor of this process: models loaded once, a bounded queue, and threads that take photos through."""

from __future__ import annotations

import ctypes
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from chromatune.errors import ChromaTuneError, ModelError, OptionsError, shown
from chromatune.serving.bounded_pool import BoundedPool
from chromatune.serving.predictor import Answer, Facts, Kept, State, Work
from chromatune.serving.settings import ServeSettings

if TYPE_CHECKING:
    from chromatune.colorizer import Colorizer, ColorizeResult
    from chromatune.editor import Editor
    from chromatune.hints import Reference
    from chromatune.images import Photo
    from chromatune.serving.shared_pass import SharedPass

QUICK_THREADS = 2  # for changes of kept photos: they do not wait behind photos that go through the model
QUICK_QUEUE = 64
LOAD_S = 60  # how long the end waits for a model that is just being loaded
MOST_HINTED = 4
HINTED_S = 60  # how long what was worked out for a photo's hints is kept after its last use
MOST_TOGETHER = 8  # photos of one pass, where the model gains by it


class LocalPredictor:
    """Models of this process as a `Predictor`."""

    def __init__(
        self,
        settings: ServeSettings,
        tell: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
        open_model: Callable[[str, int], Colorizer] | None = None,
    ) -> None:
        """Loads nothing yet.

        Args:
            settings: models, device, workers and queue.
            tell: is given a line for who runs the server, where a model cannot be loaded.
            clock: seconds.
            open_model: the colorizer of a model on offer, for so many threads; by default it is loaded here.
        """
        self.settings = settings
        self._tell, self._clock = tell, clock
        self._open_model = open_model or self._opened_here
        self._state = State("loading")
        self._models: dict[str, SharedPass] = {}
        self._loading, self._remembering = threading.Lock(), threading.Lock()
        self._loader: threading.Thread | None = None
        self._workers = settings.workers or 1  # until it is known what computes
        self._photos: BoundedPool | None = None
        self._quick: BoundedPool | None = None
        self._hinted: list[tuple[weakref.ref[Editor], float]] = []  # and when; the one that was used last at the end

    @property
    def state(self) -> State:
        """Whether it takes work."""
        return self._state

    @property
    def waiting(self) -> int:
        """Photos that are in work or wait for it."""
        return self._photos.taken if self._photos is not None else 0

    @property
    def photos(self) -> BoundedPool:
        """Threads for photos that go through a model."""
        assert self._photos is not None, "it is asked before it is ready"
        return self._photos

    @property
    def quick(self) -> BoundedPool:
        """Threads for what takes parts of a second."""
        assert self._quick is not None, "it is asked before it is ready"
        return self._quick

    def start(self) -> None:
        """Begins to load the default model, in a thread, unless that has begun."""
        if self._loader is not None:
            return
        self._loader = threading.Thread(target=self.load, name="load", daemon=True)
        self._loader.start()

    def stop(self) -> None:
        """Finishes what is in work."""
        if self._loader is not None:
            self._loader.join(LOAD_S)
        for pool in (self._photos, self._quick):
            if pool is not None:
                pool.stop()

    def load(self) -> None:
        """Loads the default model; `state` says afterwards whether it could be."""
        try:
            from chromatune.pipeline import threads

            self._workers = self.settings.workers or threads()
            first = self.model(self.settings.models[0])
            if first.colorizer.backend.batches and self.settings.workers is None:
                self._workers = max(self._workers, MOST_TOGETHER)  # so many are read, and wait for one pass
            self._photos = BoundedPool(self._workers, self.settings.queue, "colorize")
            self._quick = BoundedPool(QUICK_THREADS, QUICK_QUEUE, "change")
            self._state = State("ready")
            import scipy.sparse.linalg  # noqa: F401 - so that the first stroke does not wait for it
        except ChromaTuneError as error:
            self._state = State("failed", str(error))

    def model(self, name: str) -> SharedPass:
        """The loaded model; the first use of each loads it.

        Raises:
            OptionsError: it is not on offer.
            ModelError: it cannot be loaded.
        """
        if name not in self.settings.models:
            raise OptionsError(
                f"model={shown(name)}: not on offer; accepted: {', '.join(self.settings.models)}", "model"
            )
        with self._loading:
            if name not in self._models:
                self._models[name] = self._load(name)
            return self._models[name]

    def _load(self, name: str) -> SharedPass:
        from chromatune.serving.shared_pass import SharedPass

        try:
            loaded = self._open_model(name, self._workers)
        except ChromaTuneError as error:
            self._tell(f"model {name}: {error}")
            raise ModelError(without_paths(str(error).replace(self.settings.source_of(name), name))) from None
        return SharedPass(loaded, MOST_TOGETHER)

    def _opened_here(self, name: str, workers: int) -> Colorizer:
        from chromatune.colorizer import Colorizer

        source, settings = self.settings.source_of(name), self.settings
        return Colorizer.load(source, device=settings.device, runtime=settings.runtime, workers=workers)

    def remember(self, retouch: Editor) -> None:
        """Notes that hints are put onto a photo; of one that had some long ago, what was worked out for them is freed.

        It takes some megabytes a photo.
        """
        with self._remembering:
            kept = [each for each in self._hinted if each[0]() is not None and each[0]() is not retouch]
            self._hinted = [*kept, (weakref.ref(retouch), self._clock())]
            while len(self._hinted) > MOST_HINTED:
                self._forget_oldest()

    def tidy(self) -> None:
        """See `Predictor.tidy`."""
        with self._remembering:
            while self._hinted and self._clock() - self._hinted[0][1] > HINTED_S:
                self._forget_oldest()
        free_memory()

    def _forget_oldest(self) -> None:
        oldest = self._hinted.pop(0)[0]()
        if oldest is not None:
            oldest.forget()

    async def colorize(self, work: Work, *, patient: bool = False) -> Answer:
        """See `Predictor.colorize`."""
        return await self.photos.run(lambda: self._answer(work), patient=patient)

    async def keep(self, work: Work) -> Kept:
        """See `Predictor.keep`."""
        from chromatune.serving.local_kept import LocalKept

        return await self.photos.run(lambda: LocalKept(self, work))

    def _answer(self, work: Work) -> Answer:
        """The same file as the command line writes for the same photo, options and hints."""
        from chromatune.colorizer import Request
        from chromatune.images import read_photo

        model = self.model(work.model)
        photo = read_photo(work.photo, name=work.name, max_pixels=work.max_pixels)
        like = self.references_of(model, work.references)
        output = model.output(Request(photo, work.options, work.hints, like))
        return answer_of(model.colorizer.finish(output), work.model)

    def references_of(self, model: SharedPass, references: Sequence[tuple[str, bytes]]) -> tuple[Reference, ...]:
        """Reference photos as the model sees them.

        Raises:
            PhotoError: one cannot be read, or is gray.
            OptionsError: the model has no photo encoder.
        """
        from chromatune.images import read_photo

        limit = self.settings.max_pixels
        read = (read_photo(data, name=name, max_pixels=limit) for name, data in references)
        return tuple(model.colorizer.reference(photo) for photo in read)


def answer_of(result: ColorizeResult, model: str) -> Answer:
    """A result as a file in the photo's own format, or PNG where that does not hold it.

    Raises:
        PhotoError: no format holds it.
    """
    from chromatune.images import format_for, suffix_for

    suffix = suffix_for(None, result.photo)
    facts: Facts = {
        **photo_facts(result.photo), "model": model, "runtime": result.runtime, "prompt": result.prompt,
        "negative_prompt": result.negative_prompt, "seed": result.seed, "steps": result.steps,
        "seconds": round(result.seconds, 4), "warnings": [*result.photo.warnings, *result.warnings],
    }  # fmt: skip
    return Answer(result.encode(format_for(suffix)), suffix, facts)


def free_memory() -> None:
    """Gives back to the system what this process has freed, where its allocator would keep it (glibc's does)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def photo_facts(photo: Photo) -> Facts:
    """What is known of the photo alone."""
    return {"name": photo.name, "width_px": photo.width_px, "height_px": photo.height_px}


def without_paths(line: str) -> str:
    """A line without folders of this machine: of each absolute path, its last part."""
    return re.sub(r"(?<![\w.])(?:[A-Za-z]:)?[/\\](?:[^\s/\\:;,'\"()]+[/\\])+", "", line)
