"""A model's files ⇒ its parts, opened and checked: one frozen object, all that the rest of the package uses."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chromatune.errors import MissingExtraError, ModelError
from chromatune.pipeline import checks
from chromatune.pipeline.edit_classes import NETWORKS, check_edit_part
from chromatune.pipeline.edit_files import EditFiles
from chromatune.pipeline.model_files import (
    LORA_FILE,
    PHOTO_ENCODER,
    ModelFiles,
    ModelInfo,
    find_pipeline,
    has_torch,
    read_pipeline_info,
)

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, AutoencoderTiny, SchedulerMixin, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    from chromatune.pipeline.photo_encoder import PhotoEncoder


SDXL = "StableDiffusionXLInstructPix2PixPipeline"


@dataclass(frozen=True)
class Pipeline:
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
    def class_name(self) -> str:
        """The class of diffusers that opens its folder."""
        return SDXL if hasattr(self.tokenizer, "second") else "StableDiffusionInstructPix2PixPipeline"

    @property
    def vae_factor(self) -> int:
        """Pixels per latent, along one side: 8 for Stable Diffusion and for `mini`."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def multiple_px(self) -> int:
        """Sides of the model's pass are multiples of this, so that every U-Net level halves evenly."""
        return self.vae_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)


def load_pipeline(name: str = "mini", *, device: str | None = None) -> Pipeline:
    """Load the model called `name`: `mini`, `mini-base`, a pipeline folder, a LoRA folder, or a hub name.

    Args:
        name: an embedded model, a folder that `save_pretrained` of diffusers wrote, a LoRA folder that
            `chromatune.training` wrote (merged into the base it names), or `owner/name` on the hub.
        device: `cpu`, `cuda`, `cuda:1`, `mps`; by default a GPU where there is one.

    Raises:
        ModelError: the name is unknown, the folder incomplete, its weights are not safetensors, it is not an
            InstructPix2Pix model (8 input channels), or it is a LoRA whose base cannot be found.
        MissingExtraError: torch is not installed; or it is a LoRA, and peft is not.
    """
    files = find_pipeline(name)
    if not has_torch():
        raise MissingExtraError(f"opening {name} by torch", "torch")
    import torch

    chosen = torch_device(device)
    # bfloat16 is slower than float32 on most CPUs, and float16 is not exact enough there either.
    parts = load_parts(files, torch.float16 if chosen.type == "cuda" else torch.float32)
    if parts["unet"].config.in_channels != 8:
        raise ModelError(
            f"{name}: its U-Net takes {parts['unet'].config.in_channels} channels, InstructPix2Pix takes 8; "
            "give an InstructPix2Pix model, or fine-tune this one first"
        )
    networks = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    for network in networks.values():
        network.to(chosen).eval().requires_grad_(False)
    if chosen.type == "cpu":
        for part in networks.keys() - {"text_encoder"}:
            parts[part].to(memory_format=torch.channels_last)
    return Pipeline(info=read_pipeline_info(files), **parts)


