"""A model's name ⇒ where its files are, and what is known of it before its weights are read."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from chromatune.errors import MissingExtraError, ModelError, OptionsError, first_line, shown
from chromatune.options import SEEDS, ColorizeOptions, ResolvedOptions, first_problem
from chromatune.pipeline.checks import AGAIN, read_json
from chromatune.pipeline.edit_classes import edit_class_of
from chromatune.pipeline.instructions import read_instruction
from chromatune.prompts import DEFAULT_PROMPT

MODELS_DIR = Path(__file__).parents[1] / "models"
INDEX_FILE = "model_index.json"
DEFAULTS_FILE = "chromatune.json"
TRAINING_DATA_FILE = "training_data.json"  # decides no pixel
PHOTO_ENCODER = "photo_encoder"  # folder of the part that the stock pipeline does not know
LORA_FILE = "pytorch_lora_weights.safetensors"  # the name diffusers looks for
TORCH_LIBRARIES = ("torch", "diffusers", "transformers")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
RESOLVED = ("prompt", "steps", "guidance_scale", "image_guidance_scale", "size_px")  # options with a model's own value
# Defaults of the full-size model, whose folder has none (the paper's values, arXiv 2312.04780).
STOCK_DEFAULTS = {
    "steps": 20,
    "guidance_scale": 7.0,
    "image_guidance_scale": 1.5,
    "prompt": DEFAULT_PROMPT,
    "vivid": 0.0,
}
LONGEST_LABEL = 100  # characters of a model's name in menus
MOST_WORDS = 2000  # that a model says it was taught
# Options that a colorizer of another kind may not follow, by what they are called in a message
INSTRUCTIONS = {
    "prompt": "prompt",
    "negative_prompt": "negative prompt",
    "steps": "steps",
    "seed": "seed",
    "guidance_scale": "guidance",
    "image_guidance_scale": "image guidance",
}


def _one_word(text: str) -> str:
    if not text.isprintable() or text != text.casefold() or text.split() != [text]:
        raise ValueError("accepted: words in lower case, each alone")
    return text


TaughtWord = Annotated[str, Field(max_length=40), AfterValidator(_one_word)]


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model before its weights are read."""

    name: str
    path: Path
    description: Annotated[str, Field(max_length=5000)]
    size_px: Annotated[int, Field(ge=8, le=2048)]  # short side of the model's own pass
    steps: Annotated[int, Field(ge=1, le=1000)]
    guidance_scale: Annotated[float, Field(ge=0, le=50)]
    image_guidance_scale: Annotated[float, Field(ge=0, le=50)]
    prompt: Annotated[str, Field(max_length=1000)]  # as in `ColorizeOptions`
    # See `color.vivid`; it is chosen with `steps`, and 0 where a number of steps is asked for
    vivid: Annotated[float, Field(ge=0, le=2)]
    variant_steps: Annotated[int, Field(ge=1, le=1000)]  # for variants: in one step, seeds hardly differ
    # That it was taught, where it knows no others; None: it gets instructions as they are
    words: Annotated[tuple[TaughtWord, ...], Field(min_length=1, max_length=MOST_WORDS)] | None = None
    follows: frozenset[str] = frozenset(INSTRUCTIONS)  # names of `INSTRUCTIONS`
    family: str = ""  # such as "InstructPix2Pix" or "DDColor"
    license: Annotated[str, Field(max_length=200)] = ""  # of the weights, as far as its files say
    source: str = ""  # what `find_model` takes, where it goes by another name
    label: Annotated[str, Field(max_length=LONGEST_LABEL)] | None = None  # what menus call it; None: its name

    def resolve(self, options: ColorizeOptions) -> ResolvedOptions:
        """Return the options with this model's own values for those that are None.

        Its vividness was chosen with its own number of steps: with another number nothing is added. Variants that are
        not made of two passes (`has_versions`, own number of steps, `recompose`) are further seeds.

        Raises:
            OptionsError: a variant is asked for, and it has no seeds.
        """
        if options.variant > 1 and "seed" not in self.follows:
            raise OptionsError(
                f"{self.name} has one version of a photo, as it has no seeds; leave out --variant and --variants",
                "variant",
            )
        own = {name: getattr(self, name) for name in RESOLVED if getattr(options, name) is None}
        if options.vivid is None:
            own["vivid"] = self.vivid if options.steps is None else 0.0
        if options.variant > 1 and not (self.has_versions and options.steps is None and options.recompose):
            own |= {"variant": 1, "seed": _further(options.seed, options.variant)}
            if options.steps is None:
                own["steps"] = self.variant_steps
        return ResolvedOptions(**(options.model_dump() | own))

    @property
    def has_versions(self) -> bool:
        """Whether seeds hardly differ in its own number of steps, so that variants are made of two passes."""
        return self.variant_steps != self.steps

    def unfollowed(self, options: ResolvedOptions) -> tuple[str, ...]:
        """Return a line that names the instructions which are given and not followed; usually none."""
        own = {name: getattr(self, name, 0 if name == "seed" else "") for name in INSTRUCTIONS}
        given = [text for name, text in INSTRUCTIONS.items()
                 if name not in self.follows and getattr(options, name) != own[name]]  # fmt: skip
        if not given:
            return ()
        listed = " and ".join(filter(None, (", ".join(given[:-1]), given[-1])))
        if "prompt" in self.follows:
            return (f"{self.name} does not follow {listed}",)
        return (f"{self.name} colors every photo in its own way: {listed} left out; hints and --strength act",)

    def sampled(self, options: ResolvedOptions) -> ResolvedOptions:
        """Return the options of a variant's second pass: more steps, and a seed of its own."""
        seed = _further(options.seed, options.variant)
        return dataclasses.replace(options, variant=1, seed=seed, steps=self.variant_steps)

    def read(self, options: ResolvedOptions) -> tuple[ResolvedOptions, tuple[str, ...]]:
        """Return the options with the instructions that the text encoder gets, and what is left out of them.

        See `read_instruction`. Where nothing is left, the prompt is the model's own, the negative prompt none.
        """
        if self.words is None:
            return options, ()
        words = frozenset(self.words)
        prompt = read_instruction(options.prompt, words, self.prompt)
        negative = read_instruction(options.negative_prompt, words, self.prompt)
        text = self.prompt if options.prompt.strip() and not prompt.text else prompt.text
        left_out = tuple(dict.fromkeys((*prompt.left_out, *negative.left_out)))
        return dataclasses.replace(options, prompt=text, negative_prompt=negative.text), left_out


