"""Photos through every method: the model works on one while others are prepared and scored; each score goes to disk.

Then what a method costs: its parameters, U-Net evaluations and FLOPs, seconds, and memory at the peak.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chromatune import color
from chromatune.colorizer import Colorizer, ModelOutput, Request
from chromatune.errors import PhotoError
from chromatune.evaluation import artifacts, metrics
from chromatune.evaluation.perceptual import TRUTH, FeatureFile, Name, Networks, features, lpips
from chromatune.evaluation.protocol import (
    GRAY_METHOD,
    HELD_OUT,
    ChosenPhoto,
    Method,
    Record,
    ResultFiles,
    Square,
)
from chromatune.evaluation.settings import EvaluationSettings
from chromatune.files import LineFile, prefetch
from chromatune.hints import HintedChroma, Hints
from chromatune.images import Photo
from chromatune.options import Advance, ColorizeOptions, make_options
from chromatune.pipeline import ColorizerBackend, ModelFiles, find_model, has_torch

WORKERS = 2  # threads; metrics leave Python's lock for most of their time
AHEAD = 8  # photos prepared before, and scored after, the one in hand

HINT_SIDE = 10 / 256  # of the square's: the side of a hint
CANDIDATES = 10  # places drawn for each hint

REPEATABLE = ("parameters", "unet_evaluations", "gflops")  # costs that are the same on every machine

Scores = dict[str, float | None]
Cost = dict[str, float | None]  # `REPEATABLE`, "seconds" and "memory_mib"; None where unknown


@dataclass(frozen=True, eq=False)
class Target:
    """What a photo's results are compared with.

    Attributes:
        photo: where it is from.
        square: the truth.
        truth_lab: (S, S, 3) float64, the truth in CIELAB.
        gray: (S, S) uint8, Rec.601 luma of the truth: what is colorized.
        near_edges: (S, S) bool, where a chroma edge would follow one of luma.
        face: where a face is in the square, if one was found.
        truth_scores: of the truth itself: "truth_cf_field", "truth_cf_signed", "truth_bleeding".
    """

    photo: ChosenPhoto
    square: Square
    truth_lab: np.ndarray
    gray: np.ndarray
    near_edges: np.ndarray
    face: artifacts.Box | None
    truth_scores: Scores

    @property
    def truth(self) -> np.ndarray:
        """(S, S, 3) uint8 sRGB."""
        return self.square.rgb_u8

    @property
    def gray_rgb(self) -> np.ndarray:
        """The input as a result: (S, S, 3) uint8 sRGB, three equal channels."""
        return np.repeat(self.gray[..., None], 3, axis=2)


def score(result: np.ndarray, target: Target) -> Scores:
    """Return all scores of a result, (S, S, 3) uint8 sRGB; "skin_ciede2000" is None without a face."""
    found, distances = metrics.score_against(result, target.truth, target.truth_lab, target.gray)
    return {
        **found,
        "bleeding": artifacts.color_bleeding(result, target.near_edges),
        "skin_ciede2000": None if target.face is None else artifacts.skin_distance(distances, target.face),
        **target.truth_scores,
    }


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


@dataclass
class Scorer:
    """Runs methods over photos and scores their results; what is on disk already is not computed again.

    Attributes:
        settings: of the evaluation.
        scores: lines of scores, by `RECORD_KEYS`.
        timings: lines of seconds, by method, hints, subset and key; in another file, as no two runs measure the same.
        pool: threads that prepare and score.
        find_face: the detector.
        keys: of all photos that are measured.
        networks: for LPIPS and FID, where they are measured.
        features: for FID, by row and key; None without it.
    """

    settings: EvaluationSettings
    scores: LineFile
    timings: LineFile
    pool: ThreadPoolExecutor
    find_face: Callable[[np.ndarray], artifacts.Box | None]
    keys: tuple[str, ...] = ()
    networks: Networks = field(default_factory=Networks)
    features: FeatureFile | None = None
    _loaded: tuple[str, Colorizer] | None = field(default=None, repr=False)
    _faces: dict[str, artifacts.Box | None] = field(default_factory=dict, repr=False)  # by content, for all methods

    def colorizer(self, model: str) -> Colorizer:
        """Return the loaded model; one at a time is in memory."""
        if self._loaded is None or self._loaded[0] != model:
            self._loaded = None  # the old one's memory is free before the new one needs it
            self._loaded = model, Colorizer.load(model, device=self.settings.device)
        return self._loaded[1]

    def options_of(self, method: Method) -> ColorizeOptions:
        """Return the options of a method's model."""
        return make_options(prompt=method.prompt, steps=method.steps, seed=self.settings.seed)

    def score(self, method: Method, photos: Sequence[ChosenPhoto], advance: Advance) -> None:
        """Score the photos that have no scores yet, and write them in the photos' order; one `advance` a photo."""
        missing = [photo for photo in photos if not self._is_scored(method, photo)]
        for _ in range(len(photos) - len(missing)):
            advance()
        scored: deque[Future[tuple[list[Record], list[Record], dict[Name, np.ndarray]]]] = deque()

        def write_next() -> None:
            lines, timings, found = scored.popleft().result()
            self.timings.append(timings)
            if self.features is not None:
                self.features.append(found)
            self.scores.append(lines)  # last: a photo with scores is complete
            advance()

        for results in self.run(method, missing):
            scored.append(self.pool.submit(_score_results, method, results, self.networks))
            while len(scored) > AHEAD or (scored and scored[0].done()):
                write_next()
        while scored:
            write_next()

    def run(self, method: Method, photos: Sequence[ChosenPhoto]) -> Iterator[MethodResults]:
        """Yield what the method makes of each photo, in order; a model runs once a photo, for both rows."""
        if method.model is not None:
            yield from self._run_model(method, method.model, photos)
            return
        files = None if method.folder is None else ResultFiles(method.folder, self.keys)
        for target in self._targets(photos):
            if files is not None:
                yield self._read_results(files, target)
            elif method.hints:
                colorless = np.zeros((*target.gray.shape, 2), np.float32)
                chroma = HintedChroma(Photo(target.gray), colorless).with_hints(self._hints(method, target))
                yield MethodResults(target, [color.recompose(target.gray, chroma)])
            else:
                yield MethodResults(target, [target.gray_rgb])

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

        wanted = [raw_options if row.raw else options for row in method.rows]
        for output in colorizer.model_outputs(requests(), batch_size=self.settings.batch_size):
            target = waiting.popleft()
            if isinstance(output, ModelOutput):
                pictures = [colorizer.finish(output, each).rgb for each in wanted]
                yield MethodResults(target, pictures, output.seconds)
            else:
                yield MethodResults(target, output)

    def _read_results(self, files: ResultFiles, target: Target) -> MethodResults:
        try:
            raw = files.read(target.photo.key, self.settings.size_px, target.square.full_size)
        except PhotoError as error:
            return MethodResults(target, error)
        chroma = color.chroma_of(raw.astype(np.float32) / 255)
        return MethodResults(target, [color.recompose(target.gray, chroma), raw])

    def _targets(self, photos: Sequence[ChosenPhoto]) -> Iterator[Target]:
        """Yield what the photos' results are compared with, in order, some prepared ahead."""
        return prefetch(self.pool, self._open_target, photos, AHEAD)

    def _open_target(self, photo: ChosenPhoto) -> Target:
        square = photo.open_square(self.settings.size_px)
        gray = color.luma(square.rgb_u8)
        near_edges = artifacts.near_luma_edges(gray)
        variants = metrics.colorfulness_variants(square.rgb_u8)
        truth_scores: Scores = {f"truth_cf_{variant}": value for variant, value in variants.items()}
        truth_scores["truth_bleeding"] = artifacts.color_bleeding(square.rgb_u8, near_edges)
        if photo.content not in self._faces:
            self._faces[photo.content] = self.find_face(gray)
        lab, face = metrics.lab_of(square.rgb_u8), self._faces[photo.content]
        return Target(photo, square, lab, gray, near_edges, face, truth_scores)

    def _hints(self, method: Method, target: Target) -> Hints:
        return hints_of_truth(target.truth, target.photo.content, self.settings.seed, method.hints)

    def _is_scored(self, method: Method, photo: ChosenPhoto) -> bool:
        names = [(*row.fields.values(), photo.subset, photo.key) for row in method.rows]
        if any(name not in self.scores for name in names):
            return False
        if self.features is None or photo.subset != HELD_OUT:
            return True
        return all((row, photo.key) in self.features for row in _featured(method))


