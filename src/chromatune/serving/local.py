"""The predictor of this process: models loaded once, a bounded queue, and sessions for photos that are edited."""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np

from chromatune.cancellation import check_cancelled
from chromatune.colorizer import Colorizer
from chromatune.editor import Editor, smaller_size
from chromatune.errors import ChromaTuneError, ModelError, OptionsError, PhotoError
from chromatune.hints import Hints, Reference
from chromatune.images import Photo, count_pixels, format_for, read_photo, suffix_for, to_depth
from chromatune.jobs import ResourceLimiter
from chromatune.options import ColorizeOptions
from chromatune.pipeline import ModelInfo, is_local, model_info, threads
from chromatune.recoloring import NO_MODEL, finished_output, missing_share, recolor
from chromatune.results import ColorizeResult, ModelOutput, Request, notes_of
from chromatune.serving.batcher import MAX_BATCH, DynamicBatcher
from chromatune.serving.bounded_pool import BoundedPool
from chromatune.serving.predictor import ColorizeRequest, Content, EditRequest, EncodedImage, Facts, Session, State
from chromatune.serving.settings import ServeSettings

EDIT_THREADS = 2  # edits do not wait behind photos that go through the model
EDIT_QUEUE = 64
LOAD_S = 60  # how long the end waits for a model that is just being loaded
MAX_PREPARED = 4  # editors that hold data for hints: some megabytes each
PREPARED_S = 60  # how long they hold it after their last use
MAX_VERSIONS = 12  # of a session
MAX_DECODED = 2  # times the largest photo: pixels of pictures that are decoded at the same time
PREVIEW_JPEG_QUALITY = 92


