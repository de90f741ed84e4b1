"""Stable Diffusion 1.5's size within minutes: training beside diffusers' script, colorizing beside the stock pipeline.

    python benchmarks/full_size.py FOLDER --device cuda --minutes 3 --script train_instruct_pix2pix.py --out FILE.md
    python benchmarks/full_size.py FOLDER --device cpu --small --size 128 --minutes 3 --script train_instruct_pix2pix.py
    python benchmarks/full_size.py FOLDER --device cpu --size 256 --batches 1 --parts result --minutes 10

The second is a rehearsal with the U-Net of `mini`; the third trains two updates at full size on a CPU, saves, and opens
the result with the stock pipeline. The script is `examples/instruct_pix2pix/train_instruct_pix2pix.py` of
huggingface/diffusers. Weights are random: figures are about time and memory, not about colors. Each part is a process
of its own (full_size_part.py). Making the models and starting count too; what does not fit is "not run: time".
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from finetune_speed import make_data, official_arguments, our_arguments, prepare_script

from chromatune.reports import installed_versions, markdown_table

PROGRAM = Path(__file__).with_name("full_size_part.py")
MARGIN_SECONDS = 1.0  # of a part's deadline before the end: it then has its figures out
ROWS_PER_PHOTO = 1000  # of the script's data set, so that no epoch ends, and no batch is cut, while it is measured
LONGEST_REASON = 160
TRAININGS = {"chromatune": "chromatune finetune", "official": "diffusers' script"}


@dataclass
class Part:
    """A part, and its process once that is started."""

    kind: str  # as full_size_part.py knows it
    job: dict[str, Any]
    files: Path  # of its output, without a suffix
    process: subprocess.Popen[str] | None = None

    def start(self, device: str) -> None:
        """Start its imports; it then waits to be run."""
        caches = {"CHROMATUNE_CACHE": f"{self.files}-cache", "HF_DATASETS_CACHE": f"{self.files}-datasets"}
        environment = os.environ | caches  # which end with the temporary folder
        if device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        command = [sys.executable, str(PROGRAM), self.kind, json.dumps(self.job)]
        with open(f"{self.files}.out", "w") as out, open(f"{self.files}.log", "w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=log, env=environment, text=True,
                start_new_session=True,
            )  # fmt: skip

    def run(self, device: str, end: float) -> dict[str, Any]:
        """Return its figures, or why there are none as `not_run`; `end` is in seconds since 1970."""
        if time.time() > end - MARGIN_SECONDS:
            return {"not_run": "time"}
        if self.process is None:
            self.start(device)
        assert self.process is not None
        try:
            self.process.communicate(f"{end - MARGIN_SECONDS}\n", timeout=max(0.1, end - time.time()))
        except subprocess.TimeoutExpired:
            return {"not_run": "time"}
        finally:
            self.kill()
        lines = Path(f"{self.files}.out").read_text().splitlines()
        if self.process.returncode or not lines:
            log = Path(f"{self.files}.log").read_text(errors="replace")
            said = [line.strip() for line in log.splitlines() if line.strip()] or ["no output"]
            return {"not_run": said[-1][:LONGEST_REASON]}
        figures: dict[str, Any] = json.loads(lines[-1])
        return figures

    def kill(self) -> None:
        """End its process, and the workers that it has."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def plan(arguments: argparse.Namespace, work: Path) -> list[Part]:
    """The parts in the order of their weight: if time is short, the last ones do not run."""
    size, precision = arguments.size, arguments.precision
    limits = {name: getattr(arguments, name) for name in ("seconds", "updates", "warm_up")}
    parts: list[Part] = []

    def add(kind: str, job: dict[str, Any]) -> None:
        parts.append(Part(kind, limits | job, work / f"part-{len(parts)}"))

    def add_training(batch: int) -> None:
        job = {"batch": batch}
        shared = (size, batch, precision)
        ours = our_arguments(work / "model", work / "photos", *shared)
        ours += ["--set", "cache_variants=1", "--set", "lr=1e-5"]
        ours += ["--max-steps", "1000000", "--out", str(work / f"ours-{batch}")]
        theirs = official_arguments(work / "model", work / "dataset", *shared)
        theirs += ["--learning_rate", "1e-5", "--dataloader_num_workers", str(arguments.workers)]
        theirs += ["--max_train_steps", "1000000", "--output_dir", str(work / f"official-{batch}")]
        if arguments.gradient_checkpointing:
            ours += ["--set", "gradient_checkpointing=true"]
            theirs += ["--gradient_checkpointing"]
        add("chromatune", job | {"arguments": ours})
        if arguments.script is not None:
            add("official", job | {"arguments": theirs, "script": str(prepare_script(arguments.script, work))})

    sampling = {"model": str(work / "editor"), "photo": str(work / "photo.png"), "steps": arguments.sampling_steps}
    for index, batch in enumerate(arguments.batches):
        if "training" in arguments.parts:
            add_training(batch)
        if index == 0 and "sampling" in arguments.parts:
            add("stock", sampling)
            add("colorize", sampling | {"size_px": size})
    if "result" in arguments.parts:
        add("result", {"arguments": result_arguments(arguments, work), "result": str(work / "result" / "model")})
    return parts


