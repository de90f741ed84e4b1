"""Memory of training from a stream, by the number of photos that have passed: photos are drawn as they are read.

    python benchmarks/stream_memory.py --photos 1000000
    python benchmarks/stream_memory.py --photos 20000 --batches

The first reads, shares out and shuffles photos as a training does (`StreamReader`) and opens none of them; with
--batches each is opened, cropped, made gray and put into a batch (`StreamSampler`), all but the training itself.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import psutil

from chromatune.data import PhotoItem, Stream, StreamRecord, read_rgb
from chromatune.training import resolve_settings
from chromatune.training.initial_model import load_initial_model
from chromatune.training.settings import TrainSettings
from chromatune.training.streaming import StreamedPhotos, StreamReader, StreamSampler

SHARD_PHOTOS = 10_000
DATA_BYTES = 4_000  # of a photo that is not opened


def draw_records(decodable: bool, photos: int, shard: int) -> Iterator[StreamRecord]:
    """Photos of a shard: small JPEGs, or as many bytes of anything."""
    for index in range(min(SHARD_PHOTOS, photos - shard * SHARD_PHOTOS)):
        key = f"{shard}/{index}"
        rng = np.random.default_rng((shard, index))
        if decodable:
            colors = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            data = cv2.imencode(".jpg", cv2.resize(colors, (64, 48), interpolation=cv2.INTER_CUBIC))[1].tobytes()
        else:
            data = rng.bytes(DATA_BYTES)
        yield StreamRecord(PhotoItem(key, None, partial(read_rgb, data, key)), f"color photo {key}")


def photos_read(stream: Stream, settings: TrainSettings) -> Iterator[int]:
    """Number of photos that have passed, after each block."""
    passed = 0
    for block in StreamReader(stream, settings).blocks():
        passed += len(block.records)
        yield passed


def photos_in_batches(stream: Stream, settings: TrainSettings) -> Iterator[int]:
    """Number of photos that have passed, after each batch."""
    pipeline = load_initial_model("mini-base").pipeline
    with tempfile.TemporaryDirectory() as folder:
        sampler = StreamSampler(
            stream, {"": "color"}, pipeline.tokenizer, settings, size_px=64, shapes=((64, 64),), vae=pipeline.vae,
            vae_factor=pipeline.vae_factor, num_train_timesteps=1000, photos=StreamedPhotos(Path(folder)),
        )  # fmt: skip
        for number in range(10**9):
            sampler.batch(number)
            yield (number + 1) * settings.batch


def main() -> None:
    """Parses the command line, reads, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1_000_000)
    parser.add_argument("--batches", action="store_true")
    arguments = parser.parse_args()
    settings = resolve_settings("quick", None, ["validation=0.001"])
    shards = -(-arguments.photos // SHARD_PHOTOS)
    records = partial(draw_records, arguments.batches, arguments.photos)
    stream = Stream("drawn", "stream", shards, records, True, "drawn")
    passing = (photos_in_batches if arguments.batches else photos_read)(stream, settings)
    process, began, peak, shown = psutil.Process(), time.perf_counter(), 0, 1000.0
    print("photos, seconds, memory now (MiB), most so far (MiB)")
    for passed in passing:
        memory = process.memory_info().rss
        peak = max(peak, memory)
        if passed >= shown or passed >= 0.999 * arguments.photos * (1 - settings.validation):
            print(f"{passed}, {time.perf_counter() - began:.0f}, {memory / 2**20:.0f}, {peak / 2**20:.0f}", flush=True)
            shown = max(shown * 10**0.5, passed + 1)
        if passed >= 0.999 * arguments.photos * (1 - settings.validation):
            break


if __name__ == "__main__":
    main()
