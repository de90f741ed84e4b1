"""A model's name ⇒ which kind of model it is, where it is, and what is known of it before its weights are read."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from chromatune.errors import ModelError
from chromatune.pipeline.checks import AGAIN, stored_numbers
from chromatune.pipeline.colorizer_files import (
    DESCRIPTION_FILE,
    NETWORK_SUFFIXES,
    ColorizerFiles,
    files_digest,
    find_colorizer,
    networks_in,
)
from chromatune.pipeline.edit_files import EditFiles, find_edit_model, read_edit_info
from chromatune.pipeline.loading import SDXL
from chromatune.pipeline.model_files import (
    HUB_NAME,
    INDEX_FILE,
    LORA_FILE,
    ModelFiles,
    ModelInfo,
    deciding_files,
    embedded,
    find_folder,
    find_pipeline,
    read_pipeline_info,
)

MODELS_VARIABLE = "CHROMATUNE_MODELS"  # a folder of the user's own models
CHECKPOINT_SIZE_PX = 512  # as most of DDColor's graphs have it
QUICK_BYTES = 2 << 30  # of a model's files, whose hash takes seconds
MOST_LISTED = 1000  # entries of the user's folder

BLEND = re.compile(
    r"(?P<first>.+)\+(?P<second>.+):(?P<share>[01](?:\.[0-9]{1,4})?|\.[0-9]{1,4})"
)  # such as ddcolor.onnx+mini:0.3


@dataclass(frozen=True)
class BlendFiles:
    """Where two models are whose colors are mixed."""

    name: str
    first: ModelFiles | ColorizerFiles | EditFiles
    second: ModelFiles | ColorizerFiles | EditFiles
    share: float  # of the second, 0..1


Files: TypeAlias = ModelFiles | ColorizerFiles | EditFiles | BlendFiles


def find_model(name: str) -> Files:
    """Return the files of the model `name`, fetched from the hub if need be; no weights are read.

    Args:
        name: a model that ships with the package, a pipeline's folder or a LoRA's, an edit model's folder, a
            colorizer's file or its folder, one in the user's own folder of models, or a name on the hub. A+B:0.3 is
            the model A with three tenths of B's colors.

    Raises:
        ModelError: the name is unknown, or the model incomplete.
        MissingExtraError: it is on the hub, and takes torch, which is not installed.
    """
    if name in embedded():
        return find_pipeline(name)
    path = Path(name).expanduser()
    if not path.exists() and (blend := BLEND.fullmatch(name)):
        first, second = find_model(blend["first"]), find_model(blend["second"])
        if not 0 <= float(blend["share"]) <= 1:
            raise ModelError(f"{name}: the share must be from 0 to 1")
        if isinstance(first, BlendFiles) or isinstance(second, BlendFiles):
            raise ModelError(f"{name} blends more than two models; give two")
        return BlendFiles(name, first, second, float(blend["share"]))
    if not path.exists() and (own := _in_users_folder(name)) is not None:
        path = own
    if path.suffix.lower() in NETWORK_SUFFIXES and not path.is_dir():
        if not path.exists():
            raise ModelError(f"{name}: there is no such file; give the path of a colorizer, see `chromatune models`")
        return find_colorizer(name, path)
    if path.is_dir():
        if _is_colorizer(path):
            return find_colorizer(name, path)
        name = str(path) if path == _in_users_folder(name) else name
    else:
        path = find_folder(name)
    return find_edit_model(name, path) or find_pipeline(name, path)


def find_trainable(name: str) -> ModelFiles | EditFiles:
    """Return the files of the model `name`, if it can be fine-tuned: an InstructPix2Pix model, or one of SDXL.

    Raises:
        ModelError: the name is unknown, the model incomplete or of another kind.
        MissingExtraError: see `find_model`.
    """
    files = find_model(name)
    if isinstance(files, ModelFiles) or isinstance(files, EditFiles) and files.pipeline_class == SDXL:
        return files
    family = read_info(files).family or "another kind"
    raise ModelError(
        f"{name}: a model of {family} cannot be fine-tuned here; give an InstructPix2Pix model, of Stable Diffusion or "
        "Stable Diffusion XL"
    )


def unet_parameters(files: ModelFiles | EditFiles) -> int:
    """Return how many parameters the U-Net of a model has, by the headers of its weights.

    Raises:
        ModelError: they cannot be read.
    """
    try:
        return stored_numbers(files.pipeline_folder / "unet")
    except ValueError as error:
        raise ModelError(f"{files.name}: unet {error}; {AGAIN}, or give another") from None


def read_info(files: Files) -> ModelInfo:
    """Return what is known of a model before its weights are read.

    Raises:
        ModelError: its settings cannot be read, or make no sense.
    """
    if isinstance(files, ModelFiles):
        return read_pipeline_info(files)
    if isinstance(files, EditFiles):
        return read_edit_info(files)
    if isinstance(files, BlendFiles):
        return blended_info(files.name, read_info(files.first), read_info(files.second))
    declared = files.declared
    if files.is_checkpoint:
        size_px, family = declared.size_px or CHECKPOINT_SIZE_PX, declared.family or "DDColor"
    else:
        from chromatune.pipeline.colorizer_graph import read_graph  # it takes protobuf

        convention = read_graph(files).convention
        size_px, family = convention.size_px, convention.family
    return ModelInfo(
        name=files.name,
        path=files.path,
        description=declared.description or f"colorizer {family}".strip(),
        size_px=size_px,
        steps=1,
        guidance_scale=1.0,
        image_guidance_scale=1.0,
        prompt="",
        vivid=0.0,
        variant_steps=1,
        follows=frozenset(),
        family=family,
        license=declared.license,
    )


def blended_info(name: str, first: ModelInfo, second: ModelInfo) -> ModelInfo:
    """Return what is known of two models as one: instructions are those of the one that follows them."""
    lead = first if first.follows else second
    return dataclasses.replace(
        lead,
        name=name,
        path=first.path,
        description=f"{first.name} with colors of {second.name}",
        size_px=max(first.size_px, second.size_px),
        vivid=0.0,  # each part has its own
        follows=first.follows | second.follows,
        family=" + ".join(filter(None, (first.family, second.family))),
        license=" + ".join(dict.fromkeys(filter(None, (first.license, second.license)))),
    )


def model_info(name: str) -> ModelInfo:
    """Return what is known of the model `name` (see `find_model`) before its weights are read.

    Raises:
        ModelError: the name is unknown, the model incomplete, or one of its settings senseless.
    """
    return read_info(find_model(name))


def is_local(name: str) -> bool:
    """Return whether `find_model` fetches nothing to find the model `name`."""
    if Path(name).expanduser().exists():
        return True
    if blend := BLEND.fullmatch(name):
        return is_local(blend["first"]) and is_local(blend["second"])
    return HUB_NAME.fullmatch(name) is None


def weights_hash(name: str) -> str:
    """Return 16 hexadecimal digits of the SHA-256 over all files that decide a model's pixels, its LoRAs' included.

    Raises:
        ModelError: the model is unknown, or one of its files cannot be read.
    """
    return _digest(find_model(name))


def short_name(info: ModelInfo) -> str:
    """Return a model's name without folders of this machine."""
    parts = info.name.split("+")
    return "+".join(Path(part).name if Path(part.rpartition(":")[0] or part).exists() else part for part in parts)


