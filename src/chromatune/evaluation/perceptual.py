"""Networks that compare photos, given by path: LPIPS of each photo, and the features that FID is taken over.

Both are TorchScript files, so that neither torchvision nor a package of weights is needed, and a row can name exactly
what measured it. What each must take and give:

- LPIPS, `alex` or `vgg`, version 0.1 (Zhang et al. 2018): two (N, 3, H, W) float32 images, sRGB in [-1, 1] -> N
  distances. `torch.jit.trace(lpips.LPIPS(net="alex").eval(), (x, x)).save(PATH)` writes one, x being any image.
- FID, `tf-inception`: (N, 3, H, W) uint8 sRGB and `return_features=True` -> (N, D), as the published
  inception-2015-12-05.pt, which resizes by itself as TensorFlow did.
- FID, `torchvision-inception`: (N, 3, 299, 299) float32, resized and ImageNet-normalised here -> (N, D).
  Its numbers and those of `tf-inception` are not to be compared.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from chromatune.errors import OptionsError
from chromatune.evaluation.settings import FID_BACKENDS, LPIPS_NETS, EvaluationSettings, named_path

INCEPTION_PX = 299
IMAGENET_MEAN = np.array((0.485, 0.456, 0.406), np.float32)  # of sRGB 0..1, as torchvision's weights were trained
IMAGENET_STD = np.array((0.229, 0.224, 0.225), np.float32)
HASH_DIGITS = 16
PROBE_PX = 96  # alex and Inception's own resizing take it

Run = Callable[..., np.ndarray]


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
    """What was asked for beside the protocol's own metrics; None where it was not."""

    lpips: Network | None = None
    fid: Network | None = None

    @property
    def described(self) -> dict[str, str]:
        """For the protocol: what there is, by name."""
        given = {"lpips": self.lpips, "fid": self.fid}
        return {name: str(network) for name, network in given.items() if network is not None}


def load_networks(settings: EvaluationSettings) -> Networks:
    """The networks that the settings name, tried on a made-up image.

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
    """How many numbers the network tells of an image."""
    return len(features(network, np.zeros((PROBE_PX, PROBE_PX, 3), np.uint8)))


def lpips(network: Network, result: np.ndarray, truth: np.ndarray) -> float:
    """LPIPS v0.1 of two photos, (H, W, 3) uint8 sRGB each; 0 for equal ones.

    Raises:
        OptionsError: the module answers anything but one finite number.
    """
    distance = network.run(*(_channels_first(photo.astype(np.float32) / 127.5 - 1) for photo in (result, truth)))
    if distance.size != 1 or not np.isfinite(distance).all():
        raise OptionsError(f"--lpips: the module answers {distance.shape} for one pair; accepted: one finite distance")
    return float(distance.reshape(()))


def features(network: Network, rgb_u8: np.ndarray) -> np.ndarray:
    """What FID is taken over: (H, W, 3) uint8 sRGB -> (D,) float32.

    Raises:
        OptionsError: the module answers anything but one row of finite numbers.
    """
    if network.name == "tf-inception":
        found = network.run(_channels_first(rgb_u8), return_features=True)
    else:
        shrinks = min(rgb_u8.shape[:2]) > INCEPTION_PX
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        resized = cv2.resize(rgb_u8.astype(np.float32) / 255, (INCEPTION_PX, INCEPTION_PX), interpolation=how)
        found = network.run(_channels_first((resized - IMAGENET_MEAN) / IMAGENET_STD))
    if found.ndim != 2 or found.shape[0] != 1 or not np.isfinite(found).all():
        raise OptionsError(f"--fid: the module answers {found.shape} for one image; accepted: (1, D) finite features")
    return found[0].astype(np.float32)


def _channels_first(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) -> (1, 3, H, W)."""
    return np.ascontiguousarray(image.transpose(2, 0, 1))[None]


def _load(option: str, text: str, accepted: tuple[str, ...], device: str | None) -> Network:
    import torch

    name, path = named_path(option, text, accepted)
    if not path.is_file():
        raise OptionsError(f"--{option}: {path} is no file; give the path of a TorchScript module")
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with warnings.catch_warnings():
            # its successors cannot read the files that are published
            warnings.filterwarnings("ignore", r"`torch\.jit\.load` is deprecated", DeprecationWarning)
            module = torch.jit.load(str(path), map_location=where).eval()
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise OptionsError(f"--{option}: {path} cannot be loaded as a TorchScript module ({reason})") from None
    return Network(name, _hash_of(path), _runner(option, path, module, torch.device(where)))


def _runner(option: str, path: Path, module: Any, device: Any) -> Run:
    import torch

    def run(*arrays: np.ndarray, **flags: bool) -> np.ndarray:
        tensors = [torch.from_numpy(array).to(device) for array in arrays]
        try:
            # unoptimised: the optimiser changes the program after its first runs, and with it the last digits
            with torch.inference_mode(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
                answer = module(*tensors, **flags)
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            raise OptionsError(f"--{option}: {path} does not work on images of {arrays[0].shape} ({reason})") from None
        if not isinstance(answer, torch.Tensor):
            raise OptionsError(f"--{option}: {path} answers {type(answer).__name__}; accepted: a tensor")
        return answer.float().cpu().numpy()

    return run


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:HASH_DIGITS]
