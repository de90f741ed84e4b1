"""Films that are coloured while nobody waits: shots and a still of each, hints on stills, then the whole film."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from chromatune.errors import ChromaTuneError, OptionsError, shown
from chromatune.files.progress import Advance
from chromatune.hints import Hints
from chromatune.options import ColorizeOptions
from chromatune.serving.local import without_paths
from chromatune.serving.predictor import QueueFull
from chromatune.serving.settings import ServeSettings
from chromatune.serving.shelf import Shelf

if TYPE_CHECKING:
    from chromatune.film import Film, FilmWishes, Shot

FilmState = Literal["reading", "ready", "colouring", "done", "failed"]
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
class FilmWork:
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
    state: FilmState = "reading"
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
        """The coloured film's file."""
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


class Films:
    """All films of an app; one at a time is worked at, in a thread of its own."""

    def __init__(self, settings: ServeSettings) -> None:
        """None yet.

        Args:
            settings: limits, models and device.
        """
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, "film")
        self.shelf = Shelf[FilmWork](settings.films, settings.film_minutes, NOT_KEPT, _drop)

    def check_room(self) -> None:
        """Lets go of the film that was not used for longest and is not in work, where there are too many.

        Raises:
            MissingExtraError: what reads films is not installed.
            QueueFull: all are in work.
        """
        from chromatune.film.reading import require_av

        require_av()
        self.shelf.tidy()
        while len(self.shelf) >= self.shelf.most:
            idle = (key for key, work in self.shelf.items() if work.state not in ("reading", "colouring"))
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
        work = FilmWork(name, folder, source)
        self._thread.submit(self._guarded, work, lambda: self._read(work))
        return self.shelf.add(work)

    def colour(self, work: FilmWork, model: str, options: ColorizeOptions, hints: Mapping[int, Hints]) -> None:
        """Begins to colour a film; what has not changed since the last time is not done again.

        Args:
            work: a film whose shots are known.
            model: one of those on offer.
            options: of all frames.
            hints: number of a frame ⇒ what is known of its colours.

        Raises:
            OptionsError: the model is not on offer, or options contradict each other.
        """
        from chromatune.film import FilmWishes

        if model not in self._settings.models:
            offered = ", ".join(self._settings.models)
            raise OptionsError(f"model={shown(model)}: not on offer; accepted: {offered}", "model")
        if not options.recompose:
            raise OptionsError("recompose=False is of photos: a film keeps its own luma; leave it out", "recompose")
        settings = self._settings
        wishes = FilmWishes(
            work.result, settings.source_of(model), options, hints, cache=work.folder / "chroma", overwrite=True,
            device=settings.device, runtime=settings.runtime,
        )  # fmt: skip
        work.state, work.line, work.stage, work.step, work.steps = "colouring", "", "waiting", 0, 0
        self._thread.submit(self._guarded, work, lambda: self._colour(work, wishes))

    def stop(self) -> None:
        """Ends what is in work."""
        self.shelf.clear()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _guarded(self, work: FilmWork, task: Advance) -> None:
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

    def _read(self, work: FilmWork) -> None:
        from chromatune.film import FilmWishes, open_film, shots_of

        film = open_film(work.source)
        pixels = film.info.width_px * film.info.height_px
        if pixels > self._settings.max_pixels:
            raise OptionsError(f"{work.name}: its frames have more than {self._settings.max_megapixels:g} megapixels")
        wishes = FilmWishes(work.result, cache=work.folder / "chroma")
        shots = shots_of(film, wishes, start_stage=work.start_stage)
        work.size, work.frames = (film.info.width_px, film.info.height_px), shots[-1].stop
        work.stills = _draw_stills(work, film, shots)
        work.line, work.state = "; ".join(film.warnings), "ready"

    def _colour(self, work: FilmWork, wishes: FilmWishes) -> None:
        from chromatune.film import colorize_film, open_film

        result = colorize_film(open_film(work.source), wishes, start_stage=work.start_stage)
        work.line, work.state = without_paths("; ".join(result.warnings)), "done"


def _draw_stills(work: FilmWork, film: Film, shots: tuple[Shot, ...]) -> tuple[Still, ...]:
    """Writes the middle frame of each shot as a grey PNG, and says which they are."""
    import numpy as np

    from chromatune.film import grey_of
    from chromatune.images import Photo, encode_photo

    wanted = {(shot.start + shot.stop) // 2: shot for shot in shots[:MOST_STILLS]}
    stills: list[Still] = []
    advance = work.start_stage("drawing stills", max(wanted) + 1)
    for index, frame in zip(range(max(wanted) + 1), film.read(), strict=False):
        advance()
        if index in wanted:
            grey = grey_of(frame.luma, film.info.bits, film.info.full_range)
            work.still_path(frame.number).write_bytes(
                encode_photo(np.repeat(grey[..., None], 3, 2), Photo(grey), "PNG")
            )
            stills.append(Still(wanted[index].start, wanted[index].stop, frame.number))
    return tuple(stills)


def _drop(work: FilmWork) -> None:
    in_work = work.state in ("reading", "colouring")
    work.is_stopped = True  # its thread removes the folder once it has ended
    if not in_work:
        shutil.rmtree(work.folder, ignore_errors=True)
