"""A photo that is kept in this process, with what the model gave for it: changes cost no pass."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from typing import TYPE_CHECKING

import cv2
import numpy as np

from chromatune.colorizer import Request
from chromatune.editor import Editor
from chromatune.errors import OptionsError, PhotoError
from chromatune.hints import Reference
from chromatune.images import Photo, read_photo, to_depth
from chromatune.options import ColorizeOptions, ResolvedOptions
from chromatune.serving.local import answer_of, photo_facts
from chromatune.serving.predictor import Answer, Change, Facts, Work
from chromatune.serving.shared_pass import SharedPass

if TYPE_CHECKING:
    from chromatune.serving.local import LocalPredictor

MOST_VERSIONS = 12
PREVIEW_JPEG_QUALITY = 92


@dataclasses.dataclass(frozen=True, eq=False)
class _Version:
    model: str
    shared: SharedPass
    retouch: Editor

    def options(self, change: Change) -> ResolvedOptions:
        names = ("strength", "vivid", "hint_reach", "hint_strength")
        given = {name: getattr(change, name) for name in names if getattr(change, name) is not None}
        return dataclasses.replace(self.retouch.output.options, **given)


class LocalKept:
    """See `Kept`; made in a thread."""

    def __init__(self, predictor: LocalPredictor, work: Work) -> None:
        """Reads the photo and takes it through the model.

        Raises:
            PhotoError: the photo cannot be read.
            OptionsError: the model is not on offer, or `recompose` is off.
            ModelError: the model cannot be used.
        """
        self._predictor = predictor
        self._photo: Photo = read_photo(work.photo, name=work.name, max_pixels=work.max_pixels)
        self._versions: dict[int, _Version] = {}
        self._numbers = itertools.count(1)
        self._references, self._like = work.references, dict[str, tuple[Reference, ...]]()
        self._changing, self._suggesting = threading.Lock(), threading.Lock()
        self.version, self.facts = self._add(work.model, work.options)

    async def add(self, model: str, options: ColorizeOptions) -> tuple[int, Facts]:
        """See `Kept.add`."""
        return await self._predictor.photos.run(lambda: self._add(model, options))

    async def preview(self, change: Change, max_pixels: int) -> Answer:
        """See `Kept.preview`."""
        return await self._predictor.quick.run(lambda: self._preview(change, max_pixels))

    async def finish(self, change: Change) -> Answer:
        """See `Kept.finish`."""
        return await self._predictor.photos.run(lambda: self._finish(change))

    async def suggestions(self, x: float, y: float, version: int | None) -> list[str]:
        """See `Kept.suggestions`."""
        chosen = self._version(version).retouch
        self._predictor.remember(chosen)
        await self._predictor.quick.run(chosen.prepare)  # who asks for colors is about to paint
        return await self._predictor.photos.run(lambda: self._suggest(chosen, x, y))

    def _suggest(self, retouch: Editor, x: float, y: float) -> list[str]:
        with self._suggesting:  # the first point takes passes of the model, once
            return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in retouch.suggest(x, y)]

    def _add(self, model: str, options: ColorizeOptions) -> tuple[int, Facts]:
        shared = self._predictor.model(model)
        if model not in self._like:
            self._like[model] = self._predictor.references_of(shared, self._references)
        output = shared.output(Request(self._photo, options, like=self._like[model]))
        version = _Version(model, shared, Editor(shared.colorizer, output))
        with self._changing:
            number = next(self._numbers)
            self._versions[number] = version
            while len(self._versions) > MOST_VERSIONS:
                del self._versions[min(self._versions)]
        asked = output.options
        facts: Facts = {
            **photo_facts(self._photo), "model": model, "prompt": asked.prompt, "seed": asked.seed,
            "steps": asked.steps, "variant_steps": shared.colorizer.info.variant_steps,
            "seconds": round(output.seconds, 4),
            "warnings": [*self._photo.warnings, *shared.colorizer.backend.warnings_of(asked)],
        }  # fmt: skip
        return number, facts

    def _version(self, number: int | None) -> _Version:
        with self._changing:
            wanted = max(self._versions) if number is None else number
            if wanted in self._versions:
                return self._versions[wanted]
            kept = ", ".join(map(str, self._versions))
        raise OptionsError(f"version={wanted}: not kept; there are {kept}", "version")

    def _preview(self, change: Change, max_pixels: int) -> Answer:
        version = self._version(change.version)
        if change.hints:
            self._predictor.remember(version.retouch)
        rgb = version.retouch.preview(change.hints, version.options(change), max_pixels=max_pixels)
        return _screen_picture(to_depth(rgb, np.uint8), self._photo)

    def _finish(self, change: Change) -> Answer:
        version = self._version(change.version)
        if change.hints:
            self._predictor.remember(version.retouch)
        return answer_of(version.retouch.finish(change.hints, version.options(change)), version.model)


def _screen_picture(rgb: np.ndarray, photo: Photo) -> Answer:
    """(h, w, 3) uint8 as JPEG, or as PNG with the photo's transparency."""
    if photo.alpha is None:
        quality = [cv2.IMWRITE_JPEG_QUALITY, PREVIEW_JPEG_QUALITY]
        full_color = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        done, encoded = cv2.imencode(".jpg", rgb[..., ::-1], [*quality, *full_color])
        suffix = ".jpg"
    else:
        alpha = cv2.resize(to_depth(photo.alpha, np.uint8), rgb.shape[1::-1], interpolation=cv2.INTER_AREA)
        done, encoded = cv2.imencode(".png", np.dstack([rgb[..., ::-1], alpha]))
        suffix = ".png"
    if not done:
        raise PhotoError(f"{photo.name} cannot be shown; make it smaller")
    return Answer(encoded.tobytes(), suffix)
