"""Anyone's colorizer as ONNX graph: how it is used is told from its shapes and names, and its colors are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from skimage.color import lab2rgb, rgb2lab

from chromatune import ColorizeOptions, Colorizer, color
from chromatune.errors import ModelError, OptionsError
from chromatune.hints import parse_point
from chromatune.pipeline import (
    ColorizerBackend,
    find_pipeline,
    load_backend,
    load_pipeline,
    model_info,
    users_models,
    weights_hash,
)

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
    assert np.abs(result.rgb - np.rint(expected_of_ab(gray, ab))).max() <= 1
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
    assert np.abs(result.rgb - np.rint(expected)).max() <= 1
    assert color.luma_drift(result.rgb, gray)[0] <= 1


def nhwc(path: Path, size: list[Any], output: str = "ab") -> Path:
    """Take (B, H, W, 3) 0..1 and give a and b, or a picture, in the same order."""
    net = Drawn()
    net.add("Transpose", "images", out="planes", perm=[0, 3, 1, 2])
    if output == "ab":
        third = 10 / 3
        net.conv("planes", [[third] * 3] * 2, [A, B], "colors")
    else:
        net.conv("planes", np.eye(3), TINT, "unclipped")
        net.add("Clip", "unclipped", net.constant("low", 0.0), net.constant("high", 1.0), out="colors")
    net.add("Transpose", "colors", out="result", perm=[0, 2, 3, 1])
    return net.write(path, {"images": [1, *size, 3]}, {"result": [1, *size, 2 if output == "ab" else 3]})


def whole_numbers(path: Path) -> Path:
    """Take RGB as uint8, and give a picture of 0..1."""
    net = Drawn()
    net.add("Cast", "input", out="float", to=FLOAT)
    net.add("Div", "float", net.constant("white", 255.0), out="scaled")
    net.conv("scaled", np.eye(3), TINT, "output")
    return net.write(path, {"input": [1, 3, "h", "w"]}, {"output": [1, 3, "h", "w"]}, TensorProto.UINT8)


def normalized_output(path: Path) -> Path:
    """Take RGB 0..1, give a and b divided by 110, as a network that ends in tanh does."""
    net = Drawn()
    net.conv("input", [[10 / 330] * 3] * 2, [A / 110, B / 110], "output")
    return net.write(path, {"input": [1, 3, 256, 256]}, {"output": [1, 2, 256, 256]})


def of_255_to_ab(path: Path) -> Path:
    """Take RGB 0..255 and divide it first, give a and b."""
    net = Drawn()
    net.add("Div", "input", net.constant("white", 255.0), out="scaled")
    net.conv("scaled", [[10 / 3] * 3] * 2, [A, B], "output")
    return net.write(path, {"input": [1, 3, "h", "w"]}, {"output": [1, 2, "h", "w"]})


def one_channel_picture(path: Path, white: float) -> Path:
    """Take the gray once, give a picture in the same range."""
    net = Drawn()
    net.conv("gray", np.ones((3, 1)), TINT * white, "picture")
    net.add("Clip", "picture", net.constant("low", 0.0), net.constant("high", white), out="rgb")
    return net.write(path, {"gray": [1, 1, "h", "w"]}, {"rgb": [1, 3, "h", "w"]})


def quarter_size(path: Path) -> Path:
    """Take L, give a and b at a quarter of the size, and classes that nobody needs."""
    net = Drawn()
    net.add("Sub", "input", net.constant("middle", 50.0), out="off")
    net.add("Div", "off", net.constant("hundred", 100.0), out="scaled")
    net.add("AveragePool", "scaled", out="small", kernel_shape=[4, 4], strides=[4, 4])
    net.conv("small", [[10.0], [10.0]], [A + 5, B + 5], "ab")
    net.conv("small", np.ones((313, 1)), np.zeros(313), "classes")
    outputs: dict[str, list[Any]] = {"classes": [1, 313, "q", "r"], "ab": [1, 2, "q", "r"]}
    return net.write(path, {"input": [1, 1, "h", "w"]}, outputs)


def quantized(path: Path) -> Path:
    """DDColor's convention with weights of 8 bits."""
    net = Drawn()
    weights = np.full((2, 3, 1, 1), 100, np.uint8)
    net.constant("weights", weights, np.uint8)
    net.constant("scale", 10 / 300)
    net.constant("zero", 0, np.uint8)
    net.add("DequantizeLinear", "weights", "scale", "zero", out="unpacked")
    net.constant("bias", [A, B])
    net.add("Conv", "input", "unpacked", "bias", out="output")
    return net.write(path, {"input": [1, 3, "h", "w"]}, {"output": [1, 2, "h", "w"]})