def result_arguments(arguments: argparse.Namespace, work: Path) -> list[str]:
    """Arguments of a training of a few updates that is saved; with little memory."""
    batch, steps = arguments.batches[0], str(arguments.updates or 2)
    words = our_arguments(work / "model", work / "photos", arguments.size, batch, arguments.precision)
    settings = {"photos": 4, "validation": 0.5, "cache_variants": 1, "gradient_checkpointing": "true", "lr": 1e-5}
    settings |= {"validate_every": steps, "checkpoint_every": steps}
    words += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return [*words, "--max-steps", steps, "--out", str(work / "result")]


def make_photos(arguments: argparse.Namespace, work: Path) -> None:
    """The photos for both trainings, and a gray square for both samplers."""
    make_data(arguments.folder, work / "photos", work / "dataset", arguments.photos, arguments.size)
    photos = sorted((work / "photos").iterdir())
    if not photos:
        raise SystemExit(f"{arguments.folder}: no color photo of {arguments.size // 2} px or more")
    table = work / "dataset" / "train" / "metadata.jsonl"
    table.write_text(table.read_text() * ROWS_PER_PHOTO)
    gray = cv2.imread(str(photos[0]), cv2.IMREAD_GRAYSCALE)
    assert gray is not None
    cv2.imwrite(str(work / "photo.png"), cv2.resize(gray, (arguments.size,) * 2, interpolation=cv2.INTER_AREA))


def training_table(found: list[tuple[Part, dict[str, Any]]]) -> str:
    """Rows of both trainings, each batch's ratio beside ours."""
    head = ["training", "batch", "samples/s", "ratio", "peak memory, GiB", "start to first update, s"]
    lines = [[*head, "updates measured", "weights"]]
    rates = {(part.kind, part.job["batch"]): row.get("samples_per_second") for part, row in found}
    for part, row in found:
        batch = part.job["batch"]
        cells = [TRAININGS[part.kind], str(batch)]
        if "not_run" in row:
            lines.append([*cells, f"not run: {row['not_run']}", *[""] * 5])
            continue
        official = rates.get(("official", batch))
        ratio = f"{row['samples_per_second'] / official:.2f}" if official and part.kind == "chromatune" else ""
        cells += [f"{row['samples_per_second']:.3g}", ratio, f"{row['peak_gib']:.1f}"]
        cells += [f"{row['first_update_seconds']:.0f}", str(row["updates"])]
        lines.append([*cells, f"{row['millions']:.0f} M, {row['weights']}"])
    return markdown_table(lines)


def sampling_table(found: list[tuple[Part, dict[str, Any]]]) -> str:
    """Rows of both samplers, with the ratio to the stock pipeline."""
    lines = [["one photo", "U-Net evaluations", "seconds", "times as fast as stock", "peak memory, GiB"]]
    stock = next((row["rows"][0]["seconds"] for part, row in found if part.kind == "stock" and "rows" in row), None)
    for part, row in found:
        if "not_run" in row:
            title = "stock pipeline" if part.kind == "stock" else "chromatune colorize"
            lines.append([title, f"not run: {row['not_run']}", "", "", ""])
        for each in row.get("rows", ()):
            ratio = f"{stock / each['seconds']:.2f}" if stock and part.kind == "colorize" else ""
            cells = [each["title"], str(each["evaluations"]), f"{each['seconds']:.3g}", ratio]
            lines.append([*cells, f"{each['peak_gib']:.1f}"])
    return markdown_table(lines)


