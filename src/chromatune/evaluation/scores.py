"""Photos through every method: the model works on one while others are read and scored, and each score goes to disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from chromatune import color
from chromatune.colorizer import Colorizer, ModelOutput, Request
from chromatune.errors import DataError, MissingExtraError, PhotoError
from chromatune.evaluation import metrics, signatures
from chromatune.evaluation.hint_points import hints_of_truth
from chromatune.evaluation.methods import GRAY_ROW, Method, Record, ResultFiles
from chromatune.evaluation.perceptual import TRUTH, FeatureFile, Name, Networks, features, lpips
from chromatune.evaluation.protocol import HELD_OUT, ChosenPhoto, center_square, content_of
from chromatune.evaluation.settings import EvaluationSettings
from chromatune.files import LineFile
from chromatune.hints import HintedChroma, Hints
from chromatune.images import Photo
from chromatune.options import Advance, ColorizeOptions, make_options

WORKERS = 2  # threads; metrics leave Python's lock for most of their time
AHEAD = 8  # photos read before, and scored after, the one in hand

FaceFinder = Callable[[ChosenPhoto, np.ndarray], signatures.Box | None]
Scores = dict[str, float | None]
Taken = TypeVar("Taken")
Given = TypeVar("Given")


@dataclass(frozen=True, eq=False)
class Target:
    """What a photo's results are compared with.

    Attributes:
        photo: where it is from.
        reference: the truth, its center square, and what comparisons need of it.
        gray: (S, S) uint8, Rec.601 luma of the truth: what is colorized.
        near_edges: (S, S) bool, where a chroma edge would follow one of luma.
        full_size: height and width of the whole photo, in pixels.
        face: where a face is in the square, if one was looked for and found.
        own: scores of the truth itself: "truth_cf_field", "truth_cf_signed", "truth_bleeding".
    """

    photo: ChosenPhoto
    reference: metrics.Reference
    gray: np.ndarray
    near_edges: np.ndarray
    full_size: tuple[int, int]
    face: signatures.Box | None
    own: Scores

    @property
    def truth(self) -> np.ndarray:
        """(S, S, 3) uint8 sRGB."""
        return self.reference.rgb_u8

    @property
    def gray_rgb(self) -> np.ndarray:
        """The input as a result: (S, S, 3) uint8 sRGB, three equal channels."""
        return np.repeat(self.gray[..., None], 3, axis=2)


def open_target(photo: ChosenPhoto, size_px: int, find_face: FaceFinder | None) -> Target:
    """The photo read again, as the target of its results.

    Raises:
        DataError: it cannot be read any more, or has other pixels than when it was chosen.
    """
    try:
        rgb_u8 = photo.read()
    except PhotoError as error:
        raise DataError(f"{photo.key}: could be read when it was chosen and cannot any more ({error})") from error
    if content_of(rgb_u8) != photo.content:
        raise DataError(f"{photo.key}: has changed while it was being measured; leave the source alone and start again")
    truth = center_square(rgb_u8, size_px)
    gray = color.luma(truth)
    near_edges = signatures.near_luma_edges(gray)
    cf_field, cf_signed = metrics.colorfulness_variants(truth)
    own: Scores = {
        "truth_cf_field": cf_field,
        "truth_cf_signed": cf_signed,
        "truth_bleeding": signatures.bleeding_away_from(near_edges, truth),
    }
    face = None if find_face is None else find_face(photo, gray)
    height, width = rgb_u8.shape[:2]
    return Target(photo, metrics.reference_of(truth), gray, near_edges, (height, width), face, own)


def score(result: np.ndarray, target: Target) -> Scores:
    """All scores of a result, (S, S, 3) uint8 sRGB; "skin_ciede2000" is None without a face."""
    found, distances = metrics.scores_against(result, target.reference, target.gray)
    return {
        **found,
        "bleeding": signatures.bleeding_away_from(target.near_edges, result),
        "skin_ciede2000": None if target.face is None else signatures.skin_distance(distances, target.face),
        **target.own,
    }


def cached_face_finder() -> tuple[FaceFinder | None, str]:
    """The face detector, asked once a photo whatever the number of methods, and its name or why there is none."""
    try:
        find = signatures.face_finder()
    except MissingExtraError as error:
        return None, f"not measured: {error}"
    known: dict[str, signatures.Box | None] = {}

    def find_once(photo: ChosenPhoto, gray: np.ndarray) -> signatures.Box | None:
        if photo.content not in known:
            known[photo.content] = find(gray)
        return known[photo.content]

    return find_once, "LBP cascade lbpcascade_frontalface_opencv"


@dataclass(frozen=True, eq=False)
class MethodResults:
    """What one method made of one photo.

    Attributes:
        target: what it is compared with.
        pictures: (S, S, 3) uint8 sRGB each, in the order of `Method.rows`; or why there are none.
        seconds: wall time of the model's pass; None without a model.
    """

    target: Target
    pictures: list[np.ndarray] | PhotoError
    seconds: float | None = None


@dataclass(frozen=True, eq=False)
class PhotoScores:
    """What is written of one photo under one method.

    Attributes:
        lines: of scores, one a row.
        timing: line of seconds, or None.
        features: for FID, by row; the truth's with gray's.
    """

    lines: list[Record]
    timing: Record | None
    features: dict[Name, np.ndarray]


@dataclass
class Scorer:
    """Runs methods over photos and scores what they give; what is on disk already is not made again.

    Attributes:
        settings: of the evaluation.
        scores: lines of scores, by row, subset and key.
        timings: lines of seconds, by method, subset and key; kept apart, since no two runs measure the same.
        pool: threads that read and score.
        find_face: the detector, or None where it is not installed.
        keys: of all photos that are measured.
        networks: for LPIPS and FID, where asked for.
        features: for FID, by row and key; None without it.
    """

    settings: EvaluationSettings
    scores: LineFile
    timings: LineFile
    pool: ThreadPoolExecutor
    find_face: FaceFinder | None
    keys: tuple[str, ...] = ()
    networks: Networks = field(default_factory=Networks)
    features: FeatureFile | None = None
    _loaded: tuple[str, Colorizer] | None = field(default=None, repr=False)

    def colorizer(self, model: str) -> Colorizer:
        """The loaded model; one at a time is kept."""
        if self._loaded is None or self._loaded[0] != model:
            self._loaded = None  # the old one's memory is free before the new one needs it
            self._loaded = model, Colorizer.load(model, device=self.settings.device)
        return self._loaded[1]

    def options_of(self, method: Method) -> ColorizeOptions:
        """What the model is asked for."""
        return make_options(prompt=method.prompt, steps=method.steps, seed=self.settings.seed)

    def run(self, method: Method, photos: Sequence[ChosenPhoto]) -> Iterator[MethodResults]:
        """What the method makes of each photo, in order. A model runs once a photo; both rows are of its output."""
        if method.model is not None:
            yield from self._run_model(method, method.model, photos)
            return
        files = None if method.folder is None else ResultFiles(method.folder, self.keys)
        for target in self._targets(photos):
            if files is None and method.hints is not None:
                colorless = np.zeros((*target.gray.shape, 2), np.float32)
                chroma = HintedChroma(Photo(target.gray), colorless).with_hints(self._hints(method, target))
                yield MethodResults(target, [color.recompose(target.gray, chroma)])
                continue
            if files is None:
                yield MethodResults(target, [target.gray_rgb])
                continue
            try:
                raw = files.read(target.photo.key, self.settings.size_px, target.full_size)
                chroma = color.chroma_of(raw.astype(np.float32) / 255)
                yield MethodResults(target, [color.recompose(target.gray, chroma), raw])
            except PhotoError as error:
                yield MethodResults(target, error)

    def score(self, method: Method, photos: Sequence[ChosenPhoto], advance: Advance) -> None:
        """Scores the photos that have no scores yet, and writes them in the photos' order; one `advance` a photo."""
        missing = [photo for photo in photos if not self._is_scored(method, photo)]
        for _ in range(len(photos) - len(missing)):
            advance()
        scored: deque[Future[PhotoScores]] = deque()

        def write_next() -> None:
            self._write(scored.popleft().result())
            advance()

        for results in self.run(method, missing):
            scored.append(self.pool.submit(_scores_of, method, results, self.networks))
            while len(scored) > AHEAD or (scored and scored[0].done()):
                write_next()
        while scored:
            write_next()

    def _targets(self, photos: Sequence[ChosenPhoto]) -> Iterator[Target]:
        """The photos read again, in order, some ahead."""
        size_px, find_face = self.settings.size_px, self.find_face
        return ahead(self.pool, lambda photo: open_target(photo, size_px, find_face), photos)

    def _run_model(self, method: Method, model: str, photos: Sequence[ChosenPhoto]) -> Iterator[MethodResults]:
        if not photos:
            return
        colorizer, options = self.colorizer(model), self.options_of(method)
        raw_options = options.model_copy(update={"recompose": False})
        waiting: deque[Target] = deque()

        def requests() -> Iterator[Request]:
            for target in self._targets(photos):
                waiting.append(target)
                yield Request(target.gray, options, self._hints(method, target))

        wanted = (options,) if method.hints is not None else (options, raw_options)
        for output in colorizer.model_outputs(requests(), batch_size=self.settings.batch_size):
            target = waiting.popleft()
            if isinstance(output, ModelOutput):
                pictures = [colorizer.finish(output, each).rgb for each in wanted]
                yield MethodResults(target, pictures, output.seconds)
            else:
                yield MethodResults(target, output)

    def _hints(self, method: Method, target: Target) -> Hints:
        return hints_of_truth(target.truth, target.photo.content, self.settings.seed, method.hints or 0)

    def _is_scored(self, method: Method, photo: ChosenPhoto) -> bool:
        if any((row, photo.subset, photo.key) not in self.scores for row in method.rows):
            return False
        if self.features is None or photo.subset != HELD_OUT:
            return True
        return all((row, photo.key) in self.features for row in _featured(method))

    def _write(self, scored: PhotoScores) -> None:
        if scored.timing is not None:
            self.timings.append([scored.timing])
        if self.features is not None:
            self.features.append(scored.features)
        self.scores.append(scored.lines)


