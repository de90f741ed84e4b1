"""What tests of models with parts of other libraries share."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest


@pytest.fixture(scope="session", autouse=True)
def torchvision_imports() -> Iterator[None]:
    """Let torchvision be imported beside another torch than its wheel was built for, whose operators it cannot load."""
    library = None
    if find_spec("torchvision") is not None:
        import torch

        if not hasattr(torch.ops.torchvision, "nms"):
            library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield
    del library


@pytest.fixture(scope="session")
def colorizers_extra() -> None:
    """What the extra `colorizers` brings; tests with it are left out where it is not installed."""
    if find_spec("spandrel_extra_arches") is None or find_spec("torchvision") is None:
        pytest.skip("the extra colorizers is not installed")
