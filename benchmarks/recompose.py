"""Speed and memory of `chromatune.color.recompose`, beside JPEG encoding.

    python benchmarks/recompose.py                          # at 1, 12 and 48 MP
    python benchmarks/recompose.py --megapixels 12

Speed is given beside a JPEG encoding of the same picture in the same run, because machines differ and cores are shared.
`studies/upsampling.py` has the quality.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from chromatune import color


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 12, 48], metavar="MP")
    parser.add_argument("--repeats", type=int, default=5, help="the best of so many is shown (default 5)")
    arguments = parser.parse_args()
    print_speed(arguments.megapixels, arguments.repeats)


def print_speed(megapixels: list[float], repeats: int) -> None:
    """One row per size: recomposition from 128 px chroma, beside JPEG encoding of the result."""
    print(
        "| MP | wall s | CPU s | JPEG wall s | JPEG CPU s | wall over JPEG's | peak MB beyond the result | luma drift |"
    )
    print("| --- " * 8 + "|")
    for size in megapixels:
        gray, chroma = synthetic_photo(size)
        work = partial(color.recompose, gray, chroma)
        wall, cpu = best_seconds(work, repeats)
        rgb, peak_bytes = traced(work)
        jpeg_wall, jpeg_cpu = best_seconds(partial(cv2.imencode, ".jpg", rgb), repeats)
        cells = f"{size:g} | {wall:.3f} | {cpu:.3f} | {jpeg_wall:.3f} | {jpeg_cpu:.3f} | {wall / jpeg_wall:.1f}"
        print(f"| {cells} | {(peak_bytes - rgb.nbytes) / 1e6:.0f} | {color.luma_drift(rgb, gray)[0]:g} |", flush=True)


def synthetic_photo(megapixels: float) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) uint8 4:3 with edges, shading and grain, and (128, 171, 2) float32 chroma."""
    rng = np.random.default_rng(0)
    height_px = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width_px = round(height_px * 4 / 3)
    blobs = cv2.GaussianBlur(rng.uniform(0, 255, (120, 160)).astype(np.float32), (0, 0), 2) * 4 - 380
    gray = cv2.resize(blobs, (width_px, height_px), interpolation=cv2.INTER_CUBIC)
    grain = rng.standard_normal(gray.shape, np.float32)
    gray = np.rint(gray + 5 * grain).clip(0, 255).astype(np.uint8)
    chroma = cv2.GaussianBlur(rng.uniform(-0.5, 0.5, (128, 171, 2)).astype(np.float32), (0, 0), 3) * 4
    return gray, chroma


def best_seconds(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Least wall and CPU seconds of `work` over the repeats."""
    taken = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        taken.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(wall for wall, _ in taken), min(cpu for _, cpu in taken)


def traced(work: Callable[[], np.ndarray]) -> tuple[np.ndarray, int]:
    """The result of `work` and the peak of bytes held by arrays meanwhile (NumPy's, cv2's results included)."""
    tracemalloc.start()
    result = work()
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, peak_bytes


if __name__ == "__main__":
    main()
