"""A stranger's ONNX file, judged before ONNX Runtime opens it: what it is made of, and which files it reads.

The message types are a part of ONNX's own schema (github.com/onnx/onnx, onnx/onnx.proto), just large enough to be
judged; what is not declared here is skipped. The package `onnx` would read all of it, and is as large as a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from chromatune.errors import shown
from chromatune.pipeline.checks import LFS_POINTER, read_header

LARGEST_GRAPH = 2 << 30  # bytes; protobuf's own limit
MOST_NODES = 200_000
DOMAINS = ("", "ai.onnx", "com.microsoft", "pkg.torch.ops")  # operators that ONNX Runtime itself brings
# No part of a U-Net has them: they may never end, or read files of their own
REFUSED = ("Loop", "Scan", "BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch", "EPContext")
NUMBER = re.compile(r"-?[0-9]{1,30}")  # as ONNX Runtime reads it, unlike Python: no spaces, no underscores

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
    """Passes if an ONNX file is whole, of known operators, and reads no weights but those in its own folder.

    Raises:
        ValueError: it is not; the text says what it is instead.
    """
    size = path.stat().st_size
    if not 0 < size < LARGEST_GRAPH:
        raise ValueError("is empty (0 bytes)" if size == 0 else "is larger than 2 GB, which no graph is")
    data = path.read_bytes()
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
            _check_node(message, nodes)
        elif kind == "Tensor" and message.external_data:
            _check_external(message, path.parent, lengths)


def _check_node(node: Any, count: int) -> None:
    """Checks one operator, the graph's `count`-th."""
    if count > MOST_NODES:
        raise ValueError(f"has more than {MOST_NODES:,} operators")
    if node.domain not in DOMAINS or node.op_type in REFUSED:
        name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        raise ValueError(f"has the operator {shown(name)}, which is not run here")


def _check_external(tensor: Any, folder: Path, lengths: dict[str, int]) -> None:
    """Checks one tensor's place in a file beside the graph; `lengths` remembers the files' sizes."""
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
    """Bytes of a file of weights beside a graph, if it is one."""
    try:
        if not file.is_file() or file.is_symlink() and not _stored_by_hub(file):
            raise ValueError(f"takes weights from {shown(file.name)}, which is missing")
        if file.suffix == ".safetensors":  # a graph would read a web page or a cut file as numbers
            _check_header(file)
        return file.stat().st_size
    except OSError as error:  # its name is too long, or it may not be read
        raise ValueError(f"takes weights from {shown(file.name)}, which cannot be read ({error.strerror})") from None


def _check_header(file: Path) -> None:
    try:
        read_header(file)
    except ValueError as error:
        raise ValueError(f"takes weights from {shown(file.name)}, which {error}") from None


def _stored_by_hub(file: Path) -> bool:
    """Whether a link points into the hub's own cache, whose snapshots are links to `../../blobs`."""
    snapshots = [parent for parent in file.absolute().parents if parent.name == "snapshots"]
    return any(file.resolve().parent == parent.parent.resolve() / "blobs" for parent in snapshots)


def _messages(message: Any) -> Iterator[Any]:
    """All messages inside one of `_SCHEMA`, at any depth."""
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
    """The class of a message of `_SCHEMA`."""
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
