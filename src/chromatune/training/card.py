"""The model card of a fine-tuned model: what it was made from, how, how well it does, how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chromatune.errors import count_of
from chromatune.pipeline import HUB_NAME, is_embedded
from chromatune.reports import markdown_table

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
image = pipeline("{prompt}", image=photo).images[0]
```

`FOLDER` is where this model is, or its name on the hub.

## Intended use and limits

For giving black-and-white photographs plausible colors. The colors are invented: a colorized photo is no evidence of
what was there, and should be shown as colorized. Expect what the training photos have little of to come out worst, and
what is common in them (skin above all) to spread to what is rare.

## Data

{data}

## Validation

{validation}

## Settings

{settings}

## Versions

{versions}

## License

{license}: the terms of `{base}` and of the training photos hold for these weights.
"""


def model_card(info: Mapping[str, Any]) -> str:
    """The model card in Markdown, with the hub's YAML front matter.

    Args:
        info: what is known; each of these may be missing, and is then left out or given as not recorded:

            - `name` (str), `base_model` (str), `preset` (str), `kind` ("pipeline" or "lora"), `prompt` (str);
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
        stock=_stock_code(shown, lora),
        data=_data_table(info.get("data") or {}),
        validation=_validation_table(info.get("validation") or {}),
        settings=_table(("setting", "value"), flatten(info.get("settings") or {})),
        versions=", ".join(f"{name} {version}" for name, version in (info.get("versions") or {}).items())
        or NOT_RECORDED.capitalize(),
        license=_line(info.get("license") or LICENSE),
    )


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Rows of a possibly nested mapping, with dotted names: `{"data": {"seed": 1}}` gives `("data.seed", 1)`."""
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        rows += flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return rows


def format_value(value: object) -> str:
    """A setting or figure as text: at most 5 significant digits, lists with commas, `none` for None."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(format_value(item) for item in value)
    return str(value)


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


def _stock_code(base: str, lora: bool) -> str:
    imports = "from diffusers import StableDiffusionInstructPix2PixPipeline\n"
    source = f'"{base}"' if lora else '"FOLDER"'
    if lora and is_embedded(base):
        imports = f"from chromatune.pipeline import MODELS_DIR\n{imports}"
        source = f"MODELS_DIR / {source}"
    load = f"{imports}\npipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained({source})"
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
    """The base as others may know it: of a folder, its last part, since a card goes where the folder does not."""
    path = Path(base).expanduser()
    return path.resolve().name if path.is_absolute() or path.is_dir() and base.startswith((".", "~")) else _line(base)


def _line(value: object) -> str:
    """The value in one line."""
    return " ".join(str(value).split())
