"""Colorizings of a video measured against the video in color: each frame, and how they hold together through time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import chromatune
from chromatune import color
from chromatune.color import flow_between, flow_confidence, resize, warp
from chromatune.colorizer import Colorizer
from chromatune.errors import DataError, OptionsError, PhotoError, VideoError
from chromatune.evaluation.metrics import colorfulness, psnr
from chromatune.evaluation.settings import VIDEO_PREFIX
from chromatune.files import atomic_write, write_json
from chromatune.images import Photo, to_depth, write_photo
from chromatune.options import ColorizeOptions, StartStage, silent
from chromatune.reports import markdown_table
from chromatune.video import (
    Frame,
    FramesInOrder,
    Video,
    VideoOptions,
    VideoRun,
    open_video,
)

LONGEST_FLOW_PX = 480  # short side at which flow is measured
LEAST_CONFIDENCE = 0.5  # of flow; where it is less, there is an occlusion
CDC_STEPS = (1, 2, 4)
STRIP_FRAMES, STRIP_WIDTH_PX = 6, 240
TRUTH, GRAY = "truth", "gray"
FRAME_BY_FRAME, THROUGH_TIME, ON_THE_VIDEO = "frame by frame", "through time", "on the video"
SCORES = ("psnr", "cf", "warp", "flicker", "cdc")  # of `TimeScore.means`
VIDEO_SUMMARY_FILE, VIDEO_TABLE_FILE, STRIP_FILE = "video.json", "video.md", "video.jpg"

Colorizing = Callable[[int, Frame], np.ndarray]  # index and frame ⇒ (H, W, 3) uint8


@dataclass
class TimeScore:
    """What is measured of one row, frame by frame; `means` sums it up."""

    psnr: list[float] = field(default_factory=list)
    cf: list[float] = field(default_factory=list)
    warp: list[float] = field(default_factory=list)
    flicker: list[float] = field(default_factory=list)
    divergence: dict[int, list[float]] = field(default_factory=lambda: {step: [] for step in CDC_STEPS})
    before: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)  # chroma and histograms, of this shot

    def add(
        self, rgb: np.ndarray, truth: np.ndarray, motion: tuple[np.ndarray, np.ndarray] | None, starts: bool
    ) -> None:
        """Measure the next frame.

        Args:
            rgb: (H, W, 3) uint8.
            truth: the same.
            motion: flow to the frame before at a smaller size, and where it is believed; None at a shot's start.
            starts: whether the frame starts a shot.
        """
        if starts:
            self.before.clear()
        self.psnr.append(psnr(rgb, truth))
        self.cf.append(colorfulness(rgb))
        chroma, histograms = color.chroma_of(rgb.astype(np.float32) / 255), channel_histograms(rgb)
        if motion is not None and self.before:
            self.warp.append(warp_error(chroma, self.before[-1][0], *motion))
            change = chroma.mean(axis=(0, 1)) - self.before[-1][0].mean(axis=(0, 1))
            self.flicker.append(255 * float(np.hypot(*change)))
        for step in CDC_STEPS:
            if len(self.before) >= step:
                self.divergence[step].append(histogram_divergence(histograms, self.before[-step][1]))
        self.before = [*self.before, (chroma, histograms)][-max(CDC_STEPS) :]

    def means(self) -> dict[str, float | None]:
        """Return means over all frames: PSNR in dB, CF, warp error and flicker in levels of 255, CDC."""
        steps = [_mean(each) for each in self.divergence.values()]
        known = [step for step in steps if step is not None]
        whole = float(np.mean(known)) if len(known) == len(steps) else None
        return {
            "psnr": _mean(self.psnr),
            "cf": _mean(self.cf),
            "warp": _mean(self.warp),
            "flicker": _mean(self.flicker),
            "cdc": whole,
        }


def warp_error(chroma: np.ndarray, before: np.ndarray, flow: np.ndarray, believed: np.ndarray) -> float:
    """Return how far chroma changes along the motion: mean length of the difference of (Cb, Cr), in levels of 255.

    Lai et al. 2018 (arXiv 1808.00449), equation 8, of chroma alone and as a length instead of its square: luma is the
    video's own. Where the flow is not believed, such as at occlusions, nothing is measured.

    Args:
        chroma: (H, W, 2) float32 of a frame.
        before: of the frame before.
        flow: (H, W, 2) float32, from the frame to the frame before.
        believed: (H, W) bool.
    """
    if not believed.any():
        return 0.0
    difference = chroma - warp(before, flow)
    return 255 * float(cv2.magnitude(difference[..., 0], difference[..., 1])[believed].mean())


def channel_histograms(rgb: np.ndarray) -> np.ndarray:
    """Return the shares of the levels of each channel of an (H, W, 3) uint8 image: (3, 256) float64."""
    counts = [np.bincount(rgb[..., channel].ravel(), minlength=256) for channel in range(3)]
    return np.stack(counts) / (rgb.shape[0] * rgb.shape[1])


def histogram_divergence(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Jensen-Shannon divergence of two frames' colors, in nats, mean over channels: a term of the CDC.

    Color distribution consistency (Liu et al. 2021, "Temporally consistent video colorization with deep feature
    propagation and self-regularization learning", arXiv 2110.04562): CDC_t = 1 / (3 (N - t)) Σ_c Σ_i JS(P_c(I_i),
    P_c(I_i+t)), with P_c the histogram of channel c, and CDC = (CDC_1 + CDC_2 + CDC_4) / 3. Pairs across a cut are
    skipped.

    Args:
        first: see `channel_histograms`.
        second: the same.
    """
    middle = (first + second) / 2
    channels = zip(first, second, middle, strict=True)
    return float(np.mean([(_kl(one, half) + _kl(two, half)) / 2 for one, two, half in channels]))


