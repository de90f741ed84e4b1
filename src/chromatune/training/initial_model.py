"""Where fine-tuning starts: an InstructPix2Pix model, or Stable Diffusion made into one; which weights are trained."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chromatune.errors import MissingExtraError, ModelError
from chromatune.pipeline import (
    EditFiles,
    ModelFiles,
    ModelInfo,
    Pipeline,
    find_trainable,
    load_parts,
    load_sdxl_parts,
    read_info,
)
from chromatune.prompts import DEFAULT_PROMPT
from chromatune.training.settings import Adapter, Parts

if TYPE_CHECKING:
    import torch
    from diffusers import UNet2DConditionModel
    from torch import nn

PLAIN_CHANNELS = 4  # noisy latents
CHANNELS = 8  # noisy latents, then condition latents
LORA_TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]


@dataclass(frozen=True)
class InitialModel:
    """A model before its fine-tuning."""

    pipeline: Pipeline  # float32, on the CPU, nothing frozen yet; the U-Net takes (B, 8, h, w)
    defaults: dict[str, Any]  # what its chromatune.json says; empty without one
    widened: bool = False  # it took 4 channels; the photo's 4 do nothing yet


def load_initial_model(name: str) -> InitialModel:
    """Load the model `name`, ready to be trained as an InstructPix2Pix model.

    Args:
        name: what `chromatune.pipeline.load_pipeline` takes, an InstructPix2Pix model of SDXL, or a Stable Diffusion
            model with 4 input channels, whose first layer is widened (see `widen_conv_in`). A LoRA is merged into its
            base.

    Raises:
        ModelError: the name is unknown, the model incomplete, one of its defaults senseless, or its U-Net takes
            neither 4 nor 8 channels.
        MissingExtraError: it is a LoRA, and peft is not installed.
    """
    import torch

    files = find_trainable(name)
    info = initial_info(files)  # a senseless default shows before the training, not after it
    sdxl = isinstance(files, EditFiles)
    parts = load_sdxl_parts(files, torch.float32) if isinstance(files, EditFiles) else load_parts(files, torch.float32)
    channels = parts["unet"].config.in_channels
    if channels == PLAIN_CHANNELS and not sdxl:
        widen_conv_in(parts["unet"])
    elif channels != CHANNELS:
        raise ModelError(
            f"{name}: its U-Net takes {channels} channels; give an InstructPix2Pix model ({CHANNELS}) "
            f"or a plain Stable Diffusion model ({PLAIN_CHANNELS})"
        )
    return InitialModel(Pipeline(info=info, **parts), files.defaults, widened=channels == PLAIN_CHANNELS)


def initial_info(files: ModelFiles | EditFiles) -> ModelInfo:
    """Return what is known of a model that is fine-tuned: it will follow the instructions that it is trained with.

    Raises:
        ModelError: one of its defaults makes no sense.
    """
    info = read_info(files)
    if isinstance(files, EditFiles) and "prompt" not in files.defaults:
        info = dataclasses.replace(info, prompt=DEFAULT_PROMPT)
    return info


def widen_conv_in(unet: UNet2DConditionModel) -> None:
    """Make a 4-channel U-Net take 8 channels, in place; until it is trained, the new four change nothing.

    As InstructPix2Pix does (arXiv 2211.09800, section 3.2): zeros for the new channels, the rest as it was. The
    layer itself stays, so its bias does too, and no random number is drawn.
    """
    import torch

    conv = unet.conv_in
    zeros = conv.weight.new_zeros(conv.out_channels, CHANNELS - conv.in_channels, *conv.kernel_size)
    conv.weight = torch.nn.Parameter(torch.cat([conv.weight.detach(), zeros], dim=1))  # (C, 8, 3, 3)
    conv.in_channels = CHANNELS
    unet.register_to_config(in_channels=CHANNELS)


def select_trainable(
    pipeline: Pipeline, parts: Parts, lora_rank: int, adapter: Adapter = "lora"
) -> list[torch.nn.Parameter]:
    """Return the parameters that `parts` names, now the only ones with `requires_grad`; those of `lora` are added.

    The VAE's encoder is never among them: its latents are the targets, and a loss on targets that move has
    its minimum where they say nothing. Nor is the photo encoder.

    Raises:
        MissingExtraError: `lora` without peft.
    """
    unet, vae, text_encoder = pipeline.unet, pipeline.vae, pipeline.text_encoder
    for module in filter(None, (unet, vae, text_encoder, pipeline.photo_encoder)):
        module.requires_grad_(False)
    trainable: list[torch.nn.Parameter] = []
    if parts == "lora":
        unet.add_adapter(_adapter_config(adapter, lora_rank))
        trainable += [p for p in unet.parameters() if p.requires_grad]
    elif parts == "unet-attention":
        trainable += [p for name, p in unet.named_parameters() if ".attn1." in name or ".attn2." in name]
    else:
        trainable += list(unet.parameters())
    if parts in ("unet+vae-decoder", "all"):
        trainable += [p for name, p in vae.named_parameters() if name.startswith(("decoder.", "post_quant_conv."))]
    if parts in ("unet+text-encoder", "all"):
        trainable += list(text_encoder.parameters())
    for parameter in trainable:
        parameter.requires_grad_(True)
    return trainable


def _adapter_config(adapter: Adapter, rank: int) -> Any:
    """Return peft's settings of an adapter that changes nothing yet.

    Raises:
        MissingExtraError: peft is not installed.
    """
    try:
        from peft import LoKrConfig, LoraConfig
    except ImportError:
        raise MissingExtraError("LoRA", "train") from None
    if adapter == "lokr":
        return LoKrConfig(r=rank, alpha=rank, target_modules=LORA_TARGETS)
    init, dora = "gaussian", adapter == "dora"
    return LoraConfig(r=rank, lora_alpha=rank, init_lora_weights=init, use_dora=dora, target_modules=LORA_TARGETS)


def weights_digest(module: nn.Module) -> str:
    """Return 16 hex digits of the SHA-256 of a module's weights."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
