"""The commands together: what is typed before a command, and what stands for none."""

from __future__ import annotations

import re

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


def test_a_group_alone_prints_its_help_and_is_wrong_usage(capsys: Capture) -> None:
    assert main(["data"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("Usage: chromatune data ")


@pytest.mark.parametrize("typed", ["experiment", "experiment list", "experiment run peers --data photos=x --size 8"])
def test_the_experiments_of_0_2_are_one_line_that_says_where_they_are(capsys: Capture, typed: str) -> None:
    assert main(typed.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (
        "error: the experiments are in the repository now: in a clone of it, python -m studies.paper list\n"
    )


@pytest.mark.parametrize(
    ("typed", "words"), [("paint a.png", "paint"), ("a.png", "a.png"), ("--nonsense", "--nonsense")]
)
def test_an_unknown_command_is_one_line_and_code_2(capsys: Capture, typed: str, words: str) -> None:
    assert main(typed.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("error: ") and words in line


WORDS = {"colorize": ["x.png"], "batch": ["x", "out"], "video": ["x.mp4", "y.mp4"], "evaluate": ["x"], "serve": [],
         "finetune": ["x"], "data inspect": ["x"]}  # fmt: skip
NAMED_OTHERWISE = [("video", "--preview", "float"), ("video", "--rate", "float")]  # by what they count, not by type
NO_NUMBERS = {
    "float": ["inf", "-inf", "nan", "1e999", "9" * 5000, "x"],
    "int": ["inf", "nan", "1e999", "9" * 5000, "²"],
}


def test_no_number_option_takes_what_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    options = list(NAMED_OTHERWISE)
    for command in WORDS:
        assert main([*command.split(), "--help"]) == 0
        shown = re.findall(r"(--[\w-]+) <(int|float)", capsys.readouterr().out)
        options += [(command, option, kind) for option, kind in shown]
    assert len(options) > 40
    for command, option, kind in options:
        for value in NO_NUMBERS[kind]:
            code = main([*command.split(), *WORDS[command], f"{option}={value}"])
            said = capsys.readouterr().err
            assert (code, said.count("\n")) == (2, 1), (command, option, value[:20], said)


@pytest.mark.parametrize("page", ["0", "-1", "²", "1.5", "9" * 5000])
def test_no_page_is_taken_that_is_no_number(capsys: pytest.CaptureFixture[str], page: str) -> None:
    assert main(["colorize", "x.png", f"--page={page}"]) == 2
    assert capsys.readouterr().err.endswith(": accepted is a number from 1, or all\n")
