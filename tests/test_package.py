"""The package's face: the names it promises, one version, and that each name is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import chromatune

PUBLIC_NAMES = [
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


def test_public_names_are_exactly_these() -> None:
    assert chromatune.__all__ == PUBLIC_NAMES
    assert set(PUBLIC_NAMES) <= set(dir(chromatune))


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(chromatune, name)
    assert name == "__version__" or value.__doc__
    assert getattr(chromatune, name) is value


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = chromatune.nonsense


def test_all_errors_have_one_base() -> None:
    errors = [getattr(chromatune, name) for name in PUBLIC_NAMES if name.endswith("Error")]
    assert all(issubclass(error, chromatune.ChromaTuneError) for error in errors)


@pytest.mark.parametrize("module", ["chromatune", "chromatune.colorizer", "chromatune.bundle", "chromatune.inference"])
def test_nothing_loads_torch_before_a_model_does(module: str) -> None:
    told = "import sys, " + module + "; print(sorted({'torch', 'diffusers', 'transformers'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(chromatune.__file__).with_name("py.typed").is_file()