def report(
    arguments: argparse.Namespace, made: dict[str, Any], found: list[tuple[Part, dict[str, Any]]], seconds: float
) -> str:
    """The figures as Markdown."""
    versions = installed_versions(("torch", "diffusers", "transformers", "accelerate"))
    facts = [made["device"], *(f"{name} {version}" for name, version in versions.items())]
    facts.append(f"{'U-Net of mini' if arguments.small else 'Stable Diffusion 1.5'}, random weights")
    facts += [f"{arguments.size} px", f"training precision {arguments.precision}, EMA on"]
    facts.append(f"gradient checkpointing {'on' if arguments.gradient_checkpointing else 'off'}")
    if arguments.script is not None:
        digest = hashlib.sha256(arguments.script.read_bytes()).hexdigest()[:12]
        facts.append(f"script's SHA-256 {digest}…, {arguments.workers} loader processes")
    blocks = [", ".join(facts) + f". Models made in {made['seconds']:.0f} s, all of it in {seconds:.0f} s."]
    if trained := [(part, row) for part, row in found if part.kind in TRAININGS]:
        blocks.append(training_table(trained))
        if arguments.script is None:
            blocks.append("diffusers' script: not run: no --script.")
    if sampled := [(part, row) for part, row in found if part.kind in ("stock", "colorize")]:
        blocks.append(sampling_table(sampled))
    for row in (row for part, row in found if part.kind == "result"):
        if "not_run" in row:
            blocks.append(f"Trained, saved and opened: not run: {row['not_run']}.")
            continue
        text = f"Trained, saved and opened by the stock pipeline: {row['seconds']:.0f} s, start to saved model; peak "
        text += f"memory {row['peak_gib']:.1f} GiB; U-Net of {row['millions']:.0f} M parameters, "
        blocks.append(f"{text}{row['channels']} channels.")
    return "\n\n".join(block.strip() for block in blocks) + "\n"


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line, with what the device decides filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="color photos")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu")
    parser.add_argument("--minutes", type=float, default=3.0, help="for everything")
    parser.add_argument("--script", type=Path, help="diffusers' train_instruct_pix2pix.py")
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument(
        "--parts", nargs="+", choices=("training", "sampling", "result"), default=["training", "sampling"]
    )
    parser.add_argument("--photos", type=int, default=16)
    parser.add_argument("--precision", choices=("no", "fp16", "bf16"), help="bf16 on a GPU, else no")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="on both sides")
    parser.add_argument(
        "--workers", type=int, help="loader processes of the script: up to 8 on a GPU's machine, else 0"
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="of measuring, for each figure")
    parser.add_argument("--updates", type=int, help="measured at most")
    parser.add_argument("--warm-up", type=int, help="updates before: 5 on a GPU, else 1")
    parser.add_argument("--sampling-steps", type=int, default=20)
    parser.add_argument("--small", action="store_true", help="the U-Net of mini, to rehearse")
    parser.add_argument("--out", type=Path, help="write the tables here too")
    arguments = parser.parse_args(words)
    gpu = arguments.device == "cuda"
    usual = {"precision": "bf16" if gpu else "no", "warm_up": 5 if gpu else 1}
    usual["workers"] = min(8, (os.cpu_count() or 1) // 2) if gpu else 0
    for name, value in usual.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    if arguments.script is not None and not arguments.script.is_file():
        parser.error(f"--script {arguments.script}: no such file")
    return arguments


def measure(arguments: argparse.Namespace, work: Path) -> str:
    """Runs the parts one after the other until the time is up."""
    begin = time.time()
    end = begin + 60 * arguments.minutes
    job = {"work": str(work), "full": not arguments.small, "device": arguments.device}
    making, parts = Part("make", job, work / "make"), plan(arguments, work)
    try:
        # On a GPU's machine, which has cores for it, imports do not wait for the parts before.
        for part in [making, *parts] if arguments.device == "cuda" else [making]:
            part.start(arguments.device)
        make_photos(arguments, work)
        made = making.run(arguments.device, end)
        if "not_run" in made:
            raise SystemExit(f"the models could not be made: {made['not_run']}")
        found = []
        for part in parts:
            found.append((part, part.run(arguments.device, end)))
            print(f"{time.time() - begin:.0f} s: {part.kind} {json.dumps(found[-1][1])}", file=sys.stderr, flush=True)
    finally:
        for part in (making, *parts):
            part.kill()
    return report(arguments, made, found, time.time() - begin)


def main() -> None:
    """Measures in a temporary folder, writes the tables."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        text = measure(arguments, Path(folder))
    print(text, end="")
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
