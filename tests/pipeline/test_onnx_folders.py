"""A stranger's ONNX graphs: whatever is wrong with them is one line that names the file, and no operator runs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from chromatune.colorizer import Colorizer
from chromatune.errors import ModelError
from chromatune.options import make_options
from chromatune.pipeline.model_files import find_pipeline
from chromatune.pipeline.model_kinds import weights_hash
from chromatune.pipeline.onnx_backend import load_onnx_pipeline

UNET, ENCODER, TEXT = "unet/model.onnx", "vae_encoder/model.onnx", "text_encoder/model.onnx"
GRAPHS = (UNET, ENCODER, TEXT, "vae_decoder/model.onnx", "photo_encoder/model.onnx")
WEIGHTS = "diffusion_pytorch_model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"
HTML = b"\n<!DOCTYPE html><html><body>404</body></html>"
Spoil = Callable[[Path], object]


@pytest.fixture
def folder(graph_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a model with graphs, in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(graph_pipeline, tmp_path / "model")
    return Path("model")


def checked(error: ModelError) -> str:
    line = str(error)
    assert "\n" not in line and line.isprintable() and len(line) < 400, line
    assert line.startswith("model"), line
    return line


def refusal(folder: Path) -> str:
    """The one line that opening the folder ends in."""
    with pytest.raises(ModelError) as caught:
        Colorizer.load(str(folder), device="cpu", runtime="onnx")
    return checked(caught.value)


def edited(name: str, change: Callable[[onnx.ModelProto], object]) -> Spoil:
    """Changes a graph's message."""

    def spoil(folder: Path) -> None:
        model = onnx.ModelProto.FromString((folder / name).read_bytes())
        change(model)
        (folder / name).write_bytes(model.SerializeToString())

    return spoil


def external(**entries: str | int) -> Callable[[onnx.ModelProto], None]:
    """Changes where the U-Net's first tensor is taken from."""

    def change(model: onnx.ModelProto) -> None:
        (tensor,) = [each for each in model.graph.initializer if each.external_data]
        known = {entry.key: entry.value for entry in tensor.external_data} | {k: str(v) for k, v in entries.items()}
        del tensor.external_data[:]
        for key, value in known.items():
            if value:
                tensor.external_data.add(key=key, value=value)

    return change


def outside(location: str = "../secret", name: str = "stolen") -> TensorProto:
    """A tensor that is read from another folder."""
    tensor = TensorProto(name=name, dims=[1], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def test_the_folder_that_is_spoilt_below_is_whole(folder):
    result = Colorizer.load(str(folder), device="cpu").colorize(np.zeros((20, 20), np.uint8))
    assert result.runtime == "onnx"


@pytest.mark.parametrize("name", GRAPHS)
def test_another_graph_is_another_model(folder, name):
    """Results of the one must not be taken for those of the other."""
    before = weights_hash(str(folder))
    edited(name, lambda model: model.graph.node.add(op_type="Neg", input=["a"], output=["b"]))(folder)
    assert weights_hash(str(folder)) != before


def test_another_graph_in_a_folder_that_is_linked_is_another_model(folder, tmp_path):
    """Parts that models share may lie elsewhere."""
    before, elsewhere = weights_hash(str(folder)), tmp_path / "elsewhere"
    (folder / "vae_decoder").rename(elsewhere)
    (folder / "vae_decoder").symlink_to(elsewhere)
    assert weights_hash(str(folder)) == before
    with (elsewhere / "model.onnx").open("ab") as graph:
        graph.write(b"more")
    assert weights_hash(str(folder)) != before


@pytest.mark.parametrize(
    "name", ["unet/model.onnx_data", "vae_decoder/any name", "vae_decoder/weights.json", "tokenizer/merges.txt"]
)
def test_another_file_beside_a_graph_is_another_model(folder, name):
    """Graphs read weights from files of any name, of one length or another."""
    known = {weights_hash(str(folder))}
    for data in (b"one", b"two"):
        (folder / name).write_bytes(data)
        known.add(weights_hash(str(folder)))
    assert len(known) == 3
    (folder / "README.md").write_text("A model.")
    assert weights_hash(str(folder)) in known


@pytest.mark.parametrize("name", [*GRAPHS, "unet/more.bin"])
def test_a_pipe_is_no_file_of_a_model(folder, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(ModelError, match=f"{name} cannot be read"):
        weights_hash(str(folder))
    if name.endswith(".onnx"):
        with pytest.raises(ModelError, match=f"{name} is a pipe"):
            load_onnx_pipeline(find_pipeline(str(folder)))
    refusal(folder)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty (0 bytes)"),
        (POINTER, "is a git-lfs pointer"),
        (HTML, "is a web page"),
        (b"nonsense" * 99, "is no ONNX graph"),
        (b"\x08\x07", "it has no operators"),
        (b"PK\x03\x04" + b"\0" * 99, "is no ONNX graph"),
    ],
)
def test_files_that_are_no_graphs_are_named(folder, name, data, said):
    (folder / name).write_bytes(data)
    line = refusal(folder)
    assert line.startswith(f"model: {name} ") and said in line and "download the model again" in line


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("keep", [0.99, 0.5, 0.02])
def test_a_broken_download_is_named(folder, name, keep):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * keep)])
    assert refusal(folder).startswith(f"model: {name} ")


