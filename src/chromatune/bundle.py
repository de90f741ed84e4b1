"""Models: an InstructPix2Pix pipeline folder opened as one frozen bundle, and the border between pixels and latents."""

from __future__ import annotations

import importlib.util
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from chromatune.errors import MissingExtraError, ModelError
from chromatune.prompts import DEFAULT_PROMPT

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, AutoencoderTiny, SchedulerMixin, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    from chromatune.photo_encoder import PhotoEncoder, Residuals

MODELS_DIR = Path(__file__).parent / "models"
INDEX_FILE = "model_index.json"
DEFAULTS_FILE = "chromatune.json"
PHOTO_ENCODER = "photo_encoder"  # folder of the part that the stock pipeline does not know
LORA_FILE = "pytorch_lora_weights.safetensors"  # the name diffusers looks for
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# What the full-size model needs to be told and its folder does not say (the paper's values, arXiv 2312.04780).
STOCK_DEFAULTS = {
    "steps": 20,
    "guidance_scale": 7.0,
    "image_guidance_scale": 1.5,
    "prompt": DEFAULT_PROMPT,
    "chroma_gain": 1.0,
    "chroma_power": 1.0,
}


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model before its weights are read."""

    name: str
    path: Path
    description: str
    size_px: Annotated[int, Field(ge=8, le=2048)]  # short side of the model's own pass
    steps: Annotated[int, Field(ge=1, le=1000)]
    guidance_scale: Annotated[float, Field(ge=0, le=50)]
    image_guidance_scale: Annotated[float, Field(ge=0, le=50)]
    prompt: str
    # See `color.vivid`; both are chosen with `steps`, and are 1 where another number of steps is asked for
    chroma_gain: Annotated[float, Field(ge=0, le=10)]
    chroma_power: Annotated[float, Field(ge=1, le=4)]
    variant_steps: Annotated[int, Field(ge=1, le=1000)]  # for several versions: in one step, seeds hardly differ


@dataclass(frozen=True)
class ModelFiles:
    """Where a model is: a pipeline folder, and the LoRA folders to merge into its U-Net, the base's first."""

    name: str
    path: Path  # the folder that the name stands for
    pipeline: Path  # `path` itself, or for a LoRA the pipeline that it changes
    loras: tuple[Path, ...]
    index: dict[str, Any]  # the pipeline's model_index.json
    defaults: dict[str, Any]  # chromatune.json; a LoRA's settings over its base's


@dataclass(frozen=True)
class Bundle:
    """An opened InstructPix2Pix pipeline; nothing in it changes after loading."""

    info: ModelInfo
    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: AutoencoderKL | AutoencoderTiny
    unet: UNet2DConditionModel
    scheduler: SchedulerMixin
    photo_encoder: PhotoEncoder | None = None  # of `mini` and what is fine-tuned from it

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
    return [read_info(find_model(name)) for name in _embedded()]


def model_info(name: str) -> ModelInfo:
    """What is known of the model `name` (see `load_bundle`) before its weights are read.

    Raises:
        ModelError: the name is unknown, the folder incomplete, or one of its defaults senseless.
    """
    return read_info(find_model(name))


def load_bundle(name: str = "mini", *, device: str | None = None) -> Bundle:
    """The model called `name`: `mini`, `mini-base`, a pipeline folder, a LoRA folder, or a hub name.

    Args:
        name: an embedded model, a folder that `save_pretrained` of diffusers wrote, a LoRA folder that
            `chromatune.training` wrote (merged into the base it names), or `owner/name` on the hub.
        device: `cpu`, `cuda`, `cuda:1`, `mps`; by default a GPU where there is one.

    Raises:
        ModelError: the name is unknown, the folder incomplete, its weights are not safetensors, it is not an
            InstructPix2Pix model (8 input channels), or it is a LoRA whose base cannot be found.
        MissingExtraError: it is a LoRA, and peft is not installed.
    """
    files = find_model(name)
    import torch

    where = _device(device)
    # bfloat16 is slower than float32 on most CPUs, and float16 is not exact enough there either.
    parts = load_parts(files, torch.float16 if where.type == "cuda" else torch.float32)
    if parts["unet"].config.in_channels != 8:
        raise ModelError(
            f"{name}: its U-Net takes {parts['unet'].config.in_channels} channels, InstructPix2Pix takes 8; "
            "give an InstructPix2Pix model, or fine-tune this one first"
        )
    networks = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    for network in networks.values():
        network.to(where).eval().requires_grad_(False)
    if where.type == "cpu":
        for part in networks.keys() - {"text_encoder"}:
            parts[part].to(memory_format=torch.channels_last)
    return Bundle(info=read_info(files), **parts)