def _kl(one: np.ndarray, other: np.ndarray) -> float:
    there = one > 0
    return float((one[there] * np.log(one[there] / other[there])).sum())


def gray_motion(gray: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the flow from a gray frame to the one before, and where it is believed: (H, W, 2) float32, (H, W) bool."""
    scale = min(1.0, LONGEST_FLOW_PX / min(gray.shape))
    size = (round(gray.shape[1] * scale), round(gray.shape[0] * scale))
    small, small_before = (cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (gray, before))
    flow, backward = flow_between(small, small_before, fine=True), flow_between(small_before, small, fine=True)
    believed = flow_confidence(flow, backward) > LEAST_CONFIDENCE
    if scale < 1:
        flow = cv2.resize(flow, gray.shape[::-1]) * np.float32(1 / scale)
        believed = cv2.resize(believed.astype(np.uint8), gray.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return flow, believed


def evaluate_video(
    source: str,
    models: Sequence[str],
    out: Path,
    *,
    finished: Sequence[tuple[str, str]] = (),
    device: str | None = None,
    seed: int = 0,
    command: str = "",
    start_stage: StartStage = silent,
) -> dict[str, Any]:
    """Measure models on a video in color, and write the figures, a table and a strip of frames.

    Each model has two rows: its frames one by one, and the video as `chromatune video` colors it. So has each finished
    film: the frames of it that show what the video's show, and its colors on the video. Further rows are the gray
    video, and the truth, whose own change along the motion comes of grain, exposure and wrong flow.

    Args:
        source: see `is_video_source`.
        models: names of them.
        out: folder.
        finished: name and path of finished films of the video.
        device: where to compute.
        seed: of the sampling.
        command: is recorded in the summary.
        start_stage: opens the progress of each stage.

    Raises:
        VideoError: the video, or a finished film, cannot be read, or that is one of another video.
        OptionsError: there is nothing to measure.
        DataError: the results cannot be written, or the video has no color.
    """
    if not models and not finished:
        raise OptionsError("nothing to measure: give --model, or a finished film by --results NAME=FILM", "models")
    video = open_video(source.removeprefix(VIDEO_PREFIX))
    colorizings: dict[str, Colorizing] = {}
    runs: list[VideoRun] = []
    options = VideoOptions(out / "video", None, ColorizeOptions(seed=seed), cache=out / "chroma", device=device)

    def through_time(changed: VideoOptions) -> VideoRun:
        runs.append(VideoRun(video, changed, start_stage=start_stage))
        runs[-1].colorize_shots()
        return runs[-1]

    for model in models:
        colorizer = Colorizer.load(model, device=device)
        colorizings[f"{model}, {FRAME_BY_FRAME}"] = partial(_frame_by_frame, colorizer, options.colorize_options)
        colorizings[f"{model}, {THROUGH_TIME}"] = _through_time(through_time(replace(options, model=model)))
    for name, path in finished:
        film = open_video(path)
        run = through_time(replace(options, colors=film))
        colorizings[name] = _as_finished(film, run.matches, (video.info.height_px, video.info.width_px))
        colorizings[f"{name}, {ON_THE_VIDEO}"] = _through_time(run)
    cuts, count = {shot.start for shot in runs[0].shots}, runs[0].frames
    rows = {GRAY: TimeScore()} | {name: TimeScore() for name in colorizings}
    truth_row, strips = TimeScore(), _Strips(count, [GRAY, *colorizings, TRUTH])
    advance = start_stage("measuring frames", count)
    for index, (frame, truth, motion) in enumerate(_with_motion(video, cuts)):
        if truth_row.cf == [] and np.ptp(truth.astype(np.int16), axis=2).max() < 2:
            raise DataError(f"{source} has no color; a video is measured against its own colors")
        truth_row.add(truth, truth, motion, index in cuts)
        pictures = {GRAY: np.repeat(color.luma(truth)[..., None], 3, axis=2)}
        pictures |= {name: colorizing(index, frame) for name, colorizing in colorizings.items()}
        for name, picture in pictures.items():
            rows[name].add(picture, truth, motion, index in cuts)
        strips.add(index, {TRUTH: truth} | pictures)
        advance()
    own = truth_row.means() | {"psnr": None}
    scores = {TRUTH: own} | {name: score.means() for name, score in rows.items()}
    summary = {
        "video": source,
        "frames": count,
        "shots": len(cuts),
        "command": command,
        "version": chromatune.__version__,
        "rows": [{"name": name} | _beside_truth(means, own) for name, means in scores.items()],
    }
    _write(out, summary, strips)
    return summary


def mean_of_videos(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the summary of several videos: of each row the means over videos, each video with the same weight.

    "delta_cf" is the difference of mean CFs, and "video_delta_cf" the mean of the videos' differences.
    """
    names = [row["name"] for row in summaries[0]["rows"]]
    found = {name: [row for each in summaries for row in each["rows"] if row["name"] == name] for name in names}
    means: dict[str, dict[str, float | None]] = {
        name: {key: _mean([row[key] for row in rows if row[key] is not None]) for key in SCORES}
        for name, rows in found.items()
    }
    each_off = {name: _mean([row["delta_cf"] for row in rows]) for name, rows in found.items()}
    beside = {name: _beside_truth(row, means[TRUTH]) for name, row in means.items()}
    return {
        "videos": len(summaries),
        "frames": sum(each["frames"] for each in summaries),
        "shots": sum(each["shots"] for each in summaries),
        "version": chromatune.__version__,
        "rows": [{"name": name} | beside[name] | {"video_delta_cf": each_off[name]} for name in names],
    }


def video_table(summary: dict[str, Any]) -> list[list[str]]:
    """Return header and rows of a summary, as text."""
    header = ["row", "PSNR dB", "CF", "ΔCF", "warp error", "÷ truth", "flicker", "÷ truth", "CDC × 1000"]
    several = "videos" in summary
    lines = [[*header, "ΔCF, by video"] if several else header]
    for row in summary["rows"]:
        fields = [row["psnr"], row["cf"], row["delta_cf"], row["warp"], row["warp_ratio"], row["flicker"]]
        fields += [row["flicker_ratio"], None if row["cdc"] is None else 1000 * row["cdc"]]
        fields += [row["video_delta_cf"]] if several else []
        lines.append([row["name"], *("–" if each is None else f"{each:.2f}" for each in fields)])
    return lines


def _frame_by_frame(colorizer: Colorizer, options: ColorizeOptions, index: int, frame: Frame) -> np.ndarray:
    return to_depth(colorizer.colorize(Photo(frame.luma), options).rgb, np.uint8)


def _as_finished(film: Video, matches: np.ndarray, size: tuple[int, int]) -> Colorizing:
    """Return a function that gives the frames of a finished film that show what a video's show, stretched to its size.

    Where there is none, it is the frame before, or the gray one.
    """
    pictures = FramesInOrder(film, size)
    last: list[np.ndarray] = []

    def colorize(index: int, frame: Frame) -> np.ndarray:
        match = int(matches[index])
        if match >= 0:
            last[:] = pictures.take(match, match)
        return last[0] if last else np.repeat(frame.luma[..., None], 3, axis=2)

    return colorize


def _through_time(run: VideoRun) -> Colorizing:
    """Return a function that gives a video's frames the chroma that a run has cached; one shot's is in memory."""
    read = lru_cache(maxsize=1)(run.cache.read)

    def colorize(index: int, frame: Frame) -> np.ndarray:
        segment = next(each for each in run.segments if each.shot.start <= index < each.shot.stop)
        chroma = read(segment.cache_key, len(segment.shot))
        height, width = chroma.lumas.shape[1:]
        luma = resize(frame.luma, height, width)
        return to_depth(color.recompose(frame.luma, chroma.at(index - segment.shot.start, luma)), np.uint8)

    return colorize


class _Strips:
    """A few frames of each row, small, side by side."""

    def __init__(self, count: int, names: Sequence[str]) -> None:
        self._wanted = {round(place) for place in np.linspace(0, count - 1, STRIP_FRAMES)}
        self._pictures: dict[str, list[np.ndarray]] = {name: [] for name in names}

    def add(self, index: int, pictures: dict[str, np.ndarray]) -> None:
        if index in self._wanted:
            for name, found in self._pictures.items():
                height = round(pictures[name].shape[0] * STRIP_WIDTH_PX / pictures[name].shape[1])
                found.append(cv2.resize(pictures[name], (STRIP_WIDTH_PX, height), interpolation=cv2.INTER_AREA))

    def picture(self) -> np.ndarray:
        """Return (H, W, 3) uint8: a row of frames for the truth and each colorizing."""
        return np.vstack([np.hstack(found) for found in self._pictures.values()])


def _with_motion(
    video: Video, cuts: set[int]
) -> Iterator[tuple[Frame, np.ndarray, tuple[np.ndarray, np.ndarray] | None]]:
    """Yield each frame in gray, with its true colors, 8 bits, and its motion to the one before."""
    before: np.ndarray | None = None
    for index, frame in enumerate(video.read(colors=True)):
        if frame.rgb is None:
            raise VideoError(f"{video.info.path}: no colors can be read from it")
        truth = to_depth(frame.rgb, np.uint8)
        gray = color.luma(truth)
        motion = None if before is None or index in cuts else gray_motion(gray, before)
        yield Frame(frame.number, gray, frame.ticks, frame.seconds), truth, motion
        before = gray


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _beside_truth(means: dict[str, float | None], truth: dict[str, float | None]) -> dict[str, float | None]:
    """Return means of a row, with their difference from the truth's or ratio to them."""

    def ratio(name: str) -> float | None:
        one, other = means[name], truth[name]
        return None if one is None or not other else one / other

    cf, true_cf = means["cf"], truth["cf"]
    delta = None if cf is None or true_cf is None or math.isnan(cf) else abs(cf - true_cf)
    return means | {"delta_cf": delta, "warp_ratio": ratio("warp"), "flicker_ratio": ratio("flicker")}


def write_videos(out: Path, summary: dict[str, Any]) -> None:
    """Write the summary of several videos, and its table.

    Raises:
        DataError: they cannot be written.
    """
    _write(out, summary)


def _write(out: Path, summary: dict[str, Any], strips: _Strips | None = None) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / VIDEO_SUMMARY_FILE, summary)
        atomic_write(out / VIDEO_TABLE_FILE, markdown_table(video_table(summary)).encode())
        if strips is not None:
            picture = strips.picture()
            write_photo(out / STRIP_FILE, picture, Photo(picture[..., 0]), overwrite=True)
    except (OSError, PhotoError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{out}: cannot be written ({reason}); make room, or give another --out") from error
