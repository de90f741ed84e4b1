"""The scripts around the package are where the pages and their own docstrings say."""

from __future__ import annotations

import ast
import importlib
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "studies", "examples", "recipes")
PAGES = [ROOT / "Makefile", ROOT / "pyproject.toml", *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
SCRIPTS = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
SOURCES = [*SCRIPTS, *(ROOT / "recipes").rglob("*.md"), *(ROOT / "src").rglob("*.py")]
COMMANDS = [path for path in SCRIPTS if '__name__ == "__main__"' in path.read_text(encoding="utf-8")]
OF_DIFFUSERS = "examples/instruct_pix2pix/train_instruct_pix2pix.py"


def test_every_script_that_is_named_exists() -> None:
    pattern, missing = re.compile(rf"\b(?:{'|'.join(FOLDERS)})/[\w/-]+\.\w+"), []
    for page in (*PAGES, *SOURCES):
        names = set(pattern.findall(page.read_text(encoding="utf-8"))) - {OF_DIFFUSERS}
        missing += [f"{page.relative_to(ROOT)}: {name}" for name in names if not (ROOT / name).is_file()]
    assert not missing


@pytest.mark.parametrize("script", COMMANDS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_script_says_how_it_is_called(script: Path) -> None:
    usage = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    path = script.relative_to(ROOT)
    module = ".".join(path.with_suffix("").parts).removesuffix(".__main__")  # what other modules of a folder import
    assert f"python {path.as_posix()}" in usage or f"python -m {module}" in usage


@pytest.fixture
def full_size(monkeypatch) -> Any:
    """benchmarks/full_size.py, which imports its neighbors by their bare names."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("full_size")


def run_part(full_size: Any, folder: Path, program: str, seconds: float) -> dict[str, Any]:
    full_size.PROGRAM.write_text(program)
    result: dict[str, Any] = full_size.Part("stock", {}, folder / "part").run("cpu", time.time() + seconds)
    return result


def test_a_part_gives_its_figures_or_why_there_are_none(full_size, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(full_size, "PROGRAM", tmp_path / "program.py")
    prints = "import sys; sys.stdin.readline(); print('noise'); print('{\"a\": 1}')"
    assert run_part(full_size, tmp_path, prints, 600) == {"a": 1}
    assert run_part(full_size, tmp_path, "raise ValueError('no such model')", 600) == {
        "not_run": "ValueError: no such model"
    }
    # Whatever it does, it ends in time; one whose turn comes too late is not started.
    assert run_part(full_size, tmp_path, "import time; time.sleep(600)", 1.5) == {"not_run": "time"}
    part = full_size.Part("stock", {}, tmp_path / "late")
    assert part.run("cpu", time.time()) == {"not_run": "time"} and part.process is None


def test_the_table_of_trainings_names_what_did_not_run(full_size) -> None:
    row: dict[str, Any] = {"samples_per_second": 30.0, "updates": 7, "first_update_seconds": 20.0, "peak_gib": 41.0}
    row |= {"millions": 860.0, "weights": "float32"}
    kinds = [("chromatune", 4), ("official", 4), ("chromatune", 16), ("official", 16)]
    parts = [full_size.Part(kind, {"batch": batch}, Path("part")) for kind, batch in kinds]
    rows = [row, row | {"samples_per_second": 20.0}, row, {"not_run": "time"}]
    _, _, ours, official, alone, missing = full_size.training_table(list(zip(parts, rows, strict=True))).splitlines()
    assert "| 30 | 1.50 | 41.0 |" in ours and "| 20 |  | 41.0 |" in official
    assert "| 30 |  | 41.0 |" in alone and "not run: time" in missing


def test_updates_are_counted_once_after_the_warm_up(full_size, capsys) -> None:
    torch = pytest.importorskip("torch")
    from accelerate import Accelerator
    from torch.optim.optimizer import register_optimizer_step_post_hook

    ended: list[int] = []
    weight, updates = torch.nn.Parameter(torch.zeros(3)), 0
    optimizer = Accelerator(cpu=True).prepare(torch.optim.AdamW([weight]))
    job = {"warm_up": 2, "updates": 3, "seconds": 1e9, "batch": 4}
    clock = importlib.import_module("full_size_part").UpdateClock(job, deadline=float("inf"), leave=ended.append)
    hook = register_optimizer_step_post_hook(clock)
    try:
        while not ended and updates < 100:
            weight.grad = torch.ones(3)
            optimizer.step()
            updates += 1
    finally:
        hook.remove()
    figures = json.loads(capsys.readouterr().out)
    assert updates == 5 and figures["updates"] == 3 and figures["weights"] == "float32"
