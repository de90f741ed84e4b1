"""Shots: where a video is cut, found on its gray picture, or read from a file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from chromatune.color import flow_between, warp
from chromatune.errors import OptionsError, VideoError, printable, shown
from chromatune.files import atomic_write, read_regular
from chromatune.images import to_depth
from chromatune.video.video import Frame, VideoInfo
from chromatune.video.yuv import small_gray

SHOTS_SIZE = (360, 480)  # height and width from which thumbnails are made, at most
THUMBNAIL_PX = 72  # short side: grain is averaged away, things can still be told apart
WINDOW_PX = 11  # in which structure is compared
GRAIN_VARIANCE = 9.0  # of a thumbnail's levels: below it there is no structure to compare
LEAST_CHANGE = 0.22  # of a cut, see `change`; motion, grain and flicker stay below 0.17
ABOVE_USUAL = 2.5  # a cut's change over the median of its neighbors'
USUAL_FRAMES = 6  # neighbors on either side
LOOK_AHEAD = 5  # frames after which a flash has ended and the shot goes on
LOOK_BACK = 4  # frames before, for a flash that lasts
SAME_SHOT = 0.4  # of the change at a cut: less than this between frames before and after, and it was none
NEAR_FRAMES = 3  # of two cuts so near to each other, the larger change is the cut
FULL_CONTRAST = 10.0  # spread of levels, from which on changes count in full
BLANK_CONTRAST = 4.0  # the same, below which a picture is blank
LONE_SHARE = 8.0  # of the grain's variance: structure that is plainly there
MOST_DIGITS = 10
MAX_STARTS_BYTES = 16 << 20  # of a file of first frames


@dataclass(frozen=True)
class Shot:
    """Frames from one cut to the next, by their index in the video: `stop` is the next shot's first."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def thumbnail(gray: np.ndarray) -> np.ndarray:
    """Return a small and soft picture, (h, w) uint8, of (H, W) uint8 or uint16."""
    height, width = gray.shape
    scale = THUMBNAIL_PX / min(height, width)
    size = (max(THUMBNAIL_PX, round(width * scale)), max(THUMBNAIL_PX, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(gray, (min(size[0], 4 * THUMBNAIL_PX), min(size[1], 4 * THUMBNAIL_PX)), interpolation=method)
    return cv2.GaussianBlur(to_depth(small, np.uint8), (0, 0), 1.0)


def change(before: np.ndarray, after: np.ndarray) -> float:
    """Return how much of the structure of `after` is not that of `before` moved, 0..1.

    `before` is warped along the flow, and both are correlated in windows, so that neither motion nor a change of
    exposure, of the whole or of a part, counts. What has no structure, such as black, is like anything that has none.

    Args:
        before: see `thumbnail`.
        after: the same.
    """
    flow = flow_between(_normalized(after), _normalized(before))
    warped, own = warp(before.astype(np.float32), flow), after.astype(np.float32)
    warped_mean, own_mean = _window_mean(warped), _window_mean(own)
    warped_variance = np.maximum(_window_mean(warped * warped) - warped_mean**2, 0)
    own_variance = np.maximum(_window_mean(own * own) - own_mean**2, 0)
    covariance = np.maximum(_window_mean(warped * own) - warped_mean * own_mean, 0)
    floor = GRAIN_VARIANCE / 2
    correlation = (covariance + floor) / (np.sqrt(warped_variance * own_variance) + floor)
    # A window with structure on one side alone is unlike, however little there is on the other
    one_sided = np.minimum(warped_variance, own_variance) < GRAIN_VARIANCE
    most_variance = np.maximum(warped_variance, own_variance)
    lone = one_sided * np.clip(most_variance / (LONE_SHARE * GRAIN_VARIANCE) - 1, 0, 1)
    correlation = np.minimum(correlation, 1 - lone)
    weight = np.sqrt(most_variance) + 1
    contrast = min(1.0, float(max(before.std(), after.std())) / FULL_CONTRAST)  # in the dark, grain is all there is
    return contrast * float(1 - (correlation * weight).sum() / weight.sum())


def thumbnail_of(frame: Frame, info: VideoInfo) -> np.ndarray:
    """Return the thumbnail of a video's frame."""
    size = (min(info.height_px, SHOTS_SIZE[0]), min(info.width_px, SHOTS_SIZE[1]))
    return thumbnail(small_gray(frame, info, size))


def find_shots(thumbnails: Iterable[np.ndarray]) -> list[Shot]:
    """Return the shots of a video; each but the first begins at a cut.

    A cut is a change that is large, larger than those around it, and that stays: after a flash, or a few frames of
    dirt, the picture from before is there again.

    Args:
        thumbnails: of all frames in their order; only a few are held at a time.
    """
    changes: list[float] = []
    least: dict[int, float] = {}  # frames that change much ⇒ the least change from before them to after them
    recent: deque[np.ndarray] = deque(maxlen=LOOK_BACK + 1 + LOOK_AHEAD)
    blank_cuts: dict[int, float] = {}  # within black or white, through which one picture fades out and another in
    last_full: np.ndarray | None = None  # picture with contrast
    blankest: tuple[float, int] | None = None  # since then: its contrast, and its index

    def look_around(frame: int) -> None:
        at = frame - (len(changes) - len(recent))  # its place among the recent ones
        if frame > 0 and changes[frame] > LEAST_CHANGE:
            before, after = _not_blank(list(recent)[max(0, at - LOOK_BACK) : at]), _not_blank(list(recent)[at + 1 :])
            least[frame] = min((change(old, new) for old in before for new in after), default=1.0)

    for index, picture in enumerate(thumbnails):
        changes.append(change(recent[-1], picture) if recent else 0.0)
        recent.append(picture)
        contrast = float(picture.std())
        if contrast >= FULL_CONTRAST:
            if last_full is not None and blankest is not None:
                found = change(last_full, picture)
                if found > 2 * LEAST_CHANGE:  # it had more frames to move than from one to the next
                    blank_cuts[blankest[1]] = found
            last_full, blankest = picture, None
        elif contrast < BLANK_CONTRAST and (blankest is None or contrast < blankest[0]):
            blankest = contrast, index
        if index >= LOOK_AHEAD:
            look_around(index - LOOK_AHEAD)
    for frame in range(max(0, len(changes) - LOOK_AHEAD), len(changes)):
        look_around(frame)
    cuts = {frame: changes[frame] for frame, back in least.items() if _is_cut(frame, back, changes)}
    return shots_from([0, *_largest(cuts | blank_cuts)], len(changes))


def _not_blank(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Those with structure: all blank ones are alike."""
    return [picture for picture in pictures if picture.std() >= FULL_CONTRAST]


def _largest(cuts: Mapping[int, float]) -> list[int]:
    """The cuts that have no larger one near them, in order."""
    return sorted(
        frame
        for frame, found in cuts.items()
        if not any(0 < abs(other - frame) <= NEAR_FRAMES and more > found for other, more in cuts.items())
    )


def shots_from(starts: Sequence[int], count: int) -> list[Shot]:
    """Return the shots that begin at given frames, of a video of `count` frames."""
    return [Shot(start, stop) for start, stop in pairwise([*starts, count]) if stop > start]


def read_starts(path: Path) -> list[int]:
    """Read the first frames of shots from a file: one number a line, with comments after #.

    Raises:
        OptionsError: it cannot be read, or a line is no number, or not greater than the one before.
    """
    name, starts = printable(str(path)), [0]
    try:
        lines = read_regular(path, MAX_STARTS_BYTES).decode().splitlines()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise OptionsError(
            f"{name}: cannot be read ({reason}); give a file with the first frame of each shot"
        ) from None
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        if not (text.isdecimal() and len(text) < MOST_DIGITS) or 0 < int(text) <= starts[-1]:
            raise OptionsError(
                f"{name}: line {number} is {shown(text)}; accepted is one frame number per line, in ascending order"
            )
        if int(text):
            starts.append(int(text))
    return starts


def write_starts(path: Path, shots: Sequence[Shot]) -> None:
    """Write the file that `read_starts` reads.

    Raises:
        VideoError: it cannot be written.
    """
    text = "# first frame of each shot\n" + "".join(f"{shot.start}\n" for shot in shots)
    try:
        atomic_write(path, text.encode(), follow_link=True)
    except OSError as error:
        raise VideoError(f"{printable(str(path))}: cannot be written ({error.strerror}); give another file") from error


def _is_cut(frame: int, least: float, changes: Sequence[float]) -> bool:
    near = [*changes[max(1, frame - USUAL_FRAMES) : frame], *changes[frame + 1 : frame + 1 + USUAL_FRAMES]]
    usual = float(np.median(near)) if near else 0.0
    return changes[frame] > ABOVE_USUAL * usual and least > SAME_SHOT * changes[frame]


def _normalized(picture: np.ndarray) -> np.ndarray:
    """The picture at usual brightness and contrast, uint8, for the flow."""
    mean, spread = picture.mean(), picture.std()
    return np.clip((picture.astype(np.float32) - mean) * (48 / (spread + 4)) + 128, 0, 255).astype(np.uint8)


def _window_mean(picture: np.ndarray) -> np.ndarray:
    return cv2.blur(picture, (WINDOW_PX, WINDOW_PX))
