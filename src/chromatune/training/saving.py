"""What a finished run leaves on disk: the model folder, its card, and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chromatune.data import AUTO, DEFAULT_SET
from chromatune.errors import count_of
from chromatune.pipeline import (
    HUB_NAME,
    SDXL,
    TrainingSet,
    defaults_of,
    is_embedded,
    quiet_libraries,
    save_lora,
    save_pipeline,
    write_graphs,
)
from chromatune.reports import installed_versions, markdown_table
from chromatune.training.measurements import METRICS_FILE, read_metrics
from chromatune.training.report import flatten, format_value, write_run_page
from chromatune.training.training_loop import TrainResult

PACKAGES = ("chromatune", "torch", "diffusers", "transformers", "accelerate", "peft", "numpy")
STOCK_CLASS = "StableDiffusionInstructPix2PixPipeline"
NOT_RECORDED = "not recorded"
LICENSE = "Same as base and data"

CARD = """---
{front}
---
# {name}

{what} Made by fine-tuning `{base}` with ChromaTune: preset `{preset}`, {steps}, seed {seed}.

## Use

With ChromaTune, which keeps the photo's own luminance at full size:

```bash
chromatune colorize photo.jpg --model FOLDER
```

```python
from chromatune import Colorizer

Colorizer.load("FOLDER").colorize("photo.jpg").save("color.png")
```

With the stock pipeline, which gives the raw result at the model's own size:

```python
{stock}
image = pipeline("{prompt}", image=photo{sampling}).images[0]
```

`FOLDER` is where this model is, or its name on the hub.

## Intended use and limits

For giving black-and-white photographs plausible colors. The colors are invented: a colorized photo is no evidence of
what was there, and should be shown as colorized. Expect what the training photos have little of to come out worst, and
what is common in them (skin above all) to spread to what is rare.

## Data

{data}

`training_data.json` lists the photos that this model and those it comes from were trained on; `chromatune evaluate`
warns where it measures on them.

## Validation

{validation}

## Settings

{settings}

## Versions

{versions}

## License

