"""Checks of an untrusted model folder before any class is built from it: files, settings, weights' headers.

Nothing here runs, builds or allocates what a file says. Settings have bounds far above every known model's, so that a
broken or hostile file is one line and not an hour of building layers.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from chromatune.errors import ModelError, first_line, printable, shown
from chromatune.options import first_problem

LARGEST_JSON = 64 << 20  # bytes; tokenizers have a megabyte or two
LARGEST_HEADER = 100 << 20  # bytes; the safetensors library's own limit
LFS_POINTER = b"version https://git-lfs"
AGAIN = "download the model again"
MOST_NAMED = 4  # classes in a message
LONGEST_REASON = 200  # characters of a library's message

# The only classes that are ever built. Others may run code of the folder's own, or take other inputs.
CLASSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "unet": ("diffusers", ("UNet2DConditionModel",)),
    "vae": ("diffusers", ("AutoencoderKL", "AutoencoderTiny")),
    "text_encoder": ("transformers", ("CLIPTextModel",)),
    "tokenizer": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast")),
    "scheduler": (
        "diffusers",
        (
            "DDIMScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
            "DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler",
            "HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LCMScheduler",
            "LMSDiscreteScheduler", "PNDMScheduler", "TCDScheduler", "UniPCMultistepScheduler",
        ),
    ),
}  # fmt: skip

Width = Annotated[int, Field(ge=1, le=8192)]
Count = Annotated[int, Field(ge=0, le=64)]
Widths = Annotated[list[Width], Field(min_length=1, max_length=8)]
Counts = Annotated[list[Count], Field(min_length=1, max_length=16)]
Types = Annotated[list[Annotated[str, Field(max_length=100)]], Field(min_length=1, max_length=8)]
Factor = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Beta = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class _Config(BaseModel):
    """Settings of a part: those that are named here have bounds, all others are checked by the libraries."""

    model_config = ConfigDict(frozen=True, extra="allow")


class UNetConfig(_Config):
    """`unet/config.json`; defaults are diffusers'."""

    in_channels: Count = 4
    out_channels: Literal[4] = 4
    block_out_channels: Widths = [320, 640, 1280, 1280]
    down_block_types: Types | None = None
    up_block_types: Types | None = None
    layers_per_block: Count | Counts = 2
    transformer_layers_per_block: Count | Counts = 1
    cross_attention_dim: Width | Widths = 1280
    attention_head_dim: Width | Widths = 8
    norm_num_groups: Width | None = 32
    sample_size: Width | Widths | None = None

    @model_validator(mode="after")
    def _agrees(self) -> UNetConfig:
        for types in (self.down_block_types, self.up_block_types):
            if types is not None and len(types) != len(self.block_out_channels):
                raise ValueError(f"{len(self.block_out_channels)} widths and {len(types)} kinds of blocks do not agree")
        return self


class KlConfig(_Config):
    """`vae/config.json` of an AutoencoderKL."""

    block_out_channels: Widths = [64]
    layers_per_block: Count = 1
    latent_channels: Literal[4] = 4
    in_channels: Literal[3] = 3
    out_channels: Literal[3] = 3
    norm_num_groups: Width = 32
    scaling_factor: Factor = 0.18215

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        return self.block_out_channels


class TinyConfig(_Config):
    """`vae/config.json` of an AutoencoderTiny."""

    block_out_channels: Widths | None = None
    encoder_block_out_channels: Widths = [64] * 4
    decoder_block_out_channels: Widths = [64] * 4
    num_encoder_blocks: Counts = [1, 3, 3, 3]
    num_decoder_blocks: Counts = [3, 3, 3, 1]
    latent_channels: Literal[4] = 4
    in_channels: Literal[3] = 3
    out_channels: Literal[3] = 3
    scaling_factor: Factor = 1.0

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        return self.decoder_block_out_channels


class TextConfig(_Config):
    """`text_encoder/config.json`; defaults are transformers'."""

    hidden_size: Width = 512
    intermediate_size: Annotated[int, Field(ge=1, le=65536)] = 2048
    num_hidden_layers: Count = 12
    num_attention_heads: Annotated[int, Field(ge=1, le=256)] = 8
    vocab_size: Annotated[int, Field(ge=1, le=1_000_000)] = 49408
    max_position_embeddings: Annotated[int, Field(ge=4, le=4096)] = 77
    projection_dim: Width = 512

    @model_validator(mode="after")
    def _agrees(self) -> TextConfig:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"{self.num_attention_heads} heads do not divide a width of {self.hidden_size}")
        return self


