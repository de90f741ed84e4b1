"""The photo encoder: a pretrained image classifier's features of the gray photo, given to the U-Net.

A small U-Net trained on some thousand photos hardly knows what leaves, skies and cloth look like; an image encoder
pretrained on a million does. Its features enter as ControlNet's do (arXiv 2302.05543): residuals on the skip
connections and the middle of the U-Net, through projections that start at zero. So the U-Net stays a stock
`UNet2DConditionModel`, and works without them, less well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

Residuals = tuple[torch.Tensor, ...]  # one for each skip connection of the U-Net in its order, the middle's last

# EfficientNet-Lite0 (github.com/tensorflow/tpu, models/official/efficientnet/lite) as transformers.EfficientNetConfig.
# It has no squeeze-and-excitation; the smallest there can be is kept open by its bias.
EFFICIENTNET_LITE0 = {
    "hidden_act": "relu6",
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "squeeze_expansion_ratio": 0.01,
    "hidden_dim": 1280,
    "drop_connect_rate": 0.0,
}


class PhotoEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers has no types
    """EfficientNet up to the last stride that is asked for, and a projection of its features for each place of a U-Net.

    Args:
        encoder: settings of `transformers.EfficientNetConfig`.
        places: channels and stride in pixels of each residual; see `places_of`.

    Raises:
        ValueError: a place has a larger stride than the encoder's features.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, encoder: dict[str, Any], places: list[list[int]]) -> None:
        super().__init__()
        from transformers import EfficientNetConfig, EfficientNetModel

        whole = EfficientNetModel(EfficientNetConfig(**encoder))
        self.embeddings, self.blocks, self.strides = whole.embeddings, nn.ModuleList(), []
        widths, stride, last = {}, 2, max(stride for _, stride in places)
        for block in whole.encoder.blocks:
            stride *= block.depthwise_conv.stride
            if stride <= last:
                self.blocks.append(block)
                self.strides.append(stride)
                widths[stride] = block.projection.project_conv.out_channels
        if last not in widths:
            raise ValueError(f"the U-Net has features at stride {last}, and the encoder's end at {max(widths)}")
        self.projections = nn.ModuleList(nn.Conv2d(widths[stride], channels, 1) for channels, stride in places)
        with torch.no_grad():
            for parameter in self.projections.parameters():
                parameter.zero_()

    def forward(self, rgb: torch.Tensor) -> Residuals:
        """(B, 3, H, W) sRGB 0..1, sides multiples of the largest stride -> residuals (B, C, H / stride, W / stride)."""
        return self.residuals(self.features(rgb))

    def residuals(self, features: dict[int, torch.Tensor]) -> Residuals:
        """Return the residuals of `features`."""
        places = self.config.places
        return tuple(project(features[place[1]]) for project, place in zip(self.projections, places, strict=True))

    def features(self, rgb: torch.Tensor) -> dict[int, torch.Tensor]:
        """Return the last features of each stride: stride -> (B, C, H / stride, W / stride)."""
        hidden = self.embeddings((rgb * 255 - 127) / 128)  # the scaling that EfficientNet-Lite was trained with
        features = {}
        for stride, block in zip(self.strides, self.blocks, strict=True):
            hidden = features[stride] = block(hidden)
        return features

    def train(self, mode: bool = True) -> PhotoEncoder:
        """Set the mode as in torch, but batch normalization keeps the statistics of the pretraining."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def places_of(unet: UNet2DConditionModel) -> list[list[int]]:
    """Return channels and stride in pixels of each skip connection of `unet`, the middle's last."""
    config, stride = unet.config, 8  # latents are 8 px apart
    places = [[config.block_out_channels[0], stride]]
    layers = config.layers_per_block
    for level, channels in enumerate(config.block_out_channels):
        count = layers if isinstance(layers, int) else layers[level]
        places += [[channels, stride]] * count
        if level < len(config.block_out_channels) - 1:
            stride *= 2
            places.append([channels, stride])
    return [*places, [config.block_out_channels[-1], stride]]


def unet_arguments(residuals: Sequence[torch.Tensor] | None) -> dict[str, Any]:
    """Return residuals as the keyword arguments of a U-Net's `forward`."""
    if residuals is None:
        return {}
    *skips, middle = residuals
    return {"down_block_additional_residuals": tuple(skips), "mid_block_additional_residual": middle}
