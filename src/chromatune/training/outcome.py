"""What a finished run leaves on disk: the model folder, its card, and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chromatune.data import AUTO, DEFAULT_SET
from chromatune.errors import count_of
from chromatune.pipeline import defaults_of, quiet_libraries, save_lora, save_pipeline, write_graphs
from chromatune.reports import installed_versions
from chromatune.training.card import model_card
from chromatune.training.loop import Trained
from chromatune.training.metrics_log import METRICS_FILE, read_metrics
from chromatune.training.run_page import write_run_page

PACKAGES = ("chromatune", "torch", "diffusers", "transformers", "accelerate", "peft", "numpy")


def model_folder(out: Path) -> Path:
    """Where a run in `out` puts its model."""
    return out / "model"


def write_outcome(trained: Trained, source: str, preset: str, *, export_onnx: bool = False) -> Path:
    """The model folder (`out/model`) with its card; `out/report.html` and `out/curves.png` are written too.

    Args:
        trained: what `train` returned.
        source: the photos, as the user named them.
        preset: the preset the settings came from.
        export_onnx: add the graphs that run it without torch; not for a LoRA.

    Raises:
        ModelError: the folder cannot be written.
    """
    settings, info, folder = trained.settings, trained.info, model_folder(trained.out)
    # Whatever the base has: the trained weights have not been measured with another
    defaults = defaults_of(info) | {"vivid": 0.0}
    card = model_card(_facts(trained, source, preset))
    with quiet_libraries():
        if settings.parts == "lora":
            save_lora(trained.pipeline.unet, folder, base=info.name, card=card, defaults=defaults)
        else:
            graphs = write_graphs if export_onnx else None
            save_pipeline(trained.pipeline, folder, card=card, defaults=defaults, complete=graphs)
    title = f"{info.name}, preset {preset}, {count_of(trained.steps, 'update')}"
    write_run_page(trained.out, title=title, settings=settings.model_dump(), best_step=trained.best_step)
    return folder


def _facts(trained: Trained, source: str, preset: str) -> dict[str, Any]:
    settings = trained.settings
    rows = [row for row in read_metrics(trained.out / METRICS_FILE) if row["kind"] == "validation"]
    figures = {row["step"]: {k: v for k, v in row.items() if k not in ("step", "kind")} for row in rows}
    left_out = {f"{reason}, left out": len(keys) for reason, keys in trained.cache.left_out.items() if keys}
    counts = {"train": len(trained.cache.items), "validation": len(trained.split.validation)} | left_out
    drawn = DEFAULT_SET if settings.prompts == AUTO else Path(settings.prompts).name
    instructions = "the photos' own" if trained.own_prompts else drawn
    data = {"source": Path(source).name or source, "instructions": instructions, "counts": counts}
    return {
        "name": trained.out.resolve().name,
        "base_model": trained.info.name,
        "preset": preset,
        "kind": "lora" if settings.parts == "lora" else "pipeline",
        "prompt": trained.info.prompt,
        "steps": trained.steps,
        "seed": settings.seed,
        "settings": settings.model_dump(exclude={"description"}) | {"best_step": trained.best_step},
        "versions": installed_versions(PACKAGES),
        "data": data | {"split_digest": trained.split.digest},
        "validation": {"before": figures.get(0, {}), "after": figures.get(trained.best_step, {})},
    }
