"""What an untrusted graph would take, by arithmetic on its sizes, before ONNX Runtime opens it and before each pass.

ONNX Runtime computes what is constant in a graph while it opens it, and makes room for whatever a graph asks for. Here
the sizes of all tensors are followed through the graph by `onnx_operators`, and bytes and operations are held against
what the largest models of this kind take.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from chromatune.errors import shown
from chromatune.files import open_regular
from chromatune.pipeline.model_files import PHOTO_ENCODER
from chromatune.pipeline.onnx_checks import GRAPH_FILE, check_onnx, residuals_of
from chromatune.pipeline.onnx_operators import (
    BOOL,
    FLOAT,
    INT32,
    INT64,
    ITEM_BYTES,
    MOST_VALUES,
    NUMPY_TYPES,
    RULES,
    Cost,
    Dims,
    Node,
    Rule,
    Sized,
    check_divisor,
    cost_of,
    with_value,
)

# Of what depends on no input, and is computed when a graph is opened: weights cast from 8 to 32 bits and turned over
# once are eight times as large, and no part of a model multiplies its weights with each other.
CONSTANT_BYTES_PER_STORED = 8
MOST_CONSTANT_BYTES = 64 << 20  # beside the above
MOST_CONSTANT_OPERATIONS = 2 * 10**9
# Of one pass, a pixel of its photos: the decoder of Stable Diffusion takes 10 M operations, the U-Net of SD XL 6 M, of
# SD 1.5 3 M and at 2048 px 10 M; attention that is written out holds 14 kB at 768 px.
MOST_OPERATIONS_PER_PIXEL = 20 * 10**6
MOST_BYTES_PER_PIXEL = 16 << 10
# Beside the above, for small photos and for text: the largest CLIP takes 10^11 operations a prompt
MOST_OPERATIONS = 2 * 10**11
MOST_BYTES = 128 << 20
MOST_DIMENSIONS = 16  # of a tensor
MOST_SIZES_KEPT = 64  # sizes of passes that are known to be admitted
ORDER = ("text_encoder", PHOTO_ENCODER, "unet", "vae_encoder", "vae_decoder")  # the U-Net after those it reads
GIGA = 10**9

AdmitPass: TypeAlias = Callable[..., None]  # takes (name, sizes) of each input; raises ValueError


class GraphBudget:
    """The operators of a graph, for checks of what a pass takes."""

    def __init__(self, graph: Any, folder: Path) -> None:
        """Follow what is constant in a graph.

        Args:
            graph: the message, see `onnx_checks`; all its operators have a rule, and its weights lie in their files.
            folder: where it is.

        Raises:
            ValueError: it takes more than a part of a model does; the text says what.
        """
        self._constants = {tensor.name: stored_tensor(tensor, folder) for tensor in graph.initializer}
        # Older graphs list their weights among the inputs, too
        self.inputs = {each.name: each.type.tensor for each in graph.input if each.name not in self._constants}
        self._outputs = [each.name for each in graph.output]
        self._varying: list[tuple[Node, Rule]] = []
        self._follow_constants(graph, folder)
        last = {name: index for index, (node, _) in enumerate(self._varying) for name in node.inputs}
        made = {name: index for index, (node, _) in enumerate(self._varying) for name in node.outputs if name}
        for name in set(self._outputs) - made.keys() - self._constants.keys() - self.inputs.keys():
            raise ValueError(f"has no operator that makes its output {shown(name)}")
        self._ends: list[list[str]] = [[] for _ in self._varying]  # what is not used after an operator
        for name in made.keys() - set(self._outputs):
            self._ends[last.get(name, made[name])].append(name)

    def _follow_constants(self, graph: Any, folder: Path) -> None:
        stored = sum(each.bytes for each in self._constants.values())
        varying, computed, operations = set(self.inputs), 0, 0
        for message in graph.node:
            rule = RULES[message.domain, message.op_type]
            attributes = {each.name: _attribute(each, folder) for each in message.attribute}
            node = Node(message.op_type, tuple(message.input), tuple(message.output), attributes)
            if not varying.isdisjoint(node.inputs):
                varying.update(node.outputs)
                self._varying.append((node, rule))
                continue
            cost = _apply(node, rule, self._constants)
            operations += cost.operations
            if node.op == "Constant":
                stored += cost.bytes
            else:
                computed += cost.bytes
            if computed > CONSTANT_BYTES_PER_STORED * stored + MOST_CONSTANT_BYTES:
                raise ValueError(f"computes constants of {computed / GIGA:.1f} GB and more, at {node.op}")
            if operations > MOST_CONSTANT_OPERATIONS + CONSTANT_BYTES_PER_STORED * stored:
                raise ValueError(f"computes constants by {operations / GIGA:.0f} G operations and more, at {node.op}")

    def check(self, shapes: Mapping[str, Dims], pixels: int) -> dict[str, Dims]:
        """Check what a pass takes, and return the sizes of what it gives.

        Args:
            shapes: of the inputs.
            pixels: of all photos in the pass; 0 for text.

        Raises:
            ValueError: it takes more than a part of a model does; the text says what.
        """
        return self._follow_pass(shapes, pixels)[0]

    def operations(self, shapes: Mapping[str, Dims], pixels: int) -> int:
        """Return the operations of a pass: a multiplication and its addition are two. See `check`."""
        return self._follow_pass(shapes, pixels)[1]

    @property
    def parameters(self) -> int:
        """How many numbers of floating point it stores, or of 8 bits in their place."""
        return sum(each.length for each in self._constants.values() if each.type not in (INT32, INT64, BOOL))

    def _follow_pass(self, shapes: Mapping[str, Dims], pixels: int) -> tuple[dict[str, Dims], int]:
        known = self._constants | {
            name: Sized(dims, self.inputs[name].elem or FLOAT) for name, dims in shapes.items() if name in self.inputs
        }
        most_bytes = MOST_BYTES + MOST_BYTES_PER_PIXEL * pixels
        most_operations = MOST_OPERATIONS + MOST_OPERATIONS_PER_PIXEL * pixels
        held, operations = 0, 0
        for (node, rule), ends in zip(self._varying, self._ends, strict=True):
            cost = _apply(node, rule, known)
            operations += cost.operations
            if held + cost.bytes > most_bytes:
                raise ValueError(f"takes {(held + cost.bytes) / GIGA:.1f} GB and more in a pass, at {node.op}")
            if operations > most_operations:
                raise ValueError(f"takes {operations / GIGA:.0f} G operations and more in a pass, at {node.op}")
            held += sum(known[name].bytes for name in node.outputs if name)
            held -= sum(known[name].bytes for name in ends)
        return {name: known[name].dims for name in self._outputs}, operations

    def declared(self, name: str, dims: Dims) -> Dims:
        """Return the sizes of an input as the graph declares them, and as given where it does not say."""
        sizes = [size.value if size.HasField("value") else None for size in self.inputs[name].shape.dim]
        if len(sizes) != len(dims):
            return dims
        return tuple(given if own is None else own for own, given in zip(sizes, dims, strict=True))


def check_parts(
    folder: Path, parts: Collection[str], *, tokens: int, side_px: int, latent_px: int
) -> dict[str, AdmitPass]:
    """Check the graphs of a model, and a pass of its own size; return what checks each pass of another size.

    Args:
        folder: of the model.
        parts: the folders of its graphs.
        tokens: of a prompt.
        side_px: of the model's own pass.
        latent_px: pixels per latent, along one side.

    Raises:
        ValueError: a graph cannot be read, or takes more than a part of a model does; the text begins with its file.
    """
    admits, for_unet = dict[str, AdmitPass](), dict[str, Dims]()
    side = -(-side_px // latent_px)
    for part in sorted(parts, key=ORDER.index):
        try:
            budget = GraphBudget(check_onnx(folder / part / GRAPH_FILE), folder / part)
            dims = {"text_encoder": (1, tokens), "vae_decoder": (1, 4, side, side)}
            given = {name: dims.get(part, (1, 3, side * latent_px, side * latent_px)) for name in budget.inputs}
            if part == "unet":
                given = {"sample": (1, 8, side, side), "timestep": (1,)} | for_unet
            position_px = {"text_encoder": 0, "unet": latent_px, "vae_decoder": latent_px}.get(part, 1)
            made = dict[str, Dims]()
            if given.keys() == budget.inputs.keys():  # others are told when their inputs are held against each other
                # What is declared without a name is computed when the graph is opened
                given = {name: budget.declared(name, each) for name, each in given.items()}
                made = budget.check(given, (side * latent_px) ** 2 if position_px else 0)
        except ValueError as error:
            raise ValueError(f"{part}/{GRAPH_FILE} {error}") from None
        for_unet |= residuals_of(made)
        if part == "text_encoder" and made:
            for_unet["encoder_hidden_states"] = next(iter(made.values()))
        admits[part] = lru_cache(MOST_SIZES_KEPT)(partial(_admit, budget, position_px))
    return admits


def _admit(budget: GraphBudget, position_px: int, *shapes: tuple[str, Dims]) -> None:
    photos = [dims[0] * dims[2] * dims[3] for _, dims in shapes if len(dims) == 4]
    budget.check(dict(shapes), position_px**2 * max(photos, default=0))


def stored_tensor(tensor: Any, folder: Path) -> Sized:
    """Return what is known of a stored tensor.

    Raises:
        ValueError: its sizes or its type are none, or do not fit what is stored.
    """
    dims, kind = tuple(tensor.dims), tensor.data_type
    if kind not in ITEM_BYTES or not _are_sizes(dims):
        raise ValueError(f"has a tensor {shown(tensor.name)} of the type {kind} and the sizes {shown(dims)}")
    sized = Sized(dims, kind)
    entries = {entry.key: entry.value for entry in tensor.external_data}
    # Inside, a number may take less than in memory: a byte for one of eight
    room = int(entries.get("length", 0)) or sized.bytes if entries else 8 * tensor.ByteSize()
    if sized.bytes > room:
        raise ValueError(f"says that {shown(tensor.name)} has {sized.bytes:,} bytes, and fewer are stored")
    if sized.length > MOST_VALUES or kind not in NUMPY_TYPES:
        return sized
    numbers = _stored_numbers(tensor, sized, folder / entries["location"] if entries else None)
    return sized._replace(value=numbers.reshape(dims)) if numbers.size == sized.length else sized


def _stored_numbers(tensor: Any, sized: Sized, file: Path | None) -> np.ndarray:
    dtype, data = np.dtype(NUMPY_TYPES[sized.type]), tensor.raw_data
    if file is not None:
        offset = next((int(entry.value) for entry in tensor.external_data if entry.key == "offset"), 0)
        try:
            with open_regular(file) as opened:
                opened.seek(offset)
                data = opened.read(sized.bytes)
        except OSError as error:
            raise ValueError(
                f"takes weights from {shown(file.name)}, which cannot be read ({error.strerror})"
            ) from None
    if data:
        return np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)
    if sized.type == 10:  # half precision is stored as its bits
        return np.array(tensor.int32_data, np.int64).astype(np.uint16).view(np.float16)
    fields = {1: tensor.float_data, 7: tensor.int64_data, 11: tensor.double_data, 13: tensor.uint64_data}
    return np.array(list(fields.get(sized.type, tensor.int32_data))).astype(dtype)


def _apply(node: Node, rule: Rule, known: dict[str, Sized]) -> Cost:
    """Add what an operator makes to what is known; return its operations, and the bytes that it makes and works with.

    Raises:
        ValueError: it does not fit what it is given, or is not run here.
    """
    try:
        inputs = [known[name] if name else None for name in node.inputs]
        outputs = rule(node, inputs)
        if len(node.outputs) > len(outputs):
            raise ValueError(f"has a {node.op} of {len(node.outputs)} outputs, which is not run here")
        check_divisor(node, inputs)
        for index, (name, output) in enumerate(zip(node.outputs, outputs, strict=False)):
            if not _are_sizes(output.dims):
                raise ValueError(f"has a {node.op} that makes the sizes {shown(output.dims)}")
            few = output.value is None and output.length <= MOST_VALUES
            known[name] = with_value(node, inputs, output, index) if few else output
        cost = cost_of(node, inputs, outputs)
        return Cost(cost.operations, cost.bytes + sum(each.bytes for each in outputs))
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"has a {node.op} that does not fit what it is given") from error


def _are_sizes(dims: Dims) -> bool:
    """Return whether sizes are those of a tensor that operators take.

    An empty one is a list at most. With other sizes it takes no memory, but what is done over those does, or ends the
    process by a division.
    """
    return len(dims) <= MOST_DIMENSIONS and min(dims, default=0) >= 0 and (0 not in dims or len(dims) == 1)


def _attribute(message: Any, folder: Path) -> Any:
    """Return the value of an attribute: a number, text, a tuple of them, or a tensor."""
    if message.HasField("t"):
        return stored_tensor(message.t, folder)
    for field in ("f", "i", "s"):
        if message.HasField(field):
            return getattr(message, field)
    return tuple(message.ints) or tuple(message.floats) or tuple(message.strings)
