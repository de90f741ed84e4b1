"""Anyone's colorizer as ONNX graph: how it is used is told from its shapes and names, and its colors are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from skimage.color import lab2rgb, rgb2lab

from chromatune import ColorizeOptions, Colorizer, color
from chromatune.pipeline.colorizer_backend import ColorizerBackend

PLAIN = ColorizeOptions(view="plain", smooth=0, own_color="replace")
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
NUMPY: dict[Any, Any] = {FLOAT: np.float32, HALF: np.float16, TensorProto.UINT8: np.uint8}


class Drawn:
    """A graph of few operators, written as a stranger's exporter would."""

    def __init__(self, dtype: int = FLOAT) -> None:
        self.dtype, self.nodes, self.constants = dtype, list[Any](), list[Any]()

    def constant(self, name: str, value: Any, dtype: Any = None) -> str:
        array = np.asarray(value, dtype or NUMPY[self.dtype])
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op: str, *inputs: str, out: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [out], **attributes))
        return out

    def conv(self, source: str, weights: Any, bias: Any, out: str) -> str:
        kernel = np.asarray(weights, np.float32)[..., None, None]
        names = self.constant(f"{out}_w", kernel), self.constant(f"{out}_b", bias)
        return self.add("Conv", source, *names, out=out)

    def write(
        self, path: Path, inputs: dict[str, list[Any]], outputs: dict[str, list[Any]], taken: int | None = None
    ) -> Path:
        graph = helper.make_graph(
            self.nodes,
            "drawn",
            [helper.make_tensor_value_info(name, taken or self.dtype, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, self.dtype, shape) for name, shape in outputs.items()],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString())
        return path


A, B = 18.0, -26.0  # of what ab networks add to 10 × the gray


def ab_of(gray: np.ndarray) -> np.ndarray:
    """(h, w) 0..1 -> the a and b that every drawn network means."""
    return np.stack([A + 10 * gray, B + 10 * gray], axis=-1)


def ddcolor(path: Path, size: list[Any], dtype: int = FLOAT, name: str = "input") -> Path:
    """Take RGB 0..1 with ImageNet's normalization inside, give a and b."""
    net = Drawn(dtype)
    mean = net.constant("mean", np.reshape([0.485, 0.456, 0.406], (1, 3, 1, 1)))
    std = net.constant("std", np.reshape([0.229, 0.224, 0.225], (1, 3, 1, 1)))
    net.add("Sub", name, mean, out="centered")
    net.add("Div", "centered", std, out="normalized")
    weights = np.array([[10 * 0.229, 0, 0], [10 * 0.229, 0, 0]])
    net.conv("normalized", weights, [A + 4.85, B + 4.85], "output")
    return net.write(path, {name: [1, 3, *size]}, {"output": [1, 2, *size]})


TINT = np.array([0.08, 0.0, -0.1])  # what picture networks add to the gray's R, G and B; some lose luma


def deoldify(path: Path, size: list[Any], white: float, dtype: int = FLOAT, black: float = 0.0) -> Path:
    """Take RGB in a range, normalize it as ImageNet's, give RGB in the same range, clipped as trained networks do."""
    net = Drawn(dtype)
    middle, half = (
        net.constant("middle", 0.449 * (white - black) + black),
        net.constant("half", 0.226 * (white - black)),
    )
    net.add("Sub", "input", middle, out="centered")
    net.add("Div", "centered", half, out="normalized")
    net.conv("normalized", np.eye(3) * 0.226, TINT + 0.449, "picture")
    net.add("Clip", "picture", net.constant("low", 0.0), net.constant("high", 1.0), out="clipped")
    net.add("Mul", "clipped", net.constant("scale", white - black), out="scaled")
    net.add("Add", "scaled", net.constant("shift", black), out="out")
    return net.write(path, {"input": [None, 3, *size]}, {"out": [None, 3, *size]})


