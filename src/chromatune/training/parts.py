"""Parts of a model: which are trained and which stay frozen, and a digest that other weights change."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from chromatune.errors import MissingExtraError
from chromatune.training.settings import Parts

if TYPE_CHECKING:
    import torch
    from torch import nn

LORA_TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]


def select_parts(
    parts: Parts,
    unet: nn.Module,
    vae: nn.Module,
    text_encoder: nn.Module,
    lora_rank: int = 8,
    photo_encoder: nn.Module | None = None,
) -> list[torch.nn.Parameter]:
    """The parameters that `parts` names, now the only ones with `requires_grad`.

    The VAE's encoder is never among them: its latents are the targets, and a loss on targets that move has
    its minimum where they say nothing. Nor is the photo encoder.

    Raises:
        MissingExtraError: `lora` without peft.
    """
    for module in filter(None, (unet, vae, text_encoder, photo_encoder)):
        module.requires_grad_(False)
    chosen: list[torch.nn.Parameter] = []
    if parts == "lora":
        _add_lora(unet, lora_rank)
        chosen += [p for p in unet.parameters() if p.requires_grad]
    elif parts == "unet-attention":
        chosen += [p for name, p in unet.named_parameters() if ".attn1." in name or ".attn2." in name]
    else:
        chosen += list(unet.parameters())
    if parts in ("unet+vae-decoder", "all"):
        chosen += [p for name, p in vae.named_parameters() if name.startswith(("decoder.", "post_quant_conv."))]
    if parts in ("unet+text-encoder", "all"):
        chosen += list(text_encoder.parameters())
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen


def _add_lora(unet: nn.Module, rank: int) -> None:
    try:
        from peft import LoraConfig
    except ImportError:
        raise MissingExtraError("LoRA", "train") from None
    config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=LORA_TARGETS)
    unet.add_adapter(config)  # type: ignore[operator]  # diffusers' own method, unknown to nn.Module


def weights_digest(module: nn.Module) -> str:
    """16 hex digits of the SHA-256 of a module's weights."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