{license}: the terms of `{base}` and of the training photos hold for these weights.
"""


def model_folder(out: Path) -> Path:
    """Return the folder of the model that a run in `out` makes."""
    return out / "model"


def save_result(
    result: TrainResult, source: str, preset: str, *, name: str | None = None, export_onnx: bool = False
) -> Path:
    """Write the model with its card to `out/model`, the folder that is returned; and `report.html` and `curves.png`.

    Args:
        result: what `train` returned.
        source: the photos, as the user named them.
        preset: the preset the settings came from.
        name: of the run, for report, card and menus; by default that of its folder.
        export_onnx: add the graphs that run it without torch; not for a LoRA.

    Raises:
        ModelError: the folder cannot be written.
    """
    settings, pipeline, folder = result.settings, result.pipeline, model_folder(result.out)
    name = name or result.out.resolve().name
    # Whatever the base has: the trained weights have not been measured with another
    defaults = defaults_of(pipeline.info) | {"vivid": 0.0, "label": name}
    card = model_card(_facts(result, source, preset) | {"name": name})
    seen = (*result.seen, TrainingSet.of(_set_name(source), result.cache.seen))
    with quiet_libraries():
        if is_adapter(result):
            save_lora(pipeline.unet, folder, base=pipeline.info.name, card=card, defaults=defaults, seen=seen)
        else:
            if settings.parts == "lora":
                pipeline.unet.fuse_lora(safe_fusing=True)
                pipeline.unet.unload_lora()
            graphs = write_graphs if export_onnx else None
            save_pipeline(pipeline, folder, card=card, defaults=defaults, seen=seen, complete=graphs)
    base = _public_name(pipeline.info.name)
    title = f"{name}: {base} fine-tuned, preset {preset}, {count_of(result.steps, 'update')}"
    shown = settings.model_dump()
    write_run_page(result.out, title=title, settings=shown, best_step=result.best_step, name=name)
    return folder


def is_adapter(result: TrainResult) -> bool:
    """Return whether a result is stored as an adapter beside its base: others are merged into a whole model.

    The stock pipeline opens a LoRA of Stable Diffusion; LoKr it does not know, and SDXL's LoRAs are not opened here.
    """
    settings = result.settings
    return settings.parts == "lora" and settings.adapter == "lora" and result.pipeline.class_name != SDXL


def _facts(result: TrainResult, source: str, preset: str) -> dict[str, Any]:
    settings = result.settings
    rows = [row for row in read_metrics(result.out / METRICS_FILE) if row["kind"] == "validation"]
    figures = {row["step"]: {k: v for k, v in row.items() if k not in ("step", "kind")} for row in rows}
    skipped = {f"{reason}, skipped": len(keys) for reason, keys in result.cache.skipped.items() if keys}
    counts = {"train": result.cache.count, "validation": len(result.split.validation)} | skipped
    drawn = DEFAULT_SET if settings.prompts == AUTO else Path(settings.prompts).name
    instructions = "the photos' own" if result.own_prompts else drawn
    data = {"source": _set_name(source), "instructions": instructions, "counts": counts}
    before = {"seen before": count_of(len(result.seen), "set")} if result.seen else {}
    return {
        "base_model": result.pipeline.info.name,
        "preset": preset,
        "kind": "lora" if is_adapter(result) else "pipeline",
        "class": result.pipeline.class_name,
        "prompt": result.pipeline.info.prompt,
        "sampling": {
            "num_inference_steps": result.pipeline.info.steps,
            "guidance_scale": result.pipeline.info.guidance_scale,
            "image_guidance_scale": result.pipeline.info.image_guidance_scale,
        },
        "steps": result.steps,
        "seed": settings.seed,
        "settings": settings.model_dump(exclude={"description"}) | {"best_step": result.best_step},
        "versions": installed_versions(PACKAGES),
        "data": data | {"split_digest": result.split.digest} | before,
        "validation": {"before": figures.get(0, {}), "after": figures.get(result.best_step, {})},
    }


def _set_name(source: str) -> str:
    return Path(source).name or source


def model_card(info: Mapping[str, Any]) -> str:
    """Return the model card in Markdown, with the hub's YAML front matter.

    Args:
        info: facts of the run; each may be missing, and is then omitted or given as not recorded:

            - `name` (str), `base_model` (str), `preset` (str), `kind` ("pipeline" or "lora"), `prompt` (str), `class`
              (str, of diffusers);
            - `sampling` (mapping): what the stock pipeline is called with, such as `num_inference_steps`;
            - `steps` (int, updates of the weights), `seed` (int), `license` (str, by default that of base and data);
            - `settings` (mapping, may be nested), `versions` (mapping of package to version);
            - `data` (mapping): `source` (str), `counts` (mapping such as train, validation), `split_digest` (str),
              and anything else worth a line;
            - `validation` (mapping): `before` and `after`, each a mapping of metric to figure.
    """
    base = str(info.get("base_model") or NOT_RECORDED)
    shown = _public_name(base)
    lora = info.get("kind") == "lora"
    return CARD.format(
        front=_front_matter(base, lora),
        name=_line(info.get("name") or "Fine-tuned InstructPix2Pix"),
        what="LoRA weights that make an InstructPix2Pix model colorize." if lora else "An InstructPix2Pix pipeline.",
        base=shown,
        steps=count_of(info["steps"], "step") if "steps" in info else f"steps {NOT_RECORDED}",
        **{key: _line(info.get(key, NOT_RECORDED)) for key in ("preset", "seed")},
        prompt=_line(info.get("prompt") or "colorize the photo").replace('"', "'"),
        stock=_stock_code(shown, lora, str(info.get("class") or STOCK_CLASS)),
        sampling="".join(f", {name}={value!r}" for name, value in (info.get("sampling") or {}).items()),
        data=_data_table(info.get("data") or {}),
        validation=_validation_table(info.get("validation") or {}),
        settings=_table(("setting", "value"), flatten(info.get("settings") or {})),
        versions=", ".join(f"{name} {version}" for name, version in (info.get("versions") or {}).items())
        or NOT_RECORDED.capitalize(),
        license=_line(info.get("license") or LICENSE),
    )


def _front_matter(base: str, lora: bool) -> str:
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        # The hub refuses a card whose base is not one of its own models.
        base_model=base if HUB_NAME.fullmatch(base) and not Path(base).is_dir() else None,
        library_name="diffusers",
        pipeline_tag="image-to-image",
        license="other",
        license_name="same-as-base-and-data",
        tags=["colorization", "instruct-pix2pix", "chromatune", *(["lora"] if lora else [])],
    )
    return str(data.to_yaml()).strip()


def _stock_code(base: str, lora: bool, class_name: str) -> str:
    imports = f"from diffusers import {class_name}\n"
    source = f'"{base}"' if lora else '"FOLDER"'
    if lora and is_embedded(base):
        imports = f"from chromatune.pipeline import MODELS_DIR\n{imports}"
        source = f"MODELS_DIR / {source}"
    load = f"{imports}\npipeline = {class_name}.from_pretrained({source})"
    return f'{load}\npipeline.load_lora_weights("FOLDER")' if lora else load


def _data_table(data: Mapping[str, Any]) -> str:
    rows = [("source", data.get("source", NOT_RECORDED)), *flatten(data.get("counts") or {}, "photos: ")]
    rows.append(("split digest", data.get("split_digest", NOT_RECORDED)))
    rows += flatten({key: value for key, value in data.items() if key not in ("source", "counts", "split_digest")})
    return _table(("data", "value"), rows)


def _validation_table(validation: Mapping[str, Any]) -> str:
    before, after = (validation.get(when) or {} for when in ("before", "after"))
    names = list(dict.fromkeys([*before, *after]))
    if not names:
        return "Not measured."
    rows = [(name, before.get(name, ""), after.get(name, "")) for name in names]
    lead = "On photos held out from training, before fine-tuning and after:\n\n"
    return lead + _table(("metric", "before", "after"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return NOT_RECORDED.capitalize() + "."
    return markdown_table([head, *([format_value(cell) for cell in row] for row in rows)]).strip()


def _public_name(base: str) -> str:
    """Return the base as others may know it: a folder's last part, since a card goes where the folder does not."""
    path = Path(base).expanduser()
    return path.resolve().name if path.is_absolute() or path.is_dir() and base.startswith((".", "~")) else _line(base)


def _line(value: object) -> str:
    """Return the value in one line."""
    return " ".join(str(value).split())
