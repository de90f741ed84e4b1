"""What a stranger's graph takes is known before ONNX Runtime opens it: bombs are refused, parts of models are not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from chromatune.pipeline import MODELS_DIR, onnx_budget, onnx_checks
from chromatune.pipeline.onnx_budget import GraphBudget
from chromatune.pipeline.onnx_checks import check_onnx
from chromatune.pipeline.onnx_operators import FLOAT, NUMPY_TYPES, Sized

PHOTO = (1, 4, 32, 48)
PIXELS = 256 * 384
Arrays = dict[str, np.ndarray]


def node(kind: str, inputs: str, output: str = "y", **attributes: Any) -> NodeProto:
    """An operator; inputs are parted by spaces, and - is one that is left out."""
    names = [name.replace("-", "") for name in inputs.split()]
    return helper.make_node(kind, names, output.split(), **attributes)


def graph_file(
    folder: Path, nodes: Sequence[NodeProto], constants: Arrays, shape: Sequence[int | str | None], outputs: str = "y"
) -> Path:
    """A graph that takes `x`, float32."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [onnx.ValueInfoProto(name=name) for name in outputs.split()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    path = folder / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
    return path


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def chain(kind: str, count: int, *more: str) -> list[NodeProto]:
    """Operators that read each other's result, from `a` to `y`."""
    return [
        helper.make_node(kind, [f"a{i}" if i else "a", *more], [f"a{i + 1}" if i < count - 1 else "y"])
        for i in range(count)
    ]


def refusal(folder: Path, nodes: Sequence[NodeProto], constants: Arrays, shape: Any = (None, 4, None, None)) -> str:
    path = graph_file(folder, nodes, constants, shape)
    with pytest.raises(ValueError, match=".") as caught:
        GraphBudget(check_onnx(path), folder).check({"x": PHOTO}, PIXELS)
    line = str(caught.value)
    assert line.isprintable() and len(line) < 200
    return line


DOUBLED = [helper.make_node("Concat", [f"a{i}" if i else "a"] * 2, [f"a{i + 1}"], axis=0) for i in range(40)]
CONSTANT_BOMBS: list[tuple[list[NodeProto], Arrays]] = [
    ([node("ConstantOfShape", "n")], {"n": ints(800_000_000)}),
    ([node("Constant", "", "n", value_ints=[800_000_000]), node("ConstantOfShape", "n")], {}),
    ([node("Expand", "one n")], {"one": ints(1), "n": ints(400_000_000)}),
    ([node("Tile", "one n")], {"one": ints(1), "n": ints(400_000_000)}),
    ([node("Range", "zero n one")], {"zero": np.array(0), "n": np.array(400_000_000), "one": np.array(1)}),
    ([node("Pad", "one n")], {"one": ints(1), "n": ints(0, 400_000_000)}),
    ([node("Resize", "one - - n")], {"one": np.ones(1, np.float32), "n": ints(800_000_000)}),
    ([node("Resize", "one - s")], {"one": np.ones(1, np.float32), "s": np.array([8e8], np.float32)}),
    ([node("OneHot", "one n ends")], {"one": ints(1), "n": ints(400_000_000), "ends": ints(0, 1)}),
    ([node("Add", "column row")], {"column": np.ones((30_000, 1)), "row": np.ones((1, 30_000))}),
    ([node("MatMul", "column row")], {"column": np.ones((30_000, 1)), "row": np.ones((1, 30_000))}),
    ([node("Where", "c column row")],
     {"c": np.ones(1, np.bool_), "column": np.ones((30_000, 1)), "row": np.ones((1, 30_000))}),
    ([node("Gather", "row n", axis=0)], {"row": np.ones((1, 100_000)), "n": np.zeros(100_000, np.int64)}),
    ([node("Einsum", "a a", equation="ab,cd->abcd")], {"a": np.ones((200, 200))}),
    (DOUBLED[:-1] + [node("Identity", "a39")], {"a": np.ones(100)}),
    ([node("ConstantOfShape", "side", "a"), *chain("MatMul", 60, "a")], {"side": ints(3000, 3000)}),
    ([node("ConstantOfShape", "n", "a"), *chain("Neg", 100)], {"n": ints(10_000_000)}),
    ([node("ConstantOfShape", "n", "a"), node("ConstantOfShape", "m", "b"), node("Conv", "a b")],
     {"n": ints(1, 64, 200, 200), "m": ints(64, 64, 9, 9)}),
    ([node("ConvTranspose", "a b", strides=[99, 99])],
     {"a": np.ones((1, 1, 400, 400)), "b": np.ones((1, 1, 2, 2))}),
    ([node("PRelu", "column row")],
     {"column": np.ones((30_000, 1), np.float32), "row": np.ones((1, 30_000), np.float32)}),
    ([node("Einsum", "a a b b", equation="a,b,ac,bc->")],  # between: ab
     {"a": np.ones(11_000, np.float32), "b": np.ones((11_000, 1), np.float32)}),
    ([node("Resize", "a - - n", mode="linear", antialias=1)],  # between: both sides long
     {"a": np.ones((1, 1, 30_000, 1), np.float32), "n": ints(1, 1, 1, 30_000)}),
    ([node("ConvInteger", "a b")], {"a": np.ones((1, 1, 200, 200), np.uint8), "b": np.ones((1, 1, 99, 99), np.uint8)}),
    ([node("Conv", "a b")], {"a": np.ones((1, 1, *[18] * 4), np.float32), "b": np.ones((1, 1, *[7] * 4), np.float32)}),
]  # fmt: skip


