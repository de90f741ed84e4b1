"""Arrays and plots ⇒ the bytes of image files, and data URIs for pages."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110
GAP_PX = 4
JPEG_QUALITY = 90
LONGEST_LABEL = 56  # characters: half a figure's width


def jpeg_of(rgb_u8: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """Encode (H, W, 3) uint8 sRGB as a JPEG."""
    # BGR is what OpenCV writes
    return bytes(cv2.imencode(".jpg", rgb_u8[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def png_of(rgb_u8: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 sRGB as a PNG."""
    return bytes(cv2.imencode(".png", rgb_u8[..., ::-1])[1])


def beside(squares: Sequence[np.ndarray], gap_px: int = GAP_PX) -> np.ndarray:
    """Join pictures of one height side by side, with white between: (H, W, 3) uint8 sRGB each, and the result."""
    gap = np.full((squares[0].shape[0], gap_px, 3), 255, np.uint8)
    return np.concatenate([piece for square in squares for piece in (square, gap)][:-1], axis=1)


def data_uri(data: bytes, kind: str) -> str:
    """Return an image's bytes for the `src` of an HTML image; `kind` is "png" or "jpeg"."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """Return an empty matplotlib figure, without pyplot: no state, no display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches), dpi=DPI, layout="constrained")


def png_of_figure(figure: Figure) -> bytes:
    """Encode the figure as a PNG; equal plots are equal bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def plain_label(name: str) -> str:
    """Return the name as a figure shows it: no dollar sign is a formula, and a long one loses its middle."""
    if len(name) > LONGEST_LABEL:
        half = LONGEST_LABEL // 2
        name = f"{name[: half - 1]} … {name[-half + 2 :]}"
    return name.replace("$", r"\$")