def nested(depth: int) -> bytes:
    """Graphs inside the attributes of each other's only node."""
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [], [])
    data = graph.SerializeToString()

    def field(number: int, content: bytes) -> bytes:
        size, length = b"", len(content)
        while length > 127:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + content

    for _ in range(depth):
        data = field(1, field(5, field(6, data)))  # graph.node.attribute.g
    return field(7, data)


@pytest.mark.parametrize("name", [b"conv_in.weight", WEIGHTS.encode(), b"location", b"Conv", b"sample"])
def test_names_that_are_no_text_are_one_line(folder, name, capfd):
    """ONNX Runtime prints them, and protobuf gives them as bytes."""
    data = (folder / UNET).read_bytes()
    assert name in data
    (folder / UNET).write_bytes(data.replace(name, b"\xa7" + name[1:]))
    assert "is no ONNX graph" in refusal(folder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("depth", [40, 1000, 20_000])
def test_deep_nesting_is_one_line(folder, depth):
    (folder / UNET).write_bytes(nested(depth))
    assert refusal(folder).startswith(f"model: {UNET} ")


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("../secret", "accepted: a file beside it"),
        ("../vae/" + WEIGHTS, "accepted: a file beside it"),
        ("/etc/passwd", "accepted: a file beside it"),
        ("sub/secret", "accepted: a file beside it"),
        ("./" + WEIGHTS, "accepted: a file beside it"),
        (WEIGHTS + "/", "accepted: a file beside it"),
        ("..\\secret", "accepted: a file beside it"),
        ("C:\\secret", "accepted: a file beside it"),
        ("..", "accepted: a file beside it"),
        (".", "accepted: a file beside it"),
        ("", "accepted: a file beside it"),
        ("*/_ORT_MEM_ADDR_/*", "accepted: a file beside it"),  # ONNX Runtime would read this process's memory
        ("gone.bin", "which is missing"),
        ("sub", "which is missing"),
        ("a\nb\x1b[31m", "which is missing"),
        ("x" * 5000, "cannot be read"),
    ],
)
def test_weights_are_read_beside_the_graph_alone(folder, location, said):
    (folder / "secret").write_bytes(b"\0" * 10**6)
    (folder / "unet" / "sub").mkdir()
    (folder / "unet" / "sub" / "secret").write_bytes(b"\0" * 10**6)
    edited(UNET, external(location=location, offset=0))(folder)
    line = refusal(folder)
    assert line.startswith(f"model: {UNET} takes weights from ") and said in line


