"""Training throughput beside diffusers' own script: same model, photos, size, batch, precision, machine, one run.

    python benchmarks/finetune_speed.py FOLDER --script train_instruct_pix2pix.py
    python benchmarks/finetune_speed.py FOLDER --script train_instruct_pix2pix.py --full --batch 1 --steps 1 3

The script is `examples/instruct_pix2pix/train_instruct_pix2pix.py` of huggingface/diffusers. Each side runs twice, in
turn, for a few updates and for more; the difference of the two times has no start-up, cache or saving in it. What the
latent cache costs once is reported apart. The script opens only `AutoencoderKL` and 4-channel U-Nets, so both sides
start from a folder with the U-Net of `mini` (or, with --full, of Stable Diffusion 1.5), its first layer narrowed, and a
small random `AutoencoderKL`. Where torchvision is missing, its four transforms are stood in for.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

TORCHVISION = """
import torch
class Compose:
    def __init__(self, steps): self.steps = steps
    def __call__(self, x):
        for step in self.steps: x = step(x)
        return x
class Lambda:
    def __init__(self, function): self.function = function
    def __call__(self, x): return self.function(x)
class CenterCrop:
    def __init__(self, size): self.size = size
    def __call__(self, x):
        top, left = (x.shape[-2] - self.size) // 2, (x.shape[-1] - self.size) // 2
        return x[..., top : top + self.size, left : left + self.size]
class RandomCrop(CenterCrop): pass  # the script has squashed the photo to the crop's size already
class RandomHorizontalFlip:
    def __call__(self, x): return x.flip(-1) if torch.rand(1) < 0.5 else x
"""


def make_model(
    folder: Path, full: bool, *, channels: int = 4, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> None:
    """A random pipeline with an AutoencoderKL: 4 input channels for both trainings, 8 for both samplers.

    Weights are drawn on `device`, where a GPU takes no time over them, and stored as `dtype`.
    """
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    from chromatune.pipeline import find_pipeline, load_parts, quiet_libraries

    torch.manual_seed(0)
    mini = load_parts(find_pipeline("mini-base"), torch.float32)
    parts = {key: mini[key] for key in ("tokenizer", "text_encoder", "scheduler")}
    widths, layers, groups = ((128, 256, 512, 512), 2, 32) if full else ((16, 32, 32, 32), 1, 8)
    with torch.device(device):
        if full:
            # Stable Diffusion 1.5: 860 M parameters; the text encoder is CLIP ViT-L/14's, with this vocabulary.
            unet = diffusers.UNet2DConditionModel(in_channels=channels, cross_attention_dim=768, attention_head_dim=8)
            text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
            known = mini["text_encoder"].config
            names = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
            ids = {name: getattr(known, name) for name in names}
            parts["text_encoder"] = CLIPTextModel(CLIPTextConfig(**text, **ids, max_position_embeddings=77))
        else:
            config = {key: value for key, value in mini["unet"].config.items() if not key.startswith("_")}
            unet = diffusers.UNet2DConditionModel(**(config | {"in_channels": channels}))
        vae = diffusers.AutoencoderKL(
            block_out_channels=widths,
            layers_per_block=layers,
            norm_num_groups=groups,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
        )
    parts |= {"unet": unet, "vae": vae}
    with quiet_libraries():  # to(dtype) warns of parts that would have to stay float32; there are none
        for part in ("unet", "vae", "text_encoder"):
            parts[part].to(dtype)
        pipeline = diffusers.StableDiffusionInstructPix2PixPipeline(
            safety_checker=None, feature_extractor=None, requires_safety_checker=False, **parts
        )
        pipeline.save_pretrained(folder)


def make_data(source: str, photos: Path, dataset: Path, limit: int, size_px: int) -> None:
    """The same photos as files for one side and as an imagefolder with prompts and gray halves for the other."""
    import cv2

    from chromatune.data import is_monochrome, open_source
    from chromatune.errors import PhotoError

    photos.mkdir()
    (dataset / "train").mkdir(parents=True)
    lines: list[str] = []
    for item in open_source(source).items:
        try:
            rgb = item.read()
        except PhotoError:
            continue
        if is_monochrome(rgb) or min(rgb.shape[:2]) < size_px // 2:
            continue
        name = f"{len(lines):05d}.png"
        gray = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2BGR)
        cv2.imwrite(str(photos / name), rgb[..., ::-1])
        cv2.imwrite(str(dataset / "train" / name), rgb[..., ::-1])
        cv2.imwrite(str(dataset / "train" / f"gray-{name}"), gray)
        row = {"edited_image_file_name": name, "original_image_file_name": f"gray-{name}"}
        lines.append(json.dumps(row | {"edit_prompt": "colorize the photo"}))
        if len(lines) == limit:
            break
    (dataset / "train" / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def prepare_script(script: Path, work: Path) -> Path:
    """The script to run: the given one, or a copy in `work` without torchvision where that is missing."""
    if importlib.util.find_spec("torchvision") is not None:
        return script
    # Under another name: transformers would take a module called torchvision for the real one.
    (work / "stand_in_transforms.py").write_text(TORCHVISION)
    text = script.read_text(encoding="utf-8")
    text = text.replace("from torchvision import transforms", "import stand_in_transforms as transforms")
    (work / "official.py").write_text(text, encoding="utf-8")
    return work / "official.py"  # it finds the module beside itself


def official_arguments(model: Path, dataset: Path, size_px: int, batch: int, precision: str) -> list[str]:
    """Arguments of diffusers' script, without the number of steps and the folder of the result."""
    words = ["--pretrained_model_name_or_path", str(model)]
    words += ["--dataset_name", str(dataset), "--original_image_column", "original_image"]
    words += ["--edited_image_column", "edited_image", "--edit_prompt_column", "edit_prompt", "--use_ema"]
    words += ["--resolution", str(size_px), "--train_batch_size", str(batch), "--random_flip", "--seed", "1"]
    words += ["--conditioning_dropout_prob", "0.05", "--checkpointing_steps", "100000", "--lr_warmup_steps", "0"]
    return [*words, "--mixed_precision", precision]


