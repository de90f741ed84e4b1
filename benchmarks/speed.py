"""Seconds of `mini` on this machine: a cold start, a photo once loaded, and the share of each part.

    python benchmarks/speed.py [--model mini] [--megapixels 1 12]

Absolute times depend on the machine; the ratio to encoding the same picture as JPEG, in the same run, travels better.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from skimage import data


def photo_of(megapixels: float) -> np.ndarray:
    """scikit-image's astronaut, enlarged, as (H, W) uint8 grey."""
    grey = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY)
    side = round((megapixels * 1e6) ** 0.5)
    return cv2.resize(grey, (side, side), interpolation=cv2.INTER_CUBIC)


def best_of(action: Callable[[], object], repeats: int = 5) -> float:
    """Shortest of several runs, in seconds: the least disturbed one."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--megapixels", nargs="+", type=float, default=[1, 12])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "grey.png", Path(folder) / "color.png"
        cv2.imwrite(str(source), photo_of(1))
        command = [sys.executable, "-m", "chromatune", "colorize", str(source), "-o", str(result)]
        start = time.perf_counter()
        subprocess.run([*command, "--model", arguments.model, "--device", "cpu"], check=True, capture_output=True)
        print(f"cold start to written file, 1 MP: {time.perf_counter() - start:.2f} s")

    from chromatune import Colorizer
    from chromatune.color import luma_drift

    colorizer = Colorizer.load(arguments.model, device="cpu")
    for megapixels in arguments.megapixels:
        grey = photo_of(megapixels)
        rgb = colorizer.colorize(grey).rgb
        seconds = best_of(partial(colorizer.colorize, grey))
        jpeg = best_of(partial(cv2.imencode, ".jpg", rgb))
        drift = luma_drift(rgb, grey)[0]
        print(f"{megapixels:g} MP once loaded: {seconds:.3f} s ({seconds / jpeg:.1f} JPEG encodings), drift {drift:g}")


if __name__ == "__main__":
    main()
