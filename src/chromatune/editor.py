"""Colors edited by hand after the model's pass: strokes that come and go, an eyedropper, a palette."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import cached_property
from typing import TypeAlias

import cv2
import numpy as np

from chromatune import color
from chromatune.colorizer import Colorizer
from chromatune.errors import PhotoError
from chromatune.hints import Color, HintedChroma, Hints
from chromatune.options import ColorizeOptions, ResolvedOptions, check_recompose, make_options
from chromatune.prompts import HUE_FORMS, NAMED_HUES, with_attribute
from chromatune.results import ColorizeResult, ModelOutput, PhotoSource, Request

PREVIEW_PIXELS = 1_000_000
VARIANTS = 3  # further ones that a palette has colors of
SUGGESTIONS = 6
LEAST_DIFFERENCE = 8.0  # CIELAB distance under which two colors count as one
NEAR_SHARE = 1 / 40  # of the short side: how far around a point is looked
LUMA_SIGMA = 0.05  # difference of luma to the point's, 0..1, at which a pixel near it counts exp(-1/2)


_Ground: TypeAlias = tuple[float, str]  # vividness, and what of the photo's own color stays


class Editor:
    """A photo that has been through the model, for hints that change: each change costs no pass.

    editor = Editor.open(colorizer, "portrait.jpg")
    editor.preview(hints)  # again and again
    editor.finish(hints).save("result.png")
    """

    def __init__(self, colorizer: Colorizer, output: ModelOutput) -> None:
        """Keep what is given; the correction field is worked out with the first hints.

        Args:
            colorizer: the one that made the output.
            output: see `Colorizer.model_outputs`; its own hints are ignored, its references act.

        Raises:
            OptionsError: `recompose` is off in the output's options.
        """
        check_recompose(output.options)
        self.colorizer, self.output = colorizer, output
        self._hinted: tuple[_Ground, HintedChroma] | None = None
        self._smaller: dict[tuple[int, int], np.ndarray] = {}
        self._latest: tuple[Hints, tuple[_Ground, float, float], np.ndarray] | None = None  # hints, settings, chroma

    @classmethod
    def open(cls, colorizer: Colorizer, photo: PhotoSource, options: ColorizeOptions | None = None) -> Editor:
        """Return a photo that is ready for hints, after one pass of the model.

        Args:
            colorizer: the model.
            photo: see `images.read_photo`.
            options: as for `Colorizer.colorize`.

        Raises:
            PhotoError: the photo cannot be read.
            OptionsError: `recompose` is off.
        """
        return cls(colorizer, colorizer.model_output(photo, options))

    def chroma(self, hints: Hints, options: ResolvedOptions | None = None) -> np.ndarray:
        """Return the chroma with the hints: (h, w, 2) float32 (Cb, Cr), at about the size of the model's pass.

        Args:
            hints: of this photo.
            options: instead of those of the pass: `strength`, `vivid`, `own_color`, `hint_reach` and
                `hint_strength`, which act here.

        Raises:
            PhotoError: the hints do not fit the photo.
        """
        resolved = options or self.output.options
        if not hints and not self.output.references:
            return self.colorizer.chroma(self.output, resolved)
        settings = _ground(resolved), resolved.hint_reach, resolved.hint_strength
        latest = self._latest
        if latest is None or latest[0] != hints or latest[1] != settings:  # else a preview came before
            prepared = self.prepare(resolved)
            chroma = prepared.with_hints(hints, reach=resolved.hint_reach, strength=resolved.hint_strength)
            latest = self._latest = hints, settings, chroma
        return latest[2]

    def prepare(self, options: ResolvedOptions | None = None) -> HintedChroma:
        """Return the output's chroma with its correction field, worked out once, ready for hints.

        Args:
            options: instead of those of the pass: `vivid` and `own_color` of the chroma that hints correct.
        """
        resolved = options or self.output.options
        hinted = self._hinted
        if hinted is None or hinted[0] != _ground(resolved):
            hinted = self._hinted = _ground(resolved), self.colorizer.hinted_chroma(self.output, resolved)
        return hinted[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays that it holds, without the photo's own."""
        latest = () if self._latest is None else (self._latest[2],)
        features = (self.output.features or {}).values()
        candidates = self.__dict__.get("_candidates")  # once a palette was wanted
        others = () if candidates is None else (candidates[0], *candidates[1], *candidates[2])
        shift = () if self.output.shift is None else (self.output.shift,)
        held = (self.output.rgb, *shift, *latest, *features, *self._smaller.values(), *others)
        return sum(each.nbytes for each in held)

    def forget(self) -> None:
        """Free what was worked out for hints; the next ones work it out again."""
        self._hinted = self._latest = None
        self.output = dataclasses.replace(self.output, features=None)

    def preview(
        self, hints: Hints, options: ResolvedOptions | None = None, *, max_pixels: int = PREVIEW_PIXELS
    ) -> np.ndarray:
        """Return the photo in color, made smaller where it has more pixels: (h, w, 3) uint8 or uint16 sRGB.

        Args:
            hints: of this photo.
            options: see `chroma`.
            max_pixels: of the result.

        Raises:
            PhotoError: the hints do not fit the photo.
        """
        resolved = options or self.output.options
        return color.recompose(self._gray(max_pixels), self.chroma(hints, resolved), strength=resolved.strength)

    def finish(self, hints: Hints, options: ResolvedOptions | None = None) -> ColorizeResult:
        """Return the result at the photo's full size: the same pixels as `Colorizer.colorize` gives with these hints.

        Args:
            hints: of this photo.
            options: see `chroma`.

        Raises:
            PhotoError: the hints do not fit the photo.
        """
        output = dataclasses.replace(self.output, options=options or self.output.options, hints=hints)
        return self.colorizer.finish(output, chroma=self.chroma(hints, output.options))

    def suggest(self, x: float, y: float, *, count: int = SUGGESTIONS) -> tuple[Color, ...]:
        """Return colors for a point: the version's own, and those of other versions and of hue words.

        The first call runs the model about a dozen times; further calls cost nothing.

        Args:
            x: pixels from the left edge of the photo as it is shown.
            y: pixels from its top.
            count: at most so many.

        Returns:
            sRGB colors of the photo's luma there, visibly different, the most plausible first: the version's own,
            then those of others, the nearest to the model's own first, then those of words, the nearest to the
            version's own first.

        Raises:
            PhotoError: the point lies outside of the photo.
        """
        photo = self.output.photo
        Hints().point(x, y, "black").check(photo)
        own, variants, words = self._candidates
        gray = self._gray(PREVIEW_PIXELS)
        lumas: dict[tuple[int, int], np.ndarray] = {}  # by size: a finished picture's chroma is finer than a model's

        def near(chroma: np.ndarray) -> tuple[np.ndarray, float]:
            height, width = chroma.shape[:2]
            if (height, width) not in lumas:
                luma = cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA) / photo.max_value
                lumas[height, width] = luma.astype(np.float32)
            return chroma_at(chroma, lumas[height, width], x / photo.width_px, y / photo.height_px)

        first, level = near(own)
        of_words = [near(each)[0] for each in words]
        of_words.sort(key=lambda chroma: float(np.linalg.norm(chroma - first)))
        return distinct_colors([first, *(near(each)[0] for each in variants), *of_words], level, count)

    @cached_property
    def _candidates(self) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
        """Chroma of the output, of other versions, the likeliest first, and of hue words."""
        resolved = self.output.options
        own = {"negative_prompt": resolved.negative_prompt, "size_px": resolved.size_px, "own_color": "replace"}
        follows = self.colorizer.backend.info.follows  # what it does not follow would give its own colors again
        count = VARIANTS if "seed" in follows else 0
        others = [number for number in range(1, VARIANTS + 2) if number != resolved.variant][:count]
        variants = [make_options(**own, prompt=resolved.prompt, seed=resolved.seed, variant=each) for each in others]
        prompts = [with_attribute(resolved.prompt, HUE_FORMS[0], hue) for hue in NAMED_HUES if "prompt" in follows]
        words = [make_options(**own, prompt=prompt, seed=resolved.seed) for prompt in prompts]
        requests = (Request(self.output.photo, options) for options in [*variants, *words])
        found = [each for each in self.colorizer.model_outputs(requests) if not isinstance(each, PhotoError)]
        likeliest = sorted(found[:count], key=lambda output: output.departure)
        chromas = [self.colorizer.chroma(output) for output in (*likeliest, *found[count:])]
        return self.colorizer.chroma(self.output), chromas[:count], chromas[count:]

    def _gray(self, max_pixels: int) -> np.ndarray:
        photo = self.output.photo
        size = smaller_size(photo.height_px, photo.width_px, max_pixels)
        if size not in self._smaller:
            self._smaller = {size: cv2.resize(photo.gray, size[::-1], interpolation=cv2.INTER_AREA)}
        return self._smaller[size]


