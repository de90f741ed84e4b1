"""A stranger's ONNX graph ⇒ how it colorizes: what it takes and gives, by its description, its shapes and its names.

Three conventions cover the colorizers that people have as files: a gray in three channels to CIELAB's a and b
(DDColor), a gray in three channels to a picture (DeOldify), L to a and b (eccv16, and siggraph17 with inputs for
hints). In which range a picture is meant cannot be read from a graph: `colorizer_backend` tries that out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from chromatune.errors import ModelError, shown
from chromatune.pipeline.checks import AGAIN
from chromatune.pipeline.colorizer_files import ColorizerDescription, ColorizerFiles, Layout
from chromatune.pipeline.onnx_budget import MOST_SIZES_KEPT, GraphBudget
from chromatune.pipeline.onnx_checks import check_onnx
from chromatune.pipeline.onnx_operators import FLOAT, UINT8, Dims

DEFAULT_MULTIPLE_PX = 32  # of sides, where a graph takes any: 16 or 32 in all that are known
DEFAULT_SIZE_PX = {"rgb": 512, "gray": 512, "lightness": 256}  # by the kind of input: what they were trained at
DEFAULT_FAMILY = {
    ("rgb", "ab"): "like DDColor", ("rgb", "rgb"): "like DeOldify", ("lightness", "ab"): "like eccv16 and siggraph17"
}  # fmt: skip
FLOATS = {FLOAT: "float32", 10: "float16", 11: "float64"}
IMAGENET_MEAN = 0.449  # of the three channels; a graph that takes it off, or it times 255, normalizes by itself
NEAR = 0.06
LIGHTNESS_MIDDLE = 50.0
MOST_FOLLOWED = 8  # operators after the input, among which a normalization is looked for
THROUGH = ("Identity", "Cast", "Transpose", "Unsqueeze", "Squeeze", "Resize", "Slice", "Pad", "Concat", "Reshape")


@dataclass(frozen=True)
class TensorUse:
    """How one input or output is used; numbers of a range that is still to be tried out are NaN.

    Attributes:
        name: in the graph.
        kind: "rgb", "gray", "lightness" or "ab".
        layout: "nchw" or "nhwc".
        black: number of black; for ab 0.
        white: number of white; for ab what 1 CIELAB unit is.
    """

    name: str
    kind: str
    layout: Layout
    black: float = math.nan
    white: float = math.nan

    @property
    def known(self) -> bool:
        """Whether its range is known."""
        return not math.isnan(self.black)

    def ranged(self, black: float, white: float) -> TensorUse:
        """Return it with a range."""
        return replace(self, black=black, white=white)


@dataclass(frozen=True)
class Convention:
    """How a graph colorizes.

    Attributes:
        input: the gray.
        output: its colors.
        mean: taken off each channel of the input after the range.
        std: what each channel is divided by after that.
        zeros: other inputs by name and number of channels: hints, of which there are none.
        fixed_px: height and width where the graph takes no other, else None.
        size_px: short side of its pass.
        multiple_px: sides are multiples of it.
        family: such as "DDColor".
        found: how each fact was found, a line each, for people.
    """

    input: TensorUse
    output: TensorUse
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    zeros: Mapping[str, tuple[int, Layout]]
    fixed_px: tuple[int, int] | None
    size_px: int
    multiple_px: int
    family: str
    found: tuple[str, ...] = ()

    def described(self, declared: ColorizerDescription) -> ColorizerDescription:
        """Return a description that says all of it, with what `declared` says beside."""
        taken, given = self.input, self.output
        pictures = {"black": given.black, "white": given.white} if given.kind == "rgb" else {"unit": 1 / given.white}
        about = declared.model_dump(include={"network", "family", "description", "license"})
        side = {} if self.fixed_px else {"size_px": self.size_px, "multiple_px": self.multiple_px}
        ranges = {"black": taken.black, "white": taken.white, "mean": self.mean, "std": self.std}
        return ColorizerDescription.model_validate(
            {
                **about,
                **side,
                "input": {"name": taken.name, "kind": taken.kind, "layout": taken.layout, **ranges},
                "output": {"name": given.name, "kind": given.kind, "layout": given.layout, **pictures},
            }
        )


@dataclass(frozen=True)
class OpenedGraph:
    """A checked graph, and how it colorizes."""

    convention: Convention
    admit: Callable[..., None]  # takes (name, sizes) of each input; raises ValueError where a pass takes too much
    weights: tuple[Path, ...]  # files beside it that it reads
    parameters: int
    operations: Callable[[int, int], int]  # of a pass, by height and width; see `GraphBudget.operations`


def read_graph(files: ColorizerFiles) -> OpenedGraph:
    """Check a colorizer's graph, and tell how it is used.

    Raises:
        ModelError: it is no graph that is run here, or no colorizer that can be told.
    """
    path = files.network
    try:
        stat = path.stat()
        return _read(files, stat.st_size, stat.st_mtime_ns)
    except ValueError as error:
        raise ModelError(f"{files.name}: {error}; {AGAIN}, or give another") from None
    except OSError as error:
        raise ModelError(f"{files.name}: it cannot be read ({error.strerror}); {AGAIN}") from None


@lru_cache(8)
def _read(files: ColorizerFiles, size: int, changed_ns: int) -> OpenedGraph:
    """Read a graph; `size` and `changed_ns` tell that it is still the same file."""
    folder = files.network.parent
    graph = check_onnx(files.network)
    budget = GraphBudget(graph, folder)
    convention = _Inference(graph, budget, files.declared).convention()
    side = convention.fixed_px or (convention.size_px,) * 2
    budget.check(pass_shapes(convention, *side), side[0] * side[1])
    beside = {entry.value for each in graph.initializer for entry in each.external_data if entry.key == "location"}
    weights = tuple(folder / name for name in sorted(beside))
    return OpenedGraph(
        convention,
        lru_cache(MOST_SIZES_KEPT)(partial(_admit, budget, convention)),
        weights,
        budget.parameters,
        lambda height, width: budget.operations(pass_shapes(convention, height, width), height * width),
    )


def weights_of(files: ColorizerFiles) -> tuple[Path, ...]:
    """Return the files of weights beside a colorizer's graph that it reads; raises as `read_graph`."""
    return read_graph(files).weights


