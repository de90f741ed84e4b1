"""One shot: keyframes, stabilized ⇒ the model ⇒ their chroma, made consistent ⇒ chroma of every frame."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from chromatune.color import grid_size, measure_levels, resize, warp
from chromatune.colorizer import Colorizer
from chromatune.errors import PhotoError, VideoError, printable
from chromatune.files import atomic_write, open_regular, prefetch
from chromatune.hints import HintedChroma, Hints, Reference
from chromatune.images import Photo
from chromatune.options import ColorizeOptions
from chromatune.results import ModelOutput, Request
from chromatune.video.flow import (
    EXPOSURE_FRAMES,
    NeighborFlows,
    Sized,
    exposure_change,
    exposure_gain,
    matched_flow,
    neighbor_flows,
    smoothed_exposure,
    stabilize,
)
from chromatune.video.hint_propagation import propagate_hints

KEYFRAME_STEP = 14  # frames from one keyframe to the next, at most
STABILIZING_FRAMES = 2  # on either side of a keyframe
MEASURED_AHEAD = 8  # frames whose exposure is measured at the same time
WAITING = 2  # keyframes for each worker that wait for the model
LEVELS_KEYFRAMES = 8  # the first of a shot, whose tones give the levels of all

ROUNDS, ROUNDS_WITH_HINTS = 8, 2  # of keyframes taking their neighbors' chroma
NEIGHBOR_WEIGHT = 0.5  # of either neighbor, over a keyframe's own
MOST_REVIVAL = 1.3  # of the mean strength that is lost by that

LEAST_WEIGHT = 1e-9
FULL_WEIGHT = 0.3  # of confident flow, from which on nothing is filled in from around

NAME_LENGTH = 20
MAX_CACHED_BYTES = 1 << 29  # of the arrays of a shot, or of a segment of one
CACHED_ARRAYS = {
    "offsets": np.dtype(np.int64),
    "lumas": np.dtype(np.uint8),
    "chromas": np.dtype(np.float16),
    "keyframe_exposures": np.dtype(np.float64),
    "exposures": np.dtype(np.float64),
}


@dataclass(frozen=True, eq=False)
class Keyframe:
    """A frame that goes through the model.

    Attributes:
        offset: its position in the shot.
        stabilized: (H, W) uint8 at the model's size: without grain, dirt and flicker.
        luma: (h, w) uint8, the same at the grid, for flow.
        exposure: smoothed log exposure that it was brought to.
    """

    offset: int
    stabilized: np.ndarray
    luma: np.ndarray
    exposure: float


def keyframe_offsets(count: int, hinted: Iterable[int] = ()) -> list[int]:
    """Return offsets of the keyframes of a shot of `count` frames: the middles of equal parts, and hinted frames."""
    parts = -(-count // KEYFRAME_STEP)
    evenly = {(2 * part + 1) * count // (2 * parts) for part in range(parts)}
    return sorted(evenly | set(hinted))


def find_keyframes(
    grays: Iterable[np.ndarray], offsets: Sequence[int], grid: tuple[int, int], exposures: list[float], pool: Executor
) -> Generator[Keyframe]:
    """Yield the keyframes of a shot while its frames are read.

    Args:
        grays: of the shot's frames, (H, W) uint8 at the model's size; about thirty are held at a time.
        offsets: see `keyframe_offsets`.
        grid: height and width.
        exposures: gets a log exposure for each frame, the sum of `exposure_change` from 0 on.
        pool: measures flow; its threads do nothing else, so that it never waits for the model.
    """
    held: deque[Sized] = deque()
    first, waiting = 0, deque(offsets)

    def make() -> Keyframe:
        offset = waiting.popleft()
        near = range(max(first, offset - STABILIZING_FRAMES), min(first + len(held), offset + STABILIZING_FRAMES + 1))
        exposure = smoothed_exposure(exposures, offset)
        frames = [held[index - first] for index in near]
        stabilized = stabilize(frames, near.index(offset), exposures[near.start : near.stop], exposure, pool)
        return Keyframe(offset, stabilized, resize(stabilized, *grid), exposure)

    def measured(pair: tuple[Sized | None, Sized]) -> tuple[Sized, float]:
        """A frame, and its change of exposure from the one before."""
        before, frame = pair
        return frame, 0.0 if before is None else exposure_change(before[1], frame[1])

    def pairs() -> Iterator[tuple[Sized | None, Sized]]:
        before = None
        for gray in grays:
            frame = gray, resize(gray, *grid)
            yield before, frame
            before = frame

    with closing(prefetch(pool, measured, pairs(), MEASURED_AHEAD)) as frames:
        for index, (frame, change) in enumerate(frames):
            exposures.append(exposures[-1] + change if exposures else 0.0)
            held.append(frame)
            while waiting and index >= waiting[0] + EXPOSURE_FRAMES:
                yield make()
            while held and (not waiting or first < waiting[0] - STABILIZING_FRAMES) and len(held) > 1:
                held.popleft()
                first += 1
    while waiting and exposures:
        yield make()


@dataclass(frozen=True, eq=False)
class ShotColorizer:
    """A model that colors shots.

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
        """Height and width of the model's pass, in pixels: what grays are given at."""
        return self.colorizer.small_size(self.photo.height_px, self.photo.width_px, self.options.size_px)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid of chroma and flow, which is that of hints."""
        return grid_size(*self.size)

    def colorize_shot(
        self, grays: Iterable[np.ndarray], count: int, hints: Mapping[int, Hints], before: ShotChroma | None = None
    ) -> ShotChroma:
        """Return the chroma of a shot.

        Args:
            grays: of its frames, (H, W) uint8 of `size`.
            count: of frames.
            hints: offset of a frame in the shot ⇒ its hints.
            before: of the frames just before, where the shot is the next segment of one that is very long.
        """
        exposures: list[float] = []
        offsets = keyframe_offsets(count, hints)
        keyframes: list[Keyframe] = []
        chromas: list[np.ndarray] = []
        for keyframe, output in self._outputs(grays, offsets, exposures):
            chroma = self.colorizer.chroma(output)
            if self.references:
                chroma = self._hinted(keyframe.stabilized, chroma, self.references).with_hints(Hints())
            chromas.append(resize(chroma, *self.grid))
            # Only hints look at the stabilized picture again
            small = Keyframe(keyframe.offset, keyframe.luma, keyframe.luma, keyframe.exposure)
            keyframes.append(keyframe if hints else small)
        lumas, keyframe_exposures = [each.luma for each in keyframes], [each.exposure for each in keyframes]
        flows = neighbor_flows(lumas, keyframe_exposures)
        if before is not None:
            chromas[0] = _continued(before, keyframes[0], chromas[0])
        consistent = make_consistent(chromas, keyframe_exposures, flows, fixed=0 if before is None else 1)
        if hints:
            resolved = self.colorizer.info.resolve(self.options)
            hinted = propagate_hints(
                list(consistent),
                lumas,
                flows,
                {offsets.index(offset): each for offset, each in hints.items()},
                self.photo,
                lambda index, chroma: self._hinted(keyframes[index].stabilized, chroma),
                reach=resolved.hint_reach,
                strength=resolved.hint_strength,
            )
            consistent = make_consistent(hinted, keyframe_exposures, flows, rounds=ROUNDS_WITH_HINTS)
        return ShotChroma(
            np.array(offsets), np.stack(lumas), consistent, np.array(keyframe_exposures), np.array(exposures)
        )

    def _hinted(self, gray: np.ndarray, chroma: np.ndarray, references: tuple[Reference, ...] = ()) -> HintedChroma:
        return self.colorizer.hinted(Photo(gray), chroma, self.options, references)

    def _outputs(
        self, grays: Iterable[np.ndarray], offsets: Sequence[int], exposures: list[float]
    ) -> Iterator[tuple[Keyframe, ModelOutput]]:
        """The keyframes and what the model gives for them, in their order; further ones are found meanwhile.

        All of them are shown to the model with the levels of the first ones: else colors would change with the view.
        See `find_keyframes` for the arguments.
        """

        def run(keyframe: Keyframe) -> tuple[Keyframe, ModelOutput]:
            request = Request(Photo(keyframe.stabilized), self.options, levels=levels)
            (output,) = self.colorizer.model_outputs([request])
            if isinstance(output, PhotoError):
                raise output
            return keyframe, output

        with (
            ThreadPoolExecutor(self.workers, "flow") as flow_pool,
            ThreadPoolExecutor(self.workers, "keyframes") as pool,
            closing(find_keyframes(grays, offsets, self.grid, exposures, flow_pool)) as keyframes,
        ):
            first = list(islice(keyframes, LEVELS_KEYFRAMES))
            levels = measure_levels([each.stabilized.astype(np.float32) / 255 for each in first]) if first else None
            with closing(prefetch(pool, run, chain(first, keyframes), WAITING * self.workers)) as outputs:
                yield from outputs


def _continued(before: ShotChroma, keyframe: Keyframe, own: np.ndarray) -> np.ndarray:
    """The chroma of a segment's first keyframe, as the last keyframe of the segment before has it."""
    flow, weight = matched_flow(keyframe.luma, 0.0, before.lumas[-1], 0.0)  # both are without flicker
    return np.asarray(own + weight[..., None] * (warp(before.chromas[-1], flow) - own), np.float32)