def find_model(name: str) -> ModelFiles:
    """The files of the model `name` (see `load_bundle`), fetched from the hub if need be; no weights are read.

    Raises:
        ModelError: the name is unknown, the folder incomplete, or it is a LoRA whose base cannot be found.
    """
    folders = [_find(name)]
    defaults = _read_defaults(name, folders[0])
    while _is_lora(folders[-1], defaults):
        base = defaults["base"]
        try:
            folder = _find(str(base))
        except ModelError as error:
            raise ModelError(f"{name} is a LoRA and its base model cannot be found: {error}") from None
        if folder in folders:
            raise ModelError(f"{name} is a LoRA whose base {base!r} is a LoRA on it again; name a pipeline as base")
        folders.append(folder)
        defaults = _read_defaults(str(base), folder) | {k: v for k, v in defaults.items() if k != "base"}
    pipeline = folders[-1]
    defaults.pop("base", None)
    index = _read_index(name, pipeline)
    return ModelFiles(name, folders[0], pipeline, tuple(reversed(folders[:-1])), index, defaults)


def read_info(files: ModelFiles) -> ModelInfo:
    """What is known of the model in `files`: its own defaults, else the U-Net's size and the paper's settings.

    Raises:
        ModelError: the settings cannot be read, or a default makes no sense.
    """
    try:
        unet = dict(json.loads((files.pipeline / "unet" / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{files.name}: its settings cannot be read ({error}); download the model again") from None
    known = {key: value for key, value in files.defaults.items() if key in ModelInfo.__dataclass_fields__}
    native = unet.get("sample_size") or 64
    native_px = 8 * native if isinstance(native, int) else native
    merged: dict[str, Any] = {"size_px": native_px, "description": str(files.path)}
    values = merged | STOCK_DEFAULTS | known | {"name": files.name, "path": files.path}
    try:
        return TypeAdapter(ModelInfo).validate_python({"variant_steps": values["steps"]} | values)
    except ValidationError as error:
        first = error.errors()[0]
        name, message = first["loc"][0], first["msg"].lower()
        where = DEFAULTS_FILE if name in known else "unet/config.json"
        problem = f"{where} has {name}={first['input']!r}: {message}"
        raise ModelError(f"{files.name}: {problem}; mend it, or download the model again") from None


def load_parts(files: ModelFiles, dtype: torch.dtype) -> dict[str, Any]:
    """The parts by name, weights in `dtype` on the CPU, LoRAs merged into the U-Net; a photo encoder if there is one.

    Nothing is frozen and `in_channels` of the U-Net is not looked at: that is the caller's to decide.

    Raises:
        ModelError: a part cannot be loaded, or a LoRA does not fit the U-Net.
        MissingExtraError: there is a LoRA to merge, and peft is not installed.
    """
    import torch

    if files.loras and importlib.util.find_spec("peft") is None:
        raise MissingExtraError(f"{files.name} is a LoRA, and opening it", "train")
    # A LoRA is merged in float32: its product is smaller than half a step of most float16 weights.
    types = {"vae": dtype, "text_encoder": dtype, "unet": torch.float32 if files.loras else dtype}
    parts = {part: _load_part(files, part, types.get(part)) for part in (*types, "tokenizer", "scheduler")}
    if (files.pipeline / PHOTO_ENCODER).is_dir():
        parts[PHOTO_ENCODER] = _load_part(files, PHOTO_ENCODER, dtype)
        _check_places(files.name, parts[PHOTO_ENCODER], parts["unet"])
    for folder in files.loras:
        _merge_lora(files.name, parts["unet"], folder)
    if files.loras:
        with quiet_libraries():  # to(dtype) warns of parts that would have to stay float32; a U-Net has none
            parts["unet"].to(dtype)
    return parts


def encode_condition(bundle: Bundle, rgb: torch.Tensor) -> torch.Tensor:
    """Pixels ⇒ condition latents: (B, 3, H, W) float32 sRGB 0..1 -> (B, 4, h, w), mode of the posterior, unscaled.

    The stock pipeline leaves condition latents unscaled too (and scales only what is denoised).
    """
    pixels = (rgb * 2 - 1).to(bundle.device, bundle.dtype)
    encoded = bundle.vae.encode(pixels)
    return encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()


def encode_photos(bundle: Bundle, rgb: torch.Tensor) -> Residuals | None:
    """What the photo encoder sees: (B, 3, h, w) float32 sRGB 0..1 -> residuals for the U-Net; None if there is none."""
    return None if bundle.photo_encoder is None else bundle.photo_encoder(rgb.to(bundle.device, bundle.dtype))


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


def _embedded() -> dict[str, Path]:
    return {path.name: path for path in sorted(MODELS_DIR.glob("*/")) if (path / DEFAULTS_FILE).is_file()}


def _find(name: str) -> Path:
    """Folder of the model `name`, fetched from the hub if need be."""
    embedded = _embedded()
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
    parts = [f"{part}/*.safetensors" for part in ("unet", "vae", "text_encoder", PHOTO_ENCODER)]
    wanted = ["*.json", "*.txt", LORA_FILE, *parts]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=["*.fp16.*", "*non_ema*"]))
    except LocalEntryNotFoundError:
        raise ModelError(
            f"{name} is no folder here and the hub cannot be reached; check the path, or go online"
        ) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(f"{name} is no folder here and the hub does not give it: {_first_line(error)}") from None


def _read_index(name: str, path: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads((path / INDEX_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (path / LORA_FILE).is_file():
            raise ModelError(
                f"{name} holds LoRA weights and does not say for which model; "
                f'write {{"base": NAME}} to its {DEFAULTS_FILE}'
            ) from None
        raise ModelError(f"{name} is no pipeline folder: it has no {INDEX_FILE}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: model_index.json cannot be read ({error}); download the model again") from None
    missing = [part for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler") if not index.get(part)]
    if missing:
        raise ModelError(f"{name}: model_index.json names no {missing[0]}; is it a Stable Diffusion pipeline?")
    return index


def _is_lora(path: Path, defaults: dict[str, Any]) -> bool:
    return not (path / INDEX_FILE).exists() and (path / LORA_FILE).is_file() and "base" in defaults


def _merge_lora(name: str, unet: UNet2DConditionModel, folder: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / LORA_FILE, "pt") as file:
            stored = sum(key.startswith("unet.") and key.endswith(".weight") for key in file.keys())  # noqa: SIM118
        with quiet_libraries(), warnings.catch_warnings():
            # peft warns that a LoRA and its base differ, and then fails where that matters.
            warnings.filterwarnings("ignore", "While injecting the PEFT adapters", RuntimeWarning)
            # low_cpu_mem_usage: without it the weights are first drawn at random, from the caller's generator
            options = {"weight_name": LORA_FILE, "local_files_only": True, "low_cpu_mem_usage": True}
            unet.load_lora_adapter(folder, prefix="unet", adapter_name="merged", use_safetensors=True, **options)
        # diffusers only logs the weights that it finds no layer for
        if not 0 < stored <= sum(".lora_" in key for key in unet.state_dict()):
            raise ValueError("it has no weights for a U-Net, or weights for layers that this one lacks")
        unet.fuse_lora(safe_fusing=True)
        unet.unload_lora()
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise ModelError(f"{name}: the LoRA cannot be merged into its base: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _load_part(files: ModelFiles, part: str, dtype: torch.dtype | None) -> Any:
    name, part_class = files.name, _part_class(files, part)
    options: dict[str, Any] = {}
    if dtype is not None:
        key = "dtype" if part_class.__module__.startswith("transformers.") else "torch_dtype"
        options = {key: dtype, "use_safetensors": True, "variant": _variant(files.pipeline / part)}
        options["output_loading_info"] = True
    try:
        with quiet_libraries():
            loaded = part_class.from_pretrained(files.pipeline, subfolder=part, local_files_only=True, **options)
        if dtype is None:
            return loaded
        loaded, report = loaded
        if report["missing_keys"]:  # the libraries only warn, and leave such weights empty or random
            raise ValueError(f"its file has no {min(report['missing_keys'])}")
        return loaded
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise ModelError(f"{name}: {part} cannot be loaded (safetensors only): {_first_line(error)}") from None


def _part_class(files: ModelFiles, part: str) -> Any:
    if part == PHOTO_ENCODER:  # no stock pipeline knows it, so no index names it
        from chromatune.photo_encoder import PhotoEncoder

        return PhotoEncoder
    import diffusers
    import transformers

    library, class_name = files.index[part]
    source = {"diffusers": diffusers, "transformers": transformers}.get(library)
    part_class = getattr(source, class_name, None)
    if part_class is None:
        raise ModelError(f"{files.name}: {part} is a {library}.{class_name}, which is not known here")
    return part_class


def _check_places(name: str, encoder: PhotoEncoder, unet: UNet2DConditionModel) -> None:
    from chromatune.photo_encoder import places_of

    if [list(place) for place in encoder.config.places] != places_of(unet):
        raise ModelError(f"{name}: its {PHOTO_ENCODER} was made for another U-Net; delete that folder to go without")


def _variant(folder: Path) -> str | None:
    """`fp16` for a part whose weights are there only under diffusers' half-precision file names."""
    weights = [file.name for file in folder.glob("*.safetensors")]
    return "fp16" if weights and all(".fp16" in name for name in weights) else None


@contextmanager
def quiet_libraries() -> Iterator[None]:
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


def _read_defaults(name: str, path: Path) -> dict[str, Any]:
    own = path / DEFAULTS_FILE
    try:
        return dict(json.loads(own.read_text(encoding="utf-8"))) if own.is_file() else {}
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{name}: {DEFAULTS_FILE} cannot be read ({error}); download the model again") from None
