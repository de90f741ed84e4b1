"""Checks of untrusted ONNX graphs: the files before ONNX Runtime opens them, then their inputs and outputs.

The message types are a part of ONNX's own schema (github.com/onnx/onnx, onnx/onnx.proto), just large enough to be
checked; what is not declared here is skipped. The package `onnx` would read all of it, and is as large as a model.
"""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePath
from typing import Any, TypeAlias, TypeVar

from chromatune.errors import shown
from chromatune.files import read_regular
from chromatune.pipeline.checks import LFS_POINTER, read_header
from chromatune.pipeline.model_files import PHOTO_ENCODER
from chromatune.pipeline.onnx_operators import ITEM_BYTES, RULES

GRAPH_FILE = "model.onnx"
LARGEST_GRAPH_BYTES = (2 << 30) - 1  # protobuf's own limit
# The U-Net of SD 1.5, exported operator by operator, has 5,000 to 10,000 of them; ONNX Runtime's time to open a graph
# grows with their square
MOST_NODES = 15_000
NO_GRAPH = "is no ONNX graph, or cut short"
DEEPEST = 100  # messages inside each other; protobuf's own limit
MOST_PARTS = 2_000_000  # fields of messages; that U-Net has some 300,000
NUMBER = re.compile(r"-?[0-9]{1,30}")  # as ONNX Runtime reads it, unlike Python: no spaces, no underscores

# Of an input or output, as a graph declares it: sizes, names of sizes that vary, or nothing where it does not say
Shape: TypeAlias = Sequence[Any] | None
Signature: TypeAlias = Mapping[str, Shape]
T = TypeVar("T")

RESIDUAL = "residual_{}"  # input of the U-Net and output of the photo encoder, one for each place
UNET_INPUTS = ("sample", "timestep", "encoder_hidden_states")
PICTURES, LATENTS = (None, 3, None, None), (None, 4, None, None)
# The only input and the first output of the others; None is any size, several numbers are any of them
SIMPLE: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "text_encoder": ((None, None), (None, None, None)),
    "vae_encoder": (PICTURES, (None, (4, 8), None, None)),
    "vae_decoder": (LATENTS, PICTURES),
    PHOTO_ENCODER: (PICTURES, (None, None, None, None)),
}

