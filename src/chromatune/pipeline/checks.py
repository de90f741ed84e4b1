"""Checks of an untrusted model folder before any class is built from it: files, settings, weights' headers.

Nothing here runs, builds or allocates what a file says. Settings have bounds far above every known model's, so that a
broken or hostile file is one line and not an hour of building layers.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import stat
import struct
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from chromatune.errors import ModelError, first_line, printable, shown
from chromatune.files import open_regular, read_regular
from chromatune.options import first_problem

LARGEST_JSON_BYTES = 4 << 20  # settings have some kilobytes; an index of many weights a few hundred
LARGEST_TOKENIZER_BYTES = 16 << 20  # CLIP's has two to five megabytes, by how it is indented
LARGEST_HEADER_BYTES = 8 << 20  # of safetensors; a U-Net of 2.6 G parameters has 250 kB
TEXT_FILES = (".json", ".txt", ".jinja")  # what the libraries read whole, in a part's folder
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

# What CLIP's tokenizers are made of, as transformers writes them
TOKENIZER_STEPS = {
    "normalizer": ("NFC", "Replace", "Lowercase"),
    "pre_tokenizer": ("Split", "ByteLevel"),
    "post_processor": ("RobertaProcessing", "BertProcessing", "TemplateProcessing", "ByteLevel"),
    "decoder": ("ByteLevel", "BPEDecoder"),
}
CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
TOKENIZER_PATTERNS = [
    {"Regex": pattern} for pattern in (r"\s+", CLIP_WORDS, rf"<\|startoftext\|>|<\|endoftext\|>|{CLIP_WORDS}")
]
MOST_BLOCKS = 512  # of a U-Net: levels × layers × transformers; the largest known has 60
MOST_REPEATS = 256  # layers of a photo encoder; EfficientNet-L2 has 88
MOST_ADDED_TOKENS = 1000  # textual inversions add some dozens
LONGEST_TOKEN = 256  # characters of a special token

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


def _most(count: int | list[int] | None) -> int:
    return max(count) if isinstance(count, list) else count or 0


class UNetConfig(_Config):
    """`unet/config.json`; defaults are diffusers'."""

    in_channels: Count = 4
    out_channels: Literal[4] = 4
    block_out_channels: Widths = [320, 640, 1280, 1280]
    down_block_types: Types | None = None
    up_block_types: Types | None = None
    layers_per_block: Count | Counts = 2
    transformer_layers_per_block: Count | Counts = 1
    reverse_transformer_layers_per_block: Count | Counts | None = None
    cross_attention_dim: Width | Widths = 1280
    attention_head_dim: Width | Widths = 8
    norm_num_groups: Width | None = 32
    sample_size: Width | Widths | None = None

    @model_validator(mode="after")
    def _agrees(self) -> UNetConfig:
        for types in (self.down_block_types, self.up_block_types):
            if types is not None and len(types) != len(self.block_out_channels):
                raise ValueError(f"{len(self.block_out_channels)} widths and {len(types)} kinds of blocks do not agree")
        deepest = max(_most(self.transformer_layers_per_block), _most(self.reverse_transformer_layers_per_block), 1)
        blocks = len(self.block_out_channels) * _most(self.layers_per_block) * deepest
        if blocks > MOST_BLOCKS:
            raise ValueError(f"layers_per_block and transformer_layers_per_block make {blocks:,} blocks, not a U-Net")
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
    solver_order: Annotated[int, Field(ge=1, le=8)] = 2
    original_inference_steps: Annotated[int, Field(ge=1, le=10_000)] = 50
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
        repeats = [each for each in self.encoder.get("num_block_repeats") or [1] if isinstance(each, int | float)]
        if sum(repeats) * self.encoder.get("depth_coefficient", 1) > MOST_REPEATS:
            raise ValueError(f"encoder.num_block_repeats makes more than {MOST_REPEATS} layers")
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