@pytest.mark.parametrize("target", ["../../elsewhere.bin", "../secret"])
def test_a_link_to_outside_is_not_followed(folder, target):
    for place in (Path("elsewhere.bin"), folder / "secret"):
        place.write_bytes(b"\0" * 10**6)
    (folder / "unet" / "link.bin").symlink_to(target)
    edited(UNET, external(location="link.bin", offset=0))(folder)
    assert "takes weights from 'link.bin'" in refusal(folder)


def test_the_hubs_own_links_are_followed(folder, monkeypatch):
    """Snapshots in its cache are links to blobs."""
    snapshot, blobs = Path("models--a--b/snapshots/0123/model"), Path("models--a--b/blobs")
    blobs.mkdir(parents=True)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        blob, link = blobs / str(abs(hash(path))), snapshot / path.relative_to(folder)
        path.rename(blob)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    assert Colorizer.load(str(snapshot), device="cpu").backend.runtime == "onnx"


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"offset": 10**9}, "from beyond the end"),
        ({"offset": 10**20}, "from beyond the end"),
        ({"offset": 10**40}, "gives no numbers"),
        ({"length": 10**9}, "from beyond the end"),
        ({"offset": -8}, "from beyond the end"),
        ({"length": -1}, "from beyond the end"),
        ({"offset": "many"}, "gives no numbers"),
        ({"length": "0x10"}, "gives no numbers"),
        ({"offset": "9" * 9999}, "gives no numbers"),
        ({"offset": "1_0"}, "gives no numbers"),
        ({"offset": " 8"}, "gives no numbers"),
        ({"length": 4}, "fewer are stored"),
    ],
)
def test_weights_lie_inside_their_file(folder, entries, said):
    edited(UNET, external(**entries))(folder)
    line = refusal(folder)
    assert line.startswith(f"model: {UNET} ") and said in line


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "is empty"), (POINTER, "is a git-lfs pointer"), (HTML, "is a web page"), (b"\0" * 4000, "no safetensors")],
)
def test_weights_beside_a_graph_are_weights(folder, data, said):
    (folder / "vae_decoder" / "own.safetensors").write_bytes(data)

    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(outside("own.safetensors"))

    edited("vae_decoder/model.onnx", change)(folder)
    line = refusal(folder)
    assert (
        line.startswith("model: vae_decoder/model.onnx takes weights from 'own.safetensors', which ") and said in line
    )


@pytest.mark.parametrize("keep", [0.999, 0.5, 0.0])
def test_weights_that_are_cut_short_are_named(folder, keep):
    data = (folder / "unet" / WEIGHTS).read_bytes()
    (folder / "unet" / WEIGHTS).write_bytes(data[: int(len(data) * keep)])
    assert refusal(folder).startswith(f"model: unet/{WEIGHTS} ")


def add_node(kind: str, domain: str = "", **attributes: Any) -> Callable[[onnx.ModelProto], None]:
    """Adds an operator that nobody needs."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.node.insert(0, helper.make_node(kind, ["sample"], ["unused"], domain=domain, **attributes))
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return change


BODY = helper.make_graph([helper.make_node("Identity", ["c"], ["c2"])], "body", [], [])
INNER = helper.make_graph([helper.make_node("Loop", ["a", "b"], ["c"], body=BODY)], "inner", [], [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (add_node("Anything", "org.stranger"), "'org.stranger::Anything', which is not run here"),
        (add_node("PyOp", "ai.onnx.contrib"), "'ai.onnx.contrib::PyOp', which is not run here"),
        (add_node("EPContext", "com.microsoft", ep_cache_context="../secret"), "EPContext', which is not run here"),
        (add_node("Loop", body=BODY), "'Loop', which is not run here"),
        (add_node("Scan", body=BODY, num_scan_inputs=1), "'Scan', which is not run here"),
        (add_node("If", then_branch=INNER, else_branch=BODY), "'If', which is not run here"),
        (add_node("SequenceMap", body=BODY), "'SequenceMap', which is not run here"),
        (add_node("Sampling", "com.microsoft"), "'com.microsoft::Sampling', which is not run here"),
        (add_node("NoSuchOperator"), "'NoSuchOperator', which is not run here"),
        (lambda model: model.graph.node.add(op_type="a\nb\x1b[31m", domain="\n"), "which is not run here"),
    ],
)
def test_operators_that_are_not_ours_are_never_run(folder, change, said):
    edited(UNET, change)(folder)
    line = refusal(folder)
    assert line.startswith(f"model: {UNET} ") and said in line


def hide_in_function(model: onnx.ModelProto) -> None:
    """A function of the model's own with an operator inside, called by nobody."""
    node = helper.make_node("Constant", [], ["o"], value=outside())
    model.functions.append(helper.make_function("own", "F", [], ["o"], [node], [helper.make_opsetid("", 20)]))