@pytest.mark.parametrize(("nodes", "constants"), CONSTANT_BOMBS)
def test_constants_are_bounded_before_anything_computes_them(tmp_path, nodes, constants):
    path = graph_file(tmp_path, [*nodes, node("Add", "x y", "z")], constants, PHOTO, "z")
    with pytest.raises(ValueError, match="computes constants "):
        GraphBudget(check_onnx(path), tmp_path)


OF_PHOTO = [node("Shape", "x", "sizes"), node("ReduceProd", "sizes", "product", keepdims=1)]
PASS_BOMBS: list[tuple[list[NodeProto], Arrays]] = [
    ([*OF_PHOTO, node("Mul", "product many", "n"), node("ConstantOfShape", "n")], {"many": ints(10**6)}),
    ([*OF_PHOTO, node("Mul", "product many", "n"), node("Expand", "product n")], {"many": ints(10**6)}),
    ([node("Resize", "x - s")], {"s": np.array([1, 1, 9e3, 9e3], np.float32)}),
    ([node("Tile", "x n")], {"n": ints(1, 1, 9000, 9000)}),
    ([node("Pad", "x n")], {"n": ints(0, 0, 0, 0, 0, 0, 90_000, 90_000)}),
    ([node("Gather", "x n", axis=1)], {"n": np.zeros(10**6, np.int64)}),
    ([node("Reshape", "x r", "row"), node("Reshape", "x c", "column"), node("Add", "row column", "w"),
      node("Expand", "w n")], {"r": ints(1, -1), "c": ints(-1, 1), "n": ints(60, 1, 1)}),
    ([node("ReduceMax", "x", "m", keepdims=0), node("Add", "side m", "a"), *chain("MatMul", 60, "a")],
     {"side": np.zeros((3000, 3000), np.float32)}),
    ([*(node("Tile", "x n", f"t{i}") for i in range(100)), node("Sum", " ".join(f"t{i}" for i in range(100)))],
     {"n": ints(1, 1, 100, 10)}),
    ([node("Conv", "x w", pads=[30_000] * 4)], {"w": np.ones((4, 4, 9, 9), np.float32)}),
    ([node("ConvTranspose", "x w", strides=[900, 900])], {"w": np.ones((4, 4, 1, 1), np.float32)}),
]  # fmt: skip


@pytest.mark.parametrize(("nodes", "constants"), PASS_BOMBS)
def test_a_pass_is_bounded_by_the_photos_size(tmp_path, nodes, constants):
    assert "takes " in refusal(tmp_path, nodes, constants)


@pytest.mark.parametrize("kind", ["ConstantOfShape", "Expand", "Tile", "Pad", "Reshape"])
def test_sizes_that_depend_on_what_is_in_the_photo_are_refused(tmp_path, kind):
    """They may be anything, and are known only when it is too late."""
    number = [node("ReduceSum", "x", "sum", keepdims=0), node("Cast", "sum", "n0", to=TensorProto.INT64)]
    number.append(node("Reshape", "n0 one", "n"))
    last = node(kind, "n") if kind == "ConstantOfShape" else node(kind, "one n")
    assert "depends on what is in the photo" in refusal(tmp_path, [*number, last], {"one": ints(1)})


