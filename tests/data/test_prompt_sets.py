"""Prompt sets by name and from files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from chromatune.data import prompt_sets
from chromatune.data.items import PhotoItem, Source
from chromatune.data.prompt_sets import PROMPT_SETS, instructions_of, prompt_set, prompt_text
from chromatune.errors import DataError, OptionsError


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


def source_of(prompts: dict[str, str] | None) -> Source:
    items = tuple(PhotoItem(key, None, lambda: np.zeros((8, 8, 3), np.uint8)) for key in ("a", "b", "c"))
    return Source("set", "hf", items, prompts)


@pytest.mark.parametrize(
    ("prompts", "name", "expected"),
    [
        ({"a": "x", "b": "y", "c": "z"}, "source", {"a": "x", "b": "y", "c": "z"}),
        ({"a": "x", "b": "y", "c": "z"}, "auto", {"a": "x", "b": "y", "c": "z"}),
        ({"a": "x", "b": "y", "c": "z"}, "single", PROMPT_SETS["single"]),
        (None, "auto", PROMPT_SETS["thirty"]),
        ({}, "auto", PROMPT_SETS["thirty"]),
        (None, "held-out", PROMPT_SETS["held-out"]),
    ],
)
def test_instructions_by_name_or_the_photos_own(prompts, name: str, expected) -> None:
    assert instructions_of(source_of(prompts), name) == expected


@pytest.mark.parametrize("prompts", [{"a": "x"}, {"a": "x", "b": ""}, {"a": "x", "elsewhere": "y"}])
def test_a_photo_without_an_instruction_gets_a_drawn_one_and_always_the_same(prompts) -> None:
    instructions = instructions_of(source_of(prompts), "source")
    assert isinstance(instructions, dict) and list(instructions) == ["a", "b", "c"]
    assert instructions["a"] == "x"
    assert {instructions["b"], instructions["c"]} <= set(PROMPT_SETS["thirty"])
    assert instructions == instructions_of(source_of(prompts), "auto")


def test_own_instructions_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="set has no prompts of its own; give prompts=thirty"):
        instructions_of(source_of(None), "source")
    (tmp_path / "p.txt").write_text("one\ntwo\n")
    assert instructions_of(source_of({"a": "x"}), str(tmp_path / "p.txt")) == ("one", "two")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("  add \n color\t", "add color"),
        ("a\x1b[2Jb\0c", "a [2Jb c"),
        ("half \ud800", "half"),
        (["", None, " first ", "second"], "first"),
        ("", ""),
        (" \n ", ""),
        (None, ""),
        (float("nan"), ""),
        (7, ""),
        ({"text": "x"}, ""),
        ([], ""),
    ],
)
def test_a_cell_as_an_instruction(value, text: str) -> None:
    assert prompt_text(value) == text


def test_a_prompts_file_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_sets, "MAX_FILE_BYTES", 2**20)
    (tmp_path / "long.txt").write_bytes(b"x" * (2**20 + 1))
    for name, reason in (("long.txt", "more than 1 MiB"), ("", "no such prompt set or file|is a folder")):
        with pytest.raises(DataError, match=reason):
            prompt_set(str(tmp_path / name) if name else ".")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(DataError, match="is a folder or a device"):
            prompt_set(str(tmp_path / "pipe"))