def hide_in_default(model: onnx.ModelProto) -> None:
    """The default of a function's attribute."""
    node, default = helper.make_node("Constant", [], ["o"]), helper.make_attribute("value", outside())
    node.attribute.add(name="value", ref_attr_name="value", type=onnx.AttributeProto.TENSOR)
    opsets = [helper.make_opsetid("", 20)]
    made = helper.make_function("own", "F", [], ["o"], [node], opsets, attribute_protos=[default])
    model.functions.append(made)


def hide_in_branch(model: onnx.ModelProto) -> None:
    branch = helper.make_graph([helper.make_node("Identity", ["stolen"], ["o"])], "b", [], [], [outside()])
    model.graph.node.add(op_type="If", input=["sample"], output=["unused"]).attribute.extend(
        [helper.make_attribute("then_branch", branch), helper.make_attribute("else_branch", BODY)]
    )


def hide_in_constant(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Constant", [], ["o"], value=outside()))


def hide_in_sparse(model: onnx.ModelProto) -> None:
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "stolen_indices")
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=outside(), indices=indices, dims=[4]))


def hide_in_sparse_constant(model: onnx.ModelProto) -> None:
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "stolen_indices")
    sparse = onnx.SparseTensorProto(values=outside(), indices=indices, dims=[4])
    model.graph.node.insert(0, helper.make_node("Constant", [], ["o"], sparse_value=sparse))


def hide_in_training(model: onnx.ModelProto) -> None:
    training = model.training_info.add()
    training.initialization.initializer.append(outside())


@pytest.mark.parametrize(
    "hide",
    [hide_in_function, hide_in_default, hide_in_branch, hide_in_constant, hide_in_sparse, hide_in_sparse_constant,
     hide_in_training],
)  # fmt: skip
def test_nothing_outside_is_read_from_any_corner_of_a_graph(folder, hide):
    (folder / "secret").write_bytes(b"\0" * 64)
    edited(UNET, hide)(folder)
    line = refusal(folder)
    assert line.startswith(f"model: {UNET} ")
    assert "takes weights from '../secret'" in line or "functions of its own" in line or "operator 'If'" in line, line


def test_functions_that_call_each_other_twice_are_refused(folder):
    """Opened out by ONNX Runtime, forty of them are a billion operators."""

    def change(model: onnx.ModelProto) -> None:
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        for index in range(40):
            twice = [("a", "c"), ("c", "b")]
            nodes = [helper.make_node(f"F{index + 1}", [x], [y], domain="com.microsoft") for x, y in twice]
            model.functions.append(helper.make_function("com.microsoft", f"F{index}", ["a"], ["b"], nodes, opsets))

    edited(UNET, change)(folder)
    assert "has functions of its own, such as 'F0'" in refusal(folder)


