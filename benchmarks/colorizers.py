"""Models of others beside `mini` in one run, in turns: a photo of 1 MP, and the recomposition of one of 12 MP.

    OMP_NUM_THREADS=1 python benchmarks/colorizers.py ddcolor_paper_tiny.pth ddcolor.onnx [--rounds 5]

One thread, as on a busy machine several of torch's mostly wait for each other.

Each model runs at 512 px, and `mini` also as it comes. Weights do not change how long a network takes. What is said of
each is the median over the rounds of its seconds over `mini`'s in the same round.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from functools import partial

from speed import photo_of, seconds_of

from chromatune import Colorizer, make_options
from chromatune.results import ModelOutput

SIZE_PX = 512
SMALL_MP, LARGE_MP = 1, 12


def measure(models: Sequence[str], rounds: int) -> list[str]:
    """Rows of a table: seconds of each, and how many times as long as `mini` at the same size."""
    mini, small, large = Colorizer.load("mini", device="cpu"), photo_of(SMALL_MP), photo_of(LARGE_MP)
    same, own = make_options(size_px=SIZE_PX), make_options()
    runs = {"mini": (mini, same), "mini, as it comes": (mini, own)}
    runs |= {name: (Colorizer.load(name, device="cpu"), same) for name in models}
    outputs: dict[str, ModelOutput] = {}
    for name, (colorizer, options) in runs.items():
        colorizer.colorize(small, options)
        (output,) = colorizer.model_outputs([large], options)
        if not isinstance(output, ModelOutput):
            raise output
        outputs[name] = output
    whole: dict[str, list[float]] = {name: [] for name in runs}
    finish: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, (colorizer, options) in runs.items():
            whole[name].append(seconds_of(partial(colorizer.colorize, small, options)))
            finish[name].append(seconds_of(partial(colorizer.finish, outputs[name])))
    lines = [
        f"| model | s for {SMALL_MP} MP | times mini's | s for recomposition of {LARGE_MP} MP | times mini's |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in runs:
        cells = [f"{statistics.median(each[name]):.3f} | {_ratio(each, name)}" for each in (whole, finish)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _ratio(seconds: dict[str, list[float]], name: str) -> str:
    ratios = [one / mini for one, mini in zip(seconds[name], seconds["mini"], strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print("\n".join(measure(arguments.models, arguments.rounds)))


if __name__ == "__main__":
    main()