def beside(path: Path) -> Path:
    """DDColor's convention with its weights in a file beside it."""
    ddcolor(path, [256, 256])
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


# name: how it is drawn; kind, range and layout of the input; kind and layout of the output; the fixed size
CONVENTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "ddcolor 512": (lambda p: ddcolor(p, [512, 512]), ("rgb", 0, 1, "nchw", "ab", 1, (512, 512))),
    "ddcolor 256": (lambda p: ddcolor(p, [256, 256]), ("rgb", 0, 1, "nchw", "ab", 1, (256, 256))),
    "ddcolor any": (lambda p: ddcolor(p, ["h", "w"]), ("rgb", 0, 1, "nchw", "ab", 1, None)),
    "ddcolor unnamed": (lambda p: ddcolor(p, [None, None]), ("rgb", 0, 1, "nchw", "ab", 1, None)),
    "ddcolor fp16": (lambda p: ddcolor(p, [512, 512], HALF), ("rgb", 0, 1, "nchw", "ab", 1, (512, 512))),
    "ddcolor quantized": (quantized, ("rgb", 0, 1, "nchw", "ab", 1, None)),
    "ddcolor external": (beside, ("rgb", 0, 1, "nchw", "ab", 1, (256, 256))),
    "ab of 255": (of_255_to_ab, ("rgb", 0, 255, "nchw", "ab", 1, None)),
    "ab of 110": (normalized_output, ("rgb", 0, 1, "nchw", "ab", 110, (256, 256))),
    "nhwc ab": (lambda p: nhwc(p, [256, 256]), ("rgb", 0, 1, "nhwc", "ab", 1, (256, 256))),
    "nhwc picture": (lambda p: nhwc(p, ["h", "w"], "rgb"), ("rgb", 0, 1, "nhwc", "rgb", 1, None)),
    "deoldify 255": (lambda p: deoldify(p, ["h", "w"], 255), ("rgb", 0, 255, "nchw", "rgb", 255, None)),
    "deoldify 255 256": (lambda p: deoldify(p, [256, 256], 255), ("rgb", 0, 255, "nchw", "rgb", 255, (256, 256))),
    "deoldify 255 fp16": (lambda p: deoldify(p, ["h", "w"], 255, HALF), ("rgb", 0, 255, "nchw", "rgb", 255, None)),
    "deoldify 1": (lambda p: deoldify(p, ["h", "w"], 1), ("rgb", 0, 1, "nchw", "rgb", 1, None)),
    "deoldify 1 560": (lambda p: deoldify(p, [560, 560], 1), ("rgb", 0, 1, "nchw", "rgb", 1, (560, 560))),
    "deoldify -1": (lambda p: deoldify(p, ["h", "w"], 1, black=-1), ("rgb", -1, 1, "nchw", "rgb", 1, None)),
    "uint8": (whole_numbers, ("rgb", 0, 255, "nchw", "rgb", 1, None)),
    "one channel 1": (lambda p: one_channel_picture(p, 1.0), ("gray", 0, 1, "nchw", "rgb", 1, None)),
    "one channel 255": (lambda p: one_channel_picture(p, 255.0), ("gray", 0, 255, "nchw", "rgb", 255, None)),
    "eccv16": (lambda p: zhang(p, [256, 256]), ("lightness", 0, 100, "nchw", "ab", 1, (256, 256))),
    "eccv16 quarter": (quarter_size, ("lightness", 0, 100, "nchw", "ab", 1, None)),
    "eccv16 centered": (lambda p: zhang(p, ["h", "w"], centered=True), ("lightness", -50, 50, "nchw", "ab", 1, None)),
    "siggraph17": (AB_GRAPHS["siggraph17"], ("lightness", 0, 100, "nchw", "ab", 1, (256, 256))),
    "siggraph17 caffe": (AB_GRAPHS["siggraph17 caffe"], ("lightness", -50, 50, "nchw", "ab", 1, None)),
}


