"""What a model's graphs take and give, held against each other before the first pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from chromatune.errors import shown
from chromatune.pipeline.names import PHOTO_ENCODER

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


def signature_problem(signatures: Mapping[str, tuple[Signature, Signature]]) -> tuple[str, str] | None:
    """The part whose graph does not fit a model, and why; None if all do.

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
    """Whether a shape may be another; what is not said may be anything."""
    if not shape or not expected:
        return True
    return len(shape) == len(expected) and all(map(_may_be, shape, expected))


def _may_be(size: Any, expected: Any) -> bool:
    if not isinstance(size, int) or not isinstance(expected, int | tuple):
        return True
    return size in expected if isinstance(expected, tuple) else size == expected


def _text(shape: Shape) -> str:
    def size(each: Any) -> str:
        return str(each) if isinstance(each, int) else " or ".join(map(str, each)) if isinstance(each, tuple) else "?"

    return f"({', '.join(map(size, shape or ()))})"


def _names(names: Mapping[str, Shape]) -> str:
    return shown(", ".join(names)) if names else "nothing"
