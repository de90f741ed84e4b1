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
    "Editor",
    "Hints",
    "MissingExtraError",
    "ModelError",
    "OptionsError",
    "Photo",
    "PhotoError",
    "Request",
    "__version__",
    "load_pipeline",
    "make_options",
    "read_photo",
    "recolor",
]


def test_public_names_are_exactly_these() -> None:
    assert sorted(vars(chromatune)["__all__"]) == PUBLIC_NAMES
    assert set(PUBLIC_NAMES) <= set(dir(chromatune))


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(chromatune, name)
    assert name == "__version__" or value.__doc__
    assert getattr(chromatune, name) is value


def test_an_unknown_name_is_an_attribute_error() -> None:
    name = "nonsense"
    with pytest.raises(AttributeError, match="attribute nonsense"):
        getattr(chromatune, name)


@pytest.mark.parametrize(("old", "new"), [("Retouch", "Editor"), ("load_bundle", "load_pipeline")])
def test_a_name_of_the_last_version_still_works_and_says_the_new_one(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{old} is now chromatune.{new}"):
        assert getattr(chromatune, old) is getattr(chromatune, new)


def test_all_errors_have_one_base() -> None:
    errors = [getattr(chromatune, name) for name in PUBLIC_NAMES if name.endswith("Error")]
    assert all(issubclass(error, chromatune.ChromaTuneError) for error in errors)


def test_nothing_loads_torch_before_a_model_does() -> None:
    code = (
        "import sys, chromatune.colorizer, chromatune.pipeline.runtimes\n"
        "print(sorted({'torch', 'diffusers', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(chromatune.__file__).with_name("py.typed").is_file()
