"""Damaged files of every kind, at random but seeded: each is one line or a result, and memory is bounded.

Slow: `make slow` runs it.
"""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from chromatune import Colorizer, make_options, read_photo
from chromatune.errors import ChromaTuneError
from chromatune.images import IMAGE_SUFFIXES

pytestmark = pytest.mark.slow

MODELS, GRAPHS, PHOTOS, RUNS, EVALUATIONS, RESULTS = 400, 120, 400, 200, 150, 60
MOST_MIB = 2048
STRANGE: list[Any] = [
    None, True, -1, 0, 0.5, 2**31, 2**63, 1e300, "", "x" * 5000, "\x1b[31mred\x07\r\n", [], {}, [[]], [1] * 1000, "NaN",
    {"a": {"b": {}}}, "../../etc/passwd", "os.system",
]  # fmt: skip


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut, flipped, repeated, emptied, or something else altogether."""
    if not data:
        return b"x"
    first, length = int(rng.integers(len(data))), int(rng.integers(1, 64))
    match int(rng.integers(7)):
        case 0:
            return data[:first]
        case 1:
            flipped = bytearray(data)
            for place in rng.integers(len(data), size=int(rng.integers(1, 20))):
                flipped[place] ^= int(rng.integers(1, 256))
            return bytes(flipped)
        case 2:
            return data[:first] + rng.bytes(length) + data[first:]
        case 3:
            return data[:first] + data[first + length :]
        case 4:
            return b""
        case 5:
            return b"<html>404</html>"
        case _:
            return data + data[:first]


def strangely_set(value: Any, rng: np.random.Generator) -> Any:
    """A JSON value with one of its own values, at any depth, replaced by a strange one."""
    inner = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not inner or rng.random() < 0.15:
        return STRANGE[int(rng.integers(len(STRANGE)))]
    key = inner[int(rng.integers(len(inner)))]
    copy = value.copy()
    copy[key] = strangely_set(value[key], rng)
    return copy


def spoil(path: Path, rng: np.random.Generator) -> str:
    """Damage a file; return how, for the message of a failing test."""
    if path.suffix == ".json" and rng.random() < 0.6:
        known = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(strangely_set(known, rng)), encoding="utf-8")
        return f"{path.name} strangely set"
    if path.suffix == ".jsonl" and rng.random() < 0.6 and (lines := path.read_text(encoding="utf-8").splitlines()):
        number = int(rng.integers(len(lines)))
        lines[number] = json.dumps(strangely_set(json.loads(lines[number]), rng))
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return f"line {number + 1} of {path.name} strangely set"
    if rng.random() < 0.1:
        path.unlink()
        return f"{path.name} gone"
    path.write_bytes(damaged(path.read_bytes(), rng))
    return f"{path.name} damaged"


def is_refused(work: Callable[[], object], how: str) -> bool:
    """Return whether the work was refused; any other error than one line of ours is a failure."""
    try:
        work()
    except ChromaTuneError as error:
        line = str(error)
        assert line.isprintable(), f"{how}: {line!r}"
        assert 0 < len(line) < 1000, f"{how}: {line[:1000]!r}"
        return True
    except Exception as error:  # noqa: BLE001 - the very thing that is looked for
        pytest.fail(f"{how}: {type(error).__name__}: {error}")
    return False


def test_damaged_model_folders(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    rng, before = np.random.default_rng(1), peak_mib()
    gray = np.zeros((16, 16), np.uint8)
    refused = 0
    for number in range(MODELS):
        folder = tmp_path / f"model-{number}"
        shutil.copytree(tiny_pipeline_dir, folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        how = f"{number}: {spoil(files[int(rng.integers(len(files)))], rng)}"

        def run(folder: Path = folder) -> None:
            Colorizer.load(str(folder), device="cpu").colorize(gray)

        refused += is_refused(run, how)
        shutil.rmtree(folder)
    assert refused > MODELS / 3
    assert peak_mib() - before < MOST_MIB


def test_damaged_folders_with_graphs(graph_pipeline: Path, tmp_path: Path) -> None:
    """By ONNX Runtime; half of the damage is to the graphs themselves, which are a language of their own."""
    rng, before = np.random.default_rng(7), peak_mib()
    gray, options = np.zeros((16, 16), np.uint8), make_options(steps=2, guidance_scale=2.0)
    refused = 0
    for number in range(GRAPHS):
        folder = tmp_path / f"model-{number}"
        shutil.copytree(graph_pipeline, folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        graphs = [path for path in files if path.suffix == ".onnx"]
        among = graphs if number % 2 else files
        how = f"{number}: {spoil(among[int(rng.integers(len(among)))], rng)}"

        def run(folder: Path = folder) -> None:
            Colorizer.load(str(folder), device="cpu", runtime="onnx").colorize(gray, options)

        refused += is_refused(run, how)
        shutil.rmtree(folder)
    assert refused > GRAPHS / 3
    assert peak_mib() - before < MOST_MIB


def test_damaged_photos(tmp_path: Path) -> None:
    rng, before = np.random.default_rng(2), peak_mib()
    photo = Image.fromarray(skimage.data.astronaut()[100:180, 160:260])
    wholes = []
    for suffix in sorted(IMAGE_SUFFIXES & {".jpg", ".png", ".tif", ".webp", ".bmp", ".gif"}):
        for mode in ("RGB", "L", "P", "CMYK", "RGBA", "I;16"):
            path = tmp_path / f"{mode.replace(';', '')}{suffix}"
            try:
                image = Image.fromarray(np.arange(8000, dtype=np.uint16).reshape(80, 100)) if mode == "I;16" else None
                (image or photo.convert(mode)).save(path)
            except (OSError, ValueError, KeyError):
                continue  # the format has no such mode
            wholes.append(path)
    refused = 0
    for number in range(PHOTOS):
        path = wholes[int(rng.integers(len(wholes)))]
        data = damaged(path.read_bytes(), rng)
        refused += is_refused(partial(read_photo, data), f"{number}: {path.name}")
    assert PHOTOS / 4 < refused < PHOTOS
    assert peak_mib() - before < MOST_MIB


def test_damaged_run_folders(tiny_pipeline_dir: Path, tmp_path: Path, fresh_accelerate: None) -> None:
    """A finished run, one file of it damaged, and the same call again: it goes on, begins anew, or says what to do."""
    from chromatune.data import open_source
    from chromatune.training.run import train
    from chromatune.training.saving import save_result
    from chromatune.training.settings import TrainSettings

    rng, before = np.random.default_rng(3), peak_mib()
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(6):
        squares = np.kron(rng.integers(0, 256, (6, 6, 3)), np.ones((8, 8, 1)))
        Image.fromarray(squares.astype(np.uint8)).save(photos / f"{index}.png")
    settings = TrainSettings(
        size_px=32, batch=2, max_steps=2, checkpoint_every=1, validate_every=2, validation_photos=1, cache_variants=1
    )  # fmt: skip

    def run(folder: Path) -> None:
        save_result(train(open_source(photos), str(tiny_pipeline_dir), settings, folder), "photos", "quick")

    run(tmp_path / "whole")
    refused = 0
    for number in range(RUNS):
        folder = tmp_path / f"run-{number}"
        shutil.copytree(tmp_path / "whole", folder)
        kept = ("tensorboard", "model", "grids")
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).parts[0] not in kept)
        how = f"{number}: {spoil(files[int(rng.integers(len(files)))], rng)}"
        refused += is_refused(partial(run, folder), how)
        shutil.rmtree(folder)
    assert refused > RUNS / 10
    assert peak_mib() - before < MOST_MIB


@pytest.fixture
def evaluated(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of six color photos and of a result for each."""
    rng, folders = np.random.default_rng(4), (tmp_path / "photos", tmp_path / "results")
    for folder in folders:
        folder.mkdir()
        for index in range(6):
            squares = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1)))
            Image.fromarray(squares.astype(np.uint8)).save(folder / f"{index}.png")
    return folders


