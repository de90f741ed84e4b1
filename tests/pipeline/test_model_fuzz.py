"""Strangers' models at random but seeded, in a process with little memory and few descriptors: a line or a result.

Slow: `make slow` runs it. Run as a program, this file is that process.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

pytestmark = pytest.mark.slow

ROUNDS = 150
ROOM_BYTES = 1 << 30  # of address space, beyond what one good pass has taken
DESCRIPTORS = 64
OPERATORS = (
    "Add", "MatMul", "Concat", "Expand", "Tile", "ConstantOfShape", "Resize", "Pad", "Range", "Reshape", "Gather",
    "Conv", "Transpose", "Where", "Div", "Mod", "Cast", "Shape", "Slice", "Split", "Einsum", "OneHot", "ReduceSum",
    "Loop", "If", "SequenceMap", "Unsqueeze", "ConvTranspose", "ArgMax", "Neg",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 7, 64, 3000, 10**5, 10**9, 2**31, 2**40, 2**62, -(2**63))
VALUES: list[Any] = [
    None, True, -1, 0, 0.5, 2**31, 2**63, 1e300, "", "x" * 5000, "\x1b[31m\r\n", [], {}, [[]], [1] * 1000, "(a+)+$",
    {"Regex": "(a|a)*b"}, {"type": "Replace", "pattern": {"String": "a"}, "content": "aa" * 1000}, "../../etc/passwd",
]  # fmt: skip


def strange_graph(path: Path, rng: np.random.Generator) -> str:
    """Some operators, constants and sizes more, or others, where there were any."""
    model = onnx.ModelProto.FromString(path.read_bytes())
    graph = model.graph
    for _ in range(int(rng.integers(1, 5))):
        names = [name for node in graph.node for name in node.output] + [each.name for each in graph.initializer]
        numbers = rng.choice(np.array(NUMBERS), int(rng.integers(1, 5)))
        match int(rng.integers(5)):
            case 0:
                name = f"strange {len(graph.initializer)}"
                graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), name))
                last = graph.node[int(rng.integers(len(graph.node)))]
                if last.input:
                    last.input[int(rng.integers(len(last.input)))] = f"{name} made"
                made = helper.make_node(str(rng.choice(OPERATORS)), [str(rng.choice(names)), name], [f"{name} made"])
                graph.node.insert(int(rng.integers(len(graph.node))), made)
            case 1:
                graph.node[int(rng.integers(len(graph.node)))].op_type = str(rng.choice(OPERATORS))
            case 2 if graph.initializer:
                tensor = graph.initializer[int(rng.integers(len(graph.initializer)))]
                tensor.dims[:] = numbers.tolist()
            case 3:
                node = graph.node[int(rng.integers(len(graph.node)))]
                for attribute in node.attribute:
                    attribute.ints[:] = numbers[: len(attribute.ints)].tolist()
                    attribute.i = int(numbers[0])
            case _:
                node = graph.node[int(rng.integers(len(graph.node)))]
                if node.input:
                    node.input[int(rng.integers(len(node.input)))] = str(rng.choice(names))
    path.write_bytes(model.SerializeToString())
    return f"{path.parent.name}/{path.name}"


def strange_bytes(path: Path, rng: np.random.Generator) -> str:
    """Some bytes others, among the first that say what follows."""
    data = bytearray(path.read_bytes())
    for place in rng.integers(min(len(data), 5000), size=int(rng.integers(1, 8))):
        data[place] = int(rng.integers(256))
    path.write_bytes(bytes(data))
    return f"bytes of {path.parent.name}/{path.name}"


def strange_settings(path: Path, rng: np.random.Generator) -> str:
    """Another value, at any depth."""

    def changed(value: Any) -> Any:
        inner = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
        if not inner or rng.random() < 0.1:
            return VALUES[int(rng.integers(len(VALUES)))]
        key = inner[int(rng.integers(len(inner)))]
        copy = value.copy()
        copy[key] = changed(value[key])
        return copy

    path.write_text(json.dumps(changed(json.loads(path.read_text()))))
    return f"{path.parent.name}/{path.name}"


def strange_header(path: Path, rng: np.random.Generator) -> str:
    """Other sizes, types and places in a header of weights, or another length of it."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    entry = header[list(header)[int(rng.integers(len(header)))]]
    key = ("dtype", "shape", "data_offsets")[int(rng.integers(3))]
    entry[key] = rng.choice(np.array(NUMBERS), 2).tolist() if rng.random() < 0.7 else VALUES[int(rng.integers(12))]
    text = json.dumps(header).encode()
    size = int(rng.choice(np.array([len(text)] * 6 + [0, 2, 2**40, 2**62])))
    path.write_bytes(struct.pack("<Q", size) + text + data[8 + length :])
    return f"header of {path.parent.name}/{path.name}"


def strange_kind(path: Path, rng: np.random.Generator) -> str:
    """A pipe, a link to a device, a folder, or a file of gigabytes, under its name."""
    path.unlink()
    match int(rng.integers(4)):
        case 0:
            os.mkfifo(path)
        case 1:
            path.symlink_to("/dev/zero")
        case 2:
            path.mkdir()
        case _:
            with path.open("wb") as file:
                file.truncate(int(rng.choice(np.array([1 << 20, 3 << 30, 1 << 40]))))
    return f"kind of {path.parent.name}/{path.name}"


DOORS: dict[str, tuple[str, Callable[[Path, np.random.Generator], str]]] = {
    "graphs": ("*/model.onnx", strange_graph),
    "bytes of graphs": ("*/model.onnx", strange_bytes),
    "tokenizer": ("tokenizer/*.json", strange_settings),
    "settings": ("**/*.json", strange_settings),
    "headers": ("*/*.safetensors", strange_header),
    "kinds": ("**/*.*", strange_kind),
}


@pytest.mark.parametrize("door", DOORS)
def test_strange_models_are_a_line_or_a_result(graph_pipeline: Path, tmp_path: Path, door: str) -> None:
    command = [sys.executable, "-W", "error", __file__, str(graph_pipeline), str(tmp_path), door]
    done = subprocess.run(command, capture_output=True, text=True)
    refused = done.stdout.strip().rpartition("\n")[2]
    assert done.returncode == 0 and refused.isdecimal(), done.stdout[-500:] + done.stderr[-2000:]
    assert int(refused) > ROUNDS / 5


def main(whole: Path, work: Path, door: str) -> None:
    """Open and run one spoilt copy after the other; print how many were refused."""
    from chromatune import Colorizer, make_options
    from chromatune.errors import ChromaTuneError

    rng, gray = np.random.default_rng(list(DOORS).index(door)), np.zeros((40, 60), np.uint8)
    options, (pattern, spoil) = make_options(steps=2, guidance_scale=2.0), DOORS[door]
    Colorizer.load(str(whole), device="cpu", runtime="onnx").colorize(gray, options)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS,) * 2)
    refused = 0
    for number in range(ROUNDS):
        folder = work / f"model-{number}"
        shutil.copytree(whole, folder)
        files = sorted(path for path in folder.glob(pattern) if path.is_file())
        how = f"{number}: {spoil(files[int(rng.integers(len(files)))], rng)}"
        try:
            Colorizer.load(str(folder), device="cpu", runtime="onnx").colorize(gray, options)
        except ChromaTuneError as error:
            refused += 1
            line = str(error)
            if not line.isprintable() or not 0 < len(line) < 1000:
                raise AssertionError(f"{how}: {line[:1000]!r}") from error
        except BaseException as error:
            raise AssertionError(how) from error
        shutil.rmtree(folder)
    print(refused)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
