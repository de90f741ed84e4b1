"""An archive of drawn photos, and what a run of it leaves."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
HIDDEN = (".chromatune/", ".lock")


@pytest.fixture(scope="session")
def drawing() -> ModuleType:
    """benchmarks/archive.py, which draws archives."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("archive_benchmark", BENCHMARKS / "archive.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def tree() -> Callable[[str | Path], dict[str, bytes]]:
    """All that a user sees of a folder: bytes by path below it."""

    def read(folder: str | Path) -> dict[str, bytes]:
        files = (path for path in Path(folder).rglob("*") if path.is_file())
        found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
        return {key: data for key, data in found.items() if not key.startswith(HIDDEN)}

    return read