@pytest.mark.parametrize("divisor", [0, -1])
@pytest.mark.parametrize("kind", ["Div", "Mod"])
def test_divisions_that_end_the_process_are_refused(tmp_path, kind, divisor):
    """The lowest whole number by -1 is a signal, not an error."""
    known = [node("Cast", "x", "whole", to=TensorProto.INT64), node(kind, "whole d")]
    assert "whole numbers by" in refusal(tmp_path, known, {"d": ints(divisor)})
    unknown = [known[0], node(kind, "whole whole")]
    assert "whole numbers by" in refusal(tmp_path, unknown, {})


EMPTY: list[tuple[list[NodeProto], Arrays]] = [
    ([node("InstanceNormalization", "a b b")], {"a": np.ones((1, 4, 0, 8)), "b": np.ones(4)}),  # divides by none
    ([node("ConstantOfShape", "n", "a"), node("MatMul", "a b")],
     {"n": ints(20_000, 20_000, 0, 1), "b": np.ones((1, 20_000, 1, 1), np.float32)}),  # an offset for each product
    ([node("ConstantOfShape", "n", "a"), node("Split", "a", "y z", axis=0)], {"n": ints(2**30, 0)}),
    ([node("Conv", "a b", group=0)], {"a": np.ones((1, 0, 8, 8), np.float32), "b": np.ones((4, 1, 3, 3), np.float32)}),
]  # fmt: skip


@pytest.mark.parametrize(("nodes", "constants"), EMPTY)
def test_empty_tensors_that_operators_work_on_are_refused(tmp_path, nodes, constants):
    """They take no memory; what ONNX Runtime does over their other sizes does, or ends the process."""
    assert "the sizes (" in refusal(tmp_path, nodes, constants)


def test_a_size_that_a_graph_declares_is_followed_when_it_is_opened(tmp_path):
    """ONNX Runtime takes such a shape for a constant."""
    (tmp_path / "vae_encoder").mkdir()
    nodes = [
        node("Shape", "x", "n"),
        node("ConstantOfShape", "n", "c"),
        node("ReduceMax", "c", "m"),
        node("Add", "x m"),
    ]
    graph_file(tmp_path / "vae_encoder", nodes, {}, (1, 3, 40_000, 40_000))
    with pytest.raises(ValueError, match="vae_encoder/model.onnx takes "):
        onnx_budget.check_parts(tmp_path, ["vae_encoder"], tokens=77, side_px=64, latent_px=8)


def test_many_operators_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has more than 15,000 operators"):
        check_onnx(graph_file(tmp_path, [node("Identity", "x", "a"), *chain("Neg", 100_000)], {}, PHOTO))


def test_weights_that_are_named_again_and_again_are_counted_again(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"\0" * 4_000_000)
    path = graph_file(tmp_path, [node("Neg", "x")], {}, PHOTO)
    model = onnx.ModelProto.FromString(path.read_bytes())
    for index in range(100):
        tensor = model.graph.initializer.add(name=f"w{index}", dims=[10**6], data_type=TensorProto.FLOAT)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights.bin"), ("length", "4000000")):
            tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="takes 0.4 GB of weights from files of 0.0 GB"):
        check_onnx(path)


def test_sparse_tensors_are_refused(tmp_path):
    path = graph_file(tmp_path, [node("Neg", "x")], {}, PHOTO)
    model = onnx.ModelProto.FromString(path.read_bytes())
    values, places = numpy_helper.from_array(np.ones(1, np.float32), "s"), numpy_helper.from_array(ints(0), "s_indices")
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=values, indices=places, dims=[10**10]))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="has sparse tensors"):
        check_onnx(path)


FIELDS = {  # places of empty messages, by the numbers of the fields around them
    "nodes": (7, 1), "attributes": (7, 1, 5), "weights": (7, 5), "entries": (7, 5, 13), "inputs": (7, 11),
    "shapes": (7, 13), "metadata": (14,), "functions": (25,), "opsets": (8,), "training": (20,),
}  # fmt: skip


def field(number: int, content: bytes) -> bytes:
    tag, length, size = number << 3 | 2, len(content), b""
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    head = bytes([tag]) if tag < 128 else bytes([tag & 127 | 128, tag >> 7])
    return head + size + bytes([length]) + content


