"""Which frame of a finished film shows what a frame of the film shows: by time, by what they show, and in order.

Both films are reduced to signatures, a few hundred numbers a frame. A line of time (offset and speed) is voted for by
frames that are most alike. Shot by shot, the offset is corrected, since reels can miss or be longer; within a shot the
best path through nearby frames is found, which bridges frames that were dropped or doubled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import cv2
import numpy as np

from chromatune.color import resize
from chromatune.errors import VideoError, printable
from chromatune.options import StartStage
from chromatune.video.shots import Shot, thumbnail_of
from chromatune.video.video import Frame, Video, VideoInfo

SIGNATURE_SIZE = (18, 24)  # height and width
SURROUNDING_PX = 3.0  # sigma of the local mean that is taken off
LEAST_SPREAD = 1.0  # levels of 255; a picture with less has no structure, and no signature
LEVELS_OF_ONE = 512  # of a component, as signatures are kept
BORDER_LEVEL = 24  # of 255: what stays below it is a black border
BORDER_FRAMES = 500  # from the start, by which borders are found
MOST_BORDER = 0.3  # of a side, at either end

PROBES = 256  # frames that vote for the line
SPEEDS = (1.0, 1.001, 1 / 1.001, 25 / 24, 24 / 25, 1.001 * 25 / 24, 24 / 25 / 1.001)  # 23.976, 24 and 25 frames/s
CLEARLY = 1.02  # times as many votes, by which another speed than one that stands before it wins
VOTE_SECONDS = 0.25
ALIKE = 0.75  # correlation of two frames that vote
SAMPLES = 12  # frames of a shot that its offset is found by
SEARCH_FRAMES = 75  # on either side of where a shot is expected
PATH_FRAMES = 50  # on either side of the shot's offset
SAME_SECONDS = 0.5  # by which the offsets of two shots differ at most, for one between them
LEAST_SHOT = 0.6  # correlation of a shot's frames, of the better half, with those it is matched with
SURE_SHOT = 0.8  # the same, where nothing but likeness speaks for the place
OFF_COST, STEP_COST = 1e-3, 0.02  # of a frame off the shot's offset, and of a change of that


@dataclass(frozen=True, eq=False)
class Signatures:
    """A film's frames, reduced.

    Attributes:
        vectors: (N, D) int8, `LEVELS_OF_ONE` times vectors of length 1; 0 for a frame without structure.
        seconds: (N,) float64, when each is shown, growing.
    """

    vectors: np.ndarray
    seconds: np.ndarray

    def __len__(self) -> int:
        return len(self.seconds)

    def unit(self, frames: np.ndarray | slice) -> np.ndarray:
        """Return vectors of length 1, or 0: float32."""
        return self.vectors[frames].astype(np.float32) / LEVELS_OF_ONE

    def at(self, seconds: np.ndarray) -> np.ndarray:
        """Return the frames that are shown at times, (K,) int64; before the first -1, after the last N."""
        step = float(np.median(np.diff(self.seconds))) if len(self) > 1 else 1.0
        found = np.searchsorted(self.seconds, seconds + step / 2, side="right") - 1
        return np.where(seconds > self.seconds[-1] + step, len(self), found)


def match_films(
    video: Video, frames: Iterable[Frame], finished: Video, shots: Sequence[Shot], start_stage: StartStage
) -> np.ndarray:
    """Return for each frame of a video the one of a finished film that shows the same: see `match_frames`.

    Args:
        video: see `open_video`.
        frames: of it.
        finished: in color.
        shots: of the video.
        start_stage: opens the progress of reading both.

    Raises:
        VideoError: one of them cannot be read, or no shot of the video is in the finished film.
    """
    expected = shots[-1].stop + (finished.info.expected_frames or 0)
    advance = start_stage("matching frames", expected)

    def signatures(info: VideoInfo, of_film: Iterable[Frame]) -> Signatures:
        def thumbnails() -> Iterator[tuple[np.ndarray, float]]:
            for frame in of_film:
                advance()
                yield thumbnail_of(frame, info), frame.seconds

        return signatures_of(thumbnails())

    found = match_frames(signatures(video.info, frames), signatures(finished.info, finished.read()), shots)
    if not (found >= 0).any():
        raise not_this_video(finished)
    return found


def not_this_video(finished: Video) -> VideoError:
    """Return the error that a finished film is one of another video."""
    name = printable(str(finished.info.path))
    return VideoError(f"{name} does not show this video: no shot is like one of it; give a film that was made from it")


def signatures_of(thumbnails: Iterable[tuple[np.ndarray, float]]) -> Signatures:
    """Return the signatures of a film; black borders, as its start shows them, are left out.

    Args:
        thumbnails: of all frames, (h, w) uint8 of one size, about 70 px high, and the second when each is shown.
    """
    thumbnails = iter(thumbnails)
    start = list(islice(thumbnails, BORDER_FRAMES))
    rows, columns = _within_borders([picture for picture, _ in start])
    vectors, seconds = [], []
    for picture, second in chain(start, thumbnails):
        vectors.append(_signature(picture[rows, columns]))
        seconds.append(second)
    return Signatures(np.stack(vectors), np.array(seconds))


def match_frames(own: Signatures, finished: Signatures, shots: Sequence[Shot]) -> np.ndarray:
    """Return for each frame of a film the one of a finished film that shows the same: (N,) int64, -1 where none does.

    Within a shot, and from shot to shot, the frames keep their order.

    Args:
        own: of the film, each of whose shots is matched or not.
        finished: of the finished film, which may begin and end elsewhere, run at another speed, lack frames and shots,
            or have more of them.
        shots: of the film.
    """
    found = np.full(len(own), -1, np.int64)
    speed, offset = _line(own, finished)
    first = 0  # of the finished film's frames, that may still come
    for shot in shots:
        expected = [offset, *([] if first == 0 else [_offset_of(own, finished, found, shot.start, speed)])]
        place = _place_of(own, finished, shot, speed, expected, first)
        if place is None:
            continue
        path = _path(own, finished, shot, place, first)
        found[shot.start : shot.stop] = path
        first = int(path[-1])
    if 2 * np.count_nonzero(found >= 0) >= len(found):
        _match_by_time(found, own, finished, shots, speed)
    return found


def _match_by_time(
    found: np.ndarray, own: Signatures, finished: Signatures, shots: Sequence[Shot], speed: float
) -> None:
    """Fill in shots that are like nothing, such as dark ones, where the shots around them agree on their time."""
    offsets = np.where(found >= 0, finished.seconds[found] - speed * own.seconds, np.nan)
    for shot in shots:
        around = [*offsets[max(0, shot.start - 1) : shot.start], *offsets[shot.stop : shot.stop + 1]]
        if found[shot.start] >= 0 or not around or not np.ptp(around) <= SAME_SECONDS:  # nan is not
            continue
        frames = finished.at(speed * own.seconds[shot.start : shot.stop] + float(np.mean(around)))
        inside = (frames >= 0) & (frames < len(finished))
        found[shot.start : shot.stop] = np.where(inside, frames, -1)


def _within_borders(pictures: Sequence[np.ndarray]) -> tuple[slice, slice]:
    """Rows and columns within black borders that all pictures have."""
    brightest = np.max(pictures, axis=0)
    return _inner(brightest.max(axis=1)), _inner(brightest.max(axis=0))


def _inner(levels: np.ndarray) -> slice:
    bright = np.flatnonzero(levels >= BORDER_LEVEL)
    if len(bright) == 0:
        return slice(None)
    most = int(MOST_BORDER * len(levels))
    start, stop = min(int(bright[0]), most), max(int(bright[-1]) + 1, len(levels) - most)
    return slice(start + (start > 0), stop - (stop < len(levels)))  # half of a line can be border


def _signature(picture: np.ndarray) -> np.ndarray:
    small = resize(picture, *SIGNATURE_SIZE).astype(np.float32)
    detail = small - cv2.GaussianBlur(small, (0, 0), SURROUNDING_PX)
    length = float(np.linalg.norm(detail))
    if length < LEAST_SPREAD * detail.size**0.5:
        return np.zeros(detail.size, np.int8)
    return np.clip(np.rint(detail.ravel() * (LEVELS_OF_ONE / length)), -127, 127).astype(np.int8)


def _line(own: Signatures, finished: Signatures) -> tuple[float, float]:
    """Speed and offset: a second t of the film is shown at speed · t + offset of the finished one."""
    probes = np.unique(np.linspace(0, len(own) - 1, min(PROBES, len(own))).astype(int))
    likeness = own.unit(probes) @ finished.unit(slice(None)).T
    best, alike = likeness.argmax(axis=1), likeness.max(axis=1)
    votes = np.where(alike >= ALIKE, alike, 0)
    start, end = own.seconds[probes], finished.seconds[best]
    most, line = 0.0, (1.0, float(finished.seconds[0] - own.seconds[0]))
    for speed in SPEEDS:
        offsets = end - speed * start
        near = np.abs(offsets[:, None] - offsets) <= VOTE_SECONDS
        found = near @ votes
        winner = int(found.argmax())
        if found[winner] > CLEARLY * most:
            most, line = float(found[winner]), (speed, float(np.median(offsets[near[winner] & (votes > 0)])))
    return line


def _offset_of(own: Signatures, finished: Signatures, found: np.ndarray, before: int, speed: float) -> float:
    """Offset of the last frame before one that is matched."""
    last = int(np.flatnonzero(found[:before] >= 0)[-1])
    return float(finished.seconds[found[last]] - speed * own.seconds[last])


def _place_of(
    own: Signatures, finished: Signatures, shot: Shot, speed: float, expected: Sequence[float], first: int
) -> np.ndarray | None:
    """Frames of the finished film, (n,) int64, at the times of a shot's frames; None where nothing is like them.

    They may lie outside of the film.
    """
    times = speed * own.seconds[shot.start : shot.stop]
    samples = np.unique(np.linspace(0, len(shot) - 1, min(SAMPLES, len(shot))).astype(int))
    vectors = own.unit(shot.start + samples)

    def best_near(offset: float) -> tuple[float, int, np.ndarray]:
        frames = finished.at(times + offset)
        scores = [
            _likeness(vectors, finished, frames[samples] + shift, first) - OFF_COST / 10 * abs(shift)
            for shift in range(-SEARCH_FRAMES, SEARCH_FRAMES + 1)
        ]
        shift = int(np.argmax(scores)) - SEARCH_FRAMES
        return float(max(scores)), shift, frames

    score, shift, frames = max((best_near(offset) for offset in expected), key=lambda found: found[0])
    if score < SURE_SHOT:
        likeness = vectors @ finished.unit(slice(first, None)).T
        if likeness.size and likeness.max() >= SURE_SHOT:
            sample, frame = np.unravel_index(int(likeness.argmax()), likeness.shape)
            offset = float(finished.seconds[first + frame] - times[samples[sample]])
            elsewhere = best_near(offset)
            if elsewhere[0] >= max(SURE_SHOT, score):
                score, shift, frames = elsewhere
    return frames + shift if score >= LEAST_SHOT else None


def _likeness(vectors: np.ndarray, finished: Signatures, frames: np.ndarray, first: int) -> float:
    """Mean correlation with frames of the finished film, of the better half: the other one may be missing there.

    Those outside of it, or before its first one, count as 0. Frames without structure do not count, and a shot that has
    none is like anything.
    """
    inside = (frames >= first) & (frames < len(finished))
    counted = np.abs(vectors).sum(axis=1) > 0
    if not counted.any():
        return float(inside.mean())
    found = np.where(inside, (vectors * finished.unit(np.where(inside, frames, 0))).sum(axis=1), 0)[counted]
    return float(np.sort(found)[len(found) // 2 :].mean())


def _path(own: Signatures, finished: Signatures, shot: Shot, place: np.ndarray, first: int) -> np.ndarray:
    """The frames of the finished film along a shot, (n,) int64, never going back: the best path (Viterbi)."""
    shifts = np.arange(-PATH_FRAMES, PATH_FRAMES + 1)
    off, change = OFF_COST * np.abs(shifts), STEP_COST * np.abs(shifts[:, None] - shifts)
    costs, origins = np.zeros(len(shifts)), []
    last = len(finished) - 1
    previous: np.ndarray | None = None
    for index, expected in enumerate(place):
        frames = np.clip(expected + shifts, first, last)
        vector = own.unit(slice(shot.start + index, shot.start + index + 1))[0]
        here = off - finished.unit(frames) @ vector
        if previous is None:
            costs = here
        else:
            ways = costs[:, None] + change + np.where(previous[:, None] > frames, np.inf, 0)  # (from, to)
            origins.append(ways.argmin(axis=0))
            costs = ways.min(axis=0) + here
        previous = frames
    state = int(costs.argmin())
    states = [state, *(state := int(origin[state]) for origin in reversed(origins))]
    return np.clip(place + shifts[np.array(states[::-1])], first, last)