def _further(seed: int, variant: int) -> int:
    return (seed + variant - 1) % SEEDS


@dataclass(frozen=True)
class ModelFiles:
    """Where a model is: a pipeline folder, and the LoRA folders to merge into its U-Net, the base's first."""

    name: str
    path: Path  # the folder that the name stands for
    pipeline_folder: Path  # `path` itself, or for a LoRA the folder of the pipeline that it changes
    loras: tuple[Path, ...]
    index: dict[str, Any]  # the pipeline's model_index.json
    defaults: dict[str, Any]  # chromatune.json; a LoRA's settings over its base's


def find_pipeline(name: str, folder: Path | None = None) -> ModelFiles:
    """Return the files of the model `name` (see `load_pipeline`), fetched from the hub if need be; no weights are read.

    Args:
        name: the model's.
        folder: of it, where that is known.

    Raises:
        ModelError: the name is unknown, the folder incomplete, or it is a LoRA whose base cannot be found.
        MissingExtraError: it is on the hub, and takes torch, which is not installed.
    """
    folders = [folder or find_folder(name)]
    defaults = _read_defaults(name, folders[0])
    while "base" in defaults and not (folders[-1] / INDEX_FILE).exists() and (folders[-1] / LORA_FILE).is_file():
        base = defaults["base"]
        try:
            base_folder = find_folder(str(base))
        except ModelError as error:
            raise ModelError(f"{name} is a LoRA whose base model cannot be found: {error}") from None
        if base_folder in folders:
            raise ModelError(
                f"{name} is a LoRA whose base {base!r} is itself a LoRA of it; name a full pipeline as base"
            )
        folders.append(base_folder)
        # What the base was taught says nothing of a LoRA that was trained with any words
        own = {"words": None, "label": None} | {key: value for key, value in defaults.items() if key != "base"}
        defaults = _read_defaults(str(base), base_folder) | own
    pipeline = folders[-1]
    defaults.pop("base", None)
    index = _read_index(name, pipeline)
    return ModelFiles(name, folders[0], pipeline, tuple(reversed(folders[:-1])), index, defaults)


def read_pipeline_info(files: ModelFiles) -> ModelInfo:
    """Return what is known of the model in `files`: its own defaults, else the U-Net's size and the paper's settings.

    Raises:
        ModelError: the settings cannot be read, or a default makes no sense.
    """
    unet = _read_json(files.name, files.pipeline_folder, "unet/config.json")
    taken = ModelInfo.__dataclass_fields__.keys() - {"follows", "family", "source"}
    known = {key: value for key, value in files.defaults.items() if key in taken}
    native = unet.get("sample_size") or 64
    native_px = 8 * native if isinstance(native, int) else native
    values: dict[str, Any] = {"size_px": native_px, "description": str(files.path)} | STOCK_DEFAULTS | known
    values |= {"name": files.name, "path": files.path, "family": "InstructPix2Pix"}
    if ships_with_package(files.path):
        values["license"] = "Apache-2.0"
    try:
        return TypeAdapter(ModelInfo).validate_python({"variant_steps": values["steps"]} | values)
    except ValidationError as error:
        problem = first_problem(error)
        file = DEFAULTS_FILE if problem.field.split(".")[0] in known else "unet/config.json"
        raise ModelError(f"{files.name}: {file} has {problem}; correct it, or download the model again") from None


