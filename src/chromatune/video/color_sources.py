"""What gives keyframes their colors: a model, or a finished film, frame by frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Protocol

import numpy as np

from chromatune import color
from chromatune.color import grid_size, measure_levels, resize
from chromatune.colorizer import Colorizer
from chromatune.errors import PhotoError, printable
from chromatune.files import prefetch
from chromatune.hints import HintedChroma, Hints, Reference
from chromatune.images import Photo, to_depth
from chromatune.options import ColorizeOptions
from chromatune.results import ModelOutput, Request
from chromatune.video.flow import median_along_flow
from chromatune.video.keyframes import Keyframe
from chromatune.video.video import Video

WAITING = 2  # keyframes for each worker that wait for their colors
LEVELS_KEYFRAMES = 8  # the first of a shot, whose tones give the levels of all
FINISHED_PX = 384  # short side at which a film is compared with the finished one
FINISHED_FRAMES = 3  # of the finished film, on either side of a keyframe's own, that its colors are the median of


@dataclass(frozen=True, eq=False)
class KeyframeChroma:
    """What a keyframe is given.

    Attributes:
        chroma: (h, w, 2) float32, (Cb, Cr), of any size.
        weight: (h, w) float32, 0..1, of any size: how far it is to be believed beside that of its neighbors; None for
            1 all over.
    """

    chroma: np.ndarray
    weight: np.ndarray | None = None


class KeyframeColors(Protocol):
    """What gives keyframes their colors."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels, of the keyframes that it takes."""

    @property
    def workers(self) -> int:
        """How many keyframes it works on at the same time."""

    def of_shot(
        self, keyframes: Iterator[Keyframe], start: int, references: Sequence[Reference] = ()
    ) -> Iterator[tuple[Keyframe, KeyframeChroma]]:
        """Yield the keyframes with their chroma, in their order.

        Args:
            keyframes: of a shot.
            start: the shot's first frame.
            references: further photos in color that show the same things.
        """

    def hinted(self, gray: np.ndarray, chroma: np.ndarray) -> HintedChroma:
        """Return a keyframe's chroma with its correction field."""


@dataclass(frozen=True, eq=False)
class ModelColors:
    """A model that colors keyframes; see `KeyframeColors`.

    Attributes:
        colorizer: the model.
        options: of all frames.
        references: photos in color that show the same things.
        photo: of the video's size and without content: hints are in its pixels.
        workers: passes at the same time.
    """

    colorizer: Colorizer
    options: ColorizeOptions
    references: tuple[Reference, ...]
    photo: Photo
    workers: int

    @property
    def size(self) -> tuple[int, int]:
        return self.colorizer.small_size(self.photo.height_px, self.photo.width_px, self.options.size_px)

    def of_shot(
        self, keyframes: Iterator[Keyframe], start: int, references: Sequence[Reference] = ()
    ) -> Iterator[tuple[Keyframe, KeyframeChroma]]:
        """Yield the keyframes with their chroma, in their order; further ones are found meanwhile.

        All of them are shown to the model with the levels of the first ones: else colors would change with the view.
        """
        first = list(islice(keyframes, LEVELS_KEYFRAMES))
        levels = measure_levels([each.stabilized.astype(np.float32) / 255 for each in first]) if first else None
        references = (*self.references, *references)

        def run(keyframe: Keyframe) -> tuple[Keyframe, ModelOutput]:
            request = Request(Photo(keyframe.stabilized), self.options, levels=levels)
            return keyframe, self.colorizer.model_output(request)

        for keyframe, output in _in_order(self.workers, run, chain(first, keyframes)):
            chroma = self.colorizer.chroma(output)
            if references:
                photo = Photo(keyframe.stabilized)
                chroma = self.colorizer.hinted(photo, chroma, self.options, references).with_hints(Hints())
            yield keyframe, KeyframeChroma(chroma)

    def hinted(self, gray: np.ndarray, chroma: np.ndarray) -> HintedChroma:
        return self.colorizer.hinted(Photo(gray), chroma, self.options)


