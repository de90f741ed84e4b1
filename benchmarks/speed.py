"""Both runtimes side by side: a cold start, a photo once loaded, a folder of photos, and memory; as Markdown.

    python benchmarks/speed.py [--out docs/results/speed.md] [--photos 200] [--before CHECKOUT] [--ddcolor CHECKOUT]
                               [--install]

Absolute times depend on the machine: sides alternate within one run, and what counts is the median of their ratios.
--before names a checkout of this repository to hold a folder's photos/s against; --ddcolor one of DDColor (see
peers.py); --install makes the light environment and the whole one in fresh clones, a few minutes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from skimage import data

REPOSITORY = Path(__file__).parents[1]
RUNTIMES = ("onnx", "torch")
ROUNDS = 7


@dataclass(frozen=True)
class Run:
    """One run of a command."""

    seconds: float
    peak_mib: float
    core_seconds: float  # of all its threads


def photo_of(megapixels: float, index: int = 0) -> np.ndarray:
    """One of scikit-image's photos at a size, as (H, W) uint8 gray."""
    photos = (data.astronaut, data.coffee, data.chelsea, data.rocket)
    gray = cv2.cvtColor(photos[index % len(photos)](), cv2.COLOR_RGB2GRAY)
    factor = (megapixels * 1e6 / gray.size) ** 0.5
    size = (round(gray.shape[1] * factor), round(gray.shape[0] * factor))
    return cv2.resize(gray, size, interpolation=cv2.INTER_CUBIC)


def run(command: Sequence[str], source: Path | None = None, accepted: Sequence[int] = (0,)) -> Run:
    """Wall seconds and largest memory of a command.

    Args:
        command: what to run.
        source: a folder for PYTHONPATH.
        accepted: exit codes that are no failure.

    Raises:
        SystemExit: it fails.
    """
    environment = os.environ | ({} if source is None else {"PYTHONPATH": str(source)})
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/")
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in accepted:
        assert process.stderr is not None
        raise SystemExit(f"{' '.join(command)}: {process.stderr.read().decode(errors='replace')}")
    return Run(seconds, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime)


def colorize(photos: Sequence[Path], out: Path, *options: str) -> list[str]:
    """The command that colorizes photos into a folder or file."""
    return [
        sys.executable,
        "-m",
        "chromatune",
        "colorize",
        *map(str, photos),
        "-o",
        str(out),
        "-q",
        "--overwrite",
        *options,
    ]


