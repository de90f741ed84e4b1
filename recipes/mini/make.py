"""Makes the embedded pair, `mini-base` and `mini`, from a folder of photos.

    python recipes/mini/make.py PHOTOS --work .work/mini [--stage pack|vae|base|colorizer|export] [--settings FILE]
    torchrun --nproc-per-node 2 recipes/mini/make.py …      (several processes share each batch)
    python recipes/mini/make.py PHOTOS --work .work/mini --from-model mini    (train a finished pair's U-Net on)

    python recipes/mini/make.py pack PHOTOS --out packs --shards 3 --mib 48    (photos that travel, with the model)
    python recipes/mini/make.py packs --work .work/gpu --minutes 8 --batch 512    (a training that ends in time)

Without --stage all stages run in order. Each continues from its checkpoint in the work folder, and one that is
finished is only loaded, so the same command can be stopped and given again at any time.
"""

from __future__ import annotations

import time

STARTED = time.monotonic()  # before the imports, which take seconds of a limited time

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import sys  # noqa: E402
import tomllib  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

STAGES = ("pack", "vae", "base", "colorizer", "export")
SETTINGS = Path(__file__).with_name("settings.toml")
PREVIEW_EACH = 24  # validation photos of a kind, at checkpoints
SAVE_SECONDS = 60.0  # between checkpoints of a training with a time limit
RESULT = "colorizer.safetensors"


def stage_settings(settings: dict[str, Any], stage: str) -> dict[str, Any]:
    """The stage's table, with a seed of its own."""
    return {"seed": settings["seed"] + sum(map(ord, stage))} | settings[stage]


def read_settings(path: Path, plan: str | None) -> dict[str, Any]:
    """The settings with the changes of the table `[plans.PLAN]`; "fresh_unet" says whether these have a U-Net."""
    settings = tomllib.loads(path.read_text())
    plans = settings.pop("plans", {})
    if plan is not None and plan not in plans:
        raise SystemExit(f"--plan {plan}: {path} has {', '.join(plans) or 'no plans'}")
    changes = plans[plan] if plan is not None else {}
    changes = _merged(plans.get(changes.pop("like", None), {}), changes)
    return _merged(settings, changes) | {"fresh_unet": "unet" in changes}