@dataclass(eq=False)
class FinishedColors:
    """A finished film, whose frames are laid on those of the video; see `KeyframeColors`.

    Each keyframe takes the median of some frames of the finished film around its own, so that what flickers there is
    gone before keyframes take their neighbors' colors.

    Attributes:
        film: the finished film.
        matches: (N,) the frame of it that shows what each of the video's frames shows; -1 for none.
        photo: of the video's size.
        workers: keyframes that are aligned at the same time.
        model: gives colors where the film has none; None for none.
        used: number of keyframes that got colors of the film.
        missing: the other ones' frames.
        in_color: whether a frame was seen that is in color.
    """

    film: Video
    matches: np.ndarray
    photo: Photo
    workers: int
    model: ModelColors | None = None
    used: int = 0
    missing: list[int] = field(default_factory=list)
    in_color: bool = False

    def __post_init__(self) -> None:
        self._frames = FramesInOrder(self.film, _finished_size(self.film.info.height_px, self.film.info.width_px))

    @property
    def warnings(self) -> tuple[str, ...]:
        """A line on the keyframes that got no colors of the film; usually none."""
        if not self.missing:
            return ()
        share = len(self.missing) / (self.used + len(self.missing))
        rest = "gray, or as their neighbors; --model names one for them" if self.model is None else "the model's"
        name = printable(str(self.film.info.path))
        return (f"{name} has no colors for {share:.0%} of it, the first at frame {self.missing[0]}: they are {rest}",)

    @property
    def size(self) -> tuple[int, int]:
        return keyframe_size(self.photo, self.model)

    def of_shot(
        self, keyframes: Iterator[Keyframe], start: int, references: Sequence[Reference] = ()
    ) -> Iterator[tuple[Keyframe, KeyframeChroma]]:
        """Yield the keyframes with the finished film's chroma, in their order."""
        taken = (
            (keyframe, chroma, self._around(start + keyframe.offset))
            for keyframe, chroma in self._elsewhere(keyframes, start, references)
        )
        for keyframe, chroma in _in_order(self.workers, _take_colors, taken):
            if chroma.weight.any():
                self.used += 1
            else:
                self.missing.append(start + keyframe.offset)
            yield keyframe, chroma

    def hinted(self, gray: np.ndarray, chroma: np.ndarray) -> HintedChroma:
        return HintedChroma(Photo(gray), chroma) if self.model is None else self.model.hinted(gray, chroma)

    def _elsewhere(
        self, keyframes: Iterator[Keyframe], start: int, references: Sequence[Reference]
    ) -> Iterator[tuple[Keyframe, np.ndarray | None]]:
        if self.model is None:
            yield from ((keyframe, None) for keyframe in keyframes)
            return
        for keyframe, given in self.model.of_shot(keyframes, start, references):
            yield keyframe, given.chroma

    def _around(self, frame: int) -> list[np.ndarray]:
        """Small pictures of the finished film for a frame, its own one first; none where there is no own one."""
        own = int(self.matches[frame])
        if own < 0:
            return []
        first, last = max(0, own - FINISHED_FRAMES), own + FINISHED_FRAMES
        pictures = self._frames.take(first, last)
        if not pictures:
            return []
        own = min(own - first, len(pictures) - 1)
        self.in_color = self.in_color or not color.is_toned(pictures[own])
        return [pictures[own], *pictures[:own], *pictures[own + 1 :]]


class FramesInOrder:
    """Small pictures of a video in color, asked for in growing order."""

    def __init__(self, video: Video, size: tuple[int, int]) -> None:
        """Read nothing yet.

        Args:
            video: in color.
            size: height and width of the pictures.
        """
        self._video, self._size = video, size
        self._held: deque[np.ndarray] = deque()
        self._first = self._next = 0  # held, read
        self._reading: Iterator[Any] | None = None

    def take(self, first: int, last: int) -> list[np.ndarray]:
        """Return frames from one to another one, (h, w, 3) uint8, or as many of them as there are."""
        if self._reading is None or first < self._first:
            self._held.clear()
            self._first = self._next = 0
            self._reading = self._video.read(colors=True)
        while self._held and self._first < first:
            self._held.popleft()
            self._first += 1
        while self._next <= last and (frame := next(self._reading, None)) is not None:
            if self._next >= first:
                assert frame.rgb is not None
                self._held.append(to_depth(resize(frame.rgb, *self._size), np.uint8))
            else:
                self._first = self._next + 1
            self._next += 1
        return list(islice(self._held, last - first + 1))


def keyframe_size(photo: Photo, model: ModelColors | None) -> tuple[int, int]:
    """Return height and width of keyframes: those of the model's pass, or of the comparison with a finished film."""
    return _finished_size(photo.height_px, photo.width_px) if model is None else model.size


def _finished_size(height_px: int, width_px: int) -> tuple[int, int]:
    scale = min(1.0, FINISHED_PX / min(height_px, width_px))
    return max(1, round(height_px * scale)), max(1, round(width_px * scale))


def _take_colors(item: tuple[Keyframe, np.ndarray | None, list[np.ndarray]]) -> tuple[Keyframe, KeyframeChroma]:
    """The finished film's chroma on a keyframe, and how far it is to be believed."""
    keyframe, elsewhere, pictures = item
    if pictures:
        try:
            found = color.take_colors(keyframe.stabilized, _median(pictures), elsewhere=elsewhere)
        except PhotoError:  # it shows something else
            pass
        else:
            return keyframe, KeyframeChroma(found.chroma, found.confidence)
    nothing = np.zeros((*keyframe.luma.shape, 2), np.float32)
    return keyframe, KeyframeChroma(nothing if elsewhere is None else elsewhere, np.zeros_like(nothing[..., 0]))


def _median(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """The median of pictures of a film, (h, w, 3) uint8, warped to the first of them."""
    grid = grid_size(*pictures[0].shape[:2])
    smalls = [resize(color.luma(picture), *grid) for picture in pictures]
    median = median_along_flow([picture.astype(np.float32) for picture in pictures], smalls)
    return np.rint(median).astype(np.uint8)


def _in_order(workers: int, run: Callable[[Any], Any], items: Iterator[Any]) -> Iterator[Any]:
    with (
        ThreadPoolExecutor(workers, "keyframes") as pool,
        closing(prefetch(pool, run, items, WAITING * workers)) as found,
    ):
        yield from found
