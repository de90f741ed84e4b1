"""Which of many files are results of others of them, as names tell."""

from __future__ import annotations

import pytest

from chromatune.images import find_own_results


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
