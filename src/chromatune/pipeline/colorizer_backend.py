"""The backend of anyone's colorizer: a gray in its own units ⇒ its colors, put onto that gray.

Its network is one function, whatever runs it. It follows no instructions and has no seeds; hints and references compare
photos by the photo encoder of `mini`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np

from chromatune import color
from chromatune.errors import ModelError
from chromatune.options import ResolvedOptions
from chromatune.pipeline.backend import BackendOutput, Features
from chromatune.pipeline.checks import reason_of
from chromatune.pipeline.colorizer_files import ColorizerFiles
from chromatune.pipeline.colorizer_graph import Convention, TensorUse, pass_shapes, read_graph
from chromatune.pipeline.model_files import ModelInfo
from chromatune.pipeline.model_kinds import read_info
from chromatune.pipeline.onnx_backend import Graph, open_session, provider_of, threads
from chromatune.pipeline.shared_encoder import ENCODER_MULTIPLE_PX, shared_features

Network: TypeAlias = Callable[[dict[str, np.ndarray]], np.ndarray]  # inputs by name ⇒ the output with colors
Work: TypeAlias = tuple[int | None, int | None]  # parameters; operations, two for a multiplication and its addition

RANGES = ((0.0, 255.0), (0.0, 1.0), (-1.0, 1.0))  # of pictures, as networks take and give them
TRIAL_FILE = Path(__file__).with_name("trial.jpg")
TRIAL_PX = 256  # side at which a range is tried out, where the network takes any
RAMP_PX = 48
MOST_APART = 0.12  # mean |luma - gray|, 0..1, of an answer that follows the gray
LEAST_AB = 2.0  # CIELAB units; an answer to the trial's picture without any larger a or b is in other units
NORMALIZED_UNIT = 110.0  # of a and b from -1 to 1, in all networks that are known
MOST_AB = 160.0  # CIELAB units; beyond, it is no color


class ColorizerBackend:
    """A colorizer's network as a `Backend`."""

    batches = False  # most graphs take one photo

    def __init__(
        self,
        info: ModelInfo,
        network: Network,
        convention: Convention,
        *,
        runtime: str,
        concurrent: bool = True,
        work: Callable[[int, int], Work] = lambda height_px, width_px: (None, None),
    ) -> None:
        """Hold a network, and try out what is unknown of its ranges.

        Args:
            info: what is known of it.
            network: runs it.
            convention: how it is used.
            runtime: the library that runs it.
            concurrent: see `Backend.concurrent`.
            work: parameters and operations of a pass of a height and width.

        Raises:
            ModelError: in no range does its answer follow the gray, or it cannot be run.
        """
        self.info, self.runtime, self.concurrent = info, runtime, concurrent
        self._network, self._work = network, work
        self.convention = self._tried(convention)
        own = 1 if convention.fixed_px else convention.multiple_px  # a fixed size is reached by resizing
        self.multiple_px = math.lcm(own, ENCODER_MULTIPLE_PX)

    def warnings_of(self, options: ResolvedOptions) -> tuple[str, ...]:
        """Return a line that names the options that it does not follow."""
        warnings = self.info.unfollowed(options)
        if (fixed := self.convention.fixed_px) and options.size_px != self.info.size_px:
            warnings += (f"{self.info.name} takes {fixed[1]} × {fixed[0]} px alone; --size changes nothing in it",)
        return warnings

    def work(self, height_px: int, width_px: int) -> Work:
        """Return parameters and operations of a pass for a photo of that size; None where they are unknown."""
        return self._work(*(self.convention.fixed_px or (height_px, width_px)))

    def features(self, grays: np.ndarray) -> Features | None:
        """Return the features of `mini`'s photo encoder; see `Backend.features`."""
        return shared_features(grays)

    def __call__(
        self, grays: np.ndarray, options: Sequence[ResolvedOptions], with_features: bool = False
    ) -> BackendOutput:
        """Return the model's own RGB; see `Backend`. Of a and b beyond sRGB it is outside of 0..1.

        Raises:
            ModelError: the network gives values that are not numbers, or no picture.
        """
        rgb = np.stack([self._colorized(gray, self.convention) for gray in grays])
        if not np.isfinite(rgb).all():
            raise ModelError(f"{self.info.name} returned NaN or infinite values; give another model")
        return BackendOutput(rgb, self.features(grays) if with_features else None)

    def _colorized(self, gray: np.ndarray, convention: Convention) -> np.ndarray:
        """(h, w) float32 luma 0..1 -> (h, w, 3) float32 sRGB."""
        size = convention.fixed_px or (gray.shape[0], gray.shape[1])
        given = self._given(color.resize(gray, *size) if gray.shape != size else gray, convention)
        height, width = gray.shape
        colors = cv2.resize(given, (width, height), interpolation=cv2.INTER_LINEAR)
        if convention.output.kind == "ab":
            return color.rgb_of_lab(gray, np.clip(colors, -MOST_AB, MOST_AB))
        return np.clip(colors, 0, 1)

    def _given(self, gray: np.ndarray, convention: Convention) -> np.ndarray:
        """Run the network: (h, w) of its own size -> a and b in CIELAB units, or RGB 0..1, of any size."""
        taken, output = convention.input, convention.output
        height, width = gray.shape
        arrays = {name: np.zeros(shape, np.float32) for name, shape in pass_shapes(convention, height, width).items()}
        arrays[taken.name] = _encoded(gray, convention)
        try:
            answer = self._network(arrays).astype(np.float32)
        except Exception as error:  # what the library raises on what does not fit is of any kind
            if "memory" in str(error).lower() or "alloc" in str(error).lower():
                raise MemoryError("not enough memory for the model's pass") from error
            raise ModelError(f"{self.info.name} cannot be used ({reason_of(error)}); give another model") from error
        channels = 2 if output.kind == "ab" else 3
        picture = answer[0] if answer.ndim == 4 else answer
        picture = picture.transpose(1, 2, 0) if output.layout == "nchw" and picture.ndim == 3 else picture
        if picture.ndim != 3 or picture.shape[2] != channels:
            raise ModelError(
                f"{self.info.name} returned an output of shape {answer.shape}, not a picture; choose another model"
            )
        low = 0.0 if math.isnan(output.black) else output.black
        high = 1.0 if math.isnan(output.white) else output.white
        return np.ascontiguousarray((picture - np.float32(low)) / np.float32(high - low))

    def _tried(self, convention: Convention) -> Convention:
        """Return the convention with its ranges tried out on a picture."""
        if convention.input.known and convention.output.known:
            return convention
        gray = color.resize(_trial_picture(), *(convention.fixed_px or self._trial_size(convention)))
        return self._tried_ab(convention, gray) if convention.output.kind == "ab" else self._tried_rgb(convention, gray)

    @staticmethod
    def _trial_size(convention: Convention) -> tuple[int, int]:
        side = -(-TRIAL_PX // convention.multiple_px) * convention.multiple_px
        return side, side

    def _tried_ab(self, convention: Convention, gray: np.ndarray) -> Convention:
        largest = float(np.abs(self._given(gray, convention)).max())
        unit = NORMALIZED_UNIT if largest < LEAST_AB else 1.0
        line = f"a and b are in units of {unit:g}: the largest of a trial is {largest:.2f}"
        return replace(convention, output=convention.output.ranged(0, 1 / unit), found=(*convention.found, line))

    def _tried_rgb(self, convention: Convention, gray: np.ndarray) -> Convention:
        """Choose the ranges whose answer's luma follows the gray."""
        trials: list[_Trial] = []
        for black, white in _ranges(convention.input):
            taken = replace(convention, input=convention.input.ranged(black, white))
            answer = cv2.resize(self._given(gray, taken), gray.shape[::-1], interpolation=cv2.INTER_LINEAR)
            for low, high in _ranges(convention.output):
                # Where the output's range is declared, `_given` has applied it
                rgb = answer if convention.output.known else (answer - low) / (high - low)
                apart = float(np.abs(np.clip(color.luma(rgb), -1, 2) - gray).mean())
                trials.append(_Trial(apart if math.isfinite(apart) else math.inf, (black, white), (low, high)))
        best = min(trials, key=lambda trial: trial.apart)
        if not best.apart <= MOST_APART:
            raise ModelError(
                f"{self.info.name} has an output that matches the photo in no known value range (luma differs by "
                f"{best.apart:.2f}); set input.black, input.white, output.black and output.white in its "
                "description, see docs/models.md"
            )
        line = (
            f"the gray is {best.taken[0]:g} to {best.taken[1]:g} and the picture {best.given[0]:g} to "
            f"{best.given[1]:g}: its luma is {best.apart:.3f} from the gray's in a trial"
        )
        return replace(
            convention,
            input=convention.input.ranged(*best.taken),
            output=convention.output.ranged(*best.given),
            found=(*convention.found, line),
        )


@dataclass(frozen=True)
class _Trial:
    apart: float  # mean |luma - gray|
    taken: tuple[float, float]
    given: tuple[float, float]


def load_graph_backend(files: ColorizerFiles, *, device: str = "cpu", workers: int = 1) -> ColorizerBackend:
    """Open a colorizer's ONNX graph.

    Raises:
        ModelError: see `read_graph`; or ONNX Runtime has no such device, or cannot open it.
    """
    opened, provider = read_graph(files), provider_of(device)
    try:
        graph = Graph(open_session(files.network, provider, max(1, threads() // workers)), opened.admit)
    except Exception as error:  # what the library raises on a damaged graph is of any kind
        raise ModelError(f"{files.name}: it cannot be opened: {reason_of(error)}") from error
    output = opened.convention.output.name
    return ColorizerBackend(
        read_info(files),
        lambda arrays: graph.run(arrays, [output])[0],
        opened.convention,
        runtime="onnx",
        concurrent=device == "cpu",
        work=lambda height, width: (opened.parameters, opened.operations(height, width)),
    )


def _encoded(gray: np.ndarray, convention: Convention) -> np.ndarray:
    """(h, w) float32 luma 0..1 -> (1, C, h, w) or (1, h, w, C), in the network's units."""
    taken = convention.input
    if taken.kind == "lightness":
        values = (color.lightness_of(gray) / np.float32(100))[..., None]
    else:
        values = np.repeat(gray[..., None], 3 if taken.kind == "rgb" else 1, axis=2)
    values = np.float32(taken.black) + values * np.float32(taken.white - taken.black)
    if taken.kind == "rgb":
        values = (values - np.array(convention.mean, np.float32)) / np.array(convention.std, np.float32)
    return values.transpose(2, 0, 1)[None] if taken.layout == "nchw" else values[None]


def _ranges(use: TensorUse) -> Sequence[tuple[float, float]]:
    return ((use.black, use.white),) if use.known else RANGES


def trial_photo() -> np.ndarray:
    """Return the photo that networks are tried with: (256, 256) uint8, luma; see NOTICE for where it is from."""
    found = cv2.imdecode(np.frombuffer(TRIAL_FILE.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert found is not None
    return np.asarray(found)


def _trial_picture() -> np.ndarray:
    """Return that photo over a ramp, which has every tone: (256, 256) float32 luma 0..1."""
    picture = trial_photo().astype(np.float32) / 255
    picture[-RAMP_PX:] = np.linspace(0, 1, picture.shape[1], dtype=np.float32)
    return picture
