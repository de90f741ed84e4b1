"""What a colorizer is worth, by kind of photo: validation photos before and after a training, in one step."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import cv2
import numpy as np
import torch
from colorize import Painter
from diffusers import AutoencoderTiny
from editor import sample_raw
from loop import TimeLimit
from photos import Pack, center_square, set_of

from chromatune.color import luma
from chromatune.data import make_gray
from chromatune.evaluation import (
    colorfulness,
    delta_e_2000,
    face_finder,
    interval,
    lab_of,
    psnr,
    resampled_means,
    skin_distance,
)
from chromatune.reports import markdown_table

BATCH = 32
TIME_SHARE = 0.08  # of a limited time: for the first of two validations; the second takes as long
SHEET_EACH = 12  # photos of a kind on a sheet
TILE_PX = 144
SHEET_COLUMNS = 3  # photos side by side


@dataclass(frozen=True)
class Sample:
    """A validation photo: its kind, the truth (S, S, 3) uint8 sRGB, and the gray (S, S) uint8 that is colorized."""

    kind: str
    truth: np.ndarray
    gray: np.ndarray

    @property
    def gray_rgb(self) -> np.ndarray:
        """(S, S, 3) uint8, three equal channels."""
        return np.repeat(self.gray[..., None], 3, axis=2)


def in_turn(files: list[str], kinds: dict[str, list[str]]) -> list[tuple[str, int]]:
    """Kind and index of every photo: the first of each kind, the second of each …, so that any number is fair.

    Photos of a kind come in an order of their own, the same in every run; photos of no kind are "other".
    """
    kind_of = {name: kind for kind, sets in kinds.items() for name in sets}
    members: dict[str, list[int]] = {}
    for index in np.random.default_rng(0).permutation(len(files)):
        members.setdefault(kind_of.get(set_of(files[index]), "other"), []).append(int(index))
    rounds = zip_longest(*([(kind, index) for index in members[kind]] for kind in sorted(members)))
    return [each for turn in rounds for each in turn if each is not None]


class Validation:
    """Validation photos, and the scores of colorizers on them.

    Args:
        validation: photos.
        kinds: kind ⇒ its sets.
        vae: autoencoder.
        embedded: (1, 77, C) instruction.
        size_px: side of the squares.
    """

    def __init__(
        self, validation: Pack, kinds: dict[str, list[str]], vae: AutoencoderTiny, embedded: torch.Tensor, size_px: int
    ) -> None:
        self.photos, self.order = validation, in_turn(validation.files, kinds)
        self.vae, self.embedded, self.size_px = vae, embedded, size_px
        self.samples: list[Sample] = []
        self.find_face = face_finder()
        self._faces: list[tuple[int, int, int, int] | None] = []

    def measure(self, painter: Painter, count: int | None = None, seconds: float | None = None) -> Scores:
        """Colorizes the first `count` photos (None: all), or as many as `seconds` allow, and scores them."""
        began, rows, results = time.monotonic(), [], []
        count = len(self.order) if count is None else min(count, len(self.order))
        for start in range(0, count, BATCH):
            if start and seconds is not None and time.monotonic() - began > seconds:
                break
            for index in range(len(self.samples), min(count, start + BATCH)):
                self._add(*self.order[index])
            samples = self.samples[start : min(count, start + BATCH)]
            colored = colorized(self.vae, painter, samples, self.embedded)
            rows += [self._score(start + offset, result) for offset, result in enumerate(colored)]
            results += colored
        columns = {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}
        return Scores([sample.kind for sample in self.samples[: len(rows)]], columns, results, time.monotonic() - began)

    def _add(self, kind: str, index: int) -> None:
        truth = center_square(self.photos.photo(index), self.size_px)
        gray = np.rint(make_gray(truth.astype(np.float32) / 255) * 255).astype(np.uint8)
        self.samples.append(Sample(kind, truth, gray))
        self._faces.append(self.find_face(gray))

    def _score(self, index: int, result: np.ndarray) -> dict[str, float]:
        sample, face, skin = self.samples[index], self._faces[index], np.nan
        if face is not None:
            top, left, height, width = face
            place = np.s_[top : top + height, left : left + width]
            distances = delta_e_2000(lab_of(result[place]), lab_of(sample.truth[place]))
            skin = skin_distance(distances, (0, 0, height, width))
        return {
            "gain": psnr(result, sample.truth) - psnr(sample.gray_rgb, sample.truth),
            "cf": colorfulness(result),
            "truth_cf": colorfulness(sample.truth),
            "skin": skin,
        }


@dataclass(frozen=True)
class Scores:
    """A colorizer's scores on the first photos of a `Validation`.

    Attributes:
        kinds: of each photo.
        columns: "gain" (PSNR in dB above the gray photo's), "cf", "truth_cf" (colorfulness, field), "skin" (CIEDE2000,
            NaN without a face): (P,) float64 each.
        results: (S, S, 3) uint8 each.
        seconds: it took.
    """

    kinds: list[str]
    columns: dict[str, np.ndarray]
    results: list[np.ndarray]
    seconds: float

    def of(self, kind: str) -> dict[str, np.ndarray]:
        """The columns of one kind."""
        chosen = np.array([each == kind for each in self.kinds], bool)
        return {name: column[chosen] for name, column in self.columns.items()}

    def means(self) -> dict[str, dict[str, float]]:
        """By kind: photos, gain, ΔCF, skin."""
        return {kind: summary(self.of(kind)) for kind in sorted(set(self.kinds))}


def summary(columns: dict[str, np.ndarray]) -> dict[str, float]:
    """Photos, mean gain in dB, ΔCF, mean CIEDE2000 of skin (NaN without faces)."""
    skin = columns["skin"][~np.isnan(columns["skin"])]
    return {
        "photos": len(columns["gain"]),
        "gain": float(columns["gain"].mean()),
        "delta_cf": float(columns["cf"].mean() - columns["truth_cf"].mean()),
        "skin": float(skin.mean()) if len(skin) else float("nan"),
    }


def colorized(
    vae: AutoencoderTiny, painter: Painter, samples: list[Sample], embedded: torch.Tensor
) -> list[np.ndarray]:
    """One step without guidance, each photo with its own luminance: (S, S, 3) uint8 each."""
    grays = np.stack([sample.gray_rgb for sample in samples])
    asked = embedded.expand(len(samples), -1, -1)
    raw = sample_raw(vae, painter.unet, grays, asked, 1, painter.photo_encoder)
    gray = grays[..., :1].astype(np.float32) / 255
    result = raw - np.stack([luma(photo) for photo in raw])[..., None] + gray
    return list(np.rint(np.clip(result, 0, 1) * 255).astype(np.uint8))


def comparison(before: Scores, after: Scores) -> str:
    """Markdown: a row a kind, and the difference of PSNR with its 95 % interval (paired bootstrap over photos)."""
    lines = [["kind", "photos", "PSNR above gray, dB: before", "after", "difference", "ΔCF", "", "skin CIEDE2000", ""]]
    for kind in sorted(set(after.kinds)):
        old, new = before.of(kind), after.of(kind)
        difference = resampled_means({"gain": new["gain"] - old["gain"]}, seed=0)["gain"]
        low, high = interval(difference)
        first, second = summary(old), summary(new)
        lines.append(
            [kind, str(second["photos"]), f"{first['gain']:+.2f}", f"{second['gain']:+.2f}"]
            + [f"{difference[0]:+.3f} ({low:+.3f} … {high:+.3f})"]
            + [
                f"{each[name]:{form}}"
                for name, form in (("delta_cf", "+.1f"), ("skin", ".2f"))
                for each in (first, second)
            ]
        )
    return markdown_table(lines)


def write_sheet(path: Path, samples: list[Sample], columns: list[list[np.ndarray]]) -> None:
    """A JPEG of `SHEET_EACH` photos of every kind: gray, each of `columns`, truth, side by side."""
    shown: dict[str, list[np.ndarray]] = {}
    for index, sample in enumerate(samples[: len(columns[0])]):
        strip = [sample.gray_rgb, *(column[index] for column in columns), sample.truth]
        tiles = [cv2.resize(tile, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA) for tile in strip]
        shown.setdefault(sample.kind, []).append(np.concatenate(tiles, axis=1))
    strips = [strip for kind in sorted(shown) for strip in shown[kind][:SHEET_EACH]]
    strips += [np.zeros_like(strips[0])] * (-len(strips) % SHEET_COLUMNS)
    rows = [np.concatenate(strips[i : i + SHEET_COLUMNS], axis=1) for i in range(0, len(strips), SHEET_COLUMNS)]
    cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])


def log_means(path: Path, step: int, scores: Scores) -> None:
    """Adds a line with the means by kind."""
    rounded = {kind: {name: round(value, 3) for name, value in row.items()} for kind, row in scores.means().items()}
    with path.open("a") as log:
        log.write(json.dumps({"step": step, **rounded}) + "\n")


def measure_before(validation: Validation, painter: Painter, limit: TimeLimit) -> Scores:
    """The scores before a limited training, on as many photos as fit; keeps time for the same ones after it."""
    scores = validation.measure(painter, seconds=TIME_SHARE * limit.seconds)
    limit.reserve = 1.3 * scores.seconds + 0.02 * limit.seconds
    return scores


def compare(validation: Validation, before: Scores, painter: Painter, out: Path) -> str:
    """Measures after the training, writes `validation.md` and `sheet.jpg` into `out`, and returns the table."""
    after = validation.measure(painter, count=len(before.kinds))
    text = comparison(before, after)
    (out / "validation.md").write_text(text, encoding="utf-8")
    write_sheet(out / "sheet.jpg", validation.samples, [before.results, after.results])
    return text
