"""How fast photos become latents, with two versions of the package in turn: photos per second of each, and the ratio.

    python benchmarks/encode_photos.py FOLDER --photos 2000 --against OTHER/src

Blocks of the photos are encoded by one version, then by the other, in an order that is reversed after each block, so
that other work on the machine meets both. Each block is a process of its own, and a cache of its own; the time is that
of the encoding alone, without imports and the model's loading.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

CHILD = """
import json, sys, tempfile, time
from pathlib import Path
import torch
from chromatune.data import open_source
from chromatune.training import load_initial_model, resolve_settings
try:
    from chromatune.training.encoding import open_cache
except ModuleNotFoundError:  # before there was such a file
    from chromatune.training.dataset import open_cache
folder, model, first, last, size_px = json.loads(sys.argv[1])
items = open_source(folder).items[first:last]
pipeline = load_initial_model(model).pipeline
vae = pipeline.vae.requires_grad_(False).to(memory_format=torch.channels_last)
size_px = size_px or pipeline.info.size_px
with tempfile.TemporaryDirectory() as work:
    began = time.perf_counter(), time.process_time()
    open_cache(Path(work), items, vae, size_px, resolve_settings("quick"))
    print(json.dumps([time.perf_counter() - began[0], time.process_time() - began[1]]))
"""


def seconds_of(source: Path, request: list[object]) -> tuple[float, float]:
    """Seconds for some photos, with the package whose `src` is given; and those of all cores together."""
    environment = os.environ | {"PYTHONPATH": str(source)}
    command = [sys.executable, "-W", "ignore", "-c", CHILD, json.dumps(request)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    wall, cores = json.loads(done.stdout.splitlines()[-1])
    return wall, cores


def main() -> None:
    """Parses the command line, encodes, prints the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="color photos")
    parser.add_argument("--against", type=Path, required=True, help="the other version's src")
    parser.add_argument("--this", type=Path, default=Path(__file__).resolve().parents[1] / "src", help="this one's")
    parser.add_argument("--model", default="mini-base")
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--block", type=int, default=250, help="photos of one process")
    parser.add_argument("--size", type=int, default=None, help="pixels; by default the model's")
    arguments = parser.parse_args()
    versions = {"this": arguments.this, "other": arguments.against}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in versions}
    for number, first in enumerate(range(0, arguments.photos, arguments.block)):
        last = min(first + arguments.block, arguments.photos)
        request = [arguments.folder, arguments.model, first, last, arguments.size]
        for name in list(versions)[:: 1 if number % 2 == 0 else -1]:
            times[name].append(seconds_of(versions[name], request))
        rates = {name: round((last - first) / seconds[-1][0], 2) for name, seconds in times.items()}
        this, other = (np.array(times[name]).sum(axis=0) for name in versions)
        print(
            f"photos {first} to {last}, photos/s: {rates}; so far {last / this[0]:.2f} and {last / other[0]:.2f}, "
            f"ratio {other[0] / this[0]:.2f}; seconds of all cores together, ratio {other[1] / this[1]:.2f}",
            flush=True,
        )
    ratios = np.array(times["other"])[:, 0] / np.array(times["this"])[:, 0]
    print(f"ratio of single blocks: {ratios.min():.2f} to {ratios.max():.2f}, median {np.median(ratios):.2f}")


if __name__ == "__main__":
    main()
