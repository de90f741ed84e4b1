"""Photo files by their names: results of earlier runs, and what a folder holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from chromatune.files import lock_run_folder
from chromatune.images import Listing, find_own_results, list_folder


@pytest.mark.parametrize(
    ("photos", "found"),
    [
        (["x.jpg", "x.color.jpg", "y.png"], ["x.color.jpg"]),
        (["x.color-1.png", "x.color-12.png", "x.tif"], ["x.color-1.png", "x.color-12.png"]),
        (["d/x.jpg", "x.color.jpg"], []),  # of another photo
        (["x.color.jpg"], []),  # alone, it is a photo like any other
        (["scan.tif", "scan.color-p1.tif", "scan.color-2-p12.png"], ["scan.color-p1.tif", "scan.color-2-p12.png"]),
        (["./x.jpg", "d/../x.color.jpg"], ["d/../x.color.jpg"]),
        (["d/x.jpg", "d/x.color.jpg", "e/x.color.jpg"], ["d/x.color.jpg"]),
        (["x.jpg", "d/contact-sheet.png", "contact-sheet.jpg"], ["d/contact-sheet.png"]),
        (["contact-sheet.png"], []),
        (["x.jpg", "x.color.jpg", "x.color.color.jpg"], ["x.color.jpg", "x.color.color.jpg"]),
        (
            ["x.jpg", "x.color-blind.jpg", "x.colors.jpg", "color.jpg", "x.color-.jpg", "x.color-p.jpg", ".color.jpg"],
            [],
        ),
    ],
)
def test_results_of_an_earlier_run_are_no_photos(photos: list[str], found: list[str]) -> None:
    assert find_own_results(photos) == found


def test_a_folder_lists_photos_others_and_results_but_nothing_hidden_and_no_run(tmp_path: Path) -> None:
    names = (
        "b.JPG",
        "a/x.png",
        "a/x.color.png",
        "notes.txt",
        ".hidden.jpg",
        ".git/c.jpg",
        "__MACOSX/d.jpg",
        "@eaDir/1.jpg/thumb.jpg",
        "deep/#recycle/old.jpg",
        "$Recycle.Bin/old.jpg",
        "run/e.png",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with lock_run_folder(tmp_path / "run", "run.json", {"seed": 1}, "a run"):
        pass
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    found = list_folder(tmp_path)
    assert found == Listing(tmp_path, ("a/x.png", "b.JPG"), ("notes.txt",), 0, ("a/x.color.png",))
    assert list_folder(tmp_path / "gone").closed_folders == 1
