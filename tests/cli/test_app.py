"""The commands together: what is typed before a command, and what stands for none."""

from __future__ import annotations

import pytest

import chromatune
from chromatune.cli import main

Capture = pytest.CaptureFixture[str]


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"chromatune {chromatune.__version__}\n"


def test_no_command_prints_the_help_and_is_wrong_usage(capsys: Capture) -> None:
    assert main([]) == 2
    assert "colorize" in capsys.readouterr().err


@pytest.mark.parametrize("group", ["data", "experiment"])
def test_a_group_alone_prints_its_help_and_is_wrong_usage(capsys: Capture, group: str) -> None:
    assert main([group]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"Usage: chromatune {group} ")


@pytest.mark.parametrize(
    ("typed", "words"), [("paint a.png", "paint"), ("a.png", "a.png"), ("--nonsense", "--nonsense")]
)
def test_an_unknown_command_is_one_line_and_code_2(capsys: Capture, typed: str, words: str) -> None:
    assert main(typed.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("error: ") and words in line
