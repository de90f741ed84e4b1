"""Models: an InstructPix2Pix pipeline folder opened as one frozen bundle, and the border between pixels and latents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chromatune.errors import ModelError
from chromatune.prompts import DEFAULT_PROMPT

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, AutoencoderTiny, SchedulerMixin, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

MODELS_DIR = Path(__file__).parent / "models"
DEFAULTS_FILE = "chromatune.json"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# What the full-size model needs to be told and its folder does not say (the paper's values, arXiv 2312.04780).
STOCK_DEFAULTS = {
    "steps": 20,
    "guidance_scale": 7.0,
    "image_guidance_scale": 1.5,
    "prompt": DEFAULT_PROMPT,
    "chroma_gain": 1.0,
}


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model before its weights are read."""

    name: str
    path: Path
    description: str
    size_px: int  # short side of the model's own pass
    steps: int
    guidance_scale: float
    image_guidance_scale: float
    prompt: str
    chroma_gain: float  # what recomposition multiplies chroma by: few steps give nearly a mean, which is too dull


@dataclass(frozen=True)
class Bundle:
    """An opened InstructPix2Pix pipeline; nothing in it changes after loading."""

    info: ModelInfo
    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: AutoencoderKL | AutoencoderTiny
    unet: UNet2DConditionModel
    scheduler: SchedulerMixin

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights: float32 on a CPU, float16 on a GPU."""
        return self.unet.dtype

    @property
    def vae_factor(self) -> int:
        """Pixels per latent, along one side: 8 for Stable Diffusion and for `mini`."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def multiple_px(self) -> int:
        """Sides of the model's pass are multiples of this, so that every U-Net level halves evenly."""
        return self.vae_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)


def available_models() -> list[ModelInfo]:
    """The models that ship in the package, best first; reads no weights and imports no torch."""
    return [_read_info(path.name, path) for path in sorted(MODELS_DIR.glob("*/")) if (path / DEFAULTS_FILE).is_file()]


def load_bundle(name: str = "mini", *, device: str | None = None) -> Bundle:
    """The model called `name`: `mini`, `mini-base`, an InstructPix2Pix pipeline folder, or a hub name.

    Args:
        name: an embedded model, a folder that `save_pretrained` of diffusers wrote, or `owner/name` on the hub.
        device: `cpu`, `cuda`, `cuda:1`, `mps`; by default a GPU where there is one.

    Raises:
        ModelError: the name is unknown, the folder incomplete, its weights are not safetensors, or it is not an
            InstructPix2Pix model (8 input channels).
    """
    path = _find(name)
    index = _read_index(name, path)
    import torch

    where = _device(device)
    # bfloat16 is slower than float32 on most CPUs, and float16 is not exact enough there either.
    dtype = torch.float16 if where.type == "cuda" else torch.float32
    parts = {part: _load_part(name, path, part, index, dtype) for part in ("vae", "text_encoder", "unet")}
    if parts["unet"].config.in_channels != 8:
        raise ModelError(
            f"{name}: its U-Net takes {parts['unet'].config.in_channels} channels, InstructPix2Pix takes 8; "
            "give an InstructPix2Pix model, or fine-tune this one first"
        )
    for part in parts.values():
        part.to(where).eval().requires_grad_(False)
    if where.type == "cpu":
        for part in ("vae", "unet"):
            parts[part].to(memory_format=torch.channels_last)
    tokenizer, scheduler = (_load_part(name, path, part, index, None) for part in ("tokenizer", "scheduler"))
    return Bundle(info=_read_info(name, path), tokenizer=tokenizer, scheduler=scheduler, **parts)


def encode_condition(bundle: Bundle, rgb: torch.Tensor) -> torch.Tensor:
    """Pixels ⇒ condition latents: (B, 3, H, W) float32 sRGB 0..1 -> (B, 4, h, w), mode of the posterior, unscaled.

    The stock pipeline leaves condition latents unscaled too (and scales only what is denoised).
    """
    pixels = (rgb * 2 - 1).to(bundle.device, bundle.dtype)
    encoded = bundle.vae.encode(pixels)
    return encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()