@pytest.mark.parametrize("place", FIELDS)
def test_millions_of_empty_parts_are_refused_before_they_are_read(tmp_path, place):
    """Two bytes in the file are forty in memory: it is done within less than they would take."""
    *around, last = FIELDS[place]
    data = field(last, b"") * 8_000_000
    for number in reversed(around):
        data = field(number, data)
    (tmp_path / "model.onnx").write_bytes(data)
    code = f"""
import resource
import google.protobuf.message
from chromatune.pipeline.onnx_checks import check_onnx
from pathlib import Path
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + {2 * len(data)} + (64 << 20),) * 2)
try:
    check_onnx(Path({str(tmp_path / "model.onnx")!r}))
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "has more than 2,000,000 parts" in done.stdout, done.stderr[-500:]


def test_the_shipped_models_fit_with_room_to_spare(monkeypatch):
    """At every size, with all branches of guidance: what is fine-tuned from them is as large."""
    for name in ("MOST_BYTES_PER_PIXEL", "MOST_OPERATIONS_PER_PIXEL", "MOST_BYTES", "MOST_OPERATIONS"):
        monkeypatch.setattr(onnx_budget, name, getattr(onnx_budget, name) // 4)
    monkeypatch.setattr(onnx_checks, "MOST_NODES", onnx_checks.MOST_NODES // 4)
    for folder in (MODELS_DIR / "mini", MODELS_DIR / "mini-base"):
        parts = [path.parent.name for path in folder.glob("*/model.onnx")]
        for side_px in (64, 256, 1024):
            onnx_budget.check_parts(folder, parts, tokens=77, side_px=side_px, latent_px=8)


def by_onnxruntime(path: Path, feeds: Arrays, names: Sequence[str]) -> Arrays:
    """All results of a graph's operators."""
    model = onnx.ModelProto.FromString(path.read_bytes())
    known = {each.name for each in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    whole = path.with_name("all.onnx")
    whole.write_bytes(model.SerializeToString())
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(whole, options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(list(names), feeds), strict=True))