def pass_shapes(convention: Convention, height_px: int, width_px: int) -> dict[str, Dims]:
    """Return the sizes of all inputs for one photo."""
    channels = {convention.input.name: (3 if convention.input.kind == "rgb" else 1, convention.input.layout)}
    return {
        name: (1, count, height_px, width_px) if layout == "nchw" else (1, height_px, width_px, count)
        for name, (count, layout) in {**channels, **convention.zeros}.items()
    }


def _admit(budget: GraphBudget, convention: Convention, *shapes: tuple[str, Dims]) -> None:
    dims = dict(shapes)[convention.input.name]
    pixels = math.prod(dims[2:] if convention.input.layout == "nchw" else dims[1:3])
    budget.check(dict(shapes), pixels)


class _Inference:
    """What a graph's shapes, names and first operators say, under what its description says."""

    def __init__(self, graph: Any, budget: GraphBudget, declared: ColorizerDescription) -> None:
        self.graph, self.budget, self.declared = graph, budget, declared
        self.found: list[str] = []

    def convention(self) -> Convention:
        """Return how the graph colorizes.

        Raises:
            ValueError: it cannot be told, or the description does not fit.
        """
        name, others = self._input_names()
        layout = self.declared.input.layout or self._layout(name)
        channels = self._channels(name, layout)
        kind = self.declared.input.kind
        if kind is not None and (3 if kind == "rgb" else 1) != channels:
            raise ValueError(f"its description says {kind}, and {shown(name)} has {channels} channels")
        fixed = self._fixed(name, layout)
        zeros = {each: (self._channels(each, at), at) for each in others for at in (self._layout(each),)}
        multiple = self.declared.multiple_px or DEFAULT_MULTIPLE_PX
        guess = kind or ("rgb" if channels == 3 else "lightness")
        size = min(fixed) if fixed else self.declared.size_px or DEFAULT_SIZE_PX[guess]
        side = fixed or (-(-size // multiple) * multiple,) * 2
        taken = TensorUse(name, guess, layout)
        draft = Convention(taken, taken, (0, 0, 0), (1, 1, 1), zeros, fixed, size, multiple, "")
        output = self._output(draft, side)
        if kind is None and channels == 1 and output.kind == "rgb":
            taken = replace(taken, kind="gray")
        if self.declared.output.kind not in (None, output.kind):
            raise ValueError(f"its description says {self.declared.output.kind}, and {shown(output.name)} is not that")
        taken, output = self._ranges(taken, output)
        family = DEFAULT_FAMILY.get((taken.kind, output.kind), "")
        return replace(
            draft,
            input=taken,
            output=output,
            mean=self.declared.input.mean,
            std=self.declared.input.std,
            family=self.declared.family or family,
            found=tuple(self.found),
        )

    def _input_names(self) -> tuple[str, tuple[str, ...]]:
        """Return the gray's input, and the others, which are for hints."""
        pictures = [name for name, each in self.budget.inputs.items() if len(each.shape.dim) == 4]
        if declared := self.declared.input.name:
            if declared not in pictures:
                raise ValueError(f"its description names the input {shown(declared)}; it has {self._listed(pictures)}")
            return declared, tuple(name for name in self.budget.inputs if name != declared)
        if len(pictures) != len(self.budget.inputs) or not pictures:
            raise ValueError(f"takes {self._listed(self.budget.inputs)}, which is no colorizer's input")
        if len(pictures) == 1:
            return pictures[0], ()
        single = [name for name in pictures if self._channels(name, self._layout(name)) == 1]
        grays = [name for name in single if not any(word in name.lower() for word in ("mask", "map", "hint"))]
        channels = sorted(self._channels(name, self._layout(name)) for name in pictures)
        if channels != [1, 1, 2] or not grays:
            raise ValueError(f"takes {self._listed(pictures)}, and which is the gray cannot be told; say input.name")
        self.found.append(f"{grays[0]} is the gray, the others are for hints: by their names and channels")
        return grays[0], tuple(name for name in pictures if name != grays[0])

    def _sizes(self, name: str) -> list[int | None]:
        return [size.value if size.HasField("value") and size.value > 0 else None
                for size in self.budget.inputs[name].shape.dim]  # fmt: skip

    def _layout(self, name: str) -> Layout:
        sizes = self._sizes(name)
        if sizes[1] is not None and sizes[1] <= 4:
            return "nchw"
        if sizes[3] is not None and sizes[3] <= 4:
            return "nhwc"
        raise ValueError(
            f"takes {shown(name)} of the sizes {sizes}, of which none is channels; say it in a description"
        )

    def _channels(self, name: str, layout: Layout) -> int:
        found = self._sizes(name)[1 if layout == "nchw" else 3]
        if found not in (1, 2, 3):
            raise ValueError(f"takes {shown(name)} of {found or 'any number of'} channels; a gray has 1 or 3")
        return found

    def _fixed(self, name: str, layout: Layout) -> tuple[int, int] | None:
        sizes = self._sizes(name)
        height, width = sizes[2:] if layout == "nchw" else sizes[1:3]
        if height is None and width is None:
            return None
        if height is None or width is None:
            raise ValueError(f"takes {shown(name)} of a fixed and a free side, which no colorizer does")
        if self.declared.size_px not in (None, min(height, width)):
            raise ValueError(f"its description says {self.declared.size_px} px, and it takes {width} × {height} alone")
        return height, width

    def _output(self, draft: Convention, side: Sequence[int]) -> TensorUse:
        """Return the output with colors: of those in the form of pictures the last of two channels, or of three."""
        given = self.budget.check(pass_shapes(draft, side[0], side[1]), side[0] * side[1])
        wanted = self.declared.output
        if wanted.name is not None and wanted.name not in given:
            raise ValueError(f"its description names the output {shown(wanted.name)}; it has {self._listed(given)}")
        found: dict[int, TensorUse] = {}
        for name, dims in given.items():
            if len(dims) != 4 or wanted.name not in (None, name):
                continue
            for layout, channels, sides in (("nchw", dims[1], dims[2:]), ("nhwc", dims[3], dims[1:3])):
                if channels in (2, 3) and min(sides) > 3 and wanted.layout in (None, layout):
                    found[channels] = TensorUse(name, "ab" if channels == 2 else "rgb", layout)  # type: ignore[arg-type]
        if not found:
            shapes = ", ".join(f"{name} {dims}" for name, dims in given.items())
            raise ValueError(f"gives {shown(shapes)}: no a and b of 2 channels, and no picture of 3")
        return found[min(found)]

    def _ranges(self, taken: TensorUse, given: TensorUse) -> tuple[TensorUse, TensorUse]:
        """Return input and output with the ranges that are declared, or can be told without a trial."""
        declared_in, declared_out = self.declared.input, self.declared.output
        if declared_in.black is not None and declared_in.white is not None:
            taken = taken.ranged(declared_in.black, declared_in.white)
        elif self.budget.inputs[taken.name].elem == UINT8:
            self.found.append("it takes whole numbers: 0 to 255")
            taken = taken.ranged(0, 255)
        elif taken.kind == "lightness":
            taken = taken.ranged(*self._lightness_range(taken.name))
        elif given.kind == "ab":
            taken = taken.ranged(*self._gray_range(taken.name))
        if given.kind == "ab" and declared_out.unit is not None:
            given = given.ranged(0, 1 / declared_out.unit)
        elif declared_out.black is not None and declared_out.white is not None:
            given = given.ranged(declared_out.black, declared_out.white)
        return taken, given

    def _lightness_range(self, name: str) -> tuple[float, float]:
        offsets = [abs(number) for op, number in self._first_constants(name) if op in ("Sub", "Add")]
        if any(abs(number - LIGHTNESS_MIDDLE) < 1 or abs(number - 0.5) < 0.01 for number in offsets):
            self.found.append("L is 0 to 100: the graph takes its middle off by itself")
            return 0, 100
        self.found.append("L is -50 to 50: nothing in the graph takes its middle off")
        return -LIGHTNESS_MIDDLE, LIGHTNESS_MIDDLE

    def _gray_range(self, name: str) -> tuple[float, float]:
        constants = self._first_constants(name)
        large = [number for op, number in constants if op in ("Sub", "Add", "Div") and abs(number) > 50]
        small = [n for op, n in constants if op == "Mul" and abs(n) < 0.02]
        if large or small:
            self.found.append("the gray is 0 to 255: by the first numbers in the graph")
            return 0, 255
        normalized = any(abs(abs(number) - IMAGENET_MEAN) < NEAR for op, number in constants if op in ("Sub", "Add"))
        how = "as the graph normalizes it by itself" if normalized else "which nothing in the graph contradicts"
        self.found.append(f"the gray is 0 to 1, {how}")
        return 0, 1

    def _first_constants(self, name: str) -> list[tuple[str, float]]:
        """Return the operators of arithmetic that follow an input directly, each with the mean of its constant."""
        constants, reached, found = dict(self._constants()), {name}, list[tuple[str, float]]()
        followed = 0
        for node in self.graph.node:
            if reached.isdisjoint(node.input) or followed == MOST_FOLLOWED:
                continue
            others = [each for each in node.input if each not in reached]
            if node.op_type in ("Sub", "Add", "Mul", "Div") and len(others) == 1 and others[0] in constants:
                found.append((node.op_type, constants[others[0]]))
                reached.update(node.output)
            elif node.op_type in THROUGH:
                reached.update(node.output)
            followed += 1
        return found

    def _constants(self) -> Sequence[tuple[str, float]]:
        stored = [(each.name, each) for each in self.graph.initializer]
        stored += [
            (node.output[0], each.t)
            for node in self.graph.node
            if node.op_type == "Constant" and node.output
            for each in node.attribute
            if each.HasField("t")
        ]
        return [(name, float(np.mean(value))) for name, tensor in stored if (value := _few_numbers(tensor)) is not None]

    @staticmethod
    def _listed(names: Any) -> str:
        return ", ".join(shown(name) for name in list(names)[:4])


def _few_numbers(tensor: Any) -> np.ndarray | None:
    """Return the numbers of a small stored tensor of floats."""
    if math.prod(tensor.dims) > 3 or tensor.data_type not in FLOATS:
        return None
    if tensor.raw_data:
        return np.frombuffer(tensor.raw_data, FLOATS[tensor.data_type]).astype(np.float64)
    if tensor.data_type == 10:
        return np.array(tensor.int32_data, np.int64).astype(np.uint16).view(np.float16).astype(np.float64)
    numbers = list(tensor.float_data) or list(tensor.double_data)
    return np.array(numbers) if numbers else None
