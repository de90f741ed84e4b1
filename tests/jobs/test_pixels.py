"""The number that says that results are other ones now is raised when they are."""

from __future__ import annotations

import numpy as np

from chromatune.colorizer import Colorizer
from chromatune.jobs.catalog import PIXELS_VERSION

# (PIXELS_VERSION, mean red, green and blue of quarters of a drawn photo by `mini`); rounding differs between processors
KNOWN = (3, [[179.5, 169.5, 160.8], [182.3, 177.7, 172.9], [135.3, 107.7, 92.1], [135.0, 109.2, 92.6]])
TOLERANCE = 1.0  # levels of 255


def drawn() -> np.ndarray:
    """(96, 96) uint8: a landscape of sorts."""
    down, across = np.mgrid[0:96, 0:96] / 95
    return np.rint(255 * (0.75 - 0.5 * down + 0.15 * np.sin(9 * across * down) ** 2)).astype(np.uint8)


def test_other_pixels_have_another_number() -> None:
    rgb = Colorizer.load("mini", device="cpu").colorize(drawn()).rgb.astype(float)
    quarters = [rgb[top : top + 48, left : left + 48].mean((0, 1)) for top in (0, 48) for left in (0, 48)]
    number, known = KNOWN
    assert number == PIXELS_VERSION, "write down what this version gives"
    np.testing.assert_allclose(quarters, known, atol=TOLERANCE, err_msg="raise chromatune.jobs.catalog.PIXELS_VERSION")