def load_parts(files: ModelFiles, dtype: torch.dtype) -> dict[str, Any]:
    """Load the parts by name: weights in `dtype` on the CPU, LoRAs merged, a photo encoder if there is one.

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
    unet, tokenizer = parts["unet"], parts["tokenizer"]
    if (files.pipeline_folder / PHOTO_ENCODER).is_dir():
        parts[PHOTO_ENCODER] = _load_part(files, PHOTO_ENCODER, dtype)
        _check_places(files.name, parts[PHOTO_ENCODER], unet)
    problem = checks.fit_problem(
        parts["text_encoder"].config,
        unet.config,
        length=tokenizer.model_max_length,
        words=1 + max(tokenizer.get_vocab().values()),
    ) or _sampling_problem(parts["scheduler"])
    if problem:
        raise ModelError(f"{files.name}: {problem}; {checks.AGAIN}, or give another")
    for folder in files.loras:
        _merge_lora(files.name, unet, folder)
    if files.loras:
        with quiet_libraries():  # to(dtype) warns of parts that would have to stay float32; a U-Net has none
            unet.to(dtype)
    return parts


def shapes_of_parts(files: ModelFiles | EditFiles) -> dict[str, Any]:
    """Build the scheduler, and the networks on torch's device "meta": shapes without numbers, nothing is read.

    Raises:
        ModelError: the settings of a part cannot be read.
    """
    import torch

    parts: dict[str, Any] = {}
    names, home = ["unet", "vae", "text_encoder", "scheduler"], files.pipeline_folder
    if isinstance(files, EditFiles):
        names.append("text_encoder_2")
    elif (home / PHOTO_ENCODER).is_dir():
        names.append(PHOTO_ENCODER)
    for part in names:
        folder = home / part
        if isinstance(files, EditFiles):
            check_edit_part(files.name, folder, part)
            chosen = edit_part_class(files, part)
        else:
            chosen = _part_class(files, part)
            checks.check_part(files.name, folder, part, chosen.__name__)
        try:
            file = "scheduler_config.json" if part == "scheduler" else "config.json"
            config = checks.read_json(folder / file)
            with quiet_libraries(), torch.device("cpu" if part == "scheduler" else "meta"):
                parts[part] = _from_config(chosen, config)
        except Exception as error:  # what a library raises on damaged settings is of any kind
            raise ModelError(f"{files.name}: {part} cannot be built: {checks.reason_of(error)}") from error
    if isinstance(files, EditFiles):
        from chromatune.pipeline.sdxl import TextEncoderPair

        second = parts.pop("text_encoder_2")
        parts["text_encoder"] = TextEncoderPair(parts["text_encoder"], second, end_token=0, zeros_for_empty=False)
    return parts


def load_sdxl_parts(files: EditFiles, dtype: torch.dtype) -> dict[str, Any]:
    """Load the parts of a Stable Diffusion XL InstructPix2Pix model by name, weights in `dtype` on the CPU.

    Its two tokenizers and text encoders are one each, see `sdxl`.

    Raises:
        ModelError: a part cannot be loaded.
    """
    from chromatune.pipeline.sdxl import TextEncoderPair, TokenizerPair

    for part in files.kind.parts:
        check_edit_part(files.name, files.path / part, part)
    parts = {
        part: open_part(files.name, files.path, part, edit_part_class(files, part), dtype if part in NETWORKS else None)
        for part in files.kind.parts
    }
    if problem := _sampling_problem(parts["scheduler"]):
        raise ModelError(f"{files.name}: {problem}; {checks.AGAIN}, or give another")
    parts["tokenizer"] = TokenizerPair(parts["tokenizer"], parts.pop("tokenizer_2"))
    parts["text_encoder"] = TextEncoderPair(
        parts["text_encoder"],
        parts.pop("text_encoder_2"),
        end_token=parts["tokenizer"].eos_token_id,
        zeros_for_empty=files.index.get("force_zeros_for_empty_prompt", True) is not False,
    )
    return parts


def edit_part_class(files: EditFiles, part: str) -> Any:
    """Return the class of a part of an edit model, which its index names.

    Raises:
        ModelError: the library that is installed does not have it.
    """
    import diffusers
    import transformers

    library, class_name = files.index[part]
    chosen = getattr({"diffusers": diffusers, "transformers": transformers}[library], class_name, None)
    if chosen is None:
        raise ModelError(f"{files.name}: the installed {library} has no {class_name}; update it")
    return chosen


def _from_config(chosen: Any, config: dict[str, Any]) -> Any:
    return (
        chosen.from_config(config) if hasattr(chosen, "from_config") else chosen(chosen.config_class.from_dict(config))
    )


def torch_device(device: str | None) -> torch.device:
    """Return a device of torch; None stands for the best there is.

    Raises:
        ModelError: it is not there.
    """
    import torch

    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen).cpu()  # the device `meta` has no numbers
    except (RuntimeError, AssertionError):
        raise ModelError(f"device {device!r} is not available here; leave it out, or give 'cpu'") from None
    return chosen


def _merge_lora(name: str, unet: UNet2DConditionModel, folder: Path) -> None:
    checks.check_files(name, folder)
    try:
        header = checks.read_header(folder / LORA_FILE)
        stored = sum(key.startswith("unet.") and key.endswith(".weight") for key in header)
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
    except Exception as error:  # what the libraries raise on a damaged file is of any kind
        raise ModelError(f"{name}: the LoRA cannot be merged into its base: {checks.reason_of(error)}") from error


def _load_part(files: ModelFiles, part: str, dtype: torch.dtype | None) -> Any:
    chosen = _part_class(files, part)
    checks.check_part(files.name, files.pipeline_folder / part, part, chosen.__name__)
    return open_part(files.name, files.pipeline_folder, part, chosen, dtype)


def open_part(name: str, folder: Path, part: str, chosen: Any, dtype: torch.dtype | None) -> Any:
    """Open a part of a pipeline that was checked.

    Args:
        name: the model, for messages.
        folder: of the pipeline.
        part: its name.
        chosen: the class that it becomes, of diffusers or transformers.
        dtype: of its weights; None for a part without any.

    Raises:
        ModelError: it cannot be loaded, or lacks weights.
    """
    options: dict[str, Any] = {}
    if dtype is not None:
        key = "dtype" if chosen.__module__.startswith("transformers.") else "torch_dtype"
        options = {key: dtype, "use_safetensors": True, "variant": _variant(folder / part)}
        options["output_loading_info"] = True
    if chosen.__module__.startswith("transformers."):
        options["trust_remote_code"] = False
    try:
        with quiet_libraries(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of settings that are not the class's own: they are not used
            if dtype is not None:
                _check_size(chosen, folder / part)
            loaded = chosen.from_pretrained(folder, subfolder=part, local_files_only=True, **options)
        if dtype is None:
            return loaded
        loaded, report = loaded
        if report["missing_keys"]:  # the libraries only warn, and leave such weights empty or random
            raise ValueError(f"its file has no {min(report['missing_keys'])}")
        return loaded
    except Exception as error:  # what a library raises on a damaged folder is of any kind
        raise ModelError(f"{name}: {part} cannot be loaded (safetensors only): {checks.reason_of(error)}") from error


def _check_size(chosen: Any, folder: Path) -> None:
    """Check that a part is about as large as its stored weights, before the libraries make room for it.

    A few that are missing are found, and named, after loading.

    Raises:
        ValueError: its settings describe a much larger one.
    """
    import torch

    config = checks.read_json(folder / "config.json")
    with torch.device("meta"):  # shapes alone, without memory
        network = _from_config(chosen, config)
    wanted, stored = sum(each.numel() for each in network.parameters()), checks.stored_numbers(folder)
    if wanted > 2 * stored:
        raise ValueError(f"its config.json describes {wanted:,} weights, and {stored:,} are stored")


def _part_class(files: ModelFiles, part: str) -> Any:
    if part == PHOTO_ENCODER:  # no stock pipeline knows it, so no index names it
        from chromatune.pipeline.photo_encoder import PhotoEncoder

        return PhotoEncoder
    import diffusers
    import transformers

    library, class_name = checks.part_class(files.name, files.index, part)
    return getattr({"diffusers": diffusers, "transformers": transformers}[library], class_name)


def _sampling_problem(scheduler: Any) -> str:
    """Return why no step can be taken over a schedule; empty if one can: settings of schedulers show only then."""
    import torch

    try:
        trial = type(scheduler).from_config(scheduler.config)
        trial.set_timesteps(2)
        latents = torch.ones(1, 4, 2, 2) * trial.init_noise_sigma
        with torch.random.fork_rng(devices=[]):  # some steps draw noise
            for timestep in trial.timesteps[:2]:
                trial.scale_model_input(latents, timestep)
                latents = trial.step(torch.ones_like(latents), timestep, latents)[0]
    except Exception as error:  # noqa: BLE001 - whatever it is, it would come while sampling
        return f"its scheduler cannot be sampled ({checks.reason_of(error)})"
    return "" if bool(torch.isfinite(latents).all()) else "its scheduler gives values that are not numbers"


def _check_places(name: str, encoder: PhotoEncoder, unet: UNet2DConditionModel) -> None:
    from chromatune.pipeline.photo_encoder import places_of

    if [list(place) for place in encoder.config.places] != places_of(unet):
        raise ModelError(f"{name}: its {PHOTO_ENCODER} was made for another U-Net; delete that folder to go without")


def _variant(folder: Path) -> str | None:
    """`fp16` for a part whose weights are there only under diffusers' half-precision file names."""
    weights = [file.name for file in folder.glob("*.safetensors")]
    return "fp16" if weights and all(".fp16" in name for name in weights) else None


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the libraries: no progress bars for a few megabytes, no warning of keys that AutoencoderTiny adds."""
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
