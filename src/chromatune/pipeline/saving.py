"""Parts ⇒ a pipeline or LoRA folder that every diffusers user can open, whole or not at all; and the way to the hub."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from chromatune.errors import MissingExtraError, ModelError, first_line
from chromatune.files import atomic_folder
from chromatune.pipeline.model_files import (
    DEFAULTS_FILE,
    INDEX_FILE,
    LORA_FILE,
    PHOTO_ENCODER,
    TRAINING_DATA_FILE,
    is_embedded,
)
from chromatune.pipeline.training_data import TrainingSet, write_training_data

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

CARD_FILE = "README.md"
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
# What a model folder holds; a folder with anything else in it is not ours to replace.
KNOWN = {INDEX_FILE, DEFAULTS_FILE, LORA_FILE, CARD_FILE, *PARTS, PHOTO_ENCODER, "safety_checker", "feature_extractor"}
KNOWN |= {TRAINING_DATA_FILE, "vae_encoder", "vae_decoder"}  # the last two of a model with ONNX graphs
OF_THIS_MACHINE = ("_name_or_path", "local_files_only")  # in settings of parts that were loaded from a folder
KNOWN |= {".gitattributes", ".cache"}  # left by a download from the hub


class PipelineParts(Protocol):
    """The parts of a pipeline folder: a `Pipeline`, or anything else that has them under these names."""

    @property
    def tokenizer(self) -> Any: ...
    @property
    def text_encoder(self) -> Any: ...
    @property
    def vae(self) -> Any: ...
    @property
    def unet(self) -> Any: ...
    @property
    def scheduler(self) -> Any: ...
    @property
    def photo_encoder(self) -> Any: ...


def save_pipeline(
    parts: PipelineParts,
    folder: Path,
    *,
    card: str,
    defaults: Mapping[str, Any],
    seen: Sequence[TrainingSet] = (),
    complete: Callable[[Path], None] | None = None,
) -> None:
    """Write an InstructPix2Pix pipeline folder in safetensors, with `chromatune.json` and `README.md`.

    An existing model there is replaced when the new one is complete and on the disk. Weights are stored in the type
    they have, but for the text encoder's, which are float32: transformers opens weights in the type they are stored
    in, and the stock pipeline would not run on a CPU with half of them.

    Args:
        parts: the model.
        folder: where to; parents are made.
        card: the model card, such as `chromatune.training.saving.model_card` gives.
        defaults: what `chromatune.json` says: size_px, steps, guidance_scale, image_guidance_scale, prompt …
        seen: photos that the model and its ancestors were trained on, for `training_data.json`.
        complete: called with the new folder before it takes its name, to add to it.

    Raises:
        ModelError: the folder holds something that is not a model, or it cannot be written.
        ValueError: the U-Net has a LoRA that is not merged; see `save_lora`.
    """
    if getattr(parts.unet, "peft_config", None):
        raise ValueError("the U-Net has a LoRA that is not merged: save_lora stores it, fuse_lora merges it")
    encoder = parts.text_encoder
    if any(weight.is_floating_point() and weight.element_size() < 4 for weight in encoder.parameters()):
        encoder = copy.deepcopy(encoder).float()  # a copy: float() works in place
    pipeline = _stock_pipeline(parts, encoder)
    with _model_folder(folder) as new:
        pipeline.save_pretrained(new, safe_serialization=True)
        if parts.photo_encoder is not None:
            parts.photo_encoder.save_pretrained(new / PHOTO_ENCODER)
        _drop_origins(new)
        _write_texts(new, card, defaults, seen)
        if complete is not None:
            complete(new)


def _stock_pipeline(parts: PipelineParts, encoder: Any) -> Any:
    """Return the parts as a pipeline of diffusers, with this text encoder."""
    import diffusers

    shared = {"vae": parts.vae, "unet": parts.unet, "scheduler": parts.scheduler}
    if hasattr(parts.tokenizer, "second"):
        return diffusers.StableDiffusionXLInstructPix2PixPipeline(
            text_encoder=encoder.first, text_encoder_2=encoder.second, tokenizer=parts.tokenizer.first,
            tokenizer_2=parts.tokenizer.second, force_zeros_for_empty_prompt=encoder.zeros_for_empty,
            add_watermarker=False, **shared,
        )  # fmt: skip
    nothing = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return diffusers.StableDiffusionInstructPix2PixPipeline(
        text_encoder=encoder, tokenizer=parts.tokenizer, **shared, **nothing
    )


def save_lora(
    unet: UNet2DConditionModel,
    folder: Path,
    *,
    base: str,
    card: str,
    defaults: Mapping[str, Any],
    seen: Sequence[TrainingSet] = (),
) -> None:
    """Write the U-Net's LoRA for diffusers' `load_lora_weights`, with `chromatune.json` and `README.md`.

    Args:
        unet: with one adapter from `add_adapter`, named "default"; its alpha is stored with the weights.
        folder: where to, see `save_pipeline`.
        base: the model that the LoRA changes: an embedded model, a hub name, or a folder (kept as its full path).
        card: the model card.
        defaults: what `chromatune.json` says besides the base.
        seen: see `save_pipeline`.

    Raises:
        ModelError: the folder holds something that is not a model, or it cannot be written.
        MissingExtraError: peft is not installed.
        ValueError: the U-Net has no such adapter.
    """
    try:
        from peft import get_peft_model_state_dict
    except ImportError:
        raise MissingExtraError("LoRA", "train") from None
    from diffusers import StableDiffusionInstructPix2PixPipeline

    if "default" not in getattr(unet, "peft_config", {}):
        raise ValueError("the U-Net has no adapter named 'default'")
    weights = {key: weight.contiguous() for key, weight in get_peft_model_state_dict(unet).items()}
    with _model_folder(folder) as new:
        StableDiffusionInstructPix2PixPipeline.save_lora_weights(
            new,
            unet_lora_layers=weights,
            # Without it alpha is taken to be the rank, and the LoRA acts at another strength.
            unet_lora_adapter_metadata=unet.peft_config["default"].to_dict(),
            weight_name=LORA_FILE,
        )
        base_folder = Path(base).expanduser()  # by its full path: a relative one would be another folder elsewhere
        lasting = str(base_folder.resolve()) if base_folder.is_dir() and not is_embedded(base) else base
        _write_texts(new, card, {**defaults, "base": lasting}, seen)


def check_hub_name(repo_id: str) -> None:
    """Check a name on the hub, before hours are spent.

    Raises:
        ModelError: the hub would not accept it.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it is one of the face's

    try:
        validate_repo_id(repo_id)
        if "/" not in repo_id:
            raise HFValidationError("it names no owner")
    except HFValidationError as error:
        raise ModelError(f"{repo_id!r} is not a valid name on the hub ({first_line(error)}); give OWNER/NAME") from None