def deciding_files(folder: Path) -> list[Path]:
    """Return the files of a model that decide its pixels: settings, weights, words, graphs and what they read."""
    ships = ships_with_package(folder)  # graphs are made from weights there, and change with the package alone
    found = []
    entries = list(folder.glob("*"))
    # The folder of a part may be a link: no walk from above follows it, and one from there might have no end
    inside = (entry.glob("*") if entry.is_symlink() else entry.rglob("*") for entry in entries if entry.is_dir())
    for path in chain(entries, *inside):
        if path.is_dir() or path == folder / TRAINING_DATA_FILE:
            continue
        settings_or_weights = path.suffix in (".safetensors", ".json")
        if path.parent.name in ("vae_encoder", "vae_decoder") and path.name == "config.json":
            settings_or_weights = False  # a copy
        beside_graph = path.suffix == ".txt" or path.suffix != ".json" and (path.parent / "model.onnx").exists()
        if settings_or_weights or not ships and path.parent != folder and beside_graph:
            found.append(path)
    return sorted(found)


def has_torch() -> bool:
    """Return whether torch and the libraries that come with it are installed; none of them is loaded."""
    return all(find_spec(name) is not None for name in TORCH_LIBRARIES)


def is_embedded(name: str) -> bool:
    """Return whether the model ships in the package."""
    return name in embedded()


def ships_with_package(folder: Path) -> bool:
    """Return whether a folder is a model of the package itself, which nobody else wrote."""
    return folder.parent == MODELS_DIR


def embedded() -> dict[str, Path]:
    """Return the folders of the models that ship in the package, by name."""
    return {path.name: path for path in sorted(MODELS_DIR.glob("*/")) if (path / DEFAULTS_FILE).is_file()}


def find_folder(name: str) -> Path:
    """Return the folder of the model `name`, fetched from the hub if need be.

    Raises:
        ModelError: it is unknown, or cannot be fetched.
        MissingExtraError: it is on the hub, and takes torch, which is not installed.
    """
    shipped = embedded()
    if name in shipped:
        return shipped[name]
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    if HUB_NAME.fullmatch(name):
        return _fetch(name)
    if Path(name).expanduser().exists():
        raise ModelError(f"{name} is a colorizer's file; only pipelines, which are folders, are trained and exported")
    raise ModelError(
        f"unknown model {shown(name)}; accepted: {', '.join(shipped)}, a colorizer's ONNX file, a diffusers "
        "InstructPix2Pix folder, or a hub name such as timbrooks/instruct-pix2pix"
    )


def _fetch(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    settings = ["*.json", "*.txt", "*.jinja"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=settings))
        # Single-file checkpoints, fp16 doubles and the safety checker are gigabytes that nothing here reads.
        edit = edit_class_of(read_json(folder / INDEX_FILE)) if (folder / INDEX_FILE).is_file() else None
        names = ("unet", "vae", "text_encoder", PHOTO_ENCODER) if edit is None else edit.parts
        parts = [f"{part}/*.safetensors" for part in names]
        # Graphs of other tools come with gigabytes of weights of their own
        graphs = edit is None and (folder / DEFAULTS_FILE).is_file()
        if not graphs and not has_torch():  # before anything large is fetched
            raise MissingExtraError(f"{name} has no ONNX files, and running it", "torch")
        wanted = [*settings, LORA_FILE, *parts, *(["*/model.onnx"] if graphs else [])]
        return Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=["*.fp16.*", "*non_ema*"]))
    except LocalEntryNotFoundError:
        raise ModelError(
            f"{name}: no such folder, and the Hugging Face hub cannot be reached; check the path and the network"
        ) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(
            f"{name}: no such folder, and the Hugging Face hub does not provide it: {first_line(error)}"
        ) from None


def _read_index(name: str, path: Path) -> dict[str, Any]:
    if not (path / INDEX_FILE).exists():
        if (path / LORA_FILE).is_file():
            raise ModelError(
                f"{name} holds LoRA weights and does not say for which model; "
                f'write {{"base": NAME}} to its {DEFAULTS_FILE}'
            )
        if (path / "model" / INDEX_FILE).exists():
            raise ModelError(f"{name} is a training run; give its model, {path / 'model'}")
        raise ModelError(f"{name} is not a model's folder: it has no {INDEX_FILE}")
    index = _read_json(name, path, INDEX_FILE)
    if edit_class_of(index):
        raise ModelError(f"{name} is an edit model, and those cannot be fine-tuned or exported")
    missing = [part for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler") if not index.get(part)]
    if missing:
        raise ModelError(f"{name}: model_index.json names no {missing[0]}; is it a Stable Diffusion pipeline?")
    return index


def _read_defaults(name: str, path: Path) -> dict[str, Any]:
    return _read_json(name, path, DEFAULTS_FILE) if (path / DEFAULTS_FILE).exists() else {}


def _read_json(name: str, folder: Path, file: str) -> dict[str, Any]:
    try:
        return read_json(folder / file)
    except ValueError as error:
        raise ModelError(f"{name}: {file} {error}; {AGAIN}") from None