class LocalPredictor:
    """Models of this process as a `Predictor`."""

    def __init__(
        self,
        settings: ServeSettings,
        warn: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load nothing yet.

        Args:
            settings: models, device, workers and queue.
            warn: called with a line for the server's operator where a model cannot be loaded.
            clock: seconds.
        """
        self.settings = settings
        self._warn, self._clock = warn, clock
        self._state = State("loading")
        self._models: dict[str, Colorizer] = {}
        self._models_lock, self._prepared_lock = threading.Lock(), threading.Lock()
        self._loader: threading.Thread | None = None
        self._workers = settings.workers or 1  # until the backend is known
        self._photo_threads: BoundedPool | None = None
        self.edit_threads = BoundedPool(EDIT_THREADS, EDIT_QUEUE, "edit")  # an edit takes a fraction of a second
        self.limiter = ResourceLimiter(1, MAX_DECODED * settings.max_pixels)
        self._prepared: list[tuple[weakref.ref[Editor], float]] = []  # and when used; the last used one at the end

    @property
    def state(self) -> State:
        return self._state

    @property
    def waiting(self) -> int:
        return self._photo_threads.in_use if self._photo_threads is not None else 0

    @property
    def photo_threads(self) -> BoundedPool:
        """Threads for photos that go through a model."""
        assert self._photo_threads is not None, "used before it is ready"
        return self._photo_threads

    @property
    def slots(self) -> int:
        return self._photo_threads.slots if self._photo_threads is not None else self.settings.queue + self._workers

    def start(self) -> None:
        """Begin to load the default model, in a thread, unless that has begun."""
        if self._loader is not None:
            return
        self._loader = threading.Thread(target=self.load, name="load", daemon=True)
        self._loader.start()

    def stop(self) -> None:
        """Finish what is in progress."""
        if self._loader is not None:
            self._loader.join(LOAD_S)
        if self._photo_threads is not None:
            self._photo_threads.stop()
        self.edit_threads.stop()

    def load(self) -> None:
        """Load the default model; `state` says afterwards whether it could be."""
        try:
            self._workers = self.settings.workers or threads()
            default = self.model(self.settings.models[0])
            if default.backend.batches and self.settings.workers is None:
                self._workers = max(self._workers, MAX_BATCH)  # so that a pass can be full
            self._photo_threads = BoundedPool(self._workers, self.settings.queue, "colorize")
            self._state = State("ready")
            import scipy.sparse.linalg  # noqa: F401 - so that the first stroke does not wait for it
        except ChromaTuneError as error:
            self._state = State("failed", str(error))

    def model(self, name: str) -> Colorizer:
        """Return a model offered; its first use loads it.

        Raises:
            OptionsError: it is not offered.
            ModelError: it cannot be loaded.
        """
        self.settings.check_offered(name)
        with self._models_lock:
            if name not in self._models:
                try:
                    self._models[name] = self._load_colorizer(name)
                except ChromaTuneError as error:
                    self._warn(f"model {name}: {error}")
                    raise ModelError(without_paths(str(error).replace(self.settings.source_of(name), name))) from None
            return self._models[name]

    def describe(self, model: str) -> ModelInfo | None:
        source = self.settings.source_of(model)
        if model in self._models:
            return self._models[model].backend.info
        return model_info(source) if is_local(source) else None

    def _load_colorizer(self, name: str) -> Colorizer:
        settings = self.settings
        loaded = Colorizer.load(
            settings.source_of(name), device=settings.device, runtime=settings.runtime, workers=self._workers
        )
        # Clients see the name that is offered, and no path
        backend: Any = loaded.backend
        backend.info = dataclasses.replace(backend.info, name=name, source=settings.source_of(name))
        return Colorizer(DynamicBatcher(loaded.backend)) if loaded.backend.batches else loaded

    def note_prepared(self, editor: Editor) -> None:
        """Note that an editor is used with hints; where too many are, free the hint data of the oldest."""
        with self._prepared_lock:
            others = [each for each in self._prepared if each[0]() is not None and each[0]() is not editor]
            self._prepared = [*others, (weakref.ref(editor), self._clock())]
            while len(self._prepared) > MAX_PREPARED:
                self._free_oldest()

    def free_idle(self) -> None:
        """Free the hint data of editors that were not used for a while."""
        with self._prepared_lock:
            while self._prepared and self._clock() - self._prepared[0][1] > PREPARED_S:
                self._free_oldest()
        return_memory()

    def _free_oldest(self) -> None:
        editor = self._prepared.pop(0)[0]()
        if editor is not None:
            editor.forget()

    async def colorize(self, request: ColorizeRequest, *, wait_for_slot: bool = False) -> EncodedImage:
        """Return the file that the command line writes for the same photo, options and hints."""
        return await self.photo_threads.run(lambda: self._colorize(request), wait_for_slot=wait_for_slot)

    async def open_session(self, request: ColorizeRequest) -> Session:
        return await self.photo_threads.run(lambda: LocalSession(self, request))

    def _colorize(self, request: ColorizeRequest) -> EncodedImage:
        if request.finished is not None:
            return self._recolor(request, *request.finished)
        colorizer = self.model(request.model)
        with self.memory(request):
            photo = read_photo(request.photo, name=request.name, max_pixels=request.max_pixels)
            check_cancelled()
            hints = read_hints(request)
            references = self.read_references(colorizer, request.references)
            output = colorizer.model_output(Request(photo, request.options, hints, references))
            check_cancelled()
            result = colorizer.finish(output)
            check_cancelled()
            return encoded(result, request.model)

    def _recolor(self, request: ColorizeRequest, name: str, finished: Content) -> EncodedImage:
        colorizer = self.model(request.model) if request.model else None
        with self.memory(request):
            photo = read_photo(request.photo, name=request.name, max_pixels=request.max_pixels)
            picture = read_photo(finished, name=name, max_pixels=request.max_pixels)
            check_cancelled()
            result = recolor(photo, picture, request.options, hints=read_hints(request), colorizer=colorizer)
            check_cancelled()
            return encoded(result, result.model)

    @contextmanager
    def memory(self, request: ColorizeRequest) -> Iterator[None]:
        """Wait until a request's pictures fit beside those that other threads have decoded.

        Raises:
            PhotoError: one of them is no picture, or too large.
        """
        files = [
            (request.name, request.photo),
            *request.references,
            *filter(None, [request.hints_layer, request.finished]),
        ]
        most = request.max_pixels
        pixels = sum(count_pixels(content, name=name, max_pixels=most) for name, content in files)
        with self.limiter.memory(pixels):
            check_cancelled()
            yield

    def read_references(self, colorizer: Colorizer, files: Sequence[tuple[str, Content]]) -> tuple[Reference, ...]:
        """Return reference photos, encoded by a model, from the name and content of each.

        Raises:
            PhotoError: one cannot be read, or is gray, or all together have too many pixels.
            OptionsError: the model has no photo encoder.
        """
        limit = self.settings.max_pixels
        references, pixels = [], 0
        for name, content in files:
            check_cancelled()
            photo = read_photo(content, name=name, max_pixels=limit)
            pixels += photo.gray.size
            if pixels > limit:
                raise PhotoError(f"the references have more than {limit / 1e6:g} megapixels; send smaller ones")
            references.append(colorizer.reference(photo))
        return tuple(references)


@dataclasses.dataclass(frozen=True, eq=False)
class _Version:
    """One pass of a model over a session's photo."""

    model: str
    editor: Editor


class LocalSession:
    """An open photo and the model's outputs for it, as a `Session`; created in a thread."""

    def __init__(self, predictor: LocalPredictor, request: ColorizeRequest) -> None:
        """Read the photo and take it through the model.

        Raises:
            PhotoError: the photo cannot be read.
            OptionsError: the model is not offered, or `recompose` is off.
            ModelError: the model cannot be used.
        """
        self._predictor = predictor
        self._versions: dict[int, _Version] = {}
        self._numbers = itertools.count(1)
        self._files = request.references_in_memory()  # the uploads go with their request
        self._references: dict[str, tuple[Reference, ...]] = {}  # by model
        self._versions_lock, self._suggest_lock = threading.Lock(), threading.Lock()
        with predictor.memory(request):
            self._photo: Photo = read_photo(request.photo, name=request.name, max_pixels=request.max_pixels)
            _ = self._photo.own_color  # worked out here, in a thread
            self.version, self.facts = self._add_version(request.model, request.options)

    @property
    def nbytes(self) -> int:
        own = self._photo.own_color
        small = (None,) if own is None else (own.chroma, own.opacity, own.local, own.sure)
        arrays = self._photo.gray, self._photo.alpha, self._photo.rgb, *small
        with self._versions_lock:
            editors = [version.editor for version in self._versions.values()]
        return (
            sum(each.nbytes for each in arrays if each is not None)
            + sum(len(content) for _, content in self._files)
            + sum(editor.nbytes for editor in editors)
        )

    async def add_version(self, model: str, options: ColorizeOptions) -> tuple[int, Facts]:
        return await self._predictor.photo_threads.run(lambda: self._add_version(model, options))

    async def add_finished(self, name: str, picture: bytes) -> tuple[int, Facts]:
        return await self._predictor.photo_threads.run(lambda: self._add_finished(name, picture))

    async def confidence(self, version: int | None) -> EncodedImage:
        return await self._predictor.edit_threads.run(lambda: self._confidence(version))

    async def original(self, max_pixels: int) -> EncodedImage:
        return await self._predictor.edit_threads.run(lambda: self._original(max_pixels))

    async def preview(self, edit: EditRequest, max_pixels: int) -> EncodedImage:
        return await self._predictor.edit_threads.run(lambda: self._preview(edit, max_pixels))

    async def finish(self, edit: EditRequest) -> EncodedImage:
        return await self._predictor.photo_threads.run(lambda: self._finish(edit))

    async def suggestions(self, x: float, y: float, version: int | None) -> list[str]:
        editor = self._version(version).editor
        self._predictor.note_prepared(editor)
        await self._predictor.edit_threads.run(editor.prepare)  # a client that requests colors is about to paint

        def suggest() -> list[str]:
            with self._suggest_lock:  # the first point takes passes of the model, once
                return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in editor.suggest(x, y)]

        return await self._predictor.photo_threads.run(suggest)

    def _add_version(self, model: str, options: ColorizeOptions) -> tuple[int, Facts]:
        colorizer = self._predictor.model(model)
        if model not in self._references:
            self._references[model] = self._predictor.read_references(colorizer, self._files)
        output = colorizer.model_output(Request(self._photo, options, like=self._references[model]))
        return self._keep(model, colorizer, output)

    def _add_finished(self, name: str, picture: bytes) -> tuple[int, Facts]:
        colorizer = self._predictor.model(self._predictor.settings.models[0])
        most = self._predictor.settings.max_pixels
        with self._predictor.limiter.memory(count_pixels(picture, name=name, max_pixels=most)):
            finished = read_photo(picture, name=name, max_pixels=most)
            check_cancelled()
            output = finished_output(colorizer, self._photo, finished, ColorizeOptions())
        return self._keep(NO_MODEL, colorizer, output)

    def _keep(self, model: str, colorizer: Colorizer, output: ModelOutput) -> tuple[int, Facts]:
        """Keep an output as a version; return its number and facts."""
        version = _Version(model, Editor(colorizer, output))
        with self._versions_lock:
            number = next(self._numbers)
            self._versions[number] = version
            while len(self._versions) > MAX_VERSIONS:
                del self._versions[min(self._versions)]
        resolved = output.options
        notes = (*notes_of(output.photo, resolved), *output.notes)
        facts: Facts = {
            **photo_facts(self._photo), "model": model, "prompt": resolved.prompt, "seed": resolved.seed,
            "variant": resolved.variant, "departure": round(output.departure, 5), "steps": resolved.steps,
            "seconds": round(output.seconds, 4),
            "own_color": round(self._photo.own_color.share("keep"), 4) if self._photo.own_color is not None else 0,
            "warnings": [*self._photo.warnings, *colorizer.backend.warnings_of(resolved), *notes], "notes": list(notes),
            "restored": list(output.view.notes),
        }  # fmt: skip
        if output.confidence is not None:
            facts["missing"] = round(missing_share(output.confidence), 4)
        return number, facts

    def _version(self, number: int | None) -> _Version:
        with self._versions_lock:
            wanted = max(self._versions) if number is None else number
            if wanted in self._versions:
                return self._versions[wanted]
            known = ", ".join(map(str, self._versions))
        raise OptionsError(f"version={wanted}: does not exist or has expired; accepted: {known}", "version")

    def _edited_version(self, edit: EditRequest) -> _Version:
        version = self._version(edit.version)
        if edit.hints:
            self._predictor.note_prepared(version.editor)
        return version

    def _original(self, max_pixels: int) -> EncodedImage:
        photo = self._photo
        full = photo.gray if photo.rgb is None else photo.rgb
        size = smaller_size(photo.height_px, photo.width_px, max_pixels)
        small = to_depth(cv2.resize(full, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        return _screen_image(cv2.cvtColor(small, cv2.COLOR_GRAY2RGB) if small.ndim == 2 else small, photo)

    def _confidence(self, version: int | None) -> EncodedImage:
        confidence = self._version(version).editor.output.confidence
        if confidence is None:
            raise OptionsError(
                "version: this one was made by a model; name one made from a finished picture", "version"
            )
        veil = np.zeros((*confidence.shape, 4), np.uint8)
        veil[..., 3] = np.rint(255 * (1 - confidence))
        done, data = cv2.imencode(".png", veil)
        assert done
        return EncodedImage(data.tobytes(), ".png")

    def _preview(self, edit: EditRequest, max_pixels: int) -> EncodedImage:
        editor = self._edited_version(edit).editor
        check_cancelled()
        rgb = editor.preview(edit.hints, edit.applied_to(editor.output.options), max_pixels=max_pixels)
        return _screen_image(to_depth(rgb, np.uint8), self._photo)

    def _finish(self, edit: EditRequest) -> EncodedImage:
        version = self._edited_version(edit)
        with self._predictor.limiter.memory(self._photo.gray.size):
            check_cancelled()
            result = version.editor.finish(edit.hints, edit.applied_to(version.editor.output.options))
            check_cancelled()
            return encoded(result, version.model)


def _screen_image(rgb: np.ndarray, photo: Photo) -> EncodedImage:
    """Encode (h, w, 3) uint8 as JPEG, or as PNG with the photo's transparency."""
    if photo.alpha is None:
        quality = [cv2.IMWRITE_JPEG_QUALITY, PREVIEW_JPEG_QUALITY]
        full_color = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        done, data = cv2.imencode(".jpg", rgb[..., ::-1], [*quality, *full_color])
        suffix = ".jpg"
    else:
        alpha = cv2.resize(to_depth(photo.alpha, np.uint8), rgb.shape[1::-1], interpolation=cv2.INTER_AREA)
        done, data = cv2.imencode(".png", np.dstack([rgb[..., ::-1], alpha]))
        suffix = ".png"
    if not done:
        raise PhotoError(f"{photo.name} cannot be shown; make it smaller")
    return EncodedImage(data.tobytes(), suffix)


def read_hints(request: ColorizeRequest) -> Hints:
    """Return the hints of a request; those of the JSON lie above the layer.

    Raises:
        OptionsError: the JSON holds no hints.
        PhotoError: the layer is no picture with transparency, or too large.
    """
    marks = Hints.from_json(request.hints) if request.hints else Hints()
    if request.hints_layer is None:
        return marks
    name, content = request.hints_layer
    return Hints.from_layer(content, name=name, max_pixels=request.max_pixels) + marks


def encoded(result: ColorizeResult, model: str) -> EncodedImage:
    """Return a result as a file in the photo's own format, or as PNG where that does not hold it.

    Raises:
        PhotoError: no format holds it.
    """
    suffix = suffix_for(None, result.photo)
    facts: Facts = {
        **photo_facts(result.photo), "model": model, "runtime": result.runtime, "prompt": result.prompt,
        "negative_prompt": result.negative_prompt, "seed": result.seed, "variant": result.variant,
        "steps": result.steps, "seconds": round(result.seconds, 4),
        "warnings": [*result.photo.warnings, *result.warnings, *result.notes], "restored": list(result.restored),
    }  # fmt: skip
    return EncodedImage(result.encode(format_for(suffix)), suffix, facts)


def photo_facts(photo: Photo) -> Facts:
    """Return the facts that depend on the photo alone."""
    return {"name": photo.name, "width_px": photo.width_px, "height_px": photo.height_px}


def return_memory() -> None:
    """Return freed memory to the system, where the allocator would keep it (glibc's does)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def without_paths(line: str) -> str:
    """Return a line without folders of this machine: of each absolute path, its last part."""
    return re.sub(r"(?<![\w.])(?:[A-Za-z]:)?[/\\](?:[^\s/\\:;,'\"()]+[/\\])+", "", line)
