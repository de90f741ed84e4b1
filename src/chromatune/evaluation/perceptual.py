"""LPIPS of each photo, and FID: networks given by path, their features on disk, the Fréchet distance of two sets.

Both networks are TorchScript files, so that neither torchvision nor a package of weights is needed, and a row can name
exactly what measured it. What each must take and give:

- LPIPS, `alex` or `vgg`, version 0.1 (Zhang et al. 2018): two (N, 3, H, W) float32 images, sRGB in [-1, 1] -> N
  distances. `torch.jit.trace(lpips.LPIPS(net="alex").eval(), (x, x)).save(PATH)` writes one, x being any image.
- FID, `tf-inception`: (N, 3, H, W) uint8 sRGB and `return_features=True` -> (N, D), as the published
  inception-2015-12-05.pt, which resizes by itself as TensorFlow did.
- FID, `torchvision-inception`: (N, 3, 299, 299) float32, resized and ImageNet-normalized by us -> (N, D).
- FID, `ddcolor-inception`: the same, but normalized as the code of DDColor and CT2 does: sRGB 0..1 is taken for one in
  [-1, 1], so that the network sees bright images of half the contrast. For their published FIDs alone.
  No two of these give numbers that are to be compared.
"""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import cv2
import numpy as np

from chromatune.errors import DataError, MissingExtraError, OptionsError, first_line
from chromatune.evaluation.protocol import HELD_OUT, ChosenPhoto, Record, Row, scored_by_row
from chromatune.evaluation.settings import FID_BACKENDS, LPIPS_NETS, EvaluationSettings, named_path
from chromatune.files import append_regular
from chromatune.pipeline import has_torch

INCEPTION_PX = 299
IMAGENET_MEAN = np.array((0.485, 0.456, 0.406), np.float32)  # of sRGB 0..1, as torchvision's weights were trained
IMAGENET_STD = np.array((0.229, 0.224, 0.225), np.float32)
HASH_DIGITS = 16
PROBE_PX = 96  # alex and Inception's own resizing take it
ENOUGH_PHOTOS = 5000  # below, FID depends on the number of photos more than on the method
TRUTH = ""  # in place of a row's name: no row is called that
BATCH = 256  # features in memory at a time

Run = Callable[..., np.ndarray]
Name = tuple[str, str]  # name of a row, and key of a photo


@dataclass(frozen=True, eq=False)
class Network:
    """A loaded network.

    Attributes:
        name: of the net or backend.
        sha256: first hexadecimal digits of its file's hash.
        run: arrays in, an array out; the same whatever ran before.
    """

    name: str
    sha256: str
    run: Run

    def __str__(self) -> str:
        return f"{self.name}, SHA-256 {self.sha256}"


@dataclass(frozen=True, eq=False)
class Networks:
    """The networks of the optional metrics; None for those that are not measured."""

    lpips: Network | None = None
    fid: Network | None = None


def load_networks(settings: EvaluationSettings) -> Networks:
    """Return the networks that the settings name, tried on a made-up image.

    Raises:
        OptionsError: a file is missing, is no TorchScript, or its module does not take or give what it should.
    """
    loaded = Networks(
        None if settings.lpips is None else _load("lpips", settings.lpips, LPIPS_NETS, settings.device),
        None if settings.fid is None else _load("fid", settings.fid, FID_BACKENDS, settings.device),
    )
    first = np.random.default_rng(0).integers(0, 256, (PROBE_PX, PROBE_PX, 3), dtype=np.uint8)
    if loaded.lpips is not None and lpips(loaded.lpips, first, first) != 0:
        raise OptionsError("--lpips: the module does not find equal images equal; give one that answers a distance")
    if loaded.fid is not None:
        feature_width(loaded.fid)
    return loaded


def feature_width(network: Network) -> int:
    """Return the number of features that the network gives an image."""
    return len(features(network, np.zeros((PROBE_PX, PROBE_PX, 3), np.uint8)))