@pytest.mark.parametrize("kind", CONVENTIONS)
def test_a_convention_is_told_without_a_description(kind: str, tmp_path: Path) -> None:
    draw, (taken, black, white, layout, given, unit, fixed) = CONVENTIONS[kind]
    backend = load_backend(str(draw(tmp_path / "unknown.onnx")))
    assert isinstance(backend, ColorizerBackend)
    found = backend.convention
    assert (found.input.kind, found.input.black, found.input.white, found.input.layout) == (taken, black, white, layout)
    assert (found.output.kind, found.output.layout, found.fixed_px) == (given, layout, fixed)
    in_units = 1 / found.output.white if given == "ab" else found.output.white
    assert in_units == pytest.approx(unit)
    result = Colorizer(backend).colorize(photo(), PLAIN)
    assert color.luma_drift(result.rgb, photo())[0] <= 1
    assert np.ptp(result.rgb.astype(int), axis=2).min() > 10  # in color everywhere


def broken(path: Path, kind: str) -> Path:
    """A file that is no colorizer, or an odd one."""
    net = Drawn()
    match kind:
        case "no graph":
            path.write_bytes(b"not a graph at all")
            return path
        case "cut":
            path.write_bytes(ddcolor(path, [256, 256]).read_bytes()[:-40])
            return path
        case "web page":
            path.write_text("<html>404</html>")
            return path
        case "empty":
            path.write_bytes(b"")
            return path
        case "classifier":
            net.add("GlobalAveragePool", "input", out="logits")
            return net.write(path, {"input": [1, 3, 224, 224]}, {"logits": [1, 3, 1, 1]})
        case "text":
            net.add("Identity", "ids", out="same")
            return net.write(path, {"ids": [1, 77]}, {"same": [1, 77]})
        case "four channels":
            net.add("Identity", "input", out="same")
            return net.write(path, {"input": [1, 4, 64, 64]}, {"same": [1, 4, 64, 64]})
        case "three pictures":
            for name in "abc":
                net.add("Identity", name, out=f"same_{name}")
            return net.write(path, {n: [1, 3, 64, 64] for n in "abc"}, {"same_a": [1, 3, 64, 64]})
        case "half a size":
            net.add("Identity", "input", out="same")
            return net.write(path, {"input": [1, 3, 256, "w"]}, {"same": [1, 3, 256, "w"]})
        case "constant":
            net.conv("input", np.zeros((3, 3)), [0.9, 0.1, 0.1], "output")
            return net.write(path, {"input": [1, 3, 64, 64]}, {"output": [1, 3, 64, 64]})
        case "negative":
            net.conv("input", -np.eye(3), [1.0, 1.0, 1.0], "output")
            return net.write(path, {"input": [1, 3, 64, 64]}, {"output": [1, 3, 64, 64]})
        case "not a number":
            net.conv("input", [[np.nan] * 3] * 2, [0.0, 0.0], "output")
            return net.write(path, {"input": [1, 3, 64, 64]}, {"output": [1, 2, 64, 64]})
        case "unknown operator":
            net.add("Loop", "input", out="output")
            return net.write(path, {"input": [1, 3, 64, 64]}, {"output": [1, 2, 64, 64]})
        case _:  # a graph that would take a hundred gigabytes
            net.constant("times", [1, 1, 200, 200], np.int64)
            net.add("Tile", "input", "times", out="large")
            return net.write(path, {"input": [1, 3, 512, 512]}, {"large": [1, 3, 102400, 102400]})


