"""Colorizes black-and-white photographs by instruction, keeping each pixel's luminance.

    from chromatune import Colorizer
    Colorizer.load("mini").colorize("portrait.jpg").save("portrait.color.jpg")

Names are loaded on first use: `import chromatune` costs nothing, and torch comes with the first model.
`__init__.pyi` lists them; every package below has such a list, and is imported by the names on it alone.
"""

import warnings

import lazy_loader

__version__ = "0.2.0"

_load, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]

_RENAMED = {"Retouch": "Editor", "load_bundle": "load_pipeline"}  # until 0.3


def __getattr__(name: str) -> object:
    """Return a public name, loaded when it is first asked for (PEP 562)."""
    if name in _RENAMED:
        warnings.warn(f"chromatune.{name} is now chromatune.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
        name = _RENAMED[name]
    return _load(name)


def __dir__() -> list[str]:
    """Return the public names."""
    return list(__all__)
