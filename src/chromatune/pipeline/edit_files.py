"""An edit model's folder ⇒ what is known of it before its weights are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from chromatune.errors import ModelError
from chromatune.options import first_problem
from chromatune.pipeline.checks import AGAIN, read_json
from chromatune.pipeline.edit_classes import EDIT_PROMPT, EditClass, check_index, edit_class_of
from chromatune.pipeline.model_files import DEFAULTS_FILE, INDEX_FILE, ModelInfo

DECIDING_SUFFIXES = (".safetensors", ".json", ".txt", ".jinja", ".model")


@dataclass(frozen=True)
class EditFiles:
    """Where an edit model is, and how it is used."""

    name: str
    path: Path
    index: dict[str, Any]  # model_index.json
    kind: EditClass
    defaults: dict[str, Any]  # chromatune.json, where it has one

    @property
    def pipeline_folder(self) -> Path:
        """The folder of its parts, as that of a `ModelFiles`."""
        return self.path

    @property
    def pipeline_class(self) -> str:
        """The class in diffusers."""
        return str(self.index["_class_name"])

    def deciding(self) -> Iterator[Path]:
        """Yield the files that decide its pixels."""
        yield self.path / INDEX_FILE
        if (self.path / DEFAULTS_FILE).exists():
            yield self.path / DEFAULTS_FILE
        for part in self.kind.parts:
            yield from sorted(each for each in (self.path / part).glob("*") if each.suffix in DECIDING_SUFFIXES)


def find_edit_model(name: str, folder: Path) -> EditFiles | None:
    """Return the files of an edit model; None where a folder holds a model of another kind.

    Raises:
        ModelError: it is one, and a part is missing, or of a class that is not used here.
    """
    if not (folder / INDEX_FILE).exists():
        return None
    try:
        index = read_json(folder / INDEX_FILE)
        if (kind := edit_class_of(index)) is None:
            return None
        file = DEFAULTS_FILE
        defaults = read_json(folder / file) if (folder / file).exists() else {}
    except ValueError as error:
        raise ModelError(f"{name}: {INDEX_FILE} or {DEFAULTS_FILE} {error}; {AGAIN}") from None
    check_index(name, index, kind)
    return EditFiles(name, folder, index, kind, defaults)


def read_edit_info(files: EditFiles) -> ModelInfo:
    """Return what is known of an edit model: its class's defaults, under those of its folder.

    Raises:
        ModelError: a default of its folder makes no sense.
    """
    kind = files.kind
    taken = ModelInfo.__dataclass_fields__.keys() - {"name", "path", "follows", "family", "words"}
    known = {key: value for key, value in files.defaults.items() if key in taken}
    values: dict[str, Any] = {
        "name": files.name,
        "path": files.path,
        "description": f"edit model {kind.family}",
        "size_px": kind.size_px,
        "steps": kind.steps,
        "guidance_scale": kind.guidance_scale,
        "image_guidance_scale": 1.5 if "image_guidance_scale" in kind.follows else 1.0,
        "prompt": EDIT_PROMPT,
        "vivid": 0.0,
        "follows": kind.follows,
        "family": kind.family,
    } | known
    try:
        return TypeAdapter(ModelInfo).validate_python({"variant_steps": values["steps"]} | values)
    except ValidationError as error:
        raise ModelError(f"{files.name}: {DEFAULTS_FILE} has {first_problem(error)}; correct it") from None
