"""DDColor's weights, as its authors and others share them (.pth, .pt, .safetensors) ⇒ a colorizer by torch.

Only numbers are read, never pickled code, and only DDColor is ever built, by the class in spandrel_extra_arches. That
package runs it at 256 px; here it gets the size that is asked for, in float32: it was not made for float16.
"""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from chromatune.errors import MissingExtraError, ModelError
from chromatune.files import open_regular
from chromatune.pipeline.checks import AGAIN, read_header, reason_of
from chromatune.pipeline.colorizer_backend import ColorizerBackend
from chromatune.pipeline.colorizer_files import ColorizerFiles
from chromatune.pipeline.colorizer_graph import DEFAULT_MULTIPLE_PX, Convention, TensorUse
from chromatune.pipeline.loading import torch_device
from chromatune.pipeline.model_files import has_torch
from chromatune.pipeline.model_kinds import read_info

if TYPE_CHECKING:
    import torch
    from torch import nn

    Weights = dict[str, torch.Tensor]

WRAPPERS = ("params_ema", "params", "state_dict", "model")  # keys that training tools put around the weights
LARGEST_BYTES = 4 << 30  # DDColor's largest has 0.9 GB
MOST_TENSORS = 1000  # its largest has 602
MOST_LAYERS = 64  # of one kind; its largest has 27
LONGEST_SIDE = 8192  # of a tensor; its largest has 6144


def load_checkpoint_backend(files: ColorizerFiles, *, device: str | None = None) -> ColorizerBackend:
    """Open a checkpoint of DDColor as a backend.

    Args:
        files: see `find_model`.
        device: of torch; None for the best there is.

    Raises:
        MissingExtraError: torch or spandrel_extra_arches is not installed.
        ModelError: see `open_ddcolor`; or there is no such device.
    """
    network, info = open_ddcolor(files), read_info(files)
    chosen = torch_device(device)
    convention = Convention(
        input=TensorUse("input", "rgb", "nchw", 0, 1),
        output=TensorUse("output", "ab", "nchw", 0, 1),
        mean=(0, 0, 0),  # the network normalizes by itself
        std=(1, 1, 1),
        zeros={},
        fixed_px=None,
        size_px=info.size_px,
        multiple_px=files.declared.multiple_px or DEFAULT_MULTIPLE_PX,
        family=info.family,
        found=("its weights are DDColor's, which takes the gray as RGB 0 to 1 and gives a and b",),
    )
    opened = _Turns(network.to(chosen), chosen)
    return ColorizerBackend(info, opened, convention, runtime="torch", concurrent=False, work=opened.work)


def open_ddcolor(files: ColorizerFiles) -> nn.Module:
    """Return DDColor with a checkpoint's weights, on the CPU: (1, 3, h, w) RGB 0..1 -> (1, 2, h, w) CIELAB's a and b.

    Raises:
        MissingExtraError: torch or spandrel_extra_arches is not installed.
        ModelError: the weights cannot be read, or are not DDColor's.
    """
    if not has_torch() or find_spec("spandrel_extra_arches") is None:
        raise MissingExtraError(f"{files.name} is a checkpoint, and opening it", "colorizers")
    try:
        return _build(_read_weights(files.network)).eval().requires_grad_(False)
    except ValueError as error:
        raise ModelError(f"{files.name}: it {error}; {AGAIN}, or give another") from None
    except OSError as error:
        raise ModelError(f"{files.name}: it cannot be read ({error.strerror}); {AGAIN}") from None


class _Turns:
    """A network for several threads, one after the other: DDColor keeps what it has seen between its two halves."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network, self._device, self._turn = network, device, Lock()

    def __call__(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        import torch

        (pixels,) = arrays.values()  # (1, 3, h, w) 0..1
        with self._turn, torch.inference_mode():
            return self._network(torch.from_numpy(np.ascontiguousarray(pixels)).to(self._device)).cpu().numpy()

    def work(self, height_px: int, width_px: int) -> tuple[int, int]:
        """Return the number of parameters, and of operations of a pass."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counted:
            self({"input": np.zeros((1, 3, height_px, width_px), np.float32)})
        return sum(each.numel() for each in self._network.parameters()), counted.get_total_flops()


def _build(weights: Weights) -> nn.Module:
    """Return the network that the weights are of.

    Raises:
        ValueError: the weights are not DDColor's, or not all of it.
    """
    _check_sizes(weights)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the library itself takes of torch
            from spandrel_extra_arches.architectures.DDColor import DDColorArch
        known = DDColorArch()
        network = known.load(weights).model if known.detect(weights) else None
    except Exception as error:  # what the library raises on weights that do not fit is of any kind
        raise ValueError(f"cannot be opened as DDColor ({reason_of(error)})") from error
    if network is None:
        raise ValueError("has weights of another network than DDColor, and only that one is built from a checkpoint")
    if network.num_output_channels != 2:
        raise ValueError(f"gives {network.num_output_channels} channels, and a colorizer's are a and b")
    return network


def _read_weights(path: Path) -> Weights:
    """Return a checkpoint's tensors, without what a training tool put around them.

    Raises:
        ValueError: it is none, or holds other things than numbers.
        OSError: it cannot be read.
    """
    import torch

    with open_regular(path) as file:
        stored = os.fstat(file.fileno()).st_size
        if stored > LARGEST_BYTES:
            raise ValueError(f"is larger than {LARGEST_BYTES >> 30} GB")
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            read_header(path)
            found: Any = load_file(path)
        else:
            _check_archive(file, stored)
            try:
                found = torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:
                raise ValueError(
                    "holds other things than weights, or is damaged, and pickled code is never run"
                ) from error
    for wrapper in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not all(isinstance(each, torch.Tensor) for each in found.values()):
        raise ValueError("holds no weights by their names")
    if sum(each.numel() * each.element_size() for each in found.values()) > stored:
        raise ValueError("announces more numbers than it holds")
    return {str(name): each.float() if each.is_floating_point() else each for name, each in found.items()}


def _check_archive(file: BinaryIO, stored: int) -> None:
    """Check that a file is torch's archive, with nothing packed in it.

    Raises:
        ValueError: it is another one.
    """
    try:
        entries = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError):
        raise ValueError("is no checkpoint of torch 1.6 or later, or cut short") from None
    if any(each.compress_type != zipfile.ZIP_STORED for each in entries) or sum(e.file_size for e in entries) > stored:
        raise ValueError("is packed, which torch's checkpoints are not")
    file.seek(0)


def _check_sizes(weights: Weights) -> None:
    """Check that a network of these weights is no larger than any that exists, before it is built.

    Raises:
        ValueError: it is.
    """
    layers = [int(number) for name in weights for number in re.findall(r"\d+", name)]
    sides = [side for each in weights.values() for side in each.shape]
    if len(weights) > MOST_TENSORS or max(layers, default=0) >= MOST_LAYERS or max(sides, default=0) > LONGEST_SIDE:
        raise ValueError("describes a network larger than any DDColor")
