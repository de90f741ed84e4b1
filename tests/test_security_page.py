"""docs/security.md names limits that exist, and the defaults of settings that are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "src").rglob("*.py")))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([A-Z][A-Z_]+[A-Z])`", TEXT))))
def test_each_constant_of_the_page_exists(name):
    assert re.search(rf"^\s*(?:[A-Z_]+, )*{name}(?:, [A-Z_]+)*(?:: [^=]+)? = ", SOURCES, re.MULTILINE), name


@pytest.mark.parametrize("flag", sorted(set(re.findall(r"`--([a-z-]+)`", TEXT))))
def test_each_flag_of_the_page_exists(flag):
    assert f"`--{flag}" in (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