def push_to_hub(folder: Path, repo_id: str, *, private: bool = False) -> str:
    """Upload `folder` to the hub's model `repo_id`, which is made if need be, and return its address.

    Args:
        folder: what `save_pipeline` or `save_lora` wrote.
        repo_id: `owner/name`; the token is the one that `hf auth login` stored.
        private: a repository that is made now is seen by its owner alone.

    Raises:
        ModelError: the folder is no model, the name is not accepted, nobody is logged in, the hub refuses, or it
            cannot be reached.
    """
    if not any((folder / name).is_file() for name in (INDEX_FILE, LORA_FILE)):
        raise ModelError(f"{folder} is not a model's folder; give one that `chromatune finetune` wrote")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx's or its successor's

    api = HfApi()
    try:
        address = api.create_repo(repo_id, repo_type="model", private=private, exist_ok=True)
        # A stored name starting with a dot is never part of a model: it is left by the system or a download.
        api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type="model", ignore_patterns=[".*"])
    except (HTTPError, OSError, ValueError, RuntimeError) as error:  # the last of an upload that broke off
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"{repo_id} cannot be pushed to the hub: {reason}; check the name, the network and `hf auth login`. "
            f"The model is in {folder}"
        ) from None
    return str(address)


def check_replaceable(folder: Path) -> None:
    """Check that `folder` does not exist, is empty, or holds a model and nothing else; for a check before training.

    Raises:
        ModelError: saving there would delete something else.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder; name another one for the result")
    foreign = sorted({entry.name for entry in folder.iterdir()} - KNOWN)
    if foreign:
        raise ModelError(
            f"{folder} holds {foreign[0]!r}, which is not part of a model and would be deleted; "
            "name another folder for the result"
        )


@contextmanager
def _model_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill with a model, which is named `folder` at the end; on an error nothing of it is left."""
    from safetensors import SafetensorError

    check_replaceable(Path(os.path.realpath(folder)))
    try:
        with atomic_folder(folder) as new:
            yield new
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ModelError(f"{folder}: the model cannot be written ({reason}); check disk and path") from error


def _drop_origins(folder: Path) -> None:
    """Remove from the parts' settings where on this machine they were loaded from, and how."""
    for path in folder.glob("*/*config.json"):
        known = json.loads(path.read_text(encoding="utf-8"))
        rest = {key: value for key, value in known.items() if key not in OF_THIS_MACHINE}
        if rest != known:
            path.write_text(json.dumps(rest, indent=2) + "\n", encoding="utf-8")


def _write_texts(folder: Path, card: str, defaults: Mapping[str, Any], seen: Sequence[TrainingSet]) -> None:
    if seen:
        write_training_data(folder, seen)
    text = json.dumps(dict(defaults), indent=1, ensure_ascii=False)
    (folder / DEFAULTS_FILE).write_text(text + "\n", encoding="utf-8")
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