def _ground(options: ResolvedOptions) -> _Ground:
    """Return the options of the chroma that hints correct."""
    return options.vivid, options.own_color


def smaller_size(height_px: int, width_px: int, max_pixels: int) -> tuple[int, int]:
    """Return the height and width, in proportion, at which a picture has at most so many pixels."""
    scale = min(1.0, (max_pixels / (height_px * width_px)) ** 0.5)
    return max(1, int(height_px * scale)), max(1, int(width_px * scale))


def chroma_at(chroma: np.ndarray, luma: np.ndarray, x: float, y: float) -> tuple[np.ndarray, float]:
    """Return the mean chroma of what lies near a point and is about as light, and the point's luma.

    Args:
        chroma: (h, w, 2) float32.
        luma: (h, w) float32, 0..1.
        x: 0..1, from the left.
        y: 0..1, from the top.
    """
    height, width = luma.shape
    row, column = min(height - 1, int(y * height)), min(width - 1, int(x * width))
    radius = max(1, round(NEAR_SHARE * min(height, width)))
    near = np.s_[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1]
    weight = np.exp(-((luma[near] - luma[row, column]) ** 2) / (2 * LUMA_SIGMA**2))[..., None]
    return (chroma[near] * weight).sum(axis=(0, 1)) / weight.sum(), float(luma[row, column])


def distinct_colors(candidates: Iterable[np.ndarray], luma: float, count: int) -> tuple[Color, ...]:
    """Return the first candidates that look different, in their order, as sRGB of that luma.

    Args:
        candidates: (2,) chroma each, the most plausible first; each is brought into the gamut.
        luma: 0..1.
        count: at most so many.
    """
    found: list[Color] = []
    labs: list[np.ndarray] = []
    scales, weights = (color.CB_SCALE, color.CR_SCALE), color.LUMA_WEIGHTS
    for candidate in candidates:
        blue, red = color.fit_gamut(np.asarray(candidate, np.float64), np.array(luma)) * scales + luma
        green = (luma - weights[0] * red - weights[2] * blue) / weights[1]
        rgb = np.clip([red, green, blue], 0, 1).astype(np.float32)
        lab = color.lab_of(rgb.reshape(1, 1, 3))[0, 0]
        if all(float(np.linalg.norm(lab - other)) >= LEAST_DIFFERENCE for other in labs):
            levels = np.rint(rgb * 255).astype(int).tolist()
            found.append((levels[0], levels[1], levels[2]))
            labs.append(lab)
        if len(found) == count:
            break
    return tuple(found)
