"""Prompt sets by name and from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from chromatune.data.prompt_sets import PROMPT_SETS, prompt_set
from chromatune.errors import DataError


@pytest.mark.parametrize(("name", "count"), [("thirty", 30), ("single", 1), ("held-out", 10)])
def test_named_sets(name: str, count: int) -> None:
    prompts = prompt_set(name)
    assert len(set(prompts)) == len(prompts) == count


def test_held_out_prompts_are_never_trained_on() -> None:
    trained = {prompt.casefold() for name in ("thirty", "single") for prompt in PROMPT_SETS[name]}
    assert not trained & {prompt.casefold() for prompt in PROMPT_SETS["held-out"]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_has_one_prompt_a_line(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(
        "\n# in French\r\n  mets de la couleur \r\n\n   # done\nredonne-lui ses couleurs d'été".encode(encoding)
    )
    assert prompt_set(str(path)) == ("mets de la couleur", "redonne-lui ses couleurs d'été")


@pytest.mark.parametrize("content", [b"", b"\n \n# only a comment\n", b"caf\xe9", b"\xff\xfea\0"])
def test_a_file_without_prompts(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"prompts\.txt: (no prompts|not a text file)"):
        prompt_set(str(path))


@pytest.mark.parametrize("name", ["fifty", "", "a\0b", "."])
def test_no_such_set(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        prompt_set(name)
    assert "text file" in str(caught.value)
    assert str(caught.value).isprintable()