def test_damaged_evaluation_folders(tiny_pipeline_dir: Path, evaluated: tuple[Path, Path], tmp_path: Path) -> None:
    """A finished evaluation, one file of it damaged, and the same call again: it ends, or says what to do."""
    from chromatune.evaluation.evaluation import SUMMARY_FILE, evaluate
    from chromatune.evaluation.settings import make_settings

    rng, before = np.random.default_rng(5), peak_mib()
    photos, results = evaluated
    settings = make_settings(
        source=str(photos), models=(str(tiny_pipeline_dir),), results=(("other", str(results)),), size_px=64,
        steps=(1,), device="cpu",
    )  # fmt: skip
    evaluate(settings, tmp_path / "whole")
    refused = 0
    for number in range(EVALUATIONS):
        folder = tmp_path / f"evaluation-{number}"
        shutil.copytree(tmp_path / "whole", folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        how = f"{number}: {spoil(files[int(rng.integers(len(files)))], rng)}"
        if is_refused(partial(evaluate, settings, folder), how):
            refused += 1
        else:
            json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
        shutil.rmtree(folder)
    assert EVALUATIONS / 5 < refused < EVALUATIONS
    assert peak_mib() - before < MOST_MIB


def test_damaged_folders_of_results(evaluated: tuple[Path, Path], tmp_path: Path) -> None:
    """Of another tool: what cannot be read has no score and a reason, and the other photos are measured."""
    from chromatune.evaluation.evaluation import evaluate
    from chromatune.evaluation.settings import EvaluationSettings, make_settings

    rng, (photos, results) = np.random.default_rng(6), evaluated
    without = 0
    for number in range(RESULTS):
        folder = tmp_path / f"results-{number}"
        shutil.copytree(results, folder)
        files = sorted(folder.iterdir())
        how = f"{number}: {spoil(files[int(rng.integers(len(files)))], rng)}"
        settings = make_settings(source=str(photos), results=(("other", str(folder)),), size_px=64)
        out = tmp_path / f"out-{number}"
        failures: list[tuple[str, str, str]] = []

        def run(
            settings: EvaluationSettings = settings, out: Path = out, failures: list[tuple[str, str, str]] = failures
        ) -> None:
            failures += evaluate(settings, out).failures

        assert not is_refused(run, how)
        lost = {key for _, key, _ in failures}  # of the result as it is, and with the photo's own luminance
        assert len(lost) <= 1 and all(reason and reason.isprintable() for _, _, reason in failures), how
        without += len(lost)
        shutil.rmtree(out)
    assert RESULTS / 4 < without <= RESULTS