BROKEN = (
    "no graph", "cut", "web page", "empty", "classifier", "text", "four channels", "three pictures", "half a size",
    "constant", "negative", "not a number", "unknown operator", "bomb",
)  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_wrong_or_odd_graph_is_one_line(kind: str, tmp_path: Path) -> None:
    path = broken(tmp_path / "given.onnx", kind)
    with pytest.raises(ModelError) as caught:
        Colorizer.load(str(path)).colorize(photo(), PLAIN)
    line = str(caught.value)
    assert line.startswith(str(path)) and line.isprintable() and len(line) < 400


def test_a_description_decides(tmp_path: Path) -> None:
    path = one_channel_picture(tmp_path / "a.onnx", 1.0)
    description = {
        "family": "Mine",
        "license": "CC0",
        "size_px": 64,
        "multiple_px": 16,
        "input": {"black": 0.0, "white": 1.0},
        "output": {"black": -0.5, "white": 1.5},
    }
    (tmp_path / "a.colorizer.json").write_text(json.dumps(description))
    backend = load_backend(str(path))
    assert isinstance(backend, ColorizerBackend)
    assert (backend.convention.output.black, backend.convention.size_px) == (-0.5, 64)
    info = model_info(str(path))
    assert (info.family, info.license, info.size_px) == ("Mine", "CC0", 64)


