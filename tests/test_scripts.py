"""The scripts around the package are where the pages and their own docstrings say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

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
