"""The operators of ONNX that a model's graph may have: what each makes of the sizes it is given, and what that takes.

The rules are those of onnx.ai/onnx/operators, and of ONNX Runtime's own for its domain, in the forms in which parts of
diffusion models are exported; a test compares them with ONNX Runtime. A rule that meets anything else raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from chromatune.errors import shown

MOST_VALUES = 256  # numbers of a tensor that are followed as such: sizes, axes, scales
FLOAT, UINT8, INT32, INT64, BOOL = 1, 2, 6, 7, 9  # of ONNX's types of numbers
ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
ITEM_BYTES |= dict.fromkeys(range(17, 23), 1)  # of 8 and 4 bits
NUMPY_TYPES: dict[int, Any] = {
    1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_,
    10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64,
}  # fmt: skip
INTEGERS = frozenset((2, 3, 4, 5, 6, 7, 12, 13))

Dims: TypeAlias = tuple[int, ...]


class Sized(NamedTuple):
    """What is known of a tensor: its sizes, ONNX's number of its type, and its numbers where they are few and known."""

    dims: Dims
    type: int
    value: np.ndarray | None = None

    @property
    def length(self) -> int:
        """How many numbers it has."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Its size in memory."""
        return self.length * ITEM_BYTES[self.type]


@dataclass(frozen=True)
class Node:
    """An operator: names of what it takes and gives, and its attributes."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        return self.attributes.get(name, default)


class Cost(NamedTuple):
    """What an operator takes: multiplications and the like, and memory beside the tensors that it makes."""

    operations: int
    bytes: int = 0


Inputs: TypeAlias = Sequence[Sized | None]  # None stands for one that is left out
Rule: TypeAlias = Callable[[Node, Any], list[Sized]]


def _numbers(node: Node, inputs: Inputs, index: int, name: str = "") -> list[int] | None:
    """Return the whole numbers of an input, or in older graphs of the attribute `name`; None where there is neither.

    Raises:
        ValueError: they depend on what is in the photo, or are none.
    """
    if index >= len(inputs) or (given := inputs[index]) is None:
        found = node.get(name)
        return None if found is None else list(found) if isinstance(found, tuple) else [found]
    return [int(number) for number in _values(node, given)]


def _values(node: Node, given: Sized | None) -> list[Any]:
    if given is None or given.value is None:
        raise ValueError(f"has a {node.op} whose size depends on what is in the photo")
    if not np.isfinite(given.value).all():
        raise ValueError(f"has a {node.op} of sizes that are no numbers")
    return list(given.value.ravel().tolist())


def _required(numbers: list[int] | None) -> list[int]:
    if numbers is None:
        raise TypeError("an input is missing")
    return numbers


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise IndexError(axis)
    return axis % rank


def _spread(*shapes: Dims) -> Dims:
    """Return the shape of tensors that are spread over each other, as by NumPy."""
    rank = max(map(len, shapes))
    sizes = []
    for index in range(rank):
        found = {shape[index - rank + len(shape)] for shape in shapes if index >= rank - len(shape)} - {1}
        if len(found) > 1:
            raise TypeError("sizes do not agree")
        sizes.append(found.pop() if found else 1)
    return tuple(sizes)


def _same(node: Node, inputs: Any) -> list[Sized]:
    return [Sized(inputs[0].dims, inputs[0].type)]


def _typed(kind: int, node: Node, inputs: Any) -> list[Sized]:
    return [Sized(inputs[0].dims, kind)]


def _elementwise(node: Node, inputs: Any, kind: int = 0) -> list[Sized]:
    return [Sized(_spread(*(each.dims for each in inputs)), kind or inputs[0].type)]


def _where(node: Node, inputs: Any) -> list[Sized]:
    return [Sized(_spread(*(each.dims for each in inputs)), inputs[1].type)]


def _cast(node: Node, inputs: Any) -> list[Sized]:
    return [Sized(inputs[0].dims, inputs[1].type if node.op == "CastLike" else _known_type(node.get("to", 0)))]


def _known_type(kind: int) -> int:
    if kind not in ITEM_BYTES:
        raise ValueError(f"has numbers of the type {kind}, which are not used here")
    return kind


def _normalized(node: Node, inputs: Any) -> list[Sized]:
    """The same sizes, then what layers give when they are trained, as small as its first axes."""
    first = inputs[0]
    axis = _axis(node.get("axis", -1), len(first.dims)) if first.dims else 0
    means = Sized(first.dims[:axis] + (1,) * (len(first.dims) - axis), FLOAT)
    return [Sized(first.dims, first.type), means, means]


def _skip_normalized(node: Node, inputs: Any) -> list[Sized]:
    whole, means = Sized(inputs[0].dims, inputs[0].type), Sized((*inputs[0].dims[:-1], 1), FLOAT)
    return [whole, means, means, whole]


def _dropout(node: Node, inputs: Any) -> list[Sized]:
    return [Sized(inputs[0].dims, inputs[0].type), Sized(inputs[0].dims, BOOL)]


def _quantized(node: Node, inputs: Any) -> list[Sized]:
    if node.op == "DequantizeLinear":
        return [Sized(inputs[0].dims, inputs[1].type)]
    if node.op == "DynamicQuantizeLinear":
        return [Sized(inputs[0].dims, UINT8), Sized((), FLOAT), Sized((), UINT8)]
    zero = inputs[2] if len(inputs) > 2 else None
    return [Sized(inputs[0].dims, UINT8 if zero is None else zero.type)]


def _halved_last(node: Node, inputs: Any) -> list[Sized]:
    return [Sized((*inputs[0].dims[:-1], inputs[0].dims[-1] // 2), inputs[0].type)]


def _matmul(node: Node, inputs: Any, kind: int = 0) -> list[Sized]:
    a, b = inputs[0].dims, inputs[1].dims
    if node.get("transBatchA") or node.get("transBatchB"):
        raise ValueError(f"has a {node.op} with other axes first, which is not run here")
    a = (*a[:-2], a[-1], a[-2]) if node.get("transA") else a
    b = (*b[:-2], b[-1], b[-2]) if node.get("transB") else b
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else ()
    if a[-1] != b[-2 if len(b) > 1 else 0]:
        raise TypeError("sizes do not agree")
    return [Sized((*_spread(a[:-2], b[:-2]), *rows, *columns), kind or inputs[0].type)]


def _matmul_bits(node: Node, inputs: Any) -> list[Sized]:
    if inputs[0].dims[-1] != node.get("K"):
        raise TypeError("sizes do not agree")
    return [Sized((*inputs[0].dims[:-1], node.attributes["N"]), inputs[0].type)]


def _gemm(node: Node, inputs: Any) -> list[Sized]:
    (a, b), (c, d) = inputs[0].dims, inputs[1].dims
    a, b = (b, a) if node.get("transA") else (a, b)
    c, d = (d, c) if node.get("transB") else (c, d)
    if b != c:
        raise TypeError("sizes do not agree")
    return [Sized((a, d), inputs[0].type)]


def _window(node: Node, size: int, index: int, kernel: int) -> int:
    """Return how many places a window has along one axis, of a convolution or a pooling."""
    stride, dilation = (node.get(name, ())[index : index + 1] or (1,) for name in ("strides", "dilations"))
    if stride[0] < 1 or dilation[0] < 1 or kernel < 1:
        raise ValueError(f"has a {node.op} with windows of no size")
    same = node.get("auto_pad", b"NOTSET").startswith(b"SAME")
    if same:
        return -(-size // stride[0])
    pads = node.get("pads", ())
    around = sum((pads[index], pads[index + len(pads) // 2])) if pads else 0
    room = size + around - dilation[0] * (kernel - 1) - 1
    if not node.get("ceil_mode"):
        return room // stride[0] + 1
    places = -(-room // stride[0]) + 1
    return places - ((places - 1) * stride[0] >= size + (pads[index] if pads else 0))  # none begins beyond the end


def _conv(node: Node, inputs: Any, kind: int = 0) -> list[Sized]:
    data, weights = inputs[0].dims, inputs[1].dims
    if data[1] != weights[1] * node.get("group", 1) or len(data) != len(weights):
        raise TypeError("sizes do not agree")
    places = [_window(node, size, i, weights[2 + i]) for i, size in enumerate(data[2:])]
    return [Sized((data[0], weights[0], *places), kind or inputs[0].type)]


def _conv_transpose(node: Node, inputs: Any) -> list[Sized]:
    data, weights = inputs[0].dims, inputs[1].dims
    if data[1] != weights[0] or len(data) != len(weights) or node.get("output_shape"):
        raise TypeError("sizes do not agree")
    rank = len(data) - 2
    strides, dilations, extra = (
        node.get(name) or (usual,) * rank for name, usual in (("strides", 1), ("dilations", 1), ("output_padding", 0))
    )
    pads = node.get("pads") or (0,) * 2 * rank
    if node.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise ValueError("has a ConvTranspose with automatic padding, which is not run here")
    places = [
        strides[i] * (data[2 + i] - 1) + extra[i] + (weights[2 + i] - 1) * dilations[i] + 1 - pads[i] - pads[i + rank]
        for i in range(rank)
    ]
    return [Sized((data[0], weights[1] * node.get("group", 1), *places), inputs[0].type)]


def _pool(node: Node, inputs: Any) -> list[Sized]:
    data, kernel = inputs[0].dims, node.attributes["kernel_shape"]
    places = [_window(node, size, i, kernel[i]) for i, size in enumerate(data[2:])]
    return [Sized((*data[:2], *places), inputs[0].type)]


def _global_pool(node: Node, inputs: Any) -> list[Sized]:
    return [Sized((*inputs[0].dims[:2], *(1 for _ in inputs[0].dims[2:])), inputs[0].type)]


def _reduced(node: Node, inputs: Any) -> list[Sized]:
    dims, arg = inputs[0].dims, node.op.startswith("Arg")
    axes = [node.get("axis", 0)] if arg else _numbers(node, inputs, 1, "axes")
    if not axes and node.get("noop_with_empty_axes"):
        return _same(node, inputs)
    among = {_axis(axis, len(dims)) for axis in axes} if axes else set(range(len(dims)))
    kept = node.get("keepdims", 1)
    sizes = [1 if i in among else size for i, size in enumerate(dims) if kept or i not in among]
    return [Sized(tuple(sizes), INT64 if arg else inputs[0].type)]


def _reshape(node: Node, inputs: Any) -> list[Sized]:
    wanted, dims = _required(_numbers(node, inputs, 1, "shape")), inputs[0].dims
    sizes = [dims[i] if size == 0 and not node.get("allowzero") else size for i, size in enumerate(wanted)]
    if -1 in sizes:
        rest = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = inputs[0].length // rest
    if math.prod(sizes) != inputs[0].length or min(sizes, default=0) < 0:
        raise TypeError("sizes do not agree")
    return [Sized(tuple(sizes), inputs[0].type)]


def _flatten(node: Node, inputs: Any) -> list[Sized]:
    dims, axis = inputs[0].dims, node.get("axis", 1)
    axis = axis + len(dims) if axis < 0 else axis
    return [Sized((math.prod(dims[:axis]), math.prod(dims[axis:])), inputs[0].type)]


def _squeeze(node: Node, inputs: Any) -> list[Sized]:
    dims, axes = inputs[0].dims, _numbers(node, inputs, 1, "axes")
    among = {i for i, size in enumerate(dims) if size == 1} if axes is None else {_axis(i, len(dims)) for i in axes}
    if any(dims[i] != 1 for i in among):
        raise TypeError("sizes do not agree")
    return [Sized(tuple(size for i, size in enumerate(dims) if i not in among), inputs[0].type)]


def _unsqueeze(node: Node, inputs: Any) -> list[Sized]:
    axes = _required(_numbers(node, inputs, 1, "axes"))
    rank = len(inputs[0].dims) + len(axes)
    among, rest = {_axis(axis, rank) for axis in axes}, iter(inputs[0].dims)
    return [Sized(tuple(1 if i in among else next(rest) for i in range(rank)), inputs[0].type)]


def _transpose(node: Node, inputs: Any) -> list[Sized]:
    dims = inputs[0].dims
    order = node.get("perm") or tuple(reversed(range(len(dims))))
    if sorted(order) != list(range(len(dims))):
        raise TypeError("axes do not agree")
    return [Sized(tuple(dims[i] for i in order), inputs[0].type)]


def _concat(node: Node, inputs: Any) -> list[Sized]:
    first = inputs[0].dims
    axis = _axis(node.get("axis", 0), len(first))
    if len({(*each.dims[:axis], 0, *each.dims[axis + 1 :]) for each in inputs}) != 1:
        raise TypeError("sizes do not agree")
    return [Sized((*first[:axis], sum(each.dims[axis] for each in inputs), *first[axis + 1 :]), inputs[0].type)]


def _split(node: Node, inputs: Any) -> list[Sized]:
    dims = inputs[0].dims
    axis, sizes = _axis(node.get("axis", 0), len(dims)), _numbers(node, inputs, 1, "split")
    if sizes is None:
        count = node.get("num_outputs") or len(node.outputs)
        if count != len(node.outputs):
            raise TypeError("outputs do not agree")
        chunk = -(-dims[axis] // count)
        sizes = [max(0, min(chunk, dims[axis] - chunk * i)) for i in range(count)]
    if sum(sizes) != dims[axis] or min(sizes) < 0:
        raise TypeError("sizes do not agree")
    return [Sized((*dims[:axis], size, *dims[axis + 1 :]), inputs[0].type) for size in sizes]


def _slices(node: Node, inputs: Any) -> tuple[slice, ...]:
    """Return the slice of each axis."""
    dims = inputs[0].dims
    starts, ends = (_required(_numbers(node, inputs, i, name)) for i, name in ((1, "starts"), (2, "ends")))
    axes = _numbers(node, inputs, 3, "axes") or list(range(len(starts)))
    steps = _numbers(node, inputs, 4) or [1] * len(starts)
    parts = [slice(None)] * len(dims)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = _axis(axis, len(dims))
        # Downward, an end before the first is written as one that is far below
        below = step < 0 and end < -dims[axis]
        parts[axis] = slice(start, None if below else end, step)
    return tuple(parts)


def _slice(node: Node, inputs: Any) -> list[Sized]:
    parts = zip(inputs[0].dims, _slices(node, inputs), strict=True)
    return [Sized(tuple(len(range(*part.indices(size))) for size, part in parts), inputs[0].type)]


def _gather(node: Node, inputs: Any) -> list[Sized]:
    dims = inputs[0].dims
    axis = _axis(node.get("axis", 0), len(dims))
    return [Sized((*dims[:axis], *inputs[1].dims, *dims[axis + 1 :]), inputs[0].type)]


def _gather_elements(node: Node, inputs: Any) -> list[Sized]:
    return [Sized(inputs[1].dims, inputs[0].type)]


def _gather_nd(node: Node, inputs: Any) -> list[Sized]:
    data, places = inputs[0].dims, inputs[1].dims
    taken = places[-1] + node.get("batch_dims", 0)
    if taken > len(data):
        raise TypeError("axes do not agree")
    return [Sized((*places[:-1], *data[taken:]), inputs[0].type)]


def _expand(node: Node, inputs: Any) -> list[Sized]:
    return [Sized(_spread(inputs[0].dims, tuple(_required(_numbers(node, inputs, 1)))), inputs[0].type)]


def _tile(node: Node, inputs: Any) -> list[Sized]:
    repeats = _required(_numbers(node, inputs, 1))
    return [Sized(tuple(s * r for s, r in zip(inputs[0].dims, repeats, strict=True)), inputs[0].type)]


def _pad(node: Node, inputs: Any) -> list[Sized]:
    dims = inputs[0].dims
    pads, axes = _required(_numbers(node, inputs, 1, "pads")), _numbers(node, inputs, 3)
    among = [_axis(axis, len(dims)) for axis in axes] if axes is not None else list(range(len(dims)))
    sizes = list(dims)
    if len(pads) != 2 * len(among):
        raise TypeError("axes do not agree")
    for i, axis in enumerate(among):
        sizes[axis] += pads[i] + pads[i + len(among)]
    return [Sized(tuple(sizes), inputs[0].type)]


def _resize(node: Node, inputs: Any) -> list[Sized]:
    dims, given = inputs[0].dims, [each if each is None or each.length else None for each in inputs]
    if node.get("axes") or node.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise ValueError("has a Resize of some axes, which is not run here")
    if node.get("coordinate_transformation_mode") == b"tf_crop_and_resize":
        raise ValueError("has a Resize that crops, which is not run here")
    if len(given) > 3 and given[3] is not None:
        sizes = _required(_numbers(node, given, 3))
    else:
        scales = node.get("scales") or _values(node, given[1 if len(given) < 3 else 2])
        sizes = [int(np.float32(scale) * np.float32(size)) for scale, size in zip(scales, dims, strict=True)]
    if len(sizes) != len(dims):
        raise TypeError("axes do not agree")
    return [Sized(tuple(sizes), inputs[0].type)]


def _shape(node: Node, inputs: Any) -> list[Sized]:
    sizes = inputs[0].dims[slice(node.get("start", 0), node.get("end"))]
    return [Sized((len(sizes),), INT64, np.array(sizes, np.int64))]


def _size(node: Node, inputs: Any) -> list[Sized]:
    return [Sized((), INT64, np.array(inputs[0].length, np.int64))]


def _constant(node: Node, inputs: Any) -> list[Sized]:
    ((name, value),) = node.attributes.items()
    if name == "value":
        return [value]
    kinds: dict[str, tuple[int, Any]] = {"value_int": (INT64, np.int64), "value_float": (FLOAT, np.float32)}
    kind, dtype = kinds[name.removesuffix("s")]
    array = np.array(value, dtype)
    return [Sized(array.shape, kind, array if array.size <= MOST_VALUES else None)]


def _constant_of_shape(node: Node, inputs: Any) -> list[Sized]:
    sizes, fill = tuple(_required(_numbers(node, inputs, 0))), node.get("value") or Sized((1,), FLOAT, np.zeros(1))
    made = Sized(sizes, fill.type)
    if min(sizes, default=1) < 0 or made.length > MOST_VALUES or fill.value is None:
        return [made]
    return [made._replace(value=np.broadcast_to(fill.value.ravel()[0], sizes))]


def _range(node: Node, inputs: Any) -> list[Sized]:
    start, limit, step = (_values(node, each)[0] for each in inputs)
    return [Sized((max(0, math.ceil((limit - start) / step)),), inputs[0].type)]


def _one_hot(node: Node, inputs: Any) -> list[Sized]:
    dims, (depth,) = inputs[0].dims, _required(_numbers(node, inputs, 1))
    axis = _axis(node.get("axis", -1), len(dims) + 1)
    return [Sized((*dims[:axis], depth, *dims[axis:]), inputs[2].type)]


def _depth_to_space(node: Node, inputs: Any) -> list[Sized]:
    (count, depth, height, width), block = inputs[0].dims, node.attributes["blocksize"]
    if node.op == "SpaceToDepth":
        return [Sized((count, depth * block**2, height // block, width // block), inputs[0].type)]
    return [Sized((count, depth // block**2, height * block, width * block), inputs[0].type)]


def _letters(node: Node, inputs: Any) -> tuple[dict[str, int], str]:
    """Return the size of each letter of an Einsum, and the letters of what it gives."""
    left, arrow, right = node.attributes["equation"].decode().replace(" ", "").partition("->")
    terms = left.split(",")
    if "." in left or not all(term.isalpha() for term in terms):
        raise ValueError("has an Einsum with other than letters, which is not run here")
    sizes: dict[str, int] = {}
    for term, each in zip(terms, inputs, strict=True):
        for letter, size in zip(term, each.dims, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise TypeError("sizes do not agree")
    return sizes, right if arrow else "".join(sorted(letter for letter in sizes if left.count(letter) == 1))


def _einsum(node: Node, inputs: Any) -> list[Sized]:
    sizes, right = _letters(node, inputs)
    return [Sized(tuple(sizes[letter] for letter in right), inputs[0].type)]


def _attention(node: Node, inputs: Any) -> list[Sized]:
    """MultiHeadAttention of ONNX Runtime, and Attention of ONNX: (B, tokens, C) each, or (B, heads, tokens, C)."""
    query, key, value = inputs[0], inputs[1], inputs[2]
    if len(query.dims) == 4:
        return [Sized((*query.dims[:3], value.dims[3]), query.type)]
    heads = node.get("q_num_heads", 1), node.get("kv_num_heads", 1)
    if key is None or value is None or len(query.dims) != 3 or len(key.dims) not in (3, 4):
        raise ValueError(f"has a {node.op} of packed inputs, which is not run here")
    width = value.dims[2] if len(value.dims) == 3 else value.dims[1] * value.dims[3]
    return [Sized((*query.dims[:2], width * heads[0] // heads[1]), query.type)]


def _packed_attention(node: Node, inputs: Any) -> list[Sized]:
    """Attention of ONNX Runtime: (B, tokens, C) with the weights of all three projections."""
    if node.get("qkv_hidden_sizes") or len(inputs) > 4 and inputs[4] is not None:
        raise ValueError("has an Attention with a past, which is not run here")
    return [Sized((*inputs[0].dims[:2], inputs[1].dims[1] // 3), inputs[0].type)]


_ONE: dict[str, Rule] = dict.fromkeys(
    (
        "Abs", "Neg", "Sign", "Sqrt", "Exp", "Log", "Sin", "Cos", "Tanh", "Sigmoid", "HardSigmoid", "HardSwish", "Relu",
        "LeakyRelu", "ThresholdedRelu", "Elu", "Selu", "Celu", "Gelu", "Mish", "Swish", "Erf", "Softplus", "Softsign",
        "Floor", "Ceil", "Round", "Reciprocal", "Clip", "Not", "Identity", "Softmax", "LogSoftmax", "Trilu", "CumSum",
        "InstanceNormalization", "BatchNormalization", "GroupNormalization", "LpNormalization", "RMSNormalization",
        "MeanVarianceNormalization", "SimplifiedLayerNormalization", "ScatterND", "ScatterElements",
    ),
    _same,
)  # fmt: skip
_SEVERAL: dict[str, Rule] = dict.fromkeys(
    ("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "Sum", "Mean", "And", "Or", "Xor", "PRelu"), _elementwise
)
_COMPARISONS: dict[str, Rule] = dict.fromkeys(
    ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), partial(_elementwise, kind=BOOL)
)
_REDUCTIONS: dict[str, Rule] = dict.fromkeys(
    ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare",
     "ReduceLogSumExp", "ArgMax", "ArgMin"),
    _reduced,
)  # fmt: skip
STANDARD: dict[str, Rule] = _ONE | _SEVERAL | _COMPARISONS | _REDUCTIONS | {
    "IsNaN": partial(_typed, BOOL), "IsInf": partial(_typed, BOOL), "Where": _where, "Cast": _cast, "CastLike": _cast,
    "LayerNormalization": _normalized, "Dropout": _dropout, "QuantizeLinear": _quantized,
    "DequantizeLinear": _quantized, "DynamicQuantizeLinear": _quantized, "MatMul": _matmul,
    "MatMulInteger": partial(_matmul, kind=INT32), "Gemm": _gemm, "Conv": _conv,
    "ConvInteger": partial(_conv, kind=INT32), "ConvTranspose": _conv_transpose, "MaxPool": _pool,
    "AveragePool": _pool, "GlobalAveragePool": _global_pool, "GlobalMaxPool": _global_pool, "Reshape": _reshape,
    "Flatten": _flatten, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Transpose": _transpose, "Concat": _concat,
    "Split": _split, "Slice": _slice, "Gather": _gather, "GatherElements": _gather_elements, "GatherND": _gather_nd,
    "Expand": _expand, "Tile": _tile, "Pad": _pad, "Resize": _resize, "Upsample": _resize, "Shape": _shape,
    "Size": _size, "Constant": _constant, "ConstantOfShape": _constant_of_shape, "Range": _range, "OneHot": _one_hot,
    "DepthToSpace": _depth_to_space, "SpaceToDepth": _depth_to_space, "Einsum": _einsum, "Attention": _attention,
}  # fmt: skip
MICROSOFT: dict[str, Rule] = {
    "FastGelu": _same, "QuickGelu": _same, "BiasGelu": _same, "Gelu": _same, "GroupNorm": _same, "BiasAdd": _same,
    "BiasSplitGelu": _halved_last, "SkipLayerNormalization": _skip_normalized,
    "SkipSimplifiedLayerNormalization": _skip_normalized, "FusedMatMul": _matmul, "FusedConv": _conv,
    "FusedGemm": _gemm, "MatMulNBits": _matmul_bits, "DynamicQuantizeMatMul": _matmul,
    "MatMulIntegerToFloat": partial(_matmul, kind=FLOAT), "MultiHeadAttention": _attention,
    "Attention": _packed_attention, "QuantizeLinear": _quantized, "DequantizeLinear": _quantized,
}  # fmt: skip
RULES: dict[tuple[str, str], Rule] = {
    **{(domain, op): rule for domain in ("", "ai.onnx") for op, rule in STANDARD.items()},
    **{("com.microsoft", op): rule for op, rule in MICROSOFT.items()},
}


def cost_of(node: Node, inputs: Any, outputs: Sequence[Sized]) -> Cost:
    """Return what an operator takes beside the tensors that it makes."""
    made, given = outputs[0], [each.dims for each in inputs if each is not None]
    match node.op:
        case "MatMul" | "FusedMatMul" | "MatMulInteger" | "MatMulIntegerToFloat" | "DynamicQuantizeMatMul":
            return Cost(2 * made.length * given[0][-2 if node.get("transA") else -1])
        case "MatMulNBits":
            return Cost(2 * made.length * given[0][-1], 4 * math.prod((given[0][-1], made.dims[-1])))
        case "Gemm" | "FusedGemm":
            return Cost(2 * made.length * given[0][0 if node.get("transA") else 1])
        case "Conv" | "FusedConv" | "ConvInteger":
            window, unfolded = math.prod(given[1][1:]), 0
            if node.op == "ConvInteger" or len(made.dims) > 5:  # others are unfolded piece by piece
                unfolded = ITEM_BYTES[inputs[0].type] * window * math.prod(made.dims[2:])
            return Cost(2 * made.length * window, unfolded)
        case "ConvTranspose":  # it spreads every number of the input over a window first
            spread = math.prod((*given[0][2:], *given[1][1:])) * node.get("group", 1)
            return Cost(2 * math.prod((*given[0], *given[1][1:])), 4 * spread)
        case "MaxPool" | "AveragePool":
            return Cost(made.length * math.prod(node.attributes["kernel_shape"]))
        case "Einsum":
            products = math.prod(_letters(node, inputs)[0].values())
            # Several are multiplied one after another, and the first two alone may be as large as all
            return Cost(2 * products * len(given), products * ITEM_BYTES[made.type] if len(given) > 2 else 0)
        case "MultiHeadAttention" | "Attention":
            return _attention_cost(node, inputs, made)
        case "Resize" | "Upsample" if node.get("antialias"):  # one axis after another
            between = math.prod(map(max, given[0], made.dims))
            return Cost(16 * between, 4 * between)
        case "Resize" | "Upsample":
            return Cost(16 * made.length)
    return Cost(sum(each.length for each in outputs) + sum(map(math.prod, given)))


def _attention_cost(node: Node, inputs: Any, made: Sized) -> Cost:
    query = inputs[0].dims
    if node.get("num_heads") and len(inputs[1].dims) == 2:  # with its projections
        tokens, heads, projections = query[1], node.get("num_heads"), 2 * math.prod(query) * inputs[1].dims[1]
        return Cost(projections + 4 * made.length * tokens, 4 * query[0] * heads * tokens**2 + 6 * made.bytes)
    tokens, heads = inputs[1].dims[-2], node.get("num_heads") or node.get("q_num_heads") or query[1]
    # Without a mask or the like, ONNX Runtime's own works in blocks
    whole = node.op == "Attention" or any(each is not None for each in inputs[3:]) or node.get("unidirectional")
    weights = 8 * query[0] * heads * query[-2] * tokens if whole else 0
    return Cost(4 * made.length * tokens, weights)


def check_divisor(node: Node, inputs: Any) -> None:
    """Check a division of whole numbers: by zero, or of the lowest by -1, it would end the process.

    Raises:
        ValueError: the divisor is not above zero, or not known.
    """
    if node.op in ("Div", "Mod") and inputs[0].type in INTEGERS:
        divisor = inputs[1].value
        if divisor is None or not (divisor > 0).all():
            raise ValueError(f"has a {node.op} of whole numbers by {'one that' if divisor is None else shown(divisor)}"
                             f"{' is not known' if divisor is None else ''}, which is not run here")  # fmt: skip


def with_value(node: Node, inputs: Any, made: Sized, index: int) -> Sized:
    """Return what an operator makes with its numbers, where they are few and those of its inputs are known."""
    find = _VALUES.get(node.op)
    used = inputs[:1] if node.op in ("CastLike", "Slice", "Squeeze", "Unsqueeze", "Reshape", "Expand", "Split", "Tile",
                                     "Identity", "Cast", "ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin",
                                     "Transpose", "Flatten") else inputs  # fmt: skip
    if find is None or made.type not in NUMPY_TYPES or any(each is None or each.value is None for each in used):
        return made
    with np.errstate(all="ignore"):
        value = np.asarray(find(node, inputs, made, index)).astype(NUMPY_TYPES[made.type])
    return made._replace(value=value) if value.shape == made.dims else made


def _divided(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Divide as C does: whole numbers toward zero."""
    if not np.issubdtype(a.dtype, np.integer):
        return np.asarray(a / b)
    return np.asarray(np.sign(a) * (np.abs(a) // np.where(b == 0, 1, b)))  # divisors are above zero


def _ranged(node: Node, inputs: Any, made: Sized, index: int) -> np.ndarray:
    start, _, step = (each.value.ravel()[0] for each in inputs)
    return np.asarray(start + step * np.arange(made.dims[0]))


def _piece(node: Node, inputs: Any, made: Sized, index: int) -> np.ndarray:
    axis = node.get("axis", 0)
    before = sum(each.dims[axis] for each in _split(node, inputs)[:index])
    return np.asarray(np.take(inputs[0].value, range(before, before + made.dims[axis]), axis))


def _gathered(node: Node, inputs: Any, made: Sized, index: int) -> np.ndarray:
    return np.asarray(np.take(inputs[0].value, inputs[1].value.astype(np.int64), axis=node.get("axis", 0)))


def _reduced_value(find: Any, node: Node, inputs: Any, made: Sized, index: int) -> np.ndarray:
    axes = _numbers(node, inputs, 1, "axes")
    return np.asarray(find(inputs[0].value, axis=tuple(axes) if axes else None, keepdims=bool(node.get("keepdims", 1))))


def _of_all(find: Any, node: Node, inputs: Any, made: Sized, index: int) -> np.ndarray:
    return np.asarray(find(*(each.value for each in inputs)))


def _first(node: Node, inputs: Any, made: Sized, index: int) -> np.ndarray:
    return np.asarray(inputs[0].value.reshape(made.dims))


_VALUES: dict[str, Any] = {
    **dict.fromkeys(("Identity", "Cast", "CastLike", "Squeeze", "Unsqueeze", "Reshape", "Flatten"), _first),
    **{
        op: partial(_of_all, find)
        for op, find in {
            "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": _divided, "Neg": np.negative, "Abs": np.abs,
            "Floor": np.floor, "Ceil": np.ceil, "Sqrt": np.sqrt, "Equal": np.equal, "Greater": np.greater,
            "GreaterOrEqual": np.greater_equal, "Less": np.less, "LessOrEqual": np.less_equal, "And": np.logical_and,
            "Or": np.logical_or, "Not": np.logical_not, "Where": np.where,
        }.items()
    },
    **{
        op: partial(_reduced_value, find)
        for op, find in (
            ("ReduceProd", np.prod), ("ReduceSum", np.sum), ("ReduceMax", np.max), ("ReduceMin", np.min),
        )
    },
    "Min": lambda node, inputs, made, index: reduce(np.minimum, [each.value for each in inputs]),
    "Max": lambda node, inputs, made, index: reduce(np.maximum, [each.value for each in inputs]),
    "Concat": lambda node, inputs, made, index: np.concatenate([each.value for each in inputs], node.get("axis", 0)),
    "Slice": lambda node, inputs, made, index: inputs[0].value[_slices(node, inputs)],
    "Expand": lambda node, inputs, made, index: np.broadcast_to(inputs[0].value, made.dims),
    "Tile": lambda node, inputs, made, index: np.tile(inputs[0].value, _required(_numbers(node, inputs, 1))),
    "Transpose": lambda node, inputs, made, index: np.transpose(inputs[0].value, node.get("perm")),
    "Gather": _gathered, "Range": _ranged, "Split": _piece,
}  # fmt: skip