def hash_if_quick(info: ModelInfo) -> str:
    """Return a known model's `weights_hash`; empty where reading its files takes long, or they are gone."""
    given = info.source or info.name
    name = given if BLEND.fullmatch(given) else str(info.path)
    try:
        files = find_model(name)
        return _digest(files) if sum(path.stat().st_size for path in _parts(files)) <= QUICK_BYTES else ""
    except (ModelError, OSError):
        return ""


def available_models() -> list[ModelInfo]:
    """Return the models that ship in the package, best first; reads no weights and imports no torch."""
    return [model_info(name) for name in embedded()]


def users_folder() -> Path:
    """Return the folder of the user's own models: CHROMATUNE_MODELS, else ~/.config/chromatune/models."""
    if given := os.environ.get(MODELS_VARIABLE):
        return Path(given).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "chromatune" / "models"


def users_models() -> list[Path]:
    """Return the files and folders of models in the user's own folder, by name; none without the folder.

    Raises:
        ModelError: it cannot be read.
    """
    folder = users_folder()
    try:
        entries = sorted(folder.iterdir())[:MOST_LISTED] if folder.is_dir() else []
    except OSError as error:
        raise ModelError(f"{folder}: the folder of models cannot be read ({error.strerror})") from None
    return [each for each in entries if _is_model(each)]


def is_pipeline(folder: Path) -> bool:
    """Return whether a folder is a pipeline's or a LoRA's."""
    return (folder / INDEX_FILE).exists() or (folder / LORA_FILE).exists()


def _is_model(entry: Path) -> bool:
    if entry.is_dir():
        return is_pipeline(entry) or _is_colorizer(entry)
    return entry.suffix.lower() in NETWORK_SUFFIXES


def _is_colorizer(folder: Path) -> bool:
    return (folder / DESCRIPTION_FILE).exists() or not is_pipeline(folder) and bool(networks_in(folder))


def _in_users_folder(name: str) -> Path | None:
    """Return the model of a name, with or without its suffix, in the user's own folder."""
    if not name or re.search(r"[/\\]", name) or name.startswith("."):
        return None
    folder = users_folder()
    for candidate in (name, *(f"{name}{suffix}" for suffix in NETWORK_SUFFIXES)):
        if (folder / candidate).exists():
            return folder / candidate
    return None


def _digest(files: Files) -> str:
    if isinstance(files, BlendFiles):
        both = f"{_digest(files.first)}+{_digest(files.second)}:{files.share}"
        return hashlib.sha256(both.encode()).hexdigest()[:16]
    return files_digest(_parts(files), files.name)


def _parts(files: Files) -> Iterator[Path]:
    """Yield the files that decide a model's pixels."""
    if isinstance(files, BlendFiles):
        yield from _parts(files.first)
        yield from _parts(files.second)
        return
    if isinstance(files, ModelFiles):
        for folder in (files.pipeline_folder, *files.loras):
            yield from deciding_files(folder)
        return
    if isinstance(files, EditFiles):
        yield from files.deciding()
        return
    yield files.network
    if not files.is_checkpoint:
        from chromatune.pipeline.colorizer_graph import weights_of

        yield from weights_of(files)
    if files.description_file.exists():
        yield files.description_file
