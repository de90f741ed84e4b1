"""Films that are colored while nobody waits: shots and a still of each, hints on stills, then the whole film."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from chromatune.errors import ChromaTuneError, OptionsError, shown
from chromatune.hints import Hints
from chromatune.options import Advance, ColorizeOptions
from chromatune.serving.local import without_paths
from chromatune.serving.predictor import QueueFull
from chromatune.serving.settings import ServeSettings
from chromatune.serving.shelf import Shelf

if TYPE_CHECKING:
    from chromatune.video import Shot, Video, VideoOptions

VideoState = Literal["reading", "ready", "colorizing", "done", "failed"]
MOST_STILLS = 200  # of a film; the shots after them get none
RESULT_SUFFIX = ".mp4"
NOT_KEPT = "this film is not kept any more; send it again"


class _StoppedError(Exception):
    """The film was let go while it was in work."""


@dataclass(frozen=True)
class Still:
    """The frame that stands for a shot.

    Attributes:
        start: first frame of the shot.
        stop: first frame of the next one.
        frame: number of the still.
    """

    start: int
    stop: int
    frame: int


@dataclass(eq=False)
class VideoWork:
    """One film.

    Attributes:
        name: what the client calls it.
        folder: of its file, its stills, the chroma of its shots, and the result.
        source: its file.
        state: how far it is.
        line: why it failed, or what is to be known of the result.
        stage: what is being done.
        steps: steps of the stage; 0 where nobody knows.
        step: how many of them are done.
        stills: of its shots.
        frames: number of frames.
        size: width and height in pixels.
    """

    name: str
    folder: Path
    source: Path
    state: VideoState = "reading"
    line: str = ""
    stage: str = ""
    steps: int = 0
    step: int = 0
    stills: tuple[Still, ...] = ()
    frames: int = 0
    size: tuple[int, int] = (0, 0)
    is_stopped: bool = field(default=False, repr=False)

    @property
    def result(self) -> Path:
        """The colored film's file."""
        return self.folder / f"result{RESULT_SUFFIX}"

    def still_path(self, frame: int) -> Path:
        """A still's file."""
        return self.folder / f"{frame}.png"

    def start_stage(self, name: str, length: int) -> Advance:
        """See `chromatune.files.progress`; ends the work where the film was let go."""
        self.stage, self.steps, self.step = name, length, 0

        def advance() -> None:
            if self.is_stopped:
                raise _StoppedError
            self.step += 1

        return advance


