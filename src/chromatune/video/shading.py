"""One shot through the model: its keys, their chroma, and hints."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from chromatune.color import grid_size, resize
from chromatune.colorizer import Colorizer, ModelOutput, Request
from chromatune.errors import PhotoError
from chromatune.hints import HintedChroma, Hints, Reference
from chromatune.images import Photo
from chromatune.options import ColorizeOptions
from chromatune.video.chroma import ShotChroma, agree, carry_to, find_ways
from chromatune.video.hinting import with_hints
from chromatune.video.keys import Key, find_keys, key_offsets
from chromatune.video.motion import carried

AHEAD = 2  # keys for each worker that wait for the model


@dataclass(frozen=True, eq=False)
class ShotColorizer:
    """Makes the chroma of shots.

    Attributes:
        colorizer: the model.
        options: of all frames.
        references: photos whose colors are taken.
        frame: of the film's size and without content: hints are in its pixels.
        workers: passes at the same time.
    """

    colorizer: Colorizer
    options: ColorizeOptions
    references: tuple[Reference, ...]
    frame: Photo
    workers: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the model's pass, in pixels: what grays are given at."""
        return self.colorizer.small_size(self.frame.height_px, self.frame.width_px, self.options.size_px)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid of chroma and flow, which is that of hints."""
        return grid_size(*self.size)

    def shade(
        self, grays: Iterable[np.ndarray], count: int, hints: Mapping[int, Hints], before: ShotChroma | None = None
    ) -> ShotChroma:
        """The chroma of a shot.

        Args:
            grays: of its frames, (H, W) uint8 of `size`.
            count: of frames.
            hints: offset of a frame in the shot ⇒ what is known of its colors.
            before: of the frames just before, where the shot is the next part of one that is very long.
        """
        exposures: list[float] = []
        offsets = key_offsets(count, hints)
        keys: list[Key] = []
        chromas: list[np.ndarray] = []
        for key, output in self._outputs(find_keys(grays, offsets, self.grid, exposures)):
            chroma = self.colorizer.chroma(output)
            if self.references:
                chroma = self._hinted(key, chroma, self.references).with_hints(Hints())
            chromas.append(resize(chroma, *self.grid))
            keys.append(key if hints else Key(key.offset, key.luma, key.luma, key.exposure))  # the rest is not needed
        lumas, levels = [key.luma for key in keys], [key.exposure for key in keys]
        ways = find_ways(lumas, levels)
        if before is not None:
            chromas[0] = _continued(before, keys[0], chromas[0])
        found = agree(chromas, levels, ways, fixed=0 if before is None else 1)
        if hints:
            resolved = self.colorizer.info.resolve(self.options)
            found = with_hints(
                list(found),
                lumas,
                levels,
                ways,
                {offsets.index(offset): each for offset, each in hints.items()},
                self.frame,
                lambda index, chroma: self._hinted(keys[index], chroma),
                reach=resolved.hint_reach,
                strength=resolved.hint_strength,
            )
        return ShotChroma(np.array(offsets), np.stack(lumas), found, np.array(levels), np.array(exposures))

    def _hinted(self, key: Key, chroma: np.ndarray, references: tuple[Reference, ...] = ()) -> HintedChroma:
        return self.colorizer.hinted(Photo(key.steadied), chroma, self.options.size_px, references)

    def _outputs(self, keys: Iterator[Key]) -> Iterator[tuple[Key, ModelOutput]]:
        """The keys with what the model gives for them, in their order; further ones are found meanwhile."""

        def run(key: Key) -> ModelOutput:
            (output,) = self.colorizer.model_outputs([Request(Photo(key.steadied), self.options)])
            if isinstance(output, PhotoError):
                raise output
            return output

        waiting: deque[tuple[Key, Future[ModelOutput]]] = deque()
        with ThreadPoolExecutor(self.workers, "shade") as pool:
            try:
                for key in keys:
                    waiting.append((key, pool.submit(run, key)))
                    if len(waiting) > AHEAD * self.workers:
                        first, future = waiting.popleft()
                        yield first, future.result()
                for first, future in waiting:
                    yield first, future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _continued(before: ShotChroma, key: Key, own: np.ndarray) -> np.ndarray:
    """The chroma of a part's first key, as the last key of the part before has it."""
    there, believed = carry_to(key.luma, 0.0, before.lumas[-1], 0.0)  # both are without flicker
    return np.asarray(own + believed[..., None] * (carried(before.chromas[-1], there) - own), np.float32)
