"""The Python code of README and docs is typed: mypy and pyright, both strict, find nothing wrong with it."""

from __future__ import annotations

import ast
import builtins
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RULES_OF_OTHERS = {"reportMissingTypeStubs", "reportUnknownMemberType", "reportUnknownVariableType"}  # NumPy, Pillow


def blocks(page: Path) -> list[str]:
    """The page's blocks of Python; one that goes on from earlier ones has them before it."""
    found = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [block if is_whole(block) else "".join(found[: index + 1]) for index, block in enumerate(found)]


def is_whole(code: str) -> bool:
    """Whether it defines all names that it uses."""
    known, used = {*dir(builtins)}, set[str]()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else known).add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            known |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return used <= known


@pytest.fixture(scope="module")
def snippets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snippets")
    for page in PAGES:
        for index, block in enumerate(blocks(page)):
            (folder / f"{page.stem.lower().replace('-', '_')}_{index}.py").write_text(block, encoding="utf-8")
    assert len(list(folder.iterdir())) >= 6
    return folder


def test_mypy_finds_nothing(snippets: Path) -> None:
    files = sorted(path.name for path in snippets.glob("*.py"))
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", *files]
    done = subprocess.run(command, cwd=snippets, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_finds_nothing(snippets: Path) -> None:
    pytest.importorskip("basedpyright", reason="pyright comes with the extra dev")
    (snippets / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict"}))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, str(snippets)]
    done = subprocess.run(command, cwd=snippets, capture_output=True, text=True, check=False)
    found = [
        f"{Path(each['file']).name}: {each['message']}"
        for each in json.loads(done.stdout)["generalDiagnostics"]
        if each["severity"] == "error" and each.get("rule") not in RULES_OF_OTHERS
    ]
    assert not found, "\n".join(found)