def bomb(kind: str, *inputs: str, shape: list[int], **attributes: Any) -> Callable[[onnx.ModelProto], None]:
    """Adds something of a size that no machine has to the U-Net's answer."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), "huge"))
        model.graph.node[-1].input[0] = "blown"
        model.graph.node.insert(len(model.graph.node) - 1, helper.make_node(kind, [*inputs], ["boom"], **attributes))
        model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Add", ["z", "boom"], ["blown"]))

    return change


@pytest.mark.parametrize(
    "change",
    [
        bomb("ConstantOfShape", "huge", shape=[1 << 42]),
        bomb("ConstantOfShape", "huge", shape=[1 << 40, 1 << 40]),
        bomb("Expand", "timestep", "huge", shape=[1 << 42]),
        bomb("Tile", "timestep", "huge", shape=[1 << 42]),
        bomb("Expand", "small", "huge", shape=[-5]),
    ],
)
def test_shapes_that_no_machine_has_room_for_end_in_one_line(folder, change):
    edited(UNET, change)(folder)
    assert refusal(folder).startswith(f"model: {UNET} ")


def test_each_new_size_of_a_pass_is_checked_before_it_runs(folder):
    """What is harmless at the model's own size may be a bomb at another one."""

    def change(model: onnx.ModelProto) -> None:
        (given,), (made,) = model.graph.input, model.graph.output
        own = json.loads((folder / "chromatune.json").read_text())["size_px"] // 8
        for name, number in (("axis", 3), ("own", own), ("many", 10**8), ("one", 1)):
            model.graph.initializer.append(numpy_helper.from_array(np.array([number], np.int64), name))
        model.graph.node[-1].output[0] = "whole"
        steps = [
            ("Shape", [given.name], "sizes"), ("Gather", ["sizes", "axis"], "width"), ("Sub", ["width", "own"], "more"),
            ("Mul", ["more", "many"], "much"), ("Max", ["much", "one"], "size"), ("Expand", ["one", "size"], "huge"),
        ]  # fmt: skip
        model.graph.node.extend(helper.make_node(kind, inputs, [output]) for kind, inputs, output in steps)
        model.graph.node.append(helper.make_node("ReduceMin", ["huge"], ["least"], keepdims=0))
        model.graph.node.append(helper.make_node("CastLike", ["least", "whole"], ["factor"]))
        model.graph.node.append(helper.make_node("Mul", ["whole", "factor"], [made.name]))

    edited("vae_decoder/model.onnx", change)(folder)
    colorizer = Colorizer.load(str(folder), device="cpu", runtime="onnx")
    colorizer.colorize(np.zeros((40, 40), np.uint8))
    with pytest.raises(ModelError, match="cannot be used .takes .* GB and more in a pass, at Expand") as caught:
        colorizer.colorize(np.zeros((40, 80), np.uint8))
    checked(caught.value)


@pytest.mark.parametrize("dims", [[1 << 40], [1 << 62, 4], [-1], [0], [16, 8, 3, 4]])
@pytest.mark.parametrize("inside", [True, False])
def test_weights_with_more_numbers_than_are_stored_are_refused(folder, dims, inside):
    def change(model: onnx.ModelProto) -> None:
        tensor = next(each for each in model.graph.initializer if bool(each.external_data) != inside)
        tensor.dims[:] = dims

    edited(UNET, change)(folder)
    assert refusal(folder).startswith(f"model: {UNET} ")


def without(*names: str) -> Callable[[onnx.ModelProto], None]:
    """Takes inputs away, and puts constants in their place."""

    def change(model: onnx.ModelProto) -> None:
        for name in names:
            (given,) = [each for each in model.graph.input if each.name == name]
            rank = len(given.type.tensor_type.shape.dim)
            model.graph.input.remove(given)
            model.graph.initializer.append(numpy_helper.from_array(np.zeros([1] * rank, np.float32), name))

    return change


