"""`chromatune models`, for people and for programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from chromatune.cli import main
from chromatune.pipeline import model_info

Capture = pytest.CaptureFixture[str]
Monkey = pytest.MonkeyPatch


def test_models_in_a_pipe_and_on_a_terminal(tmp_path: Path, capsys: Capture, monkeypatch: Monkey) -> None:
    monkeypatch.setenv("CHROMATUNE_MODELS", str(tmp_path / "none"))
    info = model_info("mini")
    assert main(["models"]) == 0
    first = capsys.readouterr().out.splitlines()[0].split("\t")
    assert first[:5] == ["mini", "256", "1", info.description, str(info.path)]
    assert first[5::2] == ["InstructPix2Pix", "Apache-2.0"] and int(first[6]) > 10
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["models"]) == 0
    table = capsys.readouterr().out
    assert "steps" in table and "license" in table


def test_check_tells_how_a_colorizer_is_understood(tmp_path: Path, capsys: Capture, monkeypatch: Monkey) -> None:
    monkeypatch.chdir(tmp_path)
    drawn_colorizer(tmp_path / "some.onnx")
    assert main(["models", "check", "some.onnx", "--write"]) == 0
    facts = dict(line.split("\t", 1) for line in capsys.readouterr().out.splitlines())
    assert facts["takes"] == "input: gray in three channels, 0 to 1, nchw"
    assert "a and b of CIELAB" in facts["gives"]
    assert facts["description"] == "some.colorizer.json"
    with Image.open(tmp_path / "some.check.png") as sheet:
        assert sheet.height == 256 and sheet.width > 3 * 200
    written = json.loads((tmp_path / "some.colorizer.json").read_text())
    assert written["output"]["unit"] == 1 and written["input"]["white"] == 1
    assert main(["models", "check", "some.onnx"]) == 0  # its own description fits it
    assert main(["models", "check", "mini", "-o", "mini.png"]) == 0
    assert (tmp_path / "mini.png").is_file()
    capsys.readouterr()
    assert main(["models", "check", "mini", "--write"]) == 2
    assert "--write is for colorizers" in capsys.readouterr().err


def test_the_users_own_models_are_listed(tmp_path: Path, capsys: Capture, monkeypatch: Monkey) -> None:
    monkeypatch.setenv("CHROMATUNE_MODELS", str(tmp_path))
    drawn_colorizer(tmp_path / "mine.onnx")
    (tmp_path / "mine.colorizer.json").write_text('{"license": "MIT", "family": "DDColor"}')
    (tmp_path / "bad.onnx").write_text("nothing")
    assert main(["models"]) == 0
    shown = capsys.readouterr()
    (mine,) = [line.split("\t") for line in shown.out.splitlines() if line.startswith("mine")]
    assert mine[1] == "256" and mine[5:] == ["DDColor", "0", "MIT"]
    assert "not listed: bad.onnx" in shown.err and len(shown.err.splitlines()) == 1


@pytest.mark.parametrize(("given", "code"), [("mini:0.5", 0), ("mini", 2), ("mini:2", 2), (":0.5", 2), ("none:0.5", 1)])
def test_blend(given: str, code: int, tmp_path: Path, capsys: Capture) -> None:
    model = drawn_colorizer(tmp_path / "some.onnx")
    photo, out = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 3, (48, 1))).save(photo)
    assert main(["colorize", str(photo), "-o", str(out), "--model", str(model), "--blend", given]) == code
    assert out.exists() == (code == 0)
    assert len(capsys.readouterr().err.splitlines()) == (code != 0)


def drawn_colorizer(path: Path) -> Path:
    """A graph that takes RGB 0..1 at 256 px, and gives a = 20 and b = -20."""
    weights = [
        numpy_helper.from_array(np.zeros((2, 3, 1, 1), np.float32), "weights"),
        numpy_helper.from_array(np.array([20, -20], np.float32), "bias"),
    ]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "weights", "bias"], ["output"])],
        "drawn",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 256, 256])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 2, 256, 256])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path