class SchedulerConfig(_Config):
    """`scheduler/scheduler_config.json`."""

    num_train_timesteps: Annotated[int, Field(ge=1, le=10_000)] = 1000
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    beta_start: Beta = 0.0001
    beta_end: Beta = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"] = "linear"
    timestep_spacing: Literal["leading", "trailing", "linspace"] = "leading"
    steps_offset: Annotated[int, Field(ge=0, le=1000)] = 0
    rescale_betas_zero_snr: bool = False
    clip_sample: bool | None = None
    clip_sample_range: Factor = 1.0
    set_alpha_to_one: bool | None = None
    trained_betas: Annotated[list[Beta], Field(max_length=10_000)] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> SchedulerConfig:
        if self.rescale_betas_zero_snr and self.prediction_type == "epsilon":
            raise ValueError("zero terminal SNR leaves no signal to predict noise from: prediction_type is epsilon")
        return self


class TokenizerConfig(_Config):
    """`tokenizer/tokenizer_config.json`; the length is held against the text encoder's once both are open."""

    model_max_length: int | None = None


class PhotoEncoderConfig(_Config):
    """`photo_encoder/config.json`."""

    encoder: dict[str, Any]
    places: Annotated[
        list[tuple[Width, Literal[8, 16, 32, 64, 128]]], Field(min_length=1, max_length=128)
    ]  # channels, stride

    @model_validator(mode="after")
    def _agrees(self) -> PhotoEncoderConfig:
        bounds = {"width_coefficient": 8.0, "depth_coefficient": 8.0, "hidden_dim": 8192.0}
        for name, most in bounds.items():
            value = self.encoder.get(name, 1)
            if not isinstance(value, int | float) or not 0 < value <= most:
                raise ValueError(f"encoder.{name} is {value!r}, and must be above 0 and at most {most:g}")
        for name, value in self.encoder.items():
            if not isinstance(value, list):
                continue
            if len(value) > 64 or any(isinstance(item, int | float) and not -1 <= item <= 8192 for item in value):
                raise ValueError(f"encoder.{name} is too long, or holds numbers that no encoder has")
        return self


SCHEMAS: dict[str, type[_Config]] = {
    "UNet2DConditionModel": UNetConfig,
    "AutoencoderKL": KlConfig,
    "AutoencoderTiny": TinyConfig,
    "CLIPTextModel": TextConfig,
    "CLIPTokenizer": TokenizerConfig,
    "CLIPTokenizerFast": TokenizerConfig,
    "PhotoEncoder": PhotoEncoderConfig,
}