def ahead(
    pool: ThreadPoolExecutor, function: Callable[[Taken], Given], items: Sequence[Taken], depth: int = AHEAD
) -> Iterator[Given]:
    """`map(function, items)` in order, with at most `depth` results made before they are asked for."""
    begun: deque[Future[Given]] = deque()
    for item in items:
        begun.append(pool.submit(function, item))
        if len(begun) > depth:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


def _featured(method: Method) -> tuple[str, ...]:
    """Rows whose features are kept with this method: gray runs on every photo, so the truth's come with it."""
    return (*method.rows, TRUTH) if method.name == GRAY_ROW else method.rows


def _scores_of(method: Method, results: MethodResults, networks: Networks) -> PhotoScores:
    target, pictures = results.target, results.pictures
    name = {"subset": target.photo.subset, "key": target.photo.key}
    if isinstance(pictures, PhotoError):
        return PhotoScores([{"row": row, **name, "failed": str(pictures)} for row in method.rows], None, {})
    lines: list[Record] = []
    for row, picture in zip(method.rows, pictures, strict=True):
        line: Record = {"row": row, **name, **score(picture, target)}
        if networks.lpips is not None:
            line["lpips"] = lpips(networks.lpips, picture, target.truth)
        lines.append(line)
    found: dict[Name, np.ndarray] = {}
    if networks.fid is not None and target.photo.subset == HELD_OUT:
        featured = zip(_featured(method), [*pictures, target.truth], strict=False)  # the truth's with gray's alone
        found = {(row, target.photo.key): features(networks.fid, picture) for row, picture in featured}
    timing = None if results.seconds is None else {"method": method.name, **name, "seconds": results.seconds}
    return PhotoScores(lines, timing, found)
