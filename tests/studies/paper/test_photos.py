"""Licenses of photos, and the photos that stand in where none are given."""

from __future__ import annotations

import pytest

from chromatune.data import open_source
from chromatune.errors import DataError
from studies.paper.photos import describe_licenses, licenses_of, write_examples

MANIFEST = """file,set,licence
set/a.png,set,"CC BY 4.0 (Books) (credit: somebody)"
set/b.png,set,"CC BY 4.0 (Books) (credit: somebody else)"
"""


@pytest.fixture
def folder(drawings, tmp_path):
    """Three photos in a set."""
    folder = tmp_path / "set"
    folder.mkdir()
    for name, number in zip("abc", range(3), strict=True):
        (folder / f"{name}.png").write_bytes((drawings / f"{number:02d}.png").read_bytes())
    return folder


@pytest.mark.parametrize("beside", [True, False])
def test_licenses_are_those_of_the_manifest_beside_the_photos_or_their_folder(folder, beside):
    text = MANIFEST.replace("set/", "") if beside else MANIFEST
    (folder if beside else folder.parent).joinpath("manifest.csv").write_text(text, encoding="utf-8")
    items = open_source(f"folder:{folder}").items
    assert licenses_of(items)["b.png"] == "CC BY 4.0 (Books) (credit: somebody else)"
    assert describe_licenses(items) == "CC BY 4.0 (Books) (2), not stated (1)"


def test_without_a_manifest_no_license_is_stated(folder):
    assert describe_licenses(open_source(str(folder)).items) == "not stated (3)"


def test_a_manifest_that_is_no_text_is_one_line(folder):
    (folder / "manifest.csv").write_bytes(b"file,license\n\xff,x\n")
    with pytest.raises(DataError, match="manifest.csv: cannot be read .* repair it, or move it away"):
        licenses_of(open_source(f"folder:{folder}").items)


def test_examples_are_enough_photos_for_the_quick_budget_and_written_once(tmp_path):
    folder = write_examples(tmp_path / "examples")
    source = open_source(str(folder))
    assert len(source.items) == 24
    assert min(min(item.read().shape[:2]) for item in source.items) >= 128  # enlarged to 256 px, twice at most
    (folder / "rocket-5.png").unlink()
    assert len(list(write_examples(folder).iterdir())) == 23