def our_arguments(model: Path, photos: Path, size_px: int, batch: int, precision: str) -> list[str]:
    """Arguments of `chromatune` for the same training, without the number of steps and the folder of the run."""
    settings = {"size_px": size_px, "batch": batch, "precision": precision, "lab_weight": 0, "seed": 1}
    settings |= {"validation_photos": 1, "validation_steps": 1, "validate_every": 10**6, "checkpoint_every": 10**6}
    words = ["finetune", str(photos), "--model", str(model), "-q"]
    return words + [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


def run(command: list[str], cache: Path) -> float:
    """Seconds of a command that must succeed."""
    environment = os.environ | {"CHROMATUNE_CACHE": str(cache), "HF_DATASETS_CACHE": str(cache / "datasets")}
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-3000:]}")
    return time.perf_counter() - start


def matrix_rate() -> float:
    """FLOP/s of a large float32 (on a GPU: bfloat16) matrix product here, best of five."""
    gpu = torch.cuda.is_available()
    side, dtype = (8192, torch.bfloat16) if gpu else (2048, torch.float32)
    x = torch.randn(side, side, dtype=dtype, device="cuda" if gpu else "cpu")
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        x @ x
        if gpu:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def flops_per_sample(model: Path, size_px: int) -> float:
    """FLOPs of one sample's forward and backward pass through the U-Net (three times the forward pass's)."""
    from torch.utils.flop_counter import FlopCounterMode

    from chromatune.training import load_initial_model

    unet = load_initial_model(str(model)).pipeline.unet
    latents = torch.zeros(1, 8, size_px // 8, size_px // 8)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        unet(latents, torch.tensor([500]), torch.zeros(1, 77, unet.config.cross_attention_dim))
    return 3.0 * counter.get_total_flops()


def main() -> None:
    """Parses the command line, runs both sides, prints the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="color photos")
    parser.add_argument("--script", type=Path, required=True, help="diffusers' train_instruct_pix2pix.py")
    parser.add_argument("--photos", type=int, default=64)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs=2, default=(1, 41), help="updates of the short and the long run")
    parser.add_argument("--precision", choices=("no", "fp16", "bf16"), default="no")
    parser.add_argument("--full", action="store_true", help="Stable Diffusion 1.5's size")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments, Path(folder))


def compare(arguments: argparse.Namespace, work: Path) -> None:
    """Runs both sides in turn and prints samples per second, their ratio, and the share of the matrix rate."""
    make_model(work / "model", arguments.full)
    make_data(arguments.folder, work / "photos", work / "dataset", arguments.photos, arguments.size)
    shared = (arguments.size, arguments.batch, arguments.precision)
    official = [sys.executable, str(prepare_script(arguments.script, work))]
    official += official_arguments(work / "model", work / "dataset", *shared)
    ours = [sys.executable, "-m", "chromatune", *our_arguments(work / "model", work / "photos", *shared)]
    seconds: dict[str, list[float]] = {"official": [], "chromatune": []}

    def timed(name: str, command: list[str]) -> float:
        """Seconds; what the command wrote is deleted, for at full size a run leaves tens of gigabytes."""
        took = run(command, work / "cache")
        print(f"{name}: {took:.1f} s", flush=True)
        shutil.rmtree(work / "out", ignore_errors=True)
        return took

    out = str(work / "out")
    first = timed("chromatune, 1 step, filling the latent cache", [*ours, "--max-steps", "1", "--out", out])
    for steps in arguments.steps:
        command = [*official, "--max_train_steps", str(steps), "--output_dir", out]
        seconds["official"].append(timed(f"official, {steps} steps", command))
        command = [*ours, "--max-steps", str(steps), "--out", out]
        seconds["chromatune"].append(timed(f"chromatune, {steps} steps", command))
    samples = (arguments.steps[1] - arguments.steps[0]) * arguments.batch
    rates = {name: samples / max(1e-9, long - short) for name, (short, long) in seconds.items()}
    share = rates["chromatune"] * flops_per_sample(work / "model", arguments.size) / matrix_rate()
    print(json.dumps({name: np.round(times, 1).tolist() for name, times in seconds.items()}))
    print(f"samples/s: official {rates['official']:.3f}, chromatune {rates['chromatune']:.3f}")
    print(f"ratio {rates['chromatune'] / rates['official']:.2f}")
    if arguments.steps[0] == 1:
        print(f"latent cache, once: {max(0.0, first - seconds['chromatune'][0]):.1f} s for {arguments.photos} photos")
    print(f"share of the matrix rate measured here: {share:.2f}")


if __name__ == "__main__":
    main()