def renamed(old: str, new: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for value in (*model.graph.input, *model.graph.output):
            value.name = new if value.name == old else value.name
        for node in model.graph.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    names[index] = new if name == old else name

    return change


def resized(name: str, axis: int, size: int) -> Callable[[onnx.ModelProto], None]:
    """Declares another size of an input or output."""

    def change(model: onnx.ModelProto) -> None:
        (given,) = [each for each in (*model.graph.input, *model.graph.output) if each.name == name]
        given.type.tensor_type.shape.dim[axis].dim_value = size

    return change


def extra_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def string_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.STRING, [1]))


def no_output(model: onnx.ModelProto) -> None:
    del model.graph.output[:]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (UNET, without("timestep")),
        (UNET, without("encoder_hidden_states")),
        (UNET, without("residual_0")),
        (UNET, renamed("sample", "picture")),
        (UNET, extra_input),
        (UNET, string_input),
        (UNET, no_output),
        (ENCODER, no_output),
        (ENCODER, extra_input),
        (TEXT, extra_input),
        ("vae_decoder/model.onnx", extra_input),
        (UNET, renamed("residual_0", "residual_9")),
        ("photo_encoder/model.onnx", extra_input),
    ],
)
def test_a_graph_takes_and_gives_what_a_models_part_does(folder, name, change):
    edited(name, change)(folder)
    line = refusal(folder)
    assert line.startswith(f"model: {name} "), line


def swap(one: str, other: str) -> Spoil:
    def spoil(folder: Path) -> None:
        data = (folder / one).read_bytes()
        (folder / one).write_bytes((folder / other).read_bytes())
        (folder / other).write_bytes(data)

    return spoil


@pytest.mark.parametrize(
    ("one", "other"),
    [(ENCODER, "vae_decoder/model.onnx"), (ENCODER, "photo_encoder/model.onnx"), (TEXT, ENCODER)],
)
def test_graphs_in_each_others_folders_are_named(folder, one, other):
    swap(one, other)(folder)
    refusal(folder)


def three_channels(model: onnx.ModelProto) -> None:
    (weight,) = [each for each in model.graph.initializer if each.name == "w"]
    weight.CopyFrom(numpy_helper.from_array(np.zeros((3, 16, 3, 3), np.float32), "w"))
    resized("out_sample", 1, 3)(model)


def wider_text(model: onnx.ModelProto) -> None:
    (words,) = model.graph.initializer
    words.CopyFrom(numpy_helper.from_array(np.zeros((60, 24), np.float32), words.name))
    resized("last_hidden_state", 2, 24)(model)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (UNET, resized("sample", 1, 4)),
        (UNET, three_channels),
        (UNET, resized("residual_0", 1, 5)),
        (UNET, resized("encoder_hidden_states", 2, 24)),
        (TEXT, wider_text),
        (ENCODER, resized("sample", 1, 1)),
        (ENCODER, resized("sample", 2, 64)),
    ],
)
def test_parts_of_another_model_are_one_line(folder, name, change):
    """Told when the folder is opened where the graphs say it, else at the first pass."""
    edited(name, change)(folder)
    photo = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    with pytest.raises(ModelError) as caught:
        Colorizer.load(str(folder), device="cpu", runtime="onnx").colorize(photo)
    checked(caught.value)


def test_a_model_that_gives_no_numbers_is_one_line(folder):
    def change(model: onnx.ModelProto) -> None:
        (weight,) = model.graph.initializer
        weight.CopyFrom(numpy_helper.from_array(np.full((4, 3, 8, 8), np.nan, np.float32), weight.name))

    edited("vae_decoder/model.onnx", change)(folder)
    with pytest.raises(ModelError, match="returned NaN or infinite values"):
        Colorizer.load(str(folder), device="cpu").colorize(np.zeros((20, 20), np.uint8))


