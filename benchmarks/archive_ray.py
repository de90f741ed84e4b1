"""`chromatune batch` by both engines over one folder: speed, memory, Ray's shared memory, and whether files are equal.

    python benchmarks/archive_ray.py FOLDER [--photos 1000] [--workers 2] [--rounds 1] [--out FILE]

Draws small photos of mixed size, format and depth there first. Engines take turns; a run includes its start.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

from archive import batch, draw_archive, measure

SHAPES = [(240, 320), (320, 240), (480, 640)]  # height and width in pixels
SHARED_MEMORY = Path("/dev/shm")
LOOK_S = 0.5


def tree(root: Path) -> dict[str, str]:
    """Hashes of the results by path: held in memory, their bytes would count as the next run's."""
    files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".html"]
    found = {path.relative_to(root).as_posix(): path for path in files}
    return {
        key: hashlib.sha256(path.read_bytes()).hexdigest() for key, path in found.items() if not key.startswith(".")
    }


class SharedMemory:
    """The most MiB of shared memory in use beyond those at the beginning; 0 where there is no such disk."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._before = self._used()
        self.peak_mib = 0.0
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> SharedMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _used(self) -> float:
        return shutil.disk_usage(SHARED_MEMORY).used / 2**20 if SHARED_MEMORY.is_dir() else 0.0

    def _look(self) -> None:
        while not self._stop.wait(LOOK_S):
            self.peak_mib = max(self.peak_mib, self._used() - self._before)


def compare(root: Path, count: int, workers: int, rounds: int) -> list[str]:
    """Rows: an engine each, and the ratio of their times."""
    sides: dict[str, list[str]] = {"local": [], "ray": ["--engine", "ray"]}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    peak, shared = dict.fromkeys(sides, 0.0), dict.fromkeys(sides, 0.0)
    trees: list[dict[str, str]] = []
    for number in range(rounds):
        for name in sides if number % 2 == 0 else reversed(sides):
            with tempfile.TemporaryDirectory() as folder, SharedMemory() as memory:
                out = Path(folder) / "out"
                done = measure([*batch(root, out, workers), *sides[name]], out)
                trees.append(tree(out))
            seconds[name].append(done.seconds)
            peak[name], shared[name] = max(peak[name], done.peak_mib), max(shared[name], memory.peak_mib)
            print(f"{time.strftime('%H:%M:%S')} {name} {done.seconds:.1f} s", flush=True)
    ratios = [ray / local for ray, local in zip(seconds["ray"], seconds["local"], strict=True)]
    same = all(each == trees[0] for each in trees)
    lines = ["| engine | photos/s | peak MiB of the process | MiB of shared memory |", "| --- | ---: | ---: | ---: |"]
    for name in sides:
        speed = count / statistics.median(seconds[name])
        lines.append(f"| {name} | {speed:.2f} | {peak[name]:.0f} | {shared[name]:.0f} |")
    return [*lines, "", f"Ray takes {statistics.median(ratios):.3f} times as long; files equal: {same}."]


def main() -> None:
    """Draws, measures, prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    draw_archive(given.folder, given.photos, shapes=SHAPES)
    text = "\n".join(compare(given.folder, given.photos, given.workers, given.rounds)) + "\n"
    print(text, end="")
    if given.out:
        given.out.write_text(text)


if __name__ == "__main__":
    main()
