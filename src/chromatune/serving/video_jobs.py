"""Videos of clients: their files, their shots, and the work on them in the background."""

from __future__ import annotations

import logging
import math
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from chromatune.errors import ChromaTuneError, VideoError
from chromatune.hints import Hints
from chromatune.options import Advance, ColorizeOptions, check_recompose
from chromatune.serving.local import without_paths
from chromatune.serving.settings import ServeSettings
from chromatune.serving.store import SessionStore

if TYPE_CHECKING:
    from chromatune.video import Shot, Video, VideoLimits, VideoOptions

LOG = logging.getLogger(__name__)
VideoState = Literal["reading", "ready", "colorizing", "done", "failed"]
IN_PROGRESS: tuple[VideoState, ...] = ("reading", "colorizing")
MAX_STILLS = 200  # of a video; the shots after them get none
FILES_FACTOR = 2  # times the largest video: all files of one, with stills, chroma and result
STEPS_A_LOOK = 50  # frames between two looks at its files
SHORT_VIDEO_PIXELS = 1.5e9  # of all frames: three minutes of 640 × 480; longer ones wait for each other alone
RESULT_SUFFIX = ".mp4"
NOT_STORED = "this video does not exist or has expired; send it again"
FULL = "too many videos in progress; try again later, or delete one"


class _Stopped(Exception):
    """The video was removed, or its run was cancelled, while it was in progress."""


class _TooLong(Exception):
    """The video is too long for the thread of short ones."""


class ShotStatus(BaseModel):
    """A shot, from its first frame to the next one's, and the frame that represents it."""

    start: int
    stop: int
    frame: int


@dataclass(eq=False)
class VideoJob:
    """One video.

    Attributes:
        name: the client's name of it.
        folder: of its file, its stills, the chroma of its shots, and the result.
        source: its file.
        state: its progress.
        line: why it failed, or warnings about the result.
        stage: the work in progress.
        steps: steps of the stage; 0 where the number is unknown.
        step: how many of them are done.
        shots: in order; the first `MAX_STILLS`.
        frames: number of frames.
        size: width and height in pixels.
        max_bytes: of all files in `folder`.
        short_pixels: how many more it may take in the thread of short videos; negative to wait for that of long ones.
        is_worked_on: whether a thread uses its files.
        stopped: set where it was removed.
        cancelled: set where its run was cancelled, until the thread that works on it has noticed.
        lock: of both.
    """

    name: str
    folder: Path
    source: Path
    state: VideoState = "reading"
    line: str = ""
    stage: str = ""
    steps: int = 0
    step: int = 0
    shots: list[ShotStatus] = field(default_factory=list)
    frames: int = 0
    size: tuple[int, int] = (0, 0)
    max_bytes: float = math.inf
    short_pixels: float = math.inf
    is_worked_on: bool = False
    stopped: threading.Event = field(default_factory=threading.Event, repr=False)
    cancelled: threading.Event = field(default_factory=threading.Event, repr=False)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def result(self) -> Path:
        """The colored video's file."""
        return self.folder / f"result{RESULT_SUFFIX}"

    def still_path(self, frame: int) -> Path:
        """Return a still's file."""
        return self.folder / f"{frame}.png"

    @property
    def pixels(self) -> int:
        """Pixels of a frame."""
        return self.size[0] * self.size[1]

    @property
    def stored_bytes(self) -> int:
        """Bytes of all its files."""
        total = 0
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):  # it was renamed
                total += path.stat().st_size
        return total

    def shown(self, line: str) -> str:
        """Return a line as the client may see it: with its name of the video, and without folders of this machine."""
        return without_paths(line.replace(str(self.source), self.name).replace(str(self.result), self.name))

    def start_stage(self, name: str, length: int) -> Advance:
        """Begin a stage; the result counts one of its steps, and ends the work where the video was removed.

        It raises what ends the work, too, where the video is too long for the thread of short ones, or its files
        become too large.
        """
        self.stage, self.steps, self.step = name, length, 0

        def advance() -> None:
            if self.stopped.is_set() or self.cancelled.is_set():
                raise _Stopped
            self.step += 1
            self.short_pixels -= self.pixels
            if self.short_pixels < 0:
                raise _TooLong
            if self.step % STEPS_A_LOOK == 0 and self.stored_bytes > self.max_bytes:
                raise VideoError(
                    f"{self.name}: its files take more than {self.max_bytes / 1e6:g} MB here; send a shorter video"
                )

        return advance

    def end_run(self) -> None:
        """Note that a run was cancelled: the video is as it was before."""
        self.cancelled.clear()
        self.state = "done" if self.result.exists() else "ready"

    def remove(self) -> None:
        """End the work on it, and delete its files: now, or once the thread that works on it has noticed."""
        with self.lock:
            self.stopped.set()
            if not self.is_worked_on:
                shutil.rmtree(self.folder, ignore_errors=True)


