"""A video through one model: its shots, their chroma in a cache, and every frame."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import chromatune
from chromatune.colorizer import Colorizer
from chromatune.errors import OptionsError, PhotoError, VideoError, count_of, printable
from chromatune.files import prefetch
from chromatune.hints import Hints, Reference, check_reference
from chromatune.images import Photo, Provenance
from chromatune.options import StartStage, check_recompose, silent
from chromatune.pipeline import ModelInfo, hash_if_quick, model_info, usual_workers, weights_hash
from chromatune.recoloring import left_out
from chromatune.results import provenance_of, provenance_of_pass
from chromatune.video.chroma_cache import ChromaCache, KnownShots, fingerprint
from chromatune.video.color_sources import FinishedColors, KeyframeColors, ModelColors, keyframe_size
from chromatune.video.frame_matching import match_films, not_this_video
from chromatune.video.held_frames import HeldFrames
from chromatune.video.options import VideoOptions
from chromatune.video.shot_colorizer import ShotChroma, ShotColorizer
from chromatune.video.shots import Shot, find_shots, shots_from, thumbnail_of
from chromatune.video.stills import NEAREST, ShotStills, Still, stills_by_index, stills_of
from chromatune.video.video import Frame, Video
from chromatune.video.writing import FrameWriter, open_writer
from chromatune.video.yuv import small_gray

CACHE_SUFFIX = ".chroma"
MOST_SEGMENT_FRAMES = 3000  # longer shots are colored in segments: memory stays bounded


@dataclass(frozen=True)
class Segment:
    """A shot, or a part of a very long one.

    Attributes:
        shot: its frames.
        cache_key: of its chroma.
        hints: by the offset of their frame.
        continues: whether it continues the shot of the segment before.
        stills: finished frames that give colors to it.
    """

    shot: Shot
    cache_key: str
    hints: Mapping[int, Hints]
    continues: bool
    stills: ShotStills


@dataclass(frozen=True)
class VideoResult:
    """A colorized video.

    Attributes:
        out: file or folder.
        shots: all of them.
        frames: number of frames.
        colored_shots: number of shots that went through the model; the others were there from an earlier run.
        warnings: what the user should know, a line each.
    """

    out: Path
    shots: tuple[Shot, ...]
    frames: int
    colored_shots: int
    warnings: tuple[str, ...]


def colorize_video(
    video: Video,
    options: VideoOptions,
    *,
    start_stage: StartStage = silent,
    warn: Callable[[str], None] = lambda line: None,
) -> VideoResult:
    """Colorize a video; a run after an interruption resumes, and ends with the same frames.

    Args:
        video: see `open_video`.
        options: model, hints and result.
        start_stage: opens the progress of each stage.
        warn: gets each of the result's warnings as soon as it is known: what the result cannot hold, before any work.

    Raises:
        VideoError: the video cannot be read, or the result not be written.
        OptionsError: options contradict each other or do not fit the video.
        PhotoError: hints do not fit the frames, or a reference is gray.
        ModelError: the model cannot be loaded.
    """
    run = VideoRun(video, options, start_stage=start_stage)
    run.check_paths()
    with open_writer(
        options.out,
        video.info,
        codec=options.codec,
        strength=options.colorize_options.strength,
        overwrite=options.overwrite,
        record_folder=run.cache.folder,
        preview_seconds=options.preview_seconds,
        provenance=run.provenance,
    ) as writer:
        early = (*writer.warnings, *(left_out(options.colorize_options) if options.model is None else ()))
        for line in early:
            warn(line)
        run.colorize_shots()
        run.write_frames(writer)
    later = (*video.warnings, *run.warnings)
    for line in later:
        warn(line)
    return VideoResult(options.out, run.shots, run.frames, run.colored_shots, (*early, *later))


def shots_of(video: Video, options: VideoOptions, *, start_stage: StartStage = silent) -> tuple[Shot, ...]:
    """Return the shots of a video, and cache them where `colorize_video` finds them again.

    Args:
        video: see `open_video`.
        options: of which `cache`, `starts` and `preview_seconds` act here.
        start_stage: opens the progress of each stage.

    Raises:
        VideoError: the video cannot be read, or the cache not be written.
    """
    return VideoRun(video, options, start_stage=start_stage).find_shots()


class VideoRun:
    """One video through one model: `find_shots`, `colorize_shots`, then `write_frames`.

    Attributes:
        video: see `open_video`.
        options: model, hints and result.
        cache: the chroma of shots.
        shots: all of them, once they are found.
        segments: the same, very long ones in segments, once they are colored.
        colored_shots: number of shots that went through the model.
        warnings: of the model, a line each.
    """

    def __init__(self, video: Video, options: VideoOptions, *, start_stage: StartStage = silent) -> None:
        """Read nothing yet; see `colorize_video` for the arguments."""
        self.video, self.options = video, options
        self.cache = ChromaCache(options.cache or options.out.with_name(options.out.name + CACHE_SUFFIX))
        self.shots: tuple[Shot, ...] = ()
        self.segments: tuple[Segment, ...] = ()
        self.colored_shots = 0
        self.warnings: tuple[str, ...] = ()
        self._start_stage = start_stage
        self._frames = HeldFrames(video, options.preview_seconds, self.cache.folder)
        self._colors: ModelColors | None = None
        self._stills: dict[int, Still] = {}
        self._photo = Photo(np.zeros((video.info.height_px, video.info.width_px), np.uint8))  # hints are in its pixels

    @property
    def frames(self) -> int:
        """Number of frames, once the shots are found."""
        return self.shots[-1].stop if self.shots else 0

    def check_paths(self) -> None:
        """Check that the result may be written.

        Raises:
            VideoError: it would replace something, or its folder does not exist.
        """
        out, name = self.options.out, printable(str(self.options.out))
        for path in (out, self.cache.folder):
            if os.path.realpath(path) == os.path.realpath(self.video.info.path):
                raise VideoError(f"{name} is the video itself, which is never replaced; give another path")
        if not out.parent.is_dir():
            raise VideoError(f"{name}: its folder does not exist; make it first")
        if out.suffix:
            if out.is_dir():
                raise VideoError(f"{name} is a folder; give a file, or a folder without a suffix for frames")
            if not self.options.overwrite and os.path.lexists(out):
                raise VideoError(f"{name} exists; give another name, or --overwrite")
        elif out.is_file():
            raise VideoError(f"{name} is a file without a suffix; give a name such as {name}.mp4, or a folder")

    def find_shots(self) -> tuple[Shot, ...]:
        """Return the shots: those of the options, else of an earlier run, else found by a reading of the video."""
        starts, count = self._cached_shots() or self._detect_shots()
        if self.options.starts is not None:
            starts = [0, *(start for start in self.options.starts if 0 < start < count)]
        self.shots = tuple(shots_from(starts, count))
        return self.shots

    def colorize_shots(self) -> None:
        """Take those shots through the model whose chroma is not in the cache; nothing is written to `options.out`."""
        hints = self._hints_by_index()
        self._check_options()
        if self._cached_shots() is None:
            if self.options.model is not None:
                self._model_colors()  # where it cannot be loaded, the video need not be read
            self._frames.keep_small(*keyframe_size(self._photo, self._colors))
        self.find_shots()
        self._stills = stills_by_index(self.options.stills, self.video, self._frames)
        for what, indices in (("hint", hints), ("still", self._stills)):
            late = [index for index in indices if index >= self.frames]
            if late:
                raise OptionsError(f"a {what} is on frame {late[0]}; the frames are 0 to {self.frames - 1}", what)
        self.segments = tuple(self._split(hints))
        missing = [segment for segment in self.segments if segment.cache_key not in self.cache]
        if missing:
            self._colorize(missing)
        self.colored_shots = sum(not segment.continues for segment in missing)

    def _check_options(self) -> None:
        options = self.options.colorize_options
        check_recompose(options if self._info is None else self._info.resolve(options), "a video needs")
        if options.invert:
            raise OptionsError("a video cannot be inverted; leave out --invert (invert=False)", "invert")
        if options.variant > 1:
            raise OptionsError("a video has no variants; leave out --variant (variant=1)", "variant")
        if self._info is None and self.options.colors is None:
            raise OptionsError("a video needs a model, or a finished film for its colors", "model")
        if self._info is None and (self.options.like or self.options.stills):
            raise OptionsError("references and stills need a model; name one with --model", "model")

    def write_frames(self, writer: FrameWriter) -> None:
        """Color every frame with its shot's chroma, several at the same time, and write them in their order."""
        advance = self._start_stage("writing frames", self.frames)
        frames = iter(self._frames)
        workers = usual_workers()

        def unwritten() -> Iterator[tuple[Frame, int, str, ShotChroma]]:
            """Frames, with their offset in the segment, and its key and chroma."""
            for segment in self.segments:
                key = segment.cache_key
                chroma: ShotChroma | None = None
                for offset, frame in enumerate(self._exactly(frames, len(segment.shot))):
                    if writer.has(frame, key):
                        advance()
                        continue
                    chroma = self.cache.read(key, len(segment.shot)) if chroma is None else chroma
                    yield frame, offset, key, chroma

        def make(item: tuple[Frame, int, str, ShotChroma]) -> tuple[Frame, str, Any]:
            frame, offset, key, chroma = item
            height, width = chroma.lumas.shape[1:]
            small = small_gray(frame, self.video.info, (height, width))
            return frame, key, writer.make(frame, chroma.at(offset, small))

        with (
            ThreadPoolExecutor(workers, "frames") as pool,
            closing(prefetch(pool, make, unwritten(), 2 * workers)) as made_frames,
        ):
            for frame, key, made in made_frames:
                writer.write(frame, key, made)
                advance()
        if next(frames, None) is not None:  # if not, the reading is complete, and knows its warnings
            raise self._other_count()
        writer.finish()

    def _exactly(self, frames: Iterator[Frame], count: int) -> Iterator[Frame]:
        """The next frames, of which there must be that many."""
        taken = 0
        for frame in islice(frames, count):
            taken += 1
            yield frame
        if taken < count:
            raise self._other_count()

    def _other_count(self) -> VideoError:
        name, folder = printable(str(self.video.info.path)), printable(str(self.cache.folder))
        return VideoError(
            f"{name}: does not have the {self.frames} frames that it had when its shots were found; delete the cache "
            f"{folder}, and run again"
        )

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.video.info.path)

    def _hints_by_index(self) -> dict[int, Hints]:
        """Hints by the position of their frame, checked against its size."""
        found: dict[int, Hints] = {}
        for number, hints in self.options.hints.items():
            index = self.video.index_of(number)
            if index is None:
                raise OptionsError(f"a hint is on frame {number}, and no frame has that number", "hint")
            try:
                hints.check(self._photo)
            except PhotoError as error:
                raise PhotoError(str(error).replace("photo:", f"frame {number}:", 1)) from error
            found[index] = hints
        return found

    @cached_property
    def _shots_key(self) -> str:
        facts = {"video": self._fingerprint, "preview": self.options.preview_seconds, "version": chromatune.__version__}
        return self.cache.key(facts)

    def _cached_shots(self) -> KnownShots | None:
        return self.cache.read_shots(self._shots_key)

    def _detect_shots(self) -> KnownShots:
        """Find the shots by a reading of the whole video, and cache them."""
        info = self.video.info
        advance = self._start_stage("finding shots", info.expected_frames or 0)

        def thumbnails() -> Iterator[np.ndarray]:
            for frame in self._frames:
                advance()
                yield thumbnail_of(frame, info)

        shots = find_shots(thumbnails())
        starts, count = [shot.start for shot in shots], shots[-1].stop
        self.cache.write_shots(self._shots_key, starts, count)
        return starts, count

    @property
    def provenance(self) -> Provenance | None:
        """How the result is made, for its file."""
        options, info = self.options, self._info
        if not options.colorize_options.provenance:
            return None
        hints = "".join(f"{number} {each.to_json()}\n" for number, each in sorted(options.hints.items()))
        given = {
            "finished film": options.colors is not None,
            "model": info is not None,
            "finished stills": bool(options.stills),
            "reference": bool(options.like),
            "hints": bool(hints),
        }
        sources = [source for source, is_given in given.items() if is_given]
        if info is None:
            return provenance_of(
                sources, options=options.colorize_options.model_dump(exclude_defaults=True), hints=hints
            )
        return provenance_of_pass(info, info.resolve(options.colorize_options), hash_if_quick(info), sources, hints)

    @cached_property
    def matches(self) -> np.ndarray:
        """The frame of the finished film that shows what each of the video's shows: see `match_frames`.

        Raises:
            VideoError: it cannot be read, or is one of another video.
        """
        assert self.options.colors is not None
        return match_films(self.video, self._frames, self.options.colors, self.shots, self._start_stage)

    @cached_property
    def _info(self) -> ModelInfo | None:
        return None if self.options.model is None else model_info(self.options.model)

    def _split(self, hints: Mapping[int, Hints]) -> Iterator[Segment]:
        """The shots in segments; a cache key is of all that decides a chroma, also of the segment that it continues."""
        options = self.options
        facts = {
            "version": chromatune.__version__,
            "video": self._fingerprint,
            **self._model_facts(),
            "colors": None if options.colors is None else fingerprint(options.colors.info.path),
            "like": [hashlib.sha256(check_reference(photo).tobytes()).hexdigest() for photo in options.like],
        }
        for shot in self.shots:
            before: str | None = None
            for start in range(shot.start, shot.stop, MOST_SEGMENT_FRAMES):
                span = Shot(start, min(shot.stop, start + MOST_SEGMENT_FRAMES))
                own = {index - start: each for index, each in hints.items() if start <= index < span.stop}
                hint_facts = {str(offset): each.to_json() for offset, each in sorted(own.items())}
                stills = stills_of(span, self._stills)
                own_facts = {"shot": [span.start, span.stop], "hints": hint_facts, "stills": stills.facts()}
                key = self.cache.key(facts | own_facts | {"before": before})
                yield Segment(span, key, own, start > shot.start, stills)
                before = key

    def _model_facts(self) -> dict[str, Any]:
        """What of the model and its options decides a chroma; strength and provenance act when frames are written."""
        options, info = self.options, self._info
        if info is None or options.model is None:
            acting = options.colorize_options
            return {"model": None, "options": {"reach": acting.hint_reach, "strength": acting.hint_strength}}
        read, _ = info.read(info.resolve(options.colorize_options))  # what the model gets, not how it was said
        return {
            "model": [options.model, weights_hash(options.model), options.runtime],
            "options": asdict(read) | {"strength": 1, "provenance": True},
        }

    def _colorize(self, missing: Sequence[Segment]) -> None:
        """Color the segments whose chroma is not in the cache."""
        colors = self._keyframe_colors()
        options = self.options.colorize_options
        acting = options if self._info is None else self._info.resolve(options)
        shot_colorizer = ShotColorizer(colors, self._photo, acting.hint_reach, acting.hint_strength)
        last = self.segments.index(missing[-1])
        advance = self._start_stage(f"colorizing, {count_of(len(self.shots), 'shot')}", self.segments[last].shot.stop)
        frames, info, size = self._frames.small(), self.video.info, colors.size
        wrong: list[str] = []

        def grays(count: int) -> Iterator[np.ndarray]:
            for frame in self._exactly(frames, count):
                advance()
                yield small_gray(frame, info, size)

        before: tuple[str, int] | None = None
        for segment in self.segments[: last + 1]:
            length, key = len(segment.shot), segment.cache_key
            if key in self.cache:
                for _ in self._exactly(frames, length):
                    advance()
            else:
                chroma = shot_colorizer.colorize_shot(
                    grays(length),
                    length,
                    segment.hints,
                    self.cache.read(*before) if segment.continues and before is not None else None,
                    start=segment.shot.start,
                    stills=self._with_references(segment.stills),
                    warn=wrong.append,
                )
                self.cache.write(key, chroma)
            before = key, length
        next(frames, None)  # after the last segment the reading is then complete, and its frames are held
        if isinstance(colors, FinishedColors) and len(missing) == len(self.segments):
            self._check_finished(colors)
        self.warnings = (*self._warnings_of(colors), *wrong)

    def _check_finished(self, colors: FinishedColors) -> None:
        """Check that a finished film had colors for the video; if not, forget what was found of it."""
        if colors.used and colors.in_color:
            return
        for segment in self.segments:
            self.cache.discard(segment.cache_key)
        if not colors.used:
            raise not_this_video(colors.film)
        name = printable(str(colors.film.info.path))
        raise VideoError(f"{name} is gray, or of one tint, and gives no colors; give a film in color")

    def _warnings_of(self, colors: KeyframeColors) -> tuple[str, ...]:
        """Lines of the model, and on what the finished film does not have."""
        found: tuple[str, ...] = ()
        if self._colors is not None:
            model = self._colors.colorizer
            found = model.backend.warnings_of(model.info.resolve(self.options.colorize_options))
        if isinstance(colors, FinishedColors):
            found += colors.warnings
        return found

    def _keyframe_colors(self) -> KeyframeColors:
        """What colors keyframes: the finished film, laid on the video, or the model."""
        model = None if self.options.model is None else self._model_colors()
        film = self.options.colors
        if film is None:
            assert model is not None
            return model
        return FinishedColors(film, self.matches, self._photo, usual_workers(), model)

    def _model_colors(self) -> ModelColors:
        """The model, which is loaded once."""
        options, workers = self.options, usual_workers()
        if self._colors is None:
            assert options.model is not None
            colorizer = Colorizer.load(options.model, device=options.device, runtime=options.runtime, workers=workers)
            if not colorizer.backend.concurrent:
                workers = 1
            references = tuple(colorizer.reference(photo) for photo in options.like)
            self._colors = ModelColors(colorizer, options.colorize_options, references, self._photo, workers)
        return self._colors

    def _with_references(self, stills: ShotStills) -> ShotStills:
        """Stills of other shots, as references, too, where the model can compare photos."""
        if not stills.others or self._colors is None:
            return stills
        return stills.with_references(self._reference)

    @cached_property
    def _reference(self) -> Callable[[Photo], Reference]:
        """See `Colorizer.reference`; shots have most of their nearest stills in common."""
        assert self._colors is not None
        return lru_cache(maxsize=2 * NEAREST)(self._colors.colorizer.reference)
