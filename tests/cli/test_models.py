"""`chromatune models`, for people and for programs."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from chromatune.cli import main

Capture = pytest.CaptureFixture[str]


def test_models_in_a_pipe_and_on_a_terminal(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    info = types.SimpleNamespace(name="tiny", size_px=32, steps=4, description="for tests", path=Path("models/tiny"))
    monkeypatch.setattr("chromatune.pipeline.available_models", lambda: [info])
    assert main(["models"]) == 0
    assert capsys.readouterr().out == "tiny\t32\t4\tfor tests\tmodels/tiny\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["models"]) == 0
    table = capsys.readouterr().out
    assert "steps" in table
    assert "models/tiny" in table
