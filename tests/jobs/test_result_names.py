"""Names of results: as the photos', never two alike, and the same whatever comes later."""

from __future__ import annotations

import os

import pytest
from chromatune.jobs.result_names import ResultNames

LONG = "ä" * 125  # 250 bytes


@pytest.mark.parametrize(
    ("photos", "names"),
    [
        (["a.jpg", "a.png", "p/a.jpg"], [("a.jpg", "a.jpg.png"), ("a.png", "a.png.png"), ("p/a.jpg", "p/a.jpg.png")]),
        (["a.gif"], [("a.gif.png", "a.gif.png")]),
        (["a.gif", "a.gif.png"], [("a.gif~2.png", "a.gif~2.png"), ("a.gif.png", "a.gif.png.png")]),
        (["A.jpg", "a.jpg"], [("A.jpg", "A.jpg.png"), ("a~2.jpg", "a.jpg~2.png")]),
        (["\u00e9.jpg", "e\u0301.jpg"], [("\u00e9.jpg", "\u00e9.jpg.png"), ("e\u0301~2.jpg", "e\u0301.jpg~2.png")]),
    ],
)
def test_names(photos: list[str], names: list[tuple[str, str]]) -> None:
    assert list(ResultNames({}).names_of(photos).values()) == names


def test_a_name_that_is_there_stays_with_its_photo() -> None:
    assert ResultNames({"a.jpg": "a.jpg"}).names_of(["A.jpg", "a.jpg"])["a.jpg"][0] == "a.jpg"
    assert ResultNames({"a.jpg": "a.jpg"}).names_of(["A.jpg", "a.jpg"])["A.jpg"][0] == "A~2.jpg"


@pytest.mark.parametrize("photo", [f"p/{LONG}.jpg", f"{LONG}.gif", f"{'x' * 251}.gif", "\udcff" * 251 + ".bmp"])
def test_no_name_is_too_long_for_a_disk(photo: str) -> None:
    for key in ResultNames({}).names_of([photo])[photo]:
        name = os.path.basename(key)
        assert len(os.fsencode(name)) <= 255
        assert name.endswith((".jpg", ".png", ".bmp"))


def test_long_names_that_differ_at_their_end_stay_apart() -> None:
    photos = [f"{'x' * 250}{end}.gif" for end in "ab"]
    names = ResultNames({}).names_of(photos)
    assert names[photos[0]] != names[photos[1]]