def lpips(network: Network, result: np.ndarray, truth: np.ndarray) -> float:
    """Return the LPIPS v0.1 of two photos, (H, W, 3) uint8 sRGB each; 0 for equal ones.

    Raises:
        OptionsError: the module returns anything but one finite number.
    """
    distance = network.run(*(_channels_first(photo.astype(np.float32) / 127.5 - 1) for photo in (result, truth)))
    if distance.size != 1 or not np.isfinite(distance).all():
        raise OptionsError(f"--lpips: the module answers {distance.shape} for one pair; accepted: one finite distance")
    return float(distance.reshape(()))


def features(network: Network, rgb_u8: np.ndarray) -> np.ndarray:
    """Return the features that FID is taken over: (H, W, 3) uint8 sRGB -> (D,) float32.

    Raises:
        OptionsError: the module returns anything but one row of finite numbers.
    """
    if network.name == "tf-inception":
        found = network.run(_channels_first(rgb_u8), return_features=True)
    else:
        shrinks = min(rgb_u8.shape[:2]) > INCEPTION_PX
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        resized = cv2.resize(rgb_u8.astype(np.float32) / 255, (INCEPTION_PX, INCEPTION_PX), interpolation=how)
        if network.name == "ddcolor-inception":
            found = network.run(_channels_first((resized + 1) * IMAGENET_STD + (2 * IMAGENET_MEAN - 1)))
        else:
            found = network.run(_channels_first((resized - IMAGENET_MEAN) / IMAGENET_STD))
    if found.ndim != 2 or found.shape[0] != 1 or not np.isfinite(found).all():
        raise OptionsError(f"--fid: the module answers {found.shape} for one image; accepted: (1, D) finite features")
    return found[0].astype(np.float32)


class FeatureFile:
    """Features of each photo under each row, appended one by one: what an interrupted run wrote stays.

    A record is the SHA-256 of its name and D float32 (little endian); a torn last one is dropped.
    """

    def __init__(self, path: Path, width: int) -> None:
        """Open or make the file, for features of `width` numbers."""
        self._record = np.dtype([("name", "V32"), ("features", "<f4", (width,))])
        self._path = path
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is no file; delete it, or give another --out")
        self._file: BinaryIO = append_regular(path)
        whole = self._file.seek(0, 2) // self._record.itemsize
        self._file.truncate(whole * self._record.itemsize)
        self._index = {bytes(name): index for index, name in enumerate(self._stored()["name"])} if whole else {}

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext():  # a full disk was reported already
            self._file.close()

    def __contains__(self, name: Name) -> bool:
        return _digest(name) in self._index

    def append(self, found: Mapping[Name, np.ndarray]) -> None:
        """Write the features that are not there yet, and flush.

        Raises:
            OSError: they cannot be written; `filename` is the file's.
        """
        try:
            for name, features in found.items():
                digest = _digest(name)
                if digest not in self._index:
                    self._file.write(digest + features.astype("<f4").tobytes())
                    self._index[digest] = len(self._index)
            self._file.flush()
        except OSError as error:
            error.filename = str(self._path)
            raise

    def batches(self, names: Sequence[Name]) -> Iterator[np.ndarray]:
        """Yield features in the names' order, which does not depend on interruptions: (up to `BATCH`, D) float64 each.

        Raises:
            DataError: there are none for a name, or they are damaged.
        """
        for name in names:
            if name not in self:
                raise DataError(f"{self._path}: no features of {name[1]}; delete the folder, or give another --out")
        indices = [self._index[_digest(name)] for name in names]
        for start in range(0, len(indices), BATCH):
            batch = self._stored()["features"][indices[start : start + BATCH]].astype(np.float64)
            if not np.isfinite(batch).all():
                raise DataError(f"{self._path}: features are damaged; delete the file, or give another --out")
            yield batch

    def _stored(self) -> np.ndarray:
        return np.memmap(self._path, self._record, mode="r")