def make_consistent(
    chromas: Sequence[np.ndarray],
    exposures: Sequence[float],
    flows: NeighborFlows,
    *,
    rounds: int = ROUNDS,
    fixed: int = 0,
) -> np.ndarray:
    """Return the keyframes' chromas, each a mean of its own and its warped neighbors', again and again.

    Color that the model gave to a single keyframe fades, color that it gave to all stays. The mean strength of the shot
    is restored at the end, up to a factor of `MOST_REVIVAL`.

    Args:
        chromas: of each keyframe, (h, w, 2) float32.
        exposures: log exposure of each.
        flows: see `neighbor_flows`.
        rounds: how often.
        fixed: number of keyframes, from the first on, that stay as they are.

    Returns:
        (K, h, w, 2) float32.
    """
    found = [np.asarray(chroma, np.float32) for chroma in chromas]
    before = _mean_strength(found)
    for _ in range(rounds):
        found = [own if here < fixed else _mean(found, here, exposures, flows) for here, own in enumerate(found)]
    revival = np.float32(np.clip(before / max(_mean_strength(found), 1e-6), 1, MOST_REVIVAL))
    return np.stack([chroma * (1 if here < fixed else revival) for here, chroma in enumerate(found)])


def _mean(chromas: Sequence[np.ndarray], here: int, exposures: Sequence[float], flows: NeighborFlows) -> np.ndarray:
    own = chromas[here]
    total, summed = np.ones(own.shape[:2], np.float32), own.copy()
    for other in (here - 1, here + 1):
        if (here, other) in flows:
            flow, flow_confidence = flows[here, other]
            weight = NEIGHBOR_WEIGHT * flow_confidence
            total += weight
            summed += weight[..., None] * warp(chromas[other], flow) * exposure_gain(exposures[here], exposures[other])
    return summed / total[..., None]