def read_json(path: Path, most_bytes: int = LARGEST_JSON_BYTES) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ValueError: it is missing, too large, no file, or not a JSON object; the text says which.
    """
    try:
        data = read_regular(path, most_bytes)
    except FileNotFoundError:
        raise ValueError("is missing") from None
    except OSError as error:
        too_large = error.errno == errno.EFBIG
        reason = f"is larger than {most_bytes >> 20} MB" if too_large else f"cannot be read ({error.strerror})"
        raise ValueError(reason) from None
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
            f"{name}: {part} is a {shown('.'.join(given))}, which is not supported; accepted from {library}: "
            f"{', '.join(accepted[:MOST_NAMED])}{others}"
        )
    return library, given[1]


def check_files(name: str, folder: Path, most_bytes: int = LARGEST_TOKENIZER_BYTES) -> None:
    """Check that a part's folder holds files and folders alone, as libraries open what they find in it.

    Args:
        name: the model, for messages.
        folder: of the part.
        most_bytes: of a text in it.

    Raises:
        ModelError: something in it is a pipe, a socket or a device, or a text larger than any model has.
    """
    try:
        for entry in folder.iterdir() if folder.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):  # a link to nothing is missing
                found = entry.stat()
                if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
                    raise ValueError("is a pipe, socket or device, not a file")
                if entry.suffix in TEXT_FILES and found.st_size > most_bytes:
                    raise ValueError(f"is larger than {most_bytes >> 20} MB")
    except OSError as error:
        raise ModelError(f"{name}: {folder.name} cannot be read ({error.strerror}); {AGAIN}") from None
    except ValueError as error:
        raise ModelError(f"{name}: {folder.name}/{printable(entry.name)} {error}; {AGAIN}") from None


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
    check_files(name, folder)
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
            for weights in weight_files(folder):
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
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
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
        if size < 8 or length > min(LARGEST_HEADER_BYTES, size - 8):
            raise ValueError("is no safetensors file, or cut short")
        file.seek(8)
        data = file.read(length)
    try:
        header = json.loads(data)
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    except (ValueError, RecursionError, KeyError, TypeError, IndexError, AttributeError):
        raise ValueError("is no safetensors file: its header is damaged") from None
    if not ends or not all(type(end) is int and end >= 0 for end in ends):
        raise ValueError("holds no weights")
    if max(ends) != size - 8 - length:
        raise ValueError(f"is cut short or damaged: {size:,} bytes, and {max(ends) + 8 + length:,} are announced")
    return dict(header)


def stored_numbers(folder: Path) -> int:
    """Return how many numbers the weights of a part hold, by their headers.

    Raises:
        ValueError: they cannot be read, or say too little.
    """
    entries = [entry for file in weight_files(folder) for key, entry in read_header(file).items() if key[0:2] != "__"]
    try:
        return sum(math.prod(entry["shape"]) for entry in entries)
    except (KeyError, TypeError):
        raise ValueError("has weights without a shape") from None


def _opened(path: Path) -> BinaryIO:
    """Open a file of weights.

    Raises:
        ValueError: it cannot be opened; the text says why.
    """
    try:
        return open_regular(path)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None


def weight_files(folder: Path) -> list[Path]:
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
        ValueError: it has none, and would silently read every prompt as nothing; or it is none of CLIP's.
    """
    known = read_json(folder / file, LARGEST_TOKENIZER_BYTES)
    if file == "vocab.json":
        if not (folder / "merges.txt").is_file():
            raise ValueError("has no merges.txt beside it")
    elif not isinstance(known.get("model"), dict) or not known["model"].get("vocab"):
        raise ValueError("has no vocabulary")
    else:
        _check_tokenizer(known)


def _check_tokenizer(known: Mapping[str, Any]) -> None:
    """Check that a tokenizer.json splits text as CLIP does: a pattern of its own could take hours over one prompt.

    Raises:
        ValueError: it has parts or patterns that no CLIP tokenizer has; the text says which.
    """
    for step, accepted in TOKENIZER_STEPS.items():
        for part in _flat_steps(known.get(step)):
            if not isinstance(part, dict) or part.get("type") not in accepted:
                kind = part.get("type") if isinstance(part, dict) else part
                raise ValueError(f"has the {step} {shown(kind)}; accepted: {', '.join(accepted)}, as CLIP has them")
            pattern = part.get("pattern")
            if pattern is not None and pattern not in TOKENIZER_PATTERNS:
                raise ValueError(f"has the pattern {shown(pattern)}, and not CLIP's, and is not run")
            if part["type"] == "Replace" and part.get("content") != " ":
                raise ValueError("replaces spaces by something else, unlike CLIP's")
    model, added = known["model"], known.get("added_tokens") or []
    if model.get("type", "BPE") != "BPE" or model.get("dropout"):
        raise ValueError(f"has a model of the type {shown(model.get('type'))}, or one with dropout; accepted: BPE")
    affixes = [model.get(key) or "" for key in ("continuing_subword_prefix", "end_of_word_suffix", "unk_token")]
    contents = [token.get("content") if isinstance(token, dict) else None for token in added]
    if not all(isinstance(word, str) and len(word) <= LONGEST_TOKEN for word in (*affixes, *contents)):
        raise ValueError(f"has special tokens that are no text of at most {LONGEST_TOKEN} characters")
    if len(contents) > MOST_ADDED_TOKENS:
        raise ValueError(f"adds {len(contents):,} tokens to its vocabulary; at most {MOST_ADDED_TOKENS:,} are accepted")


def _flat_steps(step: Any) -> list[Any]:
    """Return what a normalizer or pre-tokenizer consists of, without the sequence around it."""
    if isinstance(step, dict) and step.get("type") == "Sequence":
        inner = next((step[key] for key in ("normalizers", "pretokenizers", "processors") if key in step), None)
        return list(inner) if isinstance(inner, list) else [inner]
    return [] if step is None else [step]


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
