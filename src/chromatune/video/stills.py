"""A few finished frames: their colors on their own keyframes, and on those of shots that show the same scene."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from chromatune.color import Aligned, align, fill_colors, is_toned, luma, resize
from chromatune.errors import OptionsError, PhotoError, printable
from chromatune.hints import HintMap, Reference
from chromatune.images import IMAGE_SUFFIXES, Photo, read_photo, to_depth
from chromatune.video.keyframes import Keyframe
from chromatune.video.reading import by_number
from chromatune.video.shots import Shot
from chromatune.video.video import Frame, Video

TIMECODE = re.compile(
    r"(?<!\d)(\d{1,2})[-_.:h](\d{2})[-_.:m](\d{2})(?:[-_.:;s]?(\d{3})|[-_.:;s](\d{2}))?(?!\d)", re.IGNORECASE
)  # hours, minutes, seconds, then milliseconds or frames
MOST_STILLS = 300
STILL_PX = 512  # short side at which a still is kept, at most
NEAREST = 6  # stills that a shot without one of its own is compared with
LEAST_LUMA = 1 / 255  # that chroma is divided by


@dataclass(frozen=True)
class Timecode:
    """When a frame is shown, from the video's start: seconds, and frames after them."""

    seconds: float
    frames: int = 0


StillPlace: TypeAlias = int | Timecode  # number of a frame, or when it is shown