def zhang(path: Path, size: list[Any], *, centered: bool = False, hints: tuple[str, str, str] | None = None) -> Path:
    """Take L 0..100, or with its middle taken off; give a and b; with `hints` as siggraph17 takes them."""
    net = Drawn()
    light = hints[0] if hints else "input.1"
    source = light if centered else net.add("Sub", light, net.constant("middle", 50.0), out="off")
    net.add("Div", source, net.constant("hundred", 100.0), out="scaled")
    half = 5.0  # 10 × L / 100 is 10 × scaled + 5
    net.conv("scaled", [[10.0], [10.0]], [A + half, B + half], "colors" if hints else "output")
    inputs: dict[str, list[Any]] = {light: [1, 1, *size]}
    if hints:
        net.add("Mul", hints[1], hints[2], out="hinted")
        net.add("Add", "colors", "hinted", out="output")
        inputs |= {hints[1]: [1, 2, *size], hints[2]: [1, 1, *size]}
    return net.write(path, inputs, {"output": [1, 2, *size]})


def photo(height: int = 96, width: int = 128) -> np.ndarray:
    down, across = np.mgrid[0:height, 0:width]
    return (40 + 120 * across / width + 50 * down / height).astype(np.uint8)


def expected_of_ab(gray: np.ndarray, ab: np.ndarray) -> np.ndarray:
    """By scikit-image: the gray's L*, a and b as RGB, its chroma put onto the gray."""
    lightness = rgb2lab(np.repeat(gray[..., None], 3, axis=-1) / 255)[..., :1]
    rgb = lab2rgb(np.concatenate([lightness, ab], axis=-1))
    chroma = rgb - (rgb @ [0.299, 0.587, 0.114])[..., None]
    return gray[..., None] + 255 * chroma


AB_GRAPHS = {
    "ddcolor fixed": lambda path: ddcolor(path, [512, 512]),
    "ddcolor dynamic": lambda path: ddcolor(path, ["height", "width"]),
    "ddcolor fp16": lambda path: ddcolor(path, [256, 256], HALF),
    "eccv16 256": lambda path: zhang(path, [256, 256]),
    "eccv16 dynamic": lambda path: zhang(path, ["h", "w"]),
    "eccv16 centered": lambda path: zhang(path, ["h", "w"], centered=True),
    "siggraph17": lambda path: zhang(path, [256, 256], hints=("L", "hint_ab", "hint_mask")),
    "siggraph17 caffe": lambda path: zhang(path, ["h", "w"], centered=True, hints=("data_l", "user_ab", "user_map")),
}


@pytest.mark.parametrize("kind", AB_GRAPHS)
def test_a_and_b_are_put_onto_the_gray(kind: str, tmp_path: Path) -> None:
    path, gray = AB_GRAPHS[kind](tmp_path / "strange name.onnx"), photo()
    result = Colorizer.load(str(path)).colorize(gray, PLAIN)
    if kind.startswith("ddcolor"):
        ab = ab_of(gray / 255)
    else:
        ab = ab_of(rgb2lab(np.repeat(gray[..., None], 3, axis=-1) / 255)[..., 0] / 100)
    assert np.abs(result.rgb - expected_of_ab(gray, ab)).max() <= 1.6
    assert color.luma_drift(result.rgb, gray)[0] <= 1


RGB_GRAPHS = {
    "255 dynamic": (lambda path: deoldify(path, ["h", "w"], 255), (0, 255)),
    "255 fixed": (lambda path: deoldify(path, [256, 256], 255), (0, 255)),
    "1 dynamic": (lambda path: deoldify(path, ["h", "w"], 1), (0, 1)),
    "1 fixed 560": (lambda path: deoldify(path, [560, 560], 1), (0, 1)),
    "-1 dynamic": (lambda path: deoldify(path, ["h", "w"], 1, black=-1), (-1, 1)),
    "255 fp16": (lambda path: deoldify(path, ["h", "w"], 255, HALF), (0, 255)),
}


@pytest.mark.parametrize("kind", RGB_GRAPHS)
def test_the_range_of_a_picture_is_found(kind: str, tmp_path: Path) -> None:
    draw, range_ = RGB_GRAPHS[kind]
    path, gray = draw(tmp_path / "a.onnx"), photo()
    colorizer = Colorizer.load(str(path))
    assert isinstance(colorizer.backend, ColorizerBackend)
    found = colorizer.backend.convention
    assert (found.input.black, found.input.white) == (found.output.black, found.output.white) == range_
    result = colorizer.colorize(gray, PLAIN)
    rgb = np.clip(gray[..., None] / 255 + TINT, 0, 1)
    expected = gray[..., None] + 255 * (rgb - (rgb @ [0.299, 0.587, 0.114])[..., None])
    assert np.abs(result.rgb - expected).max() <= 1.6
    assert color.luma_drift(result.rgb, gray)[0] <= 1
