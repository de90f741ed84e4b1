"""Colorizes black-and-white photographs by instruction, keeping each pixel's luminance.

    from chromatune import Colorizer
    Colorizer.load("mini").colorize("portrait.jpg").save("portrait.color.jpg")

Names are loaded on first use: `import chromatune` costs nothing, and torch comes with the first model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chromatune.bundle import load_bundle
    from chromatune.colorizer import Colorizer, ColorizeResult, Request
    from chromatune.errors import (
        ChromaTuneError,
        DataError,
        MissingExtraError,
        ModelError,
        OptionsError,
        PhotoError,
    )
    from chromatune.hints import Hints
    from chromatune.images import Photo, read_photo
    from chromatune.options import ColorizeOptions, make_options
    from chromatune.retouching import Retouch

__version__ = "0.1.0"

_MODULE_OF = {
    "ChromaTuneError": "errors",
    "ColorizeOptions": "options",
    "ColorizeResult": "colorizer",
    "Colorizer": "colorizer",
    "DataError": "errors",
    "Hints": "hints",
    "MissingExtraError": "errors",
    "ModelError": "errors",
    "OptionsError": "errors",
    "Photo": "images",
    "PhotoError": "errors",
    "Request": "colorizer",
    "Retouch": "retouching",
    "load_bundle": "bundle",
    "make_options": "options",
    "read_photo": "images",
}

__all__ = [
    "ChromaTuneError",
    "ColorizeOptions",
    "ColorizeResult",
    "Colorizer",
    "DataError",
    "Hints",
    "MissingExtraError",
    "ModelError",
    "OptionsError",
    "Photo",
    "PhotoError",
    "Request",
    "Retouch",
    "__version__",
    "load_bundle",
    "make_options",
    "read_photo",
]


def __getattr__(name: str) -> object:
    """The public name, from its module (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