def moments(batches: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (D,) and unbiased covariance (D, D), float64, of features that come in batches of (N, D).

    Batches are joined as Chan, Golub and LeVeque (1979, equation 2.1) do: sums of squares would cancel.

    Raises:
        ValueError: there are fewer than two features: they have no covariance.
    """
    count, mean, scatter = 0, np.zeros(0), np.zeros((0, 0))
    for batch in batches:
        center = batch.mean(axis=0)
        inner = (batch - center).T @ (batch - center)
        if not count:
            count, mean, scatter = len(batch), center, inner
            continue
        total, step = count + len(batch), center - mean
        scatter += inner + np.outer(step, step) * (count * len(batch) / total)
        mean, count = mean + step * (len(batch) / total), total
    if count < 2:
        raise ValueError(f"a covariance needs at least 2 photos, got {count}")
    return mean, scatter / (count - 1)


def frechet_distance(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the squared Fréchet distance of two Gaussians (Heusel et al. 2017, equation 6), given their `moments`.

    The trace of (C1 C2)^½ is computed as that of (C1^½ C2 C1^½)^½, which is symmetric: with fewer photos than features
    the covariances are singular, and a general square root of their product turns complex.
    """
    (mean_1, covariance_1), (mean_2, covariance_2) = first, second
    values, vectors = np.linalg.eigh(covariance_1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = root @ covariance_2 @ root
    common = np.sqrt(np.maximum(np.linalg.eigvalsh((inner + inner.T) / 2), 0)).sum()
    step = mean_1 - mean_2
    distance = step @ step + np.trace(covariance_1) + np.trace(covariance_2) - 2 * common
    return max(0.0, float(distance))


def fid_rows(records: Sequence[Record], photos: Sequence[ChosenPhoto], file: FeatureFile) -> dict[Row, float]:
    """Return the FID of each row with at least two held-out photos: its results against the same photos' truths."""
    truths: dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]] = {}  # most rows have all photos
    distances = {}
    for row, found in scored_by_row(records, HELD_OUT).items():
        keys = tuple(photo.key for photo in photos if photo.subset == HELD_OUT and photo.key in found)
        if len(keys) < 2:
            continue
        if keys not in truths:
            truths = {keys: moments(file.batches([(TRUTH, key) for key in keys]))}
        distances[row] = frechet_distance(moments(file.batches([(row.name, key) for key in keys])), truths[keys])
    return distances


def _channels_first(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) -> (1, 3, H, W)."""
    return np.ascontiguousarray(image.transpose(2, 0, 1))[None]


def _load(option: str, text: str, accepted: tuple[str, ...], device: str | None) -> Network:
    name, path = named_path(option, text, accepted)
    if not path.is_file():
        raise OptionsError(f"--{option}: {path} is no file; give the path of a TorchScript module")
    if not has_torch():
        raise MissingExtraError(f"--{option}", "torch")
    import torch

    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        with warnings.catch_warnings():
            # its successors cannot read the files that are published
            warnings.filterwarnings("ignore", r"`torch\.jit\.load` is deprecated", DeprecationWarning)
            module = torch.jit.load(str(path), map_location=target).eval()
    except (RuntimeError, ValueError, OSError) as error:
        reason = first_line(error).partition(". ")[0]
        raise OptionsError(f"--{option}: {path} cannot be loaded as a TorchScript module ({reason})") from None

    def run(*arrays: np.ndarray, **flags: bool) -> np.ndarray:
        tensors = [torch.from_numpy(array).to(target) for array in arrays]
        try:
            # unoptimized: the optimizer changes the program after its first runs, and with it the last digits
            with torch.inference_mode(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
                answer = module(*tensors, **flags)
        except RuntimeError as error:
            reason = first_line(error)
            raise OptionsError(f"--{option}: {path} does not work on images of {arrays[0].shape} ({reason})") from None
        if not isinstance(answer, torch.Tensor):
            raise OptionsError(f"--{option}: {path} answers {type(answer).__name__}; accepted: a tensor")
        return answer.float().cpu().numpy()

    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()[:HASH_DIGITS]
    return Network(name, sha256, run)


def _digest(name: Name) -> bytes:
    # a key may hold what is no UTF-8
    return hashlib.sha256("\0".join(name).encode("utf-8", "surrogatepass")).digest()