def _merged(table: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(table)
    for key, value in changes.items():
        merged[key] = _merged(table.get(key, {}), value) if isinstance(value, dict) else value
    return merged


def main() -> None:
    """Parses the command line and runs the stages."""
    if sys.argv[1:2] == ["pack"]:
        pack_for_travel(sys.argv[2:])
        return
    arguments = parse(sys.argv[1:])
    settings = read_settings(arguments.settings, arguments.plan)
    if arguments.batch is not None:
        settings["colorizer"]["batch"] = arguments.batch
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.stage is not None:
        stages: tuple[str, ...] = (arguments.stage,)
    elif arguments.minutes is not None:
        stages = ("pack", "colorizer")  # what takes part in the time; export has its own
    else:
        stages = STAGES
    for stage in stages:
        run_stage(stage, arguments, settings)


def parse(words: list[str]) -> argparse.Namespace:
    """The arguments of a training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "photos", type=Path, help="folder of color photos, searched through all its subfolders, or shards"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for the pack, checkpoints and previews")
    parser.add_argument("--out", type=Path, default=Path("src/chromatune/models"), help="where the two models go")
    parser.add_argument("--stage", choices=STAGES, help="this stage alone (those before it must be finished)")
    parser.add_argument("--settings", type=Path, default=SETTINGS)
    parser.add_argument("--plan", help="with the changes of the settings' table [plans.PLAN]")
    parser.add_argument(
        "--from-model",
        help="go on from this model (as `chromatune colorize --model` takes it; shards bring their own): its "
        "autoencoder, text encoder and U-Net instead of stages vae and base; mini-base stays as it is",
    )
    parser.add_argument(
        "--pretrained",
        type=Path,
        help="weights of EfficientNet-Lite0 for mini's photo encoder (see README.md); without, mini has "
        "--from-model's, or none",
    )
    parser.add_argument(
        "--weights", type=Path, help=f"start from a finished training's result/{RESULT}; with --stage export, export it"
    )
    parser.add_argument(
        "--minutes", type=float, help="end in time, loading and validation included, whatever the steps"
    )
    parser.add_argument("--batch", type=int, help="pairs a step of the colorizer, in place of the settings'")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU where there is one")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help="default: bfloat16 autocast on a GPU")
    parser.add_argument(
        "--loaders", type=int, help="processes that make pairs; default: one a core with --minutes, else 0"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the U-Net; its start takes longer")
    arguments = parser.parse_args(words)
    for option in ("pretrained", "weights"):
        path = getattr(arguments, option)
        if path is not None and not path.is_file():
            parser.error(f"--{option}: there is no file {path}; README.md says where it comes from")
    if arguments.minutes is not None and not arguments.minutes > 0:
        parser.error(f"--minutes {arguments.minutes:g}: give a number above 0")
    for option, least in (("batch", 1), ("loaders", 0)):
        if (value := getattr(arguments, option)) is not None and value < least:
            parser.error(f"--{option} {value}: give {least} or more")
    if arguments.minutes is not None and not (arguments.from_model or has_shards(arguments.photos)):
        parser.error("--minutes trains a finished pair on: give --from-model, such as mini, or a folder of shards")
    return arguments


def has_shards(folder: Path) -> bool:
    """Whether the folder holds what `make.py pack` wrote."""
    return any(folder.glob("shard-*.zip"))


def pack_for_travel(words: list[str]) -> None:
    """`make.py pack`: photos and a model as a few files of bounded size."""
    from shards import pack_shards

    from chromatune.pipeline import find_pipeline

    parser = argparse.ArgumentParser(prog="make.py pack", description=pack_for_travel.__doc__)
    parser.add_argument("photos", type=Path, help="folder of color photos, searched through all its subfolders")
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards; what is there is replaced")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--mib", type=float, default=48, help="the most that a shard may have; the quality follows")
    parser.add_argument("--from-model", default="mini", help="the model to start from, which travels along")
    parser.add_argument("--settings", type=Path, default=SETTINGS)
    parser.add_argument("--plan", default="gpu", help="whose weights decide which sets travel")
    arguments = parser.parse_args(words)
    if arguments.shards < 1 or arguments.mib <= 0:
        parser.error("--shards and --mib: give numbers above 0")
    settings = read_settings(arguments.settings, arguments.plan)["pack"]
    model = find_pipeline(arguments.from_model).pipeline_folder
    facts = pack_shards(arguments.photos, arguments.out, settings, arguments.shards, arguments.mib, model)
    print(f"{json.dumps(facts)}\n{time.monotonic() - STARTED:.0f} s")


def choose_machine(arguments: argparse.Namespace) -> Any:
    """The device, precision, loaders and time limit that the arguments ask for."""
    import loop
    import torch

    device = torch.device(arguments.device) if arguments.device else loop.default_device()
    cuda = device.type == "cuda"
    if cuda:
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    limited = arguments.minutes is not None
    spare = max(1, (os.cpu_count() or 1) - 1)  # one is left for the training's own thread
    return loop.Machine(
        device=device,
        precision=getattr(torch, arguments.precision or ("bfloat16" if cuda else "float32")),
        loaders=arguments.loaders if arguments.loaders is not None else spare if limited else 0,
        compiled=arguments.compile,
        save_seconds=SAVE_SECONDS if limited else None,
        limit=loop.TimeLimit(arguments.minutes, STARTED) if limited else None,
    )


def run_stage(stage: str, arguments: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Runs one stage; what it needs from earlier ones is loaded from the work folder."""
    import loop
    import photos

    loop.start_ranks()
    work = arguments.work
    if stage == "pack":
        if loop.rank() == 0 and not (work / "pack" / "summary.json").exists():
            print(make_pack(arguments.photos, work / "pack", settings["pack"]), f"{time.monotonic() - STARTED:.0f} s")
        loop.wait_for_all()
        return
    train_photos = photos.load_pack(work / "pack", "train", settings["pack"]["weights"])
    validation = photos.load_pack(work / "pack", "validation")
    model = arguments.from_model or (str(work / "pack" / "model") if has_shards(arguments.photos) else None)
    if model:
        vae, tokenizer, base, photo_encoder = open_model(model)
    else:
        photo_encoder = None
        from autoencoder import train_vae

        vae = train_vae(train_photos, validation, stage_settings(settings, "vae"), settings["size_px"], work)
        if stage == "vae":
            return
        from editor import train_base

        tokenizer, base = train_base(vae, train_photos, validation, stage_settings(settings, "base"), settings, work)
    if stage == "base":
        return
    parts = (vae, tokenizer, base, photo_encoder)
    painter = run_colorizer(stage, arguments, settings, parts, train_photos, validation)
    if stage == "colorizer":
        return
    from colorize import Painter
    from export import export

    from chromatune.pipeline import read_training_data

    if loop.rank() == 0:
        pair = {"mini": painter} if model else {"mini-base": Painter(base.unet, None), "mini": painter}
        seen = read_training_data(model) if model else ()
        export(vae, tokenizer, base.text_encoder, pair, settings, arguments.photos, work, arguments.out, seen)


def make_pack(folder: Path, out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The pack of a folder of photos, or of shards."""
    import photos
    import shards

    return shards.read_shards(folder, out) if has_shards(folder) else photos.pack(folder, out, settings)


def run_colorizer(
    stage: str, arguments: argparse.Namespace, settings: dict[str, Any], parts: tuple[Any, ...], train_photos: Any,
    validation: Any,
) -> Any:  # fmt: skip
    """The stage that makes `mini`: trained, or read from --weights where it is only to be exported."""
    import loop
    from colorize import Painter, read_weights, train_colorizer, with_fresh_unet
    from editor import Editor
    from validation import Validation, compare, log_means, measure_before, write_sheet

    from chromatune import prompts
    from chromatune.pipeline import TextEmbedder

    vae, tokenizer, base, photo_encoder = parts
    machine, work = choose_machine(arguments), arguments.work
    shipped = Painter(base.unet, photo_encoder).to(machine.device).eval()
    unet = base.unet
    if settings["fresh_unet"]:
        unet, photo_encoder = with_fresh_unet(settings, base, photo_encoder)
    if arguments.pretrained is not None:
        from pretrained import pretrained_encoder

        photo_encoder = pretrained_encoder(arguments.pretrained, unet)
    start = Painter(unet, photo_encoder)
    if arguments.weights is not None:
        read_weights(start, arguments.weights)
        if stage == "export":
            return start.eval()
    table = stage_settings(settings, "colorizer")
    machine.freeze(vae, base.text_encoder)
    asked = TextEmbedder(tokenizer, base.text_encoder)(prompts.DEFAULT_PROMPT)
    measured = Validation(validation, settings["kinds"], vae, asked, settings["size_px"])

    def preview(step: int, painter: Painter) -> None:
        scores = measured.measure(painter, count=PREVIEW_EACH * len(settings["kinds"]))
        log_means(work / "colorizer-validation.jsonl", step, scores)
        write_sheet(work / "colorizer.jpg", measured.samples, [scores.results])

    limited = machine.limit is not None
    before = measure_before(measured, shipped, machine.limit) if limited else None
    if before is not None:
        so_far = f"{time.monotonic() - STARTED:.0f} s so far"
        print(f"{len(before.kinds)} validation photos in {before.seconds:.1f} s; {so_far}", flush=True)
        if machine.limit.left() <= 0:
            raise SystemExit(f"the time was up before the first step ({so_far}); give more --minutes")
    editor = Editor(start.unet, base.text_encoder)
    painter = train_colorizer(
        vae, tokenizer, editor, train_photos, table, settings["size_px"], work, machine,
        None if limited else preview, start.photo_encoder,
    )  # fmt: skip
    if before is not None and loop.rank() == 0:
        result = work / "result"
        result.mkdir(exist_ok=True)
        painter.save(result / RESULT)
        print(compare(measured, before, painter, result))
        shutil.copy(work / "colorizer.jsonl", result)
        (result / "settings.json").write_text(json.dumps({"plan": arguments.plan, **table}, indent=1))
        print(f"{result}: weights, table and sheet; {time.monotonic() - STARTED:.0f} s in all")
    return painter


def open_model(name: str) -> tuple[Any, Any, Any, Any]:
    """Autoencoder, tokenizer, U-Net with text encoder, and photo encoder or None, of a finished model; float32."""
    from editor import Editor

    from chromatune.pipeline import load_pipeline

    pipeline = load_pipeline(name, device="cpu")  # on a GPU it would be float16, which is too coarse to train
    return pipeline.vae, pipeline.tokenizer, Editor(pipeline.unet, pipeline.text_encoder), pipeline.photo_encoder


if __name__ == "__main__":
    from chromatune.errors import ChromaTuneError

    try:
        main()
    except ChromaTuneError as error:
        raise SystemExit(str(error)) from None
