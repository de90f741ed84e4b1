"""The full architecture on a CPU: Stable Diffusion 1.5's configuration fine-tuned two steps, saved, opened again.

    python benchmarks/full_size.py FOLDER [--size 256] [--steps 2]

Weights are random (860 M in the U-Net): this shows that memory suffices and that the result opens, not that it is good.
Prints the peak of resident memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Makes the model, trains in a process of its own, opens the result with the stock pipeline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="color photos")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        # In a process of its own, so that its memory is not counted.
        make = "from pathlib import Path; from finetune_speed import make_model; "
        make += f"make_model(Path({str(work / 'sd')!r}), True)"
        subprocess.run([sys.executable, "-c", make], check=True, cwd=Path(__file__).parent)
        settings = {"size_px": arguments.size, "batch": 1, "photos": 4, "validation": 0.5, "cache_variants": 1}
        settings |= {"validation_photos": 1, "validation_steps": 1, "lab_weight": 0, "gradient_checkpointing": "true"}
        settings |= {"validate_every": arguments.steps, "checkpoint_every": arguments.steps}
        command = [sys.executable, "-m", "chromatune", "finetune", arguments.folder, "--model", str(work / "sd")]
        command += ["--out", str(work / "run"), "--max-steps", str(arguments.steps), "-q"]
        command += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        start = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        print(f"trained {arguments.steps} steps in {seconds:.0f} s, start to saved model; peak memory {peak:.1f} GiB")
        from diffusers import StableDiffusionInstructPix2PixPipeline

        pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(work / "run" / "model", safety_checker=None)
        millions = sum(parameter.numel() for parameter in pipeline.unet.parameters()) / 1e6
        channels = pipeline.unet.config.in_channels
        print(f"the stock pipeline opens it: U-Net of {millions:.0f} M parameters, {channels} channels")


if __name__ == "__main__":
    main()