def _featured(method: Method) -> tuple[str, ...]:
    """Names of the rows whose features this method stores: gray runs on every photo, so the truth's come with it."""
    names = tuple(row.name for row in method.rows)
    return (*names, TRUTH) if method.name == GRAY_METHOD else names


def _score_results(
    method: Method, results: MethodResults, networks: Networks
) -> tuple[list[Record], list[Record], dict[Name, np.ndarray]]:
    """Return the lines of scores, one a row; those of seconds, none or one; and features for FID, by name."""
    target, pictures = results.target, results.pictures
    photo = {"subset": target.photo.subset, "key": target.photo.key}
    if isinstance(pictures, PhotoError):
        return [row.fields | photo | {"failed": str(pictures)} for row in method.rows], [], {}
    lines: list[Record] = []
    for row, picture in zip(method.rows, pictures, strict=True):
        line: Record = row.fields | photo | score(picture, target)
        if networks.lpips is not None:
            line["lpips"] = lpips(networks.lpips, picture, target.truth)
        lines.append(line)
    found: dict[Name, np.ndarray] = {}
    if networks.fid is not None and target.photo.subset == HELD_OUT:
        featured = zip(_featured(method), [*pictures, target.truth], strict=False)  # the truth's with gray's alone
        found = {(row, target.photo.key): features(networks.fid, picture) for row, picture in featured}
    timings: list[Record] = []
    if results.seconds is not None:
        timings.append({"method": method.name, "hints": method.hints, **photo, "seconds": results.seconds})
    return lines, timings, found