@dataclass(frozen=True, eq=False)
class Still:
    """A finished picture of a frame.

    Attributes:
        photo: in color, of any size; its name is for messages.
        reference: the same for a photo encoder; None without one.
    """

    photo: Photo
    reference: Reference | None = None

    @property
    def rgb(self) -> np.ndarray:
        """(H, W, 3)."""
        assert self.photo.rgb is not None
        return self.photo.rgb

    @cached_property
    def digest(self) -> str:
        """A hash of its pixels."""
        return hashlib.sha256(np.array(self.rgb.shape).tobytes() + self.rgb.tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class ShotStills:
    """What stills give to a shot.

    Attributes:
        own: offset of a frame ⇒ its still.
        others: stills of other shots, the nearest first: where one shows the same scene, its colors are taken.
    """

    own: Mapping[int, Still]
    others: Sequence[Still]

    def __bool__(self) -> bool:
        return bool(self.own or self.others)

    @property
    def references(self) -> list[Reference]:
        """The others, as photos that may show the same things."""
        return [still.reference for still in self.others if still.reference is not None]

    def with_references(self, reference: Callable[[Photo], Reference]) -> ShotStills:
        """Return the same with references for a model, where it can compare photos: see `Colorizer.reference`."""
        try:
            others = [replace(still, reference=reference(still.photo)) for still in self.others]
        except OptionsError:  # it has no photo encoder
            return self
        return ShotStills(self.own, others)

    def facts(self) -> list[list[Any]]:
        """Return what decides their colors, for a cache's key."""
        own: list[list[Any]] = [[offset, still.digest] for offset, still in sorted(self.own.items())]
        return own + [["other", still.digest] for still in self.others]

    def maps(self, keyframes: Sequence[Keyframe]) -> tuple[dict[int, HintMap], list[str]]:
        """Return the colors of stills, by the index of their keyframe, and lines on those that show something else."""
        found: dict[int, HintMap] = {}
        wrong = []
        for index, keyframe in enumerate(keyframes):
            if (still := self.own.get(keyframe.offset)) is None:
                continue
            aligned = align(keyframe.stabilized, still.rgb)
            if aligned.is_of_photo:
                found[index] = _map_of(keyframe, aligned)
            else:
                wrong.append(f"{still.photo.name} shows something else than its frame, and is left out")
        if not self.own and self.others:
            middle = len(keyframes) // 2
            tried = [align(keyframes[middle].stabilized, still.rgb) for still in self.others]
            best = max(tried, key=lambda aligned: aligned.score)
            if best.is_of_photo:
                found[middle] = _map_of(keyframes[middle], best)
        return found, wrong


NO_STILLS = ShotStills({}, ())


def read_stills(folder: Path) -> dict[StillPlace, Still]:
    """Return the finished frames in a folder by the number, or else the timecode, in their names.

    A timecode is 01-02-03-04 (hours, minutes, seconds, frames), 00:01:23.500 or the like.

    Raises:
        OptionsError: there is no such folder, no still in it, too many, or two of one frame.
        PhotoError: a still cannot be read, or is gray.
    """
    name = printable(str(folder))
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    except OSError as error:
        raise OptionsError(f"{name}: cannot be read ({error.strerror}); check the path") from None
    if len(paths) > MOST_STILLS:
        raise OptionsError(f"{name}: {len(paths)} pictures; at most {MOST_STILLS} stills are taken, give fewer")
    found: dict[StillPlace, Path] = {}
    numbered = []
    for path in paths:
        if (match := TIMECODE.search(path.stem)) is None:
            numbered.append(path)
            continue
        place = _timecode(match)
        if place in found:
            raise OptionsError(f"{name}: {found[place].name} and {path.name} have the same timecode; keep one of them")
        found[place] = path
    found.update(by_number(numbered, name, OptionsError).items())
    if not found:
        raise OptionsError(
            f"{name}: no still in it; give pictures with a frame's number or timecode in their names, such as 120.png "
            "or 00-01-23-12.png"
        )
    return {place: _still(path) for place, path in found.items()}


def stills_by_index(stills: Mapping[StillPlace, Still], video: Video, frames: Iterable[Frame]) -> dict[int, Still]:
    """Return stills by the position of their frame.

    Args:
        stills: see `read_stills`.
        video: see `open_video`.
        frames: of it; they are read where there are timecodes.

    Raises:
        OptionsError: no frame has a number or is shown at a timecode, or two are of one frame.
    """
    found: dict[int, Still] = {}
    seconds: np.ndarray | None = None
    for place, still in stills.items():
        if isinstance(place, Timecode):
            if seconds is None:
                seconds = np.array([frame.seconds for frame in frames])
                seconds -= seconds[0]
            wanted = place.seconds + float(place.frames / video.info.rate)
            index: int | None = int(np.searchsorted(seconds, wanted + 0.25 / float(video.info.rate), "right")) - 1
            if wanted > seconds[-1] + float(1 / video.info.rate):
                index = None
        else:
            index = video.index_of(place)
        if index is None:
            raise OptionsError(f"{still.photo.name}: the video has no such frame; check its name", "stills")
        if index in found:
            raise OptionsError(
                f"{found[index].photo.name} and {still.photo.name} are for the same frame; keep one of them", "stills"
            )
        found[index] = still
    return found


def stills_of(shot: Shot, stills: Mapping[int, Still]) -> ShotStills:
    """Return what the stills of a video, by their frame, give to a shot or a part of one."""
    own = {frame - shot.start: still for frame, still in stills.items() if shot.start <= frame < shot.stop}
    if own:
        return ShotStills(own, ())
    nearest = sorted(stills, key=lambda frame: min(abs(frame - shot.start), abs(frame - shot.stop)))
    return ShotStills({}, [stills[frame] for frame in nearest[:NEAREST]])


def _map_of(keyframe: Keyframe, aligned: Aligned) -> HintMap:
    size = keyframe.luma.shape
    chroma = resize(fill_colors(aligned, keyframe.stabilized), *size)
    level = np.maximum(keyframe.luma.astype(np.float32) / 255, LEAST_LUMA)
    return HintMap(chroma / level[..., None], np.clip(resize(aligned.confidence, *size), 0, 1))


def _timecode(match: re.Match[str]) -> Timecode:
    hours, minutes, seconds, milliseconds, frames = (int(digits or 0) for digits in match.groups())
    return Timecode(3600 * hours + 60 * minutes + seconds + milliseconds / 1000, frames)


def _still(path: Path) -> Still:
    photo = read_photo(path, name=str(path))
    if photo.rgb is None or is_toned(photo.rgb):
        raise PhotoError(f"{photo.name}: is gray; give a picture in color")
    scale = min(1.0, STILL_PX / min(photo.height_px, photo.width_px))
    size = (max(1, round(photo.height_px * scale)), max(1, round(photo.width_px * scale)))
    rgb = to_depth(resize(photo.rgb, *size), np.uint8)
    return Still(Photo(luma(rgb), rgb=rgb, name=photo.name))