def _mean_strength(chromas: Sequence[np.ndarray]) -> float:
    return float(np.mean([np.linalg.norm(chroma, axis=-1).mean() for chroma in chromas]))


@dataclass(frozen=True, eq=False)
class ShotChroma:
    """The chroma of a shot's keyframes, and what gives it to all frames.

    Attributes:
        offsets: of the keyframes, growing.
        lumas: (K, h, w) uint8 at the grid.
        chromas: (K, h, w, 2) float32, (Cb, Cr).
        keyframe_exposures: (K,) smoothed log exposure of the keyframes.
        exposures: (N,) log exposure of all frames.
    """

    offsets: np.ndarray
    lumas: np.ndarray
    chromas: np.ndarray
    keyframe_exposures: np.ndarray
    exposures: np.ndarray

    def at(self, offset: int, luma: np.ndarray) -> np.ndarray:
        """Return the chroma of a frame: (h, w, 2) float32.

        It is warped from the keyframes before and after it, weighted by nearness and by the flow's confidence; where
        both flows fail, it is filled in from around. It follows the video's fades, not its flicker.

        Args:
            offset: of the frame in the shot.
            luma: (h, w) uint8, its gray at the grid.
        """
        after = int(np.searchsorted(self.offsets, offset))
        if after < len(self.offsets) and self.offsets[after] == offset:
            sides = [(after, 1.0)]
        elif after == 0 or after == len(self.offsets):
            sides = [(min(after, len(self.offsets) - 1), 1.0)]
        else:
            share = (offset - self.offsets[after - 1]) / (self.offsets[after] - self.offsets[after - 1])
            sides = [(after - 1, 1 - float(share)), (after, float(share))]
        exposure, smoothed = float(self.exposures[offset]), smoothed_exposure(self.exposures, offset)
        total, summed = np.zeros(luma.shape, np.float32), np.zeros((*luma.shape, 2), np.float32)
        for index, weight in sides:
            own_exposure = float(self.keyframe_exposures[index])
            flow, flow_confidence = matched_flow(luma, exposure, self.lumas[index], own_exposure)
            warped = warp(self.chromas[index], flow) * exposure_gain(smoothed, own_exposure)
            weights = np.float32(weight) * flow_confidence
            total += weights
            summed += cv2.merge([weights, weights]) * warped
        return _filled(summed, total)


