"""A film through one model: its shots, their chroma, and every frame; an event for each, and no printing."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import chromatune
from chromatune.colorizer import Colorizer, check_recomposed
from chromatune.errors import OptionsError, PhotoError, VideoError, count_of, printable
from chromatune.hints import Hints, check_reference
from chromatune.images import Photo
from chromatune.options import StartStage, silent
from chromatune.pipeline import model_info, usual_workers, weights_hash
from chromatune.video.cache import ChromaCache, fingerprint, name_of
from chromatune.video.chroma import ShotChroma
from chromatune.video.frames import Frame, Video, small_gray
from chromatune.video.planes import Planes
from chromatune.video.shading import ShotColorizer
from chromatune.video.shots import Shot, find_shots, shots_from, thumbnail
from chromatune.video.targets import Target, open_target
from chromatune.video.wishes import VideoOptions

MOST_SHOT_FRAMES = 3000  # longer ones are worked at in parts: memory stays bounded
MOST_HELD_BYTES = 200_000_000  # some 90 s of film
SHOTS_FILE = "shots-{}.txt"
KnownShots: TypeAlias = tuple[list[int], int]  # first frames of shots, and the number of frames


@dataclass(frozen=True)
class Part:
    """A shot, or a part of a very long one.

    Attributes:
        shot: its frames.
        name: of its chroma in the cache.
        hints: by the offset of their frame.
        continues: whether it goes on with the shot of the part before.
    """

    shot: Shot
    name: str
    hints: Mapping[int, Hints]
    continues: bool


@dataclass(frozen=True)
class VideoResult:
    """What became of a film.

    Attributes:
        out: file or folder.
        shots: all of them.
        frames: number of frames.
        made: shots that went through the model; the others were there from an earlier run.
        warnings: what the user should know, a line each.
    """

    out: Path
    shots: tuple[Shot, ...]
    frames: int
    made: int
    warnings: tuple[str, ...]


def colorize_video(video: Video, wishes: VideoOptions, *, start_stage: StartStage = silent) -> VideoResult:
    """Colors a film; run again after an interruption, it goes on, and ends with the same frames.

    Args:
        video: see `open_video`.
        wishes: what is made of it.
        start_stage: is told how far it is.

    Raises:
        VideoError: the film cannot be read, or the result not be written.
        OptionsError: wishes contradict each other or do not fit the film.
        PhotoError: hints do not fit the frames, or a reference is gray.
        ModelError: the model cannot be loaded.
    """
    _check_places(video, wishes)
    cache = ChromaCache(wishes.cache_folder)
    with open_target(
        wishes.out,
        video.info,
        codec=wishes.codec,
        strength=wishes.options.strength,
        overwrite=wishes.overwrite,
        notes=cache.folder,
    ) as target:
        shaded = colorize_shots(video, wishes, start_stage=start_stage)
        _write(video, shaded.parts, cache, target, start_stage)
        target.finish(wishes.preview_seconds)
    return VideoResult(
        wishes.out, shaded.shots, shaded.shots[-1].stop, shaded.made, (*video.warnings, *shaded.warnings)
    )


@dataclass(frozen=True)
class ColorizedVideo:
    """A film whose chroma is in the cache.

    Attributes:
        shots: all of them.
        parts: the same, very long ones in parts.
        made: shots that went through the model.
        warnings: what the model has to say, a line each.
    """

    shots: tuple[Shot, ...]
    parts: tuple[Part, ...]
    made: int
    warnings: tuple[str, ...]


def colorize_shots(video: Video, wishes: VideoOptions, *, start_stage: StartStage = silent) -> ColorizedVideo:
    """Takes the shots of a film through the model whose chroma is not in the cache yet.

    Args:
        video: see `open_video`.
        wishes: what is made of it; nothing is written to `out`.
        start_stage: is told how far it is.

    Raises:
        As `colorize_video`.
    """
    cache = ChromaCache(wishes.cache_folder)
    frame = Photo(np.zeros((video.info.height_px, video.info.width_px), np.uint8))
    by_index = _hints_by_index(video, wishes, frame)
    model_info(wishes.model)  # an unknown one is told before the film is read
    shader, held, own = None, None, fingerprint(video.info.path)
    known = _kept_shots(_shots_path(own, wishes, cache))
    if known is None:
        shader = _open_shot_colorizer(wishes, frame)
        held = _HeldGrays(video, shader.size)
        known = _find_shots(video, own, wishes, cache, start_stage, held)
    shots = _wanted_shots(known, wishes)
    late = [index for index in by_index if index >= shots[-1].stop]
    if late:
        raise OptionsError(f"a hint is on frame {late[0]}, and there are {shots[-1].stop} frames, from 0 on", "hint")
    parts = _parts(own, wishes, shots, by_index)
    missing = [part for part in parts if part.name not in cache]
    warnings: tuple[str, ...] = ()
    if missing:
        shader = shader or _open_shot_colorizer(wishes, frame)
        grays = iter(held.grays) if held is not None and held.grays is not None else _grays(video, wishes, shader.size)
        _shade(parts, shader, grays, cache, start_stage)
        model = shader.colorizer
        warnings = model.backend.warnings_of(model.info.resolve(wishes.options))
    return ColorizedVideo(tuple(shots), tuple(parts), sum(not part.continues for part in missing), warnings)


def _check_places(video: Video, wishes: VideoOptions) -> None:
    name = printable(str(wishes.out))
    for place in (wishes.out, wishes.cache_folder):
        if os.path.realpath(place) == os.path.realpath(video.info.path):
            raise VideoError(f"{name} is the film itself, which is never replaced; give another place")
    if not wishes.out.parent.is_dir():
        raise VideoError(f"{name}: its folder does not exist; make it first")
    if wishes.out.suffix:
        if wishes.out.is_dir():
            raise VideoError(f"{name} is a folder; give a file, or a folder without a suffix for frames")
        if not wishes.overwrite and os.path.lexists(wishes.out):
            raise VideoError(f"{name} exists; give another name, or --overwrite")
    elif wishes.out.is_file():
        raise VideoError(f"{name} is a file without a suffix; give a name such as {name}.mp4, or a folder")


def _hints_by_index(video: Video, wishes: VideoOptions, frame: Photo) -> dict[int, Hints]:
    """Hints by the place of their frame, checked against its size."""
    found: dict[int, Hints] = {}
    for number, hints in wishes.hints.items():
        index = video.index_of(number)
        if index is None:
            raise OptionsError(f"a hint is on frame {number}, and no frame has that number", "hint")
        try:
            hints.check(frame)
        except PhotoError as error:
            raise PhotoError(str(error).replace("photo:", f"frame {number}:", 1)) from error
        found[index] = hints
    return found


def _wanted(video: Video, wishes: VideoOptions) -> Iterator[Frame]:
    """The frames that are wanted of a film."""
    seconds, frames = wishes.preview_seconds, video.read()
    if seconds is None:
        return frames
    first = next(frames, None)
    if first is None:
        return frames
    rest = takewhile(lambda frame: frame.seconds - first.seconds < seconds, frames)
    return (frame for part in ([first], rest) for frame in part)


def _find_shots(
    video: Video, own: str, wishes: VideoOptions, cache: ChromaCache, start_stage: StartStage,
    held: _HeldGrays | None = None,
) -> KnownShots:  # fmt: skip
    """Finds the shots, and keeps them: it takes a reading of the whole film."""
    advance, info = start_stage("finding shots", video.info.expected_frames or 0), video.info

    def told(frame: Frame) -> np.ndarray:
        advance()
        if held is not None:
            held.add(frame)
        return thumbnail(small_gray(frame, info, (min(info.height_px, 360), min(info.width_px, 480))))

    found = find_shots(told(frame) for frame in _wanted(video, wishes))
    known = [shot.start for shot in found], found[-1].stop
    lines = [*map(str, known[0]), f"end {known[1]}"]
    cache.write_bytes(_shots_path(own, wishes, cache), ("\n".join(lines) + "\n").encode())
    return known


def _wanted_shots(known: KnownShots, wishes: VideoOptions) -> list[Shot]:
    """The shots as they were found, or as the user wants them."""
    starts, count = known
    if wishes.starts is not None:
        starts = [0, *(start for start in wishes.starts if 0 < start < count)]
    return shots_from(starts, count)


class _HeldGrays:
    """The small grays of a film that is being read, so that a short one is not decoded again for them."""

    def __init__(self, video: Video, size: tuple[int, int]) -> None:
        self._info, self._size = video.info, size
        self.grays: list[np.ndarray] | None = []

    def add(self, frame: Frame) -> None:
        if self.grays is not None:
            self.grays.append(small_gray(frame, self._info, self._size))
            if len(self.grays) * self._size[0] * self._size[1] > MOST_HELD_BYTES:
                self.grays = None


def _grays(video: Video, wishes: VideoOptions, size: tuple[int, int]) -> Iterator[np.ndarray]:
    return (small_gray(frame, video.info, size) for frame in _wanted(video, wishes))


def _shots_path(own: str, wishes: VideoOptions, cache: ChromaCache) -> Path:
    facts = {"film": own, "preview": wishes.preview_seconds, "version": chromatune.__version__}
    return cache.folder / SHOTS_FILE.format(name_of(facts))


def _kept_shots(path: Path) -> KnownShots | None:
    try:
        *starts, end = path.read_text(encoding="ascii").split("\n")[:-1]
        return [int(start) for start in starts], int(end.removeprefix("end "))
    except (OSError, ValueError):
        return None


def _parts(own: str, wishes: VideoOptions, shots: Sequence[Shot], hints: Mapping[int, Hints]) -> list[Part]:
    info = model_info(wishes.model)
    options = info.resolve(wishes.options)
    check_recomposed(options)
    facts: dict[str, Any] = {
        "version": chromatune.__version__,
        "film": own,
        "model": [wishes.model, weights_hash(wishes.model), wishes.runtime],
        "options": asdict(options) | {"strength": 1},  # it acts afterwards
        "like": [sha256(check_reference(photo).tobytes()).hexdigest() for photo in wishes.like],
    }
    parts: list[Part] = []
    for shot in shots:
        for start in range(shot.start, shot.stop, MOST_SHOT_FRAMES):
            span = Shot(start, min(shot.stop, start + MOST_SHOT_FRAMES))
            here = {index - start: each for index, each in hints.items() if start <= index < span.stop}
            said = {str(offset): each.to_json() for offset, each in sorted(here.items())}
            before = parts[-1].name if start > shot.start else None
            name = name_of(facts | {"shot": [span.start, span.stop], "hints": said, "before": before})
            parts.append(Part(span, name, here, start > shot.start))
    return parts


def _open_shot_colorizer(wishes: VideoOptions, frame: Photo) -> ShotColorizer:
    workers = usual_workers()
    colorizer = Colorizer.load(wishes.model, device=wishes.device, runtime=wishes.runtime, workers=workers)
    if not colorizer.backend.concurrent:
        workers = 1
    references = tuple(colorizer.reference(photo) for photo in wishes.like)
    return ShotColorizer(colorizer, wishes.options, references, frame, workers)


def _shade(
    parts: Sequence[Part],
    shader: ShotColorizer,
    grays: Iterator[np.ndarray],
    cache: ChromaCache,
    start_stage: StartStage,
) -> None:
    """Takes the shots whose chroma is not there through the model."""
    last = max(index for index, part in enumerate(parts) if part.name not in cache)
    advance = start_stage(_named("colorizing", parts), parts[last].shot.stop)

    def following(count: int) -> Iterator[np.ndarray]:
        for gray in islice(grays, count):
            advance()
            yield gray

    for index, part in enumerate(parts[: last + 1]):
        length = len(part.shot)
        if part.name in cache:
            deque(following(length), maxlen=0)
            continue
        before = cache.read(parts[index - 1].name) if part.continues else None
        cache.write(part.name, shader.shade(following(length), length, part.hints, before))


def shots_of(video: Video, wishes: VideoOptions, *, start_stage: StartStage = silent) -> tuple[Shot, ...]:
    """The shots of a film, kept in the cache, where `colorize_video` finds them again.

    Args:
        video: see `open_video`.
        wishes: whose `cache`, `starts` and `preview_seconds` act here.
        start_stage: is told how far it is.

    Raises:
        VideoError: the film cannot be read, or the cache not be written.
    """
    cache, own = ChromaCache(wishes.cache_folder), fingerprint(video.info.path)
    known = _kept_shots(_shots_path(own, wishes, cache)) or _find_shots(video, own, wishes, cache, start_stage)
    return tuple(_wanted_shots(known, wishes))


def _named(work: str, parts: Sequence[Part]) -> str:
    shots = sum(not part.continues for part in parts)
    return f"{work}, {count_of(shots, 'shot')}"


def _write(video: Video, parts: Sequence[Part], cache: ChromaCache, target: Target, start_stage: StartStage) -> None:
    """Takes every frame to the target, several at the same time."""
    count = parts[-1].shot.stop
    advance = start_stage("writing frames", count)
    frames = islice(video.read(), count)
    workers = usual_workers()
    waiting: deque[tuple[Frame, str, Future[Planes | None]]] = deque()

    def take() -> None:
        frame, name, future = waiting.popleft()
        target.write(frame, name, future.result())
        advance()

    with ThreadPoolExecutor(workers, "write") as pool:
        try:
            for part in parts:
                chroma: ShotChroma | None = None
                for offset, frame in enumerate(islice(frames, len(part.shot))):
                    if target.has(frame, part.name):
                        advance()
                        continue
                    chroma = cache.read(part.name) if chroma is None else chroma
                    target.begin(frame)
                    waiting.append((frame, part.name, pool.submit(_make, target, video, frame, chroma, offset)))
                    if len(waiting) > 2 * workers:
                        take()
            while waiting:
                take()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _make(target: Target, video: Video, frame: Frame, chroma: ShotChroma, offset: int) -> Planes | None:
    height, width = chroma.lumas.shape[1:]
    found = chroma.at(offset, small_gray(frame, video.info, (height, width)))
    return target.make(frame, found)