class Videos:
    """All films of an app; one at a time is worked at, in a thread of its own."""

    def __init__(self, settings: ServeSettings) -> None:
        """None yet.

        Args:
            settings: limits, models and device.
        """
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, "film")
        self.shelf = Shelf[VideoWork](settings.videos, settings.video_minutes, NOT_KEPT, _drop)

    def check_room(self) -> None:
        """Lets go of the film that was not used for longest and is not in work, where there are too many.

        Raises:
            MissingExtraError: what reads films is not installed.
            QueueFull: all are in work.
        """
        from chromatune.video import require_av

        require_av()
        self.shelf.tidy()
        while len(self.shelf) >= self.shelf.most:
            idle = (key for key, work in self.shelf.items() if work.state not in ("reading", "colorizing"))
            key = next(idle, None)
            if key is None:
                raise QueueFull("too many films are in work; come again, or delete one")
            self.shelf.remove(key)

    def start(self, source: Path, folder: Path, name: str) -> str:
        """The id of a film whose shots are looked for from now on.

        Args:
            source: its file.
            folder: of the file; it is removed with the film.
            name: what the client calls it.
        """
        work = VideoWork(name, folder, source)
        self._thread.submit(self._guarded, work, lambda: self._read(work))
        return self.shelf.add(work)

    def color(self, work: VideoWork, model: str, options: ColorizeOptions, hints: Mapping[int, Hints]) -> None:
        """Begins to color a film; what has not changed since the last time is not done again.

        Args:
            work: a film whose shots are known.
            model: one of those on offer.
            options: of all frames.
            hints: number of a frame ⇒ what is known of its colors.

        Raises:
            OptionsError: the model is not on offer, or options contradict each other.
        """
        from chromatune.video import VideoOptions

        if model not in self._settings.models:
            offered = ", ".join(self._settings.models)
            raise OptionsError(f"model={shown(model)}: not on offer; accepted: {offered}", "model")
        if not options.recompose:
            raise OptionsError("recompose=False is of photos: a film keeps its own luma; leave it out", "recompose")
        settings = self._settings
        wishes = VideoOptions(
            work.result, settings.source_of(model), options, hints, cache=work.folder / "chroma", overwrite=True,
            device=settings.device, runtime=settings.runtime,
        )  # fmt: skip
        work.state, work.line, work.stage, work.step, work.steps = "colorizing", "", "waiting", 0, 0
        self._thread.submit(self._guarded, work, lambda: self._color(work, wishes))

    def stop(self) -> None:
        """Ends what is in work."""
        self.shelf.clear()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _guarded(self, work: VideoWork, task: Advance) -> None:
        try:
            if not work.is_stopped:
                task()
        except _StoppedError:
            pass
        except ChromaTuneError as error:
            line = str(error).replace(str(work.source), work.name).replace(str(work.result), work.name)
            work.line, work.state = without_paths(line), "failed"
        except (MemoryError, OSError):
            work.line = f"{work.name}: not enough memory or disk at the moment; send it again"
            work.state = "failed"
        if work.is_stopped:
            shutil.rmtree(work.folder, ignore_errors=True)

    def _read(self, work: VideoWork) -> None:
        from chromatune.video import VideoOptions, open_video, shots_of

        video = open_video(work.source)
        pixels = video.info.width_px * video.info.height_px
        if pixels > self._settings.max_pixels:
            raise OptionsError(f"{work.name}: its frames have more than {self._settings.max_megapixels:g} megapixels")
        wishes = VideoOptions(work.result, cache=work.folder / "chroma")
        shots = shots_of(video, wishes, start_stage=work.start_stage)
        work.size, work.frames = (video.info.width_px, video.info.height_px), shots[-1].stop
        work.stills = _draw_stills(work, video, shots)
        work.line, work.state = "; ".join(video.warnings), "ready"

    def _color(self, work: VideoWork, wishes: VideoOptions) -> None:
        from chromatune.video import colorize_video, open_video

        result = colorize_video(open_video(work.source), wishes, start_stage=work.start_stage)
        work.line, work.state = without_paths("; ".join(result.warnings)), "done"


def _draw_stills(work: VideoWork, video: Video, shots: tuple[Shot, ...]) -> tuple[Still, ...]:
    """Writes the middle frame of each shot as a gray PNG, and says which they are."""
    import numpy as np

    from chromatune.images import Photo, encode_photo
    from chromatune.video import gray_of

    wanted = {(shot.start + shot.stop) // 2: shot for shot in shots[:MOST_STILLS]}
    stills: list[Still] = []
    advance = work.start_stage("drawing stills", max(wanted) + 1)
    for index, frame in zip(range(max(wanted) + 1), video.read(), strict=False):
        advance()
        if index in wanted:
            gray = gray_of(frame.luma, video.info.bits, video.info.full_range)
            work.still_path(frame.number).write_bytes(
                encode_photo(np.repeat(gray[..., None], 3, 2), Photo(gray), "PNG")
            )
            stills.append(Still(wanted[index].start, wanted[index].stop, frame.number))
    return tuple(stills)


def _drop(work: VideoWork) -> None:
    in_work = work.state in ("reading", "colorizing")
    work.is_stopped = True  # its thread removes the folder once it has ended
    if not in_work:
        shutil.rmtree(work.folder, ignore_errors=True)