# message: field, its number, its type (a message of this schema or one of `_PLAIN`), whether it is repeated. All
# messages of ONNX are here, as ONNX Runtime reads them all.
_SCHEMA: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
    "Model": (
        ("ir_version", 1, "int64", False), ("graph", 7, "Graph", False), ("opset", 8, "Opset", True),
        ("metadata", 14, "Entry", True), ("training", 20, "Training", True), ("functions", 25, "Function", True),
        ("devices", 26, "Devices", True),
    ),
    "Opset": (("domain", 1, "string", False), ("version", 2, "int64", False)),
    "Training": (
        ("initialization", 1, "Graph", False), ("algorithm", 2, "Graph", False), ("bindings", 3, "Entry", True),
        ("updates", 4, "Entry", True),
    ),
    "Function": (
        ("name", 1, "string", False), ("node", 7, "Node", True), ("opset", 9, "Opset", True),
        ("attribute", 11, "Attribute", True), ("value", 12, "Value", True), ("metadata", 14, "Entry", True),
    ),
    "Devices": (("name", 1, "string", False), ("device", 3, "string", True)),
    "Graph": (
        ("node", 1, "Node", True), ("name", 2, "string", False), ("initializer", 5, "Tensor", True),
        ("input", 11, "Value", True), ("output", 12, "Value", True),
        ("value", 13, "Value", True), ("quantization", 14, "Quantization", True),
        ("sparse", 15, "Sparse", True), ("metadata", 16, "Entry", True),
    ),
    "Quantization": (("name", 1, "string", False), ("entry", 2, "Entry", True)),
    "Node": (
        ("input", 1, "string", True), ("output", 2, "string", True), ("name", 3, "string", False),
        ("op_type", 4, "string", False), ("attribute", 5, "Attribute", True),
        ("domain", 7, "string", False), ("metadata", 9, "Entry", True),
        ("devices", 10, "Placing", True),
    ),
    "Placing": (("name", 1, "string", False), ("spec", 2, "Sharding", True)),
    "Sharding": (("name", 1, "string", False), ("device", 2, "int64", True), ("map", 3, "Sharded", True),
                 ("dim", 4, "Sharded", True)),
    "Sharded": (("number", 1, "int64", False), ("inner", 2, "Sharded", True)),
    "Attribute": (
        ("name", 1, "string", False), ("f", 2, "float", False), ("i", 3, "int64", False), ("s", 4, "bytes", False),
        ("t", 5, "Tensor", False), ("g", 6, "Graph", False), ("floats", 7, "float", True), ("ints", 8, "int64", True),
        ("strings", 9, "bytes", True), ("tensors", 10, "Tensor", True), ("graphs", 11, "Graph", True),
        ("tp", 14, "Type", False), ("tps", 15, "Type", True), ("sparse", 22, "Sparse", False),
        ("sparses", 23, "Sparse", True),
    ),
    "Sparse": (("values", 1, "Tensor", False), ("indices", 2, "Tensor", False), ("dims", 3, "int64", True)),
    "Tensor": (
        ("dims", 1, "int64", True), ("data_type", 2, "int64", False), ("segment", 3, "Opset", False),
        ("float_data", 4, "float", True), ("int32_data", 5, "int32", True), ("string_data", 6, "bytes", True),
        ("int64_data", 7, "int64", True), ("name", 8, "string", False), ("raw_data", 9, "bytes", False),
        ("double_data", 10, "double", True), ("uint64_data", 11, "uint64", True),
        ("external_data", 13, "Entry", True), ("metadata", 16, "Entry", True),
    ),
    "Entry": (("key", 1, "string", False), ("value", 2, "string", False)),
    "Value": (("name", 1, "string", False), ("type", 2, "Type", False), ("metadata", 4, "Entry", True)),
    "Type": (
        ("tensor", 1, "TensorType", False), ("sequence", 4, "Holder", False), ("map", 5, "Holder", False),
        ("sparse", 8, "TensorType", False), ("optional", 9, "Holder", False),
    ),
    "Holder": (("type", 1, "Type", False), ("value", 2, "Type", False)),
    "TensorType": (("elem", 1, "int64", False), ("shape", 2, "Dimensions", False)),
    "Dimensions": (("dim", 1, "Dimension", True),),
    "Dimension": (("value", 1, "int64", False), ("param", 2, "string", False)),
}  # fmt: skip
_PLAIN = {"double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "string": 9, "bytes": 12}  # protobuf's numbers
# Fields that hold messages or text, or take more in memory than in the file, by their numbers
_COUNTED = ("int64", "int32", "uint64")
_INNER: dict[str, dict[int, str]] = {
    message: {number: kind for _, number, kind, _ in fields if kind in (*_SCHEMA, *_COUNTED, "string")}
    for message, fields in _SCHEMA.items()
}


def check_onnx(path: Path) -> Any:
    """Check that an ONNX file is whole, of known operators, and reads no weights but those in its own folder.

    Returns:
        The graph's message, for `onnx_budget`.

    Raises:
        ValueError: it is not; the text says what it is instead.
    """
    data = _read(path)
    _check_parts(data)
    model = _parsed(data)
    if not model.graph.node:
        raise ValueError("is no ONNX graph: it has no operators")
    if model.functions:  # a few that call each other twice would be opened out to billions of operators
        raise ValueError(f"has functions of its own, such as {shown(model.functions[0].name)}, which are not run here")
    nodes, lengths, taken, sparse = 0, dict[str, int](), 0, False
    for message in _messages(model):
        kind = message.DESCRIPTOR.name
        if kind == "Node":
            nodes += 1
            if nodes > MOST_NODES:
                raise ValueError(f"has more than {MOST_NODES:,} operators")
            if (message.domain, message.op_type) not in RULES:
                name = f"{message.domain}::{message.op_type}" if message.domain else message.op_type
                raise ValueError(f"has the operator {shown(name)}, which is not run here")
        elif kind == "Tensor" and message.external_data:
            taken += _check_external(message, path.parent, lengths)
        sparse = sparse or kind == "Sparse"
    if sparse:
        raise ValueError("has sparse tensors, which are not run here")
    if taken > 2 * sum(lengths.values()):  # each time it is named, a weight takes memory
        raise ValueError(f"takes {taken / 1e9:.1f} GB of weights from files of {sum(lengths.values()) / 1e9:.1f} GB")
    return model.graph


def check_whole(path: Path) -> None:
    """Check that an ONNX file of the package itself is there, and not cut short.

    Raises:
        ValueError: it is not; the text says what it is instead.
    """
    _parsed(_read(path))


def _read(path: Path) -> bytes:
    try:
        data = read_regular(path, LARGEST_GRAPH_BYTES)
    except FileNotFoundError:
        raise ValueError("is missing") from None
    except OSError as error:
        reason = "is larger than 2 GB, which no graph is" if error.errno == errno.EFBIG else ""
        raise ValueError(reason or f"cannot be read ({error.strerror})") from None
    if not data:
        raise ValueError("is empty (0 bytes)")
    if data.startswith(LFS_POINTER):
        raise ValueError("is a git-lfs pointer, not the graph itself (`git lfs pull` fetches it)")
    if data.lstrip()[:1] == b"<":
        raise ValueError("is a web page, not an ONNX graph")
    return data


def _parsed(data: bytes) -> Any:
    from google.protobuf.message import DecodeError

    model = _message("Model")()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise ValueError(NO_GRAPH) from None
    return model


def signature_problem(signatures: Mapping[str, tuple[Signature, Signature]]) -> tuple[str, str] | None:
    """Return the part whose graph does not fit a model, and why; None if all do.

    Args:
        signatures: inputs and outputs of each part.
    """
    for part, (inputs, outputs) in signatures.items():
        if part == "unet":
            continue
        expected_input, expected_output = SIMPLE[part]
        if len(inputs) != 1 or not outputs:
            return part, f"takes {_names(inputs)} and gives {_names(outputs)}, and not one thing for another"
        for expected, (name, shape) in zip(
            (expected_input, expected_output), (next(iter(inputs.items())), next(iter(outputs.items()))), strict=True
        ):
            if not _fits(shape, expected):
                return part, f"has {shown(name)} of the shape {_text(shape)}, and not {_text(expected)}"
    problem = _unet_problem(signatures)
    return ("unet", problem) if problem else None


def residuals_of(named: Mapping[str, T]) -> dict[str, T]:
    """Return the residuals among inputs or outputs."""
    return {name: each for name, each in named.items() if name.startswith(RESIDUAL.format(""))}


def _check_external(tensor: Any, folder: Path, lengths: dict[str, int]) -> int:
    """Check one tensor's place in a file beside the graph, and return its bytes; `lengths` has the files' sizes."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not location or PurePath(location).name != location or "\\" in location or location in (".", ".."):
        raise ValueError(f"takes weights from {shown(location)}; accepted: a file beside it")
    if location not in lengths:
        lengths[location] = _length(folder / location)
    numbers = [entries.get(key, "0") for key in ("offset", "length")]
    if not all(NUMBER.fullmatch(number) for number in numbers):
        raise ValueError(f"gives no numbers for where {shown(tensor.name)} is in {shown(location)}")
    offset, length = map(int, numbers)
    length = length or math.prod(tensor.dims) * ITEM_BYTES.get(tensor.data_type, 1)  # as ONNX Runtime does
    if offset < 0 or length < 0 or offset + length > lengths[location]:
        raise ValueError(f"takes {shown(tensor.name)} from beyond the end of {shown(location)}")
    return length


def _length(file: Path) -> int:
    """Return the size in bytes of a file of weights beside a graph, if it is one."""
    try:
        if not file.is_file() or file.is_symlink() and not _stored_by_hub(file):
            raise ValueError("is missing")
        if file.suffix == ".safetensors":  # a graph would read a web page or a cut file as numbers
            read_header(file)
        return file.stat().st_size
    except OSError as error:  # its name is too long, or it may not be read
        problem = f"cannot be read ({error.strerror})"
    except ValueError as error:
        problem = str(error)
    raise ValueError(f"takes weights from {shown(file.name)}, which {problem}")


def _stored_by_hub(file: Path) -> bool:
    """Return whether a link points into the hub's own cache, whose snapshots are links to `../../blobs`."""
    snapshots = [parent for parent in file.absolute().parents if parent.name == "snapshots"]
    return any(file.resolve().parent == parent.parent.resolve() / "blobs" for parent in snapshots)


def _check_parts(data: bytes) -> None:
    """Check, before a graph is parsed, that its names are text, and how many parts it has.

    An empty part takes two bytes in the file, and forty in memory.

    Raises:
        ValueError: there are more than any model has, or the file is cut short, or none of protobuf's.
    """
    try:
        parts = _count_parts(data)
    except (IndexError, UnicodeDecodeError):
        raise ValueError(NO_GRAPH) from None
    if parts > MOST_PARTS:
        raise ValueError(f"has more than {MOST_PARTS:,} parts, which no graph has")


def _count_parts(data: bytes) -> int:
    around: list[tuple[int, str]] = []  # ends and messages that the present one is in
    place, end, message, parts = 0, len(data), "Model", 0
    while place < end or around:
        if place >= end:
            if place > end:
                raise IndexError(place)
            end, message = around.pop()
            continue
        tag, place = _number_at(data, place)
        parts += 1
        if parts > MOST_PARTS:
            return parts
        match tag & 7:
            case 0:
                _, place = _number_at(data, place)
            case 1:
                place += 8
            case 5:
                place += 4
            case 2:
                length, place = _number_at(data, place)
                kind = _INNER[message].get(tag >> 3)
                if kind in _SCHEMA:
                    if place + length > end or len(around) == DEEPEST:
                        raise IndexError(place)
                    around.append((end, message))
                    end, message = place + length, kind
                    continue
                if kind in _COUNTED:
                    parts += length // 8  # numbers, of a byte or more each
                elif kind == "string":
                    data[place : place + length].decode()
                place += length
            case _:
                raise IndexError(place)
    if place > end:
        raise IndexError(place)
    return parts


def _number_at(data: bytes, place: int) -> tuple[int, int]:
    """Return a number as protobuf stores it, seven bits a byte, and the place after it."""
    number = data[place]
    if number < 128:
        return number, place + 1
    number, shift = number & 127, 7
    while shift < 70:
        place += 1
        number |= (data[place] & 127) << shift
        if data[place] < 128:
            return number, place + 1
        shift += 7
    raise IndexError(place)


def _messages(message: Any) -> Iterator[Any]:
    """Yield all messages inside one of `_SCHEMA`, at any depth."""
    from google.protobuf.message import Message

    waiting = [message]
    while waiting:
        for field, value in waiting.pop().ListFields():
            if field.message_type is not None:
                inner = [value] if isinstance(value, Message) else list(value)
                yield from inner
                waiting += inner


@cache
def _message(name: str) -> Any:
    """Return the class of a message of `_SCHEMA`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    message_kind = kinds.TYPE_MESSAGE
    file = descriptor_pb2.FileDescriptorProto(name="chromatune/onnx_part.proto", package="chromatune.onnx_part")
    file.syntax = "proto2"
    for message, fields in _SCHEMA.items():
        declared = file.message_type.add(name=message)
        for field, number, kind, repeated in fields:
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            entry = declared.field.add(name=field, number=number, label=label, type=_PLAIN.get(kind, message_kind))
            if kind not in _PLAIN:
                entry.type_name = f".{file.package}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))


def _unet_problem(signatures: Mapping[str, tuple[Signature, Signature]]) -> str:
    inputs, outputs = signatures["unet"]
    given = residuals_of(signatures[PHOTO_ENCODER][1]) if PHOTO_ENCODER in signatures else {}
    taken = residuals_of(inputs)
    if inputs.keys() - taken.keys() != set(UNET_INPUTS) or not outputs:
        return f"takes {_names(inputs)} and gives {_names(outputs)}; a U-Net here takes {', '.join(UNET_INPUTS)}"
    if taken.keys() != given.keys():
        return f"takes {len(taken)} residuals, and the photo encoder gives {len(given)}"
    text = next(iter(signatures["text_encoder"][1].values()))
    first = next(iter(outputs))
    width = text[2] if text and len(text) == 3 else None
    expected = {"sample": (None, 8, None, None), "encoder_hidden_states": (None, None, width)} | given
    for name, shape in inputs.items():
        if name in expected and not _fits(shape, expected[name]):
            return f"takes {shown(name)} of the shape {_text(shape)}, and not {_text(expected[name])}"
    if not _fits(outputs[first], LATENTS):
        return f"gives {shown(first)} of the shape {_text(outputs[first])}, and not {_text(LATENTS)}"
    return ""


def _fits(shape: Shape, expected: Shape) -> bool:
    """Return whether a shape may be another; what is not declared may be anything."""
    if not shape or not expected:
        return True
    return len(shape) == len(expected) and all(
        size in wanted if isinstance(wanted, tuple) else size == wanted
        for size, wanted in zip(shape, expected, strict=True)
        if isinstance(size, int) and isinstance(wanted, int | tuple)
    )


def _text(shape: Shape) -> str:
    def size(each: Any) -> str:
        return str(each) if isinstance(each, int) else " or ".join(map(str, each)) if isinstance(each, tuple) else "?"

    return f"({', '.join(map(size, shape or ()))})"


def _names(names: Mapping[str, Shape]) -> str:
    return shown(", ".join(names)) if names else "nothing"