def _filled(summed: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted sums over their weights; where those are small, what lies around, smoothly and from ever farther off."""
    divisor = np.maximum(weight, LEAST_WEIGHT)
    found = summed / cv2.merge([divisor, divisor])
    share = np.clip(weight / FULL_WEIGHT, 0, 1)
    if share.min() == 1 or min(weight.shape) < 4:
        return found
    size = (-(-weight.shape[1] // 2), -(-weight.shape[0] // 2))
    small = cv2.resize(np.dstack([summed, weight]), size, interpolation=cv2.INTER_AREA)
    around = cv2.resize(_filled(small[..., :2], small[..., 2]), weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return around + cv2.merge([share, share]) * (found - around)


class ChromaCache:
    """A folder with the chroma of shots, each file named by a hash of its inputs: interrupted runs resume."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # made when something is written

    @staticmethod
    def key(facts: Mapping[str, Any]) -> str:
        """Return a name of its own for each collection of facts: 20 hexadecimal digits."""
        text = json.dumps(facts, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:NAME_LENGTH]

    def path(self, key: str) -> Path:
        """Return the file of a shot."""
        return self.folder / f"shot-{key}.npz"

    def __contains__(self, key: str) -> bool:
        return self.path(key).is_file()

    def write(self, key: str, chroma: ShotChroma) -> None:
        """Write a shot's chroma, whole or not at all.

        Raises:
            VideoError: it cannot be written.
        """
        file = io.BytesIO()
        arrays = {name: getattr(chroma, name).astype(dtype) for name, dtype in CACHED_ARRAYS.items()}
        np.savez_compressed(file, **arrays)
        self.write_bytes(self.path(key), file.getvalue())

    def write_bytes(self, path: Path, data: bytes) -> None:
        """Write a file of the cache.

        Raises:
            VideoError: it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_write(path, data)
        except OSError as error:
            name = printable(str(path))
            raise VideoError(f"{name}: cannot be written ({error.strerror}); make room, or give --cache DIR") from error

    def read(self, key: str, count: int) -> ShotChroma:
        """Return the chroma of a shot of `count` frames.

        Raises:
            VideoError: its file is damaged, or holds something else.
        """
        path = self.path(key)
        try:
            with open_regular(path) as file, zipfile.ZipFile(file) as members:
                if sum(each.file_size for each in members.infolist()) > MAX_CACHED_BYTES:
                    raise ValueError("more than a shot can have")
                file.seek(0)
                with np.load(file, allow_pickle=False) as arrays:
                    found = {name: arrays[name] for name in CACHED_ARRAYS}
            _check_cached(found, count)
            return ShotChroma(**found | {"chromas": found["chromas"].astype(np.float32)})
        except Exception as error:  # zipfile, zlib and numpy raise some fifteen types
            raise VideoError(f"{printable(str(path))} is damaged; delete it, and run again") from error


def _check_cached(arrays: Mapping[str, np.ndarray], count: int) -> None:
    """Check types, shapes and ranges of the arrays of a shot of `count` frames.

    Raises:
        ValueError: they are no shot's.
    """
    offsets, lumas, chromas = arrays["offsets"], arrays["lumas"], arrays["chromas"]
    dtypes = {name: array.dtype for name, array in arrays.items()}
    is_sound = (
        dtypes == CACHED_ARRAYS
        and offsets.ndim == 1
        and 0 < len(offsets) <= count
        and bool((np.diff(offsets, prepend=-1, append=count) > 0).all())
        and lumas.ndim == 3
        and min(lumas.shape) > 0
        and chromas.shape == (*lumas.shape, 2)
        and arrays["keyframe_exposures"].shape == offsets.shape == lumas.shape[:1]
        and arrays["exposures"].shape == (count,)
        and all(bool(np.isfinite(arrays[name]).all()) for name in ("chromas", "keyframe_exposures", "exposures"))
    )
    if not is_sound:
        raise ValueError("not the arrays of a shot")