def ratio_of(sides: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> tuple[dict[str, float], list[float]]:
    """Median of each side, and the ratios of the second to the first, a round each; the sides alternate."""
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            figures[name].append(side())
    first, second = figures.values()
    return (
        {name: statistics.median(each) for name, each in figures.items()},
        [later / earlier for earlier, later in zip(first, second, strict=True)],
    )


def row(what: str, medians: Mapping[str, float], ratios: Sequence[float], unit: str) -> str:
    """A row of the table: what, both sides, the ratio's median and its span."""
    first, second = (f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}" for value in medians.values())
    middle = statistics.median(ratios)
    return f"| {what} | {first} | {second} | **{middle:.2f}** ({min(ratios):.2f} … {max(ratios):.2f}) |"


def seconds_of(action: Callable[[], object]) -> float:
    """Wall seconds of a call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure_commands(folder: Path) -> list[str]:
    """A first color from a cold start, and the memory it needs."""
    photo, result = folder / "one.png", folder / "one.color.png"
    cv2.imwrite(str(photo), photo_of(1))
    commands = {name: colorize([photo], result, "--device", "cpu", "--runtime", name) for name in RUNTIMES}
    runs: dict[str, list[Run]] = {name: [] for name in RUNTIMES}
    for command in commands.values():
        run(command)  # files into the system's cache
    for _ in range(ROUNDS):
        for name, command in commands.items():
            runs[name].append(run(command))
    rows = []
    for what, unit, figure in (
        ("cold start to a written file, 1 MP", "s", lambda each: each.seconds),
        ("peak memory of that", "MiB", lambda each: each.peak_mib),
    ):
        onnx, torch = ([figure(each) for each in runs[name]] for name in RUNTIMES)
        medians = {"onnx": statistics.median(onnx), "torch": statistics.median(torch)}
        rows.append(row(what, medians, [b / a for a, b in zip(onnx, torch, strict=True)], unit))
    return rows


def measure_loaded(megapixels: Sequence[float]) -> list[str]:
    """A photo once the model is loaded, without decoding and encoding."""
    from chromatune import ColorizeOptions, Colorizer

    loaded = {name: Colorizer.load("mini", device="cpu", runtime=name) for name in RUNTIMES}
    rows = []
    for wanted in megapixels:
        gray = photo_of(wanted)
        for colorizer in loaded.values():
            colorizer.colorize(gray)
        sides = {name: partial(seconds_of, partial(each.colorize, gray)) for name, each in loaded.items()}
        rows.append(row(f"{wanted:g} MP once loaded", *ratio_of(sides, 3 * ROUNDS), "s"))
    gray = photo_of(1)
    size = next(iter(loaded.values())).small_size(*gray.shape)
    small = cv2.resize(gray, size[::-1], interpolation=cv2.INTER_AREA)[None].astype(np.float32) / 255
    passes = {}
    for name, each in loaded.items():
        passes[name] = partial(seconds_of, partial(each.backend, small, [each.info.resolve(ColorizeOptions())]))
    rows.append(row("the model alone, 1 MP", *ratio_of(passes, 3 * ROUNDS), "s"))
    return rows


def measure_folder(folder: Path, count: int, before: Path | None) -> list[str]:
    """Photos a second of one command for many photos."""
    photos = []
    for index in range(count):
        photos.append(folder / f"{index:04}.jpg")
        cv2.imwrite(str(photos[-1]), photo_of(1, index), [cv2.IMWRITE_JPEG_QUALITY, 92])
    now = colorize(photos, folder / "now", "--device", "cpu")
    sides = {"now": lambda: run(now).seconds, "torch": lambda: run([*now, "--runtime", "torch"]).seconds}
    rows = [row(f"{count} photos of 1 MP, one command", *ratio_of(sides, 2), "s")]
    if before is not None:
        earlier = colorize(photos, folder / "before", "--device", "cpu")
        sides = {"now": sides["now"], "before": lambda: run(earlier, before / "src").seconds}
        rows.append(row(f"{count} photos of 1 MP, against the command of --before", *ratio_of(sides, 2), "s"))
    return rows


def measure_install(folder: Path) -> list[str]:
    """Time and disk of the light environment and of the whole one, each made in a fresh clone."""
    made = {}
    for name, target in (("light", ".venv/.light"), ("whole", "setup")):
        clone = folder / name
        subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(clone)], check=True)
        start = time.perf_counter()
        subprocess.run(["make", "-s", target], cwd=clone, check=True, stdout=sys.stderr)
        disk = subprocess.run(["du", "-sm", str(clone / ".venv")], check=True, capture_output=True, text=True)
        made[name] = (time.perf_counter() - start, float(disk.stdout.split()[0]))
        shutil.rmtree(clone)
    return [
        row(
            what,
            {name: each[index] for name, each in made.items()},
            [made["whole"][index] / made["light"][index]],
            unit,
        )
        for index, (what, unit) in enumerate((("set-up of a fresh clone", "s"), ("disk space", "MB")))
    ]


def main() -> None:
    """Measures, prints, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", nargs="+", type=float, default=[1, 12])
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--ddcolor", type=Path)
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []

    def told(more: list[str]) -> None:
        rows.extend(more)
        print("\n".join(more), flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told(measure_commands(folder))
        told(measure_loaded(arguments.megapixels))
        if arguments.photos:
            told(measure_folder(folder, arguments.photos, arguments.before))
        if arguments.install:
            told(measure_install(folder))
    peers = []
    if arguments.ddcolor is not None:
        import peers as against

        peers = against.measure_ddcolor(arguments.ddcolor)
        print("\n".join(peers), flush=True)
    if arguments.out is not None:
        arguments.out.write_text(page(rows, peers), encoding="utf-8")


def page(rows: Sequence[str], peers: Sequence[str]) -> str:
    """`docs/results/speed.md`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [
        "# Speed", "",
        f"Made by `python benchmarks/speed.py {' '.join(_public(sys.argv[1:]))}` on {cores} cores, no GPU. Both sides",
        "alternate within one run; a ratio is the median of the rounds' ratios, with the smallest and the largest.",
        "Seconds hold for that machine only.", "",
        "| `mini` | ONNX Runtime, or now | torch, or before | ratio |", "| --- | ---: | ---: | ---: |", *rows,
    ]  # fmt: skip
    if peers:
        lines += ["", "## Against others", "", *peers]
    return "\n".join(lines) + "\n"


def _public(arguments: Sequence[str]) -> list[str]:
    """The arguments without the folders of this machine."""
    return ["CHECKOUT" if "/" in each and not each.startswith("docs/") else each for each in arguments]


if __name__ == "__main__":
    main()
