"""Photos through every method: the model works on one while others are read and scored, and each score goes to disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from chromatune.colorizer import Colorizer, ModelOutput
from chromatune.errors import MissingExtraError, PhotoError
from chromatune.evaluation import scoring, signatures
from chromatune.evaluation.files import ResultFiles
from chromatune.evaluation.frechet import TRUTH, FeatureFile, Name
from chromatune.evaluation.perceptual import Networks, features, lpips
from chromatune.evaluation.protocol import HELD_OUT, ChosenPhoto
from chromatune.evaluation.rows import GREY, Method, Record
from chromatune.evaluation.scoring import Target
from chromatune.evaluation.settings import EvaluationSettings
from chromatune.files import LineFile
from chromatune.options import ColorizeOptions, make_options

WORKERS = 2  # threads; metrics leave Python's lock for most of their time
AHEAD = 8  # photos read before, and scored after, the one in hand

Taken = TypeVar("Taken")
Given = TypeVar("Given")


@dataclass(frozen=True, eq=False)
class Scored:
    """What is written of one photo under one method.

    Attributes:
        lines: of scores, one a row.
        timing: line of seconds, or None.
        features: for FID, by row; the truth's with grey's.
    """

    lines: list[Record]
    timing: Record | None
    features: dict[Name, np.ndarray]


@dataclass
class Workplace:
    """What all methods share while an evaluation runs.

    Attributes:
        settings: of the evaluation.
        scores: lines of scores, by row and key.
        timings: lines of seconds, by method and key; kept apart, since no two runs measure the same.
        pool: threads that read and score.
        find_face: the detector, or None where it is not installed.
        networks: for LPIPS and FID, where asked for.
        features: for FID, by row and key; None without it.
        advance: called once a method and photo.
    """

    settings: EvaluationSettings
    scores: LineFile
    timings: LineFile
    pool: ThreadPoolExecutor
    find_face: scoring.FaceFinder | None
    networks: Networks = field(default_factory=Networks)
    features: FeatureFile | None = None
    advance: Callable[[], None] = lambda: None
    _loaded: tuple[str, Colorizer] | None = field(default=None, repr=False)

    def colorizer(self, model: str) -> Colorizer:
        """The loaded model; one at a time is kept."""
        if self._loaded is None or self._loaded[0] != model:
            self._loaded = None  # the old one's memory is free before the new one needs it
            self._loaded = model, Colorizer.load(model, device=self.settings.device)
        return self._loaded[1]

    def targets(self, photos: Sequence[ChosenPhoto]) -> Iterator[Target]:
        """The photos read again, in order, some ahead."""
        size_px, find_face = self.settings.size_px, self.find_face
        return ahead(self.pool, lambda photo: scoring.open_target(photo, size_px, find_face), photos)


def cached_face_finder() -> tuple[scoring.FaceFinder | None, str]:
    """The face detector, asked once a photo whatever the number of methods, and its name or why there is none."""
    try:
        find = signatures.face_finder()
    except MissingExtraError as error:
        return None, f"not measured: {error}"
    known: dict[str, signatures.Box | None] = {}

    def find_once(photo: ChosenPhoto, grey: np.ndarray) -> signatures.Box | None:
        if photo.content not in known:
            known[photo.content] = find(grey)
        return known[photo.content]

    return find_once, "LBP cascade lbpcascade_frontalface_opencv"


def options_of(method: Method, settings: EvaluationSettings) -> ColorizeOptions:
    """What the model is asked for."""
    return make_options(prompt=method.prompt, steps=method.steps, seed=settings.seed)


def results_of(
    method: Method, photos: Sequence[ChosenPhoto], place: Workplace
) -> Iterator[tuple[Target, list[np.ndarray] | PhotoError, float | None]]:
    """Each photo's target, its results in the order of `method.rows` (or why there are none), and the model's seconds.

    The model runs once a photo; both rows are made from its output.
    """
    if method.model is not None:
        yield from _of_model(method, photos, place)
        return
    files = None if method.folder is None else ResultFiles(method.folder)
    for target in place.targets(photos):
        if files is None:
            yield target, [scoring.as_grey(target)], None
            continue
        try:
            raw = files.read(target)
            yield target, [scoring.recomposed(raw, target), raw], None
        except PhotoError as error:
            yield target, error, None


def score_method(method: Method, photos: Sequence[ChosenPhoto], place: Workplace) -> None:
    """Scores the photos that have no scores yet, and writes them in the photos' order."""
    missing = [photo for photo in photos if not _is_scored(method, photo, place)]
    for _ in range(len(photos) - len(missing)):
        place.advance()
    scored: deque[Future[Scored]] = deque()
    for target, results, seconds in results_of(method, missing, place):
        scored.append(place.pool.submit(_records, method, target, results, seconds, place.networks))
        while len(scored) > AHEAD or (scored and scored[0].done()):
            _write(scored.popleft(), place)
    while scored:
        _write(scored.popleft(), place)


