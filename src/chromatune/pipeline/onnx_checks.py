"""Checks of untrusted ONNX graphs: the files before ONNX Runtime opens them, then their inputs and outputs.

The message types are a part of ONNX's own schema (github.com/onnx/onnx, onnx/onnx.proto), just large enough to be
checked; what is not declared here is skipped. The package `onnx` would read all of it, and is as large as a model.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePath
from typing import Any, TypeAlias, TypeVar

from chromatune.errors import shown
from chromatune.files import read_regular
from chromatune.pipeline.checks import LFS_POINTER, read_header
from chromatune.pipeline.model_files import PHOTO_ENCODER

LARGEST_GRAPH_BYTES = (2 << 30) - 1  # protobuf's own limit
MOST_NODES = 200_000
DOMAINS = ("", "ai.onnx", "com.microsoft", "pkg.torch.ops")  # operators that ONNX Runtime itself brings
# No part of a U-Net has them: they may never end, or read files of their own
REFUSED = ("Loop", "Scan", "BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch", "EPContext")
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

# message: field, its number, its type (a message of this schema, or "string" or "int64"), whether it is repeated
_SCHEMA: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
    "Model": (
        ("ir_version", 1, "int64", False), ("graph", 7, "Graph", False), ("training", 20, "Training", True),
        ("functions", 25, "Function", True),
    ),
    "Training": (("initialization", 1, "Graph", False), ("algorithm", 2, "Graph", False)),
    "Function": (("name", 1, "string", False),),
    "Graph": (("node", 1, "Node", True), ("initializer", 5, "Tensor", True), ("sparse", 15, "Sparse", True)),
    "Node": (("op_type", 4, "string", False), ("attribute", 5, "Attribute", True), ("domain", 7, "string", False)),
    "Attribute": (
        ("t", 5, "Tensor", False), ("g", 6, "Graph", False), ("tensors", 10, "Tensor", True),
        ("graphs", 11, "Graph", True), ("sparse", 22, "Sparse", False), ("sparses", 23, "Sparse", True),
    ),
    "Sparse": (("values", 1, "Tensor", False), ("indices", 2, "Tensor", False)),
    "Tensor": (("dims", 1, "int64", True), ("name", 8, "string", False), ("external_data", 13, "Entry", True)),
    "Entry": (("key", 1, "string", False), ("value", 2, "string", False)),
}  # fmt: skip


def check_onnx(path: Path) -> None:
    """Check that an ONNX file is whole, of known operators, and reads no weights but those in its own folder.

    Raises:
        ValueError: it is not; the text says what it is instead.
    """
    try:
        data = read_regular(path, LARGEST_GRAPH_BYTES)
    except FileNotFoundError:
        raise ValueError("is missing") from None
    except OSError as error:
        too_large = error.errno == errno.EFBIG
        raise ValueError(
            "is larger than 2 GB, which no graph is" if too_large else f"cannot be read ({error.strerror})"
        ) from None
    if not data:
        raise ValueError("is empty (0 bytes)")
    if data.startswith(LFS_POINTER):
        raise ValueError("is a git-lfs pointer, not the graph itself (`git lfs pull` fetches it)")
    if data.lstrip()[:1] == b"<":
        raise ValueError("is a web page, not an ONNX graph")
    from google.protobuf.message import DecodeError

    model = _message("Model")()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise ValueError("is no ONNX graph, or cut short") from None
    if not model.graph.node:
        raise ValueError("is no ONNX graph: it has no operators")
    if model.functions:  # a few that call each other twice would be opened out to billions of operators
        raise ValueError(f"has functions of its own, such as {shown(model.functions[0].name)}, which are not run here")
    nodes, lengths = 0, dict[str, int]()
    for message in _messages(model):
        kind = message.DESCRIPTOR.name
        if kind == "Node":
            nodes += 1
            if nodes > MOST_NODES:
                raise ValueError(f"has more than {MOST_NODES:,} operators")
            if message.domain not in DOMAINS or message.op_type in REFUSED:
                name = f"{message.domain}::{message.op_type}" if message.domain else message.op_type
                raise ValueError(f"has the operator {shown(name)}, which is not run here")
        elif kind == "Tensor" and message.external_data:
            _check_external(message, path.parent, lengths)


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


def _check_external(tensor: Any, folder: Path, lengths: dict[str, int]) -> None:
    """Check one tensor's place in a file beside the graph; `lengths` remembers the files' sizes."""
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
    if offset < 0 or length < 0 or offset + length > lengths[location]:
        raise ValueError(f"takes {shown(tensor.name)} from beyond the end of {shown(location)}")


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
    file = descriptor_pb2.FileDescriptorProto(name="chromatune/onnx_part.proto", package="chromatune.onnx_part")
    file.syntax = "proto2"
    for message, fields in _SCHEMA.items():
        declared = file.message_type.add(name=message)
        for field, number, kind, repeated in fields:
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            plain = {"int64": kinds.TYPE_INT64, "string": kinds.TYPE_STRING}
            entry = declared.field.add(name=field, number=number, label=label, type=plain.get(kind, kinds.TYPE_MESSAGE))
            if kind not in plain:
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
