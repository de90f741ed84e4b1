"""Edit models: diffusers pipelines that redraw a picture by an instruction; which are known, and what each takes.

`model_index.json` names a pipeline's class and those of its parts. Only classes that are listed here are ever built.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from chromatune.errors import ModelError, printable, shown
from chromatune.options import first_problem
from chromatune.pipeline import checks

# Says what must not change, as these models redraw all of it
EDIT_PROMPT = (
    "Colorize this black and white photograph in natural, realistic colors. Keep everything else exactly as it is: "
    "the same people, faces, objects, framing and detail."
)
MOST_LAYERS = 512  # of one kind in a part; the largest known has 64
LARGEST_TEXT_BYTES = 64 << 20  # FLUX.2's tokenizer has 17 MB
CLIP = ("CLIPTokenizer", "CLIPTokenizerFast")
FLOW = "FlowMatchEulerDiscreteScheduler"

# Part ⇒ the library and the only classes that it is ever built as
PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "unet": ("diffusers", ("UNet2DConditionModel",)),
    "transformer": ("diffusers", ("FluxTransformer2DModel", "QwenImageTransformer2DModel", "Flux2Transformer2DModel")),
    "vae": ("diffusers", ("AutoencoderKL", "AutoencoderKLQwenImage", "AutoencoderKLFlux2")),
    "scheduler": ("diffusers", (FLOW, *checks.CLASSES["scheduler"][1])),
    "text_encoder": (
        "transformers",
        (
            "CLIPTextModel", "Qwen2_5_VLForConditionalGeneration", "Qwen3ForCausalLM",
            "Mistral3ForConditionalGeneration",
        ),
    ),
    "text_encoder_2": ("transformers", ("T5EncoderModel", "CLIPTextModelWithProjection")),
    "tokenizer": ("transformers", (*CLIP, "Qwen2Tokenizer", "Qwen2TokenizerFast", "PixtralProcessor")),
    "tokenizer_2": ("transformers", (*CLIP, "T5Tokenizer", "T5TokenizerFast")),
    "processor": ("transformers", ("Qwen2VLProcessor", "Qwen2_5_VLProcessor")),
}  # fmt: skip
NETWORKS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2")


class EditClass(NamedTuple):
    """How a pipeline's class is used.

    Attributes:
        family: what it is called.
        parts: its own; all must be there.
        follows: names of `model_files.INSTRUCTIONS` that act in it.
        steps: default number, as its authors give it.
        guidance_scale: default.
        guidance: its own name of the argument for that; empty without.
        size_px: default short side of its pass.
        size: of what it draws: "given" with each photo, that of the "photo" up to a megapixel, or its "own", about a
            megapixel in the photo's proportions.
        settings: further arguments, the same for all photos.
    """

    family: str
    parts: tuple[str, ...]
    follows: frozenset[str]
    steps: int
    guidance_scale: float = 1.0
    guidance: str = "guidance_scale"
    size_px: int = 832  # a megapixel in the proportions 3:2, which these were trained at
    size: Literal["given", "photo", "own"] = "given"
    settings: Mapping[str, Any] = {}


COMMON = frozenset({"prompt", "steps", "seed"})
GUIDED = COMMON | {"guidance_scale"}
QWEN_PARTS = ("transformer", "vae", "scheduler", "text_encoder", "tokenizer", "processor")
QWEN = EditClass(
    "Qwen-Image-Edit",
    QWEN_PARTS,
    GUIDED | {"negative_prompt"},
    steps=50,
    guidance_scale=4.0,
    guidance="true_cfg_scale",
    size="own",  # it sees the photo at a megapixel whatever is asked for, and shifts what it draws at another size
    settings={"negative_prompt": " "},  # without any, there is no guidance
)
FLUX2_PARTS = ("transformer", "vae", "scheduler", "text_encoder", "tokenizer")
DISTILLED_KLEIN = EditClass("FLUX.2 klein", FLUX2_PARTS, COMMON, 4, guidance="", size="photo")
EDIT_CLASSES: dict[str, EditClass] = {
    "StableDiffusionXLInstructPix2PixPipeline": EditClass(
        "InstructPix2Pix XL",
        ("unet", "vae", "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
        GUIDED | {"negative_prompt", "image_guidance_scale"},
        steps=30,
        guidance_scale=3.0,
        size_px=768,
    ),
    "FluxKontextPipeline": EditClass(
        "FLUX.1 Kontext",
        ("transformer", "vae", "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
        GUIDED,
        steps=28,
        guidance_scale=2.5,
        # Else it is shown the photo in one of some fixed proportions, and its answer is stretched against the photo
        settings={"_auto_resize": False},
    ),
    "QwenImageEditPipeline": QWEN,
    "QwenImageEditPlusPipeline": QWEN._replace(steps=40),
    "Flux2Pipeline": EditClass("FLUX.2", FLUX2_PARTS, GUIDED, 50, 4.0, size="photo"),
    "Flux2KleinPipeline": EditClass("FLUX.2 klein", FLUX2_PARTS, GUIDED, 50, 4.0, size="photo"),
    "Flux2KleinKVPipeline": DISTILLED_KLEIN,
}


def edit_class_of(index: Mapping[str, Any]) -> EditClass | None:
    """Return how the pipeline of a `model_index.json` is used; None where it is no edit model that is known."""
    name = index.get("_class_name")
    if name == "Flux2KleinPipeline" and index.get("is_distilled") is True:
        return DISTILLED_KLEIN
    return EDIT_CLASSES.get(name) if isinstance(name, str) else None


def check_index(name: str, index: Mapping[str, Any], known: EditClass) -> None:
    """Check that an index names the parts of its class, and each by a class of the list.

    Raises:
        ModelError: it does not.
    """
    for part, given in index.items():
        if not isinstance(given, list | dict) or given == [None, None]:
            continue
        library, accepted = PARTS.get(part, ("", ())) if part in known.parts else ("", ())
        if not (isinstance(given, list) and len(given) == 2 and given[0] == library and given[1] in accepted):
            raise ModelError(
                f"{name}: model_index.json gives {shown(part)} as {shown(given)}, which is not supported; accepted is "
                f"what a {index['_class_name']} of diffusers has, and no code of its own"
            )
    missing = [part for part in known.parts if not isinstance(index.get(part), list) or index[part] == [None, None]]
    if missing:
        raise ModelError(f"{name}: model_index.json names no {missing[0]}; {checks.AGAIN}")


def check_edit_part(name: str, folder: Path, part: str) -> None:
    """Check a part's settings and the headers of its weights, before the part is built.

    Raises:
        ModelError: one line that names the file and what is wrong with it.
    """
    checks.check_files(name, folder, LARGEST_TEXT_BYTES)
    file = "the folder"
    try:
        for path in sorted(folder.glob("*config.json")):
            file = path.name
            config = checks.read_json(path)
            _check_settings(config)
            if part == "scheduler":
                checks.SchedulerConfig.model_validate(config)
        if part in NETWORKS:
            file = "the folder"
            for weights in checks.weight_files(folder):
                file = weights.name
                checks.read_header(weights)
    except ValidationError as error:
        raise ModelError(f"{name}: {part}/{file} has {first_problem(error)}; {checks.AGAIN}, or give another") from None
    except ValueError as error:
        raise ModelError(f"{name}: {part}/{printable(file)} {error}; {checks.AGAIN}") from None


def _check_settings(config: Mapping[str, Any]) -> None:
    """Check that settings neither name code to be fetched and run, nor describe layers without end.

    Raises:
        ValueError: they do.
    """
    for key, value in config.items():
        if key == "auto_map" or ("attn_implementation" in key and "/" in json.dumps(value)):
            raise ValueError(f"wants code of its own to be run ({key}), which is never done here")
        if isinstance(value, dict):
            _check_settings(value)
        counted = any(word in key for word in ("layers", "blocks", "depth"))
        if counted and isinstance(value, int | float) and not value <= MOST_LAYERS:
            raise ValueError(f"has {key} {shown(value)}; at most {MOST_LAYERS} are accepted")