def decode_latents(bundle: Bundle, latents: torch.Tensor) -> torch.Tensor:
    """Latents ⇒ pixels: (B, 4, h, w) scaled latents -> (B, 3, H, W) float32 sRGB 0..1 on the CPU."""
    decoded = bundle.vae.decode(latents / bundle.vae.config.scaling_factor).sample
    return (decoded.float() / 2 + 0.5).clamp(0, 1).cpu()


def _device(device: str | None) -> torch.device:
    import torch

    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        where = torch.device(device)
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError):
        raise ModelError(f"device {device!r} is not available here; leave it out, or give 'cpu'") from None
    return where


def _find(name: str) -> Path:
    """Folder of the model `name`, fetched from the hub if need be."""
    embedded = {info.name: info.path for info in available_models()}
    if name in embedded:
        return embedded[name]
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    if HUB_NAME.fullmatch(name):
        return _fetch(name)
    raise ModelError(
        f"unknown model {name!r}; accepted: {', '.join(embedded)}, a diffusers InstructPix2Pix folder, "
        "or a hub name such as timbrooks/instruct-pix2pix"
    )


def _fetch(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    # Single-file checkpoints, fp16 doubles and the safety checker are gigabytes that nothing here reads.
    wanted = ["*.json", "*.txt", "unet/*.safetensors", "vae/*.safetensors", "text_encoder/*.safetensors"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=["*.fp16.*", "*non_ema*"]))
    except LocalEntryNotFoundError:
        raise ModelError(
            f"{name} is no folder here and the hub cannot be reached; check the path, or go online"
        ) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{name} is no folder here and the hub does not give it: {reason}") from None


def _read_index(name: str, path: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads((path / "model_index.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{name} is no pipeline folder: it has no model_index.json") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: model_index.json cannot be read ({error}); download the model again") from None
    missing = [part for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler") if not index.get(part)]
    if missing:
        raise ModelError(f"{name}: model_index.json names no {missing[0]}; is it a Stable Diffusion pipeline?")
    return index


def _load_part(name: str, path: Path, part: str, index: dict[str, Any], dtype: torch.dtype | None) -> Any:
    import diffusers
    import transformers

    library, class_name = index[part]
    source = {"diffusers": diffusers, "transformers": transformers}.get(library)
    part_class = getattr(source, class_name, None)
    if part_class is None:
        raise ModelError(f"{name}: {part} is a {library}.{class_name}, which is not known here")
    options: dict[str, Any] = {}
    if dtype is not None:
        key = "dtype" if library == "transformers" else "torch_dtype"
        options = {key: dtype, "use_safetensors": True}
    try:
        with _quiet_libraries():
            return part_class.from_pretrained(path, subfolder=part, local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(f"{name}: {part} cannot be loaded (safetensors only): {reason}") from None


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """No progress bars for a few megabytes, nor the warning that AutoencoderTiny draws for a key it adds itself."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    with_bars = [library for library in libraries if library.is_progress_bar_enabled()]
    levels = [(library, library.get_verbosity()) for library in libraries]
    for library in libraries:
        library.disable_progress_bar()
        library.set_verbosity_error()
    try:
        yield
    finally:
        for library in with_bars:
            library.enable_progress_bar()
        for library, level in levels:
            library.set_verbosity(level)


def _read_info(name: str, path: Path) -> ModelInfo:
    """Defaults kept beside the weights; for a folder without them, the U-Net's size and the paper's settings."""
    own = path / DEFAULTS_FILE
    try:
        known = json.loads(own.read_text(encoding="utf-8")) if own.is_file() else {}
        unet = json.loads((path / "unet" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: its settings cannot be read ({error}); download the model again") from None
    merged: dict[str, Any] = {"size_px": 8 * int(unet.get("sample_size") or 64), "description": str(path)}
    merged |= STOCK_DEFAULTS | {key: value for key, value in known.items() if key in ModelInfo.__dataclass_fields__}
    return ModelInfo(**(merged | {"name": name, "path": path}))