def reason_of(error: Exception) -> str:
    """Return a library's message as the end of one line."""
    return printable(first_line(error)[:LONGEST_REASON])


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ValueError: it is missing, too large, or not a JSON object; the text says which.
    """
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"is larger than {LARGEST_JSON >> 20} MB")
        data = path.read_bytes()
    except FileNotFoundError:
        raise ValueError("is missing") from None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(_no_json(data, error)) from None
    if not isinstance(value, dict):
        raise ValueError(f"holds a {type(value).__name__}, not an object")
    return value


def part_class(name: str, index: Mapping[str, Any], part: str) -> tuple[str, str]:
    """Return the library and class of a part, as the pipeline's index names them, if they are known here.

    Raises:
        ModelError: they are not.
    """
    library, accepted = CLASSES[part]
    given = index.get(part)
    if not isinstance(given, list) or len(given) != 2 or not all(isinstance(word, str) for word in given):
        raise ModelError(f"{name}: model_index.json gives {part} as {shown(given)}, not as [library, class]; {AGAIN}")
    if given[0] != library or given[1] not in accepted:
        others = f" and {len(accepted) - MOST_NAMED} others" if len(accepted) > MOST_NAMED else ""
        raise ModelError(
            f"{name}: {part} is a {shown('.'.join(given))}, which is not used here; accepted from {library}: "
            f"{', '.join(accepted[:MOST_NAMED])}{others}"
        )
    return library, given[1]


def check_part(name: str, folder: Path, part: str, class_name: str) -> None:
    """Check a part's settings and the headers of its weights, before the part is built.

    Args:
        name: the model, for messages.
        folder: of the part.
        part: its name.
        class_name: the class that it is to become.

    Raises:
        ModelError: one line that names the file and what is wrong with it.
    """
    file = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}.get(part, "config.json")
    try:
        config = read_json(folder / file)
        if "auto_map" in config:
            raise ValueError("wants code of its own to be run (auto_map), which is never done here")
        (SchedulerConfig if part == "scheduler" else SCHEMAS[class_name]).model_validate(config)
        if part == "tokenizer":
            file = "tokenizer.json" if (folder / "tokenizer.json").exists() else "vocab.json"
            _check_vocabulary(folder, file)
        elif part != "scheduler":
            file = "the folder"
            for weights in _weight_files(folder):
                file = weights.name
                read_header(weights)
    except ValidationError as error:
        raise ModelError(f"{name}: {part}/{file} has {first_problem(error)}; {AGAIN}, or give another") from None
    except ValueError as error:
        raise ModelError(f"{name}: {part}/{printable(file)} {error}; {AGAIN}") from None


def fit_problem(text: Any, unet: Any, *, length: int, words: int) -> str:
    """Return why the text encoder, the tokenizer and the U-Net were not made for each other; empty if they were.

    Args:
        text: settings of the text encoder, as a `TextConfig` or the library's own.
        unet: settings of the U-Net, as a `UNetConfig` or the library's own.
        length: tokens of a prompt, as the tokenizer cuts it.
        words: size of the tokenizer's vocabulary.
    """
    width, taken, most = text.hidden_size, unet.cross_attention_dim, text.max_position_embeddings
    if ({taken} if isinstance(taken, int) else set(taken)) != {width}:
        return f"the text encoder gives {width} numbers a token, and the U-Net takes {taken}"
    if not 4 <= length <= most:
        return f"the tokenizer's model_max_length is {length}, and the text encoder takes 4 to {most} tokens"
    return f"the tokenizer has {words} words, and the text encoder {text.vocab_size}" if words > text.vocab_size else ""


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file, checked against the file's length; no weights are read.

    Raises:
        ValueError: it is no whole safetensors file; the text says what it is instead.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(64)
        if not start:
            raise ValueError("is empty (0 bytes)")
        if start.startswith(LFS_POINTER):
            raise ValueError("is a git-lfs pointer, not the weights themselves (`git lfs pull` fetches them)")
        if start.lstrip()[:1] == b"<":
            raise ValueError("is a web page, not weights")
        if start[:2] == b"PK" or (start[:1] == b"\x80" and any(start[2:8])):  # zero in the length of a header
            raise ValueError("is a pickle, not safetensors, and pickles are never read")
        (length,) = struct.unpack("<Q", start[:8].ljust(8, b"\0"))
        if size < 8 or length > min(LARGEST_HEADER, size - 8):
            raise ValueError("is no safetensors file, or cut short")
        file.seek(8)
        data = file.read(length)
    try:
        header = json.loads(data)
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    except (ValueError, RecursionError, KeyError, TypeError, IndexError, AttributeError):
        raise ValueError("is no safetensors file: its header is damaged") from None
    if not ends or not all(isinstance(end, int) for end in ends):
        raise ValueError("holds no weights")
    if max(ends) != size - 8 - length:
        raise ValueError(f"is cut short or damaged: {size:,} bytes, and {max(ends) + 8 + length:,} are announced")
    return dict(header)


def _weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a part; an index may name none but those in the folder.

    Raises:
        ValueError: there are none, or an index names other files.
    """
    for index in folder.glob("*.index.json"):
        named = read_json(index).get("weight_map")
        if not isinstance(named, dict):
            raise ValueError(f"{index.name} has no weight_map")
        for file in set(map(str, named.values())):
            if PurePath(file).name != file or "\\" in file or not file.endswith(".safetensors"):
                raise ValueError(f"{index.name} names {shown(file)}; accepted: safetensors files beside it")
            if not (folder / file).is_file():
                raise ValueError(f"{index.name} names {shown(file)}, which is missing")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError("has no safetensors weights")
    return files


def _check_vocabulary(folder: Path, file: str) -> None:
    """Check that a tokenizer has its words: in tokenizer.json, or in vocab.json with merges.txt beside it.

    Raises:
        ValueError: it has none, and would silently read every prompt as nothing.
    """
    known = read_json(folder / file)
    if file == "vocab.json":
        if not (folder / "merges.txt").is_file():
            raise ValueError("has no merges.txt beside it")
    elif not isinstance(known.get("model"), dict) or not known["model"].get("vocab"):
        raise ValueError("has no vocabulary")


def _no_json(data: bytes, error: Exception) -> str:
    if not data.strip():
        return "is empty"
    if data.startswith(LFS_POINTER):
        return "is a git-lfs pointer, not the file itself (`git lfs pull` fetches it)"
    if data.lstrip()[:1] == b"<":
        return "is a web page, not JSON"
    if isinstance(error, RecursionError):
        return "is nested too deep"
    return "is not JSON, or cut short"