HALF = np.array([2.5, -2.5, 7.0, -7.0], np.float32)
RULES: list[tuple[list[NodeProto], Arrays]] = [
    ([node("Conv", "x w", strides=[2, 3], pads=[1, 2, 3, 4], dilations=[2, 1])],
     {"w": np.ones((8, 4, 3, 2), np.float32)}),
    ([node("Conv", "x w", group=2, auto_pad="SAME_UPPER", strides=[2, 2])], {"w": np.ones((6, 2, 3, 3), np.float32)}),
    ([node("ConvTranspose", "x w", strides=[2, 3], pads=[1, 0, 2, 1], output_padding=[1, 2], group=2)],
     {"w": np.ones((4, 3, 3, 4), np.float32)}),
    ([node("MaxPool", "x", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1], ceil_mode=1)], {}),
    ([node("AveragePool", "x", kernel_shape=[5, 5], strides=[3, 3])], {}),
    ([node("GlobalAveragePool", "x")], {}),
    ([node("ReduceMean", "x axes", keepdims=0)], {"axes": ints(-1, 1)}),
    ([node("ReduceSum", "x", noop_with_empty_axes=1)], {}),
    ([node("ArgMax", "x", axis=2, keepdims=0)], {}),
    ([node("Flatten", "x", axis=-2)], {}),
    ([node("Unsqueeze", "x axes", "u"), node("Squeeze", "u", "s"), node("Squeeze", "u axes")], {"axes": ints(0, -1)}),
    ([node("Transpose", "x"), node("Transpose", "x", "z", perm=[0, 2, 3, 1])], {}),
    ([node("Split", "x", "y a b", axis=2, num_outputs=3)], {}),
    ([node("Split", "x sizes", "y a", axis=-1)], {"sizes": ints(5, 43)}),
    ([node("Slice", "x s e a t")], {"s": ints(-1, 2), "e": ints(-1000, 1000), "a": ints(3, 2), "t": ints(-2, 3)}),
    ([node("Gather", "x i", axis=-1)], {"i": np.zeros((2, 3), np.int64)}),
    ([node("GatherElements", "x i", axis=1)], {"i": np.zeros((1, 2, 3, 4), np.int64)}),
    ([node("GatherND", "x i")], {"i": np.zeros((5, 2), np.int64)}),
    ([node("Expand", "x n")], {"n": ints(3, 1, 1, 1, 48)}),
    ([node("Tile", "x n")], {"n": ints(2, 1, 3, 1)}),
    ([node("Pad", "x n")], {"n": ints(0, 0, 1, -3, 0, 0, 2, 5)}),
    ([node("Pad", "x n - axes")], {"n": ints(1, 2, 3, 4), "axes": ints(2, -1)}),
    ([node("Resize", "x - s", mode="linear")], {"s": np.array([1, 1, 1.37, 0.7], np.float32)}),
    ([node("Resize", "x - - n", mode="cubic")], {"n": ints(1, 4, 7, 99)}),
    ([node("OneHot", "i d v", axis=0)], {"i": ints(1, 2), "d": np.array(5), "v": np.array([0, 1], np.float32)}),
    ([node("DepthToSpace", "x", blocksize=2), node("SpaceToDepth", "x", "z", blocksize=4)], {}),
    ([node("Einsum", "x m", equation="abcd,de->abce")], {"m": np.ones((48, 3), np.float32)}),
    ([node("Reshape", "x n")], {"n": ints(0, -1, 6)}),
    ([node("LayerNormalization", "x g", "y m i", axis=2)], {"g": np.ones((32, 48), np.float32)}),
    ([node("DynamicQuantizeLinear", "x", "q s z"), node("DequantizeLinear", "q s z")], {}),
    ([node("DynamicQuantizeLinear", "x", "q s z"), node("MatMulInteger", "q w z")], {"w": np.ones((48, 5), np.int8)}),
    ([node("Range", "a b c"), node("Range", "d e f", "z")],
     {"a": np.array(2), "b": np.array(11), "c": np.array(3), "d": np.array(1, np.float32),
      "e": np.array(-1, np.float32), "f": np.array(-0.3, np.float32)}),
    ([node("FusedMatMul", "x x", domain="com.microsoft", transB=1)], {}),
    ([node("QuickGelu", "x", domain="com.microsoft")], {}),
    # Numbers that decide sizes
    ([node("Shape", "x", "n", start=1, end=-1), node("Mul", "n n", "a"), node("Div", "a seven", "b"),
      node("Sub", "b a", "c"), node("Div", "c seven", "d"), node("Min", "d b seven", "e"),
      node("Max", "d b seven", "f"),
      node("Concat", "d e f", "g", axis=0), node("Slice", "g i0 i2 - ", "h"), node("Neg", "g")],
     {"seven": ints(7), "i0": ints(1), "i2": ints(3)}),
    ([node("Floor", "h", "a"), node("Ceil", "h", "b"), node("Cast", "h", "c", to=7), node("Div", "h two", "d"),
      node("Greater", "h two", "e"), node("Where", "e a b", "f"), node("Not", "e", "g"), node("Cast", "f", "i", to=6),
      node("ReduceProd", "i", "j", keepdims=0), node("ReduceMax", "f zero", "k"), node("Gather", "f one", "l"),
      node("Tile", "f two64", "m"), node("Sqrt", "two", "n"), node("CastLike", "h one", "o"), node("Identity", "o")],
     {"h": HALF, "two": np.array([2], np.float32), "zero": ints(0), "one": ints(-1), "two64": ints(2)}),
]  # fmt: skip


@pytest.mark.parametrize(("nodes", "constants"), RULES)
def test_sizes_types_and_numbers_are_those_of_onnx_runtime(tmp_path, nodes, constants):
    names = [name for each in nodes for name in each.output]
    path = graph_file(tmp_path, nodes, constants, (None, 4, None, None), " ".join(names))
    budget = GraphBudget(check_onnx(path), tmp_path)
    known = budget._constants | {"x": Sized(PHOTO, FLOAT)}
    for each, rule in budget._varying:
        onnx_budget._apply(each, rule, known)
    found = by_onnxruntime(path, {"x": np.random.default_rng(0).normal(size=PHOTO).astype(np.float32)}, names)
    for name, array in found.items():
        sized = known[name]
        assert sized.dims == array.shape and NUMPY_TYPES[sized.type] == array.dtype, name
        if sized.value is not None:
            assert np.array_equal(sized.value, array), name