def hint_places(content: str, seed: int, count: int) -> np.ndarray:
    """Return the places of hints, (count, 2) float64, x and y in 0..1; those of a smaller count come first.

    The field's protocols differ. siggraph17 (arXiv 1705.02999) is trained with points from a normal distribution around
    the middle, each the mean of a square of 1 to 9 pixels' side; iColoriT (arXiv 2207.06831) draws places uniformly.
    Here the places are spread: each next one is, of ten drawn uniformly, the farthest from all before (Mitchell's best
    candidate). So the first N of them are the N hints, whatever the largest number, and differences between numbers are
    of the same photo with more hints.

    Args:
        content: hash of the photo's pixels, hexadecimal: its places depend on nothing else.
        seed: of the evaluation.
        count: how many.
    """
    generator = np.random.default_rng([seed, int(content[:16], 16)])
    points = np.empty((count, 2))
    for index in range(count):
        candidates = generator.uniform(HINT_SIDE / 2, 1 - HINT_SIDE / 2, (CANDIDATES, 2))
        distances = ((candidates[:, None] - points[None, :index]) ** 2).sum(axis=2)  # (candidates, points)
        points[index] = candidates[distances.min(axis=1).argmax() if index else 0]
    return points


def hint_squares(size_px: int, content: str, seed: int, count: int) -> list[tuple[int, int, int]]:
    """Return left and top edge and side of each hint's square in a picture of `size_px`, in whole pixels."""
    side = max(1, round(HINT_SIDE * size_px))
    edges = np.clip(np.rint(hint_places(content, seed, count) * size_px - side / 2), 0, size_px - side).astype(int)
    return [(int(left), int(top), side) for left, top in edges]


def hints_of_truth(truth: np.ndarray, content: str, seed: int, count: int) -> Hints:
    """Return the first `count` hints of a photo, (S, S, 3) uint8 sRGB: squares of the truth's mean color there.

    The truth's colors are an upper bound of what a person knows. See `hint_places` for the other arguments.
    """
    if not count:
        return Hints()
    rgba = np.zeros((*truth.shape[:2], 4), np.uint8)
    for left, top, side in hint_squares(len(truth), content, seed, count):
        square = np.s_[top : top + side, left : left + side]
        rgba[square] = (*np.rint(truth[square].mean(axis=(0, 1))).astype(int), 255)
    return Hints.from_layer(rgba)


def count_work(colorizer: Colorizer, options: ColorizeOptions, size_px: int) -> Cost:
    """Return the work that one square photo of `size_px` takes.

    Returns:
        parameters: of U-Net, VAE, text encoder and, where there is one, photo encoder.
        unet_evaluations: photos that passed the U-Net: steps times guidance branches.
        gflops: multiplications and additions of matrix products, convolutions and attention, in 1e9, prompt included.
        All None where torch, which counts them, is not installed, or for a model of another kind; of a colorizer's
        graph its own parameters and operations.
    """
    if isinstance(colorizer.backend, ColorizerBackend):
        parameters, operations = colorizer.backend.work(*colorizer.small_size(size_px, size_px, options.size_px))
        gflops = None if operations is None else operations / 1e9
        return {"parameters": parameters, "unet_evaluations": None, "gflops": gflops}
    if not has_torch() or not isinstance(find_model(colorizer.info.name), ModelFiles):
        return dict.fromkeys(REPEATABLE)
    from torch.utils.flop_counter import FlopCounterMode

    from chromatune.pipeline import TorchBackend, load_pipeline

    evaluations = 0
    opened = colorizer.backend
    # Another runtime does the same work, and only torch counts it
    pipeline = (
        opened.pipeline if isinstance(opened, TorchBackend) else load_pipeline(str(colorizer.info.path), device="cpu")
    )

    def count(_: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        nonlocal evaluations
        evaluations += len(inputs[0] if inputs else named["sample"])

    hook = pipeline.unet.register_forward_pre_hook(count, with_kwargs=True)
    fresh = Colorizer(TorchBackend(pipeline))  # its prompt is not embedded yet
    try:
        with FlopCounterMode(display=False) as flops:
            fresh.colorize(np.full((size_px, size_px), 128, np.uint8), options)
    finally:
        hook.remove()
    parts = filter(None, (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.photo_encoder))
    return {
        "parameters": sum(parameter.numel() for part in parts for parameter in part.parameters()),
        "unet_evaluations": evaluations,
        "gflops": flops.get_total_flops() / 1e9,
    }


def peak_memory_mib(colorizer: Colorizer) -> float | None:
    """Return the largest memory so far in MiB, allocated on a GPU or else resident in this process; None if unknown."""
    if has_torch():
        import torch

        from chromatune.pipeline import TorchBackend

        backend = colorizer.backend
        if isinstance(backend, TorchBackend) and backend.pipeline.device.type == "cuda":
            return torch.cuda.max_memory_allocated(backend.pipeline.device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes on macOS, KiB on Linux
