"""The photo encoder of `mini`, for backends whose model has none: hints and references compare photos by it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from chromatune.pipeline.backend import Features
from chromatune.pipeline.model_files import PHOTO_ENCODER
from chromatune.pipeline.onnx_backend import (
    FEATURES,
    Graph,
    features_of,
    open_session,
    provider_of,
    rgb_pixels,
    threads,
)
from chromatune.pipeline.onnx_checks import GRAPH_FILE

ENCODER_FILE = Path(__file__).parents[1] / "models" / "mini" / PHOTO_ENCODER / GRAPH_FILE
ENCODER_MULTIPLE_PX = 32  # of the sides of its photos


def shared_features(grays: np.ndarray) -> Features | None:
    """Return the features of `mini`'s photo encoder; see `Backend.features`."""
    encoder = _encoder()
    names = [name for name in encoder.outputs if name.startswith(FEATURES.format(""))]
    found = encoder.run({encoder.inputs[0]: rgb_pixels(grays)}, names)
    return features_of(dict(zip(names, found, strict=True)))


@lru_cache(1)
def _encoder() -> Graph:
    """Open the graph, once for all backends of a process."""
    return Graph(open_session(ENCODER_FILE, provider_of("cpu"), threads()))