def shape_of(size: int) -> Callable[[onnx.ModelProto], None]:
    """A picture of another size than the one that is asked for."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = "whole"
        ends = numpy_helper.from_array(np.array([size], np.int64), "ends")
        model.graph.initializer.extend([ends, numpy_helper.from_array(np.array([0], np.int64), "starts"),
                                        numpy_helper.from_array(np.array([2], np.int64), "axis")])  # fmt: skip
        model.graph.node.append(helper.make_node("Slice", ["whole", "starts", "ends", "axis"], ["sample"]))

    return change


@pytest.mark.parametrize("size", [0, 1, 8])
def test_a_picture_of_another_size_is_one_line(folder, size):
    edited("vae_decoder/model.onnx", shape_of(size))(folder)
    with pytest.raises(ModelError) as caught:
        Colorizer.load(str(folder), device="cpu", runtime="onnx").colorize(np.zeros((40, 40), np.uint8))
    checked(caught.value)


def set_json(name: str, **changes: object) -> Spoil:
    def spoil(folder: Path) -> None:
        known = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(known | changes))

    return spoil


def emptied(name: str) -> Spoil:
    return lambda folder: (folder / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (emptied("tokenizer/tokenizer.json"), "tokenizer/tokenizer.json is empty"),
        (set_json("tokenizer/tokenizer.json", model={"type": "BPE", "vocab": {"a": 0}}), "tokenizer/tokenizer.json"),
        (set_json("tokenizer/tokenizer.json", model={"vocab": {"a": -1}}), "tokenizer/tokenizer.json"),
        (set_json("tokenizer/tokenizer_config.json", pad_token="nowhere"), "pad_token"),
        (set_json("tokenizer/tokenizer_config.json", model_max_length=10**30), "model_max_length"),
        (set_json("tokenizer/tokenizer_config.json", model_max_length=512), "model_max_length"),
        (set_json("tokenizer/tokenizer_config.json", model_max_length=None), "model_max_length"),
        (set_json("scheduler/scheduler_config.json", prediction_type="flow"), "prediction_type"),
        (set_json("scheduler/scheduler_config.json", trained_betas=[]), "scheduler"),
        (set_json("scheduler/scheduler_config.json", trained_betas=[0.1] * 3), "scheduler"),
        (set_json("scheduler/scheduler_config.json", clip_sample_range="wide"), "scheduler"),
        (set_json("scheduler/scheduler_config.json", clip_sample_range=[]), "scheduler"),
        (set_json("scheduler/scheduler_config.json", steps_offset=1000), "scheduler"),
        (set_json("scheduler/scheduler_config.json", num_train_timesteps=1), "timesteps"),
        (set_json("scheduler/scheduler_config.json", beta_schedule=["linear"]), "beta_schedule"),
        (set_json("vae/config.json", block_out_channels=[]), "vae/config.json"),
        (set_json("vae/config.json", scaling_factor=0), "scaling_factor"),
        (set_json("unet/config.json", block_out_channels=[16] * 100), "block_out_channels"),
        (set_json("chromatune.json", steps=0), "steps"),
        (set_json("photo_encoder/config.json", places=[]), "places"),
    ],
)
def test_settings_beside_graphs_are_checked_as_those_of_any_model(folder, spoil, said):
    spoil(folder)
    with pytest.raises(ModelError) as caught:
        Colorizer.load(str(folder), device="cpu", runtime="onnx").colorize(
            np.zeros((20, 20), np.uint8), make_options(steps=2)
        )
    assert said in checked(caught.value)


@pytest.mark.parametrize("name", [*GRAPHS, "tokenizer/tokenizer.json"])
def test_a_folder_that_lacks_a_file_of_the_light_runtime_is_torchs(folder, name):
    """All other files are there, so torch runs it; insisting is one line."""
    (folder / name).unlink()
    with pytest.raises(ModelError, match="has no ONNX parts|has no tokenizer.json") as caught:
        Colorizer.load(str(folder), device="cpu", runtime="onnx")
    checked(caught.value)


def test_an_absent_graph_is_named_where_the_others_are_opened(folder):
    (folder / UNET).unlink()
    with pytest.raises(ModelError, match=f"model: {UNET} is missing"):
        load_onnx_pipeline(find_pipeline("model"))