WRONG = {
    '{"size_px": 4}': "size_px=4",
    '{"sized": 4}': "sized",
    "[]": "colorizer.json",
    '{"input": {"black": 1}}': "black and white belong together",
    '{"input": {"kind": "lightness"}}': "lightness",
    '{"output": {"kind": "rgb"}}': "rgb",
    '{"output": {"name": "x"}}': "'x'",
    '{"input": {"name": "y"}}': "'y'",
    '{"size_px": 128}': "128",
    '{"input": {"std": [1, 1, 0]}}': "std",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_description_that_does_not_fit_is_one_line(text: str, tmp_path: Path) -> None:
    path = ddcolor(tmp_path / "folder" / "any.onnx", [256, 256])
    (path.parent / "colorizer.json").write_text(text)
    with pytest.raises(ModelError) as caught:
        load_backend(str(path.parent))
    line = str(caught.value)
    assert WRONG[text] in line and line.isprintable() and len(line) < 300


def test_a_folder_holds_one_network_or_says_which(tmp_path: Path) -> None:
    first, second = ddcolor(tmp_path / "a.onnx", [256, 256]), ddcolor(tmp_path / "b.onnx", [512, 512])
    with pytest.raises(ModelError, match="several networks"):
        model_info(str(tmp_path))
    (tmp_path / "colorizer.json").write_text('{"network": "b.onnx"}')
    assert model_info(str(tmp_path)).size_px == 512
    (tmp_path / "colorizer.json").write_text('{"network": "../b.onnx"}')
    with pytest.raises(ModelError, match="beside it"):
        model_info(str(tmp_path))
    assert weights_hash(str(first)) != weights_hash(str(second))


def test_the_hash_covers_what_decides_the_pixels(tmp_path: Path) -> None:
    path = beside(tmp_path / "a.onnx")
    seen = {weights_hash(str(path))}
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    seen.add(weights_hash(str(path)))
    (tmp_path / "a.colorizer.json").write_text('{"output": {"unit": 2}}')
    seen.add(weights_hash(str(path)))
    assert len(seen) == 3


def test_instructions_that_a_colorizer_does_not_follow_are_one_line(tmp_path: Path) -> None:
    colorizer = Colorizer.load(str(deoldify(tmp_path / "a.onnx", ["h", "w"], 255)))
    plain = colorizer.colorize(photo(), PLAIN)
    assert plain.warnings == ()
    asked = PLAIN.model_copy(update={"prompt": "make it warm", "seed": 3, "steps": 4, "guidance_scale": 2.0})
    result = colorizer.colorize(photo(), asked)
    (line,) = result.warnings
    assert all(word in line for word in ("prompt", "steps", "seed", "guidance")) and "negative" not in line
    np.testing.assert_array_equal(result.rgb, plain.rgb)
    with pytest.raises(OptionsError, match="no seeds"):
        colorizer.colorize(photo(), PLAIN.model_copy(update={"variant": 2}))
    (fixed,) = (
        Colorizer.load(str(ddcolor(tmp_path / "b.onnx", [256, 256])))
        .colorize(photo(), PLAIN.model_copy(update={"size_px": 128}))
        .warnings
    )
    assert "256 × 256" in fixed


def test_hints_and_references_act_on_anyones_colors(tmp_path: Path) -> None:
    colorizer = Colorizer.load(str(ddcolor(tmp_path / "a.onnx", ["h", "w"])))
    gray, mini = photo(), Colorizer.load("mini")
    green = parse_point("20,30,4=#108010")
    plain, hinted = (colorizer.colorize(gray, PLAIN, hints=hints) for hints in (None, green))
    at = hinted.rgb[30, 20].astype(int)
    assert at[1] > at[0] and plain.rgb[30, 20].astype(int)[1] < plain.rgb[30, 20].astype(int)[0]
    assert color.luma_drift(hinted.rgb, gray)[0] <= 1
    like = np.clip(gray[..., None] + np.array([40, 0, -40]), 0, 255).astype(np.uint8)
    found = colorizer.backend.features(gray[None].astype(np.float32) / 255)
    expected = mini.backend.features(gray[None].astype(np.float32) / 255)
    assert found is not None and expected is not None and found.keys() == expected.keys()
    assert colorizer.colorize(gray, PLAIN, like=[like]).rgb.shape == plain.rgb.shape


def test_a_blend_mixes_the_chroma_of_two(tmp_path: Path) -> None:
    first, second = ddcolor(tmp_path / "a.onnx", ["h", "w"]), deoldify(tmp_path / "b.onnx", [256, 256], 1)
    gray = photo()
    one, other = (Colorizer.load(str(path)).colorize(gray, PLAIN).rgb.astype(float) for path in (first, second))
    mixed = Colorizer.load(f"{first}+{second}:0.25").colorize(gray, PLAIN)
    assert np.abs(mixed.rgb - (0.75 * one + 0.25 * other)).max() <= 2
    assert np.abs(mixed.rgb - one).max() > 3
    parts = (str(first), str(second), f"{first}+{second}:0.25", f"{first}+{second}:0.5")
    assert len({weights_hash(part) for part in parts}) == 4
    with_words = Colorizer.load(f"{first}+mini:0.5")
    assert with_words.colorize(gray, PLAIN.model_copy(update={"prompt": "make it warm"})).warnings == ()
    with pytest.raises(ModelError, match="unknown model"):
        Colorizer.load(f"{first}+nothing:0.5")
    with pytest.raises(ModelError, match="more than two"):
        Colorizer.load(f"{first}+mini:0.5+mini-base:0.5")


def test_the_users_own_models_go_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMATUNE_MODELS", str(tmp_path))
    ddcolor(tmp_path / "mine.onnx", [256, 256])
    deoldify(tmp_path / "folder" / "x.onnx", ["h", "w"], 255)
    (tmp_path / "notes.txt").write_text("none")
    assert [path.name for path in users_models()] == ["folder", "mine.onnx"]
    assert model_info("mine").family == model_info("mine.onnx").family == "like DDColor"
    assert model_info("folder").family == "like DeOldify"
    with pytest.raises(ModelError, match="unknown model"):
        model_info("other")


@pytest.mark.parametrize("work", [find_pipeline, load_pipeline])
def test_a_colorizer_is_no_pipeline(work: Any, tmp_path: Path) -> None:
    path = ddcolor(tmp_path / "a.onnx", [256, 256])
    with pytest.raises(ModelError, match="colorizer's file"):
        work(str(path))
