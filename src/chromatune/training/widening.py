"""Where fine-tuning starts: an InstructPix2Pix model as it is, or a plain Stable Diffusion model made into one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chromatune.errors import ModelError
from chromatune.pipeline import ModelInfo, find_model, load_parts, read_info

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderTiny, SchedulerMixin, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    from chromatune.pipeline import PhotoEncoder

PLAIN_CHANNELS = 4  # noisy latents
CHANNELS = 8  # noisy latents, then condition latents


@dataclass(frozen=True)
class TrainablePipeline:
    """The parts of an InstructPix2Pix model as training takes them: float32, on the CPU, nothing frozen yet."""

    info: ModelInfo
    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: AutoencoderKL | AutoencoderTiny
    unet: UNet2DConditionModel  # takes (B, 8, h, w)
    scheduler: SchedulerMixin
    defaults: dict[str, Any]  # chromatune.json, or nothing
    widened: bool = False  # it took 4 channels; the photo's 4 do nothing yet
    photo_encoder: PhotoEncoder | None = None  # stays as it is


def open_trainable(name: str) -> TrainablePipeline:
    """The model `name`, ready to be trained as an InstructPix2Pix model.

    Args:
        name: what `chromatune.pipeline.load_pipeline` takes, or a Stable Diffusion model with 4 input channels, whose
            first layer is widened (see `widen_conv_in`). A LoRA is merged into its base.

    Raises:
        ModelError: the name is unknown, the model incomplete, one of its defaults senseless, or its U-Net takes
            neither 4 nor 8 channels.
        MissingExtraError: it is a LoRA, and peft is not installed.
    """
    import torch

    files = find_model(name)
    info = read_info(files)  # a senseless default shows before the training, not after it
    parts = load_parts(files, torch.float32)
    channels = parts["unet"].config.in_channels
    if channels == PLAIN_CHANNELS:
        widen_conv_in(parts["unet"])
    elif channels != CHANNELS:
        raise ModelError(
            f"{name}: its U-Net takes {channels} channels; give an InstructPix2Pix model ({CHANNELS}) "
            f"or a plain Stable Diffusion model ({PLAIN_CHANNELS})"
        )
    return TrainablePipeline(info=info, defaults=files.defaults, widened=channels == PLAIN_CHANNELS, **parts)


def widen_conv_in(unet: UNet2DConditionModel) -> None:
    """Makes a 4-channel U-Net take 8 channels, in place; until it is trained, the new four change nothing.

    As InstructPix2Pix does (arXiv 2211.09800, section 3.2): zeros for the new channels, the rest as it was. The
    layer itself stays, so its bias does too, and no random number is drawn.
    """
    import torch

    conv = unet.conv_in
    zeros = conv.weight.new_zeros(conv.out_channels, CHANNELS - conv.in_channels, *conv.kernel_size)
    conv.weight = torch.nn.Parameter(torch.cat([conv.weight.detach(), zeros], dim=1))  # (C, 8, 3, 3)
    conv.in_channels = CHANNELS
    unet.register_to_config(in_channels=CHANNELS)
