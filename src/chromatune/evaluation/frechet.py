"""Fréchet distance between the features of two sets of photos, and the features on disk until all are in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from chromatune.errors import DataError
from chromatune.evaluation.protocol import HELD_OUT, ChosenPhoto

ENOUGH_PHOTOS = 5000  # below, the distance depends on the number of photos more than on the method
TRUTH = ""  # stands where a row's name would: no row is called that
BATCH = 256  # features in memory at a time

Name = tuple[str, str]  # row and key of a photo


class FeatureFile:
    """Features of each photo under each row, appended one by one: what an interrupted run wrote is kept.

    A record is the SHA-256 of its name and D float32 (little endian); a torn last one is dropped.
    """

    def __init__(self, path: Path, width: int) -> None:
        """Opens or makes the file, for features of `width` numbers."""
        self._record = np.dtype([("name", "V32"), ("features", "<f4", (width,))])
        self._path = path
        self._file: BinaryIO = path.open("a+b")
        whole = self._file.seek(0, 2) // self._record.itemsize
        self._file.truncate(whole * self._record.itemsize)
        self._places = {bytes(name): place for place, name in enumerate(self._stored()["name"])} if whole else {}

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __contains__(self, name: Name) -> bool:
        return _digest(name) in self._places

    def append(self, found: Mapping[Name, np.ndarray]) -> None:
        """Writes the features that are not there yet, and flushes."""
        for name, features in found.items():
            digest = _digest(name)
            if digest not in self._places:
                self._file.write(digest + features.astype("<f4").tobytes())
                self._places[digest] = len(self._places)
        self._file.flush()

    def batches(self, names: Sequence[Name]) -> Iterator[np.ndarray]:
        """Features in the names' order, which does not depend on interruptions: (up to `BATCH`, D) float64 each.

        Raises:
            DataError: there are none for a name.
        """
        for name in names:
            if name not in self:
                raise DataError(f"{self._path}: no features of {name[1]}; delete the folder, or give another --out")
        places = [self._places[_digest(name)] for name in names]
        for start in range(0, len(places), BATCH):
            yield self._stored()["features"][places[start : start + BATCH]].astype(np.float64)

    def _stored(self) -> np.ndarray:
        return np.memmap(self._path, self._record, mode="r")


def moments(batches: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and unbiased covariance (D, D), float64, of features that come in batches of (N, D).

    Batches are joined as Chan, Golub and LeVeque (1979, equation 2.1) do: sums of squares would cancel.

    Raises:
        ValueError: there are fewer than two features: they have no covariance.
    """
    count, mean, scatter = 0, np.zeros(0), np.zeros((0, 0))
    for batch in batches:
        centre = batch.mean(axis=0)
        inner = (batch - centre).T @ (batch - centre)
        if not count:
            count, mean, scatter = len(batch), centre, inner
            continue
        total, step = count + len(batch), centre - mean
        scatter += inner + np.outer(step, step) * (count * len(batch) / total)
        mean, count = mean + step * (len(batch) / total), total
    if count < 2:
        raise ValueError(f"a covariance needs at least 2 photos, got {count}")
    return mean, scatter / (count - 1)


def frechet_distance(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> float:
    """Squared Fréchet distance of two Gaussians (Heusel et al. 2017, equation 6), given their `moments`.

    The trace of (C1 C2)^½ is taken as that of (C1^½ C2 C1^½)^½, which is symmetric: with fewer photos than features the
    covariances are singular, and a general square root of their product turns complex.
    """
    (mean_1, covariance_1), (mean_2, covariance_2) = first, second
    values, vectors = np.linalg.eigh(covariance_1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = root @ covariance_2 @ root
    common = np.sqrt(np.maximum(np.linalg.eigvalsh((inner + inner.T) / 2), 0)).sum()
    step = mean_1 - mean_2
    distance = step @ step + np.trace(covariance_1) + np.trace(covariance_2) - 2 * common
    return max(0.0, float(distance))


def fid_rows(
    records: Sequence[Mapping[str, Any]], photos: Sequence[ChosenPhoto], file: FeatureFile
) -> dict[str, float]:
    """FID of each row with at least two held-out photos: its results against the truths of the same photos."""
    scored: dict[str, set[str]] = {}
    for record in records:
        if record["part"] == HELD_OUT and "failed" not in record:
            scored.setdefault(record["row"], set()).add(record["key"])
    truths: dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]] = {}  # most rows have all photos
    distances = {}
    for row, found in scored.items():
        keys = tuple(photo.key for photo in photos if photo.part == HELD_OUT and photo.key in found)
        if len(keys) < 2:
            continue
        if keys not in truths:
            truths = {keys: moments(file.batches([(TRUTH, key) for key in keys]))}
        distances[row] = frechet_distance(moments(file.batches([(row, key) for key in keys])), truths[keys])
    return distances


def _digest(name: Name) -> bytes:
    # a key may hold what is no UTF-8
    return hashlib.sha256("\0".join(name).encode("utf-8", "surrogatepass")).digest()