def ahead(
    pool: ThreadPoolExecutor, function: Callable[[Taken], Given], items: Sequence[Taken], depth: int = AHEAD
) -> Iterator[Given]:
    """`map(function, items)` in order, with at most `depth` results made before they are asked for."""
    running: deque[Future[Given]] = deque()
    for item in items:
        running.append(pool.submit(function, item))
        if len(running) > depth:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def _of_model(
    method: Method, photos: Sequence[ChosenPhoto], place: Workplace
) -> Iterator[tuple[Target, list[np.ndarray] | PhotoError, float | None]]:
    if not photos:
        return
    colorizer, options = place.colorizer(method.model or ""), options_of(method, place.settings)
    raw_options = options.model_copy(update={"recompose": False})
    waiting: deque[Target] = deque()

    def greys() -> Iterator[np.ndarray]:
        for target in place.targets(photos):
            waiting.append(target)
            yield target.grey

    for output in colorizer.model_outputs(greys(), options, batch_size=place.settings.batch_size):
        target = waiting.popleft()
        if isinstance(output, ModelOutput):
            yield target, [colorizer.finish(output, each).rgb for each in (options, raw_options)], output.seconds
        else:
            yield target, output, None


def _is_scored(method: Method, photo: ChosenPhoto, place: Workplace) -> bool:
    if any((row, photo.part, photo.key) not in place.scores for row in method.rows):
        return False
    if place.features is None or photo.part != HELD_OUT:
        return True
    return all((row, photo.key) in place.features for row in _featured(method))


def _featured(method: Method) -> tuple[str, ...]:
    """Rows whose features are kept with this method: grey runs on every photo, so the truth's come with it."""
    return (*method.rows, TRUTH) if method.name == GREY else method.rows


def _records(
    method: Method,
    target: Target,
    results: list[np.ndarray] | PhotoError,
    seconds: float | None,
    networks: Networks,
) -> Scored:
    photo = target.photo
    lines: list[Record] = []
    for index, row in enumerate(method.rows):
        line: Record = {"row": row, "part": photo.part, "key": photo.key}
        if isinstance(results, PhotoError):
            line["failed"] = str(results)
        else:
            line |= scoring.score(results[index], target)
            if networks.lpips is not None:
                line["lpips"] = lpips(networks.lpips, results[index], target.truth)
        lines.append(line)
    found: dict[Name, np.ndarray] = {}
    if networks.fid is not None and photo.part == HELD_OUT and not isinstance(results, PhotoError):
        pictures = zip(_featured(method), [*results, target.truth], strict=False)  # the truth is left over but for grey
        found = {(row, photo.key): features(networks.fid, picture) for row, picture in pictures}
    name = {"method": method.name, "part": photo.part, "key": photo.key}
    return Scored(lines, None if seconds is None else name | {"seconds": seconds}, found)


def _write(future: Future[Scored], place: Workplace) -> None:
    scored = future.result()
    if scored.timing is not None:
        place.timings.append([scored.timing])
    if place.features is not None:
        place.features.append(scored.features)
    place.scores.append(scored.lines)
    place.advance()