class Videos:
    """All videos of an app; a short one and a long one at a time are processed, in a thread each."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._short, self._long = ThreadPoolExecutor(1, "short-video"), ThreadPoolExecutor(1, "long-video")
        self.store = SessionStore[VideoJob](
            settings.videos, settings.video_minutes, NOT_STORED, VideoJob.remove, full=FULL,
            is_busy=lambda job: job.state in IN_PROGRESS,
        )  # fmt: skip

    @contextmanager
    def place(self) -> Iterator[None]:
        """Keep a place for a video free while it is uploaded; those that are not in progress make room.

        Raises:
            MissingExtraError: the library that reads videos is not installed.
            QueueFull: all are in progress.
        """
        from chromatune.video import require_av

        require_av()
        with self.store.reserved():
            yield

    def start(self, source: Path, folder: Path, name: str) -> str:
        """Begin to look for the shots of a video, a file in `folder`, and return its id."""
        max_bytes = FILES_FACTOR * self._settings.max_video_mb * 1e6
        job = VideoJob(name, folder, source, max_bytes=max_bytes, short_pixels=SHORT_VIDEO_PIXELS)
        key = self.store.add(job)
        self._submit(job, lambda: self._read(job))
        return key

    def colorize(self, job: VideoJob, model: str, options: ColorizeOptions, hints: Mapping[int, Hints]) -> None:
        """Begin to colorize a video; unchanged shots of an earlier run are not computed again.

        Args:
            job: a video whose shots are known.
            model: one of those offered.
            options: of all frames.
            hints: number of a frame ⇒ its known colors.

        Raises:
            OptionsError: the model is not offered, or options contradict each other.
        """
        from chromatune.video import VideoOptions

        settings = self._settings
        settings.check_offered(model)
        check_recompose(options, "a video needs")
        video_options = VideoOptions(
            job.result, settings.source_of(model), options, hints, cache=job.folder / "chroma", overwrite=True,
            device=settings.device, runtime=settings.runtime,
        )  # fmt: skip
        job.state, job.line = "colorizing", ""
        job.cancelled.clear()
        job.short_pixels = math.inf if job.frames * job.pixels <= SHORT_VIDEO_PIXELS else -1  # its length is known
        self._submit(job, lambda: self._colorize(job, video_options))

    def stop(self) -> None:
        """Remove all videos and end the work on them."""
        self.store.clear()
        for thread in (self._short, self._long):
            thread.shutdown(wait=True, cancel_futures=True)

    def _submit(self, job: VideoJob, task: Callable[[], None]) -> None:
        job.stage, job.step, job.steps = "waiting", 0, 0
        is_long = job.short_pixels < 0
        if is_long:
            job.short_pixels = math.inf
        (self._long if is_long else self._short).submit(self._guarded, job, task)

    def _guarded(self, job: VideoJob, task: Callable[[], None]) -> None:
        with job.lock:
            if job.stopped.is_set():
                return
            if job.cancelled.is_set():
                job.end_run()
                return
            job.is_worked_on = True
        is_too_long = False
        try:
            task()
        except _Stopped:
            pass
        except _TooLong:
            is_too_long = True
        except ChromaTuneError as error:
            job.line, job.state = job.shown(str(error)), "failed"
        except (MemoryError, OSError) as error:
            LOG.warning("a video failed for want of memory or disk space: %r", error)
            job.line = f"{job.name}: not enough memory or disk space at the moment; send it again"
            job.state = "failed"
        except Exception:
            LOG.exception("a video failed")
            job.line, job.state = f"{job.name}: an error of the server; its log has more", "failed"
        with job.lock:
            job.is_worked_on = False
            if job.stopped.is_set() or (job.state == "failed" and not job.frames):  # nobody can do anything with it
                shutil.rmtree(job.folder, ignore_errors=True)
            elif is_too_long:
                job.short_pixels = -1
                self._submit(job, task)
            elif job.cancelled.is_set() and job.state == "colorizing":
                job.end_run()

    @property
    def _limits(self) -> VideoLimits:
        from chromatune.video import VideoLimits

        settings = self._settings
        max_pixels = min(settings.max_pixels, round(settings.max_video_megapixels * 1e6))
        return VideoLimits(max_pixels, settings.max_video_frames, settings.max_video_minutes * 60)

    def _read(self, job: VideoJob) -> None:
        from chromatune.video import VideoOptions, open_video, shots_of

        video = open_video(job.source, limits=self._limits)
        job.size = video.info.width_px, video.info.height_px
        if (video.info.expected_frames or 0) * job.pixels > job.short_pixels:
            raise _TooLong
        video_options = VideoOptions(job.result, cache=job.folder / "chroma")
        shots = shots_of(video, video_options, start_stage=job.start_stage)
        job.shots = _write_stills(job, video, shots, self._settings.max_video_mb * 1e6)
        job.frames = shots[-1].stop
        job.line, job.state = job.shown("; ".join(video.warnings)), "ready"

    def _colorize(self, job: VideoJob, video_options: VideoOptions) -> None:
        from chromatune.video import colorize_video, open_video

        if job.stored_bytes > job.max_bytes / FILES_FACTOR:  # room for another run: not all of the last ones is kept
            for chroma in (job.folder / "chroma").glob("*.npz"):
                chroma.unlink()
        video = open_video(job.source, limits=self._limits)
        result = colorize_video(video, video_options, start_stage=job.start_stage)
        job.line, job.state = job.shown("; ".join(result.warnings)), "done"


def _write_stills(job: VideoJob, video: Video, shots: tuple[Shot, ...], max_bytes: float) -> list[ShotStatus]:
    """Write the middle frame of each shot as a gray PNG, and return the shots with its number.

    The first `MAX_STILLS` shots get one, and no more of them than fit on the disk: with the video's file, stills take
    `max_bytes`.
    """
    import numpy as np

    from chromatune.images import Photo, encode_photo
    from chromatune.video import gray_of

    wanted = {(shot.start + shot.stop) // 2: shot for shot in shots[:MAX_STILLS]}
    written: list[ShotStatus] = []
    left_bytes = max_bytes - job.source.stat().st_size
    advance = job.start_stage("writing stills", max(wanted) + 1)
    for index, frame in zip(range(max(wanted) + 1), video.read(), strict=False):
        advance()
        if index not in wanted:
            continue
        gray = gray_of(frame.luma, video.info.bits, video.info.full_range)
        still = encode_photo(np.repeat(gray[..., None], 3, 2), Photo(gray), "PNG")
        left_bytes -= len(still)
        if left_bytes < 0:
            break
        job.still_path(frame.number).write_bytes(still)
        written.append(ShotStatus(start=wanted[index].start, stop=wanted[index].stop, frame=frame.number))
    return written
