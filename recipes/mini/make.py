"""Makes the embedded pair, `mini-base` and `mini`, from a folder of photos.

    python recipes/mini/make.py PHOTOS --work .work/mini [--stage pack|vae|base|colorizer|export] [--settings FILE]
    torchrun --nproc-per-node 2 recipes/mini/make.py …      (several processes share each batch)
    python recipes/mini/make.py PHOTOS --work .work/mini --from-model mini    (train a finished pair's U-Net on)

Without --stage all stages run in order. Each continues from its checkpoint in the work folder, and one that is
finished is only loaded, so the same command can be stopped and given again at any time.
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Any

STAGES = ("pack", "vae", "base", "colorizer", "export")


def stage_settings(settings: dict[str, Any], stage: str) -> dict[str, Any]:
    """The stage's table, with a seed of its own."""
    return {"seed": settings["seed"] + sum(map(ord, stage))} | settings[stage]


def main() -> None:
    """Parses the command line and runs the stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of color photos, searched through all its subfolders")
    parser.add_argument("--work", type=Path, required=True, help="folder for the pack, checkpoints and previews")
    parser.add_argument("--out", type=Path, default=Path("src/chromatune/models"), help="where the two models go")
    parser.add_argument("--stage", choices=STAGES, help="this stage alone (those before it must be finished)")
    parser.add_argument("--settings", type=Path, default=Path(__file__).with_name("settings.toml"))
    parser.add_argument(
        "--from-model",
        help="go on from this model (as `chromatune colorize --model` takes it): its "
        "autoencoder, text encoder and U-Net instead of stages vae and base; mini-base stays as it is",
    )
    parser.add_argument(
        "--pretrained",
        type=Path,
        help="weights of EfficientNet-Lite0 for mini's photo encoder (see README.md); without, mini has "
        "--from-model's, or none",
    )
    arguments = parser.parse_args()
    if arguments.pretrained is not None and not arguments.pretrained.is_file():
        parser.error(f"--pretrained: there is no file {arguments.pretrained}; README.md says where it comes from")
    settings = tomllib.loads(arguments.settings.read_text())
    arguments.work.mkdir(parents=True, exist_ok=True)
    for stage in STAGES if arguments.stage is None else (arguments.stage,):
        run_stage(stage, arguments, settings)


def run_stage(stage: str, arguments: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Runs one stage; what it needs from earlier ones is loaded from the work folder."""
    import loop
    import photos

    loop.start_ranks()
    work, size_px = arguments.work, settings["size_px"]
    if stage == "pack":
        if loop.rank() == 0 and not (work / "pack" / "summary.json").exists():
            print(photos.pack(arguments.photos, work / "pack", settings["pack"]))
        loop.wait_for_all()
        return
    train_photos = photos.load_pack(work / "pack", "train", settings["pack"]["weights"])
    validation = photos.load_pack(work / "pack", "validation")
    if arguments.from_model:
        vae, tokenizer, base, photo_encoder = open_model(arguments.from_model)
    else:
        photo_encoder = None
        from autoencoder import train_vae

        vae = train_vae(train_photos, validation, stage_settings(settings, "vae"), size_px, work)
        if stage == "vae":
            return
        from editor import train_base

        tokenizer, base = train_base(vae, train_photos, validation, stage_settings(settings, "base"), settings, work)
    if stage == "base":
        return
    from colorize import Painter, train_colorizer

    if arguments.pretrained is not None:
        from pretrained import pretrained_encoder

        photo_encoder = pretrained_encoder(arguments.pretrained, base.unet)
    colorizer = stage_settings(settings, "colorizer")
    kinds = settings["kinds"]
    painter = train_colorizer(
        vae, tokenizer, base, train_photos, validation, colorizer, kinds, size_px, work, photo_encoder
    )
    if stage == "colorizer":
        return
    from export import export

    if loop.rank() == 0:
        pair = {"mini": painter} if arguments.from_model else {"mini-base": Painter(base.unet, None), "mini": painter}
        export(vae, tokenizer, base.text_encoder, pair, settings, arguments.photos, work, arguments.out)


def open_model(name: str) -> tuple[Any, Any, Any, Any]:
    """Autoencoder, tokenizer, U-Net with text encoder, and photo encoder or None, of a finished model; float32."""
    from editor import Editor
    from loop import default_device

    from chromatune.pipeline import load_pipeline

    pipeline = load_pipeline(name, device="cpu")  # on a GPU it would be float16, which is too coarse to train
    for module in (pipeline.vae, pipeline.unet, pipeline.text_encoder, pipeline.photo_encoder):
        if module is not None:
            module.to(default_device())
    return pipeline.vae, pipeline.tokenizer, Editor(pipeline.unet, pipeline.text_encoder), pipeline.photo_encoder


if __name__ == "__main__":
    main()
